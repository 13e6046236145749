"use strict";

// Sorting and filtering of what is in the page; without it all is there, the worst first.
const STEP = 120; // cards that are laid out at first, and with each "Show more"

function sortable(table) {
  const body = table.tBodies[0];
  const value = (row, column, isText) => {
    const cell = row.cells[column];
    return isText ? cell.textContent.trim().toLowerCase() : Number(cell.dataset.value);
  };
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const isText = head.dataset.type === "text";
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const first = isText ? "ascending" : "descending";
      const other = isText ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...body.rows].map((row) => [value(row, column, isText), row]);
      rows.sort(([a], [b]) => sign * (isText ? a.localeCompare(b) : a - b));
      body.append(...rows.map(([, row]) => row));
    });
  });
}

function filterRows(input) {
  const table = document.getElementById(input.dataset.rows);
  input.addEventListener("input", () => {
    const part = input.value.trim().toLowerCase();
    for (const row of table.tBodies[0].rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(part);
  });
}

function cardList(form) {
  const list = document.getElementById(form.dataset.cards);
  const cards = [...list.children];
  const ranks = new Map(cards.map((card) => [card, card.dataset.ranks.split(",").map((text) => (text === "" ? NaN : Number(text)))]));
  const filters = [...form.querySelectorAll("[data-filter]")];
  const sort = form.querySelector("[data-sort]");
  const reverse = form.querySelector("[data-reverse]");
  const count = document.querySelector("[data-count]");
  const more = document.querySelector("[data-more]");
  let fitting = cards;
  let shown = STEP;

  const fits = (card) =>
    filters.every(({ value, dataset }) => {
      if (value.trim() === "") return true;
      const own = card.dataset[dataset.filter];
      return dataset.filter === "key" ? own.includes(value.trim().toLowerCase()) : own === value;
    });

  function show() {
    cards.forEach((card) => (card.hidden = true));
    fitting.slice(0, shown).forEach((card) => (card.hidden = false));
    more.hidden = fitting.length <= shown;
    more.textContent = `Show more (${fitting.length - shown} left)`;
    const some = `${fitting.length.toLocaleString("en")} of ${cards.length.toLocaleString("en")} samples`;
    count.textContent = fitting.length ? some : "No sample fits; Clear shows all again.";
  }

  function update() {
    const column = Number(sort.value);
    const sign = reverse.checked ? -1 : 1;
    fitting = cards.filter(fits);
    fitting.sort((a, b) => {
      const [x, y] = [ranks.get(a)[column], ranks.get(b)[column]];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y); // undefined ones last
      return sign * (x - y);
    });
    list.append(...fitting);
    shown = STEP;
    show();
  }

  // Links name filters behind the #, as samples.html#given=3&predicted=5.
  function fromAddress() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    filters.forEach((field) => {
      if (wanted.has(field.dataset.filter)) field.value = wanted.get(field.dataset.filter);
    });
    update();
  }

  function step(by) {
    const seen = fitting.slice(0, shown);
    const place = seen.indexOf(document.activeElement);
    const next = seen[place < 0 ? 0 : Math.min(Math.max(place + by, 0), seen.length - 1)];
    if (next) {
      next.focus({ preventScroll: true });
      next.scrollIntoView({ block: "nearest" });
    }
  }

  for (const each of ["input", "change"]) form.addEventListener(each, update); // browsers differ in what a select fires
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(update));
  more.addEventListener("click", () => {
    shown += STEP;
    show();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isTyping = event.target.matches("input, select, textarea");
    if (event.key === "Escape") {
      form.reset();
      if (isTyping) event.target.blur();
    } else if (isTyping) {
      return;
    } else if (event.key === "/") {
      event.preventDefault();
      form.querySelector("[data-filter=key]").focus();
    } else if (event.key === "j") {
      step(1);
    } else if (event.key === "k") {
      step(-1);
    }
  });
  window.addEventListener("hashchange", fromAddress);
  fromAddress();
}

document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll("input[data-rows]").forEach(filterRows);
document.querySelectorAll("form[data-cards]").forEach(cardList);

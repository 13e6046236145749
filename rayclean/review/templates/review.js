// All text that comes from the data is set as text, never as markup.
"use strict";

const settings = JSON.parse(document.getElementById("settings").textContent);
const at = (id) => document.getElementById(id);
const AHEAD = 3; // items whose pictures are fetched before they are shown
const FOUND = 50; // classes that a search lists
const LARGE = 512, SMALL = 128;

// The token has done its work: the browser has the cookie now, and nobody shall read the token over a shoulder.
history.replaceState(null, "", location.pathname);

let reviewer = settings.reviewer;
let view = "open";
let rows = [];
let position = 0;
let item = null;
let busy = false;
const fetched = new Map(); // row -> promise of its facts

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ reviewer, ...body }),
  };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer; start `rayclean review` again. What was confirmed is saved");
  }
  const facts = await answer.json();
  if (!answer.ok) throw new Error(facts.error);
  return facts;
}

const query = (fields) => new URLSearchParams({ reviewer, view, ...fields }).toString();

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

const key = (text) => element("kbd", text);
const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`);
const picture = (row, side) => `picture?row=${row}&side=${side}`;

// Runs one action at a time; keys that come while it is at work are dropped, so that nothing is decided unseen.
async function act(work) {
  if (busy) return;
  busy = true;
  at("message").textContent = "";
  try {
    await work();
  } catch (error) {
    at("message").textContent = error.message;
  } finally {
    busy = false;
    document.body.dataset.ready = String(Number(document.body.dataset.ready || 0) + 1);
  }
}

function facts(row) {
  if (!fetched.has(row)) {
    const promise = ask(`api/item?${query({ row })}`);
    promise.catch(() => fetched.delete(row));
    fetched.set(row, promise);
  }
  return fetched.get(row);
}

function prefetch() {
  for (const row of rows.slice(position + 1, position + 1 + AHEAD)) {
    facts(row).then((next) => {
      if (!settings.pictures) return;
      new Image().src = picture(row, LARGE);
      for (const near of next.neighbors) new Image().src = picture(near.row, SMALL);
    }, () => {});
  }
}

async function load() {
  const answer = await ask(`api/queue?${query({})}`);
  fetched.clear();
  rows = answer.rows;
  position = 0;
  showProgress(answer.progress);
  await show();
}

async function show() {
  item = null;
  const there = position < rows.length;
  at("item").hidden = !there;
  at("nothing").hidden = there;
  at("previous").disabled = position === 0;
  at("next").disabled = position >= rows.length;
  at("position").textContent = there ? `${position + 1} of ${rows.length}` : "";
  if (!there) {
    const empty = { open: "Nothing is open: every row has been decided.", mine: "You have decided nothing yet.",
      others: "Others have decided nothing that you have not.", disputed: "Reviewers agree on everything." };
    at("nothing-text").textContent = rows.length ? "That was the last one here." : empty[view];
    return;
  }
  const row = rows[position];
  let found;
  try {
    found = await facts(row);
  } catch (error) {
    at("item").hidden = true; // or the one before would seem to be this one
    at("nothing").hidden = false;
    at("nothing-text").textContent = "";
    throw error;
  }
  if (rows[position] !== row) return;
  item = found;
  draw();
  prefetch();
}

function draw() {
  if (settings.pictures) {
    const large = at("picture");
    large.hidden = false;
    at("no-picture").hidden = true;
    large.src = picture(item.row, LARGE);
    large.alt = `sample ${item.key}`;
  }
  at("key").textContent = at("key").title = item.key;
  at("shard").textContent = at("shard").title = item.shard;
  document.body.classList.toggle("blind", item.blind);
  const kinds = { wrong_label: "The label looks wrong.", ambiguous: "It looks like one of two classes.",
    none_of_the_classes: "It looks like none of the classes.",
    duplicate_with_another_label: "An equal sample has another label." };
  at("kind").textContent = kinds[item.issue_kind] || (item.is_label_issue ? "Flagged." : "Not flagged.");
  at("given").textContent = item.given.name;
  at("given-score").textContent = `right with probability ${percent(item.label_score)}`;
  at("suggestion").textContent = item.suggestion ? item.suggestion.name : "none of the classes: drop";
  at("suggestion-score").textContent = item.suggestion && item.suggestion.label === item.given.label
    ? `the given label, ${percent(item.probability)}` : `right with probability ${percent(item.probability)}`;
  const equal = item.duplicate_of === null ? [] : [neighbor(item.duplicate_of, "equal: ")];
  at("neighbors").replaceChildren(...equal, ...item.neighbors.map((near) => neighbor(near, "")));
  at("choices").replaceChildren(...item.choices.map(choice), search());
  at("scores").replaceChildren(...Object.entries(item.scores).map(score));
  for (const button of document.querySelectorAll("[data-decision]")) {
    button.classList.toggle("taken", isTaken(button.dataset.decision));
  }
  at("verdict").textContent = item.mine ? `You decided: ${said(item.mine)}` : "";
  const others = item.others.map((each) => element("li", `${each.reviewer}: ${said(each)}`));
  if (!others.length && item.num_others) others.push(element("li", "Others have decided; decide to see how.", "small"));
  at("others").replaceChildren(...others);
}

function said(decision) {
  const texts = { keep: `keep (${item.given.name})`, drop: "drop, no class fits", unsure: "unsure" };
  return texts[decision.decision] || decision.label.name;
}

function isTaken(decision) {
  if (!item.mine) return false;
  if (decision === "suggestion" && item.suggestion) {
    return item.mine.decision === "relabel" && item.mine.label.label === item.suggestion.label;
  }
  return item.mine.decision === proposed(decision);
}

// Where the suggestion is none of the classes, to take it is to drop.
function proposed(decision) {
  if (decision !== "suggestion") return decision;
  return item.suggestion ? "relabel" : "drop";
}

function colourOf(label) {
  if (label === item.given.label) return "is-given";
  return item.suggestion && label === item.suggestion.label ? "is-suggested" : "";
}

function neighbor(near, before) {
  const figure = element("figure");
  const caption = element("figcaption", before + near.name, colourOf(near.label));
  if (!settings.pictures) {
    figure.append(caption, element("p", near.key, "small"));
    return figure;
  }
  const image = element("img");
  image.addEventListener("load", () => pixelate(image));
  image.src = picture(near.row, SMALL);
  image.alt = `nearest: ${near.key}`;
  image.addEventListener("error", () => { image.alt = "cannot be read"; });
  figure.append(image, caption);
  return figure;
}

function choice(each) {
  const button = element("button");
  button.type = "button";
  button.title = each.name;
  button.append(key(each.key), ` ${each.name}`);
  button.addEventListener("click", () => decide("relabel", each.name));
  const colour = colourOf(each.label);
  if (colour) button.classList.add(colour);
  if (item.mine && item.mine.label && item.mine.label.label === each.label) button.classList.add("taken");
  return button;
}

function search() {
  const button = element("button");
  button.type = "button";
  button.append(key("c"), " search …");
  button.addEventListener("click", openSearch);
  return button;
}

function score([name, value]) {
  const line = element("div");
  line.append(element("dt", name), element("dd", value === null ? "–" : value.toPrecision(3)));
  return line;
}

function showProgress(progress) {
  at("done-bar").style.width = `${100 * progress.done / Math.max(progress.total, 1)}%`;
  const left = progress.flagged_left === null ? "" : `, ${progress.flagged_left} flagged left`;
  const disputed = progress.disputed ? `, ${progress.disputed} disputed` : "";
  at("counts").textContent =
    `${progress.done} of ${progress.total} decided${left}${disputed}`;
  at("reviewers").textContent = progress.reviewers.map((each) => `${each.name} ${each.done}`).join(" · ");
  at("reviewers").title = at("reviewers").textContent;
  at("take-in").hidden = !progress.agreed;
  at("agreed").textContent = progress.agreed === 1 ? "1 label" : `${progress.agreed} labels`;
  at("command").textContent = at("command").title = settings.command;
}

function pixelate(image) {
  image.classList.toggle("tiny", image.naturalWidth < image.clientWidth / 2);
}

function decide(decision, label) {
  return act(async () => {
    if (!item || (item.blind && decision === "suggestion")) return;
    if (decision === "suggestion" && item.suggestion) label = item.suggestion.name;
    decision = proposed(decision);
    const { row, given } = item;
    const body = { row, given: given.name, decision, label: label === undefined ? null : label };
    const answer = await ask("api/decide", body);
    showProgress(answer.progress);
    fetched.delete(row);
    if (view === "disputed") await show();
    else await step(1);
  });
}

// On to the next one; in the open view past those that somebody else has decided meanwhile.
async function step(by) {
  do {
    position = Math.min(Math.max(position + by, 0), rows.length);
    if (by > 0 && view === "open" && position < rows.length) fetched.delete(rows[position]);
    await show();
  } while (by > 0 && view === "open" && item && !item.mine && item.num_others);
  if (view === "open" && by > 0 && position >= rows.length) {
    const answer = await ask(`api/queue?${query({})}`);
    rows = [...rows, ...answer.rows.filter((row) => !rows.includes(row))];
    showProgress(answer.progress);
    if (position < rows.length) await show();
  }
}

function undo() {
  return act(async () => {
    const answer = await ask("api/undo", {});
    showProgress(answer.progress);
    if (answer.row === null) {
      at("message").textContent = "Nothing to undo.";
      return;
    }
    fetched.delete(answer.row);
    if (!rows.includes(answer.row)) rows.splice(position, 0, answer.row);
    position = rows.indexOf(answer.row);
    await show();
  });
}

// ---- another class, by its name

let matches = [];
let chosen = 0;

function openSearch() {
  if (!item || busy) return;
  at("text").value = "";
  find();
  at("search").showModal();
  at("text").focus();
}

function find() {
  const text = at("text").value.trim().toLowerCase();
  const ranked = settings.classes
    .map((each) => ({ ...each, place: each.name.toLowerCase().indexOf(text) }))
    .filter((each) => each.place >= 0);
  // Names that begin so come first; a sort keeps the order of equals.
  matches = ranked.sort((a, b) => Math.min(a.place, 1) - Math.min(b.place, 1)).slice(0, FOUND);
  chosen = 0;
  drawMatches();
}

function drawMatches() {
  at("found").replaceChildren(...matches.map((each, i) => {
    const line = element("li", each.name, i === chosen ? "chosen" : "");
    line.addEventListener("click", () => take(i));
    return line;
  }));
  at("found").children[chosen]?.scrollIntoView({ block: "nearest" });
}

function take(i) {
  at("search").close();
  if (matches[i]) decide("relabel", matches[i].name);
}

at("text").addEventListener("input", find);
at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter") {
    event.preventDefault();
    take(chosen);
  } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    chosen = Math.min(Math.max(chosen + (event.key === "ArrowDown" ? 1 : -1), 0), Math.max(matches.length - 1, 0));
    drawMatches();
  }
});

// ---- keys, buttons, start

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) {
    if (event.key === "?" && at("keys").open) at("keys").close();
    return;
  }
  // A key that is held down decides once.
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
  const commands = {
    k: () => decide("keep"), s: () => decide("suggestion"), d: () => decide("drop"), u: () => decide("unsure"),
    c: openSearch, z: undo, "?": () => at("keys").showModal(),
    ArrowLeft: () => act(() => step(-1)), ArrowRight: () => act(() => step(1)),
  };
  const pressed = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const named = item && item.choices.find((each) => each.key === pressed);
  const work = commands[pressed] || (named && (() => decide("relabel", named.name)));
  if (work) {
    event.preventDefault();
    work();
  }
});

for (const button of document.querySelectorAll("[data-decision]")) {
  button.addEventListener("click", () => decide(button.dataset.decision));
}
// A button that keeps the focus would be pressed again by the space bar.
document.addEventListener("click", (event) => event.target.closest("button")?.blur());
at("previous").addEventListener("click", () => act(() => step(-1)));
at("next").addEventListener("click", () => act(() => step(1)));
at("undo").addEventListener("click", undo);
at("help").addEventListener("click", () => at("keys").showModal());
at("view").addEventListener("change", (event) => act(() => {
  view = event.target.value;
  event.target.blur();
  return load();
}));
at("picture").addEventListener("load", () => pixelate(at("picture")));
at("picture").addEventListener("error", async () => {
  at("picture").hidden = true;
  at("no-picture").hidden = false;
  at("no-picture").textContent = "The picture cannot be read.";
  try {
    await ask(at("picture").getAttribute("src"));
  } catch (error) {
    at("no-picture").textContent = `The picture cannot be read: ${error.message}`;
  }
});
at("who").addEventListener("cancel", (event) => event.preventDefault());
at("who").addEventListener("close", () => {
  reviewer = at("name").value.trim();
  act(async () => {
    try {
      await load();
      localStorage.setItem("reviewer", reviewer);
    } catch (error) {
      at("refused").textContent = error.message;
      at("who").showModal();
    }
  });
});

if (reviewer === null) {
  at("name").value = localStorage.getItem("reviewer") || "";
  at("who").showModal();
} else {
  act(load);
}

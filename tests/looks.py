"""How a page looks to a reader, measured in the browser: contrast of its text, its headings, names of its parts."""

from __future__ import annotations

import itertools

from selenium import webdriver

SCHEMES = ("light", "dark")

COLOURS = """
const parsed = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const over = ([r, g, b, a = 1], ground) => [r, g, b].map((part, i) => part * a + ground[i] * (1 - a));
const luminance = (colour) => colour.slice(0, 3).map((part) => part / 255)
  .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
  .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
const contrast = (a, b) => {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
};
// What is below all: pages that follow the scheme have another canvas in it.
const canvas = matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255];
const grounds = (element) => {
  if (!element) return [canvas];
  const style = getComputedStyle(element);
  const own = (style.backgroundImage.match(/rgba?\\([^)]*\\)/g) || [style.backgroundColor]).map(parsed);
  if (own.every((each) => each.length === 3)) return own;
  return own.flatMap((each) => grounds(element.parentElement).map((ground) => over(each, ground)));
};
"""

# Contrast of each text with the ground below it, by WCAG 2; what is disabled is exempt there.
FAINT = """
const below = (element) => {
  const cell = element.classList.contains("cell") && element.previousElementSibling;
  if (!cell) return grounds(element);
  const style = getComputedStyle(cell);
  const fill = [...parsed(style.fill), Number(style.fillOpacity)];
  return grounds(element.closest("svg")).map((ground) => over(fill, ground));
};
const found = [];
let seen = 0;
const judge = (text, colour, element, style) => {
  seen += 1;
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  for (const ground of below(element)) {
    const value = contrast(over(parsed(colour), ground), ground);
    if (value >= (large ? 3 : 4.5)) continue;
    found.push(`${value.toFixed(2)} ${element.tagName}.${element.className} ${text.slice(0, 40)}`);
  }
};
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const text = texts.currentNode.textContent.trim();
  const element = texts.currentNode.parentElement;
  if (!text || element.closest("script, option, title, :disabled")) continue;
  if (!element.checkVisibility({ visibilityProperty: true })) continue;
  const svg = element.closest("svg");
  const style = getComputedStyle(element);
  judge(text, svg ? style.fill : style.color, element, style);
}
for (const input of document.querySelectorAll("input[placeholder]")) {
  const style = getComputedStyle(input, "::placeholder");
  if (input.checkVisibility()) judge(input.placeholder, style.color, input, style);
}
return [seen, [...new Set(found)]];
"""

# Contrast of what shows where a field or a button is with the ground that it stands on.
EDGES = """
return [...document.querySelectorAll("button, select, input")].filter((each) => {
  const style = getComputedStyle(each);
  if (!each.checkVisibility() || each.disabled || parseFloat(style.borderTopWidth) === 0) return false;
  return grounds(each.parentElement).some((ground) => contrast(parsed(style.borderTopColor), ground) < 3);
}).map((each) => each.outerHTML.slice(0, 120));
"""

# Without a name: of a button, a link, a field, a picture, a plot.
NAMELESS = """
const named = (each) => (each.getAttribute("aria-label") || each.textContent || "").trim() ||
  (each.labels && each.labels.length) || (each.getAttribute("alt") || "").trim();
return [...document.querySelectorAll("button, a, input, select, img, svg:not([aria-hidden])")]
  .filter((each) => each.checkVisibility() && !named(each)).map((each) => each.outerHTML.slice(0, 200));
"""

# What reaches beyond the window, but for what is cut, or scrolls in a part of its own (.wide).
OUTSIDE = """
const cut = (each) => each && (getComputedStyle(each).overflowX === "hidden" || cut(each.parentElement));
return [...document.querySelectorAll("body *")]
  .filter((each) => each.checkVisibility() && !each.closest("svg, select, .wide") && !cut(each.parentElement))
  .filter((each) => each.getBoundingClientRect().right > window.innerWidth + 1)
  .map((each) => each.outerHTML.slice(0, 120));
"""

LEVELS = """
return [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")]
  .filter((each) => each.checkVisibility()).map((each) => Number(each.tagName[1]));
"""


def set_scheme(browser: webdriver.Chrome, scheme: str) -> None:
    """What the system prefers from now on: `light` or `dark`; an empty text for what it is by itself."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def faint_texts(browser: webdriver.Chrome) -> list[str]:
    """Visible texts whose contrast is below 4.5 (3 where they are large), each with the contrast.

    A page without any text fails: nothing would be measured.
    """
    seen, found = browser.execute_script(COLOURS + FAINT)
    assert seen
    return list(found)


def faint_edges(browser: webdriver.Chrome) -> list[str]:
    """Fields and buttons whose border has a contrast below 3, as markup; of those that have one."""
    return list(browser.execute_script(COLOURS + EDGES))


def nameless(browser: webdriver.Chrome) -> list[str]:
    """What a reader of the screen could not name, as markup."""
    return list(browser.execute_script(NAMELESS))


def skipped_levels(browser: webdriver.Chrome) -> list[tuple[int, int]]:
    """Where headings leave out a level, the first of which is 1: (before, after)."""
    levels = [0, *browser.execute_script(LEVELS)]
    assert levels.count(1) == 1, "one heading of the page"
    return [(a, b) for a, b in itertools.pairwise(levels) if b > a + 1]


def outside(browser: webdriver.Chrome) -> list[str]:
    """What does not fit into the window's width, as markup."""
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    return list(browser.execute_script(OUTSIDE))

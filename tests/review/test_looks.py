"""How the review looks in light and dark, what is above the fold of a small window, and a thousand long names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from rayclean.config import Config
from rayclean.review.command import survey_of
from rayclean.storage.store import Store
from tests.helpers import republish
from tests.looks import SCHEMES, faint_edges, faint_texts, nameless, outside, set_scheme, skipped_levels
from tests.review.runs import NAMES, serving
from tests.review.test_browser import Page, address, said

Window = Callable[[int, int], Chrome]
SMALL = (400, 800)
DECIDING = [
    "#picture",
    "#key",
    "#given",
    "#suggestion",
    *(f"[data-decision={name}]" for name in ("keep", "suggestion")),
]
DECIDING += ["[data-decision=drop]", "[data-decision=unsure]", "#undo"]
BELOW = """
const foot = document.querySelector("footer").getBoundingClientRect().top;
return arguments[0].filter((each) => {
  const box = document.querySelector(each).getBoundingClientRect();
  const end = document.querySelector(each).closest("footer") ? window.innerHeight : foot;
  return !(box.width > 20 && box.height > 14 && box.top >= 0 && box.bottom <= end && box.right <= window.innerWidth);
});
"""
LONG = [f"{name} and more words that somebody took from a taxonomy, " + "and_one_without_a_gap" * 5 for name in NAMES]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_text_is_readable(window: Window, reviewed: Config, scheme: str) -> None:
    chrome = window(1280, 800)
    set_scheme(chrome, scheme)
    with serving(reviewed, "anna") as server:
        page = Page(chrome, address(server)).ready()
        ground = chrome.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(245, 246, 248)" if scheme == "light" else "rgb(20, 25, 30)")
        page.type("s", Keys.ARROW_LEFT)  # decided, the command is there
        assert page.at("take-in").is_displayed()
        assert faint_texts(chrome) == []
        for key in ("c", "?"):
            page.press(key)
            assert faint_texts(chrome) == []
            assert faint_edges(chrome) == []
            page.press(Keys.ESCAPE)
        chrome.execute_script("document.getElementById('message').textContent = 'what went wrong'")
        assert faint_texts(chrome) == []


def test_what_is_needed_to_decide_is_above_the_fold(window: Window, reviewed: Config) -> None:
    chrome = window(*SMALL)
    with serving(reviewed, "anna") as server:
        page = Page(chrome, address(server)).ready()
        for key in ("s", "k", "d"):
            assert chrome.execute_script(BELOW, DECIDING) == []
            assert outside(chrome) == []
            page.type(key)
        assert chrome.execute_script(BELOW, [*DECIDING, "#choices", "#take-in"]) == []
        chrome.execute_script("document.querySelector('.frame').style.height = '500px'")
        assert chrome.execute_script(BELOW, DECIDING) != [], "what is below is found"


def test_a_drawn_sample_is_decided_above_the_fold_too(window: Window, reviewed: Config) -> None:
    chrome = window(*SMALL)
    with serving(reviewed, "anna", survey_of(reviewed, 20)) as server:
        Page(chrome, address(server)).ready()
        shown = [each for each in DECIDING if "suggestion" not in each]
        assert chrome.execute_script(BELOW, shown) == []


def test_headings_leave_no_level_out_and_all_has_a_name(window: Window, reviewed: Config) -> None:
    chrome = window(1280, 800)
    with serving(reviewed, "anna") as server:
        page = Page(chrome, address(server)).ready()
        for key in ("", "c", "?"):
            page.press(key)
            assert skipped_levels(chrome) == []
            assert nameless(chrome) == []
            page.press(Keys.ESCAPE)


@pytest.mark.parametrize("size", [(1280, 800), SMALL])
def test_a_thousand_long_names_hold(window: Window, reviewed: Config, size: tuple[int, int]) -> None:
    others = [f"{i:04d} {LONG[0]}" for i in range(1000 - len(LONG))]
    republish(Store(str(Path(reviewed.run.dir))), names=[*LONG, *others])
    chrome = window(*size)
    with serving(reviewed, "anna") as server:
        page = Page(chrome, address(server)).ready()
        assert chrome.execute_script(BELOW, DECIDING) == []
        assert outside(chrome) == []
        page.press("c", *"0777")
        assert page.text("found") == others[777]
        assert outside(chrome) == []
        page.type(Keys.ENTER)
        assert said(reviewed)[0][1:] == ("relabel", others[777])
        assert not page.complaints()

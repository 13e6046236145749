"""How the report looks in light and dark: contrast, headings, names, and a thousand long names of classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from rayclean.config import Config
from rayclean.report.command import write_report
from rayclean.run.run import Run
from tests.looks import SCHEMES, faint_edges, faint_texts, nameless, outside, set_scheme, skipped_levels

Window = Callable[[int, int], webdriver.Chrome]
PAGES = ("index.html", "samples.html", "duplicates.html", "classes/class-00001.html")
NUM_CLASSES = 1000
LONG = [
    f"{i:04d} a name with words that somebody took from a taxonomy, " + "and_one_without_a_gap" * 5 for i in range(1000)
]


@pytest.fixture(scope="module")
def report(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "report"
    write_report(trained.config, str(out))
    return out


@pytest.fixture(scope="module")
def many(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The report of a run of a thousand classes, of which few have samples."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "names.txt").write_text("\n".join(LONG))
    run = finish(tiny_config(folder / "run", f"data.classes={folder}/names.txt", "train.epochs=1", "train.from="))
    write_report(run.config, str(folder / "report"))
    return folder / "report"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_text_is_readable(window: Window, report: Path, scheme: str) -> None:
    browser = window(1400, 1000)
    set_scheme(browser, scheme)
    grounds = set()
    for name in PAGES:
        browser.get(f"file://{report}/{name}")
        browser.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
        grounds.add(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
        assert faint_texts(browser) == [], name
        assert faint_edges(browser) == [], name
    assert grounds == {"rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 25, 30)"}


def test_what_is_too_faint_is_found(window: Window, report: Path) -> None:
    browser = window(1400, 1000)
    browser.get(f"file://{report}/index.html")
    browser.execute_script("document.querySelector('h1').style.color = '#ccc'")
    (found,) = faint_texts(browser)
    assert " H1." in found
    browser.execute_script("document.querySelector('[data-rows]').style.borderColor = '#ccc'")
    assert len(faint_edges(browser)) == 1
    browser.execute_script("document.querySelector('.tile b').style.background = 'rgba(0, 0, 0, .7)'")
    assert len(faint_texts(browser)) == 2


def test_headings_leave_no_level_out_and_all_has_a_name(window: Window, report: Path) -> None:
    browser = window(400, 800)
    for name in PAGES:
        browser.get(f"file://{report}/{name}")
        assert skipped_levels(browser) == [], name
        assert nameless(browser) == [], name


def test_where_the_keys_are_is_seen(window: Window, report: Path) -> None:
    browser = window(1400, 1000)
    browser.get(f"file://{report}/samples.html")
    for _ in range(6):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        style = browser.execute_script(
            "const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth]"
        )
        assert style == ["solid", "2px"], browser.switch_to.active_element.get_attribute("outerHTML")


@pytest.mark.parametrize("width", [1400, 400])
def test_a_thousand_long_names_hold(window: Window, many: Path, width: int) -> None:
    browser = window(width, 900)
    for name in (*PAGES[:3], *(f"classes/{path.name}" for path in many.glob("classes/*"))):
        browser.get(f"file://{many}/{name}")
        assert outside(browser) == [], name
    browser.get(f"file://{many}/index.html")
    browser.find_element("css selector", "[data-rows]").send_keys("0001")
    rows = browser.execute_script(
        "return [...document.querySelectorAll('#classes tbody tr')].map((each) => each.hidden)"
    )
    assert rows.count(False) == 1

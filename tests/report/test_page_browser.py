"""Sorting and filtering in a real browser, from file:// and without a server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.ui import WebDriverWait

from rayclean.inspect.final_table import FinalTable
from rayclean.report.command import write_report
from rayclean.run.run import Run
from rayclean.storage.published import Published

Window = Callable[[int, int], webdriver.Chrome]


@pytest.fixture
def browser(window: Window) -> webdriver.Chrome:
    return window(1400, 1200)


@pytest.fixture(scope="module")
def report(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "report"
    write_report(trained.config, str(out))
    return out


@pytest.fixture(scope="module")
def lines(trained: Run) -> list[dict[str, object]]:
    table = FinalTable.of(Published.open(trained.store))
    assert table is not None
    found: list[dict[str, object]] = table.rows.to_table().to_pylist()
    return found


def shown(browser: webdriver.Chrome) -> list[int]:
    """Rows of the cards that can be seen, in their order."""
    script = (
        "return [...document.querySelectorAll('.card')].filter(c => c.offsetParent).map(c => Number(c.id.slice(4)))"
    )
    found: list[int] = browser.execute_script(script)
    return found


def choose(browser: webdriver.Chrome, selector: str, value: str) -> None:
    Select(browser.find_element(By.CSS_SELECTOR, selector)).select_by_value(value)


def errors(browser: webdriver.Chrome) -> list[dict[str, object]]:
    found: list[dict[str, object]] = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return found


def test_filters_and_order(browser: webdriver.Chrome, report: Path, lines: list[dict[str, object]]) -> None:
    browser.get(f"file://{report}/samples.html")
    everything = sorted(lines, key=lambda x: (x["label_score"], x["row"]))
    assert shown(browser) == [line["row"] for line in everything]
    choose(browser, "[data-filter=given]", "1")
    assert shown(browser) == [line["row"] for line in everything if line["given_label"] == 1]
    choose(browser, "[data-filter=issue]", "yes")
    flagged = [x for x in everything if x["given_label"] == 1 and (x["is_label_issue"] or x["issue_kind"])]
    assert shown(browser) == [line["row"] for line in flagged]
    assert browser.find_element(By.CSS_SELECTOR, "[data-count]").text == f"{len(flagged)} of {len(lines)} samples"
    browser.find_element(By.CSS_SELECTOR, "button[type=reset]").click()
    WebDriverWait(browser, 30).until(lambda _: len(shown(browser)) == len(lines))  # the page acts after the reset
    scores = [name.removeprefix("score_") for name in lines[0] if name.startswith("score_")]
    choose(browser, "[data-sort]", str(1 + scores.index("margin")))
    column = {line["row"]: line["score_margin"] for line in lines}
    values = [column[row] for row in shown(browser)]
    assert values == sorted(values)  # type: ignore[type-var]
    browser.find_element(By.CSS_SELECTOR, "[data-reverse]").click()
    assert [column[row] for row in shown(browser)] == values[::-1]
    assert errors(browser) == []


def test_rows_without_a_score_come_last(browser: webdriver.Chrome, report: Path) -> None:
    browser.get(f"file://{report}/samples.html")
    text = (report / "samples.html").read_text()
    row = shown(browser)[0]
    start = text.index(f'id="row-{row}"')
    (report / "partly.html").write_text(text[:start] + text[start:].replace('data-ranks="', 'data-ranks="0,,', 1))
    browser.get(f"file://{report}/partly.html")
    choose(browser, "[data-sort]", "1")
    assert shown(browser)[-1] == row
    browser.find_element(By.CSS_SELECTOR, "[data-reverse]").click()
    assert shown(browser)[-1] == row


def test_keys(browser: webdriver.Chrome, report: Path, lines: list[dict[str, object]]) -> None:
    browser.get(f"file://{report}/samples.html")
    page = browser.find_element(By.TAG_NAME, "body")
    page.send_keys("j")
    order = shown(browser)
    assert browser.switch_to.active_element.get_attribute("id") == f"row-{order[0]}"
    for key, place in (("j", 1), ("j", 2), ("k", 1), ("k", 0), ("k", 0)):
        browser.switch_to.active_element.send_keys(key)
        assert browser.switch_to.active_element.get_attribute("id") == f"row-{order[place]}"
    browser.switch_to.active_element.send_keys("/")
    field = browser.switch_to.active_element
    assert field.get_attribute("data-filter") == "key"
    field.send_keys("COPY")
    assert {lines[row]["key"] for row in shown(browser)} == {"copy0", "copy1", "copy2"}
    field.send_keys("jk/")
    assert shown(browser) == []
    assert "No sample fits" in page.text
    field.send_keys(Keys.ESCAPE)
    WebDriverWait(browser, 30).until(lambda _: shown(browser) == order)


def test_a_link_of_the_overview_chooses(
    browser: webdriver.Chrome, report: Path, lines: list[dict[str, object]]
) -> None:
    browser.get(f"file://{report}/index.html")
    link = browser.find_element(By.CSS_SELECTOR, "a[href*='#given=']")
    wanted = dict(part.split("=") for part in str(link.get_attribute("href")).partition("#")[2].split("&"))
    link.click()
    pair = int(wanted["given"]), int(wanted["predicted"])
    assert shown(browser)
    assert {(lines[row]["given_label"], lines[row]["predicted_label"]) for row in shown(browser)} == {pair}


def test_the_table_of_classes_sorts_and_searches(browser: webdriver.Chrome, report: Path) -> None:
    browser.get(f"file://{report}/index.html")

    def column(number: int) -> list[str]:
        cells = browser.find_elements(By.CSS_SELECTOR, f"#classes tbody tr td:nth-child({number})")
        return [cell.text for cell in cells if cell.is_displayed()]

    head = browser.find_element(By.CSS_SELECTOR, "#classes th:nth-child(2) button")
    head.click()
    rows = [int(text) for text in column(2)]
    assert rows == sorted(rows, reverse=True)
    head.send_keys(Keys.ENTER)
    assert [int(text) for text in column(2)] == sorted(rows)
    browser.find_element(By.CSS_SELECTOR, "[data-rows]").send_keys("3")
    assert column(1) == ["3"]


def test_more_are_shown_when_asked_for(browser: webdriver.Chrome, report: Path) -> None:
    script = (report / "report.js").read_text()
    (report / "report.js").write_text(script.replace("const STEP = 120", "const STEP = 5"))
    browser.get(f"file://{report}/samples.html")
    assert len(shown(browser)) == 5
    browser.find_element(By.CSS_SELECTOR, "[data-more]").click()
    assert len(shown(browser)) == 10
    (report / "report.js").write_text(script)


PLANTED = """<p id="planted" style="color: rgb(1, 2, 3)">text</p><style>#planted { color: rgb(1, 2, 3); }</style>
<img src="http://127.0.0.1:9/x.png"><img src="data:image/png;base64,x" onerror="document.title = 'by an event'">
<script>document.title = "by a script";</script><a id="link" href="javascript:document.title='by a link'">here</a>"""


def test_markup_that_came_through_would_do_nothing(browser: webdriver.Chrome, report: Path) -> None:
    """Names and keys are escaped; should one not be, the page's policy stands behind."""
    page = report / "samples.html"
    planted = report / "planted.html"
    planted.write_text(page.read_text().replace("</main>", f"{PLANTED}</main>"))
    for name in ("index.html", "samples.html", "duplicates.html", "classes/class-00001.html"):
        browser.get(f"file://{report}/{name}")
        browser.execute_async_script("setTimeout(arguments[0], 20)")
        assert errors(browser) == [], name
        pictures = browser.execute_script(
            "return [...document.images].filter(i => i.complete && !i.naturalWidth).length"
        )
        assert pictures == 0
    browser.get(f"file://{planted}")
    title = browser.title
    browser.find_element(By.ID, "link").click()
    browser.execute_async_script("setTimeout(arguments[0], 50)")
    assert title.startswith("Worst samples")
    assert browser.title == title
    assert browser.find_element(By.ID, "planted").value_of_css_property("color") != "rgba(1, 2, 3, 1)"
    refused = [line for line in errors(browser) if "Content Security Policy" in str(line["message"])]
    assert len(refused) >= 6, "style, sheet, two pictures, script, link"
    planted.unlink()


@pytest.mark.parametrize("width", [1400, 700, 400])
def test_no_page_is_wider_than_its_window(window: Window, report: Path, width: int) -> None:
    browser = window(width, 1000)
    for name in ("index.html", "samples.html", "duplicates.html", "classes/class-00001.html"):
        browser.get(f"file://{report}/{name}")
        assert browser.execute_script("return window.innerWidth") == width
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"), name

"""The page in a real browser: decisions by keyboard and mouse, kill -9, undo, strangers' text."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from rayclean.config import Config
from rayclean.review.command import survey_of
from rayclean.review.server import ReviewServer
from rayclean.schema import NONE_OF_CLASSES
from rayclean.storage.contents import encode
from rayclean.storage.store import Store
from tests.helpers import republish
from tests.review.runs import NAMES, Process, entries_of, serving, serving_apart

# Set to a folder (docs/images), the pictures of the documentation are made there.
SHOTS = "RAYCLEAN_DOC_IMAGES"
WIDTH, HEIGHT = 1280, 800
WAIT_S = 30
ODD_NAME = "<b onclick=alert(1)>seven</b> & 'co'"
ODD_KEY = "<img src=x onerror=\"document.title='broken'\"> & 'quotes'"
Found = TypeVar("Found")


@pytest.fixture
def chrome(window: Callable[[int, int], Chrome]) -> Chrome:
    return window(WIDTH, HEIGHT)


class Page:
    """The page as a reviewer has it."""

    def __init__(self, chrome: Chrome, url: str) -> None:
        self.chrome = chrome
        self._done = 0
        chrome.get("about:blank")
        self.complaints()  # what another page has left
        chrome.get(url)

    def at(self, name: str) -> WebElement:
        return self.chrome.find_element(By.ID, name)

    def text(self, name: str) -> str:
        return self.at(name).text

    def ready(self) -> Page:
        """Waits until one more action of the page has ended."""
        wait_for(
            lambda: int(self.chrome.find_element(By.TAG_NAME, "body").get_attribute("data-ready") or 0) > self._done
        )
        self._done = int(self.chrome.find_element(By.TAG_NAME, "body").get_attribute("data-ready") or 0)
        return self

    def type(self, *keys: str) -> Page:
        """Presses keys of which each makes the page act."""
        for key in keys:
            self.press(key).ready()
        return self

    def press(self, *keys: str) -> Page:
        ActionChains(self.chrome).send_keys(*keys).perform()
        return self

    def shot(self, name: str) -> None:
        """A picture for the documentation, where it is asked for, once all pictures of the page are there."""
        if folder := os.environ.get(SHOTS):
            command = "rayclean run runs/digits/config.yaml merge.verified=review"  # not a folder of this test
            self.chrome.execute_script("arguments[0].textContent = arguments[1]", self.at("command"), command)
            wait_for(lambda: self.chrome.execute_script("return [...document.images].every((each) => each.complete)"))
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.chrome.save_screenshot(str(Path(folder, name)))

    def complaints(self) -> list[str]:
        """What the browser has to say against the page."""
        return [line["message"] for line in self.chrome.get_log("browser")]  # type: ignore[no-untyped-call]


def wait_for(look: Callable[[], Found]) -> Found:
    deadline = time.monotonic() + WAIT_S
    while not (found := look()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return found


def address(server: ReviewServer | Process) -> str:
    return server.url if isinstance(server, Process) else server.door.url


def said(config: Config, reviewer: str = "anna") -> list[tuple[str, str, str | None]]:
    return [(each.key, each.decision.value, each.label) for each in entries_of(config, reviewer)]


def test_keys_decide_and_nothing_is_lost_by_kill_9(chrome: Chrome, reviewed: Config) -> None:
    with serving_apart(reviewed, "anna") as server:
        page = Page(chrome, address(server)).ready()
        assert page.text("counts").startswith("0 of 240 decided")
        keys, given, suggested = [], [], []
        for pressed in "ksdu4":
            keys.append(page.text("key"))
            given.append(NAMES.index(page.text("given")))
            suggested.append(page.text("suggestion"))
            page.type(pressed)
        assert len(set(keys)) == 5
        expected = [("keep", None), ("relabel", suggested[1]), ("drop", None), ("unsure", None), ("relabel", NAMES[3])]
        assert given[4] != 3
        assert said(reviewed) == [(key, *each) for key, each in zip(keys, expected, strict=True)]
        assert page.text("counts").startswith("5 of 240 decided")
        assert "take in 4 labels: rayclean run" in page.text("take-in").lower()
        following = page.text("key")
        page.shot("review.png")
        assert not page.complaints()
        server.kill()
        page.type("k")
        assert "the server does not answer" in page.text("message")
        assert len(said(reviewed)) == 5

    with serving(reviewed, "anna") as server:
        page = Page(chrome, address(server)).ready()
        assert page.text("counts").startswith("5 of 240 decided")
        assert page.text("key") == following, "what was decided is offered again"
        page.type("z")
        assert (page.text("key"), said(reviewed)[-1]) == (keys[4], (keys[4], "undo", None))
        page.type("z")
        assert page.text("key") == keys[3]
        assert page.text("counts").startswith("3 of 240 decided")
        assert not page.complaints()


def test_moving_searching_and_the_mouse(chrome: Chrome, reviewed: Config) -> None:
    with serving(reviewed, "anna") as server:
        page = Page(chrome, address(server)).ready()
        first = page.text("key")
        assert not page.at("previous").is_enabled()
        page.type(Keys.ARROW_RIGHT)
        second = page.text("key")
        assert second != first
        page.type(Keys.ARROW_LEFT)
        assert (page.text("key"), said(reviewed)) == (first, [])

        page.press("c")
        assert page.at("search").is_displayed()
        page.press("k", "z").press(Keys.ESCAPE)
        assert not page.at("search").is_displayed()
        assert said(reviewed) == [], "keys in the search are text"
        label = next(i for i, name in enumerate(NAMES) if name.startswith("t") and name != page.text("given"))
        page.press("c", *NAMES[label]).type(Keys.ENTER)
        assert said(reviewed) == [(first, "relabel", NAMES[label])]

        page.press("?")
        assert page.at("keys").is_displayed()
        page.press("d").press(Keys.ESCAPE)
        assert not page.at("keys").is_displayed()
        assert len(said(reviewed)) == 1

        chrome.find_element(By.CSS_SELECTOR, "[data-decision=drop]").click()
        page.ready()
        assert said(reviewed)[1:] == [(second, "drop", None)]
        page.type(Keys.ARROW_LEFT)
        assert "drop" in page.text("verdict")
        page.type("k")
        assert said(reviewed)[2:] == [(second, "keep", None)], "a decision may be changed"
        assert page.text("counts").startswith("2 of 240 decided")
        assert not page.complaints()


def test_reviewers_who_differ(chrome: Chrome, reviewed: Config) -> None:
    with serving(reviewed) as server:
        page = Page(chrome, address(server))
        wait_for(lambda: page.at("who").is_displayed())
        page.press("a/b", Keys.ENTER).ready()
        assert "expected letters" in page.text("refused")
        page.at("name").send_keys(Keys.CONTROL, "a")
        page.press("anna", Keys.ENTER).ready()
        key = page.text("key")
        page.type("d")

        page = Page(chrome, address(server))
        wait_for(lambda: page.at("who").is_displayed())
        assert page.at("name").get_attribute("value") == "anna", "the name is remembered"
        page.at("name").send_keys(Keys.CONTROL, "a")
        page.press("ben", Keys.ENTER).ready()
        assert page.text("key") != key, "what anna decided is not offered"
        choose(page, "others")
        assert (page.text("key"), page.text("others")) == (key, "Others have decided; decide to see how.")
        page.type("k")
        assert "1 disputed" in page.text("counts")
        assert (said(reviewed, "anna"), said(reviewed, "ben")) == ([(key, "drop", None)], [(key, "keep", None)])
        choose(page, "disputed")
        assert page.text("others") == "anna: drop, no class fits"
        page.type("d")
        assert "disputed" not in page.text("counts")
        assert "1 label:" in page.text("take-in")
        assert page.text("reviewers") == "anna 1 · ben 1"


def choose(page: Page, view: str) -> None:
    page.chrome.find_element(By.CSS_SELECTOR, f"#view option[value={view}]").click()
    page.ready()


def replaced(path: Path, column: str, old: str, new: str) -> None:
    """Puts another text into a column of a Parquet file."""
    table = pq.read_table(path)
    values = pc.if_else(pc.equal(table[column], old), pa.scalar(new), table[column])
    field = table.schema.field(column)
    changed = table.set_column(table.schema.get_field_index(column), field, values)
    path.write_bytes(encode(path.name, changed, "{}"))


def test_where_no_class_is_likely_the_suggestion_is_to_drop(chrome: Chrome, reviewed: Config) -> None:
    run = Path(reviewed.run.dir)
    for path in run.glob("labels/part-*.parquet"):
        table = pq.read_table(path)
        none = pa.array([NONE_OF_CLASSES] * table.num_rows, pa.int32())
        index = table.schema.get_field_index("predicted_label")
        table = table.set_column(index, table.schema.field(index), none)
        path.write_bytes(encode(path.name, table, "{}"))
    republish(Store(str(run)))
    with serving(reviewed, "anna") as server:
        page = Page(chrome, address(server)).ready()
        key = page.text("key")
        assert page.text("suggestion") == "none of the classes: drop"
        page.type("s")
        assert said(reviewed) == [(key, "drop", None)]
        page.type(Keys.ARROW_LEFT)
        assert page.text("verdict") == "You decided: drop, no class fits"
        assert not page.complaints()


def test_a_sample_is_decided_without_what_the_run_makes_of_it(chrome: Chrome, reviewed: Config) -> None:
    with serving(reviewed, "anna", survey_of(reviewed, 20)) as server:
        page = Page(chrome, address(server)).ready()
        assert page.text("counts") == "0 of 20 decided"
        for name in ("suggestion", "suggestion-score", "given-score", "neighbors", "scores", "kind"):
            assert page.text(name) == "", name
        assert not chrome.find_element(By.CSS_SELECTOR, "[data-decision=suggestion]").is_displayed()
        key = page.text("key")
        page.type("s")
        assert (said(reviewed), page.text("key")) == ([], key), "there is no suggestion to take"
        page.type("k")
        assert said(reviewed) == [(key, "keep", None)]
        assert page.text("counts") == "1 of 20 decided"
        assert not page.complaints()


def test_markup_in_names_and_keys_stays_text(chrome: Chrome, reviewed: Config) -> None:
    with serving(reviewed, "anna") as server:
        key = Page(chrome, address(server)).ready().text("key")
    run = Path(reviewed.run.dir)
    for path in (*run.glob("labels/part-*.parquet"), *run.glob("catalog-*/rows/*.parquet")):
        replaced(path, "key", key, ODD_KEY)
    republish(Store(str(run)), names=[ODD_NAME if name == NAMES[7] else name for name in NAMES])
    with serving(reviewed, "anna") as server:
        page = Page(chrome, address(server)).ready()
        assert page.text("key") == ODD_KEY
        assert ODD_NAME in page.text("choices")
        page.press("c", "onclick")
        assert page.text("found") == ODD_NAME
        page.type(Keys.ENTER)
        page.type(Keys.ARROW_LEFT)
        assert page.text("verdict") == f"You decided: {ODD_NAME}"
        assert said(reviewed) == [(ODD_KEY, "relabel", ODD_NAME)]
        assert not chrome.find_elements(By.CSS_SELECTOR, "b, [onclick], [onerror]")
        assert chrome.title == "Review digits"
        assert not page.complaints()

"""The report of a finished run: every fact is the table's, every name is text, every link and picture is there."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayclean.config import Config
from rayclean.errors import ConfigError, InputError
from rayclean.evaluate.evaluate import read_truth
from rayclean.evaluate.results import evaluate_run
from rayclean.inspect.final_table import FinalTable
from rayclean.report import command
from rayclean.report.command import write_report
from rayclean.report.page_files import MARK
from rayclean.run.run import Run
from rayclean.storage.contents import encode
from rayclean.storage.published import Published
from rayclean.storage.store import Store
from tests.conftest import SHARD_SAMPLES, Sample
from tests.helpers import republish

Lines = list[dict[str, Any]]
NAMES = ["<script>alert(1)</script>", 'quoted" onload="alert(2)', "it's & <b>bold</b>", "{{ 7 * 7 }}", "e/../f", "ünï"]
KEY = "\"'<i>&{{x}}"  # ends every key


@pytest.fixture(scope="module")
def hostile(
    tiny_samples: list[Sample],
    write_tiny: Callable[[Path, Sequence[Sample], Sequence[int]], str],
    tiny_config: Callable[..., Config],
    finish: Callable[..., Run],
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """The tiny run with keys and class names that are markup. Only to be read."""
    folder = tmp_path_factory.mktemp("hostile")
    samples = [[(name.replace(".", f"{KEY}.", 1), data) for name, data in members] for members in tiny_samples]
    shards = write_tiny(folder / "shards", samples, SHARD_SAMPLES)
    return finish(tiny_config(folder / "<b>run", f"data.shards={shards}", f"data.classes={json.dumps(NAMES)}"))


@pytest.fixture(scope="module")
def lines(hostile: Run) -> Lines:
    table = FinalTable.of(Published.open(hostile.store))
    assert table is not None
    found: Lines = table.rows.to_table().to_pylist()
    return found


@pytest.fixture(scope="module")
def report(hostile: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report's folder."""
    out = tmp_path_factory.mktemp("out") / "report"
    assert write_report(hostile.config, str(out)) == f"{out}/index.html"
    return out


class Page(HTMLParser):
    """Elements with their attributes, and all text, of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        return [found for name, found in self.elements if name == tag and wanted.items() <= found.items()]

    @property
    def cards(self) -> list[dict[str, str]]:
        return self.all("article", **{"class": "card"})


def html_files(report: Path) -> list[Path]:
    return sorted(report.rglob("*.html"))


def test_no_name_and_no_key_is_markup(report: Path) -> None:
    for path in html_files(report):
        page = Page(path)
        scripts = page.all("script")
        assert [set(found) for found in scripts] == [{"defer", "src"}]
        tags = {tag for tag, _ in page.elements}
        assert not tags & {"i", "iframe", "object", "style"}
        assert "49" not in re.findall(r"\{\{[^}]*\}\}|(?<=\{\{ )49", page.text)
        assert not [name for _, found in page.elements for name in found if name.startswith("on")]
    index = Page(report / "index.html")
    for name in NAMES:
        assert name in index.text
    assert "<b>run" in index.text
    keys = {found["data-key"] for found in Page(report / "samples.html").cards}
    assert all(key.endswith(KEY.lower()) for key in keys)


def test_all_that_a_page_names_is_in_the_folder(report: Path) -> None:
    folder = report.resolve()
    for path in html_files(report):
        page = Page(path)
        ids = {found["id"] for _, found in page.elements if "id" in found}
        for _, found in page.elements:
            for link in (found.get("src"), found.get("href")):
                if link is not None:
                    assert not re.match(r"[a-z]+:|/", link), "only files of the folder"
                    file, _, anchor = link.partition("#")
                    target = (path.parent / file).resolve() if file else path
                    assert target.is_relative_to(folder)
                    assert target.is_file(), link
                    assert anchor in ids or target.name == "samples.html" or not anchor
    for name in ("report.css", "report.js"):
        assert not re.search(r"https?:|//|@import|url\(", (report / name).read_text().replace("// ", ""))


def test_every_shown_sample_is_as_the_table_has_it(report: Path, lines: Lines, hostile: Run) -> None:
    cards = Page(report / "samples.html").cards
    assert [float(found["data-ranks"].split(",")[0]) for found in cards] == sorted(
        line["label_score"] for line in lines
    )
    assert {found["id"] for found in cards} == {f"row-{line['row']}" for line in lines}  # so few that all are shown
    scores = [name for name in lines[0] if name.startswith("score_")]
    for found in cards:
        line = lines[int(found["id"].removeprefix("row-"))]
        assert found["data-key"] == line["key"].lower()
        assert found["data-given"] == str(line["given_label"])
        assert found["data-predicted"] == str(line["predicted_label"])
        assert found["data-kind"] == (line["issue_kind"] or "")
        assert found["data-issue"] == ("yes" if line["is_label_issue"] or line["issue_kind"] else "no")
        for name, at in zip(scores, found["data-ranks"].split(",")[1:], strict=True):
            column = [each[name] for each in lines if each[name] is not None]
            below = sum(value < line[name] for value in column) + sum(value == line[name] for value in column) / 2
            assert float(at) == pytest.approx(100 * below / len(column), abs=1e-3)


def test_each_class_has_a_page_of_its_samples(report: Path, lines: Lines) -> None:
    for label in range(6):
        cards = Page(report / "classes" / f"class-{label:05d}.html").cards
        mine = sorted((x for x in lines if x["given_label"] == label), key=lambda x: (x["label_score"], x["row"]))
        assert [found["id"] for found in cards] == [f"row-{line['row']}" for line in mine]


def test_samples_have_their_pictures_and_neighbours(report: Path, lines: Lines, hostile: Run) -> None:
    text = (report / "samples.html").read_text()
    for line, card in zip(
        sorted(lines, key=lambda x: (x["label_score"], x["row"])), text.split("<article")[1:], strict=True
    ):
        shown = [int(row) for row in re.findall(r'src="pictures/(\d+)\.png"', card)]
        assert shown == [line["row"], *line["neighbor_rows"]]
    assert {path.name for path in (report / "pictures").iterdir()} == {f"{line['row']}.png" for line in lines}


def test_the_overview_has_the_totals(report: Path, hostile: Run, lines: Lines) -> None:
    text = " ".join(Page(report / "index.html").text.split())
    flagged = sum(line["is_label_issue"] for line in lines)
    wrong = (read_truth(hostile.catalog) != hostile.catalog.label).mean()
    assert f"{len(lines)} samples, 6 classes" in text
    assert f"{flagged} flagged" in text
    assert f"{100 * wrong:.1f}% true noise rate" in text
    assert "1 in quarantine for missing_label" in text
    assert "Groups of samples with equal pixels and different labels: 1" in text
    assert text.count("AUROC") == sum(name.startswith("score_") for name in lines[0])


def test_the_overview_tells_how_sure_the_noise_rate_is(report: Path, hostile: Run, tmp_path: Path) -> None:
    assert "it is not calibrated by verified labels" in " ".join(Page(report / "index.html").text.split())
    shutil.copytree(hostile.store.path, tmp_path / "run")
    store = Store(str(tmp_path / "run"))
    (file,) = (entry for entry in Published.open(store).files if entry.path.startswith("tables/summary"))
    summary = Published.open(store).summary() | {"noise_rate_low": 0.125, "noise_rate_high": 0.5}
    store.publish(file.path, encode(file.path, summary | {"calibrated": "verified", "verified": 17}, "{}"))
    republish(store)
    config = hostile.config.model_copy(update={"run": hostile.config.run.model_copy(update={"dir": store.root})})
    write_report(config, str(tmp_path / "out"))
    text = " ".join(Page(tmp_path / "out/index.html").text.split())
    assert "estimated noise rate (12.5% to 50.0%)" in text
    assert "it is calibrated by 17 verified labels" in text
    assert evaluate_run(config).estimated_interval == (0.125, 0.5)


def test_copies_with_different_labels_are_listed(report: Path, lines: Lines) -> None:
    text = Page(report / "duplicates.html").text
    kept = [line["key"] for line in lines if line["issue_kind"] == "duplicate_with_another_label"]
    assert len(kept) == 4
    assert all(key in text for key in kept)


def test_again_gives_the_same_bytes_and_fewer_samples_leave_nothing_behind(hostile: Run, tmp_path: Path) -> None:
    def digests() -> dict[str, str]:
        files = (path for path in (tmp_path / "out").rglob("*") if path.is_file())
        return {str(path.relative_to(tmp_path)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    write_report(hostile.config, str(tmp_path / "out"))
    first = digests()
    write_report(hostile.config, str(tmp_path / "out"))
    assert digests() == first
    write_report(hostile.config, str(tmp_path / "out"), top=3)
    page = Page(tmp_path / "out" / "samples.html")
    assert len(page.cards) == 3
    assert len(list((tmp_path / "out" / "classes").iterdir())) <= 3
    assert len(digests()) < len(first)


def copied(run: Run, folder: Path, **data: Any) -> Config:
    """A copy of a run, to be changed."""
    shutil.copytree(run.store.path, folder)
    config = run.config
    return config.model_copy(
        update={
            "run": config.run.model_copy(update={"dir": str(folder)}),
            "data": config.data.model_copy(update=data),
        }
    )


def test_it_lies_in_the_run_by_default_and_without_a_truth_says_nothing_of_it(hostile: Run, tmp_path: Path) -> None:
    config = copied(hostile, tmp_path / "run", truth=None)
    assert write_report(config) == f"{tmp_path}/run/report/index.html"
    text = Page(tmp_path / "run/report/index.html").text
    assert "true noise rate" not in text
    assert "AUROC" not in text
    assert "no label of this run is known to be right or wrong" in text
    assert "truth:" not in Page(tmp_path / "run/report/samples.html").text


def test_it_may_lie_in_an_object_store(hostile: Run) -> None:
    assert write_report(hostile.config, "memory://pages/report", top=2) == "memory://pages/report/index.html"
    store = Store("memory://pages/report")
    assert {MARK, "index.html", "samples.html", "report.css", "pictures"} <= set(store.list(""))
    assert b"<!doctype html>" in store.read("index.html")
    store.remove("")


def test_what_cannot_be_done_is_said(hostile: Run, scored: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        write_report(hostile.config, str(tmp_path / "out"), top=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").write_bytes(b"")
    with pytest.raises(InputError, match="not empty"):
        write_report(hostile.config, str(tmp_path / "mine"))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["photo.png"]
    other = hostile.config.model_copy(update={"merge": hostile.config.merge.model_copy(update={"threshold": 0.123})})
    with pytest.raises(InputError, match="made with another config"):
        write_report(other, str(tmp_path / "out"))
    unfinished = copied(hostile, tmp_path / "run")
    (tmp_path / "run/tables/_manifest.json").unlink()
    with pytest.raises(InputError, match="no complete table"):
        write_report(unfinished, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_pictures_and_distances_that_are_gone_are_told(hostile: Run, tmp_path: Path) -> None:
    config = copied(hostile, tmp_path / "run")
    for name in Store(config.run.dir).list(""):
        if name.startswith("vote-"):
            shutil.rmtree(tmp_path / "run" / name)
    shards = Path(str(hostile.config.data.shards)).parent
    shutil.move(shards / "02.tar", tmp_path / "02.tar")
    try:
        write_report(config, str(tmp_path / "out"))
    finally:
        shutil.move(tmp_path / "02.tar", shards / "02.tar")
    text = Page(tmp_path / "out/index.html").text
    assert f"{hostile.catalog.shards['rows'][2].as_py()} samples have no picture here" in text
    assert "no distances between neighbours" in text
    assert "no picture" in Page(tmp_path / "out/samples.html").text


def test_verified_labels_are_shown_and_calibrate(
    hostile: Run, finish: Callable[..., Run], lines: Lines, tmp_path: Path
) -> None:
    checked = lines[::3]
    rows = [
        f'"{line["key"].replace(chr(34), chr(34) * 2)}",{(line["given_label"] + (i % 2)) % 6}'
        for i, line in enumerate(checked)
    ]
    (tmp_path / "checked.csv").write_text("\n".join(["key,label", *rows]))
    config = copied(hostile, tmp_path / "run", truth=None)
    merge = config.merge.model_copy(update={"verified": str(tmp_path / "checked.csv")})
    run = finish(config.model_copy(update={"merge": merge}))
    write_report(run.config, str(tmp_path / "out"))
    page = Page(tmp_path / "out/index.html")
    text = " ".join(page.text.split())
    assert f"{len(checked)} verified by people" in text
    assert f"By {len(checked)} verified rows, as judged before people's word was taken" in text
    assert len(page.all("circle")) > 0
    cards = Page(tmp_path / "out/samples.html").cards
    assert sum(found["data-verified"] == "yes" for found in cards) == len(checked)
    scores, right = command._judged_again(run)
    assert right.tolist() == [i % 2 == 0 for i in range(len(checked))]
    assert not np.isin(scores, (0, 1)).all()  # in the table they are 0 and 1

"""Report, review and export of runs on features: with images these are shown, without any nothing is asked of them."""

from __future__ import annotations

import io
import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from rayclean.config import Config, dump_config
from rayclean.errors import ConfigError
from rayclean.export.command import export
from rayclean.export.options import ExportOptions
from rayclean.inspect.show import describe
from rayclean.report.command import write_report
from rayclean.report.run_text import print_sample
from rayclean.review.command import open_review
from rayclean.review.door import HOST
from rayclean.review.server import ReviewServer
from rayclean.run.run import Run
from rayclean.run.saved import CONFIG_FILE, load_run
from tests.feature_runs import ROWS, clusters, feature_config, key_of, write_feature_shards
from tests.helpers import png_bytes
from tests.review.serving import cookie

BROKEN, COPY = 5, 7  # a row whose picture cannot be decoded; one with the features of row 0 under another label
Do = Callable[[Config], Run]


def saved(run: Run) -> Config:
    run.store.publish(CONFIG_FILE, yaml.safe_dump(dump_config(run.config)).encode())
    return load_run(run.store.root)


def made(finish: Do, folder: Path, image: str) -> Config:
    """A run on features that are there, with images or without."""
    rows = clusters()
    rows.features[COPY], rows.given[COPY] = rows.features[0], (rows.given[0] + 1) % 3
    images = {row: b"no picture" if row == BROKEN else png_bytes(row) for row in range(ROWS)}
    shards = write_feature_shards(folder / "shards", rows, images=None if image == "none" else images)
    return saved(finish(feature_config(folder / "run", shards, data={"image": image, "max_bad_share": 1.0})))


@pytest.fixture(scope="module")
def blank(finish: Do, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Without images. Only to be read."""
    return made(finish, tmp_path_factory.mktemp("blank"), "none")


@pytest.fixture(scope="module")
def pictured(finish: Do, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """With images. Only to be read."""
    return made(finish, tmp_path_factory.mktemp("pictured"), "png")


def pages(config: Config, out: Path) -> dict[str, str]:
    write_report(config, str(out))
    return {str(path.relative_to(out)): path.read_text() for path in out.rglob("*.html")}


def test_a_report_without_images_shows_keys_and_no_place_for_pictures(blank: Config, tmp_path: Path) -> None:
    found = pages(blank, tmp_path / "out")
    assert not (tmp_path / "out/pictures").exists()
    for text in found.values():
        assert "<img" not in text
        assert "no picture" not in text
    near = re.findall(r"<figure><figcaption[^>]*>[^<]*<br><code>(s\d+)</code>", found["samples.html"])
    assert len(near) > ROWS
    assert "cannot be read" not in found["index.html"]


@pytest.mark.parametrize("kind", ["blank", "pictured"])
def test_a_report_says_whose_beliefs_and_what_is_equal(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    found = pages(request.getfixturevalue(kind), tmp_path / "out")
    assert re.search(r"which believes (head [\d.]+|neighbors)", found["index.html"])
    assert "none of which has seen the sample’s own label" in found["index.html"]
    assert "with equal features and different labels: 1" in found["index.html"]
    assert "<h2>Equal features</h2>" in found["duplicates.html"]
    assert f"<code>{key_of(COPY)}</code>" in found["duplicates.html"]


def test_a_report_shows_the_images_that_nobody_had_looked_at(pictured: Config, tmp_path: Path) -> None:
    found = pages(pictured, tmp_path / "out")
    shown = {path.stem for path in (tmp_path / "out/pictures").iterdir()}
    assert str(BROKEN) not in shown
    assert set(re.findall(r'src="pictures/(\d+)\.png"', found["samples.html"])) == shown
    assert len(shown) > ROWS / 2  # one that is broken costs no other
    assert key_of(BROKEN) in found["samples.html"]
    assert "1 samples have no picture here" in found["index.html"]
    assert "nobody looked at it before" in found["index.html"]


def test_what_a_sample_equals_is_told(blank: Config) -> None:
    facts = describe(blank, key_of(COPY))
    text = io.StringIO()
    print_sample(Console(width=200, file=text), facts)
    assert f"equal features   row 0 '{key_of(0)}' of 00.tar" in text.getvalue()


@pytest.fixture
def reviewed(blank: Config, tmp_path: Path) -> Iterator[ReviewServer]:
    """The review of a run without images."""
    with open_review(blank, 0, "anna") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_review_without_images_has_keys_and_asks_for_no_picture(reviewed: ReviewServer) -> None:
    opener = urllib.request.build_opener()
    opener.addheaders = [("Cookie", cookie(reviewed))]
    page = opener.open(reviewed.door.url).read().decode()
    assert '<div class="frame" hidden>' in page
    assert "Nearest samples and their labels" in page
    root = f"http://{HOST}:{reviewed.port}{reviewed.door.path}"
    (row, *_) = json.loads(opener.open(f"{root}api/queue?reviewer=anna").read())["rows"]
    item = json.loads(opener.open(f"{root}api/item?reviewer=anna&row={row}").read())
    assert [near["key"] for near in item["neighbors"]] == [key_of(near["row"]) for near in item["neighbors"]]
    assert item["key"] == key_of(row)
    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(f"{root}picture?row={row}&side=64")
    assert refused.value.code == 404
    assert "data.image is none" in json.loads(refused.value.read())["error"]


@pytest.mark.parametrize("kind", ["fiftyone", "labelstudio"])
def test_exports_of_pictures_need_images(kind: str, blank: Config, pictured: Config, tmp_path: Path) -> None:
    options = ExportOptions(limit=10)
    with pytest.raises(ConfigError, match=r"shows pictures, but data\.image is none; choose one of csv, parquet"):
        export(blank, kind, str(tmp_path / "blank"), options, Console(quiet=True))
    assert not (tmp_path / "blank").exists()
    summary = export(pictured, kind, str(tmp_path / "out"), options, Console(quiet=True))
    pictures = list((tmp_path / "out").rglob("*.png"))
    assert len(pictures) == summary["exported"] == 10
    assert {path.read_bytes() for path in pictures} <= {png_bytes(row) for row in range(ROWS)} | {b"no picture"}


@pytest.mark.parametrize("kind", ["csv", "cleanlab", "shards"])
def test_other_exports_do_without(kind: str, blank: Config, tmp_path: Path) -> None:
    summary = export(blank, kind, str(tmp_path / "out"), ExportOptions(), Console(quiet=True))
    assert summary["rows"] == ROWS
    croissant = json.loads((tmp_path / "out/croissant.json").read_text())
    assert all(each["includes"] for each in croissant["distribution"] if each["@type"] == "cr:FileSet")
    if kind == "cleanlab":
        beliefs = np.load(tmp_path / "out/pred_probs.npy")
        assert beliefs.shape == (ROWS, 3)
        assert "out-of-sample probabilities, as cleanlab recommends" in " ".join(summary["notes"])

"""Lists say of each row what the choice says; cleanlab's names are cleanlab's, its beliefs the run's."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayclean.catalog.table import Catalog
from rayclean.config import Config
from rayclean.decisions.verified import VerifiedFile
from rayclean.export.choose import REASONS, settle
from rayclean.export.cut import caution_of
from rayclean.export.options import ExportOptions
from rayclean.run.run import Run
from rayclean.run.start import look
from rayclean.storage.given_tables import ESCAPED
from rayclean.storage.published import Published
from rayclean.storage.store import Store
from tests.export.runs import columns_of, edited, exported, lines_of

pytestmark = pytest.mark.usefixtures("without_ray")

WISHES: list[dict[str, Any]] = [
    {},
    {"cut": 0.8, "labels": "verified"},
    {"budget": 20, "labels": "predicted"},
    {"precision": 0.7, "removed": True},
]


def parquet_lines(out: Path) -> list[dict[str, Any]]:
    parts = sorted((out / "data").iterdir())
    lines: list[dict[str, Any]] = pa.concat_tables([pq.read_table(part) for part in parts]).to_pylist()
    return lines


@pytest.mark.parametrize("wishes", WISHES)
def test_a_list_says_what_the_choice_says(doubtful: Config, wishes: dict[str, Any], tmp_path: Path) -> None:
    summary = exported(doubtful, "parquet", tmp_path / "out", **wishes)
    columns = columns_of(doubtful)
    caution = caution_of(Published.open(Store(doubtful.run.dir)).summary())
    decision = settle(ExportOptions(**wishes), doubtful.merge.threshold, lambda: [columns], caution).decide(columns)
    expected = [
        {name: line[name] for name in ("shard", "key", "row", "given_label")}
        | {"label": label, "label_score": line["label_score"], "kept": kept, "reason": REASONS[reason]}
        for line, kept, label, reason in zip(lines_of(doubtful), *(each.tolist() for each in decision), strict=True)
        if not (wishes.get("removed") and kept)
    ]
    assert parquet_lines(tmp_path / "out") == expected
    assert summary["exported"] == len(expected)
    assert summary["rows"] == len(columns.row) == sum(summary["reasons"].values())
    assert {line["reason"] for line in expected} <= set(summary["reasons"])
    assert 0 < sum(line["kept"] for line in expected) < len(expected) or wishes.get("removed")


def test_csv_has_the_same_lines(doubtful: Config, tmp_path: Path) -> None:
    exported(doubtful, "csv", tmp_path / "csv", cut=0.3)
    exported(doubtful, "parquet", tmp_path / "parquet", cut=0.3)
    found = []
    for part in sorted((tmp_path / "csv" / "data").iterdir()):
        with open(part, newline="", encoding="utf-8") as file:
            found += list(csv.DictReader(file))
    assert len(list((tmp_path / "csv" / "data").iterdir())) == 2
    for line, expected in zip(found, parquet_lines(tmp_path / "parquet"), strict=True):
        assert line.pop(ESCAPED) == "true"
        assert list(line) == list(expected)
        assert np.float32(line.pop("label_score")) == np.float32(expected.pop("label_score"))
        assert line.pop("kept") == str(expected.pop("kept")).lower()
        assert line == {name: str(value) for name, value in expected.items()}


def test_keys_that_are_no_names_are_read_back(scored: Run, tmp_path: Path) -> None:
    starts = ["k", "00", "=1+", "'", "-", "\r", "\n"]
    keys = [f'{starts[row % len(starts)]}{row}",\n=1+1;é' for row in range(scored.catalog.num_rows)]
    config = edited(scored, tmp_path / "run", key=keys)
    exported(config, "csv", tmp_path / "out")
    found = VerifiedFile(str(tmp_path / "out/data/part-00000.csv"), "", ()).read()["key"].to_pylist()
    assert found == keys[: len(found)]
    with open(tmp_path / "out/data/part-00000.csv", newline="", encoding="utf-8") as file:
        assert not any(line["key"].startswith(("=", "-", "\r")) for line in csv.DictReader(file))
    assert f"| {ESCAPED} |".replace("_", r"\_") in (tmp_path / "out/README.md").read_text()


def test_columns_have_their_meanings(doubtful: Config, tmp_path: Path) -> None:
    for kind in ("parquet", "cleanlab"):
        exported(doubtful, kind, tmp_path / kind)
        schema = pq.read_schema(tmp_path / kind / "data/part-00000.parquet")
        readme = (tmp_path / kind / "README.md").read_text()
        for field in schema:
            assert len(field.metadata[b"meaning"]) > 5
            assert f"| {field.name.replace('_', chr(92) + '_')} |" in readme


def test_cleanlab_finds_its_names_and_the_beliefs(doubtful: Config, tmp_path: Path) -> None:
    exported(doubtful, "cleanlab", tmp_path / "out", labels="predicted", cut=0.3)
    found = parquet_lines(tmp_path / "out")
    names = ["is_label_issue", "label_score", "label_quality", "given_label", "predicted_label"]
    assert list(found[0]) == ["shard", "key", "row", *names]
    columns = columns_of(doubtful)
    decision = settle(ExportOptions(labels="predicted", cut=0.3), 0.5, lambda: [columns]).decide(columns)
    issues = (~decision.kept | (decision.label != columns.given)).tolist()
    assert [line["is_label_issue"] for line in found] == issues
    assert all(line["label_quality"] == line["label_score"] for line in found)
    beliefs = np.load(tmp_path / "out/pred_probs.npy", allow_pickle=False)
    assert (beliefs.dtype, beliefs.shape) == (np.float32, (len(found), 6))
    np.testing.assert_allclose(beliefs.sum(axis=1), 1, rtol=1e-5)


def test_beliefs_that_are_gone_are_said(doubtful: Config, scored: Run, tmp_path: Path) -> None:
    config = edited(scored, tmp_path / "run")
    store, this = Store(config.run.dir), look(config, Store(config.run.dir))
    for walk in this.walks:
        store.remove(this.interpolate(walk).folder)
    summary = exported(config, "cleanlab", tmp_path / "out")
    assert "There is no `pred_probs.npy`: the run does not have them any more" in summary["notes"][0]
    assert not (tmp_path / "out/pred_probs.npy").exists()
    removed = exported(doubtful, "cleanlab", tmp_path / "removed", removed=True)
    assert "only some rows are listed" in removed["notes"][0]


def test_no_shard_is_read_for_a_list(doubtful: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rows_of_shard", "pixels"):
        monkeypatch.setattr(Catalog, name, lambda *_: pytest.fail("a list needs no shard"))
    exported(doubtful, "csv", tmp_path / "out")

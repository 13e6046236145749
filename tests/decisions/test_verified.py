"""Labels that people have verified: found, kept as they are, and what they do to the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from scipy.special import expit

from rayclean.config import Config
from rayclean.decisions.verified import VerifiedFile
from rayclean.errors import ConfigError, InputError
from rayclean.evaluate.metrics import expected_calibration_error
from rayclean.merge.calibration import NO_CALIBRATION, Calibration, fit_calibration
from rayclean.merge.joint import Posterior
from rayclean.run.run import Run
from rayclean.schema import DROPPED
from rayclean.storage.contents import read_table
from rayclean.storage.published import Published

Tiny = Callable[..., Config]
Finish = Callable[..., Run]
NAMES = tuple(str(i) for i in range(6))


def file_of(path: Path, **columns: list[str] | list[int]) -> VerifiedFile:
    table = pa.table(columns)
    write = pyarrow.parquet.write_table if path.suffix == ".parquet" else pyarrow.csv.write_csv
    write(table, path)
    return VerifiedFile(str(path), "", NAMES)


def test_calibration_finds_scale_and_shift() -> None:
    rng = np.random.default_rng(0)
    log_odds = rng.normal(size=4000) * 3
    clean = rng.random(4000) < expit(0.5 * log_odds - 1.5)
    found = fit_calibration(log_odds, clean)
    assert found.scale == pytest.approx(0.5, abs=0.05)
    assert found.shift == pytest.approx(-1.5, abs=0.15)
    errors = [expected_calibration_error(expit(each(log_odds)), clean).error for each in (NO_CALIBRATION, found)]
    assert errors[1] < 0.03 < errors[0]


def test_few_verified_rows_move_little() -> None:
    assert fit_calibration(np.empty(0), np.empty(0, bool)) == NO_CALIBRATION
    found = fit_calibration(np.array([2.0, 3.0]), np.array([False, True]))
    assert 0.5 < found.scale < 1.1
    assert -2 < found.shift < 0


def test_order_is_kept() -> None:
    assert (np.diff(Calibration(0.3, -2.0)(np.linspace(-30, 30, 50))) > 0).all()


@pytest.mark.parametrize("name", ["v.csv", "v.parquet"])
def test_a_run_takes_them_in(name: str, tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    file_of(tmp_path / name, key=["k05", "k20"], label=["3", "1"])
    config = tiny_config(tmp_path / "run", "scores=[loss, iofm]")
    plain = finish(config)
    before = rows_of(plain)
    run = finish(tiny_config(tmp_path / "run", "scores=[loss, iofm]", f"merge.verified={tmp_path / name}"))
    assert run.merge()[0].folder != plain.merge()[0].folder
    assert run.main.trained.folder == plain.main.trained.folder
    after = rows_of(run)
    for key, label in (("k05", 3), ("k20", 1)):
        row = after[key]
        assert (row["verified_label"], row["predicted_label"], row["predicted_score"]) == (label, label, 1.0)
        assert row["label_score"] == float(row["given_label"] == label)
    others = sorted(set(after) - {"k05", "k20"})
    assert all(after[key]["verified_label"] is None for key in others)
    assert len(others) > 20
    order = [sorted(others, key=lambda key, rows=rows: (rows[key]["label_score"], key)) for rows in (before, after)]  # type: ignore[misc]
    assert order[0] == order[1]
    summary = Published.open(run.store).summary()
    assert (summary["verified"], summary["calibrated"]) == (2, "verified")


def rows_of(run: Run) -> dict[str, dict[str, object]]:
    tables = [read_table(run.store, f"labels/{name}") for name in run.store.list("labels") if name.startswith("part-")]
    return {row["key"]: row for table in tables for row in table.to_pylist()}


@pytest.mark.parametrize(
    ("columns", "error", "words"),
    [
        ({"key": ["k05"]}, ConfigError, "no column label"),
        ({"key": ["nobody"], "label": ["1"]}, InputError, "nobody is in no shard"),
        ({"key": ["k05"], "label": ["9"]}, InputError, "k05"),
        ({"key": ["k05", "k05"], "label": ["1", "2"]}, InputError, "two labels"),
        ({"key": ["k05"], "label": ["1"], "shard": ["other.tar"]}, InputError, "no shard other.tar"),
    ],
)
def test_what_does_not_fit_is_said(
    columns: dict[str, list[str]], error: type[Exception], words: str, tiny_config: Tiny, finish: Finish, tmp_path: Path
) -> None:
    catalog = finish(tiny_config(tmp_path / "run", "scores=[loss]")).catalog
    with pytest.raises(error, match=words):
        file_of(tmp_path / "v.csv", **columns).find(catalog)


def test_a_file_that_cannot_be_read_stops_the_run(tiny_config: Tiny, tmp_path: Path, finish: Finish) -> None:
    with pytest.raises(ConfigError, match=r"merge\.verified"):
        finish(tiny_config(tmp_path / "run", "scores=[loss]", f"merge.verified={tmp_path / 'nowhere.csv'}"))
    pyarrow.parquet.write_table(pa.table({"key": ["a", None], "label": [1, 2]}), tmp_path / "null.parquet")
    with pytest.raises(ConfigError, match=r"merge\.verified .*null\.parquet: row 2 has no key"):
        finish(tiny_config(tmp_path / "run", "scores=[loss]", f"merge.verified={tmp_path / 'null.parquet'}"))
    assert not list((tmp_path / "run").glob("embed-*")), "the run had begun"


def test_a_label_drop_means_none_of_the_classes(tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    run = finish(tiny_config(tmp_path / "run", "scores=[loss]"))
    found = file_of(tmp_path / "v.csv", key=["k05", "k20"], label=["drop", "1"]).find(run.catalog)
    assert sorted(found.labels.tolist()) == [DROPPED, 1]
    with pytest.raises(InputError, match=r"two labels \(drop, 1\)"):
        file_of(tmp_path / "v.csv", key=["k05", "k05"], label=["drop", "1"]).find(run.catalog)
    names = ("drop", *NAMES[1:])
    source = VerifiedFile(str(tmp_path / "v.csv"), "", names)
    file_of(tmp_path / "v.csv", key=["k05"], label=["drop"])
    assert source.find(run.catalog).labels.tolist() == [0], "a class may be called so"
    row = rows_of(finish(tiny_config(tmp_path / "run", "scores=[loss]", f"merge.verified={tmp_path / 'v.csv'}")))["k05"]
    assert (row["verified_label"], row["label_score"], row["issue_kind"]) == (-1, 0.0, "none_of_the_classes")


def test_what_people_say_replaces_what_is_believed() -> None:
    given = np.array([0, 0, 0, 0])
    before = Posterior(np.full(4, 0.5, np.float32), np.full(4, 1), np.full(4, 0.6, np.float32), np.ones((4, 2)))
    after = before.confirmed(given, np.array([-1, 0, 1, DROPPED]))
    np.testing.assert_array_equal(after.label_score, np.array([0.5, 1, 0, 0], np.float32))
    np.testing.assert_array_equal(after.predicted, [1, 0, 1, -1])
    np.testing.assert_array_equal(after.predicted_score, np.array([0.6, 1, 1, 1], np.float32))


def test_a_shard_tells_equal_keys_apart(tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    catalog = finish(tiny_config(tmp_path / "run", "scores=[loss]")).catalog
    shard = catalog.shards["name"].to_pylist()[0]
    key = catalog.rows_of_shard(0)["key"].to_pylist()[0]
    found = file_of(tmp_path / "v.csv", key=[key], label=["2"], shard=[shard]).find(catalog)
    assert (found.rows.tolist(), found.labels.tolist()) == ([0], [2])
    assert found.between(0, 3).tolist() == [2, -1, -1]

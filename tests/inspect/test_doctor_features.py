"""`doctor` says whether features can be had, which are bad, and where a run should have some."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayclean.config import Config, parse_config
from rayclean.errors import RaycleanError
from rayclean.inspect import doctor
from rayclean.inspect.doctor import Finding, examine
from rayclean.inspect.doctor_features import missed_network, other_widths
from tests.feature_runs import DIM, ROWS, clusters, feature_config, key_of, write_feature_shards
from tests.helpers import png_bytes, write_tar

FROZEN = {"name": "small_resnet", "width": 4, "frozen": True, "size": 8}


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_cluster", lambda config: iter(()))


def found(config: Config) -> list[Finding]:
    return list(examine(config))


def photographs(folder: Path, side: int) -> str:
    members = [
        (f"k{row}.{extension}", content)
        for row in range(3)
        for extension, content in (("cls", str(row % 2).encode()), ("png", png_bytes(row, side, side + 40)))
    ]
    return write_tar(folder / "a.tar", members)


def image_config(folder: Path, shards: str, **sections: dict[str, Any]) -> Config:
    return parse_config({"run": {"dir": str(folder / "run")}, "data": {"shards": shards, "classes": 2}, **sections})


@pytest.mark.parametrize(("side", "is_said"), [(63, False), (64, True)])
def test_photographs_that_train_a_network_from_nothing_are_told_of_a_pretrained_one(
    side: int, is_said: bool, tmp_path: Path
) -> None:
    config = image_config(tmp_path, photographs(tmp_path, side))
    said = [each for each in found(config) if "pretrained" in each.text]
    assert [each.level for each in said] == ["warning"] * is_said
    if is_said:
        assert f"images of {side} px at the median" in said[0].text
        assert "model: {name: lite, frozen: true}" in said[0].text


@pytest.mark.parametrize(
    "sections",
    [
        {"model": {"weights": "w.safetensors"}},
        {"train": {"from": "w.safetensors"}},
        {"model": {"name": "lite", "frozen": True}},
        {"data": {"shards": "x", "classes": 2, "features": "npy"}},
    ],
)
def test_who_has_weights_or_features_is_told_nothing(sections: dict[str, Any], tmp_path: Path) -> None:
    config = image_config(tmp_path, "x", **sections)
    assert missed_network(config, [224, 224]) is None
    assert missed_network(image_config(tmp_path, "x"), []) is None


def test_samples_with_features_are_counted_shard_by_shard(tmp_path: Path) -> None:
    shards = write_feature_shards(tmp_path, clusters(), instead={3: None, 4: np.zeros(5)})
    findings = found(feature_config(tmp_path / "run", shards, data={"max_bad_share": 0.5}))
    assert findings[0] == Finding("ok", "data.features: a member .npy of each sample; no network is needed")
    reasons = "2 samples for quarantine (bad_features, missing_features)"
    assert Finding("warning", f"00.tar: {ROWS // 2 - 2} rows with {DIM} features each, {reasons}") in findings
    assert Finding("ok", f"01.tar: {ROWS // 2} rows with {DIM} features each") in findings


def test_shards_of_another_width_are_an_error(tmp_path: Path) -> None:
    others = {row: np.zeros(5, np.float32) for row in range(ROWS // 2, ROWS)}
    findings = found(feature_config(tmp_path / "run", write_feature_shards(tmp_path, clusters(), instead=others)))
    (error,) = [each for each in findings if each.level == "error"]
    assert error.text.startswith(f"01.tar: its samples have 5 features, those of 00.tar have {DIM}")
    assert list(other_widths([("a", 3), ("b", 0), ("c", 3)])) == []  # a shard without any says nothing


def test_files_of_features_are_opened(tmp_path: Path) -> None:
    rows = clusters()
    shards = write_feature_shards(tmp_path / "shards", rows, instead=dict.fromkeys(range(ROWS)))
    lists = pa.array(rows.features.tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table({"key": [key_of(row) for row in range(ROWS)], "features": lists}), tmp_path / "f.parquet")
    findings = found(feature_config(tmp_path / "run", shards, data={"features": f"file:{tmp_path}/f.parquet"}))
    assert f"{ROWS} rows of {DIM} features; no network is needed" in findings[0].text
    assert not [each for each in findings if each.level != "ok"]
    gone = found(feature_config(tmp_path / "run", shards, data={"features": f"file:{tmp_path}/none.parquet"}))
    assert [each.level for each in gone].count("error") == 1  # once, though the shards need them too
    assert "none.parquet: no file matches" in gone[0].text


def test_a_frozen_network_is_loaded(tmp_path: Path, tiny_snapshot: Path) -> None:
    shards = photographs(tmp_path, 100)
    config = image_config(tmp_path, shards, model={**FROZEN, "weights": str(tiny_snapshot)})
    findings = found(config)
    assert findings[0].level == "ok"
    assert "features of images of 8 px" in findings[0].text
    assert not [each for each in findings if "pretrained" in each.text]
    missing = found(image_config(tmp_path, shards, model={**FROZEN, "weights": str(tmp_path / "none.safetensors")}))
    assert missing[0].level == "error"
    assert "none.safetensors" in missing[0].text
    assert [each.level for each in missing[1:]] == ["ok", "ok", "ok"]  # shards and folder are looked at all the same


def test_one_error_is_said_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def failing(text: str) -> Callable[[Config], list[Finding]]:
        def check(config: Config) -> list[Finding]:
            raise RaycleanError(text)

        return check

    for name, text in (("_features", "a"), ("_shards", "a"), ("_folder", "b")):
        monkeypatch.setattr(doctor, name, failing(text))
    findings = found(image_config(tmp_path, "x"))
    assert findings == [Finding("error", "a"), Finding("error", "b")]

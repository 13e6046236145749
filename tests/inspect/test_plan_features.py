"""What `rayclean plan` says of a run on features is what the run then does."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rayclean.config import Config
from rayclean.errors import InputError
from rayclean.inspect import plan_features
from rayclean.inspect.plan import SearchPlan
from rayclean.inspect.plan_features import FeaturePlan, plan_run
from rayclean.report.text import print_plan
from rayclean.run.run import Run
from rayclean.storage.contents import read_json
from tests.feature_runs import ROWS, clusters, feature_config, write_feature_shards
from tests.helpers import png_bytes

Do = Callable[[Config], Run]
DIM = 64


@pytest.fixture(autouse=True)
def quick_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_features, "PROBE_S", 0.0)


def planned(config: Config) -> FeaturePlan:
    found = plan_run(config)
    assert isinstance(found, FeaturePlan)
    return found


def printed(found: FeaturePlan) -> str:
    text = io.StringIO()
    print_plan(Console(file=text, width=1000), found)
    return text.getvalue()


def run_bytes(run: Run) -> int:
    return sum(path.stat().st_size for path in Path(run.store.path).rglob("*") if path.is_file())


def test_features_that_are_there_cost_no_look(finish: Do, tmp_path: Path, one_thread: None) -> None:
    shards = write_feature_shards(tmp_path, clusters(6000, DIM), num_shards=1)
    config = feature_config(tmp_path / "run", shards, blocks={"rows": 6000, "index_rows": 6000, "table_rows": 6000})
    before = planned(config)
    assert (before.decodes, before.forwards, before.looks, before.rows, before.exact) == (0, 0, 6000, 6000, True)
    assert before.dim == DIM
    assert not before.search.counted
    run = finish(config)
    assert before.heads == run.heads.task.settings.num_heads
    assert before.head_rows == 6000 * run.heads.task.passes
    files = [path.stat().st_size for path in Path(run.store.path).glob("features-*/*.safetensors")]
    assert sum(files) == pytest.approx(before.feature_bytes, abs=2000)
    assert before.disk_bytes == pytest.approx(run_bytes(run), rel=0.1)
    after = planned(config)
    assert (after.looks, after.search.counted) == (0, True)
    assert "6,000 samples have features from an earlier start" in printed(after)
    assert "decodes: 0, forwards: 0 (no image is looked at" in printed(before)


def test_a_frozen_network_looks_once_at_each_image_that_has_no_features_yet(
    finish: Do, tmp_path: Path, tiny_snapshot: Path, one_thread: None
) -> None:
    images = {row: png_bytes(row) for row in range(ROWS)}
    shards = write_feature_shards(tmp_path / "shards", clusters(), num_shards=2, images=images)
    model = {"name": "small_resnet", "width": 4, "weights": str(tiny_snapshot), "frozen": True, "size": 8}
    config = feature_config(
        tmp_path / "run", f"{tmp_path}/shards/00.tar", data={"features": None, "image": "png"}, model=model
    )
    before = planned(config)
    assert (before.decodes, before.forwards, before.rows) == (ROWS // 2, ROWS // 2, ROWS // 2)
    run = finish(config)
    assert before.dim == run.space.features.read(np.arange(1)).shape[1]
    (looked, _) = read_json(run.store, f"record/{run.catalog.folder}.json")
    assert (looked["facts"]["decodes"], looked["facts"]["forwards"]) == (before.decodes, before.forwards)
    more = config.model_copy(update={"data": config.data.model_copy(update={"shards": shards})})
    after = planned(more)  # of the two shards one has been looked at
    assert after.decodes == after.forwards == pytest.approx(ROWS // 2, abs=1)
    assert "each looked at once" in printed(after)


def test_where_no_sample_has_features_there_is_nothing_to_project_from(tmp_path: Path, one_thread: None) -> None:
    shards = write_feature_shards(tmp_path, clusters(), instead=dict.fromkeys(range(ROWS)))
    with pytest.raises(InputError, match=r"00.tar: none of its first \d+ samples has features; check data\.features"):
        plan_run(feature_config(tmp_path / "run", shards))


def test_times_are_of_what_is_measured() -> None:
    search = SearchPlan(0, 0, 0, 0, 0, 0, False, 0, False)
    found = FeaturePlan(1, 10, True, 10, 10, 10, 5.0, 3, 12, 600, 100.0, 0, 0, 0, 0, search)
    assert found.seconds == {"look": 2.0, "train": 6.0}
    assert dataclasses.replace(found, looks=0, looks_per_s=0.0).seconds["look"] == 0

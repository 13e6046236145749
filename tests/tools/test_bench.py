"""The benchmarks run, and what they compare gives the same result."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rayclean.shards.decode import decode_image
from rayclean.shards.stream import stream_shard
from rayclean.storage.executor import run_inline
from rayclean.storage.store import Store
from rayclean.train.models import build_model
from rayclean.train.snapshots import publish_weights
from tools.bench.scaling import Size, compare, read_stages
from tools.bench.score import parse, plain_procedure, prepare, score_by_jobs, stage_rounds
from tools.data.make_synthetic import main as make_synthetic

pytestmark = pytest.mark.usefixtures("one_thread")

NUM_SAMPLES = 240
NUM_CLASSES = 3


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("synthetic")
    make_synthetic([str(folder), f"--samples={NUM_SAMPLES}", f"--classes={NUM_CLASSES}", "--shard-samples=100"])
    return f"{folder}/*.tar"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network whose beliefs differ much from row to row."""
    network = build_model("small_resnet", NUM_CLASSES, width=4)
    with torch.no_grad():
        network.head.weight.mul_(30)
    folder = tmp_path_factory.mktemp("weights")
    publish_weights(Store(str(folder)), "sharp.safetensors", network)
    return f"{folder}/sharp.safetensors"


def options(what: str, shards: str, weights: str, precision: str) -> list[str]:
    data = [shards, f"--samples={NUM_SAMPLES}", f"--classes={NUM_CLASSES}", "--size=8"]
    return [what, *data, "--width=4", f"--weights={weights}", f"--precision={precision}"]


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_the_jobs_give_what_the_plain_procedure_gives(
    precision: str, tolerance: float, shards: str, weights: str, tmp_path: Path
) -> None:
    run = prepare(parse(options("whole", shards, weights, precision)), tmp_path, block_rows=40, block_pairs=100)
    product = score_by_jobs(run, run_inline)
    plain, _, _ = plain_procedure(run, batch_size=64)
    assert len(product.score) == NUM_SAMPLES
    assert np.ptp(product.score) > 10 * tolerance  # beliefs differ far more than they may err
    np.testing.assert_allclose(product.score, plain, atol=tolerance, rtol=0)
    assert product.forwards < NUM_SAMPLES * 10 * 2  # pairs are walked once


def test_the_stage_is_timed_against_bare_forwards(shards: str, weights: str, tmp_path: Path) -> None:
    run = prepare(parse(options("stage", shards, weights, "float32")), tmp_path, block_rows=40, block_pairs=100)
    rounds = stage_rounds(run, 2)
    assert len(rounds) == 2
    assert all(0.05 < each.first / each.bare < 20 and each.later > 0 for each in rounds)


def write_record(folder: Path, name: str, entries: list[dict[str, object]]) -> None:
    (folder / "record").mkdir(exist_ok=True)
    (folder / "record" / f"{name}.json").write_text(json.dumps(entries))


def test_the_table_of_growth_adds_up_the_records(tmp_path: Path) -> None:
    write_record(tmp_path, "steps", [{"step": s, "wall_s": 8.0} for s in ("catalog", "train", "neighbors")])
    job = {"step": "neighbors", "busy_s": 1.5, "peak_rss_bytes": 2**20}
    write_record(tmp_path, "neighbors-0123abcd", [job, job | {"busy_s": 2.5, "peak_rss_bytes": 3 * 2**20}])
    write_record(tmp_path, "catalog-89ab0123", [{"step": "catalog", "busy_s": 1.0, "peak_rss_bytes": 2**20}])
    stages = read_stages(Store(str(tmp_path)))
    assert list(stages) == ["catalog", "train", "neighbors"]
    assert stages["neighbors"].work_s == 4.0
    assert stages["neighbors"].worker_bytes == 3 * 2**20
    assert stages["train"].work_s == 8.0
    small = Size(1000, stages, wall_s=10, driver_bytes=2**20)
    large = Size(2000, stages, wall_s=12, driver_bytes=2**20 + 16_000)
    lines = compare(small, large)
    assert "| neighbors | 4.000 | 2.000 | 0.50 | 3 | 3 | 1.00 |" in lines
    assert any("16.0 bytes per row more" in line for line in lines)


def test_synthetic_samples_repeat_and_carry_both_labels(tmp_path: Path) -> None:
    for name in ("once", "again"):
        make_synthetic([str(tmp_path / name), "--samples=100", "--classes=5", "--shard-samples=60"])
    once, again = (sorted((tmp_path / name).glob("*.tar")) for name in ("once", "again"))
    assert [path.read_bytes() for path in once] == [path.read_bytes() for path in again]
    members = [members for path in once for _, _, members in stream_shard(str(path), None)]
    facts = [json.loads(member["json"]) for member in members]
    assert len(facts) == 100
    assert sum(fact["label"] != fact["truth"] for fact in facts) == 30
    assert {fact["truth"] for fact in facts} == set(range(5))
    assert all(decode_image(member["png"], 1e6).shape == (8, 8, 3) for member in members)

"""Runs on features, whatever computes them and whatever is killed: the bytes of a run in one process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml
from rich.console import Console

from rayclean.config import load_config
from rayclean.run.pipeline import run as do_run
from rayclean.shards.urls import expand_shards
from rayclean.storage.contents import read_json
from rayclean.storage.published import Published
from rayclean.storage.store import Store
from rayclean.train.models import build_model
from rayclean.train.snapshots import publish_weights
from tools.faults.driver import BIN, COMPUTING_ACTOR, TRAINING_WORKER, labels, seen, started, wait_for
from tools.faults.run_folder import RUN_TIMEOUT_S, RunFolder, finish
from tools.faults.serving import serving

pytestmark = pytest.mark.timeout(900)

PARTS = {
    "catalog": "features-*/*.safetensors",
    "train": "train-main-*/decay-0/trajectories/epoch-*/*.parquet",
    "interpolate": "interpolate-*/*.safetensors",
    "merge": "merge-*/part-*.parquet",
}
WORKERS = {"train": TRAINING_WORKER}
CASES = [
    pytest.param(stage, victim, marks=() if (stage, victim) == ("catalog", "driver") else pytest.mark.slow)
    for stage in PARTS
    for victim in ("driver", "worker")
]


@pytest.fixture(scope="module")
def frozen(digits: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of the digits by a frozen network of ours, that has not started."""
    folder = tmp_path_factory.mktemp("frozen")
    publish_weights(Store(str(folder)), "weights.safetensors", build_model("small_resnet", 10, width=4, seed=1))
    tree: dict[str, Any] = yaml.safe_load(digits.config.read_text())
    tree["model"] = {"name": "small_resnet", "width": 4, "weights": str(folder / "weights.safetensors"), "frozen": True}
    tree["train"] = {"batch_size": 16, "weight_decays": [0.3, 1.0], "folds": 3}
    tree["scores"] = ["loss", "aum", "iofm_last", "inn", "vote", "osm", "odd"]
    config = folder / "frozen.yaml"
    config.write_text(yaml.safe_dump(tree))
    return RunFolder(config, folder / "run")


@pytest.fixture(scope="module")
def whole(frozen: RunFolder) -> RunFolder:
    """The same, done in this process. Only to be read."""
    config = load_config(frozen.config, [f"run.dir={frozen.path}", "run.executor=inline"])
    do_run(config, None, Console(quiet=True))
    return frozen


@pytest.mark.parametrize(("stage", "victim"), CASES)
def test_a_killed_run_ends_with_the_bytes_of_one_process(
    stage: str, victim: str, whole: RunFolder, env: dict[str, str], tmp_path: Path
) -> None:
    run = RunFolder(whole.config, tmp_path / "run")
    with started(run.command(), env, tmp_path / "first") as driver:
        wait_for(f"a part of {stage}", lambda: next(run.path.glob(PARTS[stage]), None), RUN_TIMEOUT_S)
        if victim == "driver":
            driver.kill()
        else:
            wait_for("a worker", lambda: driver.find(WORKERS.get(stage, COMPUTING_ACTOR)), 60).kill()
        done = seen(run.path, PARTS[stage])
        ended = driver.wait(RUN_TIMEOUT_S) if victim == "worker" else finish(run, env, tmp_path / "second")
    assert ended.code == 0, ended.err
    assert labels(run.path) == labels(whole.path)
    assert done
    if stage != "train":  # an epoch whose checkpoint is not registered yet is trained again
        after = seen(run.path, PARTS[stage])
        assert {name: after[name] for name in done} == done
    decodes = sum(
        entry["facts"].get("decodes", 0)
        for file in (run.path / "record").glob("catalog-*.json")
        for entry in read_json(Store(str(run.path)), f"record/{file.name}")
    )
    assert decodes <= 241, "no image is decoded again"


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ("run.executor=data",),
        ("train.workers=2", "resources.train.cpus=1", "resources.cpu.actors=2"),
        ("resources.train.cpus=2",),
    ],
)
def test_whatever_computes_it_the_bytes_are_the_same(
    more: tuple[str, ...], whole: RunFolder, env: dict[str, str], tmp_path: Path
) -> None:
    run = RunFolder(whole.config, tmp_path / "run", more)
    ended = finish(run, env, tmp_path / "log")
    assert ended.code == 0, ended.err
    assert labels(run.path) == labels(whole.path)
    for pattern in ("train-main-*/heads.safetensors", "features-*/*.safetensors"):
        files = {path.name: path.read_bytes() for path in run.path.glob(pattern)}
        assert files == {path.name: path.read_bytes() for path in whole.path.glob(pattern)}


@pytest.fixture
def cluster(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes, each with room for one actor."""
    for name in ("RAY_TMPDIR", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, env[name])
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    result = Cluster(initialize_head=True, head_node_args=node)
    result.add_node(**node)
    result.wait_for_nodes()
    yield result
    result.shutdown()


@pytest.mark.slow
def test_two_nodes_and_two_ranks(cluster: Any, whole: RunFolder, env: dict[str, str], tmp_path: Path) -> None:
    more = ("resources.cpu.actors=2", "train.workers=2", "resources.train.cpus=1")
    run = RunFolder(whole.config, tmp_path / "run", more)
    attached = {**env, "RAY_ADDRESS": cluster.address, "RAY_AUTH_MODE": "disabled"}
    ended = finish(run, attached, tmp_path / "log")
    assert ended.code == 0, ended.err
    assert labels(run.path) == labels(whole.path)


@pytest.mark.slow
def test_an_object_store(whole: RunFolder, env: dict[str, str], tmp_path: Path) -> None:
    with serving() as server:
        fsspec.filesystem("s3").put(expand_shards(whole.load().data.shards), f"{server.bucket}/shards/")
        places = (f"run.dir={server.bucket}/run", f"data.shards={server.bucket}/shards/*.tar")
        command = [str(BIN / "rayclean"), "run", str(whole.config), *places]
        with started(command, {**env, **server.env()}, tmp_path / "log") as driver:
            ended = driver.wait(RUN_TIMEOUT_S)
        assert ended.code == 0, ended.err
        there, here = (Published.open(Store(root)) for root in (f"{server.bucket}/run", str(whole.path)))
        assert [there.read(part).equals(here.read(part)) for part in here.parts] == [True] * len(here.parts)


def test_a_copy_of_the_shards_is_not_looked_at_again(whole: RunFolder, tmp_path: Path) -> None:
    """Other times, the same content: what a fetched copy has."""
    shutil.copytree(Path(str(whole.load().data.shards)).parent, tmp_path / "shards", copy_function=shutil.copyfile)
    shutil.copytree(whole.path, tmp_path / "run")
    overrides = [f"run.dir={tmp_path / 'run'}", f"data.shards={tmp_path / 'shards'}/*.tar", "run.executor=inline"]
    this, _ = do_run(load_config(whole.config, overrides), None, Console(quiet=True))
    assert this.catalog.folder not in {path.name for path in whole.path.iterdir()}
    entries = read_json(this.store, f"record/{this.catalog.folder}.json")
    assert [entry["facts"].get("decodes") for entry in entries if "decodes" in entry["facts"]] == [0]
    mine, theirs = Published.open(this.store), Published.open(Store(str(whole.path)))
    assert all(mine.read(a).equals(theirs.read(b)) for a, b in zip(mine.parts, theirs.parts, strict=True))

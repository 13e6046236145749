"""One unbroken run of a few digits, whose bytes all others must reach."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from rayclean.shards.write import write_shards
from tools.data.make_digits import move_labels
from tools.faults.doors import Watch
from tools.faults.driver import started
from tools.faults.run_folder import NUM_BAD, NUM_GOOD, NUM_SHARDS, RUN_TIMEOUT_S, Finished, RunFolder, finish


def _png(pixels: npt.NDArray[np.float64]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def _samples() -> list[tuple[str, dict[str, bytes]]]:
    """Digits of 8 px, three in ten with another label, and two that cannot be used."""
    digits = load_digits()
    truth = digits.target[:NUM_GOOD].astype(np.int64)
    given = move_labels(truth, 0.3, seed=0)
    samples = []
    for row, (pixels, label, true) in enumerate(zip(digits.images, given, truth, strict=False)):
        facts = json.dumps({"label": int(label), "truth": int(true)})
        samples.append((f"{row:03d}", {"png": _png(pixels), "json": facts.encode()}))
    samples.insert(10, ("no-label", {"png": samples[0][1]["png"]}))
    samples.insert(200, ("no-image", {"png": b"?", "json": samples[0][1]["json"]}))
    return samples


@pytest.fixture(scope="session")
def env() -> Iterator[dict[str, str]]:
    """The environment of drivers: no GPU, no cluster, threads by Ray; Ray's own files in a folder that goes away."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "OMP_"))}
    # Ray's sockets lie below it, and the path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="rc-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield {**kept, "CUDA_VISIBLE_DEVICES": "", "RAY_TMPDIR": folder, "HOME": f"{folder}/home"}


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that has not started: four shards, blocks so small that each stage has several units."""
    folder = tmp_path_factory.mktemp("digits")
    write_shards(str(folder / "shards"), "digits", _samples(), -(-(NUM_GOOD + NUM_BAD) // NUM_SHARDS))
    tree: dict[str, dict[str, object]] = {
        "run": {"dir": "given on the command line", "keep": "all"},
        "data": {"shards": f"{folder}/shards/*.tar", "label": "json:label", "truth": "json:truth"}
        | {"classes": 10, "size": 8},
        "model": {"width": 4},
        "train": {"epochs": 4, "snapshot_every": 2, "batch_size": 32, "precision": "float32"},
        "score": {"precision": "float32", "batch_size": 32},
        "iofm": {"num": 4},
        "blocks": {"rows": 50, "pairs": 100, "index_rows": 100, "table_rows": 100},
        # One actor a stage: its start is most of the time, and a kill finds work that nobody else does.
        "resources": {"train": {"cpus": 1}, "cpu": {"actors": 1}},
    }
    config = folder / "digits.yaml"
    config.write_text(yaml.safe_dump(tree))
    return RunFolder(config, folder / "run")


@dataclass(frozen=True)
class Watched:
    """The unbroken run, with what came of knocking at its ports meanwhile."""

    finished: Finished
    watch: Watch
    logs: Path


@pytest.fixture(scope="session")
def watched(digits: RunFolder, env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """The unbroken run, at whose ports somebody without the token tries everything."""
    logs = tmp_path_factory.mktemp("reference")
    with started(digits.command(), env, logs) as driver, Watch(driver.living) as watch:
        ended = driver.wait(RUN_TIMEOUT_S)
    return Watched(Finished(digits, ended), watch, logs)


@pytest.fixture(scope="session")
def reference(watched: Watched) -> Finished:
    """The unbroken run. Only to be read."""
    ended = watched.finished.ended
    assert ended.code == 0, ended.err
    return watched.finished


@pytest.fixture(scope="session")
def until_catalog(digits: RunFolder, env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run of the same config that was told to stop after the catalog. Only to be read."""
    run = RunFolder(digits.config, tmp_path_factory.mktemp("until") / "run")
    return Finished(run, finish(run, env, tmp_path_factory.mktemp("log"), "--until", "catalog"))

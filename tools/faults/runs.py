"""A tiny run to break, on a disk or on an object store, and what can be counted of it from outside.

For `tools/faults/faults.py` and `tools/faults/soak.py`. The run is 240 digits of 8 px and two bad samples in four
shards, four epochs, so that each stage has several units.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from rayclean.run.grow import STAGES
from rayclean.shards.write import write_shards
from rayclean.storage import published as labels
from rayclean.storage.store import TEMPORARY, Store
from tools.data.make_digits import move_labels
from tools.faults.driver import BIN, Ended, started
from tools.faults.run_folder import BESIDE, NUM_BAD, NUM_GOOD, NUM_SHARDS, PARTS

RUN_TIMEOUT_S = 900  # a run takes 30-60 s on two idle cores, and several times that on busy ones
EPOCHS = "train-main-*/trajectories/epoch-*/*.parquet"
UNITS = tuple(pattern for stage, pattern in PARTS.items() if stage != "train")
# Files by path, with a mark that changes whenever a file is published anew.
Published = Mapping[str, tuple[Any, ...]]


def digit_samples() -> list[tuple[str, dict[str, bytes]]]:
    """Digits, three in ten with another label, one sample without a label and one without an image."""
    digits = load_digits()
    truth = digits.target[:NUM_GOOD].astype(np.int64)
    samples = []
    given = move_labels(truth, 0.3, seed=0)
    for row, (pixels, label, true) in enumerate(zip(digits.images, given, truth, strict=False)):
        buffer = io.BytesIO()
        Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8)).convert("RGB").save(buffer, "PNG")
        facts = json.dumps({"label": int(label), "truth": int(true)})
        samples.append((f"{row:03d}", {"png": buffer.getvalue(), "json": facts.encode()}))
    samples.insert(10, ("no-label", {"png": samples[0][1]["png"]}))
    samples.insert(200, ("no-image", {"png": b"?", "json": samples[0][1]["json"]}))
    return samples


def write_config(folder: Path, **data: object) -> Path:
    """The config of all runs, with fields of `data`; run folder and shards are given with each command."""
    tree: dict[str, dict[str, object]] = {
        "run": {"dir": "given on the command line", "keep": "all"},
        "data": {"shards": "given on the command line", "label": "json:label", "classes": 10, "size": 8} | data,
        "model": {"width": 4},
        "train": {"epochs": 4, "snapshot_every": 2, "batch_size": 32, "precision": "float32"},
        "score": {"precision": "float32", "batch_size": 32},
        "iofm": {"num": 4},
        "blocks": {"rows": 50, "pairs": 100, "index_rows": 100, "table_rows": 100},
        # One actor per stage: its start is most of the time, and a kill finds work that nobody else does.
        "resources": {"train": {"cpus": 1}, "cpu": {"actors": 1}},
    }
    path = folder / "digits.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@dataclass(frozen=True)
class Place:
    """Where a run and its shards lie, and how it is started.

    Attributes:
        run_dir: folder or URL, as the command has it.
        shards: folder or URL.
        seen_at: where this process finds the run folder, if elsewhere.
        overrides: fields that every start replaces.
        prefix: words before the command.
        env: of every start.
    """

    config: Path
    run_dir: str
    shards: str
    env: Mapping[str, str]
    seen_at: str = ""
    overrides: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()

    @property
    def store(self) -> Store:
        """The run's files."""
        return Store(self.seen_at or self.run_dir)

    def command(self, *arguments: str) -> list[str]:
        """`rayclean run` of this run."""
        places = (f"run.dir={self.run_dir}", f"data.shards={self.shards}/*.tar")
        return [*self.prefix, str(BIN / "rayclean"), "run", str(self.config), *places, *self.overrides, *arguments]

    def run(self, logs: Path, *arguments: str) -> Ended:
        """Starts the run and waits for its end."""
        with started(self.command(*arguments), self.env, logs) as driver:
            return driver.wait(RUN_TIMEOUT_S)

    def published(self) -> Published:
        """All whole files of the run, each with a mark of its own."""
        store = self.store
        if store.is_local:
            return {path: mark for path, mark in _local_files(Path(store.path)) if TEMPORARY not in path}
        files = store.fs.find(store.path, detail=True)
        return {
            name.removeprefix(f"{store.path}/"): (str(info["LastModified"]), info["ETag"])
            for name, info in files.items()
        }

    def has(self, pattern: str) -> bool:
        """Whether a file that matches is published."""
        if self.store.is_local:
            return any(TEMPORARY not in path.name for path in Path(self.store.path).glob(pattern))
        return bool(matching(self.published(), [pattern]))

    def table(self) -> dict[str, bytes]:
        """The parts of the final table, by name."""
        names = self.store.list("labels")
        return {name: self.store.read(f"labels/{name}") for name in names if name.endswith(".parquet")}

    def samples_missing(self) -> int:
        """Samples of the shards that are neither rows nor in quarantine."""
        summary = labels.Published.open(self.store).summary()
        return int(summary["samples"] - summary["rows"] - sum(summary["quarantined"].values()))


def _local_files(root: Path) -> list[tuple[str, tuple[Any, ...]]]:
    found = []
    for path in root.rglob("*"):
        try:
            status = path.stat()
        except FileNotFoundError:  # a temporary file that got its name meanwhile
            continue
        if path.is_file():
            found.append((str(path.relative_to(root)), (status.st_ino, status.st_mtime_ns)))
    return found


def matching(published: Published, patterns: Sequence[str]) -> Published:
    """The files that match any of some patterns."""
    return {name: mark for name, mark in published.items() if any(PurePosixPath(name).match(each) for each in patterns)}


def published_again(snapshots: Sequence[Published]) -> set[str]:
    """Files that were published more than once, as far as looks at different times show.

    Args:
        snapshots: what was there at each look, in their order.

    Returns:
        Paths whose mark changed from one look to a later one.
    """
    found: set[str] = set()
    marks: dict[str, tuple[Any, ...]] = {}
    for snapshot in snapshots:
        found |= {name for name, mark in snapshot.items() if marks.get(name, mark) != mark}
        marks |= snapshot
    return found


def epochs_of(names: set[str]) -> set[int]:
    """Epochs to which trajectory files belong."""
    return {int(PurePosixPath(name).parent.name.removeprefix("epoch-")) for name in names}


@dataclass
class Bench:
    """A folder with shards, config and one unbroken run, whose bytes all others must reach.

    Attributes:
        env: environment of drivers: no GPU, no cluster, threads by Ray, lines that are not folded.
    """

    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    reference: Place = field(init=False)
    reference_s: float = 0.0

    def __post_init__(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "OMP_", "AWS_"))}
        # Ray's sockets lie below its folder, and the path of a socket has at most 107 bytes.
        (self.folder / "ray").mkdir(parents=True, exist_ok=True)
        self.env = {**kept, "CUDA_VISIBLE_DEVICES": "", "RAY_TMPDIR": str(self.folder / "ray"), "COLUMNS": "400"}
        shards = self.folder / "shards"
        if not shards.exists():
            write_shards(str(shards), "digits", digit_samples(), -(-(NUM_GOOD + NUM_BAD) // NUM_SHARDS))
        config = write_config(self.folder)
        self.reference = Place(config, str(self.folder / "reference"), str(shards), self.env)
        if not (self.folder / "reference/tables/_manifest.json").exists():
            began_s = time.monotonic()
            ended = self.reference.run(self.folder / "logs/reference")
            if ended.code:
                raise SystemExit(f"the unbroken run ended with exit code {ended.code}:\n{ended.err}")
            self.reference_s = time.monotonic() - began_s

    def fresh(self, name: str) -> Place:
        """A run that has not started."""
        path = self.folder / "runs" / name
        shutil.rmtree(path, ignore_errors=True)
        return replace(self.reference, run_dir=str(path))

    def before(self, stage: str, name: str) -> Place:
        """A copy of the unbroken run that ends before a stage; before `train`, one that lacks the training alone."""
        place = self.fresh(name)
        stages = ["train", "merge"] if stage == "train" else STAGES[STAGES.index(stage) :]
        left_out = [pattern for each in stages for pattern in (f"{each}-*", *BESIDE.get(each, ()))]
        ignored = shutil.ignore_patterns(*left_out, "lease")
        shutil.copytree(self.reference.run_dir, place.run_dir, ignore=ignored)
        return place

"""How a run grows with the data: the product itself on two sizes of synthetic samples, stage by stage.

    .venv/bin/python tools/bench/scaling.py --small 10000 --large 100000

Seconds of work are those that the workers spent in units (or the wall clock for training, which is one step), per
1,000 samples; a ratio of 1 is flat. Starting Ray and the actors costs the same at any size and is in the wall
clock of the last line alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from rayclean.run.record import STEPS
from rayclean.storage.contents import read_json
from rayclean.storage.store import Store
from tools.data.make_synthetic import main as make_synthetic

POLL_S = 0.25
TRAIN_WORKER, ACTOR = "ray::RayTrainWorker", "ray::UnitActor"
SETTINGS: dict[str, dict[str, object]] = {
    "data": {"label": "json:label", "truth": "json:truth", "classes": 10, "size": 8},
    "model": {"name": "small_resnet", "width": 4},
    "train": {"epochs": 1, "snapshot_every": 1, "augment": "none"},
    "iofm": {"num": 4},
}


@dataclass
class Stage:
    """Work of a stage in one run: seconds in its units, and the largest worker."""

    work_s: float = 0.0
    worker_bytes: int = 0


@dataclass
class Size:
    """One run.

    Attributes:
        rows: samples.
        stages: in the order of the run.
        wall_s: from the command to its end.
        driver_bytes: most that the driver held in memory of its own; mapped files, which the system may take back at
            any time, do not count.
        actor_bytes: the same of the largest actor.
    """

    rows: int
    stages: dict[str, Stage] = field(default_factory=dict)
    wall_s: float = 0.0
    driver_bytes: int = 0
    actor_bytes: int = 0


def read_stages(store: Store) -> dict[str, Stage]:
    """What the records of a finished run say; a job's stage is the first word of its folder."""
    steps = read_json(store, f"record/{STEPS}.json")
    jobs = [name.removesuffix(".json") for name in store.list("record") if name != f"{STEPS}.json"]
    stages: dict[str, Stage] = {}
    for step in dict.fromkeys(step["step"] for step in steps):
        if step == "train":
            stages[step] = Stage(sum(each["wall_s"] for each in steps if each["step"] == step))
        for job in jobs:
            for entry in read_json(store, f"record/{job}.json"):
                if entry["step"] == step:
                    stage = stages.setdefault(job.rpartition("-")[0], Stage())
                    stage.work_s += entry["busy_s"]
                    stage.worker_bytes = max(stage.worker_bytes, entry["peak_rss_bytes"])
    return stages


def run_size(rows: int, folder: Path) -> Size:
    """Makes the samples, does the run and reads its records."""
    make_synthetic([str(folder / "shards"), f"--samples={rows}"])
    settings = {**SETTINGS, "run": {"dir": str(folder / "run")}}
    settings["data"] = {**SETTINGS["data"], "shards": str(folder / "shards/*.tar")}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return watch([str(folder / "config.yaml")], rows, Store(str(folder / "run")))


def watch(arguments: Sequence[str], rows: int, store: Store) -> Size:
    """Does `rayclean run` with these arguments and looks at its processes meanwhile.

    Raises:
        SystemExit: the run failed.
    """
    size, started_s = Size(rows), time.monotonic()
    command = [str(Path(sys.executable).with_name("rayclean")), "run", *arguments]
    with subprocess.Popen(command) as process:
        trainer_bytes = 0
        while process.poll() is None:
            size.driver_bytes = max(size.driver_bytes, _own_bytes(process.pid))
            trainer_bytes = max(trainer_bytes, _largest(process.pid, TRAIN_WORKER, _peak_bytes))
            size.actor_bytes = max(size.actor_bytes, _largest(process.pid, ACTOR, _own_bytes))
            time.sleep(POLL_S)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}")
    size.wall_s = time.monotonic() - started_s
    size.stages = read_stages(store)
    size.stages["train"].worker_bytes = trainer_bytes
    return size


def _own_bytes(pid: int) -> int:
    """Memory of its own that a process has resident now."""
    return _status_bytes(pid, "RssAnon:")


def _peak_bytes(pid: int) -> int:
    """The kernel's mark of the most that a process had resident."""
    return _status_bytes(pid, "VmHWM:")


def _status_bytes(pid: int, name: str) -> int:
    """A line of a process's status; 0 for one that ended meanwhile."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def _largest(driver: int, name: str, measure: Callable[[int], int]) -> int:
    """Of the processes below the driver that have this name."""
    try:
        below = psutil.Process(driver).children(recursive=True)
        return max((measure(p.pid) for p in below if p.cmdline()[:1] and p.cmdline()[0].startswith(name)), default=0)
    except psutil.Error:
        return 0


def compare(small: Size, large: Size) -> list[str]:
    """Lines of the table."""
    lines = [
        "| stage | work, s per 1,000 | | ratio | worker, MiB | | ratio |",
        "|---|---|---|---|---|---|---|",
        f"| | {small.rows:,} | {large.rows:,} | | {small.rows:,} | {large.rows:,} | |",
    ]
    for name, after in large.stages.items():
        before = small.stages.get(name, Stage())
        work = [1000 * before.work_s / small.rows, 1000 * after.work_s / large.rows]
        memory = [before.worker_bytes / 2**20, after.worker_bytes / 2**20]
        lines.append(
            f"| {name} | {work[0]:.3f} | {work[1]:.3f} | {_ratio(*work)} "
            f"| {memory[0]:.0f} | {memory[1]:.0f} | {_ratio(*memory)} |"
        )
    grown = (large.driver_bytes - small.driver_bytes) / (large.rows - small.rows)
    driver = f"{small.driver_bytes / 2**20:.1f} and {large.driver_bytes / 2**20:.1f} MiB"
    return [
        *lines,
        "",
        f"driver: {driver}, {grown:.1f} bytes per row more",
        f"largest actor without mapped files: {small.actor_bytes / 2**20:.0f} and {large.actor_bytes / 2**20:.0f} MiB",
        f"wall clock with all starts: {small.wall_s:.0f} and {large.wall_s:.0f} s",
    ]


def _ratio(before: float, after: float) -> str:
    return f"{after / before:.2f}" if before else "-"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Compare a run on few and on many synthetic samples.")
    parser.add_argument("--small", type=int, default=10_000, help="samples of the small run (10000)")
    parser.add_argument("--large", type=int, default=100_000, help="samples of the large run (100000)")
    options = parser.parse_args(arguments)
    sizes = []
    for rows in (options.small, options.large):
        with tempfile.TemporaryDirectory() as folder:
            sizes.append(run_size(rows, Path(folder)))
    print("\n".join(compare(*sizes)))


if __name__ == "__main__":
    main()

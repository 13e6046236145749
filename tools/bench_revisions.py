"""Times a job with two revisions of the code in turn: whole commands, so that a machine's moods meet both.

Beside the seconds of the whole job it tells those in which nothing was at work: neither a unit nor a training, between
the first process of Ray and the end, by the titles of processes, looked at ten times a second.

    .venv/bin/python tools/bench_revisions.py REVISION [--turns 3] [-- CONFIG section.field=value ...]

REVISION is checked out beside this tree and runs in the same environment. The job is the demo's (configs/digits.yaml)
where no config is named; `make demo` writes its shards. Paths in another config are absolute. Each run has a folder of
its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]


# What Ray calls a process while it computes a unit, by either way of computing, and one that trains.
AT_WORK = ("ray::MapWorker(MapBatches(UnitActor)).submit", "ray::UnitActor.run", "ray::RayTrainWorker")
LOOK_S = 0.1


@dataclass(frozen=True)
class Timing:
    """What a job took: in all, and with nothing at work once Ray was there."""

    wall_s: float
    idle_s: float


def idle_seconds(process: subprocess.Popen[bytes]) -> float:
    """Watches a job to its end; the seconds in which nothing was at work."""
    own, idle_s, last_s, connected = psutil.Process(process.pid), 0.0, time.monotonic(), False
    while process.poll() is None:
        time.sleep(LOOK_S)
        titles = []
        with suppress(psutil.Error):
            for each in own.children(recursive=True):
                with suppress(psutil.Error):
                    titles.append(" ".join(each.cmdline()))
        now_s = time.monotonic()
        connected = connected or any("raylet" in title for title in titles)
        if connected and not any(title.startswith(AT_WORK) for title in titles):
            idle_s += now_s - last_s
        last_s = now_s
    return idle_s


def timed(tree: Path, folder: Path, job: list[str]) -> Timing:
    """Seconds of a job by the code in a tree."""
    command = [sys.executable, "-c", "from rayclean.cli import main; main()", "run", *job, f"run.dir={folder}"]
    begun_s = time.monotonic()
    # Both the path and the working folder, since Ray's workers take modules from there.
    env = {**os.environ, "PYTHONPATH": str(tree)}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, cwd=tree, env=env, stdout=said, stderr=said)
        idle_s = idle_seconds(process)
        if process.wait():
            said.seek(0)
            raise SystemExit(f"{tree}: exit code {process.returncode}\n{said.read().decode(errors='replace')}")
    return Timing(time.monotonic() - begun_s, idle_s)


def main() -> None:
    """Prints the seconds of each turn and the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("revision")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("job", nargs="*", default=[str(ROOT / "configs/digits.yaml")])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder) / "old"
        subprocess.run(["git", "worktree", "add", "--detach", str(old), options.revision], cwd=ROOT, check=True)
        (old / "demo").symlink_to(ROOT / "demo")
        try:
            found: dict[str, list[Timing]] = {options.revision: [], "this tree": []}
            for turn in range(options.turns):
                for name, tree in ((options.revision, old), ("this tree", ROOT)):
                    found[name].append(timed(tree, Path(folder) / f"run-{turn}-{tree.name}", options.job))
                    last = found[name][-1]
                    print(f"turn {turn + 1}: {name} {last.wall_s:.1f} s, idle {last.idle_s:.1f} s", flush=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(old)], cwd=ROOT, check=True)
    for name, timings in found.items():
        wall_s, idle_s = (statistics.median(getattr(each, kind) for each in timings) for kind in ("wall_s", "idle_s"))
        print(f"{name}: median {wall_s:.1f} s, of which {idle_s:.1f} s with nothing at work")
    ratios = [now.wall_s / before.wall_s for before, now in zip(*found.values(), strict=True)]
    print(f"this tree / {options.revision}: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()

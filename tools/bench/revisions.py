"""Times a job with two revisions of the code in turn: whole commands, so that a machine's moods meet both.

    .venv/bin/python tools/bench/revisions.py REVISION [--turns 3] [-- CONFIG section.field=value ...]

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
from pathlib import Path

ROOT = Path(__file__).parents[2]


def timed(tree: Path, folder: Path, job: list[str]) -> float:
    """Seconds of a job by the code in a tree."""
    command = [sys.executable, "-c", "from rayclean.cli import main; main()", "run", *job, f"run.dir={folder}"]
    begun_s = time.monotonic()
    # Both the path and the working folder, since Ray's workers take modules from there.
    env = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{tree}: exit code {done.returncode}\n{done.stderr}")
    return time.monotonic() - begun_s


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
            found: dict[str, list[float]] = {options.revision: [], "this tree": []}
            for turn in range(options.turns):
                for name, tree in ((options.revision, old), ("this tree", ROOT)):
                    found[name].append(timed(tree, Path(folder) / f"run-{turn}-{tree.name}", options.job))
                    print(f"turn {turn + 1}: {name} {found[name][-1]:.1f} s", flush=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(old)], cwd=ROOT, check=True)
    before, now = (statistics.median(seconds) for seconds in found.values())
    ratios = [b / a for a, b in zip(*found.values(), strict=True)]
    print(f"medians: {before:.1f} s and {now:.1f} s; this tree / {options.revision}: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()

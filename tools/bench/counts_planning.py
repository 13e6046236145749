"""How many modules are entered, and how often one calls another, while a finished run's `merge` is planned.

    PYTHONPATH=TREE .venv/bin/python tools/bench/counts_planning.py RUN

Prints a line of JSON. It needs the package's internals, so `planner` tries the layouts that there have been, the newest
first, and a new one is added there. It imports nothing else of ours, since other revisions' packages are measured too.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any


def planner(run_dir: str) -> Callable[[], Any]:
    """What plans the merge of a run that `start.look` looks at.

    Raises:
        SystemExit: this layout is not known here.
    """
    config = importlib.import_module("rayclean.config").load_config(f"{run_dir}/config.yaml")
    store = importlib.import_module("rayclean.storage.store").Store(run_dir)
    for package in ("rayclean.run", "rayclean"):  # the folder of the run; the root, as it was before
        try:
            start = importlib.import_module(f"{package}.start")
        except ImportError:
            continue
        run = start.look(config, store)
        try:
            steps = importlib.import_module(f"{package}.steps")
        except ImportError:  # the jobs follow from the graph
            return lambda: [job for merge in (run.merge(), run.merge_clips()) if merge for job in merge]
        return lambda: steps.merge_jobs(run, 0)
    raise SystemExit(f"{run_dir}: how this layout plans a merge is not known here; add it to planner() in {__file__}")


def watch(work: Callable[[], Any], root: Path) -> dict[str, int]:
    """Counts what a call enters of the modules below a folder.

    Returns:
        `modules` and `functions` that are entered, and `moves`: calls that pass from one module to another, whatever
        of other packages lies between; the way back is not counted.
    """
    stack: list[str] = []
    entered: set[tuple[str, str]] = set()
    moves = 0

    def follow(frame: FrameType, event: str, _: Any) -> None:
        nonlocal moves
        file = frame.f_code.co_filename
        if event not in ("call", "return") or not file.startswith(f"{root}/"):
            return
        if event == "return":
            stack.pop()
            return
        moves += bool(stack) and stack[-1] != file
        stack.append(file)
        entered.add((file, frame.f_code.co_qualname))

    sys.setprofile(follow)
    try:
        work()
    finally:
        sys.setprofile(None)
    return {"modules": len({file for file, _ in entered}), "functions": len(entered), "moves": moves}


def main(run_dir: str) -> None:
    planner(run_dir)()  # what is imported late is loaded now
    root = Path(str(importlib.import_module("rayclean").__file__)).parent
    print(json.dumps(watch(planner(run_dir), root)))


if __name__ == "__main__":
    main(sys.argv[1])

"""Labels judged by features and predictions that are there, beside cleanlab and beside who knows the truth.

    pip install -e .[peers]
    .venv/bin/python tools/cells/honest.py --features /elsewhere human_0 aggregate_0    # a rerun adds missing seeds
    .venv/bin/python tools/cells/honest.py --peers /elsewhere worst-resnet18_0
    .venv/bin/python tools/cells/honest.py --features /elsewhere human_0 --kinds removed verified proposed
    .venv/bin/python tools/cells/honest.py --table                                      # Markdown from what is there

Kinds of figures: `judged`, labels beside others' methods; `removed`, what an export by precision lets go; `verified`
and `proposed`, what rows add that people verify, at random or as a review proposes them.

Features are of tools/data/frozen_features.py. Each kind is kept with the commit that decided it; what another commit,
or a change that is not committed, decided is made anew where it is asked for. The truth is for the figures only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rayclean.errors import RaycleanError
from rayclean.schema import NO_LABEL
from tools.cells.honest_data import CELLS, Cell, FeatureCell, Folders
from tools.cells.honest_figures import classed_figures, export_figures, judged_figures, rival_figures
from tools.cells.honest_table import tables
from tools.cells.honest_verified import CHOOSERS, VERIFIED_DRAWS, verified_figures
from tools.cells.honest_ways import ByFeatures, ByPredictions, Way

RESULTS = Path("docs/results/honest")
DECIDING = (
    "rayclean/merge",
    "rayclean/train/heads.py",
    "rayclean/train/head_loop.py",
    "rayclean/embed/feature_space.py",
    "rayclean/memory/blind.py",
)
KINDS = ("judged", "removed", *CHOOSERS)
Figures = dict[str, Any]


def settings() -> Figures:
    """The commit that decides what rayclean makes of labels, and whether files differ from it."""
    return {"commit": _git("log", "-1", "--format=%h"), "dirty": bool(_git("status", "--porcelain"))}


def _git(*command: str) -> str:
    return subprocess.run(["git", *command, "--", *DECIDING], check=True, capture_output=True, text=True).stdout.strip()


def figures_of(kind: str, way: Way, seed: int, num_draws: int) -> Figures:
    """The figures of a cell with one seed.

    Args:
        kind: of `KINDS`.
        way: of `read_cell`.
        seed: of the figures' own draws.
        num_draws: of verified rows.
    """
    if kind == "judged":
        return _judged(way, seed)
    if kind == "removed":
        return export_figures(way.judge(np.full(len(way.rows.labels), NO_LABEL)), way.rows.clean)
    return verified_figures(way.judge, way.rows, CHOOSERS[kind], seed, num_draws)


def _judged(way: Way, seed: int) -> Figures:
    rows, began_s = way.rows, time.perf_counter()
    judged = way.judge(np.full(len(rows.labels), NO_LABEL))
    seconds = time.perf_counter() - began_s
    found = judged_figures(judged, rows, way.belief) | {"seconds": seconds} | rival_figures(way, judged, rows, seed)
    return found if (rows.truth >= 0).all() else found | {"of_a_class": classed_figures(judged, rows)}


def read_cell(cell: Cell, folders: Folders, seed: int) -> Way:
    """The rows of a cell with one seed, and how they are judged."""
    rows = cell.read(folders, seed)
    return ByFeatures(rows, seed) if isinstance(cell, FeatureCell) else ByPredictions(rows, seed)


def run_cell(name: str, folders: Folders, seeds: Sequence[int], kinds: Sequence[str], num_draws: int) -> None:
    """Adds what a cell's result lacks of some kinds of figures with some seeds."""
    cell, file, now = CELLS[name], RESULTS / f"{name}.json", settings()
    result: Figures = json.loads(file.read_text()) if file.exists() else {"cell": name, "kinds": {}}
    found = result["kinds"]  # by kind
    for kind in kinds:
        if now["dirty"] or found.get(kind, {}).get("settings") != now:
            found[kind] = {"settings": now, "seeds": {}}
    for seed in [seed for seed in cell.seeds if seed in seeds]:
        missing = [kind for kind in kinds if str(seed) not in found[kind]["seeds"]]
        if missing:
            way = read_cell(cell, folders, seed)
        for kind in missing:
            found[kind]["seeds"][str(seed)] = figures_of(kind, way, seed, num_draws)
            _keep(file, result)
        print(f"{name}, seed {seed}: made {', '.join(missing) or 'nothing, all was there'}", flush=True)


def _keep(file: Path, result: Figures) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(partial, file)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs cells, or prints the tables."""
    parser = argparse.ArgumentParser(description="Run cells by features or predictions, or print the tables.")
    parser.add_argument("cells", nargs="*", choices=[*CELLS, []], metavar="CELL", help=f"of {', '.join(CELLS)}")
    parser.add_argument("--features", type=Path, help="folder of cifar10n-0.npz, ..., of tools/data/frozen_features.py")
    parser.add_argument("--peers", type=Path, help="folder of worst-resnet18.npz, ...: pred_probs, given, true")
    parser.add_argument("--images", type=Path, help="folder of the shards, for noise that depends on images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the cells by features (0 1 2)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS[:2], help="of figures (judged removed)")
    parser.add_argument("--draws", type=int, default=VERIFIED_DRAWS, help=f"of verified rows ({VERIFIED_DRAWS})")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print Markdown")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    folders = Folders(options.features, options.peers, options.images)
    for name in options.cells:
        run_cell(name, folders, options.seeds, options.kinds, options.draws)
    if options.table:
        there = [RESULTS / f"{name}.json" for name in CELLS]
        print("\n".join(tables([json.loads(file.read_text()) for file in there if file.exists()])))


if __name__ == "__main__":
    try:
        main()
    except RaycleanError as error:
        print(f"honest: {error}", file=sys.stderr)
        sys.exit(error.exit_code)

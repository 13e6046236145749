"""When the units of each stage of a run were published: a picture, and which stages took turns.

    .venv/bin/rayclean run configs/digits.yaml run.dir=runs/timeline run.keep=all train.epochs=12 blocks.rows=100 \
        blocks.pairs=500 "scores=[iofm, inn, osm, odd, vote]" inn.features=self inn.steps=4
    .venv/bin/python tools/bench/timeline.py runs/timeline timeline.png

A unit's file is published when the unit ends, so a mark is an end. Two families ran side by side where their marks
alternate.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

STAGES = ("embed", "neighbors", "pairs", "paths", "influence", "simulate", "aum", "interpolate", "vote", "merge")
UNIT_FILES = (".safetensors", ".parquet", ".json")


def ends(run: Path) -> dict[str, list[float]]:
    """By stage, when its units ended: seconds since the first of them all, ascending."""
    found: dict[str, list[float]] = {}
    for stage in STAGES:
        files = [file for folder in run.glob(f"{stage}-*") for file in folder.rglob("*") if file.suffix in UNIT_FILES]
        times = sorted(file.stat().st_mtime for file in files if not file.name.startswith("_"))
        if times:
            found[stage] = times
    if not found:
        raise SystemExit(f"{run}: no units are there; keep them with run.keep=all")
    first = min(times[0] for times in found.values())
    return {stage: [time - first for time in times] for stage, times in found.items()}


def turns(one: Sequence[float], other: Sequence[float]) -> int:
    """How often the marks of two stages change sides; 1 where one stage ended before the other began."""
    sides = [side for _, side in sorted([*((time, 0) for time in one), *((time, 1) for time in other)])]
    return sum(a != b for a, b in itertools.pairwise(sides))


def draw(by_stage: dict[str, list[float]], path: Path) -> None:
    """One line per stage, one mark per unit."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.eventplot(list(by_stage.values()), linelengths=0.7)
    axes.set_yticks(range(len(by_stage)), list(by_stage))
    axes.invert_yaxis()
    axes.set(xlabel="seconds after the first unit", title="when units ended")
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw when the units of a run were published.")
    parser.add_argument("run", type=Path, help="the run's folder, with run.keep=all")
    parser.add_argument("picture", type=Path, help="the file to write, such as timeline.png")
    options = parser.parse_args(arguments)
    by_stage = ends(options.run)
    draw(by_stage, options.picture)
    families = [stage for stage in ("paths", "influence", "simulate") if stage in by_stage]
    for i, one in enumerate(families):
        for other in families[i + 1 :]:
            print(f"{one} and {other} changed turns {turns(by_stage[one], by_stage[other])} times")


if __name__ == "__main__":
    main()

"""What IOFM's paths cost and give: L, H and the pool of neighbours against AUROC, forwards and seconds.

    .venv/bin/python tools/cells/sweep_paths.py digits           # a rerun goes on with the settings that are missing
    RAYCLEAN_CIFAR10N=... .venv/bin/python tools/cells/sweep_paths.py human
    .venv/bin/python tools/cells/sweep_paths.py --table          # Markdown from what is there

Each setting is one more start of a cell that `tools/cells/run.py` has finished: training is kept, and so are the
embeddings after the first setting. What follows them is done anew in every start, also where another setting has
made the same lists or pairs, so that the seconds of two settings compare. Those on the clock hold the start of the
actors, those of work do not; `neighbors` holds the last snapshot's search for neighbours of any label too, which the
table of labels needs. The cell's folder is left with the last setting's table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rayclean.storage.published import Published
from rayclean.storage.store import Store
from tools.cells.run import CELLS, RUNS, Cell, evaluated, read_costs

RESULTS = Path("docs/results/paths")
STEPS = ("neighbors", "pairs", "paths", "interpolate")
SCORES = ("iofm", "iofm_last")
# All rows of a cell fit one part of an index of so many; a larger number changes the names of the folders from the
# index on and nothing else. It gives each start folders of its own.
ONE_PART = 1_000_000

Costs = dict[str, dict[str, float]]
Evaluated = Callable[[Cell, Path, Sequence[str]], dict[str, Any]]


@dataclass(frozen=True)
class Setting:
    """IOFM's settings.

    Attributes:
        num: L.
        steps: H.
        pool: same-label rows of each label among which neighbours are sought; None for all.
    """

    num: int = 10
    steps: int = 3
    pool: int | None = None

    @property
    def key(self) -> str:
        """Its name in the results."""
        return f"L={self.num} H={self.steps} pool={self.pool or 'none'}"

    def changes(self, start: int) -> list[str]:
        """Fields to replace; `start` is another number in every start of the study."""
        return [
            f"scores=[{', '.join(SCORES)}]",
            "run.keep=all",
            f"iofm.num={self.num}",
            f"iofm.steps={self.steps}",
            f"neighbors.pool={self.pool or ''}",
            f"blocks.index_rows={ONE_PART + start}",
        ]


SWEEPS = {
    "L": [Setting(num=num) for num in (1, 2, 4, 6, 10, 16)],
    "H": [Setting(steps=steps) for steps in (2, 3, 5, 10)],
    "pool": [Setting(pool=pool) for pool in (None, 1000, 500, 250, 100, 50, 25)],
}


def study(name: str, cell: Cell, folder: Path, file: Path, evaluate: Evaluated = evaluated) -> None:
    """Measures the settings that a cell's file does not have yet; the file is written after each.

    Args:
        name: the cell's.
        cell: what it runs.
        folder: its run.
        file: JSON, what was measured by the settings' keys.
        evaluate: starts the run with changes and evaluates it.
    """
    found: dict[str, Any] = {"cell": name, "changes": cell.changes, "starts": 0, "settings": {}}
    if file.exists():
        found = json.loads(file.read_text())
    file.parent.mkdir(parents=True, exist_ok=True)
    for setting in dict.fromkeys(setting for sweep in SWEEPS.values() for setting in sweep):
        if setting.key in found["settings"]:
            continue
        found["starts"] += 1
        _write(file, found)  # before the start: one that is interrupted is measured from its beginning by the next
        found["settings"][setting.key] = measure(cell, folder, setting, found["starts"], evaluate)
        _write(file, found)


def _write(file: Path, found: dict[str, Any]) -> None:
    file.write_text(json.dumps(found, indent=1) + "\n")


def measure(cell: Cell, folder: Path, setting: Setting, start: int, evaluate: Evaluated = evaluated) -> dict[str, Any]:
    """Starts the run with a setting; returns its AUROC and what this start cost."""
    store = Store(str(folder))
    before = read_costs(store)
    result = evaluate(cell, folder, [f"run.dir={folder}", *cell.changes, *setting.changes(start)])
    costs = spent(before, read_costs(store))
    rows, snapshots = Published.open(store).summary()["rows"], len(result["scores"]["iofm"]["curve"])
    kept = ("best", "best_epoch", "final")
    return {
        **asdict(setting),
        "rows": rows,
        "snapshots": snapshots,
        "scores": {score: {name: result["scores"][score][name] for name in kept} for score in SCORES},
        "forwards": costs["paths"]["forwards"],
        "forwards_each": costs["paths"]["forwards"] / rows / snapshots,
        "wall_s": {step: costs[step]["wall_s"] for step in STEPS},
        "busy_s": {step: costs[step]["busy_s"] for step in STEPS},
    }


def spent(before: Costs, after: Costs) -> Costs:
    """What was added to the costs of each step of STEPS.

    Raises:
        ValueError: nothing was added to a step, so the start did not do all of its paths.
    """
    found = {}
    for step in STEPS:
        first = before.get(step, {})
        found[step] = {name: value - first.get(name, 0.0) for name, value in after.get(step, {}).items()}
        if not found[step].get("busy_s"):
            raise ValueError(f"the start has no costs of step {step}; is its folder the run's?")
    return found


def tables(found: dict[str, Any]) -> list[str]:
    """Markdown: one table per sweep, with the settings that are measured."""
    columns = ("iofm best", "iofm final", "iofm_last final", "forwards", "work, s", *(f"{step}, s" for step in STEPS))
    lines = []
    for name, sweep in SWEEPS.items():
        lines += [f"| {' | '.join((name, *columns))} |", "|---" * (1 + len(columns)) + "|"]
        for setting in sweep:
            if setting.key in found["settings"]:
                value = {"L": setting.num, "H": setting.steps, "pool": setting.pool or "none"}[name]
                lines.append(_line(value, found["settings"][setting.key]))
        lines.append("")
    what = "AUROC; forwards of paths per sample and snapshot; work of all four steps, then their seconds on the clock"
    return [f"{found['cell']}: {what}", "", *lines[:-1]]


def _line(value: object, measured: dict[str, Any]) -> str:
    iofm, last = (measured["scores"][score] for score in SCORES)
    areas = [f"{area:.4f}".removeprefix("0") for area in (iofm["best"], iofm["final"], last["final"])]
    seconds = [f"{measured['wall_s'][step]:.1f}" for step in STEPS]
    work = [f"{measured['forwards_each']:.2f}", f"{sum(measured['busy_s'].values()):.1f}"]
    return f"| {' | '.join((str(value), *areas, *work, *seconds))} |"


def studies(
    arguments: Sequence[str] | None, description: str, results: Path, study: Callable[[str, Cell, Path, Path], None]
) -> list[dict[str, Any]]:
    """A study's command line: does the cells that it names, and returns what there is for `--table`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("cells", nargs="*", choices=[*CELLS, []], help=f"of {', '.join(CELLS)}")
    parser.add_argument("--table", action="store_true", help="print Markdown")
    options = parser.parse_args(arguments)
    for name in options.cells:
        study(name, CELLS[name], RUNS / name, results / f"{name}.json")
    there = [results / f"{name}.json" for name in CELLS if options.table]
    return [json.loads(file.read_text()) for file in there if file.exists()]


def main(arguments: Sequence[str] | None = None) -> None:
    found = studies(arguments, "Measure IOFM's settings on cells of the benchmark.", RESULTS, study)
    if found:
        print("\n\n".join("\n".join(tables(each)) for each in found))


if __name__ == "__main__":
    main()

"""The benchmark's cells: one run each, what `rayclean evaluate` says of it kept as JSON, one table over all.

    .venv/bin/python tools/cells/run.py digits            # one cell; a rerun continues it, a finished one is left alone
    RAYCLEAN_CIFAR10N=... .venv/bin/python tools/cells/run.py human asymmetric symmetric step
    .venv/bin/python tools/cells/run.py digits --without aum_excess    # which trains two networks of its own
    .venv/bin/python tools/cells/run.py --table           # Markdown from what is there

A cell is a config of the repository with fields replaced. INN is done twice, as the paper has it (another network's
features, H = 10) and with one network at H = 4: the second start of the same run adds what is missing. So the joint
model is there twice, of all the networks and of one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayclean.config import load_config
from rayclean.run.saved import CONFIG_FILE
from rayclean.run.start import look
from rayclean.schema import SCORES
from rayclean.storage.contents import read_json
from rayclean.storage.store import Store
from tools.cells.costs import costs
from tools.cells.joint_figures import joint_figures

OF_IMAGES = [name for name, score in SCORES.items() if not score.on_features]
RESULTS = Path("docs/results/cells")
RUNS = Path("runs/cells")
RAYCLEAN = Path(sys.executable).with_name("rayclean")
CIFAR10N = "configs/cifar10n.yaml"
TESTED = "influence.validation=${RAYCLEAN_CIFAR10N}/cifar10n-test-*.tar"
CLEAN = ("data.label=json:clean_label", "data.truth=")
HUMAN = (TESTED, "influence.validation_label=json:clean_label")
SYMMETRIC = ("noise.kind=symmetric", "noise.rate=0.3")
ASYMMETRIC = ("noise.kind=asymmetric_cifar10", "noise.rate=0.4")
ONE_NETWORK = ("inn.features=self", "inn.steps=4", "scores=[iofm, inn]")
INN_ONE_NETWORK = "inn (one network, H=4)"


@dataclass(frozen=True)
class Cell:
    """One run of the benchmark.

    Attributes:
        config: its file.
        changes: fields replaced.
        every: epochs from one snapshot to the next.
        last: the last epoch.
    """

    config: str
    changes: tuple[str, ...]
    every: int
    last: int

    def fixed(self) -> list[str]:
        """What both starts have: INN at the middle and at the last epoch, votes and influence at every snapshot."""
        every = list(range(self.every, self.last + 1, self.every))
        curves = [f"neighbors.vote_epochs={every}", f"influence.epochs={every}"]
        return [*self.changes, f"inn.epochs=[{self.last // 2}, {self.last}]", *curves]


CELLS = {
    "digits": Cell(
        "configs/digits.yaml", ("influence.validation=split", "influence.validation_label=json:truth"), 10, 120
    ),
    "human": Cell(CIFAR10N, HUMAN, 4, 40),
    "asymmetric": Cell(CIFAR10N, (*CLEAN, TESTED, *ASYMMETRIC), 4, 40),
    "symmetric": Cell(CIFAR10N, (*CLEAN, TESTED, *SYMMETRIC), 4, 40),
    "step": Cell(CIFAR10N, (*CLEAN, TESTED, *SYMMETRIC, "noise.imbalance=step"), 4, 40),
    # Not looked at before the joint model's settings were fixed.
    "aggregate": Cell(CIFAR10N, ("data.label=json:aggre_label", *HUMAN), 4, 40),
    "symmetric80": Cell(CIFAR10N, (*CLEAN, TESTED, "noise.kind=symmetric", "noise.rate=0.8"), 4, 40),
    "long_tail": Cell(CIFAR10N, (*CLEAN, TESTED, *SYMMETRIC, "noise.imbalance=long_tail"), 4, 40),
    "instance": Cell(CIFAR10N, (*CLEAN, TESTED, "noise.kind=instance", "noise.rate=0.3"), 4, 40),
    "random": Cell(CIFAR10N, ("data.label=json:random_label1", *HUMAN), 4, 40),
    "symmetric50": Cell(CIFAR10N, (*CLEAN, TESTED, "noise.kind=symmetric", "noise.rate=0.5"), 4, 40),
    "human_wide": Cell(CIFAR10N, (*HUMAN, "model.width=32"), 4, 40),
    "asymmetric_wide": Cell(CIFAR10N, (*CLEAN, TESTED, *ASYMMETRIC, "model.width=32"), 4, 40),
    **{f"human_seed{seed}": Cell(CIFAR10N, (*HUMAN, f"run.seed={seed}"), 4, 40) for seed in (1, 2)},
    **{
        f"asymmetric_seed{seed}": Cell(CIFAR10N, (*CLEAN, TESTED, *ASYMMETRIC, f"run.seed={seed}"), 4, 40)
        for seed in (1, 2)
    },
}


def run_cell(name: str, cell: Cell, without: Sequence[str]) -> dict[str, Any]:
    """Does a cell's two starts and returns what is kept of it."""
    folder = RUNS / name
    fixed = [f"run.dir={folder}", *cell.fixed()]
    scores = [name for name in OF_IMAGES if name not in without]
    result = evaluated(cell, folder, [*fixed, f"scores=[{', '.join(scores)}]"], "--plots", str(RESULTS / name))
    stages, scores_cost = read_costs(Store(str(folder))), score_costs(folder)
    joint = {"all networks": joint_figures(folder)}
    second = evaluated(cell, folder, [*fixed, *ONE_NETWORK])
    result["scores"][INN_ONE_NETWORK] = second["scores"]["inn"]
    scores_cost[INN_ONE_NETWORK] = score_costs(folder)["inn"]
    joint["one network"] = joint_figures(folder)
    kept = {"joint": joint, "costs": stages, "score_costs": scores_cost}
    return {"cell": name, "changes": cell.changes, **result, **kept}


def score_costs(folder: Path) -> dict[str, dict[str, float]]:
    """What each score of a cell's last start cost."""
    return costs(look(load_config(folder / CONFIG_FILE, ()), Store(str(folder))))


def evaluated(cell: Cell, folder: Path, changes: Sequence[str], *more: str) -> dict[str, Any]:
    """Starts a cell's run with changes, and returns what `rayclean evaluate` says of it."""
    subprocess.run([RAYCLEAN, "run", cell.config, *changes], check=True)
    command: list[str | Path] = [RAYCLEAN, "evaluate", folder, "--json", *more]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(found.stdout)
    return result


def read_costs(store: Store) -> dict[str, dict[str, float]]:
    """By stage: seconds on the clock, seconds of work, images through a network."""
    costs: dict[str, dict[str, float]] = {}
    for entry in read_json(store, "record/steps.json"):
        stage = costs.setdefault(entry["step"], {"wall_s": 0.0, "busy_s": 0.0, "forwards": 0.0})
        stage["wall_s"] += entry["wall_s"]
    for name in store.list("record"):
        if name == "steps.json":
            continue
        for entry in read_json(store, f"record/{name}"):
            costs[entry["step"]]["busy_s"] += entry["busy_s"]
            costs[entry["step"]]["forwards"] += entry["facts"].get("forwards", 0)
    return costs


def table(results: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown: best and final AUROC of every score in every cell."""
    names = list(dict.fromkeys(name for result in results for name in result["scores"]))
    lines = ["| score | " + " | ".join(result["cell"] for result in results) + " |", "|---" * (len(results) + 1) + "|"]
    for name in names:
        cells = []
        for result in results:
            quality = result["scores"].get(name)
            cells.append("" if quality is None else f"{_short(quality['best'])} ({_short(quality['final'])})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    rates = (f"{_short(result['true_noise_rate'])}" for result in results)
    return [*lines, "| *wrong labels* | " + " | ".join(rates) + " |"]


def cost_table(results: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown: what each score cost in every cell."""
    names = list(dict.fromkeys(name for result in results for name in result["score_costs"]))
    lines = ["| score | " + " | ".join(result["cell"] for result in results) + " |", "|---" * (len(results) + 1) + "|"]
    for name in names:
        costs = [result["score_costs"].get(name) for result in results]
        lines.append(f"| {name} | " + " | ".join("" if cost is None else _cost(cost) for cost in costs) + " |")
    return lines


def _cost(cost: dict[str, float]) -> str:
    seconds = f"{cost['train_s']:.0f} + {cost['score_s']:.0f} s"
    return f"{cost['epochs']:.0f} epochs + {cost['forwards']:.0f}, {seconds}"


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Run cells of the benchmark, or print the table over them.")
    parser.add_argument("cells", nargs="*", choices=[*CELLS, []], help=f"of {', '.join(CELLS)}")
    parser.add_argument("--table", action="store_true", help="print Markdown")
    parser.add_argument("--without", nargs="*", choices=OF_IMAGES, default=[], help="scores to leave out")
    options = parser.parse_args(arguments)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in options.cells:
        file = RESULTS / f"{name}.json"
        if not file.exists():
            file.write_text(json.dumps(run_cell(name, CELLS[name], options.without), indent=1) + "\n")
    if options.table:
        there = [RESULTS / f"{name}.json" for name in CELLS]
        found = [json.loads(file.read_text()) for file in there if file.exists()]
        print("\n".join([*table(found), "", *cost_table(found)]))


if __name__ == "__main__":
    main()

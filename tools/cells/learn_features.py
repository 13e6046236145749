"""Training with the result on features: every method in every cell and seed, one command each; one table over all.

    RAYCLEAN_CIFAR10N=... .venv/bin/python tools/cells/learn_features.py               # all that is missing; resumable
    RAYCLEAN_CIFAR10N=... .venv/bin/python tools/cells/learn_features.py human --seed 0 --methods mixup retrain
    .venv/bin/python tools/cells/learn_features.py --table                             # Markdown from what is there

A cell is a run of configs/cifar10n_features.yaml on 10,000 CIFAR-10 images, seen once at 128 pixels by `lite`, a frozen
network with ImageNet weights. All cells, seeds and methods share one run folder, and so the features. Of the 2,000 test
images 20 per class are verified samples, which choose each method's weight decay; accuracy is that of the others.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.cells.learn import CELLS, COMPARED, DIVIDE_RATE, METHODS, NEW_NETWORK, TEST, final
from tools.cells.paired import correct_of, paired, with_correct
from tools.cells.run import RAYCLEAN

CONFIG = "configs/cifar10n_features.yaml"
RESULTS = Path("docs/results/learn_features")
RUN = Path("runs/learn_features")
SEEDS = (0, 1, 2)
SIZE = 128
HERE = ("run.executor=inline", "inn.steps=4")  # seconds per method: no cluster is started for them
# 200 right-hand sides and as many probes cost an hour with a Hessian of 12,810 parameters over 10,000 rows.
INFLUENCE = ("influence.validation_num=20", "influence.hessian_rows=2000", "influence.probes=50")
DECAYS = "learn.train.weight_decays=[0.01, 0.03, 0.1, 0.3, 1.0]"
# What the papers compare, and what else is to be known of retraining.
ASKED = (*COMPARED, ("retrain_posterior", "retrain"), ("retrain_weight", "retrain"))

Results = dict[str, dict[str, dict[int, dict[str, Any]]]]  # by cell, method and seed


def file_of(cell: str, name: str, seed: int) -> Path:
    """Where a result is kept."""
    return RESULTS / cell / f"{name}-seed{seed}.json"


def run_cell(cell: str, seed: int, names: Sequence[str], size: int = SIZE) -> None:
    """Does a cell's run, then the methods that are missing."""
    wanted = [name for name in names if not file_of(cell, name, seed).exists()]
    if not wanted:
        return
    of_run = [f"run.dir={RUN}", f"run.seed={seed}", f"model.size={size}", *HERE, *CELLS[cell].changes]
    print(f"{cell} (seed {seed}): the run", flush=True)
    subprocess.run([RAYCLEAN, "run", CONFIG, *of_run], check=True, stdout=subprocess.DEVNULL)
    for name in wanted:
        learn(cell, name, seed)


def learn(cell: str, name: str, seed: int) -> None:
    """Does a method on the cell whose run was the last one."""
    method, changes = METHODS[name]
    rate = [f"learn.dividemix.lambda_u={DIVIDE_RATE[cell]}"] if method == "dividemix" else []
    gamma = 5 if cell in ("human", "symmetric80") else 8  # as in learn.py
    options = [*TEST, DECAYS, *INFLUENCE, f"influence.gamma={gamma}", *changes, *rate]
    started_s = time.monotonic()
    command: list[str | Path] = [RAYCLEAN, "learn", RUN, "--json", "--method", method, *options]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    learned_s = time.monotonic() - started_s
    result = {"cell": cell, "name": name, "seed": seed, "options": options, "learn_s": learned_s}
    result |= with_correct(RUN, json.loads(found.stdout))
    path = file_of(cell, name, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{cell} {name} (seed {seed}): {final(result)['last']:.4f} in {learned_s:.0f} s", flush=True)


def read_results() -> Results:
    """All that are there."""
    found: Results = {}
    for path in sorted(RESULTS.glob("*/*.json")):
        result = json.loads(path.read_text())
        found.setdefault(result["cell"], {}).setdefault(result["name"], {})[result["seed"]] = result
    return found


def table(results: Results) -> list[str]:
    """Markdown: test accuracy after the last epoch, mean over the seeds, with the weight decays that were chosen."""
    lines = ["| method | " + " | ".join(CELLS) + " |", "|---" * (len(CELLS) + 1) + "|"]
    for name, (method, _) in METHODS.items():
        for part in ("", NEW_NETWORK) if method == "influential_rank" and "rank" in name else ("",):
            cells = [_cell(results.get(cell, {}).get(name, {}), part) for cell in CELLS]
            lines.append(f"| {name}{', ' * bool(part)}{part} | " + " | ".join(cells) + " |")
    return lines


def _cell(by_seed: dict[int, dict[str, Any]], part: str) -> str:
    if not by_seed:
        return "not run"
    trials = [final(result, part) for result in by_seed.values()]
    last = sum(trial["last"] for trial in trials) / len(trials)
    decays = sorted({trial["facts"]["choice"]["weight_decay"] for trial in trials if "choice" in trial["facts"]})
    chosen = f" ({', '.join(f'{decay:g}' for decay in decays)})" if decays else ""
    seeds = "" if len(trials) == len(SEEDS) else f", {len(trials)} of {len(SEEDS)} seeds"
    return f"{100 * last:.1f}{chosen}{seeds}"


def differences(results: Results) -> list[str]:
    """Markdown: by how many points a method is above what it is compared with, over the seeds that both have."""
    lines = ["| cell | method | compared with | difference | 95% | |", "|---" * 6 + "|"]
    for cell in CELLS:
        by_name = results.get(cell, {})
        for name, other in ASKED:
            seeds = sorted(by_name.get(name, {}).keys() & by_name.get(other, {}).keys())
            one, two = ([correct_of(final(by_name[each][seed])) for seed in seeds] for each in (name, other))
            pairs = [(a, b) for a, b in zip(one, two, strict=True) if a is not None and b is not None]
            if pairs:
                found = paired(*zip(*pairs, strict=True))
                width = f"{100 * found.mean:+.1f} | {100 * found.half:.1f}"
                lines.append(f"| {cell} | {name} | {other} | {width} | {found.verdict} |")
    return lines


def main(arguments: Sequence[str]) -> int:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", nargs="*", choices=[*CELLS, []])
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seed", type=int, help="one alone")
    parser.add_argument("--table", action="store_true", help="print Markdown from what is there")
    options = parser.parse_args(arguments)
    if options.table:
        results = read_results()
        print("\n".join([*table(results), "", *differences(results)]))
        return 0
    for seed in SEEDS if options.seed is None else [options.seed]:
        for cell in options.cells or CELLS:
            run_cell(cell, seed, options.methods)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Training with the result: every method in every cell, one command each, kept as JSON; one table over all.

    RAYCLEAN_CIFAR10N=... .venv/bin/python tools/cells/learn.py step ce mixup   # a cell and some methods; resumable
    RAYCLEAN_CIFAR10N=... .venv/bin/python tools/cells/learn.py step            # all methods, in order of their cost
    RAYCLEAN_CIFAR10N=... .venv/bin/python tools/cells/learn.py step ce --seed 1
    .venv/bin/python tools/cells/learn.py --table                               # Markdown from what is there
    RAYCLEAN_CIFAR10N=... .venv/bin/python tools/cells/learn.py step odd --classes  # what was left out of each class

A cell is a run of `rayclean run` (10,000 CIFAR-10 images, small_resnet of width 16, one network, 40 epochs), and each
method one `rayclean learn` on it. Of the 2,000 test images 20 per class are the verified samples; accuracy is that of
the others. What is finished is left alone.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rayclean.config import load_config
from rayclean.run.saved import CONFIG_FILE
from rayclean.run.start import look
from rayclean.storage.contents import map_arrays
from rayclean.storage.store import Store
from tools.cells.paired import Difference, correct_of, paired, with_correct
from tools.cells.run import CELLS as SCORED
from tools.cells.run import CLEAN, ONE_NETWORK, RAYCLEAN, TESTED, Cell

RESULTS = Path("docs/results/learn")
RUNS = Path("runs/learn")
CELLS = {
    "step": SCORED["step"],
    "human": SCORED["human"],
    "symmetric80": SCORED["symmetric80"],
    "asymmetric": SCORED["asymmetric"],
    "clean": Cell("configs/cifar10n.yaml", (*CLEAN, TESTED), 4, 40),
}
TEST = ("learn.test=${RAYCLEAN_CIFAR10N}/cifar10n-test-*.tar", "learn.test_label=json:clean_label")
CE = "learn.train.loss=ce"
# Half of the epochs that the plain methods have: one of DivideMix costs about ten of theirs.
DIVIDE = ("learn.dividemix.epochs=20", "learn.dividemix.warmup=5", "learn.dividemix.schedule=cosine")
DIVIDE_RATE = {"step": 25, "human": 0, "symmetric80": 25, "asymmetric": 0, "clean": 0}  # lambda_u of the authors
METHODS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ce": ("plain", (CE,)),
    "mixup": ("plain", ()),
    "retrain": ("retrain", ()),
    "retrain_weight": ("retrain", ("learn.retrain.by=weight",)),
    "retrain_posterior": ("retrain", ("learn.retrain.by=posterior",)),
    "odd": ("odd", (CE,)),
    "odd_mixup": ("odd", ()),
    "ce_rank": ("influential_rank", (CE,)),
    "mixup_rank": ("influential_rank", ()),
    "rog": ("rog", (CE,)),
    "ce_longer": ("influential_rank", (CE, "learn.rank.removal=nothing")),
    "ce_small_loss": ("influential_rank", (CE, "learn.rank.removal=small_loss")),
    "dividemix": ("dividemix", DIVIDE),
    "iofm_dividemix": ("dividemix", (*DIVIDE, "learn.dividemix.score=iofm")),
    "inn_dividemix": ("dividemix", (*DIVIDE, "learn.dividemix.score=inn")),
    "joint_dividemix": ("dividemix", (*DIVIDE, "learn.dividemix.score=joint")),
}
# Core-hours of a method in a cell of 10,000 rows, measured on 2 cores; printed before it starts.
COST_H = {"plain": 0.15, "retrain": 0.3, "odd": 0.15, "influential_rank": 0.45, "rog": 0.15, "dividemix": 0.6}

NEW_NETWORK = "new network"
TEST_SAMPLES = 1800  # 2,000 less 20 verified samples per class
# What the papers claim: the first is better than the second.
COMPARED = (
    ("odd", "ce"),
    ("odd_mixup", "mixup"),
    ("ce_rank", "ce"),
    ("ce_rank", "ce_longer"),
    ("ce_rank", "ce_small_loss"),
    ("mixup_rank", "mixup"),
    ("retrain", "mixup"),
    ("retrain_weight", "mixup"),
    ("retrain_posterior", "mixup"),
    ("rog", "ce"),
    ("dividemix", "mixup"),
    ("iofm_dividemix", "dividemix"),
    ("inn_dividemix", "dividemix"),
    ("joint_dividemix", "dividemix"),
)


def file_of(cell: str, name: str, seed: int) -> Path:
    """Where a result is kept."""
    return RESULTS / cell / (f"{name}.json" if not seed else f"{name}-seed{seed}.json")


def run_method(cell: str, name: str, seed: int, more: Sequence[str] = ()) -> None:
    """Does the run where it is missing, then the method."""
    method, changes = METHODS[name]
    print(f"{cell} {name} (seed {seed}): about {COST_H[method]} core-hours", flush=True)
    folder = RUNS / (cell if not seed else f"{cell}-seed{seed}")
    started_s = time.monotonic()
    seeded = [f"run.seed={seed}"] if seed else []
    of_run = [f"run.dir={folder}", *CELLS[cell].fixed(), *ONE_NETWORK, *seeded]
    subprocess.run([RAYCLEAN, "run", CELLS[cell].config, *of_run], check=True, stdout=subprocess.DEVNULL)
    rate = [f"learn.dividemix.lambda_u={DIVIDE_RATE[cell]}"] if method == "dividemix" else []
    # 5 votes of 10 classes past 40% noise, else 8, by the paper's rule; the true rates are .26, .41, .72, .20 and 0.
    gamma = 5 if cell in ("human", "symmetric80") else 8
    options = [*TEST, "influence.validation_num=20", f"influence.gamma={gamma}", *changes, *rate]
    trained_s = time.monotonic()
    command: list[str | Path] = [RAYCLEAN, "learn", folder, "--json", "--method", method, *options, *more]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds = {"run_s": trained_s - started_s, "learn_s": time.monotonic() - trained_s}
    result = {"cell": cell, "name": name, "seed": seed, "options": options, **seconds}
    result |= with_correct(folder, json.loads(found.stdout))
    path = file_of(cell, name, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def read_results() -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Results by cell and method, a list over the seeds."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for path in sorted(RESULTS.glob("*/*.json")):
        result = json.loads(path.read_text())
        found.setdefault(result["cell"], {}).setdefault(result["name"], []).append(result)
    return found


def table(results: dict[str, dict[str, list[dict[str, Any]]]]) -> list[str]:
    """Markdown: test accuracy, best (last), of every method in every cell; means over seeds where there are more."""
    lines = ["| method | " + " | ".join(CELLS) + " |", "|---" * (len(CELLS) + 1) + "|"]
    for name, (method, _) in METHODS.items():
        for part in ("", NEW_NETWORK) if method == "influential_rank" and "rank" in name else ("",):
            cells = [_cell(results.get(cell, {}).get(name, []), part) for cell in CELLS]
            lines.append(f"| {name}{', ' * bool(part)}{part} | " + " | ".join(cells) + " |")
    return lines


def final(result: dict[str, Any], part: str = "") -> dict[str, Any]:
    """The network that a method ends with; of Influential Rank that after the last round that was not undone.

    Args:
        result: of a method.
        part: NEW_NETWORK for the one that Influential Rank trains anew.
    """
    trials: list[dict[str, Any]] = result["trials"]
    rounds = [trial for trial in trials if trial["name"].startswith("round") and not trial["facts"]["undone"]]
    if part:
        return next((trial for trial in trials if trial["name"] == part), trials[0])
    return rounds[-1] if rounds else trials[0] if result["method"] == "influential_rank" else trials[-1]


def _cell(results: list[dict[str, Any]], part: str) -> str:
    if not results:
        return "not run"
    trials = [final(result, part) for result in results]
    best, last = (sum(trial[key] for trial in trials) / len(trials) for key in ("best", "last"))
    seeds = f", {len(trials)} seeds" if len(trials) > 1 else ""
    return f"{100 * best:.1f} ({100 * last:.1f}{seeds})"


def removals(results: dict[str, dict[str, list[dict[str, Any]]]]) -> list[str]:
    """Markdown: what ODD and Influential Rank removed, and how much of it is truly wrong."""
    lines = ["| cell | method | step | removed | of these wrong | wrong in what is left |", "|---" * 6 + "|"]
    for cell, by_name in results.items():
        for name, found in by_name.items():
            for trial in found[0]["trials"]:
                lost = trial["removal"]
                if lost and "precision" in lost:
                    share = "-" if lost["precision"] is None else f"{lost['precision']:.3f}"
                    left = "-" if lost["kept_right"] is None else f"{1 - lost['kept_right']:.3f}"
                    count = f"{lost['removed']:,} of {lost['rows']:,}"
                    undone = " (undone)" if trial["facts"].get("undone") else ""
                    lines.append(f"| {cell} | {name} | {trial['name']}{undone} | {count} | {share} | {left} |")
    return lines


def differences(results: dict[str, dict[str, list[dict[str, Any]]]]) -> list[str]:
    """Markdown: by how much a method is above what it is compared with, in points of the last epoch's accuracy.

    By pairs of images, where both have kept what they got right.
    """
    lines = ["| cell | method | compared with | difference | 95% at most | |", "|---" * 6 + "|"]
    for cell, by_name in results.items():
        for name, other in COMPARED:
            if name in by_name and other in by_name:
                found = _difference(*(final(by_name[each][0]) for each in (name, other)))
                width = f"{100 * found.mean:+.1f} | {100 * found.half:.1f}"
                lines.append(f"| {cell} | {name} | {other} | {width} | {found.verdict} |")
    return lines


def _difference(one: dict[str, Any], other: dict[str, Any]) -> Difference:
    """Of two networks' last accuracies."""
    right, of_other = correct_of(one), correct_of(other)
    if right is not None and of_other is not None:
        return paired([right], [of_other])
    a, b = one["last"], other["last"]
    return Difference(a - b, interval(a, b))


def by_class(cell: str, name: str) -> list[str]:
    """Markdown: of each given label the rows, and the share of them that a method's last lesson leaves out."""
    folder = RUNS / cell
    this = look(load_config(folder / CONFIG_FILE, ()), Store(str(folder)))
    result = json.loads(file_of(cell, name, 0).read_text())
    lesson = [trial["facts"]["lesson"] for trial in result["trials"] if trial["facts"].get("lesson")][-1]
    labels, given = map_arrays(this.store, lesson)["labels"], this.catalog.label
    lines = ["| given label | rows | left out |", "|---" * 3 + "|"]
    for label, class_name in enumerate(this.classes.names):
        here = labels[given == label]
        share = f"{(here < 0).mean():.2f}" if len(here) else "-"
        lines.append(f"| {class_name} | {len(here):,} | {share} |")
    return lines


def interval(accuracy_a: float, accuracy_b: float, samples: int = TEST_SAMPLES) -> float:
    """Half width of the 95% interval of a difference of two accuracies, as if on two sets of samples.

    Both are of the same samples, and what both get right or wrong cancels: the true interval is narrower.
    """
    variance = accuracy_a * (1 - accuracy_a) + accuracy_b * (1 - accuracy_b)
    return 1.96 * math.sqrt(variance / samples)


def main(arguments: Sequence[str]) -> int:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cell", nargs="?", choices=list(CELLS))
    parser.add_argument("methods", nargs="*", metavar="method")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], help="fields that change no result, as resources.train.cpus=1")
    parser.add_argument("--classes", action="store_true", help="print what the methods left out of each class")
    parser.add_argument("--table", action="store_true", help="print Markdown from what is there")
    options = parser.parse_args(arguments)
    if options.table:
        results = read_results()
        print("\n".join([*table(results), "", *differences(results), "", *removals(results)]))
        return 0
    if options.cell is None:
        parser.error(f"a cell of {', '.join(CELLS)} is expected, or --table")
    unknown = set(options.methods) - set(METHODS)
    if unknown:
        parser.error(f"no method {', '.join(sorted(unknown))}; methods: {', '.join(METHODS)}")
    if options.classes:
        for name in options.methods:
            print("\n".join([name, "", *by_class(options.cell, name), ""]))
        return 0
    for name in options.methods or METHODS:
        if not file_of(options.cell, name, options.seed).exists():
            run_method(options.cell, name, options.seed, options.set)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

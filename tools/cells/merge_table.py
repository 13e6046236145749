"""The joint model beside the scores, the oracle and the peers, over all cells of the benchmark, as Markdown.

    .venv/bin/python tools/cells/merge_table.py        # from docs/results/cells and docs/results/peers

A cell that has not been run stays in the table, with its command. Cost: forwards per sample; a training step counts 3.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.cells.run import CELLS, INN_ONE_NETWORK, RESULTS

PEERS = Path("docs/results/peers")
DESIGN = ("human", "asymmetric", "symmetric", "step", "digits")  # the cells that settings were chosen by
# What else has seen a cell: the start values of the recipe, two numbers of the calibration.
SEEN = {"symmetric80": "start values", "aggregate": "calibration"}
ONE, ALL = "one network", "all networks"
STEP_COST = 3

Result = Mapping[str, Any]


def short(value: float) -> str:
    """Three digits, as in the other tables."""
    return f"{value:.3f}".removeprefix("0")


def costs(result: Result) -> dict[str, float]:
    """Forwards per sample of the joint model of one network and of all, by what its scores cost."""
    by_score = result["score_costs"]
    iofm, near, one = (by_score[name] for name in ("iofm", "inn", INN_ONE_NETWORK))
    networks = len(result["joint"][ALL]["belief_roles"]) + 1
    epochs, walked = iofm["epochs"], iofm["forwards"]
    return {
        ONE: STEP_COST * epochs + walked + one["forwards"],
        ALL: STEP_COST * epochs * networks + walked + near["forwards"] + networks - 1,
    }


def best_score(result: Result) -> tuple[str, float]:
    """The score with the highest final AUROC."""
    name = max(result["scores"], key=lambda score: result["scores"][score]["final"])
    return name, result["scores"][name]["final"]


def auroc_lines(results: Mapping[str, Result], peers: Mapping[str, Result]) -> list[str]:
    """AUROC of the best score, of the joint models with their oracles, and of the vote."""
    joints = [ONE, "its oracle", ALL, "its oracle"]
    head = ["cell", "used for design", "best score", *joints, "vote", "best peer", "cost: one, all, peer"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for cell in CELLS:
        use = "yes" if cell in DESIGN else SEEN.get(cell, "no")
        if cell not in results:
            lines.append(f"| {cell} | {use} | not run: `tools/cells/run.py {cell}` |" + " |" * (len(head) - 3))
            continue
        result, joint = results[cell], results[cell]["joint"]
        name, best = best_score(result)
        areas = [short(joint[kind][figure]) for kind in (ONE, ALL) for figure in ("auroc", "oracle_auroc")]
        peer, its_cost = best_peer(peers[cell]) if cell in peers else ("not run", "")
        cost = ", ".join([*(f"{value:.0f}" for value in costs(result).values()), *([its_cost] if its_cost else [])])
        vote = short(result["scores"]["vote"]["final"])
        lines.append(f"| {' | '.join([cell, use, f'{short(best)} {name}', *areas, vote, peer, cost])} |")
    return lines


def best_peer(result: Result) -> tuple[str, str]:
    """The peer with the highest AUROC of those that are measured, and what it cost."""
    found = [
        (quality["auroc"], f"{peer} {score}", each["forward_equivalents"])
        for peer, each in result["peers"].items()
        for score, quality in each["scores"].items()
    ]
    area, name, cost = max(found)
    return f"{short(area)} {name}", f"{cost:.0f}"


def calibration_lines(results: Mapping[str, Result]) -> list[str]:
    """What the probabilities say against what is: of one network, then of all."""
    head = ["cell", "ECE", "noise rate (true)", "predicted right", "given right", "network's argmax", "epoch"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for cell, result in results.items():
        one, every = result["joint"][ONE], result["joint"][ALL]
        both = (f"{short(one[figure])}, {short(every[figure])}" for figure in ("ece", "noise_rate", "predicted_right"))
        error, rate, right = both
        true, given, own = (short(one[figure]) for figure in ("true_noise_rate", "given_right", "network_right"))
        columns = [cell, error, f"{rate} ({true})", right, given, own, str(one["belief_epoch"])]
        lines.append(f"| {' | '.join(columns)} |")
    return lines


def read(folder: Path, names: Sequence[str]) -> dict[str, Result]:
    """The results that are there, by cell."""
    there = {name: folder / f"{name}.json" for name in names}
    return {name: json.loads(file.read_text()) for name, file in there.items() if file.exists()}


def main() -> None:
    results = {name: each for name, each in read(RESULTS, list(CELLS)).items() if "joint" in each}
    print("\n".join([*auroc_lines(results, read(PEERS, list(CELLS))), "", *calibration_lines(results)]))


if __name__ == "__main__":
    main()

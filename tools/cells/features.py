"""Runs on features of a frozen network, beside `fit_features` and networks from nothing, one cell after the other.

    export RAYCLEAN_CIFAR10N=... RAYCLEAN_CIFAR100N=...
    .venv/bin/python tools/cells/features.py human_0 symmetric80 --seeds 3     # some cells
    .venv/bin/python tools/cells/features.py                                   # all of them; resumable
    .venv/bin/python tools/cells/features.py --table                           # Markdown of what is there

A cell is `rayclean run configs/cifar10n_features.yaml` with other labels or shards, then `rayclean evaluate`. All cells
of a data set share one run folder, so that the network looks at each image once; a cell that is kept is left alone.
Each also says by how much `label_score` differs from what `fit_features` makes of the same features, and how many
images were decoded and went through the network in it.
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

import numpy as np

from rayclean.catalog.features import RowFeatures
from rayclean.config import dump_config, load_config, parse_config
from rayclean.memory.merge import MEMORY
from rayclean.memory.run import begin_features, compute, merged
from rayclean.run.grow import grow
from rayclean.run.run import Run
from rayclean.run.saved import CONFIG_FILE
from rayclean.run.start import look
from rayclean.schema import NO_LABEL, Array
from rayclean.storage.contents import read_json
from rayclean.storage.published import Published
from rayclean.storage.store import Store
from tools.cells.run import ASYMMETRIC, CLEAN, SYMMETRIC

RESULTS, RUNS = Path("docs/results/features"), Path("runs/features")
RAYCLEAN = Path(sys.executable).with_name("rayclean")
CONFIG = "configs/cifar10n_features.yaml"
SCORES = "scores=[loss, ens_loss, margin, aum, wrong_events, iofm_last, inn, vote, odd]"
FINE = ("data.classes=100", "data.label=json:label", "data.truth=json:clean_label")


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        data: `CIFAR10N` or `CIFAR100N`, whose shards the environment names.
        part: `0`, `1` for one of its two shards, `*` for both.
        changes: fields replaced.
        nothing: the cell of tools/cells/run.py by a network from nothing, on both shards; empty where there is none.
    """

    data: str
    part: str
    changes: tuple[str, ...] = ()
    nothing: str = ""

    def overrides(self, seed: int) -> list[str]:
        """Fields of its run."""
        name = self.data.lower()
        shards = f"data.shards=${{RAYCLEAN_{self.data}}}/{name}-train-*{self.part.replace('*', '')}.tar"
        return [f"run.dir={RUNS / name}", f"run.seed={seed}", "run.keep=all", shards, SCORES, *self.changes]


def _both(name: str, changes: tuple[str, ...], nothing: str) -> dict[str, Cell]:
    """A cell of both shards, and of each alone."""
    alone = {f"{name}_{part}": Cell("CIFAR10N", part, changes) for part in ("0", "1")}
    return {name: Cell("CIFAR10N", "*", changes, nothing), **alone}


CELLS: dict[str, Cell] = {
    **_both("human", (), "human"),
    **_both("aggregate", ("data.label=json:aggre_label",), "aggregate"),
    **_both("asymmetric", (*CLEAN, *ASYMMETRIC), "asymmetric"),
    **_both("symmetric", (*CLEAN, *SYMMETRIC), "symmetric"),
    **_both("symmetric80", (*CLEAN, "noise.kind=symmetric", "noise.rate=0.8"), "symmetric80"),
    **_both("step", (*CLEAN, *SYMMETRIC, "noise.imbalance=step"), "step"),
    "random": Cell("CIFAR10N", "*", ("data.label=json:random_label1",), "random"),
    "symmetric50": Cell("CIFAR10N", "*", (*CLEAN, "noise.kind=symmetric", "noise.rate=0.5"), "symmetric50"),
    "long_tail": Cell("CIFAR10N", "*", (*CLEAN, *SYMMETRIC, "noise.imbalance=long_tail"), "long_tail"),
    "instance": Cell("CIFAR10N", "*", (*CLEAN, "noise.kind=instance", "noise.rate=0.3"), "instance"),
    "cifar100n": Cell("CIFAR100N", "*", FINE),
    "cifar100n_0": Cell("CIFAR100N", "0", FINE),
    "next_class": Cell("CIFAR100N", "*", (FINE[0], *CLEAN, "noise.kind=next_class", "noise.rate=0.3")),
}


def run_cell(cell: Cell, seed: int) -> dict[str, Any]:
    """Does a cell's run and returns what is kept of it."""
    overrides = cell.overrides(seed)
    subprocess.run([RAYCLEAN, "run", CONFIG, *overrides], check=True)
    folder = RUNS / cell.data.lower()
    command: list[str | Path] = [RAYCLEAN, "evaluate", folder, "--json"]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    this = look(load_config(folder / CONFIG_FILE, ()), Store(str(folder)))
    result: dict[str, Any] = json.loads(found.stdout)
    looked = {"rows": this.catalog.num_rows, "in this folder": looks(this)}
    return {"seed": seed, "changes": cell.changes, "differs": differs(this), "looks": looked, **result}


def differs(this: Run) -> float:
    """The largest difference of `label_score` to that of `fit_features` on the features that the run has stored."""
    catalog, table = this.catalog, Published.open(this.store)
    features = RowFeatures(catalog).read(np.arange(catalog.num_rows))
    columns = [table.read(part, ["key", "label_score"]) for part in table.parts]
    keys = [key for part in columns for key in part["key"].to_pylist()]
    digests = [row.tobytes() for row in np.asarray(catalog.digest)]
    nobody = np.full(catalog.num_rows, NO_LABEL)
    plain = {name: section for name, section in dump_config(this.config).items() if name not in ("noise", "model")}
    plain["data"] = {"shards": MEMORY, "classes": catalog.num_classes, "features": "npy", "image": "none"}
    config = parse_config(plain)
    other = begin_features(config, features, np.asarray(catalog.label), keys, None, "cpu", nobody, digests)
    compute(lambda: grow(other))
    ours: Array = np.concatenate([part["label_score"].to_numpy() for part in columns])
    return float(np.abs(ours - merged(other)[0]["label_score"].to_numpy()).max())


def looks(this: Run) -> dict[str, float]:
    """Images decoded and forwards of the network, over all cells that share the folder."""
    found = {"decodes": 0.0, "forwards": 0.0}
    for name in this.store.list("record"):
        if name.startswith("catalog-"):
            for entry in read_json(this.store, f"record/{name}"):
                for fact in found:
                    found[fact] += entry["facts"].get(fact, 0)
    return found


def table() -> list[str]:
    """Lines of Markdown from what is kept."""
    lines = [
        "| cell | seed | wrong | label_score: AUROC, AP | network from nothing | best single score | noise "
        "| calibration error | predicted right (given) | differs from fit_features |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, cell in CELLS.items():
        for file in sorted(RESULTS.glob(f"{name}-seed*.json")):
            kept = json.loads(file.read_text())
            lines.append(_line(name, cell, kept))
    return lines


def score_table() -> list[str]:
    """Lines of Markdown: every score in the cells of both shards, and of networks from nothing where they are kept."""
    kept = {name: RESULTS / f"{name}-seed0.json" for name, cell in CELLS.items() if cell.part == "*"}
    cells = {name: json.loads(file.read_text()) for name, file in kept.items() if file.exists()}
    if not cells:
        return []
    names = list(next(iter(cells.values()))["scores"])
    lines = ["", f"| score | {' | '.join(cells)} |", f"|---|{'--:|' * len(cells)}"]
    for score in names:
        found = [cell["scores"][score] for cell in cells.values()]
        lines.append(
            f"| {score} | " + " | ".join(f"{f['final']:.3f} ({f['average_precision']:.3f})" for f in found) + " |"
        )
        nothing = [_of_nothing(CELLS[name], score) for name in cells]
        if any(each != "-" for each in nothing):
            lines.append(f"| from nothing | {' | '.join(nothing)} |")
    return lines


def _of_nothing(cell: Cell, score: str) -> str:
    """A score by a network from nothing."""
    file = Path(f"docs/results/cells/{cell.nothing}.json")
    if not cell.nothing or not file.exists():
        return "-"
    found = json.loads(file.read_text())["scores"].get(score)
    return f"{found['final']:.3f}" if found else "-"


def _line(name: str, cell: Cell, kept: dict[str, Any]) -> str:
    scores, joint = kept["scores"], kept["label_score"]
    best = max(scores, key=lambda score: scores[score]["final"])
    nothing = Path(f"docs/results/cells/{cell.nothing}.json")
    other = "-"
    if cell.nothing and nothing.exists():
        figures = json.loads(nothing.read_text())["joint"]["one network"]
        other = f"{figures['auroc']:.3f}" if "auroc" in figures else "-"
    wrong, right = kept["true_noise_rate"], kept["predicted_right"]["all"]
    return (
        f"| {name} | {kept['seed']} | {wrong:.3f} | {joint['auroc']:.4f}, {joint['average_precision']:.4f} "
        f"| {other} | {best} {scores[best]['final']:.4f} | {kept['estimated_noise_rate']:.3f} | {joint['ece']:.3f} "
        f"| {right:.3f} ({1 - wrong:.3f}) | {kept['differs']:.1e} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Does cells, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", nargs="*", choices=[*CELLS, []], help="by default all")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0 on (1)")
    parser.add_argument("--table", action="store_true", help="Markdown of what is there")
    options = parser.parse_args(arguments)
    if options.table:
        print("\n".join([*table(), *score_table()]))
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in options.cells or CELLS:
        for seed in range(options.seeds):
            file = RESULTS / f"{name}-seed{seed}.json"
            if not file.exists():
                file.write_text(
                    json.dumps({"cell": name, **run_cell(CELLS[name], seed)}, indent=1, sort_keys=True) + "\n"
                )
                print(f"{file}: kept", flush=True)


if __name__ == "__main__":
    main()

"""The AUROC tables of the IOFM and INN papers, one cell at a time, on one device: no Ray, all images in memory.

    python tools/cells/paper_tables.py rate iofm-cifar10-symmetric-0.8 --images cifar10.npz --seconds 60
    python tools/cells/paper_tables.py train iofm-cifar10-symmetric-0.8 --images cifar10.npz --out runs/paper
    python tools/cells/paper_tables.py score iofm-cifar10-symmetric-0.8 --images cifar10.npz --out runs/paper
    python tools/cells/paper_tables.py table runs/paper

`train` goes on where an earlier call ended and exits with 3 while something is left to train, `score` writes
OUT/CELL.json; either does nothing again once it is done. Cells, and where they leave the papers: tools/cells/papers.py.

Images come with true labels; the noise is made here. CIFAR's own arrays become such a file by

    import numpy as np
    from torchvision.datasets import CIFAR10  # or CIFAR100
    data = CIFAR10("data", train=True)
    np.savez("cifar10.npz", images=data.data, labels=data.targets)

and `--images FOLDER --label json:clean_label` reads a folder (or pattern) of WebDataset shards.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rayclean import LabelScorer
from rayclean.errors import ConfigError, RaycleanError
from rayclean.evaluate.evaluate import auroc
from rayclean.memory.training import AfterEpoch, Training
from rayclean.schema import Array
from rayclean.storage.contents import encode, read_json
from rayclean.storage.store import Store
from tools.cells.paper_folder import CellFolder
from tools.cells.papers import (
    CELLS,
    INN_NUM,
    INN_STEPS,
    IOFM_NUM,
    IOFM_STEPS,
    Cell,
    Noisy,
    Published,
    make_noisy,
    read_images,
)

RATE_ROWS = 5120
MORE_TO_TRAIN = 3
CHANGES = ("model", "epochs", "snapshot_every")


def make_scorer(cell: Cell, options: argparse.Namespace) -> LabelScorer:
    """The scorer of a cell."""
    return LabelScorer(**cell.settings(), device=options.device, seed=options.seed)


def train_cell(cell: Cell, data: Noisy, folder: CellFolder, options: argparse.Namespace) -> bool:
    """Trains roles until all are finished or the time is up, at least one epoch; returns whether all are."""
    end = time.monotonic() + options.seconds
    scorer = make_scorer(cell, options)
    for role in scorer.role_names:
        training = folder.load(role)
        if len(training.trajectories) == cell.epochs:
            continue

        def saved(epoch: int, training: Training, role: str = role) -> bool:
            go_on = bool(time.monotonic() < end)
            folder.save(role, epoch, training, not go_on or epoch in cell.snapshots())
            return go_on

        _train(scorer, data, role, training, saved)
        print(f"{role}: epoch {len(training.trajectories)} of {cell.epochs}", flush=True)
        if len(training.trajectories) < cell.epochs:
            return False
    return True


def _train(scorer: LabelScorer, data: Noisy, role: str, training: Training, after_epoch: AfterEpoch | None) -> None:
    scorer.train(
        data.images,
        data.samples.labels,
        role,
        num_classes=data.num_classes,
        keys=data.keys,
        training=training,
        after_epoch=after_epoch,
    )


def _fit(scorer: LabelScorer, data: Noisy, roles: dict[str, Training]) -> None:
    scorer.fit(data.images, data.samples.labels, num_classes=data.num_classes, keys=data.keys, roles=roles)


def figures(scorer: LabelScorer, names: Sequence[str], clean: Array) -> dict[str, dict[str, float]]:
    """AUROC of each score: the best over its epochs, which one that is, and at the last."""
    found = {}
    for name in names:
        curve = {epoch: auroc(values, clean) for epoch, values in scorer.score_epochs(name)}
        best = max(curve, key=lambda epoch: (curve[epoch], -epoch))
        found[name] = {"best": curve[best], "best_epoch": best, "final": curve[max(curve)]}
    return found


def score_cell(cell: Cell, data: Noisy, folder: CellFolder, options: argparse.Namespace) -> dict[str, Any]:
    """Scores by the roles on disk.

    Raises:
        ConfigError: not all are trained.
    """
    scorer = make_scorer(cell, options)
    roles = {role: folder.load(role) for role in scorer.role_names}
    short = [role for role, training in roles.items() if len(training.trajectories) < cell.epochs]
    if short:
        raise ConfigError(f"{folder.store.root}: not trained to the end: {', '.join(short)}; run train again")
    _fit(scorer, data, roles)
    clean = data.samples.labels == data.truth
    changes = {name: getattr(options, name) for name in CHANGES if getattr(options, name) is not None}
    facts = {"changes": changes, "rows": len(clean), "wrong": float(1 - clean.mean())}
    return {**facts, "scores": figures(scorer, cell.scores, clean)}


def measure(cell: Cell, data: Noisy, options: argparse.Namespace, num_rows: int) -> list[str]:
    """How fast training, scoring and the neighbour search are on the rows given, and so how long the cell takes.

    The time of the search is taken to grow with the product of rows and candidates, an upper bound.
    """
    roles, images = len(make_scorer(cell, options).role_names), len(data.keys)
    times = [time.perf_counter()]

    def timed(_: int, __: Training) -> bool:
        times.append(time.perf_counter())
        return len(times) < 4 or bool(times[-1] < times[0] + options.seconds)

    endless = replace(cell, epochs=100_000, snapshot_every=100_000, scores=("iofm_last",))
    _train(make_scorer(endless, options), data, "main", Training(), timed)
    epoch_s = statistics.median(np.diff(times)[1:]) / images  # the first one picks and warms kernels
    scorer = make_scorer(replace(endless, epochs=1), options)
    _fit(scorer, data, {})
    embedding_s, path_s, search_s = (scorer.seconds_[stage] / images for stage in ("embed", "paths", "neighbors"))
    snapshots = len(cell.snapshots()) if "iofm" in cell.scores else 0
    inn = len(cell.inn_epochs())
    walks = snapshots + inn * (INN_STEPS - 1) * INN_NUM / ((IOFM_STEPS - 1) * IOFM_NUM)
    train_s = roles * cell.epochs * num_rows * epoch_s
    walk_s = num_rows * (walks * path_s + (snapshots + inn) * embedding_s)
    neighbors_s = search_s / images * num_rows**2 * (snapshots / data.num_classes + inn + 1)  # and one for the vote
    return [
        f"training {1 / max(epoch_s - embedding_s, 1e-9):,.0f} samples/s, scoring {1 / embedding_s:,.0f} forwards/s",
        f"{num_rows} rows, {roles} roles of {cell.epochs} epochs: training {train_s / 60:.1f} min, "
        f"paths {walk_s / 60:.1f} min, neighbours {neighbors_s / 60:.1f} min",
    ]


def table(results: dict[str, dict[str, Any]]) -> list[str]:
    """Markdown: ours beside the papers' figures. What was changed in a cell is said beside its name."""
    lines = ["| cell | rows | score | ours, best (final) | paper, best (final) |", "|---|---|---|---|---|"]
    for name, cell in CELLS.items():
        result = results.get(name, {"changes": {}, "rows": "", "scores": {}})
        title = " ".join([name, *(f"{field}={value}" for field, value in result["changes"].items())])
        for score in cell.scores:
            ours, paper = result["scores"].get(score), cell.published.get(score)
            if ours is not None or paper is not None:
                left = "" if ours is None else _figures((ours["best"], ours["final"]))
                right = "" if paper is None else _figures(paper)
                lines.append(f"| {title} | {result['rows']} | {score} | {left} | {right} |")
    return lines


def _figures(figures: Published) -> str:
    best, final = (None if value is None else f"{value:.3f}".removeprefix("0") for value in figures)
    return f"{best}" if final is None else f"{best} ({final})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The AUROC tables of the IOFM and INN papers, one cell at a time.")
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("cell", choices=CELLS, metavar="CELL", help=", ".join(CELLS))
    common.add_argument("--images", required=True, help="an .npz file, a folder of shards, or a pattern of shards")
    common.add_argument("--label", default="cls", help="where shards have the true label, such as json:clean_label")
    common.add_argument("--device", choices=["cuda", "cpu"], help="by default what there is")
    common.add_argument("--rows", type=int, help="use so many images, drawn by the seed")
    common.add_argument("--seed", type=int, default=0, help="of every draw")
    common.add_argument("--model", help="another network than the cell's")
    common.add_argument("--epochs", type=int, help="other epochs than the cell's")
    common.add_argument("--snapshot-every", type=int, help="other snapshots than the cell's")
    rate = commands.add_parser("rate", parents=[common], help="how fast training and scoring are here")
    rate.add_argument("--seconds", type=float, default=60, help="of training")
    train = commands.add_parser("train", parents=[common], help="train the cell's networks, or go on with it")
    train.add_argument("--seconds", type=float, default=float("inf"), help="end after the epoch that passes these")
    score = commands.add_parser("score", parents=[common], help="score by the trained networks")
    for each in (train, score):
        each.add_argument("--out", required=True, help="where networks and figures are kept")
    commands.add_parser("table", help="print Markdown").add_argument("out", help="as of train and score")
    return parser


def _changed(cell: Cell, options: argparse.Namespace) -> Cell:
    changes = {name: getattr(options, name) for name in CHANGES}
    return replace(cell, **{name: value for name, value in changes.items() if value is not None})


def main(arguments: Sequence[str] | None = None) -> int:
    """Does one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.command == "table":
        store = Store(options.out)
        found = {name: f"{name}.json" for name in CELLS if store.exists(f"{name}.json")}
        print("\n".join(table({name: read_json(store, file) for name, file in found.items()})))
        return 0
    cell = _changed(CELLS[options.cell], options)
    images, truth = read_images(options.images, options.label, cell.num_classes)
    data = make_noisy(cell, images, truth, options.rows, options.seed)
    if options.command == "rate":
        part = make_noisy(cell, images, truth, min(RATE_ROWS, options.rows or len(images)), options.seed)
        print("\n".join(measure(cell, part, options, len(data.keys))))
        return 0
    store = Store(options.out)
    folder = CellFolder(Store(f"{options.out}/{options.cell}"))
    folder.claim({"settings": cell.settings(), "seed": options.seed, "data": data.digest()})
    if options.command == "train":
        return 0 if train_cell(cell, data, folder, options) else MORE_TO_TRAIN
    file = f"{options.cell}.json"
    if not store.exists(file):
        store.publish(file, encode(file, score_cell(cell, data, folder, options), "{}"))
    print(f"{store.root}/{file}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RaycleanError as error:
        sys.exit(f"paper_tables: {error}")

"""The peers of the joint score on the benchmark's cells: cleanlab and AUM, by their authors' packages.

    pip install -e .[peers]
    .venv/bin/python tools/cells/run_peers.py human asymmetric     # a rerun goes on with the trainings that are missing
    .venv/bin/python tools/cells/run_peers.py human --only aum
    .venv/bin/python tools/cells/run_peers.py --table              # Markdown from what is there

A cell's run must be there (tools/cells/run.py): its rows, given labels and settings are read, its scores are not. E is
the cell's number of epochs.

- cleanlab_ce: 5 folds of E / 2 epochs by cross-entropy, whose out-of-sample probabilities cleanlab ranks.
- cleanlab_mixup: 5 folds of E epochs by MixUp.
- aum: two trainings of E epochs by cross-entropy, each with other threshold samples.

Each training is kept in runs/peers/CELL, each cell's figures in docs/results/peers. The truth is for the figures only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from rayclean.catalog.table import COLUMNS_FILE
from rayclean.config import MAIN, load_config
from rayclean.errors import ConfigError, InputError, RaycleanError
from rayclean.evaluate.evaluate import read_truth
from rayclean.evaluate.metrics import auroc, average_precision
from rayclean.run.saved import CONFIG_FILE
from rayclean.run.start import look
from rayclean.schema import UNKNOWN, Array
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.store import Store
from rayclean.train.augment import normalize
from rayclean.train.forward import ForwardSettings
from rayclean.train.spec import network_spec
from tools.cells.peers_training import (
    Arrays,
    Part,
    Setup,
    fold_parts,
    gathered,
    peer_package,
    threshold_excess,
    thresholded_parts,
)
from tools.cells.run import CELLS, RUNS

RESULTS = Path("docs/results/peers")
PARTS = Path("runs/peers")
VERSION = 1  # of what a part's file holds
MODULES = {"cleanlab_ce": "cleanlab.rank", "cleanlab_mixup": "cleanlab.rank", "aum": "aum"}
PEERS = tuple(MODULES)
METHODS = ("self_confidence", "normalized_margin")
EXCESS = "excess"
RATE = "*wrong labels*"
STEP_FORWARDS = 3  # what a training step of a row costs: a forward, and a backward of two


def open_cell(name: str) -> tuple[Setup, Array]:
    """What a cell's run trains on and how, and the true labels (N,) int64, `UNKNOWN` where unknown.

    Raises:
        InputError: there is no run of the cell, or its catalog is not made.
        ConfigError: the cell's images are augmented before they are normalised.
    """
    folder, absent = RUNS / name, f"start it with tools/cells/run.py {name}"
    if not (folder / CONFIG_FILE).exists():
        raise InputError(f"{folder} holds no run of cell {name}; {absent}")
    store = Store(str(folder))
    run = look(load_config(folder / CONFIG_FILE, ()), store)
    config, catalog = run.config, run.catalog
    if not store.exists(f"{catalog.folder}/{COLUMNS_FILE}"):
        raise InputError(f"the run in {folder} has no catalog yet; {absent}")
    if config.train.augment == "autoaugment":
        raise ConfigError(
            "the peers' images are normalised before training, which train.augment autoaugment is not for"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    spec, (precision, score_precision) = network_spec(config, catalog.num_classes), run.precision
    images = catalog.pixels(spec.size, config.data.max_pixels).read(np.arange(catalog.num_rows))
    setup = Setup(
        inputs=normalize(torch.from_numpy(images), spec.mean, spec.std).permute(0, 2, 3, 1).to(device),
        labels=catalog.label.astype(np.int64),
        draws=catalog.clip_id,
        spec=spec,
        train=config.train,
        weights=config.model_of(MAIN).weights,
        precision=precision,
        forward=ForwardSettings(device, score_precision, config.score.batch_size),
        seed=config.run.seed,
        data=catalog.fingerprint,
    )
    return setup, read_truth(catalog)


def parts_of(setup: Setup, peer: str) -> list[Part]:
    """The trainings of a peer."""
    epochs = setup.train.epochs
    if peer == "aum":
        return thresholded_parts(setup, peer, epochs)
    if peer == "cleanlab_ce":
        return fold_parts(setup, peer, "ce", max(epochs // 2, 1))
    return fold_parts(setup, peer, "mixup", epochs)


def setup_mark(setup: Setup) -> str:
    """What a kept training depends on beside its name."""
    left_out = {"loss", "roles", "snapshot_every", "trajectories", "workers"}
    if setup.train.schedule != "step":
        left_out |= {"milestones", "decay"}
    fields = {
        "train": setup.train.model_dump(mode="json", by_alias=True, exclude=left_out),
        "spec": asdict(setup.spec),
        "weights": setup.weights,
        "precision": [setup.precision, setup.forward.precision],
        "seed": setup.seed,
    }
    return fingerprint("peers", VERSION, fields, [setup.data])


def read_part(folder: Path, part: Part, mark: str) -> Arrays | None:
    """A training that is kept; None where there is none, or one of other settings."""
    file = folder / f"{part.name}.npz"
    if not file.exists():
        return None
    with np.load(file) as found:
        return dict(found) if str(found["mark"]) == mark else None


def make_part(folder: Path, part: Part, mark: str) -> Arrays:
    """Does a training and keeps what it gives; a file is there whole or not at all."""
    started_s = time.perf_counter()
    arrays = part.compute()
    seconds = time.perf_counter() - started_s
    arrays = {**arrays, "seconds": np.array(seconds), "mark": np.array(mark)}
    folder.mkdir(parents=True, exist_ok=True)
    partial_file = folder / f"partial-{part.name}.npz"
    np.savez(partial_file, allow_pickle=False, **arrays)
    os.replace(partial_file, folder / f"{part.name}.npz")
    print(f"  {part.name}: {part.epochs:.4g} epochs in {seconds:.0f} s", flush=True)
    return arrays


def judge(setup: Setup, peer: str, parts: Sequence[Part], found: Sequence[Arrays], truth: Array) -> dict[str, Any]:
    """What is kept of a peer: how good its scores are over the rows whose truth is known, and what they cost.

    `epochs` are over all N rows; `forward_equivalents` are a row's: a training step counts 3, a prediction 1.
    """
    known = truth != UNKNOWN
    clean = setup.labels[known] == truth[known]
    epochs = sum(part.epochs for part in parts)
    result: dict[str, Any] = {
        "seconds": float(sum(arrays["seconds"] for arrays in found)),
        "epochs": epochs,
        "forward_equivalents": STEP_FORWARDS * epochs + sum(part.predictions for part in parts),
    }
    if peer == "aum":
        aum, drawn = (np.stack([arrays[key] for arrays in found]) for key in ("aum", "drawn"))
        scores = {EXCESS: threshold_excess(aum, drawn)}
    else:
        logits, rank = gathered(found), peer_package(MODULES[peer])
        probabilities = softmax(logits, axis=1)
        scores = {
            method: rank.get_label_quality_scores(setup.labels, probabilities, method=method) for method in METHODS
        }
        right = logits.argmax(axis=1)[known] == truth[known]
        result["predicted_right"] = {"all": float(right.mean()), "truly_wrong": _mean(right[~clean])}
    result["scores"] = {
        name: {"auroc": auroc(values[known], clean), "average_precision": average_precision(values[known], clean)}
        for name, values in scores.items()
    }
    return result


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")


def run_cell(name: str, wanted: Sequence[str]) -> None:
    """Adds the wanted peers that a cell's results lack."""
    file = RESULTS / f"{name}.json"
    peers: dict[str, Any] = json.loads(file.read_text())["peers"] if file.exists() else {}
    missing = [peer for peer in wanted if peer not in peers]
    if not missing:
        return
    for peer in missing:
        peer_package(MODULES[peer])  # before hours of training
    setup, truth = open_cell(name)
    known, folder, mark = truth != UNKNOWN, PARTS / name, setup_mark(setup)
    wrong_share = float((setup.labels != truth)[known].mean())
    result = {"cell": name, "rows": int(known.sum()), "true_noise_rate": wrong_share, "peers": peers}
    plans = {peer: parts_of(setup, peer) for peer in missing}
    parts = [part for each in plans.values() for part in each]
    left = sum(part.epochs for part in parts if read_part(folder, part, mark) is None)
    all_epochs = sum(part.epochs for part in parts)
    print(f"{name}: {left:.4g} of {all_epochs:.4g} epochs over {len(truth)} rows to train", flush=True)
    for peer, each in plans.items():
        found = [read_part(folder, part, mark) or make_part(folder, part, mark) for part in each]
        peers[peer] = judge(setup, peer, each, found, truth)
        RESULTS.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result, indent=1) + "\n")


def table(results: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown: AUROC (average precision) of each peer's scores in every cell, then predictions, then costs."""
    columns = [_column(result) for result in results]
    scores = [f"{peer} {score}" for peer in PEERS for score in ((EXCESS,) if peer == "aum" else METHODS)]
    others = [f"{peer}, {figure}" for figure in ("predicted right", "cost") for peer in PEERS]
    rows = [row for row in (*scores, *others, RATE) if any(row in column for column in columns)]
    lines = ["| peer | " + " | ".join(result["cell"] for result in results) + " |", "|---" * (len(results) + 1) + "|"]
    return [*lines, *(f"| {row} | " + " | ".join(column.get(row, "") for column in columns) + " |" for row in rows)]


def _column(result: dict[str, Any]) -> dict[str, str]:
    cells = {RATE: _short(result["true_noise_rate"])}
    for peer, found in result["peers"].items():
        for score, quality in found["scores"].items():
            cells[f"{peer} {score}"] = f"{_short(quality['auroc'])} ({_short(quality['average_precision'])})"
        if "predicted_right" in found:
            cells[f"{peer}, predicted right"] = _short(found["predicted_right"]["all"])
        forwards = f"{found['forward_equivalents']:.0f} forwards"
        cells[f"{peer}, cost"] = f"{found['epochs']:.0f} epochs, {forwards}, {found['seconds']:.0f} s"
    return cells


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Run the peers on cells of the benchmark, or print the table.")
    parser.add_argument("cells", nargs="*", choices=[*CELLS, []], help=f"of {', '.join(CELLS)}")
    parser.add_argument("--only", choices=PEERS, help="this peer alone; a later run adds the others")
    parser.add_argument("--table", action="store_true", help="print Markdown")
    options = parser.parse_args(arguments)
    for name in options.cells:
        run_cell(name, [options.only] if options.only else PEERS)
    if options.table:
        there = [RESULTS / f"{name}.json" for name in CELLS]
        print("\n".join(table([json.loads(file.read_text()) for file in there if file.exists()])))


if __name__ == "__main__":
    try:
        main()
    except RaycleanError as error:
        print(f"run_peers: {error}", file=sys.stderr)
        sys.exit(error.exit_code)

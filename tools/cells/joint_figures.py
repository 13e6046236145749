"""What the joint model of a finished run reached, and what it would with the true transition matrix and prior.

    .venv/bin/python tools/cells/joint_figures.py runs/cells/human

The truth is read for these figures alone. The oracle shows what is lost by not knowing how labels go wrong; nobody
could run it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rayclean.config import load_config
from rayclean.errors import InputError
from rayclean.evaluate.evaluate import read_truth
from rayclean.evaluate.metrics import auroc, average_precision, expected_calibration_error
from rayclean.merge.beside import believed
from rayclean.merge.joint import JointModel
from rayclean.merge.models import Fitted
from rayclean.merge.stage import MODEL
from rayclean.run.saved import CONFIG_FILE
from rayclean.run.start import look
from rayclean.schema import UNKNOWN
from rayclean.scores.block import joined
from rayclean.storage.contents import read_json
from rayclean.storage.store import Store
from rayclean.storage.units import num_blocks


def joint_figures(folder: Path) -> dict[str, Any]:
    """Figures of a run whose merge is joint.

    Raises:
        InputError: it is not.
    """
    run = look(load_config(folder / CONFIG_FILE, ()), Store(str(folder)))
    fitted = Fitted.from_json(content := read_json(run.store, run.merge()[0].file(MODEL)))
    if not isinstance(fitted.model, JointModel):
        raise InputError(f"{folder}: merged by {fitted.name}, expected joint")
    files, truth = run.score_files(), read_truth(run.catalog)
    known = truth != UNKNOWN
    blocks = range(num_blocks(files.num_rows, files.block_rows))
    block = joined([files.read(block, fitted.sources) for block in blocks]).take(known)
    beliefs = believed(block.belief, block.near_labels, fitted.sources.near)
    labels, truth = np.asarray(run.catalog.label)[known], truth[known]
    clean = labels == truth
    found = fitted.model.posterior(beliefs, labels, fitted.calibration)
    oracle = with_truth(fitted.model, labels, truth).posterior(beliefs, labels)
    own = files.embedding.beliefs(np.flatnonzero(known))[:, :-1].argmax(axis=1)
    return {
        "auroc": auroc(found.label_score, clean),
        "average_precision": average_precision(found.label_score, clean),
        "oracle_auroc": auroc(oracle.label_score, clean),
        "oracle_ece": expected_calibration_error(oracle.label_score, clean).error,
        "ece": expected_calibration_error(found.label_score, clean).error,
        "noise_rate": float(1 - found.label_score.astype(np.float64).mean()),
        "true_noise_rate": float(1 - clean.mean()),
        "predicted_right": float((found.predicted == truth).mean()),
        "given_right": float(clean.mean()),
        "network_right": float((own == truth).mean()),
        "belief_epoch": fitted.sources.epoch,
        "belief_roles": list(fitted.sources.roles),
        "trust": content.get("trust"),
    }


def with_truth(model: JointModel, labels: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> JointModel:
    """The model with the transition matrix and the prior by the truth of rows of a class, one row more of each kind."""
    num_classes, of_a_class = len(model.prior), truth >= 0
    counts = np.ones((num_classes, num_classes)) / num_classes
    np.add.at(counts, (truth[of_a_class], labels[of_a_class]), 1)
    return replace(
        model,
        transition=counts / counts.sum(axis=1, keepdims=True),
        prior=counts.sum(axis=1) / counts.sum(),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Figures of a run's joint model, as JSON.")
    parser.add_argument("folder", type=Path)
    print(json.dumps(joint_figures(parser.parse_args(arguments).folder), indent=1))


if __name__ == "__main__":
    main()

"""How far `issue_kind` can be trusted: issues of each kind, made on purpose among scikit-learn's digits.

    .venv/bin/python tools/cells/issue_kinds.py                     # Markdown: made kind against what the table says
    .venv/bin/python tools/cells/issue_kinds.py --features          # by the pixels as features, no network

Of 1,797 digits, 15% carry another class's label. Added are blends of two digits under the label of one of them
(ambiguous), digits with shuffled pixels under any label (none of the classes), and exact copies under another label.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from rayclean import LabelScorer
from rayclean.merge.kinds import KIND_NAMES
from rayclean.schema import Array
from tools.data.make_digits import NUM_CLASSES, encode_png, move_labels

NOTHING = "nothing"
TRAIN = {"epochs": 40, "snapshot_every": 8, "augment": "none"}


class Made(NamedTuple):
    """Digits with issues.

    Attributes:
        images: (N, 16, 16, 3) uint8.
        labels: (N,) given labels.
        kinds: (N,) what is wrong with each, of `KIND_NAMES` or `nothing`.
    """

    images: Array
    labels: Array
    kinds: Array


def make(wrong: float, added: int, seed: int) -> Made:
    """Digits with a share of wrong labels and so many issues of each other kind."""
    rng = np.random.default_rng(seed)
    digits = load_digits()
    truth = digits.target.astype(np.int64)
    labels = move_labels(truth, wrong, seed)
    kinds = np.where(labels == truth, NOTHING, KIND_NAMES[0]).astype(object)
    first = rng.choice(len(truth), added, replace=False)
    second = np.array([rng.choice(np.flatnonzero(truth != truth[row])) for row in first])
    blends = (digits.images[first] + digits.images[second]) / 2
    shuffled = rng.permuted(digits.images[rng.choice(len(truth), added)].reshape(added, -1), axis=1)
    copied = rng.choice(np.flatnonzero(labels == truth), added, replace=False)
    kinds[copied] = KIND_NAMES[3]
    images = np.concatenate([digits.images, blends, shuffled.reshape(-1, 8, 8), digits.images[copied]])
    more = [truth[first], rng.integers(0, NUM_CLASSES, added), (truth[copied] + 1) % NUM_CLASSES]
    return Made(
        np.stack([np.asarray(Image.open(io.BytesIO(encode_png(pixels)))) for pixels in images]),
        np.concatenate([labels, *more]),
        np.concatenate([kinds, *(np.full(added, KIND_NAMES[i]) for i in (1, 2, 3))]),
    )


def table(made: Sequence[str], found: Sequence[str | None]) -> list[str]:
    """Markdown: one row per made kind, one column per kind of the table."""
    names = (NOTHING, *KIND_NAMES)
    said = [NOTHING if kind is None else kind for kind in found]
    lines = [f"| made | {' | '.join(names)} | rows |", "|---" + "|--:" * (len(names) + 1) + "|"]
    for kind in names:
        here = [what for is_kind, what in zip(made, said, strict=True) if is_kind == kind]
        lines.append(f"| {kind} | {' | '.join(str(here.count(name)) for name in names)} | {len(here)} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Compare issue_kind with issues that were made on purpose.")
    parser.add_argument("--wrong", type=float, default=0.15, help="share of wrong labels (0.15)")
    parser.add_argument("--added", type=int, default=60, help="issues of each other kind (60)")
    parser.add_argument("--epochs", type=int, default=TRAIN["epochs"], help=f"of training ({TRAIN['epochs']})")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (0)")
    parser.add_argument("--features", action="store_true", help="fit_features on the pixels instead of a network")
    options = parser.parse_args(arguments)
    made = make(options.wrong, options.added, options.seed)
    if options.features:
        pixels = made.images[:, ::2, ::2, 0].reshape(len(made.images), -1)
        scorer = LabelScorer(seed=options.seed).fit_features(pixels, made.labels, num_classes=NUM_CLASSES)
    else:
        train = {**TRAIN, "epochs": options.epochs, "snapshot_every": max(options.epochs // 5, 1)}
        scorer = LabelScorer("small_resnet", ["loss", "iofm"], train=train, seed=options.seed)
        scorer.fit(made.images, made.labels, num_classes=NUM_CLASSES)
    print("\n".join(table(made.kinds.tolist(), scorer.labels_["issue_kind"].to_pylist())))


if __name__ == "__main__":
    main()

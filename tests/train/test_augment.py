"""Augmentation against plain loops with the same draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.errors import ConfigError
from rayclean.train.augment import augment_float, augment_uint8, crop_flip, draw_crop_flip, normalize

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)


def _bytes(num: int, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(num)
    return torch.randint(256, (num, size, size, 3), generator=generator, dtype=torch.uint8)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_normalize_is_its_formula_and_moves_no_bytes() -> None:
    images = _bytes(4, 6)
    copy = images.clone()
    out = normalize(images, MEAN, STD)
    expected = (images.numpy().astype(np.float64) / 255 - MEAN) / STD
    np.testing.assert_allclose(out.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-6)
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, copy)


def _crop_flip_by_loop(
    images: torch.Tensor, padding: int, top: torch.Tensor, left: torch.Tensor, flipped: torch.Tensor
) -> torch.Tensor:
    out = torch.zeros_like(images)
    _, _, height, width = images.shape
    for i in range(len(images)):
        for row in range(height):
            for column in range(width):
                source = (row + int(top[i]) - padding, column + int(left[i]) - padding)
                if 0 <= source[0] < height and 0 <= source[1] < width:
                    target = width - 1 - column if flipped[i] else column
                    out[i, :, row, target] = images[i, :, source[0], source[1]]
    return out


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.integers(0, 3))
def test_crop_flip_equals_a_loop_over_pixels(seed: int, num: int, height: int, width: int, padding: int) -> None:
    images = torch.randn(num, 3, height, width, generator=_generator(seed))
    draws = draw_crop_flip(num, padding, _generator(seed))
    expected = _crop_flip_by_loop(images, padding, *draws)
    assert torch.equal(crop_flip(images, padding, *draws), expected)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(crop_flip(channels_last, padding, *draws), expected)


def test_augment_float_pads_an_eighth_and_repeats() -> None:
    images = normalize(_bytes(5), MEAN, STD)
    out = augment_float(images, "crop_flip", _generator())
    assert torch.equal(out, _crop_flip_by_loop(images, 4, *draw_crop_flip(5, 4, _generator())))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert out.dtype == torch.float32
    assert torch.equal(out, augment_float(images, "crop_flip", _generator()))
    assert not torch.equal(out, augment_float(images, "crop_flip", _generator(1)))
    assert torch.equal(out, augment_float(images, "autoaugment", _generator()))


def test_all_crops_and_both_sides_are_drawn_equally_often() -> None:
    top, left, flipped = draw_crop_flip(18_000, 4, _generator())
    for offsets in (top, left):
        counts = torch.bincount(offsets, minlength=9)
        assert len(counts) == 9
        assert bool(((counts - 2000).abs() < 250).all())
    assert abs(flipped.float().mean().item() - 0.5) < 0.02
    together = torch.bincount(9 * top + left, minlength=81)
    assert bool((together > 120).all())


def test_none_changes_nothing() -> None:
    images = _bytes(2)
    assert torch.equal(augment_uint8(images, "none", _generator()), images)
    assert torch.equal(augment_uint8(images, "crop_flip", _generator()), images)
    inputs = normalize(images, MEAN, STD)
    assert torch.equal(augment_float(inputs, "none", _generator()), inputs)


def test_autoaugment_draws_for_each_image_and_repeats() -> None:
    images = _bytes(1).repeat(40, 1, 1, 1)
    copy, before = images.clone(), torch.get_rng_state()
    out = augment_uint8(images, "autoaugment", _generator())
    assert out.shape == images.shape
    assert out.dtype == torch.uint8
    assert len({image.numpy().tobytes() for image in out}) > 10
    assert torch.equal(out, augment_uint8(images, "autoaugment", _generator()))
    assert not torch.equal(out, augment_uint8(images, "autoaugment", _generator(1)))
    assert torch.equal(images, copy)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("augment", [augment_uint8, augment_float])
def test_unknown_names_are_refused(augment: object) -> None:
    assert callable(augment)
    with pytest.raises(ConfigError, match=r"train\.augment: unknown name 'flip'; valid: none"):
        augment(_bytes(1), "flip", _generator())

"""Augmentation against plain loops with the same draws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2.functional import horizontal_flip, resized_crop

from rayclean.errors import ConfigError
from rayclean.schema import Array
from rayclean.train.augment import (
    CROP_TRIES,
    augment_float,
    augment_uint8,
    crop_flip,
    draw_boxes,
    draw_crop_flip,
    normalize,
    resized_crop_flip,
)

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


def _boxes_by_loop(num: int, size: int, generator: torch.Generator) -> list[list[int]]:
    """Torchvision's RandomResizedCrop.get_params in plain floats, from the same uniform draws."""
    shares, ratios = torch.rand((2, CROP_TRIES, num), generator=generator, dtype=torch.float64).tolist()
    places = torch.rand((2, num), generator=generator, dtype=torch.float64).tolist()
    boxes = []
    for i in range(num):
        height = width = size
        for share, ratio in zip(shares, ratios, strict=True):
            area = size * size * (0.08 + 0.92 * share[i])
            aspect = math.exp(math.log(3 / 4) + ratio[i] * (math.log(4 / 3) - math.log(3 / 4)))
            wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < wide <= size and 0 < high <= size:
                height, width = high, wide
                break
        top, left = (int(place[i] * (size - side + 1)) for place, side in zip(places, (height, width), strict=True))
        boxes.append([top, left, height, width])
    return boxes


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 50), st.integers(1, 300))
def test_boxes_are_drawn_as_by_a_loop_over_tries(seed: int, num: int, size: int) -> None:
    boxes = draw_boxes(num, size, _generator(seed))
    assert boxes.tolist() == _boxes_by_loop(num, size, _generator(seed))
    assert bool((boxes[:, 2:] >= 1).all())
    assert bool((boxes[:, :2] >= 0).all())
    assert bool((boxes[:, :2] + boxes[:, 2:] <= size).all())


def test_boxes_are_spread_as_torchvisions() -> None:
    num, size = 4000, 64
    torch.manual_seed(0)
    image = torch.zeros(3, size, size)
    get_params: Any = RandomResizedCrop.get_params
    theirs = torch.tensor([get_params(image, [0.08, 1], [3 / 4, 4 / 3]) for _ in range(num)])
    ours = draw_boxes(num, size, _generator())
    for one, two in zip(_facts(ours), _facts(theirs), strict=True):
        assert ks_2samp(one, two).pvalue > 1e-3


def _facts(boxes: torch.Tensor) -> list[Array]:
    """Top, left, area and shape of boxes."""
    top, left, height, width = boxes.double().numpy().T
    return [top, left, height * width, height / width]


def test_an_image_for_which_no_try_fits_is_taken_whole() -> None:
    """One pixel: shares of less than a quarter round to nothing, in all tries of some of so many images."""
    images = _bytes(3, 1)
    assert draw_boxes(3, 1, _generator()).tolist() == [[0, 0, 1, 1]] * 3
    inputs = normalize(images, MEAN, STD)
    assert torch.equal(augment_float(inputs, "random_resized_crop", _generator()), inputs)


@st.composite
def _box(draw: st.DrawFn, size: int) -> list[int]:
    height, width = draw(st.integers(1, size)), draw(st.integers(1, size))
    return [draw(st.integers(0, size - height)), draw(st.integers(0, size - width)), height, width]


@settings(deadline=None)
@given(st.integers(0, 2**32), st.lists(st.tuples(_box(24), st.booleans()), min_size=1, max_size=4))
def test_a_box_is_resized_as_by_torchvision(seed: int, chosen: list[tuple[list[int], bool]]) -> None:
    images = torch.randn(len(chosen), 3, 24, 24, generator=_generator(seed))
    expected = []
    for image, (box, is_flipped) in zip(images, chosen, strict=True):
        theirs = resized_crop(image, *box, size=[24, 24], antialias=True)
        expected.append(horizontal_flip(theirs) if is_flipped else theirs)
    boxes, flipped = torch.tensor([box for box, _ in chosen]), torch.tensor([flip for _, flip in chosen])
    for memory in (torch.contiguous_format, torch.channels_last):
        found = resized_crop_flip(images.contiguous(memory_format=memory), boxes, flipped)
        torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-5)
        assert found.is_contiguous(memory_format=memory)


def test_the_whole_image_as_a_box_is_the_image() -> None:
    images = torch.randn(2, 3, 9, 9, generator=_generator())
    whole = torch.tensor([[0, 0, 9, 9]] * 2)
    assert torch.equal(resized_crop_flip(images, whole, torch.tensor([False, True]))[0], images[0])
    assert torch.equal(resized_crop_flip(images, whole, torch.tensor([False, True]))[1], images[1].flip(2))


def test_random_resized_crops_repeat_and_differ() -> None:
    images = normalize(_bytes(1).repeat(12, 1, 1, 1), MEAN, STD)
    out = augment_float(images, "random_resized_crop", _generator())
    assert out.shape == images.shape
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert len({image.numpy().tobytes() for image in out}) == 12
    assert torch.equal(out, augment_float(images, "random_resized_crop", _generator()))
    assert not torch.equal(out, augment_float(images, "random_resized_crop", _generator(1)))
    assert torch.equal(augment_uint8(_bytes(2), "random_resized_crop", _generator()), _bytes(2))


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

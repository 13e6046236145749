"""Pairs of digits: a class says which two digits a picture has, and the same arguments give the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from rayclean.config import load_config
from rayclean.shards.decode import decode_image
from rayclean.shards.stream import stream_shard
from tools.data.make_digit_pairs import NUM_CLASSES, SHARD_ROWS, SIZE, draw_pairs, encode_pair, main, pair_samples

CONFIG = Path(__file__).parents[2] / "configs/digit_pairs.yaml"
DIGITS = load_digits()
VALUES = DIGITS.target.astype(np.int64)


@given(more=st.lists(st.integers(0, 9)), num_rows=st.integers(1, 200), seed=st.integers(0, 2**32 - 1))
def test_a_class_says_which_digits_a_pair_has(more: list[int], num_rows: int, seed: int) -> None:
    values = np.array([*more, *range(10)], dtype=np.int64)
    label, left, right = draw_pairs(values, num_rows, seed)
    assert len(label) == num_rows
    np.testing.assert_array_equal(label, 10 * values[left] + values[right])
    for few, column in zip(draw_pairs(values, (num_rows + 1) // 2, seed), (label, left, right), strict=True):
        np.testing.assert_array_equal(few, column[: len(few)])  # a larger set begins with the smaller one


def test_classes_are_alike_likely_and_so_are_the_digits_of_one_value() -> None:
    label, left, right = draw_pairs(VALUES, 200_000, seed=0)
    per_class = np.bincount(label, minlength=NUM_CLASSES)
    assert len(per_class) == NUM_CLASSES
    assert (np.abs(per_class - 2000) < 6 * 2000**0.5).all()
    for side in (left, right):
        expected = 20_000 / np.bincount(VALUES)[VALUES]  # about 110 a digit
        times = np.bincount(side, minlength=len(VALUES))
        assert (np.abs(times - expected) < 6 * expected**0.5).all()
    assert abs(np.corrcoef(left, right)[0, 1]) < 0.02


def test_few_rows_a_class_have_every_class() -> None:
    assert set(draw_pairs(VALUES, 2000, seed=0).label) == set(range(NUM_CLASSES))


def test_a_picture_is_the_two_digits_side_by_side_with_black_above_and_below() -> None:
    left, right = DIGITS.images[3], DIGITS.images[7]
    image = decode_image(encode_pair(left, right), 1e6)
    assert image.shape == (SIZE, SIZE, 3)
    assert (image == image[..., :1]).all()
    np.testing.assert_array_equal(image[4:12, :8, 0], np.rint(left * 255 / 16))
    np.testing.assert_array_equal(image[4:12, 8:, 0], np.rint(right * 255 / 16))
    assert not image[:4].any()
    assert not image[12:].any()


def test_samples_are_the_drawn_pairs() -> None:
    pairs = draw_pairs(VALUES, 30, seed=5)
    keys, members = zip(*pair_samples(30, seed=5), strict=True)
    assert len(set(keys)) == 30
    assert [json.loads(member["json"]) for member in members] == [{"label": label} for label in pairs.label.tolist()]
    digits = DIGITS.images
    expected = [encode_pair(digits[i], digits[j]) for i, j in zip(pairs.left, pairs.right, strict=True)]
    assert [member["png"] for member in members] == expected


def test_the_same_arguments_write_the_same_bytes_and_another_seed_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    num_rows = SHARD_ROWS + 20
    for name, seed in (("once", 0), ("again", 0), ("other", 1)):
        main([str(tmp_path / name), f"--rows={num_rows}", f"--seed={seed}"])
    shards = {name: sorted((tmp_path / name).glob("*.tar")) for name in ("once", "again", "other")}
    once, again, other = ([path.read_bytes() for path in paths] for paths in shards.values())
    assert once == again
    assert once[0] != other[0]
    assert [path.name for path in shards["once"]] == ["digit-pairs-000000.tar", "digit-pairs-000001.tar"]
    assert sum(1 for path in shards["once"] for _ in stream_shard(str(path), None)) == num_rows
    assert f"{num_rows} samples of 100 classes in 2 shards" in capsys.readouterr().out


@pytest.mark.parametrize("rows", ["0", "-3", "1.5", "nan", "many", ""])
def test_no_row_is_refused(rows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        main([str(tmp_path / "none"), f"--rows={rows}"])
    assert refusal.value.code == 2
    assert f"{rows} is not a number of rows, 1 or more" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("kind", ["symmetric", "next_class"])
def test_the_config_loads_and_fits_the_shards(kind: str) -> None:
    config = load_config(CONFIG, [f"noise.kind={kind}"])
    assert config.data.classes == NUM_CLASSES
    assert config.data.size == SIZE
    assert config.data.label == "json:label"
    assert config.has_truth
    assert len(config.train.snapshot_epochs()) == 10

"""The demo's data: exactly as many wrong labels as asked for, and the same bytes each time."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tools.data.make_digits import NUM_CLASSES, NUM_SHARDS, digit_samples, encode_png, main, move_labels


@given(
    truth=st.lists(st.integers(0, NUM_CLASSES - 1), max_size=200),
    moved=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_exactly_the_asked_share_moves_and_stays_a_class(truth: list[int], moved: float, seed: int) -> None:
    true = np.array(truth, dtype=np.int64)
    labels = move_labels(true, moved, seed)
    assert (labels != true).sum() == round(moved * len(true))
    assert ((labels >= 0) & (labels < NUM_CLASSES)).all()
    np.testing.assert_array_equal(labels, move_labels(true, moved, seed))


def test_every_wrong_class_is_reached() -> None:
    true = np.zeros(1000, dtype=np.int64)
    assert set(move_labels(true, 1.0, seed=0)) == set(range(1, NUM_CLASSES))


def test_an_image_is_rgb_of_16_and_keeps_black_and_white() -> None:
    pixels = np.zeros((8, 8))
    pixels[:, 4:] = 16
    image = np.asarray(Image.open(io.BytesIO(encode_png(pixels))))
    assert image.shape == (16, 16, 3)
    assert (image[:, 0] == 0).all()
    assert (image[:, -1] == 255).all()


def test_samples_carry_both_labels() -> None:
    members = [members for _, members in digit_samples(moved=0.3, seed=0)]
    facts = [json.loads(member["json"]) for member in members]
    assert len(facts) == 1797
    assert sum(fact["label"] != fact["truth"] for fact in facts) == 539


def test_the_same_arguments_write_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("once", "again"):
        main([str(tmp_path / name)])
    shards = {name: sorted((tmp_path / name).glob("*.tar")) for name in ("once", "again")}
    assert len(shards["once"]) == NUM_SHARDS
    assert [a.name for a in shards["once"]] == [b.name for b in shards["again"]]
    assert [a.read_bytes() for a in shards["once"]] == [b.read_bytes() for b in shards["again"]]
    assert "1797 samples in 4 shards" in capsys.readouterr().out


@pytest.mark.parametrize("share", ["1.5", "-0.1", "nan", "many"])
def test_a_share_that_is_none_is_refused(share: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as refusal:
        main([str(tmp_path), f"--moved={share}"])
    assert refusal.value.code == 2

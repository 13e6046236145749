"""Differences by pairs: what is kept comes back, and the interval holds the difference as often as it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.storage.contents import write
from rayclean.storage.store import Store
from tools.cells.paired import Difference, correct_of, paired, with_correct


def test_what_a_run_has_kept_goes_into_the_result(tmp_path: Path) -> None:
    right = np.random.default_rng(0).integers(0, 2, 37).astype(np.uint8)
    write(Store(str(tmp_path)), "learn-1/correct.safetensors", {"test": right})
    trials = [{"facts": {"correct": "learn-1/correct.safetensors"}}, {"facts": {}}]
    kept, without = with_correct(tmp_path, {"trials": trials})["trials"]
    np.testing.assert_array_equal(correct_of(kept), right.astype(bool))
    assert correct_of(without) is None


@given(st.integers(2, 200), st.integers(0, 9))
def test_one_seed_is_the_plain_formula(images: int, seed: int) -> None:
    one, other = np.random.default_rng(seed).integers(0, 2, (2, images)).astype(bool)
    found = paired([one], [other])
    each = one.astype(float) - other
    assert found.mean == pytest.approx(each.mean())
    assert found.half == pytest.approx(1.96 * each.std(ddof=1) / np.sqrt(images))
    assert paired([other], [one]) == pytest.approx((-found.mean, found.half))


def test_what_both_get_right_cancels() -> None:
    same = np.random.default_rng(0).random(500) < 0.7
    assert paired([same], [same]) == (0, 0)
    assert paired([same], [same]).verdict == "undecided"


def test_the_interval_holds_the_difference_in_19_of_20_draws() -> None:
    rng, held = np.random.default_rng(1), []
    for _ in range(2000):
        hard = rng.random(400)
        one, other = hard + 0.2 * rng.normal(size=400) < 0.75, hard + 0.2 * rng.normal(size=400) < 0.7
        found = paired([one], [other])
        held.append((found.mean, found.half))
    means, halves = np.array(held).T
    assert np.mean(np.abs(means - means.mean()) <= halves) == pytest.approx(0.95, abs=0.02)


def test_a_verdict_needs_an_interval_without_0() -> None:
    assert [Difference(mean, 0.01).verdict for mean in (0.02, -0.02, 0.01)] == ["above", "below", "undecided"]

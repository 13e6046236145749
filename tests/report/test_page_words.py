"""What a flag is worth and how far probabilities are to be believed, as sentences with numbers."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.evaluate.evaluate import Bin
from rayclean.report.page_truth import Known, Reliability, reliability
from rayclean.report.page_words import Expected, basis, flag_words, reliability_words


def counted(scores: np.ndarray, threshold: float = 0.5) -> Expected:
    found = Expected()
    for part in np.array_split(scores, 3):
        found.add(part, part < threshold)
    return found


def test_of_a_thousand_flagged_so_many_are_wrong() -> None:
    scores = np.array([0.1, 0.2, 0.12, 0.9, 0.999, 0.95])
    told, worth = flag_words(counted(scores), 0.5, "images", None, "by joint")
    assert told == "Flagged are images whose given label is right with a probability below 50%: 3 of 6."
    assert "Of 1,000 flagged images, about 860 are really wrong and 140 are right after all" in worth
    assert "of 1,000 that are not flagged, about 50 are wrong" in worth
    assert worth.endswith("add up to; by joint.")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_the_sentence_has_the_means_of_the_probabilities(values: list[float], threshold: float) -> None:
    scores = np.array(values)
    flagged = scores < threshold
    told = " ".join(flag_words(counted(scores, threshold), threshold, "samples", None, "x"))
    if not flagged.any():
        assert "None of the" in told
        return
    wrong = int(re.findall(r"about ([\d,]+) are really wrong", told)[0].replace(",", ""))
    right = int(re.findall(r"really wrong and ([\d,]+) are right", told)[0].replace(",", ""))
    assert wrong + right == 1000
    assert wrong == pytest.approx(1000 * (1 - scores[flagged]).mean(), abs=0.51)
    assert ("not flagged" in told) == bool((~flagged).any())


def test_few_missed_ones_are_fewer_than_one_in_a_thousand() -> None:
    told = " ".join(flag_words(counted(np.array([0.0, 1.0, 1.0])), 0.5, "samples", None, "x"))
    assert "of 1,000 that are not flagged, fewer than 1 is wrong" in told


@pytest.mark.parametrize(
    ("by_truth", "words"),
    [
        (True, "By the truth it is 667 of 1,000: 2 of 3 that were compared."),
        (False, "People have looked at 3 images that are flagged without their word: 2 were wrong."),
    ],
)
def test_what_is_known_of_flagged_ones_is_told_beside(by_truth: bool, words: str) -> None:
    known = Known(np.array([0.1, 0.2, 0.3, 0.9]), np.array([False, False, True, True]), by_truth)
    assert words in " ".join(flag_words(counted(known.scores), 0.5, "images", known, "x"))
    unflagged = Known(np.array([0.9]), np.array([True]), by_truth)
    assert len(flag_words(counted(known.scores), 0.5, "images", unflagged, "x")) == 2


def test_the_basis_says_who_calibrated_it() -> None:
    own = "they are the model's own (joint)"
    assert basis({"merge_score": "joint", "calibrated": "none"}).startswith(f"{own}, and no labels that people have")
    assert basis({"merge_score": "joint"}) == own, "tables of earlier releases do not say"
    told = basis({"merge_score": "joint", "calibrated": "verified", "verified": 1200})
    assert told == "they are calibrated by 1,200 labels that people have checked"


def test_reliability_tells_of_the_range_that_is_unsure() -> None:
    bins = [Bin(900, 0.98, 0.99), Bin(40, 0.42, 0.55), Bin(10, 0.6, 0.7)]
    first, second = reliability_words(Reliability(bins, 0.031, "the truth of 950 rows"), "images")
    assert "Of 40 images whose label_score is about 42%, 55% have a right label." in first
    assert "3.1 percentage points" in first
    assert second.startswith("By the truth of 950 rows; the expected calibration error is 0.031.")
    sure = reliability_words(Reliability(bins[:1], 0.01, "x"), "images")
    assert "Of 900 images whose label_score is about 98%" in sure[0]


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.45, "and 45.0% have one: 5.0 percentage points too many are expected."),
        (0.6, "and 60.0% have one: 10.0 percentage points too few are expected."),
        (0.5, "and 50.0% have one. Of 30"),
    ],
)
def test_reliability_tells_whether_too_many_are_expected(share: float, words: str) -> None:
    bins = [Bin(30, 0.4, share), Bin(10, 0.8, share)]
    first, _ = reliability_words(Reliability(bins, 0.1, "x"), "images")
    assert first.startswith("Of 40 images 50.0% are expected to have a right label, ")
    assert words in first


def test_where_nothing_is_known_it_says_how_to_know() -> None:
    (told,) = reliability_words(reliability(None), "images")
    assert "merge.verified" in told

"""Plots are well-formed, hold every number, and no text of them is markup."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.evaluate.evaluate import Bin
from rayclean.report.page_numbers import NO_TRUTH, RIGHT, WRONG, spread
from rayclean.report.page_svg import BLACK_ON, BLUE, VERMILION, heat_map, histogram, luminance, reliability

HOSTILE = ['<script>alert("1")</script>', "a & b", "'quoted'", "x" * 40]


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)


def test_names_are_text() -> None:
    values = np.full((4, 4), 0.5)
    root = parsed(
        heat_map(values, HOSTILE, HOSTILE, HOSTILE[0], lambda i, j: f"{HOSTILE[i]}{HOSTILE[j]}", lambda value: "<b>")
    )
    tags = {element.tag for element in root.iter()}
    assert tags == {"svg", "rect", "text", "title"}
    assert root.attrib["aria-label"] == HOSTILE[0]
    told = [element.text for element in root.iter("title")]
    assert HOSTILE[0] + HOSTILE[1] in told
    assert HOSTILE[3] in told  # the label itself is cut


@pytest.mark.parametrize("size", [1, 16, 17, 40])
def test_a_cell_for_each_number_but_nan(size: int) -> None:
    values = np.linspace(-1, 1, size * size).reshape(size, size)
    values[0, 0] = np.nan
    names = [f"c{i}" for i in range(size)]
    root = parsed(heat_map(values, names, names, "t", lambda i, j: f"{i} {j}", lambda value: f"{value:.1f}"))
    cells = list(root.iter("rect"))
    assert len(cells) == size * size - 1
    written = [text for text in root.iter("text") if "cell" in text.attrib.get("class", "")]
    assert len(written) == (len(cells) if size <= 16 else 0)
    width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
    for cell in cells:
        assert 0 <= float(cell.attrib["x"]) <= width - float(cell.attrib["width"])
        assert 0 <= float(cell.attrib["y"]) <= height - float(cell.attrib["height"])


def test_blue_is_above_nothing_and_vermilion_below() -> None:
    root = parsed(heat_map(np.array([[-1.0, 0.0, 1.0]]), ["r"], ["a", "b", "c"], "t", lambda i, j: "", str))
    low, none, high = ((cell.attrib["class"], float(cell.attrib["fill-opacity"])) for cell in root.iter("rect"))
    assert (low, high) == (("down", 1.0), ("up", 1.0))
    assert 0 < none[1] < 0.1


@given(st.floats(0, 1), st.sampled_from([BLUE, VERMILION]))
def test_numbers_are_black_or_white_whatever_has_more_contrast(share: float, colour: tuple[int, int, int]) -> None:
    found = luminance(colour, share)
    light = found < BLACK_ON
    assert (1.05 / (found + 0.05) if light else (found + 0.05) / 0.05) >= 4.5


def test_a_histogram_has_a_bar_for_each_filled_bin_and_two_curves() -> None:
    column = np.concatenate([np.random.default_rng(0).normal(-3, 1, 100), np.random.default_rng(1).normal(3, 1, 300)])
    wrong = np.arange(400) < 100
    groups = {RIGHT: ~wrong, WRONG: wrong, NO_TRUTH: np.zeros(400, bool)}
    found = spread("aum", column, groups)
    root = parsed(histogram(found, "histogram of aum"))
    for group in (RIGHT, WRONG):
        (path,) = (p for p in root.iter("path") if p.attrib["class"] == f"bar {group}")
        assert path.attrib["d"].count("Z") == (found.counts[group] > 0).sum()
    assert [line.attrib["class"] for line in root.iter("polyline")] == ["fit clean", "fit noisy"]
    numbers = [float(number) for line in root.iter("polyline") for number in re.split("[ ,]", line.attrib["points"])]
    assert min(numbers) >= 0
    assert max(numbers) <= 340


def test_an_empty_histogram_and_no_bins_are_pictures_too() -> None:
    empty = spread("vote", np.full(3, np.nan), {NO_TRUTH: np.ones(3, bool)})
    assert list(parsed(histogram(empty, "t")).iter("path")) == []
    assert len(list(parsed(reliability([Bin(5, 0.2, 0.1), Bin(1, 0.9, 1.0)], "t")).iter("circle"))) == 2
    parsed(reliability([], "t"))

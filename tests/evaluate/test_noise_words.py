"""An estimated noise rate is told with what its summary says of it, and with nothing that it does not say."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from rayclean.evaluate.noise_words import rate_notes
from rayclean.report.text import print_summary

SUMMARY: dict[str, Any] = {"noise_rate": 0.2812, "merge_score": "joint", "verified": 0}
INTERVAL = {"noise_rate_low": 0.22, "noise_rate_high": 0.35}
CATALOG = {"rows": 10, "samples": 10, "shards": 1, "issues": 3, "quarantined": {}, "left_out": {}}
CATALOG |= {"truncated_shards": 0, "empty_shards": 0, "reliable": True, "reason": ""}


@pytest.mark.parametrize(
    ("more", "truth", "expected"),
    [
        ({}, None, ["by joint"]),  # of an earlier release
        ({}, 0.3, ["by joint", "true 0.300"]),
        (INTERVAL, None, ["0.220 to 0.350", "by joint"]),
        ({"calibrated": "none"}, None, ["by joint, not calibrated by verified labels"]),
        (
            INTERVAL | {"calibrated": "verified", "verified": 1200},
            0.3,
            ["0.220 to 0.350", "by joint, calibrated by 1,200 verified labels", "true 0.300"],
        ),
        ({"noise_rate_low": None, "noise_rate_high": None}, None, ["by joint"]),
    ],
)
def test_what_is_known_of_a_rate_is_told(more: dict[str, Any], truth: float | None, expected: list[str]) -> None:
    assert rate_notes(SUMMARY | more, truth) == expected


def test_the_end_of_a_run_tells_it() -> None:
    said = io.StringIO()
    console = Console(file=said, width=200)
    print_summary(console, "/run", CATALOG | SUMMARY | INTERVAL | {"calibrated": "none"}, 1.0, None)
    expected = "estimated noise rate 0.281 (0.220 to 0.350; by joint, not calibrated by verified labels)"
    assert expected in said.getvalue()

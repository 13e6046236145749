"""What belongs to an estimated noise rate, from a table's summary: how sure it is and what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LOW, HIGH, CALIBRATED = "noise_rate_low", "noise_rate_high", "calibrated"
NONE = "none"  # of `calibrated`


def noise_interval(summary: Mapping[str, Any]) -> tuple[float, float] | None:
    """The interval of a table's noise rate; None where its summary has none."""
    low, high = summary.get(LOW), summary.get(HIGH)
    return None if low is None or high is None else (low, high)


def calibration_words(summary: Mapping[str, Any]) -> str | None:
    """Whether a table's probabilities were calibrated by verified labels; None where its summary does not say."""
    if CALIBRATED not in summary:
        return None
    if summary[CALIBRATED] == NONE:
        return "not calibrated by verified labels"
    return f"calibrated by {summary['verified']:,} verified labels"


def interval_words(interval: tuple[float, float] | None) -> list[str]:
    """An interval as a note; nothing where there is none."""
    return [] if interval is None else [f"{interval[0]:.3f} to {interval[1]:.3f}"]


def rate_notes(summary: Mapping[str, Any], true_noise_rate: float | None) -> list[str]:
    """The notes of an estimated noise rate: its interval, where it comes from, and the true one where that is known."""
    source = [f"by {summary['merge_score']}", calibration_words(summary)]
    truth = [] if true_noise_rate is None else [f"true {true_noise_rate:.3f}"]
    return [*interval_words(noise_interval(summary)), ", ".join(filter(None, source)), *truth]

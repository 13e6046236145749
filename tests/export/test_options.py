"""What cannot be asked for is refused with its cause."""

from __future__ import annotations

from typing import Any

import pytest

from rayclean.errors import ConfigError
from rayclean.export.kinds import EXPORT_KINDS
from rayclean.export.options import ExportOptions


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"cut": 0.5, "budget": 3}, "--cut and --budget contradict"),
        ({"budget": 3, "precision": 0.9}, "--budget and --precision contradict"),
        ({"cut": 1.5}, "--cut 1.5: expected a probability"),
        ({"cut": float("nan")}, "--cut nan"),
        ({"precision": -0.1}, "--precision -0.1"),
        ({"budget": 0}, "--budget 0"),
        ({"limit": 0}, "--limit 0"),
        ({"labels": "best"}, "--labels best: expected one of given, verified, predicted"),
        ({"sure": 0.8}, "--sure is for --labels predicted"),
        ({"labels": "predicted", "sure": 2.0}, "--sure 2.0"),
    ],
)
def test_contradictions_are_refused(wishes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ExportOptions(**wishes)


def test_kinds_have_their_own_options() -> None:
    for kind in EXPORT_KINDS:
        kind.check(ExportOptions())
    with pytest.raises(ConfigError, match=r"--to tfrecord: no such export; there are csv, parquet"):
        EXPORT_KINDS.get("tfrecord")
    with pytest.raises(ConfigError, match="--limit is for --to fiftyone and labelstudio"):
        EXPORT_KINDS.get("csv").check(ExportOptions(limit=5))
    with pytest.raises(ConfigError, match="at most 100000"):
        EXPORT_KINDS.get("fiftyone").check(ExportOptions(limit=100_001))


def test_what_was_left_open_is_not_in_the_fingerprint() -> None:
    assert ExportOptions().to_json() == {"labels": "given"}
    assert ExportOptions(cut=0.0, removed=True).to_json() == {"cut": 0.0, "labels": "given", "removed": True}

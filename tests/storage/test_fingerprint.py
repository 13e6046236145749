"""Fingerprints change with all that a result depends on, and with nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.storage.fingerprint import digest, environment_stamp, fingerprint

BASE: dict[str, Any] = {"stage": "embed", "version": 1, "fields": {"size": 8, "std": (1, 2)}, "inputs": ["a", "b"]}


def test_it_is_eight_hex_digits_and_the_same_in_every_process() -> None:
    mark = fingerprint(**BASE)
    assert len(mark) == 8
    int(mark, 16)
    code = f"from rayclean.storage.fingerprint import fingerprint; print(fingerprint(**{BASE!r}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == mark


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "pairs"},
        {"version": 2},
        {"fields": {"size": 9, "std": (1, 2)}},
        {"fields": {"size": 8, "std": (1, 2), "width": None}},
        {"inputs": ["b", "a"]},
        {"inputs": ["ab"]},
    ],
)
def test_every_part_counts(change: dict[str, Any]) -> None:
    assert fingerprint(**{**BASE, **change}) != fingerprint(**BASE)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@settings(deadline=None)
@given(st.dictionaries(st.text(), scalars))
def test_the_order_of_fields_does_not_count(fields: dict[str, Any]) -> None:
    assert fingerprint("s", 1, fields, []) == fingerprint("s", 1, dict(reversed(fields.items())), [])


def test_a_value_that_equals_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        fingerprint("s", 1, {"rate": float("nan")}, [])


def test_a_digest_is_that_of_the_bytes() -> None:
    assert digest(memoryview(b"abc")) == digest(b"abc") != digest(b"abd")
    assert digest(b"").startswith("e3b0c442")


def test_the_stamp_says_what_may_change_bits() -> None:
    stamp = json.loads(environment_stamp(1, "cpu"))
    assert stamp["libraries"]["torch"]
    assert (stamp["device"], stamp["threads"]) == ("cpu", 1)
    assert environment_stamp(2, "cpu") != environment_stamp(1, "cpu") == environment_stamp(1, "cpu")
    assert environment_stamp(1, "H100") != environment_stamp(1, "cpu")

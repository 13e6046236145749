"""Measured facts of a run: time and memory of each step and job, one entry for each start."""

from __future__ import annotations

import logging
from typing import Any

from rayclean.errors import DamagedFile
from rayclean.storage.contents import read_json, write
from rayclean.storage.store import Store

STEPS = "steps"
log = logging.getLogger(__name__)


def record(store: Store, name: str, facts: dict[str, Any]) -> None:
    """Adds one entry to the measured facts of a job, or of all steps; every start adds its own.

    A disk that is too full even for this is no further error: the units say it.
    """
    file = f"record/{name}.json"
    entries = _entries(store, file)
    try:
        write(store, file, [*entries, facts])
    except OSError as e:
        log.warning("%s: could not be written: %s", file, e)


def wall_times(store: Store) -> dict[str, float]:
    """Seconds that each stage took, over all starts of the run."""
    file = f"record/{STEPS}.json"
    times: dict[str, float] = {}
    for entry in _entries(store, file):
        times[entry["step"]] = times.get(entry["step"], 0) + entry.get("wall_s", 0)
    return times


def _entries(store: Store, file: str) -> list[Any]:
    """What a record holds; nothing is computed from it, so a damaged one is begun anew and stops nobody."""
    if not store.exists(file):
        return []
    try:
        entries = read_json(store, file)
        return [entry for entry in entries if isinstance(entry, dict)]
    except (DamagedFile, TypeError) as e:
        log.warning("%s: cannot be read (%s); it is begun anew", store.full(file), e)
        return []

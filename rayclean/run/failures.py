"""Failed units of a run's last start: noted, and read again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from rayclean.errors import DamagedFile, RaycleanError
from rayclean.storage.contents import read_json, write
from rayclean.storage.store import Store

FAILED_FILE = "record/failed.json"
MAX_UNITS = 1000  # of a stage that are written down: a full disk fails all of a large stage, each for one reason
MAX_TEXT = 2000
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FailedUnit:
    """A unit's file, and the error with which the unit failed; of what failed as a whole its name."""

    error: str
    file: str


@dataclass(frozen=True)
class Failures:
    """Failed units of one stage in the last start.

    Attributes:
        at: when they were noted, UTC.
        count: how many there were.
        units: the first MAX_UNITS of them.
    """

    at: str
    count: int
    units: tuple[FailedUnit, ...]

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Failures:
        """Of the record."""
        return cls(entry["at"], entry["count"], tuple(FailedUnit(**unit) for unit in entry["units"]))


def note_failures(store: Store, stage: str, failed: Mapping[str, str]) -> None:
    """Makes these the failures of a stage in the last start; none of them: the stage's entry goes.

    What failed is raised anyway, so a disk that is too full even for this is no further error.

    Args:
        store: the run's files.
        stage: its name.
        failed: file of a unit -> error.
    """
    before = read_failures(store)
    after = {name: entry for name, entry in before.items() if name != stage}
    if failed:
        units = tuple(FailedUnit(error[:MAX_TEXT], file) for file, error in islice(failed.items(), MAX_UNITS))
        after[stage] = Failures(datetime.now(UTC).isoformat(timespec="seconds"), len(failed), units)
    if after == before:
        return
    try:
        write(store, FAILED_FILE, {name: asdict(entry) for name, entry in after.items()})
    except OSError as e:
        log.warning("%s: could not be written: %s", FAILED_FILE, e)


@contextmanager
def noted_failures(store: Store, stage: str, what: str) -> Iterator[None]:
    """Notes an error that ends a stage as a whole, then lets it pass.

    Args:
        store: the run's files.
        stage: its name.
        what: could not be done, in the place of a unit's file.
    """
    try:
        yield
    except RaycleanError as e:
        note_failures(store, stage, {what: str(e)})
        raise


def read_failures(store: Store) -> dict[str, Failures]:
    """By stage."""
    try:
        found = read_json(store, FAILED_FILE) if store.exists(FAILED_FILE) else {}
    except DamagedFile as e:  # a record stops nobody
        log.warning("%s", e)
        return {}
    return {stage: Failures.from_json(entry) for stage, entry in found.items()}

"""What the classes of a review's logs are called now.

A log that names its classes goes by name. Where they are called otherwise now, or a log of an earlier release has
numbers and nothing tells what these count, people have to say it: `merge.verified_classes`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from rayclean.catalog.labels import ClassList
from rayclean.decisions.entries import SUFFIX, Classes, Numbered, Sample, read_lines
from rayclean.errors import ConfigError, InputError, RaycleanError
from rayclean.storage.contents import create, read_json
from rayclean.storage.published import Published, find_published, manifest_of, whole_table
from rayclean.storage.store import Store

REVIEW = "review"  # of merge.verified, and the folder of the logs
FIELD = "merge.verified_classes"
SAME = "same"
IF_RENAMED = (
    f"Where the classes are only called otherwise now, set {FIELD} to the names that the log's classes have now, in "
    f"their order; to {SAME} where that is the order of data.classes"
)
SHOWN = 12  # names of a list
SHOWN_DIFFERENCES = 3
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Naming:
    """What the classes of logs are called now.

    Attributes:
        current: the classes of the run, or of the table that is reviewed.
        told: `merge.verified_classes`: how the classes of the logs, in their order, are called now.
        noted: of logs of earlier releases, by reviewer, the classes that they count.
        store: the run, whose published table's classes errors show.
    """

    current: tuple[str, ...]
    told: tuple[str, ...] | None = None
    noted: dict[str, tuple[str, ...]] = field(default_factory=dict)
    store: Store | None = None

    @classmethod
    def of_run(cls, store: Store, current: Sequence[str], told: Sequence[str] | str | None) -> Naming:
        """As the run's files and its config say.

        Args:
            store: the run.
            current: its classes.
            told: `merge.verified_classes`.
        """
        named = None if told is None else tuple(current) if told == SAME else ClassList.load(told, FIELD).names
        noted = {who: tuple(read_json(store, _note(who))) for who in reviewers(store) if store.exists(_note(who))}
        return cls(tuple(current), named, noted, store)

    def names_now(self, reviewer: str, classes: tuple[str, ...] | None) -> tuple[str, ...]:
        """The names, in the same order, that a log's classes have now.

        Args:
            reviewer: whose log.
            classes: as the log calls them; None where it has numbers.

        Raises:
            RaycleanError: nothing tells, or `merge.verified_classes` does not fit.
        """
        if classes == self.current or (classes is not None and self.told is None):
            return classes
        if self.told is None:
            if reviewer not in self.noted:
                raise InputError(self._nothing_tells(reviewer))
            return self.noted[reviewer]
        if classes is not None and len(self.told) < len(classes):
            raise ConfigError(
                f"{FIELD} names {len(self.told)} classes, {log_name(reviewer)} is about {len(classes)}; "
                f"{compared(('the log', classes), (FIELD, self.told))}"
            )
        return self.told

    def _nothing_tells(self, reviewer: str) -> str:
        now = ("the run", self.current)
        table = None if self.store is None else whole_table(self.store)
        lists = _short(*now) if table is None else compared(("the published table", table.names), now)
        return (
            f"{log_name(reviewer)} has classes by number, from an earlier release, and nothing tells for sure which "
            f"ones they count; {lists}. Set {FIELD} to the classes that the log was made with, in the order of then: "
            f"names, a file of names, or {SAME} where it is the order of data.classes"
        )


def compared(one: tuple[str, Sequence[str]], other: tuple[str, Sequence[str]]) -> str:
    """Two lists of classes, each with whose it is: whole where they are short, else where they differ first."""
    (_, a), (_, b) = one, other
    if max(len(a), len(b)) <= SHOWN:
        return f"{_short(*one)}; {_short(*other)}"
    differ = [i for i in range(max(len(a), len(b))) if a[i : i + 1] != b[i : i + 1]]
    shown = ", ".join(
        f"{i}: " + " / ".join(repr(each[i]) if i < len(each) else "none" for each in (a, b))
        for i in differ[:SHOWN_DIFFERENCES]
    )
    more = len(differ) - SHOWN_DIFFERENCES
    where = f"differ at {shown}{f' and {more} more' if more > 0 else ''}" if differ else "are the same"
    return f"{len(a)} classes of {one[0]} and {len(b)} of {other[0]} {where}"


def _short(whose: str, names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    return f"{len(names)} classes of {whose}: {shown}"


def log_name(reviewer: str) -> str:
    """The file of a reviewer's log in a run."""
    return f"{REVIEW}/{reviewer}{SUFFIX}"


def reviewers(store: Store) -> Sequence[str]:
    """Who has a log, in order."""
    return [name.removesuffix(SUFFIX) for name in store.list(REVIEW) if name.endswith(SUFFIX)]


def _note(reviewer: str) -> str:
    """Beside a log of an earlier release: the classes that it counts."""
    return f"{REVIEW}/{reviewer}.classes.json"


def note_classes(store: Store) -> None:
    """Notes for each log of an earlier release which classes it counts, while the table is there that tells it.

    Every start does so, since it may put a table with other classes in that one's place. What cannot be read stops none
    that does not ask for decisions.
    """
    for who in reviewers(store):
        if store.exists(_note(who)):
            continue
        found = None
        try:
            numbered = _numbered(store, who)
            found = _classes_of(store, numbered) if numbered else None
        except (RaycleanError, OSError, ValueError) as error:  # a line that is none; a damaged table
            log.warning("%s: what its classes are cannot be looked up: %s", log_name(who), error)
        if found is not None:
            create(store, _note(who), found)


def _numbered(store: Store, reviewer: str) -> list[Numbered]:
    """The lines that count classes which their log does not name."""
    found = []
    for _, line in read_lines(store.read(log_name(reviewer)), log_name(reviewer))[0]:
        if isinstance(line, Classes):
            break
        if isinstance(line, Numbered):
            found.append(line)
    return found


def _classes_of(store: Store, lines: Sequence[Numbered]) -> tuple[str, ...] | None:
    """The classes of the published table, where the decisions were surely made over these; else None.

    The given labels that the reviewers saw must be those of the table. Where it may be a later one than they saw, they
    must be so for each class that a decision is about: a class that has another number now would not be found else.
    """
    table = find_published(store)
    used = {label for line in lines for label in (line.given, line.label) if label is not None}
    if table is None or max(used) >= len(table.names):
        return None
    given = _given_labels(table, {line.sample for line in lines})
    if any(given.get(line.sample, line.given) != line.given for line in lines):
        return None
    is_theirs = bool(given) and _published_before(store, lines[0].time)
    return table.names if is_theirs or used <= set(given.values()) else None


def _given_labels(table: Published, samples: set[Sample]) -> dict[Sample, int]:
    """Of those that the published table has."""
    keys = pa.array(sorted({key for _, key in samples}), pa.string())
    found = {}
    for part in table.parts:
        rows = table.read(part, ["shard", "key", "given_label"])
        for line in rows.filter(pc.is_in(rows["key"], value_set=keys)).to_pylist():
            found[line["shard"], line["key"]] = line["given_label"]
    return {sample: label for sample, label in found.items() if sample in samples}


def _published_before(store: Store, time: str) -> bool:
    path = manifest_of(store)
    try:
        return path is not None and store.modified_s(path) < datetime.fromisoformat(time).timestamp()
    except ValueError:  # not a time that a review writes
        return False

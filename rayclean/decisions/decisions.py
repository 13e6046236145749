"""What people decide in the review of a run, and what `merge.verified=review` takes in of it.

Each reviewer has a log of their own, `RUN/review/<reviewer>.jsonl`, to which a line is added for each decision; nothing
in it is ever changed. What a log says is what its lines say one after the other, and what all logs say together depends
neither on their order nor on their times:

    keep      the given label is right         relabel   `label` is right
    drop      none of the classes is           unsure    nothing is said
    undo      takes back the last decision on this sample that still stands

Where reviewers differ, what more than half of them say holds [our choice]; of two who differ neither does, until one
of them decides otherwise or a third one joins. Such samples count as not verified.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.decisions.entries import Choice, Entry, Sample, Verdict, read_entries
from rayclean.decisions.naming import IF_RENAMED, Naming, compared, log_name, reviewers
from rayclean.decisions.verified import Verified, find_rows
from rayclean.errors import InputError
from rayclean.schema import DROPPED
from rayclean.storage.store import Store

log = logging.getLogger(__name__)


def standing(entries: Iterable[Entry]) -> list[Entry]:
    """The decisions of one reviewer that were not taken back, oldest first; of a sample the last one holds."""
    found: list[Entry] = []
    for entry in entries:
        if entry.decision != Choice.UNDO:
            found.append(entry)
            continue
        last = next((i for i in reversed(range(len(found))) if found[i].sample == entry.sample), None)
        if last is not None:
            del found[last]
    return found


def latest(entries: Iterable[Entry]) -> dict[Sample, Entry]:
    """What one reviewer says of each sample."""
    return {entry.sample: entry for entry in standing(entries)}


def agreed(said: Iterable[Verdict | None]) -> Verdict | None:
    """What more than half of those say who say something; None where there is no such thing."""
    counts = Counter(each for each in said if each is not None)
    return next((label for label, count in counts.items() if 2 * count > counts.total()), None)


class Outcome(NamedTuple):
    """What all reviewers say together.

    Attributes:
        labels: what is right by sample: a class's name, `DROPPED` where no class is.
        disputed: samples of which reviewers say different things, without a majority.
    """

    labels: dict[Sample, Verdict]
    disputed: list[Sample]


def settle(decisions: Mapping[str, Mapping[Sample, Entry]]) -> Outcome:
    """Puts the reviewers' decisions together.

    Args:
        decisions: by reviewer and sample, the latest.
    """
    said: dict[Sample, list[Verdict]] = {}
    for of_one in decisions.values():
        for sample, entry in of_one.items():
            if entry.verified is not None:
                said.setdefault(sample, []).append(entry.verified)
    found = {sample: agreed(said[sample]) for sample in sorted(said)}
    labels = {sample: label for sample, label in found.items() if label is not None}
    return Outcome(labels, [sample for sample, label in found.items() if label is None])


class Seen(NamedTuple):
    """What somebody saw who decided: the given label of a sample, by name, and where it is written."""

    shard: str
    key: str
    given: str
    where: str


@dataclass(frozen=True)
class Decisions:
    """The labels that people agree on: a `VerifiedSource`. It goes to workers whole, since logs may grow meanwhile.

    Attributes:
        labels: shard, key and label of each sample, in order; the label may be `DROPPED`.
        seen: of every decision that says something, also of those that did not win.
        classes: of the run, by label.
    """

    labels: tuple[tuple[str, str, int], ...]
    seen: tuple[Seen, ...]
    classes: tuple[str, ...]

    @classmethod
    def make(cls, labels: Mapping[Sample, Verdict], classes: Sequence[str], seen: Iterable[Seen] = ()) -> Decisions:
        """In order of shards and keys."""
        index: dict[Verdict, int] = {DROPPED: DROPPED} | {name: label for label, name in enumerate(classes)}
        return cls(tuple((*each, index[labels[each]]) for each in sorted(labels)), tuple(sorted(seen)), tuple(classes))

    @cached_property
    def digest(self) -> str:
        """Of what is agreed on, not of how it came about."""
        return hashlib.sha256(json.dumps(self.labels).encode()).hexdigest()

    def find(self, catalog: Catalog) -> Verified:
        """The rows that they are of; samples that are no rows any more are left out, see `num_elsewhere`.

        Raises:
            InputError: a row has another given label than the one that was decided on.
        """
        samples = sorted({each[:2] for each in self.seen} | {each[:2] for each in self.labels})
        found = find_rows(catalog, [key for _, key in samples], [shard for shard, _ in samples])
        rows = dict(zip(samples, found, strict=True))
        self._check_given(catalog, rows)
        pairs = sorted((row, label) for shard, key, label in self.labels for row in rows[shard, key])
        return Verified(np.array([row for row, _ in pairs], np.int64), np.array([at for _, at in pairs], np.int64))

    def _check_given(self, catalog: Catalog, rows: Mapping[Sample, list[int]]) -> None:
        given = ((each, self.classes[catalog.label[row]]) for each in self.seen for row in rows[each.shard, each.key])
        others = [(each, now) for each, now in given if now != each.given]
        if others:
            (first, now), more = others[0], f" (and {len(others) - 1} more)" if len(others) > 1 else ""
            raise InputError(
                f"{first.where}: was decided on with the given label {first.given!r}, now it is {now!r}{more}; decide "
                f"again in `rayclean review`, or remove such lines. {IF_RENAMED}"
            )

    def num_elsewhere(self, found: Verified) -> int:
        """Samples that the catalog has not: left out on purpose, or of other shards."""
        return len(self.labels) - len(found.rows)


def read_decisions(store: Store, naming: Naming) -> Decisions | None:
    """What people have agreed on so far in a run; None where that is nothing.

    Raises:
        RaycleanError: a log cannot be read, or a class of it is none of the run's.
    """
    said: dict[str, dict[Sample, Entry]] = {}
    seen: list[Seen] = []
    for who in reviewers(store):
        said[who] = _read_log(store, who, naming)
        for entry in said[who].values():
            if entry.verified is not None:
                where = f"{log_name(who)}: row {entry.row}, key {entry.key} of {entry.shard}"
                seen.append(Seen(entry.shard, entry.key, entry.given, where))
    labels = settle(said).labels
    return Decisions.make(labels, naming.current, seen) if labels else None


def _read_log(store: Store, who: str, naming: Naming) -> dict[Sample, Entry]:
    """What one reviewer says of each sample."""
    data, name = store.read(log_name(who)), log_name(who)
    found = read_entries(data, name, lambda classes: naming.names_now(who, classes))
    if found.whole < len(data):
        log.warning("%s: the last line was cut by a crash before it counted; it is left out", name)
    decisions = latest(found.entries)
    for entry in decisions.values():
        if isinstance(entry.verified, str) and entry.verified not in naming.current:
            its = found.classes or naming.names_now(who, None)
            raise InputError(
                f"{name}: row {entry.row}, key {entry.key} of {entry.shard}: {entry.verified!r} is none of the run's "
                f"classes; {compared(('the log', its), ('the run', naming.current))}. {IF_RENAMED}; else "
                "remove the line"
            )
    return decisions

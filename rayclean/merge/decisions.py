"""What people decide in the review of a run, and what `merge.verified=review` takes in of it.

Each reviewer has a log of their own, `RUN/review/<reviewer>.jsonl`, to which a line is added for each decision; nothing
in it is ever changed. What a log says is what its lines say one after the other, and what all logs say together hangs
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
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rayclean.catalog.table import Catalog
from rayclean.errors import InputError
from rayclean.merge.joint import DROPPED
from rayclean.merge.verified import FIELD, Verified, find_rows
from rayclean.storage.store import Store

REVIEW = "review"  # of merge.verified, and the folder of the logs
SUFFIX = ".jsonl"

Sample = tuple[str, str]  # shard and key, as the table calls them
Natural = Annotated[int, Field(ge=0)]


class Choice(StrEnum):
    """What a line of a log says of a sample."""

    KEEP = "keep"
    RELABEL = "relabel"
    DROP = "drop"
    UNSURE = "unsure"
    UNDO = "undo"


class Entry(BaseModel):
    """A line of a log.

    Attributes:
        row: at the time; another catalog may have the sample at another one.
        given: the given label that the reviewer saw.
        label: the right one, with `relabel`; else None.
        time: when it was decided, ISO 8601 in UTC; for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    row: Natural
    shard: str
    key: str
    given: Natural
    decision: Choice
    label: Natural | None
    time: str

    @model_validator(mode="after")
    def _label_fits(self) -> Entry:
        if (self.label is not None) != (self.decision == Choice.RELABEL):
            raise ValueError(f"decision {self.decision} with label {self.label}")
        return self

    @property
    def sample(self) -> Sample:
        """What it is about."""
        return self.shard, self.key

    @property
    def verified(self) -> int | None:
        """The label that it says is right, `DROPPED` where none is; None where it says nothing."""
        says = {Choice.KEEP: self.given, Choice.RELABEL: self.label, Choice.DROP: DROPPED}
        return says.get(self.decision)

    def encode(self) -> bytes:
        """The line."""
        return json.dumps(self.model_dump(mode="json")).encode() + b"\n"


def read_entries(data: bytes, name: str) -> tuple[list[Entry], int]:
    """The lines of a log, and how many of its bytes they are: what follows is a line that was cut by a crash.

    A last line that lacks nothing but its end counts.

    Raises:
        InputError: another line is none that a review writes.
    """
    entries, start = [], 0
    while start < len(data):
        end = data.find(b"\n", start)
        line = data[start:] if end < 0 else data[start:end]
        try:
            if line.strip():
                entries.append(Entry.model_validate_json(line, strict=True))
        except ValidationError as e:
            if end < 0:
                return entries, start
            cause = e.errors()[0]["msg"]
            at = data.count(b"\n", 0, start) + 1
            raise InputError(f"{name}, line {at}: is no decision ({cause}); mend it or remove the line") from e
        start = len(data) if end < 0 else end + 1
    return entries, start


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


def agreed(said: Iterable[int | None]) -> int | None:
    """What more than half of those say who say something; None where there is no such thing."""
    counts = Counter(each for each in said if each is not None)
    return next((label for label, count in counts.items() if 2 * count > counts.total()), None)


class Outcome(NamedTuple):
    """What all reviewers say together.

    Attributes:
        labels: the right label by sample, `DROPPED` where no class is right.
        disputed: samples of which reviewers say different things, without a majority.
    """

    labels: dict[Sample, int]
    disputed: list[Sample]


def settle(decisions: Mapping[str, Mapping[Sample, Entry]]) -> Outcome:
    """Puts the reviewers' decisions together.

    Args:
        decisions: by reviewer and sample, the latest.
    """
    said: dict[Sample, list[int]] = {}
    for of_one in decisions.values():
        for sample, entry in of_one.items():
            if entry.verified is not None:
                said.setdefault(sample, []).append(entry.verified)
    found = {sample: agreed(said[sample]) for sample in sorted(said)}
    labels = {sample: label for sample, label in found.items() if label is not None}
    return Outcome(labels, [sample for sample, label in found.items() if label is None])


@dataclass(frozen=True)
class Decisions:
    """The labels that people agree on: a `VerifiedSource`. It goes to workers whole, since logs may grow meanwhile.

    Attributes:
        labels: shard, key and label of each sample, in order; the label may be `DROPPED`.
    """

    labels: tuple[tuple[str, str, int], ...]

    @classmethod
    def make(cls, labels: Mapping[Sample, int]) -> Decisions:
        """In order of shards and keys."""
        return cls(tuple((*sample, labels[sample]) for sample in sorted(labels)))

    @cached_property
    def digest(self) -> str:
        """Of what is agreed on, not of how it came about."""
        return hashlib.sha256(json.dumps(self.labels).encode()).hexdigest()

    def find(self, catalog: Catalog) -> Verified:
        """The rows that they are of; samples that are no rows any more are left out, see `num_elsewhere`.

        Raises:
            InputError: a label is none of the run's classes.
        """
        for _, key, label in self.labels:
            if label >= catalog.num_classes:
                raise InputError(
                    f"{FIELD}={REVIEW}: key {key} has label {label}, the run has {catalog.num_classes} classes; the "
                    f"decisions are about other ones: move the folder {REVIEW} out of the run"
                )
        rows = find_rows(catalog, [key for _, key, _ in self.labels], [shard for shard, _, _ in self.labels])
        pairs = sorted((row, label) for of_one, (*_, label) in zip(rows, self.labels, strict=True) for row in of_one)
        return Verified(np.array([row for row, _ in pairs], np.int64), np.array([at for _, at in pairs], np.int64))

    def num_elsewhere(self, found: Verified) -> int:
        """Samples that the catalog has not: left out on purpose, or of other shards."""
        return len(self.labels) - len(found.rows)


def log_name(reviewer: str) -> str:
    """The file of a reviewer's log in a run."""
    return f"{REVIEW}/{reviewer}{SUFFIX}"


def reviewers(store: Store) -> Sequence[str]:
    """Who has a log, in order."""
    return [name.removesuffix(SUFFIX) for name in store.list(REVIEW) if name.endswith(SUFFIX)]


def read_decisions(store: Store) -> Decisions | None:
    """What people have agreed on so far in a run; None where that is nothing.

    Raises:
        InputError: a log cannot be read.
    """
    logs = {who: read_entries(store.read(log_name(who)), log_name(who))[0] for who in reviewers(store)}
    labels = settle({who: latest(entries) for who, entries in logs.items()}).labels
    return Decisions.make(labels) if labels else None

"""Which rows to verify so that the noise rate can be told from them: a stratified random sample of the table.

Strata are ranges of `label_score` with about equally many rows, and more is drawn from those where the score is unsure
(docs/methods.md, section 8). Rows that people have verified already are known and not drawn. The table is streamed
twice; what is held is a histogram and the drawn rows. Letters: H strata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from scipy.special import logit

from rayclean.decisions.entries import Sample
from rayclean.errors import InputError
from rayclean.schema import Array
from rayclean.storage.draws import seeded_hash

MAX_STRATA = 10
ROWS_PER_STRATUM = 10  # that are drawn, on average: with fewer there are fewer strata
UNSURE = 0.05  # as if a score were at least so far from 0 and 1: it may be wrong
BINS = 1024  # of the log-odds within SPAN, that strata are made of: fine where most scores are
SPAN = 16.0
DRAW, ORDER = "review.survey", "review.order"


@dataclass(frozen=True)
class Stratum:
    """A range of `label_score`.

    Attributes:
        rows: of the table, without those that were verified before.
        drawn: of these; at least 2, where it has so many.
        low: the smallest score.
        high: the largest.
    """

    rows: int
    drawn: int
    low: float
    high: float

    @property
    def weight(self) -> float:
        """How many rows of the table a drawn one stands for: the inverse of its probability to be drawn."""
        return self.rows / self.drawn


class Drawn(NamedTuple):
    """A row to verify, with the name of its given label."""

    row: int
    shard: str
    key: str
    given: str
    stratum: int

    @property
    def sample(self) -> Sample:
        """What it is."""
        return self.shard, self.key


@dataclass(frozen=True)
class Survey:
    """The rows to verify, in random order.

    Attributes:
        asked: how many were asked for; there are fewer where the table has fewer.
        merge: the folder of the table that they were drawn from.
        known: rows of it that people had verified before.
        known_wrong: those of them whose label was wrong.
    """

    asked: int
    merge: str
    known: int
    known_wrong: int
    strata: tuple[Stratum, ...]
    rows: tuple[Drawn, ...]

    @property
    def num_rows(self) -> int:
        """Rows of the table."""
        return self.known + sum(each.rows for each in self.strata)


def draw_survey(
    tables: ds.Dataset, asked: int, merge: str, names: Sequence[str], seed: int, ids: Callable[[Array], Array]
) -> Survey:
    """Draws a survey; the same table and seed give the same one.

    Args:
        tables: the final table.
        asked: how many rows to draw, at least 2.
        merge: the folder that it comes from.
        names: of its classes.
        seed: `run.seed`.
        ids: draw ids (R,) uint64 of rows (R,).

    Raises:
        InputError: people have verified all rows.
    """
    table = _count(tables)
    if not table.rows.any():
        raise InputError("people have verified all rows of the table; nothing is left to draw a sample from")
    of_bin = strata_of(table.rows, max(min(MAX_STRATA, asked // ROWS_PER_STRATUM), 1))
    rows = np.bincount(of_bin, weights=table.rows).astype(np.int64)
    means = np.bincount(of_bin, weights=table.scores) / rows
    sizes = allocate(rows, np.clip(means, UNSURE, 1 - UNSURE), asked)
    chosen = _draw(tables, of_bin, sizes, lambda some: seeded_hash(seed, DRAW, ids(some)))
    facts = zip(rows.tolist(), sizes.tolist(), chosen.low.tolist(), chosen.high.tolist(), strict=True)
    order = np.lexsort((chosen.row, seeded_hash(seed, ORDER, ids(chosen.row))))
    lines = _lines(tables, chosen.row)
    drawn = [
        Drawn(row, lines[row]["shard"], lines[row]["key"], names[lines[row]["given_label"]], stratum)
        for row, stratum in zip(chosen.row[order].tolist(), chosen.stratum[order].tolist(), strict=True)
    ]
    strata = tuple(Stratum(*each) for each in facts)
    return Survey(asked, merge, table.known, table.known_wrong, strata, tuple(drawn))


class _Counted(NamedTuple):
    """What the first pass has found: rows and sums of scores of each bin, and what is known already."""

    rows: Array
    scores: Array
    known: int
    known_wrong: int


def _count(tables: ds.Dataset) -> _Counted:
    rows, scores, known, wrong = np.zeros(BINS, np.int64), np.zeros(BINS), 0, 0
    for batch in _batches(tables):
        seen = batch["verified_label"].is_valid().to_numpy(zero_copy_only=False)
        differs = pc.not_equal(batch["verified_label"], batch["given_label"])
        known, wrong = known + int(seen.sum()), wrong + int(pc.sum(differs).as_py() or 0)
        score = _scores(batch)[~seen]
        rows += np.bincount(_bins(score), minlength=BINS)
        scores += np.bincount(_bins(score), weights=score, minlength=BINS)
    return _Counted(rows, scores, known, wrong)


def _lines(tables: ds.Dataset, rows: Array) -> dict[int, dict[str, Any]]:
    """What the drawn rows are."""
    only = pc.field("row").isin(pa.array(rows, pa.int64()))
    scanner = tables.scanner(columns=["row", "shard", "key", "given_label"], filter=only)
    return {line["row"]: line for batch in scanner.to_batches() for line in batch.to_pylist()}


def _batches(tables: ds.Dataset) -> Iterator[pa.RecordBatch]:
    columns = ["row", "label_score", "given_label", "verified_label"]
    yield from tables.scanner(columns=columns, batch_readahead=4, fragment_readahead=2).to_batches()


def _scores(batch: pa.RecordBatch) -> Array:
    return np.asarray(batch["label_score"].to_numpy().astype(np.float64))


def _bins(scores: Array) -> Array:
    """(R,) bins 0..BINS-1 of probabilities by their log-odds."""
    odds = np.clip(logit(np.clip(scores, 0, 1)), -SPAN, SPAN)
    return np.minimum(((odds + SPAN) * (BINS / (2 * SPAN))).astype(np.int64), BINS - 1)


def strata_of(counts: Array, most: int) -> Array:
    """(B,) the stratum of each bin, ascending from 0: at most `most`, of about equally many rows, none without any.

    Args:
        counts: (B,) rows of the bins.
        most: how many strata.
    """
    middle = np.cumsum(counts) - counts / 2
    found = np.minimum((middle * (most / max(int(counts.sum()), 1))).astype(np.int64), most - 1)
    filled = np.unique(found[counts > 0])
    return np.minimum(np.searchsorted(filled, found), max(len(filled) - 1, 0))


def allocate(rows: Array, means: Array, total: int) -> Array:
    """(H,) how many rows of each stratum to draw, so that the estimate's variance is the least.

    Each stratum has 2 first, where it has so many; then each row goes where it takes most of the variance away, which
    is Neyman's allocation in whole numbers (Wright, 2012).

    Args:
        rows: (H,) of the strata.
        means: (H,) what share of their labels is believed to be right.
        total: of all; fewer where there are fewer rows.
    """
    sizes = np.minimum(rows, 2)
    scale = rows**2 * means * (1 - means)
    for _ in range(min(total, int(rows.sum())) - int(sizes.sum())):
        gain = np.where(sizes < rows, scale / np.maximum(sizes * (sizes + 1), 1), -1.0)
        sizes[gain.argmax()] += 1
    return sizes


class _Chosen(NamedTuple):
    """The drawn rows with their strata, (R,), and the strata's lowest and highest scores, (H,)."""

    row: Array
    stratum: Array
    low: Array
    high: Array


def _draw(tables: ds.Dataset, of_bin: Array, sizes: Array, draws: Callable[[Array], Array]) -> _Chosen:
    """The rows with the smallest draws of each stratum; of equal ones the smaller row."""
    stratum, row, draw = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint64)
    low, high = np.full(len(sizes), np.inf), np.full(len(sizes), -np.inf)
    for batch in _batches(tables):
        new = batch["verified_label"].is_null().to_numpy(zero_copy_only=False)
        score, rows = _scores(batch)[new], batch["row"].to_numpy()[new]
        here = of_bin[_bins(score)]
        np.minimum.at(low, here, score)
        np.maximum.at(high, here, score)
        stratum, row = np.concatenate([stratum, here]), np.concatenate([row, rows])
        draw = np.concatenate([draw, draws(rows)])
        order = np.lexsort((row, draw, stratum))
        first = np.searchsorted(stratum[order], np.arange(len(sizes)))
        kept = order[np.arange(len(order)) - first[stratum[order]] < sizes[stratum[order]]]
        stratum, row, draw = stratum[kept], row[kept], draw[kept]
    return _Chosen(row, stratum, low, high)

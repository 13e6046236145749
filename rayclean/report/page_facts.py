"""What the report's pages show, as plain values: samples, classes, scores and the head."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup

from rayclean.evaluate.evaluate import Bin
from rayclean.evaluate.noise_words import calibration_words, noise_interval
from rayclean.report.page_numbers import percentiles
from rayclean.schema import NONE_NAME, UNKNOWN, Array

KINDS = {
    "wrong_label": "wrong label",
    "ambiguous": "ambiguous",
    "none_of_the_classes": NONE_NAME,
    "duplicate_with_another_label": "duplicate with another label",
}


@dataclass(frozen=True)
class Classes:
    """The classes' names by label."""

    names: Sequence[str]

    def name(self, label: int | None) -> str:
        """A label for people; a negative one is that of a sample of no class."""
        if label is None:
            return ""
        return self.names[label] if 0 <= label < len(self.names) else NONE_NAME


@dataclass(frozen=True)
class Rank:
    """A sample's score: its value, and the percentile of it among all rows, 0 the least clean; None if undefined."""

    name: str
    value: float | None
    percentile: float | None


@dataclass(frozen=True)
class Neighbor:
    """One of the nearest samples."""

    row: int
    key: str
    label: int


@dataclass(frozen=True)
class Sample:
    """A row as a page shows it; labels are numbers.

    Attributes:
        predicted: negative where it is none of the classes, as `verified` and `truth`.
        kind: of the issue, None where there is none.
        verified: what people say; None where nobody has looked.
        truth: of a benchmark; None where it is not known.
    """

    row: int
    key: str
    shard: str
    given: int
    predicted: int
    label_score: float
    predicted_score: float
    is_issue: bool
    kind: str | None
    verified: int | None
    truth: int | None
    few_neighbors: bool
    ranks: list[Rank]
    neighbors: list[Neighbor]


@dataclass(frozen=True)
class ClassLine:
    """A class in the list of classes.

    Attributes:
        noise_rate: estimated share of wrong labels; None without rows.
        true_noise_rate: None where no truth is known.
        predicted: the most common predicted label among its flagged rows, as a name.
        shown: its rows that have a picture in the report.
    """

    label: int
    name: str
    rows: int
    issues: int
    noise_rate: float | None
    true_noise_rate: float | None
    predicted: str | None
    shown: int

    @property
    def page(self) -> str:
        """The file of its page, below `classes/`."""
        return f"class-{self.label:05d}.html"


@dataclass(frozen=True)
class ScoreView:
    """A score with its plot and what is said of it.

    Attributes:
        auroc: of the sample, where the truth is known.
    """

    name: str
    meaning: str
    plot: Markup
    notes: list[str]
    auroc: float | None


@dataclass(frozen=True)
class Confusion:
    """Flagged rows of one given label with one predicted label, negative where it is none of the classes."""

    given: int
    predicted: int
    rows: int


@dataclass(frozen=True)
class CopyGroup:
    """Samples that show the same; `total` of them, of which some are listed."""

    samples: list[Sample]
    total: int


@dataclass(frozen=True)
class NearPair:
    """Two samples that are nearly the same; `closeness` is a share of the usual distance to the nearest sample."""

    first: Sample
    second: Sample
    closeness: float


@dataclass(frozen=True)
class Report:
    """All that the pages show.

    Attributes:
        title: the run's name.
        summary: that of the published table.
        warnings: what is to be known before a score is trusted, and what could not be shown.
        flags: what is flagged and what a flag is worth, one paragraph each.
        reliability_words: how far `label_score` is to be believed, one paragraph each.
        sampled: rows that the plots are made of.
        classes_left_out: classes that are not listed, since there are too many.
        heat_note: what the heat map of labels shows.
        num_groups: groups of copies with different labels, of which `copies` has the first.
        num_near: rows with a near sample of another label; None where distances are missing.
        has_pictures: whether samples have images at all.
        equal: what copies share: `pixels`, or `features` where these are all that was looked at.
        pictures: file names below `pictures/`, by row; a row that is missing could not be read.
        tiny: rows whose picture is so small that its pixels are shown.
    """

    title: str
    classes: Classes
    summary: Mapping[str, Any]
    version: str
    true_noise_rate: float | None
    warnings: list[str]
    flags: list[str]
    verified: int
    kinds: Mapping[str, int]
    class_lines: list[ClassLine]
    classes_left_out: int
    heat_map: Markup | None
    heat_note: str
    confusions: list[Confusion]
    scores: list[ScoreView]
    agreement: Markup | None
    reliability: Markup | None
    reliability_bins: list[Bin]
    reliability_words: list[str]
    sampled: int
    samples: list[Sample]
    copies: list[CopyGroup]
    num_groups: int
    near: list[NearPair]
    num_near: int | None
    has_pictures: bool = True
    equal: str = "pixels"
    pictures: dict[int, str] = field(default_factory=dict)
    tiny: set[int] = field(default_factory=set)

    @property
    def noise_interval(self) -> tuple[float, float] | None:
        """Of the estimated noise rate; None where the merge gives none."""
        return noise_interval(self.summary)

    @property
    def believed(self) -> str:
        """What the joint model believes, in words."""
        if sources := self.summary.get("belief_sources"):
            return f"{', '.join(sources)} on features, none of which has seen the sample’s own label"
        epoch, roles = self.summary["belief_epoch"], self.summary["belief_roles"]
        others = f" with {', '.join(roles)}" if roles else ""
        return f"the network of epoch {'the end' if epoch is None else epoch}{others}"

    @property
    def calibrated(self) -> str | None:
        """Whether `label_score` is calibrated, in words; None where the summary does not say."""
        return calibration_words(self.summary)


def make_samples(
    lines: Sequence[Mapping[str, Any]],
    columns: Mapping[str, Array],
    truth: Mapping[int, int],
    keys: Mapping[int, str],
) -> dict[int, Sample]:
    """Lines of the table as samples, by row.

    Args:
        lines: as plain values.
        columns: `score_<name>` of a sample of the rows, for the percentiles.
        truth: true labels by row, `UNKNOWN` where unknown.
        keys: of the neighbours, by row.
    """
    ranks: list[list[Rank]] = [[] for _ in lines]
    for column, values in columns.items():
        mine = [line[column] for line in lines]
        known = percentiles(values, _floats(mine))
        for place, (value, at) in enumerate(zip(mine, known.tolist(), strict=True)):
            ranks[place].append(Rank(column.removeprefix("score_"), value, None if math.isnan(at) else at))
    return {line["row"]: _sample(line, mine, truth, keys) for line, mine in zip(lines, ranks, strict=True)}


def _sample(line: Mapping[str, Any], ranks: list[Rank], truth: Mapping[int, int], keys: Mapping[int, str]) -> Sample:
    near = zip(line["neighbor_rows"] or [], line["neighbor_labels"] or [], strict=True)
    true = truth.get(line["row"], UNKNOWN)
    return Sample(
        row=line["row"],
        key=line["key"],
        shard=line["shard"],
        given=line["given_label"],
        predicted=line["predicted_label"],
        label_score=line["label_score"],
        predicted_score=line["predicted_score"],
        is_issue=line["is_label_issue"],
        kind=line["issue_kind"],
        verified=line["verified_label"],
        truth=None if true == UNKNOWN else true,
        few_neighbors=line["few_neighbors"],
        ranks=ranks,
        neighbors=[Neighbor(row, keys.get(row, f"row {row}"), label) for row, label in near],
    )


def _floats(values: Sequence[float | None]) -> Array:
    return np.array([math.nan if value is None else value for value in values], np.float64)

"""What a lesson leaves out or relabels, and where the truth is known, how much of that is right. For people alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from rayclean.evaluate.evaluate import truth_by_shard
from rayclean.run.run import Run
from rayclean.schema import UNKNOWN, Array
from rayclean.storage.contents import map_arrays


@dataclass(frozen=True)
class Rightness:
    """How much of a removal is right by the truth; a share of no rows is None.

    Attributes:
        precision: share of the removed rows whose given label is wrong.
        relabelled_right: share of the relabelled rows whose new label is right.
        kept_right: share of the rows that stay whose label, given or new, is right.
    """

    precision: float | None
    relabelled_right: float | None
    kept_right: float | None


@dataclass(frozen=True)
class Removal:
    """What a lesson leaves out or relabels.

    Attributes:
        removed: how many rows it leaves out.
        relabelled: how many it gives another label.
        rows: how many there are.
        rightness: None where the run has no truth.
    """

    removed: int
    relabelled: int
    rows: int
    rightness: Rightness | None

    def to_json(self) -> dict[str, float | None]:
        """As plain values, all side by side."""
        counts = {"removed": self.removed, "relabelled": self.relabelled, "rows": self.rows}
        return counts | ({} if self.rightness is None else asdict(self.rightness))


def find_removal(run: Run, lesson: str) -> Removal:
    """That of a lesson's file."""
    labels, given = map_arrays(run.store, lesson)["labels"], run.catalog.label
    removed, relabelled = labels < 0, (labels >= 0) & (labels != given)
    rightness = _rightness(run, labels, relabelled) if run.config.has_truth else None
    return Removal(int(removed.sum()), int(relabelled.sum()), len(labels), rightness)


def _rightness(run: Run, labels: Array, relabelled: Array) -> Rightness:
    caught = known = right = kept = kept_right = 0
    for rows, truth in truth_by_shard(run.catalog):
        is_known, removed = truth != UNKNOWN, labels[rows] < 0
        known += int((removed & is_known).sum())
        caught += int((removed & is_known & (truth != run.catalog.label[rows])).sum())
        right += int((relabelled[rows] & (truth == labels[rows])).sum())
        kept += int((~removed & is_known).sum())
        kept_right += int((~removed & is_known & (truth == labels[rows])).sum())
    return Rightness(_share(caught, known), _share(right, int(relabelled.sum())), _share(kept_right, kept))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None

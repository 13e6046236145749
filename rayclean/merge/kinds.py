"""What kind of issue a row has: by what the networks make of it without its label [our choice]."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from rayclean.schema import Array

# Of what is believed of a row without its label: what no class reaches where the row is of none, and what the second
# class has of the first where a row is of either.
UNSURE = 0.4
EITHER = 0.5


class Kind(IntEnum):
    """Kinds; of two that fit, the larger holds; `KIND_NAMES` has their names in the table."""

    NO_ISSUE = -1
    WRONG_LABEL = 0
    AMBIGUOUS = 1
    NO_CLASS = 2
    DUPLICATE = 3


KIND_NAMES = ("wrong_label", "ambiguous", "none_of_the_classes", "duplicate_with_another_label")


def issue_kinds(seen: Array, given: Array, is_issue: Array, conflicts: Array) -> Array:
    """One `Kind` per row, (N,) int32.

    A flagged row is of none of the classes where the networks are sure of none, ambiguous between two where the
    second is at least half as likely as the first and both together are likely; else its label is wrong. Equal pixels
    with another label are an issue whether the row is flagged or not: one of the labels is wrong.

    Args:
        seen: (N, K) probabilities of the classes without the row's label.
        given: (N,) labels.
        is_issue: (N,) bool.
        conflicts: (N,) bool, another row has equal pixels and another label.
    """
    top = np.partition(seen, -2, axis=1)[:, -2:] if seen.shape[1] > 1 else np.pad(seen, ((0, 0), (1, 0)))
    second, first = top[:, 0], top[:, 1]
    at_label = seen[np.arange(len(seen)), given]
    kinds = np.where(is_issue, Kind.WRONG_LABEL, Kind.NO_ISSUE)
    # The given label is one of the two, and an even split of what both have would pass UNSURE.
    either = (second >= EITHER * first) & (at_label >= second) & (first + second > 2 * UNSURE)
    kinds[is_issue & either] = Kind.AMBIGUOUS
    kinds[is_issue & (first < UNSURE)] = Kind.NO_CLASS
    kinds[conflicts] = Kind.DUPLICATE
    return kinds.astype(np.int32)


def conflicting_rows(duplicate_of: Array, labels: Array) -> Array:
    """Rows with equal pixels and different labels, ascending: all rows of each such group.

    Args:
        duplicate_of: (N,) the smallest row with equal pixels, `NO_ROW` where that is the row itself.
        labels: (N,) given labels.
    """
    copies = np.flatnonzero(duplicate_of >= 0)
    firsts = duplicate_of[copies]
    mixed = np.unique(firsts[labels[copies] != labels[firsts]])
    return np.unique(np.concatenate([mixed, copies[np.isin(firsts, mixed)]]))

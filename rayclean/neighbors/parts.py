"""How the index is cut: rows ordered by label, whole labels together where they are small, large labels in pieces."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from rayclean.schema import Array


@dataclass(frozen=True)
class Part:
    """Positions [start, stop) of the catalog's rows ordered by label.

    Attributes:
        spans: (label, start, stop) of each label in it, as positions in the whole order; labels ascend.
    """

    start: int
    stop: int
    spans: tuple[tuple[int, int, int], ...]


def plan_parts(class_counts: Array, max_rows: int) -> list[Part]:
    """Cuts the order by label into parts of at most `max_rows` rows.

    A label larger than that is cut into pieces of its own; smaller labels share a part as long as they fit whole.

    Args:
        class_counts: (K,) rows of each label.
        max_rows: rows of a part.
    """
    parts: list[Part] = []
    spans: list[tuple[int, int, int]] = []
    position = 0

    def close() -> None:
        if spans:
            parts.append(Part(spans[0][1], spans[-1][2], tuple(spans)))
            spans.clear()

    for label, count in enumerate(int(c) for c in class_counts):
        if count == 0:
            continue
        if spans and position + count - spans[0][1] > max_rows:
            close()
        if count <= max_rows:
            spans.append((label, position, position + count))
        else:
            num_pieces = -(-count // max_rows)
            edges = [position + round(i * count / num_pieces) for i in range(num_pieces + 1)]
            parts += [Part(a, b, ((label, a, b),)) for a, b in itertools.pairwise(edges)]
        position += count
    close()
    return parts


def group_labels(class_counts: Array, max_rows: int) -> list[tuple[int, ...]]:
    """Groups whole labels, in order, until a group holds `max_rows` rows; empty labels are left out."""
    groups: list[list[int]] = []
    rows = 0
    for label, count in enumerate(int(c) for c in class_counts):
        if count == 0:
            continue
        if not groups or rows + count > max_rows:
            groups.append([])
            rows = 0
        groups[-1].append(label)
        rows += count
    return [tuple(group) for group in groups]

"""Which rows say nothing of each other: copies, frames of a clip, and what is connected by both."""

from __future__ import annotations

import numpy as np
import scipy

from rayclean.schema import Array


def find_groups(digests: Array, names: Array | None) -> Array:
    """Numbers groups of rows that show the same, that are of one name, or that others connect.

    Args:
        digests: (N, 2) of what the rows show.
        names: (N,) of what belongs together, such as clips; None where rows stand alone.

    Returns:
        (N,) int64.
    """
    _, copies = np.unique(digests, axis=0, return_inverse=True)
    copies = copies.ravel().astype(np.int64)
    if names is None or not len(copies):
        return copies
    _, named = np.unique(np.asarray(names), return_inverse=True)
    num_copies = int(copies.max()) + 1
    size = num_copies + int(named.max()) + 1
    edges = scipy.sparse.coo_array((np.ones(len(copies)), (copies, num_copies + named)), shape=(size, size))
    _, found = scipy.sparse.csgraph.connected_components(edges, directed=False)
    return found[copies].astype(np.int64)


def smallest_draws(groups: Array, draws: Array) -> Array:
    """(N,) uint64 the smallest draw id of each row's group: the same for all of a group, in any order of the rows.

    Args:
        groups: (N,) of `find_groups`.
        draws: (N,) uint64 draw ids.
    """
    smallest = np.full(int(groups.max(initial=-1)) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, groups, draws)
    found: Array = smallest[groups]
    return found

"""IVF in pure functions: centroids that all parts of a snapshot share, the lists of one part, a search of some cells.

Lists hold the stored float16 values themselves (a scalar quantiser without residuals), so that a search of all
cells is exact in float32 and a part's file is hardly larger than its features. FAISS is imported where it is called:
what is in memory is searched flat without it.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from typing import Any

import numpy as np

from rayclean.errors import DamagedFile
from rayclean.schema import Array
from rayclean.storage.contents import read_bytes
from rayclean.storage.store import Store

CELLS_PER_ROOT = 4  # cells = 4 sqrt(N): choosing cells and scanning a few of them cost about the same
ROWS_PER_CELL = 16  # at least, on average
MAX_CELLS = 16384  # k-means costs N^1.5 up to here; past it cells grow instead
TRAINING_ROWS_PER_CELL = 40  # below 39 FAISS warns of poor centroids
ITERATIONS = 8


def count_cells(num_rows: int) -> int:
    """How many cells the rows of a snapshot are divided into; a function of their number alone."""
    return max(1, min(round(CELLS_PER_ROOT * math.sqrt(num_rows)), num_rows // ROWS_PER_CELL, MAX_CELLS))


def train_centroids(features: Array, num_cells: int, seed: int) -> Array:
    """The coarse quantiser: k-means.

    Args:
        features: (M, d) float, M >= num_cells; all are used, in their order.
        num_cells: C.
        seed: of the first centroids.

    Returns:
        (C, d) float32.
    """
    import faiss

    base = np.ascontiguousarray(features, np.float32)
    # FAISS takes a C int as seed; by its own limits it would warn of few rows, and draw a sub-sample of many.
    kmeans = faiss.Kmeans(
        base.shape[1],
        num_cells,
        niter=ITERATIONS,
        seed=seed % 2**31,
        min_points_per_centroid=1,
        max_points_per_centroid=len(base),
    )
    kmeans.train(base)
    return np.asarray(kmeans.centroids)


def nearest_cells(queries: Array, centroids: Array, num: int) -> tuple[Array, Array]:
    """The `num` nearest cells of each query, nearest first.

    Args:
        queries: (Q, d) float32.
        centroids: (C, d) float32, C >= num.
        num: how many.

    Returns:
        Indexes of centroids, (Q, num) int64, and squared distances, (Q, num) float32.
    """
    import faiss

    distances, cells = faiss.knn(queries, centroids, num)
    return cells, distances


def build_lists(features: Array, start: int, cells: Array, num_cells: int) -> bytes:
    """The IVF file of one part, as FAISS serialises it.

    The centroids are left out: they are the snapshot's, and would be most of a small part's file.

    Args:
        features: (n, d) float16 in the order of positions.
        start: position of the first row; ids are positions.
        cells: (n,) cell of each row.
        num_cells: C.
    """
    import faiss

    dim = features.shape[1]
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatL2(dim), dim, num_cells, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_L2, False
    )
    index.is_trained = True  # float16 has nothing to learn, and cells are given
    base = np.ascontiguousarray(features, np.float32)
    ids = np.arange(start, start + len(base))
    chosen = np.ascontiguousarray(cells, np.int64)
    index.add_core(len(base), faiss.swig_ptr(base), faiss.swig_ptr(ids), faiss.swig_ptr(chosen))
    return bytes(faiss.serialize_index(index))


def load_lists(store: Store, name: str) -> Any:
    """Opens the IVF file of a part, mapped: its pages are shared by all processes of a node.

    Raises:
        DamagedFile: the file is missing, or not what was written.
    """
    import faiss

    data = read_bytes(store, name)
    path = store.copy(name)
    if path is not None and os.path.exists(path):
        with suppress(RuntimeError):  # not whole, or a copy that went just now: read below
            return faiss.read_index(path, faiss.IO_FLAG_MMAP_IFC)
    try:
        return faiss.deserialize_index(np.frombuffer(data, np.uint8))
    except RuntimeError as e:  # what FAISS raises for whatever is wrong with a file
        raise DamagedFile(store.full(name), "it is no whole FAISS index") from e


def search_lists(
    lists: Any, queries: Array, k: int, cells: Array, cell_distances: Array, start: int, stop: int
) -> tuple[Array, Array]:
    """The k nearest positions of [start, stop) of one part in the given cells of each query.

    Args:
        lists: the part's.
        queries: (Q, d) float32.
        k: how many.
        cells: (Q, P) int64.
        cell_distances: (Q, P) float32, to the cells' centroids.
        start: the first position allowed.
        stop: one past the last.

    Returns:
        Squared distances, (Q, k) float32, and positions, (Q, k) int64, `NO_ROW` where there are fewer.
    """
    import faiss

    distances = np.empty((len(queries), k), np.float32)
    positions = np.empty((len(queries), k), np.int64)
    # Positions ascend in each list, so that another label's rows of a shared part are not even scanned.
    selector = faiss.IDSelectorRange(start, stop, True)
    wanted: Any = faiss.SearchParametersIVF()  # its stub knows no arguments
    wanted.nprobe, wanted.sel = cells.shape[1], selector
    # Named, since a pointer keeps no array alive.
    base = np.ascontiguousarray(queries, np.float32)
    chosen, coarse = np.ascontiguousarray(cells, np.int64), np.ascontiguousarray(cell_distances, np.float32)
    pointers = [faiss.swig_ptr(array) for array in (base, chosen, coarse, distances, positions)]
    # The C++ method, since FAISS's Python wrapper of it takes no parameters, so no selector.
    lists.search_preassigned_c(
        len(base), pointers[0], k, pointers[1], pointers[2], pointers[3], pointers[4], False, wanted
    )
    return distances, positions

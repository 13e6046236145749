"""The index: lists equal a plain search, however it is cut and whoever asks, with copies and with a pool."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rayclean.catalog.columns_stage import find_duplicates
from rayclean.catalog.table import COLUMNS_FILE, Catalog
from rayclean.embed.stage import embedding_arrays
from rayclean.embed.table import Embedding
from rayclean.neighbors.index import IndexSettings, NeighborIndex
from rayclean.neighbors.stage import AnyLabelJob, IndexJob, SameLabelJob
from rayclean.schema import NO_ROW, Array
from rayclean.storage.contents import encode, map_arrays
from rayclean.storage.draws import seeded_hash
from rayclean.storage.executor import run_inline
from rayclean.storage.store import Store
from rayclean.storage.units import block_name, num_blocks

CLASS_COUNTS = (70, 33, 5, 1, 0, 4)
BLOCK_ROWS = 40
NEVER = 2**62  # so many rows are not there: all searches are flat
COPIES_LABEL = 5  # its four rows are one picture


class Data:
    """Rows of a catalog with features, in some order; `ids` say which sample a row is."""

    def __init__(self, folder: Path, order: Array) -> None:
        rng = np.random.default_rng(0)
        label = np.repeat(np.arange(len(CLASS_COUNTS)), CLASS_COUNTS)
        self.ids = order
        features = rng.normal(size=(len(label), 6)).astype(np.float16)
        digest = np.stack([np.arange(len(label))] * 2, axis=1).astype(np.uint64)
        copies = [(1, 0), (2, 0), (80, 0), (81, 71), *((row, 109) for row in range(110, 113))]
        for copy, original in copies:  # 80 has another label than its original
            features[copy], digest[copy] = features[original], digest[original]
        draw = rng.integers(0, 2**63, len(label)).astype(np.uint64)
        self.features, self.label = features[order], label[order].astype(np.int32)
        self.digest, self.draw = digest[order], draw[order]
        self.store = Store(str(folder))
        self.catalog = self._catalog()
        self.embedding = Embedding(self.store, "embed-00", BLOCK_ROWS, len(CLASS_COUNTS))
        for block in range(num_blocks(len(order), BLOCK_ROWS)):
            here = slice(block * BLOCK_ROWS, (block + 1) * BLOCK_ROWS)
            logits = np.zeros((len(self.label[here]), len(CLASS_COUNTS)), np.float32)
            arrays = embedding_arrays(self.features[here], logits, self.label[here])
            name = f"embed-00/{block_name(block)}.safetensors"
            self.store.publish(name, encode(name, arrays, "{}"))

    def _catalog(self) -> Catalog:
        columns = {
            "label": self.label,
            "by_label": np.argsort(self.label, kind="stable"),
            "class_counts": np.array(CLASS_COUNTS, np.int64),
            "digest": self.digest,
            "duplicate_of": find_duplicates(self.digest),
            "draw_id": self.draw,
        }
        name = f"catalog-00/{COLUMNS_FILE}"
        self.store.publish(name, encode(name, columns, "{}"))
        return Catalog(self.store, "catalog-00", "00")

    def index(self, part_rows: int, pool: int | None = None, seed: int = 0) -> NeighborIndex:
        settings = IndexSettings(pool, seed, part_rows, NEVER, 0.95, True, "cpu")
        run_inline([IndexJob(self.store, f"neighbors-{part_rows}", self.catalog, self.embedding, settings)])
        return NeighborIndex(self.store, f"neighbors-{part_rows}", self.catalog, settings)

    def nearest(self, row: int, among: Array, num: int) -> list[int]:
        """The nearest rows by definition, -1 where there are fewer."""
        wide = self.features.astype(np.float64)
        others = [
            (float(((wide[j] - wide[row]) ** 2).sum()), int(self.draw[j]), int(j))
            for j in among
            if j != row and not ((self.digest[j] == self.digest[row]).all() and self.label[j] == self.label[row])
        ]
        found = [j for _, _, j in sorted(others)[:num]]
        return found + [NO_ROW] * (num - len(found))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return Data(tmp_path_factory.mktemp("index"), np.arange(sum(CLASS_COUNTS)))


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """The same samples in another order, as another sharding gives them."""
    return Data(tmp_path_factory.mktemp("shuffled"), np.random.default_rng(1).permutation(sum(CLASS_COUNTS)))


@pytest.mark.parametrize("part_rows", [1, 7, 34, 1000])
@pytest.mark.parametrize("num", [3, 10])
def test_lists_equal_a_plain_search_for_any_cut(part_rows: int, num: int, data: Data) -> None:
    index = data.index(part_rows)
    by_label = data.catalog.by_label
    found = index.any_label(np.arange(len(by_label)), num)
    for position, row in enumerate(by_label):
        assert found.rows[position].tolist() == data.nearest(int(row), np.arange(len(by_label)), num)
    for label, count in enumerate(CLASS_COUNTS):
        if count:
            start, stop = data.catalog.label_range(label)
            lists = index.same_label(label, np.arange(start, stop), num)
            for row, mine in zip(by_label[start:stop], lists.rows, strict=True):
                assert mine.tolist() == data.nearest(int(row), by_label[start:stop], num)


def test_distances_are_those_of_the_stored_features(data: Data) -> None:
    found = data.index(34).any_label(np.array([5]), 4)
    wide = data.features.astype(np.float64)
    expected = ((wide[found.rows[0]] - wide[data.catalog.by_label[5]]) ** 2).sum(axis=1)
    np.testing.assert_array_equal(found.distances[0], expected)
    assert (np.diff(expected) >= 0).all()


def test_copies_are_neighbours_only_under_another_label(data: Data) -> None:
    index = data.index(34)
    position = {int(row): place for place, row in enumerate(data.catalog.by_label)}
    for row, twins in ((0, (1, 2)), (80, ()), (109, (110, 111, 112))):
        label = int(data.label[row])
        same = index.same_label(label, np.array([position[row]]), 10).rows[0]
        assert not set(twins) & set(same)
    any_label = index.any_label(np.array([position[80]]), 3)
    assert sorted(any_label.rows[0].tolist()) == [0, 1, 2]
    assert any_label.distances[0].tolist() == [0, 0, 0]
    copies_only = index.same_label(COPIES_LABEL, np.arange(*data.catalog.label_range(COPIES_LABEL)), 3)
    assert (copies_only.rows == NO_ROW).all()


@pytest.mark.parametrize("pool", [1, 9, 50, 1000])
def test_a_pool_is_the_same_rows_in_any_order_of_the_samples(pool: int, data: Data, shuffled: Data) -> None:
    label, num = 0, 60
    listed = []
    for each in (data, shuffled):
        start, stop = each.catalog.label_range(label)
        rows = each.catalog.by_label[start:stop]
        hashes = seeded_hash(7, "neighbors.pool", each.draw[rows])
        chosen = rows[np.argsort(hashes)[:pool]]
        found = each.index(34, pool, seed=7).same_label(label, np.arange(start, stop), num).rows
        for row, mine in zip(rows, found, strict=True):
            assert mine.tolist() == each.nearest(int(row), chosen, num)
        listed.append({int(each.ids[row]) for row in found[found != NO_ROW]})
        assert len(set(chosen)) == min(pool, stop - start)
    assert listed[0] == listed[1]
    assert listed[0] <= set(np.flatnonzero(np.arange(len(data.label)) < CLASS_COUNTS[0]))


def test_another_seed_is_another_pool(data: Data) -> None:
    lists = [data.index(34, 9, seed).same_label(0, np.arange(70), 9).rows for seed in (0, 1)]
    assert set(lists[0].ravel()) != set(lists[1].ravel())


@pytest.mark.parametrize("block_rows", [17, 1000])
def test_jobs_write_these_lists(block_rows: int, data: Data) -> None:
    index = data.index(34)
    fixed = (data.catalog, index.settings, 4, block_rows)
    jobs = [SameLabelJob(data.store, index.files.folder, *fixed), AnyLabelJob(data.store, index.files.folder, *fixed)]
    for job in jobs:
        data.store.remove(f"{index.files.folder}/{job.units()[0].split('/')[0]}")
    run_inline(jobs)
    same, anyone = (
        np.concatenate([map_arrays(data.store, job.file(unit))["rows"] for unit in job.units()]) for job in jobs
    )
    by_label = data.catalog.by_label
    for position, row in enumerate(by_label):  # the one in the order of labels, the other in that of rows
        start, stop = data.catalog.label_range(int(data.label[row]))
        assert same[position].tolist() == data.nearest(int(row), by_label[start:stop], 4)
        assert anyone[row].tolist() == data.nearest(int(row), by_label, 4)


def test_recall_of_an_exact_search_is_one(data: Data) -> None:
    index = data.index(34)
    job = SameLabelJob(data.store, index.files.folder, data.catalog, index.settings, 4, 50)
    facts = [job.open()(unit).facts for unit in job.units()]
    wanted = sum(each["recall_wanted"] for each in facts)
    assert wanted > 0
    assert sum(each["recall_hits"] for each in facts) == wanted

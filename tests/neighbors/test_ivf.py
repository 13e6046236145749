"""IVF proposes, the choice stays exact: all cells give the flat lists, few cells reach the target, bytes repeat."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.catalog.table import COLUMNS_FILE, Catalog
from rayclean.config import Config
from rayclean.embed.table import Embedding
from rayclean.errors import UnitError
from rayclean.neighbors.files import Probes
from rayclean.neighbors.index import IndexSettings, NeighborIndex
from rayclean.neighbors.ivf import MAX_CELLS, count_cells, load_lists
from rayclean.neighbors.ivf_stage import ProbesJob, QuantizerJob
from rayclean.neighbors.recall import Recall, fewest_probes, measure, true_radii
from rayclean.neighbors.stage import AnyLabelJob, IndexJob, SameLabelJob, neighbors_folder
from rayclean.run.run import Run
from rayclean.schema import Array
from rayclean.storage.contents import encode, map_arrays, read_json
from rayclean.storage.draws import seeded_hash
from rayclean.storage.executor import run_inline
from rayclean.storage.store import Store
from rayclean.storage.units import ENVIRONMENT_FILE, Job, compute_and_publish

# A label larger than a part, one that shares a part with small ones, small ones, one empty, one of one row.
CLASS_COUNTS = (1300, 420, 60, 0, 12, 1, 207)
PART_ROWS, IVF_ROWS, NUM, BLOCK_ROWS, DIM = 500, 300, 10, 400, 16
FLAT = IndexSettings(None, 3, PART_ROWS, 2**62, 0.95, True, "cpu")
IVF = dataclasses.replace(FLAT, ivf_rows=IVF_ROWS)


class Data:
    """Clustered rows of a catalog; every eleventh row is the copy of the one before it, labels may differ."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        label = rng.permutation(np.repeat(np.arange(len(CLASS_COUNTS)), CLASS_COUNTS)).astype(np.int32)
        num_rows = len(label)
        means = rng.normal(size=(len(CLASS_COUNTS), 6, DIM))
        true = np.where(rng.random(num_rows) < 0.2, rng.integers(0, len(CLASS_COUNTS), num_rows), label)
        features = (means[true, rng.integers(0, 6, num_rows)] + 0.3 * rng.normal(size=(num_rows, DIM))).astype("f2")
        rows = np.arange(num_rows)
        original = np.where(rows % 11 == 10, rows - 1, rows)
        self.store = Store(str(folder))
        columns = {
            "label": label,
            "by_label": np.argsort(label, kind="stable"),
            "class_counts": np.array(CLASS_COUNTS),
            "digest": np.stack([original, original], axis=1).astype(np.uint64),
            "draw_id": seeded_hash(0, "test", rows.astype(np.uint64)),
        }
        self.store.publish(f"catalog/{COLUMNS_FILE}", encode(COLUMNS_FILE, columns, "{}"))
        self.store.publish("embed/000000.safetensors", encode(".safetensors", {"features": features[original]}, "{}"))
        self.catalog = Catalog(self.store, "catalog", "00")
        self.embedding = Embedding(self.store, "embed", num_rows, len(CLASS_COUNTS))

    def steps(self, folder: str, settings: IndexSettings) -> list[list[Job]]:
        """The steps of the stage, each the jobs that may run in any order."""
        index, lists = (self.catalog, self.embedding, settings), (self.catalog, settings, NUM)
        return [
            [QuantizerJob(self.store, folder, *index)],
            [IndexJob(self.store, folder, *index)],
            [ProbesJob(self.store, folder, *lists)],
            [job(self.store, folder, *lists, BLOCK_ROWS) for job in (SameLabelJob, AnyLabelJob)],
        ]

    def made(self, folder: str, settings: IndexSettings) -> NeighborIndex:
        """An index without lists."""
        for jobs in self.steps(folder, settings)[:-1]:
            run_inline(jobs)
        return NeighborIndex(self.store, folder, self.catalog, settings)

    def bytes(self, folder: str) -> dict[str, bytes]:
        """All files of a folder."""
        root = Path(self.store.full(folder))
        found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        return {name: data for name, data in found.items() if name != ENVIRONMENT_FILE}

    def all_lists(self, index: NeighborIndex) -> list[tuple[Array, Array]]:
        """Every list of both kinds."""
        found = [index.any_label(np.arange(self.catalog.num_rows), NUM)]
        for label in np.flatnonzero(CLASS_COUNTS):
            found.append(index.same_label(int(label), np.arange(*self.catalog.label_range(int(label))), NUM))
        return [(lists.rows, lists.distances) for lists in found]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return Data(tmp_path_factory.mktemp("ivf"))


@pytest.fixture(scope="module")
def flat(data: Data) -> NeighborIndex:
    return data.made("flat", FLAT)


@pytest.fixture(scope="module")
def ivf(data: Data) -> NeighborIndex:
    index = data.made("ivf", IVF)
    run_inline(data.steps("ivf", IVF)[-1])
    return index


@pytest.mark.parametrize("ivf_rows", [1, IVF_ROWS])
def test_all_cells_give_the_flat_lists(ivf_rows: int, data: Data, flat: NeighborIndex) -> None:
    index = data.made(f"all-{ivf_rows}", dataclasses.replace(IVF, ivf_rows=ivf_rows))
    index.probes = Probes(len(index.centroids), len(index.centroids))
    for exact, found in zip(data.all_lists(flat), data.all_lists(index), strict=True):
        np.testing.assert_array_equal(exact[0], found[0])
        np.testing.assert_array_equal(exact[1], found[1])


def test_one_cell_gives_full_lists_though_not_the_nearest(data: Data, flat: NeighborIndex) -> None:
    index = data.made("one", dataclasses.replace(IVF, ivf_rows=1))
    index.probes = Probes(1, 1)
    differs = False
    for exact, found in zip(data.all_lists(flat), data.all_lists(index), strict=True):
        np.testing.assert_array_equal(exact[0] < 0, found[0] < 0)  # cells of few rows do not end a search
        differs |= not np.array_equal(exact[0], found[0])
    assert differs  # else these data do not tell IVF from flat


@pytest.mark.parametrize("target", [0.7, 0.95])
def test_the_probes_reach_the_target_on_rows_they_were_not_set_on(target: float, data: Data) -> None:
    index = data.made(f"target-{target}", dataclasses.replace(IVF, recall_target=target))
    every = np.arange(data.catalog.num_rows)
    assert measure(index, every, index.any_label(every, NUM), None).share >= target - 0.03
    for label in IVF.ivf_labels(data.catalog.class_counts):
        positions = np.arange(*data.catalog.label_range(label))
        assert measure(index, positions, index.same_label(label, positions, NUM), label).share >= target - 0.05
    assert 1 <= index.probes.any < len(index.centroids)
    found = read_json(data.store, f"target-{target}/probes.json")
    assert min(found[kind]["recall"] for kind in ("same", "any")) >= target


def test_measured_recall_tells_wrong_lists(data: Data, flat: NeighborIndex) -> None:
    every = np.arange(0, data.catalog.num_rows, 7)
    lists = flat.any_label(every, NUM)
    assert measure(flat, every, lists, None).share == 1
    far = lists._replace(distances=lists.distances * np.where(np.arange(NUM) < NUM // 2, 1.0, 100.0))
    assert 0.4 < measure(flat, every, far, None).share < 0.6
    radii = true_radii(flat, every, NUM, None)
    np.testing.assert_allclose(radii, lists.distances, rtol=1e-9, atol=1e-9)


def test_a_restart_and_any_order_of_units_give_the_same_bytes(data: Data, ivf: NeighborIndex) -> None:
    for jobs in data.steps("again", IVF):
        work = [(job, unit) for job in jobs for unit in job.units()]
        for at in np.random.default_rng(4).permutation(len(work)):
            job, unit = work[at]
            compute_and_publish(job, job.open(), unit, "{}")  # a worker each: nothing is shared between units
    first = data.bytes("ivf")
    assert data.bytes("again") == first
    assert {"quantizer.safetensors", "probes.json", "parts/000000.faiss", "parts/000004.safetensors"} < set(first)
    for name in ("same/000001.safetensors", "any/000002.safetensors"):
        data.store.remove(f"again/{name}")
    for jobs in data.steps("again", IVF):
        run_inline(jobs)
    assert data.bytes("again") == first


def test_lists_are_those_of_the_index(data: Data, ivf: NeighborIndex) -> None:
    job = AnyLabelJob(data.store, "ivf", data.catalog, IVF, NUM, BLOCK_ROWS)
    rows = np.concatenate([map_arrays(data.store, job.file(unit))["rows"] for unit in job.units()])
    positions = ivf.positions_of(np.arange(data.catalog.num_rows))
    np.testing.assert_array_equal(data.catalog.by_label[positions], np.arange(data.catalog.num_rows))
    agree = (rows == ivf.any_label(positions, NUM).rows).all(axis=1)
    assert agree.mean() > 0.99  # FAISS picks cells by sums whose last bits depend on the batch


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True),
        ({"ivf_rows": 2001}, False),
        ({"ivf_rows": 1301}, True),
        ({"ivf_rows": 1301, "any_label": False}, False),
        ({"any_label": False}, True),
        ({"any_label": False, "pool": 5}, False),
    ],
)
def test_ivf_is_made_only_where_a_search_uses_it(changed: dict[str, Any], expected: bool, data: Data) -> None:
    settings = dataclasses.replace(IVF, **changed)
    (quantizer,), (index,), (probes,), _ = data.steps("planned", settings)
    assert bool(quantizer.units()) == bool(probes.units()) == expected
    assert len(index.units()) == 5
    other = dataclasses.replace(settings, recall_target=0.5)
    folders = [neighbors_folder(data.catalog, data.embedding, s, NUM, BLOCK_ROWS) for s in (settings, other)]
    assert (folders[0] != folders[1]) == expected


def test_a_whole_run_through_ivf_gives_the_table_of_a_flat_one(
    scored: Run, tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    overrides = ("neighbors.ivf_rows=1", "neighbors.recall_target=1", "run.keep=all")
    run = finish(tiny_config(tmp_path / "run", *overrides))
    folder = run.lists_folder(run.walks[-1].space, run.walks[-1].num)
    assert run.store.exists(f"{folder}/probes.json")
    assert folder != scored.lists_folder(scored.walks[-1].space, scored.walks[-1].num)
    assert run.store.read(run.merge()[1].file("part-00000")) == scored.store.read(scored.merge()[1].file("part-00000"))


def test_a_broken_file_is_named(data: Data, ivf: NeighborIndex) -> None:
    data.store.publish("broken.faiss", data.store.read("ivf/parts/000001.faiss")[:1000])
    with pytest.raises(UnitError, match=r"broken\.faiss"):
        load_lists(data.store, "broken.faiss")


@given(st.integers(1, 10**10))
def test_cells_are_within_bounds_and_grow(num_rows: int) -> None:
    cells = count_cells(num_rows)
    assert 1 <= cells <= min(num_rows, MAX_CELLS)
    assert cells <= count_cells(num_rows + 1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0, 1))
def test_probes_are_the_fewest_tried(shares: Sequence[float], target: float) -> None:
    def recall_at(probes: int) -> Recall:
        return Recall(round(1000 * shares[probes - 1]), 1000)

    probes, recall = fewest_probes(recall_at, len(shares), target)
    tried = [2**i for i in range(probes.bit_length()) if 2**i < probes]
    assert recall == recall_at(probes)
    assert recall.share >= target or probes == len(shares)
    assert all(recall_at(fewer).share < target for fewer in tried)

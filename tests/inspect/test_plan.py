"""What `rayclean plan` says of the neighbour search is what a run's files then are."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rayclean.catalog.stage import find_sources
from rayclean.catalog.table import COLUMNS_FILE, Catalog
from rayclean.config import Config
from rayclean.embed.table import Embedding
from rayclean.inspect import plan
from rayclean.inspect.graph import draw_graph
from rayclean.inspect.plan import Plan, count_labels, estimate, plan_search
from rayclean.neighbors.files import HELD_BYTES
from rayclean.neighbors.index import IndexSettings
from rayclean.neighbors.ivf import count_cells
from rayclean.neighbors.ivf_stage import QuantizerJob
from rayclean.neighbors.parts import plan_parts
from rayclean.neighbors.stage import IndexJob
from rayclean.report.run_text import print_graph
from rayclean.report.text import print_plan
from rayclean.run.grow import stages as all_stages
from rayclean.run.run import Run
from rayclean.schema import Array
from rayclean.storage.contents import encode
from rayclean.storage.draws import seeded_hash
from rayclean.storage.executor import run_inline
from rayclean.storage.store import Store

# A label larger than a part, one that shares a part with small ones, an empty one.
COUNTS = np.array([1300, 420, 60, 0, 12, 1, 207])
PART_ROWS, DIM = 500, 16
FLAT = IndexSettings(None, 3, PART_ROWS, 2**62, 0.95, True, "cpu")
IVF = dataclasses.replace(FLAT, ivf_rows=300)
HEADER_BYTES = 250  # of a file, at most


def made(folder: Path, settings: IndexSettings) -> tuple[Store, list[str]]:
    """An index with these counts of labels; the store and the names of its files."""
    rng, rows = np.random.default_rng(0), int(COUNTS.sum())
    label = np.repeat(np.arange(len(COUNTS)), COUNTS).astype(np.int32)
    ids = np.arange(rows, dtype=np.uint64)
    columns = {"label": label, "by_label": np.arange(rows), "class_counts": COUNTS, "draw_id": seeded_hash(0, "t", ids)}
    store = Store(str(folder))
    store.publish(f"catalog/{COLUMNS_FILE}", encode(COLUMNS_FILE, columns, "{}"))
    features = {"features": rng.normal(size=(rows, DIM)).astype(np.float16)}
    store.publish("embed/000000.safetensors", encode(".safetensors", features, "{}"))
    job = (store, "index", Catalog(store, "catalog", "00"), Embedding(store, "embed", rows, len(COUNTS)), settings)
    run_inline([QuantizerJob(*job)])
    run_inline([IndexJob(*job)])
    return store, [f"index/{name}" for name in store.list("index") if name != "parts"] + [
        f"index/parts/{name}" for name in store.list("index/parts")
    ]


@pytest.mark.parametrize("settings", [FLAT, IVF], ids=["flat", "ivf"])
def test_the_files_have_the_sizes_that_were_planned(settings: IndexSettings, tmp_path: Path, one_thread: None) -> None:
    found = plan_search(COUNTS, DIM, settings, counted=True)
    store, names = made(tmp_path, settings)
    sizes = {name: len(store.read(name)) for name in names}
    assert found.index_bytes == pytest.approx(sum(sizes.values()), abs=len(sizes) * HEADER_BYTES)
    by_part = [sum(size for name, size in sizes.items() if f"/{part:06d}." in name) for part in range(5)]
    assert found.part_bytes == pytest.approx(max(by_part), abs=2 * HEADER_BYTES)
    assert found.label_bytes == pytest.approx(sum(by_part[:3]), abs=6 * HEADER_BYTES)  # label 0 fills three parts
    assert found.cells == (count_cells(2000) if settings is IVF else 0)


def test_what_goes_through_ivf() -> None:
    found = plan_search(COUNTS, DIM, IVF, counted=False)
    assert (found.labels, found.ivf_labels, found.ivf_any_label, found.counted) == (6, 2, True, False)
    assert found.held_bytes == 4 * DIM * (60 + 12 + 1 + 207)
    same = plan_search(COUNTS, DIM, dataclasses.replace(IVF, any_label=False, ivf_rows=1301), counted=False)
    assert (same.ivf_labels, same.ivf_any_label, same.cells) == (0, False, 0)
    any_only = plan_search(COUNTS, DIM, dataclasses.replace(IVF, ivf_rows=2000), counted=False)
    assert (any_only.ivf_labels, any_only.ivf_any_label, any_only.cells) == (0, True, count_cells(2000))
    pool = plan_search(COUNTS, DIM, dataclasses.replace(IVF, pool=50), counted=False)
    assert (pool.ivf_labels, pool.ivf_any_label) == (0, True)
    assert pool.held_bytes == 4 * DIM * 50


@given(
    st.lists(st.integers(0, 5000), min_size=1, max_size=8).filter(any),
    st.integers(1, 3000),
    st.sampled_from([300, 2**62]),
)
def test_no_part_is_larger_than_the_index(counts: list[int], part_rows: int, ivf_rows: int) -> None:
    settings = dataclasses.replace(FLAT, part_rows=part_rows, ivf_rows=ivf_rows)
    found = plan_search(np.array(counts), DIM, settings, counted=True)
    assert 0 < found.part_bytes <= found.label_bytes <= found.index_bytes
    assert 2 * DIM * sum(counts) <= found.index_bytes
    parts = plan_parts(np.array(counts), part_rows)
    assert found.part_bytes >= 2 * DIM * max(part.stop - part.start for part in parts)
    assert 0 <= found.held_bytes <= HELD_BYTES


def test_flat_search_holds_no_more_than_its_bound() -> None:
    many = np.full(1000, 100_000)
    found = plan_search(many, 512, dataclasses.replace(FLAT, part_rows=100_000, any_label=False), counted=False)
    assert found.held_bytes == HELD_BYTES
    assert found.label_bytes == found.part_bytes == 2 * 512 * 100_000
    assert found.index_bytes == 2 * 512 * 10**8


def test_labels_are_counted_where_there_is_a_catalog(
    scored: Run, tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    sources, classes = find_sources(scored.config.data), scored.classes

    def counts(config: Config) -> tuple[Array, bool]:
        return count_labels(config, classes, sources, 50)

    found, counted = counts(scored.config)
    assert counted
    np.testing.assert_array_equal(found, scored.catalog.class_counts)
    found, counted = counts(tiny_config(tmp_path))
    assert not counted
    assert found.tolist() == [9, 9, 8, 8, 8, 8]
    assert not counts(
        scored.config.model_copy(update={"data": scored.config.data.model_copy(update={"label": "txt"})})
    )[1]


@pytest.fixture
def quick_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "PROBE_S", 0.0)


def printed(found: Plan) -> str:
    console = Console(file=io.StringIO(), width=1000)
    print_plan(console, found)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.usefixtures("quick_probe", "one_thread")
def test_the_plan_says_how_it_knows_and_what_is_searched(
    scored: Run, tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    known = estimate(scored.config)
    assert known.search.counted
    assert known.search.labels == (scored.catalog.class_counts > 0).sum()
    assert "search: all lists flat (labels as the catalog counts them)" in printed(known)
    through = estimate(tiny_config(tmp_path, "neighbors.ivf_rows=8"))
    text = printed(through)
    assert f"IVF with {through.search.cells} cells, others flat (no catalog yet: labels taken as equally large)" in text
    assert "lists of the same label for 6 of 6 labels and lists of any label through IVF" in text
    assert f"neighbour index of the last snapshot: {through.search.index_bytes / 1e6:.1f} MB" in text
    assert through.disk_bytes > estimate(tiny_config(tmp_path)).disk_bytes


def test_the_graph_of_a_config_shows_what_each_job_reads(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    config = tiny_config(tmp_path / "run")
    lines, unnamed = draw_graph(config)
    assert [(line.stage, line.num_units, line.num_missing) for line in lines] == [("catalog", 4, 4), ("catalog", 1, 1)]
    assert lines[1].reads == (0,)
    assert [each.stage for each in unnamed] == list(all_stages()[1:])
    assert os.listdir(config.run.dir) == ["given.yaml"], "nothing is written"
    run = finish(config)
    lines, unnamed = draw_graph(config)
    assert unnamed == []
    assert {line.num_missing for line in lines if line.is_wanted} == {0}
    stages = [line.stage for line in lines]
    assert {stages[index] for line in lines if line.kind == "PathsJob" for index in line.reads} == {"pairs", "embed"}
    assert all(max(line.reads, default=-1) < number for number, line in enumerate(lines))
    run.store.remove(run.merge()[1].file("part-00000"))
    missing = [line for line in draw_graph(config)[0] if line.num_missing]
    assert [(line.kind, line.num_missing) for line in missing] == [("ApplyJob", 1)]
    console = Console(width=200)
    with console.capture() as captured:
        print_graph(console, *draw_graph(config))
    assert "1 missing" in captured.get()

"""The catalog's units: every sample accounted for, rows numbered in the order of the shards, columns that agree."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.catalog.columns_stage import ColumnsJob, find_duplicates
from rayclean.catalog.labels import ClassList
from rayclean.catalog.stage import CatalogJob, catalog_mark, find_sources, open_catalog, scan_settings
from rayclean.catalog.table import SOURCES_FILE, Catalog
from rayclean.config import DataSection
from rayclean.errors import InputError, ShardChangedError
from rayclean.run.run import Run
from rayclean.schema import NO_ROW
from rayclean.storage.contents import encode, read_table
from rayclean.storage.executor import run_inline
from rayclean.storage.store import Store
from rayclean.storage.units import ENVIRONMENT_FILE, Job
from tests.helpers import Content, png_bytes, random_pixels, sample, tar_bytes, write_tar

Jobs = tuple[CatalogJob, ColumnsJob]


def data_of(folder: Path, **fields: Any) -> DataSection:
    return DataSection(**{"shards": f"{folder}/*.tar", "classes": 3, **fields})


def jobs_of(run_dir: Path, data: DataSection) -> Jobs:
    store, classes = Store(str(run_dir)), ClassList.load(data.classes)
    sources = find_sources(data)
    mark = catalog_mark(data, classes, sources)
    folder = f"catalog-{mark}"
    store.create(f"{folder}/{SOURCES_FILE}", encode(SOURCES_FILE, sources, "{}"))
    scan = CatalogJob(store, folder, scan_settings(data, classes), sources.num_rows)
    return scan, ColumnsJob(store, folder, classes.names)


def make(run_dir: Path, data: DataSection, jobs: Callable[[Sequence[Job]], None] = run_inline) -> Catalog:
    found = jobs_of(run_dir, data)
    jobs(found)
    return open_catalog(found[0].store, found[0].folder.removeprefix("catalog-"))


def keys_of(catalog: Catalog) -> list[str]:
    return [key for shard in range(catalog.shards.num_rows) for key in catalog.rows_of_shard(shard)["key"].to_pylist()]


def test_rows_quarantine_and_samples_add_up(scored: Run, tiny_samples: list[list[Content]]) -> None:
    catalog = scored.catalog
    summary, shards = catalog.summary, catalog.shards.to_pydict()
    assert summary["samples"] == len(tiny_samples) == sum(shards["samples"])
    assert summary["quarantined"] == {"missing_label": 1}
    assert summary["rows"] == catalog.num_rows == len(tiny_samples) - 1
    assert [r + q for r, q in zip(shards["rows"], shards["quarantined"], strict=True)] == shards["samples"]
    assert shards["first_row"] == [sum(shards["rows"][:i]) for i in range(4)]
    assert shards["samples"][:3] == [13, 1, 21]


def test_columns_are_those_of_the_samples(scored: Run, tiny_samples: list[list[Content]]) -> None:
    catalog = scored.catalog
    good = [{name.partition(".")[2]: data for name, data in members} for members in tiny_samples]
    keys = [
        members[0][0].partition(".")[0] for members, content in zip(tiny_samples, good, strict=True) if "cls" in content
    ]
    good = [content for content in good if "cls" in content]
    assert keys_of(catalog) == keys
    assert catalog.label.tolist() == [int(content["cls"]) for content in good]
    assert catalog.label.dtype == np.int32
    assert catalog.class_counts.tolist() == np.bincount(catalog.label, minlength=6).tolist()
    rows = catalog.by_label
    assert sorted(rows) == list(range(len(keys)))
    assert rows.tolist() == sorted(range(len(keys)), key=lambda row: (catalog.label[row], row))
    for label in range(6):
        start, stop = catalog.label_range(label)
        assert set(catalog.label[rows[start:stop]]) == {label}
    images = [content["png"] for content in good]
    for row, image in enumerate(images):
        first = images.index(image)
        assert catalog.duplicate_of[row] == (NO_ROW if first == row else first)
        same = [other == image for other in images]
        assert (catalog.digest == catalog.digest[row]).all(axis=1).tolist() == same
    assert catalog.summary["duplicates"] == len(images) - len(set(images)) == 5


def test_images_are_read_by_row(scored: Run, tiny_samples: list[list[Content]]) -> None:
    import io

    from PIL import Image

    rows = np.array([40, 3, 3, 0])
    by_key = {members[0][0].partition(".")[0]: dict(members) for members in tiny_samples}
    for cache_bytes in (0, 1000, 10**6):
        found = scored.catalog.pixels(8, 1e6, cache_bytes).read(rows)
        for row, image in zip(rows, found, strict=True):
            key = keys_of(scored.catalog)[row]
            expected = np.array(Image.open(io.BytesIO(by_key[key][f"{key}.png"])))
            np.testing.assert_array_equal(image, expected)


def test_any_order_of_shards_gives_the_same_bytes(tmp_path: Path) -> None:
    for shard in range(4):
        write_tar(tmp_path / f"{shard}.tar", [m for i in range(3) for m in sample(f"k{shard}{i}", i, 3 * shard + i)])
    data = data_of(tmp_path)

    def backwards(jobs: Sequence[Job]) -> None:
        for job in jobs:
            compute = job.open()
            for unit in reversed(job.units()):
                result = compute(unit)
                for name, content in result.beside.items():
                    job.store.publish(f"{job.folder}/{name}", encode(name, content, "{}"))
                job.store.publish(job.file(unit), encode(job.file(unit), result.content, "{}"))

    one, other = make(tmp_path / "one", data), make(tmp_path / "other", data, backwards)
    assert one.folder == other.folder
    for path in Path(one.store.path).rglob("*"):
        if path.is_file() and path.name != ENVIRONMENT_FILE:
            relative = path.relative_to(one.store.path)
            assert (Path(other.store.path) / relative).read_bytes() == path.read_bytes()


def test_a_sample_draws_the_same_wherever_it_lies(tmp_path: Path) -> None:
    each = [sample(f"k{i}", i % 3, i) for i in range(7)]
    for name, order in (("a", [0, 1, 2, 3, 4, 5, 6]), ("b", [6, 2, 0, 5, 1, 4, 3])):
        (tmp_path / name).mkdir()
        for shard, part in enumerate((order[:3], order[3:])):
            write_tar(tmp_path / name / f"{shard}.tar", [m for i in part for m in each[i]])
    found = [make(tmp_path / f"run-{name}", data_of(tmp_path / name)) for name in "ab"]
    draws = [dict(zip(keys_of(catalog), catalog.draw_id.tolist(), strict=True)) for catalog in found]
    assert draws[0] == draws[1]
    assert len(set(draws[0].values())) == 7
    assert keys_of(found[0]) != keys_of(found[1])


def test_what_is_awkward_is_counted(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [])
    write_tar(tmp_path / "1.tar", [*sample("a", 0, 7), ("b.png", png_bytes()), *sample("c", 9)])
    (tmp_path / "2.tar").write_bytes(tar_bytes([*sample("d", 1), *sample("e", 1, 1)])[: -1024 - 600])
    write_tar(tmp_path / "3.tar", sample("f", 2, 2))
    catalog = make(tmp_path / "run", data_of(tmp_path))
    assert catalog.summary == {
        "content": catalog.fingerprint,
        "rows": 3,
        "samples": 6,
        "quarantined": {"missing_label": 1, "bad_label": 1, "truncated": 1},
        "left_out": {},
        "strays": {},
        "shards": 4,
        "truncated_shards": 1,
        "empty_shards": 1,
        "duplicates": 0,
    }
    assert keys_of(catalog) == ["a", "d", "f"]
    assert [bool(text) for text in catalog.shards["truncated"].to_pylist()] == [False, False, True, False]
    assert catalog.shards["first_row"].to_pylist() == [0, 0, 1, 2]
    assert catalog.shards_of(0, 3) == [(1, 0, 1), (2, 0, 1), (3, 0, 1)]


def test_truth_lies_apart(tmp_path: Path) -> None:
    members = [*sample("a", 1), ("a.json", json.dumps({"y": 2}).encode()), *sample("b", 1, 1)]
    write_tar(tmp_path / "0.tar", members)
    catalog = make(tmp_path / "run", data_of(tmp_path, truth="json:y"))
    truth = catalog.truth_of_shard(0)
    assert truth is not None
    assert truth.to_pydict() == {"index_in_shard": [0, 1], "label": [2, None]}
    assert not {"truth", "label"} <= set(catalog.rows_of_shard(0).column_names)
    assert make(tmp_path / "other", data_of(tmp_path)).truth_of_shard(0) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: os.utime(folder / "1.tar", ns=(1, 1)),
        lambda folder: write_tar(folder / "1.tar", sample("b", 1, 5)),
        lambda folder: write_tar(folder / "2.tar", sample("c", 1, 6)),
        lambda folder: (folder / "1.tar").unlink(),
    ],
    ids=["touched", "rewritten", "one-more", "one-less"],
)
def test_other_shards_are_another_catalog(change: Callable[[Path], object], tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", sample("a", 0))
    write_tar(tmp_path / "1.tar", sample("b", 1, 1) + sample("bb", 1, 2))
    data = data_of(tmp_path)

    def mark() -> str:
        return catalog_mark(data, ClassList.load(3), find_sources(data))

    before = mark()
    assert mark() == before
    change(tmp_path)
    assert mark() != before


def test_reading_otherwise_is_another_catalog(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", sample("a", 0))
    changes: list[dict[str, Any]] = [
        {},
        {"image": "png"},
        {"label": "json:y"},
        {"truth": "json:y"},
        {"classes": 4},
        {"max_pixels": 1e5},
    ]
    marks = []
    for fields in changes:
        data = data_of(tmp_path, **fields)
        marks.append(catalog_mark(data, ClassList.load(data.classes), find_sources(data)))
    assert len(set(marks)) == len(changes)
    data = data_of(tmp_path, cache_bytes=0, size=8)  # what only training reads
    assert catalog_mark(data, ClassList.load(3), find_sources(data)) == marks[0]


def test_the_place_of_the_shards_does_not_count(tmp_path: Path) -> None:
    marks = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        write_tar(tmp_path / name / "0.tar", sample("a", 0))
        os.utime(tmp_path / name / "0.tar", ns=(5, 5))
        data = data_of(tmp_path / name)
        marks.append(catalog_mark(data, ClassList.load(3), find_sources(data)))
    assert marks[0] == marks[1]


def test_a_shard_that_changes_while_it_is_read(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", sample("a", 0))
    scan, _ = jobs_of(tmp_path / "run", data_of(tmp_path))
    write_tar(tmp_path / "0.tar", sample("a", 0) + sample("b", 1))
    with pytest.raises(ShardChangedError, match=r"0\.tar changed while it was read: expected \d+ bytes.*found \d+"):
        run_inline([scan])
    assert scan.missing() == list(scan.units())


def test_shards_that_cannot_be_found(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file matches"):
        find_sources(data_of(tmp_path))


def test_sources_are_sorted_and_named_below_their_common_folder(tmp_path: Path) -> None:
    for name in ("b/0.tar", "a/1.tar", "a/0.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_tar(tmp_path / name, sample("a", 0))
    sources = find_sources(data_of(tmp_path, shards=[f"{tmp_path}/{{b,a}}/*.tar", f"{tmp_path}/a/0.tar"])).to_pydict()
    assert sources["name"] == ["a/0.tar", "a/1.tar", "b/0.tar"]
    assert sources["size"] == [(tmp_path / name).stat().st_size for name in sources["name"]]


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=30))
def test_a_duplicate_points_to_the_first_of_its_kind(kinds: list[int]) -> None:
    digest = np.array([[kind // 2, kind % 2] for kind in kinds], np.uint64).reshape(-1, 2)
    expected = [NO_ROW if kinds.index(kind) == i else kinds.index(kind) for i, kind in enumerate(kinds)]
    assert find_duplicates(digest).tolist() == expected


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.data())
def test_a_range_of_rows_lies_in_these_shards(rows: list[int], data: st.DataObject) -> None:
    total = sum(rows)
    start = data.draw(st.integers(0, total))
    stop = data.draw(st.integers(start, total))
    catalog = Catalog(Store("unused"), "catalog-00", "00")
    first = [sum(rows[:i]) for i in range(len(rows))]
    catalog.__dict__["shards"] = pa.table({"rows": rows, "first_row": pa.array(first, pa.int64())})
    found = [first[shard] + i for shard, begin, end in catalog.shards_of(start, stop) for i in range(begin, end)]
    assert found == list(range(start, stop))
    assert all(begin < end for _, begin, end in catalog.shards_of(start, stop))


def test_pixels_are_random_here() -> None:
    """The helpers' images differ, else nothing above would tell rows apart."""
    assert len({random_pixels(seed).tobytes() for seed in range(20)}) == 20


def test_a_catalog_of_nothing_has_no_rows(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [])
    catalog = make(tmp_path / "run", data_of(tmp_path))
    assert (catalog.num_rows, catalog.num_classes, catalog.summary["empty_shards"]) == (0, 3, 1)
    assert read_table(catalog.store, f"{catalog.folder}/quarantine/000000.parquet").num_rows == 0

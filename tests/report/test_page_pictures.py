"""Pictures of rows are the samples' own, whole and small; those of another shard are refused, or left out and told."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rayclean.catalog.columns_stage import ColumnsJob
from rayclean.catalog.labels import ClassList
from rayclean.catalog.pictures import pictures, thumbnails
from rayclean.catalog.stage import CatalogJob, catalog_mark, find_sources, open_catalog, scan_settings
from rayclean.catalog.table import SOURCES_FILE, Catalog
from rayclean.config import DataSection
from rayclean.errors import ConfigError, InputError, ShardChangedError
from rayclean.report.page_files import MARK, TINY, open_folder, write_pages, write_pictures
from rayclean.run.run import Run
from rayclean.storage.contents import encode
from rayclean.storage.executor import run_inline
from rayclean.storage.store import Store
from tests.helpers import image_bytes, random_pixels, write_tar

SIZES = ((8, 8), (40, 300), (300, 40), (200, 100), (1, 500), (TINY, 3))  # height, width


def write_shard(path: Path, seed: int) -> None:
    """Pictures of all SIZES."""
    members = [
        (f"{i}.{extension}", content)
        for i, size in enumerate(SIZES)
        for extension, content in (("cls", b"0"), ("png", image_bytes(random_pixels(seed + i, *size))))
    ]
    write_tar(path, members)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Two shards of pictures of many sizes."""
    for shard in range(2):
        write_shard(tmp_path / f"{shard}.tar", 10 * shard)
    data, classes = DataSection(shards=f"{tmp_path}/*.tar", classes=2), ClassList(("a", "b"))
    sources = find_sources(data)
    mark, store = catalog_mark(data, classes, sources), Store(str(tmp_path / "run"))
    store.create(f"catalog-{mark}/{SOURCES_FILE}", encode(SOURCES_FILE, sources, "{}"))
    scan = CatalogJob(store, f"catalog-{mark}", scan_settings(data, classes), sources.num_rows)
    run_inline([scan, ColumnsJob(store, f"catalog-{mark}", ("a", "b"))])
    return open_catalog(store, mark)


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_every_row_once_in_order_of_place(scored: Run) -> None:
    catalog = scored.catalog
    rows = np.concatenate([np.arange(catalog.num_rows)[::-1], [3, 3]])
    found = list(thumbnails(catalog, rows, 1e6))
    assert [row for row, _ in found] == list(range(catalog.num_rows))
    expected = catalog.pixels(8, 1e6).read(np.arange(catalog.num_rows))
    for (_, png), pixels in zip(found, expected, strict=True):
        assert opened(png).format == "PNG"
        np.testing.assert_array_equal(np.asarray(opened(png)), pixels)  # 8 x 8 is small: it stays as it is
    assert list(thumbnails(catalog, np.empty(0, np.int64), 1e6)) == []


def test_a_picture_is_whole_fits_the_square_and_is_never_enlarged(catalog: Catalog) -> None:
    given = dict(pictures(catalog, np.arange(len(SIZES)), 1e6, side=96))
    found = {row: picture for row, picture in given.items() if isinstance(picture, Image.Image)}
    sizes = [found[row].size[::-1] for row in range(len(SIZES))]
    assert sizes == [(8, 8), (13, 96), (96, 13), (96, 48), (1, 96), (TINY, 3)]
    whole = Image.fromarray(random_pixels(3, 200, 100)).resize((48, 96), Image.Resampling.BICUBIC)
    near = np.abs(np.asarray(found[3]).astype(int) - np.asarray(whole).astype(int))
    assert near.max() <= 1


def test_another_shard_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    write_shard(tmp_path / "1.tar", 50)
    assert len(list(thumbnails(catalog, np.arange(6), 1e6))) == 6
    with pytest.raises(ShardChangedError, match=r"1\.tar"):
        list(thumbnails(catalog, np.arange(12), 1e6))
    (tmp_path / "1.tar").unlink()
    with pytest.raises(ShardChangedError, match="no such file"):
        list(thumbnails(catalog, np.arange(12), 1e6))


def test_small_pictures_are_kept_exactly_and_others_as_jpeg(catalog: Catalog, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    found = write_pictures(store, catalog, np.arange(12), 1e6)
    assert found.names == {row: f"{row}.{'png' if row % 6 in (0, 5) else 'jpg'}" for row in range(12)}
    assert found.tiny == {0, 5, 6, 11}
    assert not found.failed
    assert sorted(store.list("pictures")) == sorted(found.names.values())
    np.testing.assert_array_equal(np.asarray(opened(store.read("pictures/6.png"))), random_pixels(10, 8, 8))
    assert opened(store.read("pictures/3.jpg")).format == "JPEG"


def test_what_cannot_be_read_is_left_out_and_told(catalog: Catalog, tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", 50)
    found = write_pictures(Store(str(tmp_path / "out")), catalog, np.arange(12), 1e6)
    assert set(found.names) == set(range(6, 12))
    assert found.failed == set(range(6))
    assert "0.tar" in found.reason
    (tmp_path / "1.tar").unlink()
    assert write_pictures(Store(str(tmp_path / "none")), catalog, np.arange(12), 1e6).failed == set(range(12))


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        open_folder(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        open_folder(str(tmp_path / "notes.txt"))


@pytest.mark.parametrize("root", ["local", "memory"])
def test_an_earlier_report_goes_and_what_was_put_beside_it_stays(root: str, tmp_path: Path) -> None:
    place = str(tmp_path / "out") if root == "local" else f"memory://{tmp_path.name}-out"
    store = open_folder(place)
    assert write_pages(store, [("classes/a.html", b"old"), ("index.html", b"old")]) == f"{store.root}/index.html"
    store.publish("mine.txt", b"mine")
    store = open_folder(place)
    assert store.list("") == ["mine.txt", MARK]
    store.remove("")

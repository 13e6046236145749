"""A copy is not new data: what is done again where shards are touched, moved, packed anew or get a truth."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rayclean.catalog.content import ContentDigest
from rayclean.catalog.stage import open_catalog
from rayclean.catalog.table import CONTENT, SUMMARY_FILE
from rayclean.config import parse_config
from rayclean.run.pipeline import run
from rayclean.run.run import Run
from rayclean.shards.write import write_shards
from rayclean.storage.contents import read_json, write
from tests.run.test_on_features import HEADS, made, npy
from tools.faults.driver import labels as table_bytes

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = ["cat", "dog", "fox"]
Change = Callable[[Path, dict[str, Any]], None]


class Base(NamedTuple):
    """A folder with three shards, a run of them that is done, and the files of its table."""

    folder: Path
    run: Run
    table: dict[str, bytes]


@pytest.fixture
def base(tmp_path: Path) -> Base:
    """As new."""
    features, labels, truth = made()
    samples = [
        (f"{row:05d}", {"npy": npy(values), "cls": CLASSES[label].encode(), "true": CLASSES[right].encode()})
        for row, (values, label, right) in enumerate(zip(features, labels, truth, strict=True))
    ]
    write_shards(str(tmp_path / "shards"), "made", samples, 50)
    this = go(tmp_path, data_of(tmp_path))
    return Base(tmp_path, this, table_bytes(tmp_path / "run"))


def data_of(folder: Path) -> dict[str, Any]:
    return {"shards": f"{folder}/shards/*.tar", "classes": CLASSES, "features": "npy", "image": "none"}


def go(folder: Path, data: dict[str, Any]) -> Run:
    tree = {
        "run": {"dir": str(folder / "run"), "executor": "inline", "keep": "all"},
        "data": data,
        "train": HEADS,
        "blocks": {"rows": 40, "index_rows": 60, "table_rows": 80},
    }
    return run(parse_config(tree, "test"), None, Console(quiet=True))[0]


def units_of(this: Run) -> Counter[str]:
    """Units that were computed over all starts, by stage."""
    found = Counter[str]()
    for name in this.store.list("record"):
        for entry in read_json(this.store, f"record/{name}"):
            found[entry["step"]] += entry.get("units", 0)
    return found


def touch(folder: Path, data: dict[str, Any]) -> None:
    for shard in (folder / "shards").glob("*.tar"):
        os.utime(shard, (1_700_000_000, 1_700_000_000))


def move(folder: Path, data: dict[str, Any]) -> None:
    shutil.copytree(folder / "shards", folder / "other" / "place")
    shutil.rmtree(folder / "shards")
    data["shards"] = f"{folder}/other/place/*.tar"


def pack_anew(folder: Path, data: dict[str, Any]) -> None:
    """Members of a sample in another order, with headers of another format and what a Mac leaves."""
    for shard in (folder / "shards").glob("*.tar"):
        with tarfile.open(shard) as source:
            members = [(member, source.extractfile(member).read()) for member in source]  # type: ignore[union-attr]
        members.sort(key=lambda each: (each[0].name.partition(".")[0], -len(each[1])))
        with tarfile.open(shard, "w", format=tarfile.PAX_FORMAT) as target:
            for member, content in members:
                add(target, f"._{member.name}", b"of a Mac")
                add(target, member.name, content)


def add(target: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.pax_headers = len(content), {"comment": "packed anew"}
    target.addfile(info, io.BytesIO(content))


def name_truth(folder: Path, data: dict[str, Any]) -> None:
    data["truth"] = "true"


@pytest.mark.parametrize("change", [touch, move, pack_anew, name_truth])
def test_rows_that_stay_cost_a_scan_alone(base: Base, change: Change) -> None:
    data, before = data_of(base.folder), units_of(base.run)
    change(base.folder, data)
    this = go(base.folder, data)
    assert set(units_of(this) - before) == {"catalog"}
    assert table_bytes(base.folder / "run") == base.table


def test_shards_that_were_moved_are_read_where_they_are(base: Base) -> None:
    data = data_of(base.folder)
    move(base.folder, data)
    this = go(base.folder, data)
    assert {str(base.folder / "other/place")} == {
        Path(url).parent.as_posix() for url in this.catalog.shards["url"].to_pylist()
    }
    assert this.catalog.rows_of_shard(0)["key"][0].as_py() == "00000"


def swap_labels(folder: Path, data: dict[str, Any]) -> None:
    """Of the first two samples of a shard that differ."""
    shard = min((folder / "shards").glob("*.tar"))
    with tarfile.open(shard) as source:
        members = {member.name: source.extractfile(member).read() for member in source}  # type: ignore[union-attr]
    names = [name for name in members if name.endswith(".cls")]
    other = next(name for name in names if members[name] != members[names[0]])
    members[names[0]], members[other] = members[other], members[names[0]]
    with tarfile.open(shard, "w") as target:
        for name, content in members.items():
            add(target, name, content)


def rename_a_class(folder: Path, data: dict[str, Any]) -> None:
    """So that its samples are of no class."""
    data["classes"] = ["cat", "dog", "wolf"]


def lose_a_sample(folder: Path, data: dict[str, Any]) -> None:
    """The label of the last one cannot be read."""
    shard = max((folder / "shards").glob("*.tar"))
    with tarfile.open(shard) as source:
        members = {member.name: source.extractfile(member).read() for member in source}  # type: ignore[union-attr]
    members[max(name for name in members if name.endswith(".cls"))] = b"cow"
    with tarfile.open(shard, "w") as target:
        for name, content in members.items():
            add(target, name, content)


@pytest.mark.parametrize("change", [swap_labels, rename_a_class, lose_a_sample])
def test_other_rows_are_other_work(base: Base, change: Change) -> None:
    data, before = data_of(base.folder), units_of(base.run)
    change(base.folder, data)
    this = go(base.folder, data)
    assert {"catalog", "train", "merge"} <= set(units_of(this) - before)
    assert table_bytes(base.folder / "run") != base.table


def test_a_catalog_of_before_keeps_the_names_of_what_was_computed_of_it(base: Base) -> None:
    source = base.run.source
    file = f"{source.folder}/{SUMMARY_FILE}"
    summary = read_json(source.store, file)
    assert open_catalog(source.store, source.mark).fingerprint == summary.pop(CONTENT) != source.mark
    source.store.remove(file)
    write(source.store, file, summary)
    assert open_catalog(source.store, source.mark).fingerprint == source.mark


@given(st.lists(st.tuples(st.text(max_size=3), st.integers(0, 2)), max_size=6), st.data())
def test_the_digest_tells_rows_apart(rows: list[tuple[str, int]], data: st.DataObject) -> None:
    """Equal for equal rows alone, wherever a shard or a key ends."""
    others = data.draw(st.one_of(st.just(rows), st.permutations(rows), st.lists(st.sampled_from(rows or [("", 0)]))))
    cuts = [data.draw(st.integers(0, len(each))) for each in (rows, others)]
    alike = rows == others and cuts[0] == cuts[1]
    assert (content_of(rows, cuts[0]) == content_of(others, cuts[1])) == alike


def content_of(rows: list[tuple[str, int]], cut: int) -> str:
    digest = ContentDigest(CLASSES, None)
    for name, part in (("a", rows[:cut]), ("b", rows[cut:])):
        keys, labels = [key for key, _ in part], [label for _, label in part]
        columns = {
            "index_in_shard": pa.array(range(len(part)), pa.int32()),
            "key": pa.array(keys, pa.string()),
            "label": pa.array(labels, pa.int32()),
            "digest": pa.array([b"0" * 16] * len(part), pa.binary(16)),
        }
        digest.add(name, pa.table(columns))
    return digest.finish({})

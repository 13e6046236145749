"""Data sets of Hugging Face to shards: the very bytes of the rows, whether Parquet, saved to disk or of the hub."""

from __future__ import annotations

import json
import os
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayclean.catalog.labels import ClassList, LabelField
from rayclean.catalog.scan import ScanSettings, scan_shard
from rayclean.convert.samples import IMAGE_EXTENSIONS
from rayclean.errors import ConfigError, InputError
from tests.convert import helpers
from tests.helpers import image_bytes, random_pixels

NUM_ROWS = 30
NAMES = ["healthy", "rust", "spot"]
KINDS = ("PNG", "JPEG", "WEBP")
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def image(i: int) -> bytes:
    return image_bytes(random_pixels(i), KINDS[i % 3])


def rows(first: int, last: int, **columns: Callable[[int], object]) -> pa.Table:
    """Rows as `datasets` lays them out, sorted by label; the given columns instead of or beside its own."""
    made: dict[str, Callable[[int], object]] = {
        "image": lambda i: {"bytes": image(i), "path": f"{i}.{KINDS[i % 3].lower()}"},
        "label": lambda i: i // 10,
        **columns,
    }
    features = {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}
    data = {name: [value(i) for i in range(first, last)] for name, value in made.items()}
    kinds = {"image": pa.array(data["image"], None if "image" in columns else IMAGE)}
    table = pa.table({**data, **kinds})
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def save_parquet(folder: Path, split: str, **columns: Callable[[int], object]) -> None:
    """Two files, in groups of 4 rows."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for i, (first, last) in enumerate(((0, 17), (17, NUM_ROWS))):
        file = folder / f"data/{split}-{i:05d}-of-00002.parquet"
        pq.write_table(rows(first, last, **columns), file, row_group_size=4)


def save_stream(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=4)


def save_to_disk(folder: Path, **columns: Callable[[int], object]) -> None:
    """As `Dataset.save_to_disk` does."""
    names = [f"data-{i:05d}-of-00002.arrow" for i in range(2)]
    save_stream(folder / names[0], rows(0, 17, **columns))
    save_stream(folder / names[1], rows(17, NUM_ROWS, **columns))
    state = {"_data_files": [{"filename": name} for name in names], "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state))


def read(out: Path, split: str = "train") -> dict[str, tuple[dict[str, Any], str, bytes]]:
    """Facts, extension and image by key."""
    found: dict[str, tuple[dict[str, Any], str, bytes]] = {}
    for shard in sorted(out.glob(f"{split}-*.tar")):
        with tarfile.open(shard) as tar:
            contents = {info.name: (tar.extractfile(info) or pytest.fail(info.name)).read() for info in tar}
        for name in (name for name in contents if not name.endswith(".json")):
            key, _, extension = name.partition(".")
            assert key not in found
            found[key] = json.loads(contents[f"{key}.json"]), extension, contents[name]
    return found


def convert(root: Path | str, out: Path, *more: str) -> None:
    helpers.convert("huggingface", root, out, "--shard-size", "7", *more)


def check(found: dict[str, tuple[dict[str, Any], str, bytes]], names: Sequence[str]) -> None:
    assert sorted(found) == [f"{i:08d}" for i in range(NUM_ROWS)]
    for i in range(NUM_ROWS):
        facts, extension, content = found[f"{i:08d}"]
        assert content == image(i)
        kind = KINDS[i % 3].lower()
        assert extension == {"jpeg": "jpeg"}.get(kind, kind)
        row = i if i < 17 else i - 17
        assert facts == {"label": i // 10, "file": names[i >= 17], "row": row, "path": f"{i}.{kind}"}


def test_parquet_files_of_a_split_keep_bytes_labels_and_class_names(tmp_path: Path) -> None:
    save_parquet(tmp_path / "beans", "train")
    save_parquet(tmp_path / "beans", "test")
    convert(tmp_path / "beans", tmp_path / "out")
    check(read(tmp_path / "out"), [f"data/train-{i:05d}-of-00002.parquet" for i in range(2)])
    assert (tmp_path / "out/classes.txt").read_text().splitlines() == NAMES
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "classes.txt",
        *[f"train-{i:06d}.tar" for i in range(5)],
        "train.json",
    ]


def test_a_folder_of_save_to_disk_gives_the_same_samples(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "saved")
    convert(tmp_path / "saved", tmp_path / "out")
    check(read(tmp_path / "out"), [f"data-{i:05d}-of-00002.arrow" for i in range(2)])
    save_to_disk(tmp_path / "splits/validation")
    (tmp_path / "splits/dataset_dict.json").write_text('{"splits": ["validation"]}')
    convert(tmp_path / "splits", tmp_path / "out", "--split", "validation")
    assert len(read(tmp_path / "out", "validation")) == NUM_ROWS
    with pytest.raises(InputError, match="found no split train, but validation"):
        convert(tmp_path / "splits", tmp_path / "again")


def test_a_catalog_of_the_shards_has_all_rows_and_labels(tmp_path: Path) -> None:
    save_parquet(tmp_path / "beans", "train", truth=lambda i: (i + 1) % 3)
    out = tmp_path / "out"
    convert(tmp_path / "beans", out, "--also", "truth")
    label, truth = LabelField.parse("json:label"), LabelField.parse("json:truth")
    settings = ScanSettings(IMAGE_EXTENSIONS, label, truth, ClassList.load(str(out / "classes.txt")), 1e6)
    found: dict[int, tuple[int, int]] = {}
    mixed = 0
    for shard in sorted(out.glob("*.tar")):
        scan = scan_shard(str(shard), settings)
        assert scan.quarantine.num_rows == 0
        assert scan.truth is not None
        pairs = zip(scan.rows.to_pylist(), scan.truth.to_pylist(), strict=True)
        found |= {int(row["key"]): (row["label"], true["label"]) for row, true in pairs}
        mixed += len(set(scan.rows["label"].to_pylist())) > 1
    assert found == {i: (i // 10, (i + 1) % 3) for i in range(NUM_ROWS)}
    assert mixed >= 4  # of 5; the rows are sorted by label


def test_shards_are_the_same_for_any_number_of_workers_and_when_resumed(tmp_path: Path) -> None:
    save_parquet(tmp_path / "beans", "train")
    for workers in ("1", "3"):
        convert(tmp_path / "beans", tmp_path / workers, "--workers", workers)
    one, three = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("1", "3"))
    assert one == three
    for name in ("train-000001.tar", "train-000004.tar"):
        (tmp_path / "3" / name).unlink()
    (tmp_path / "3/.scratch-train").mkdir()  # of a killed conversion, which was unpacking
    for file in (tmp_path / "beans/data").iterdir():
        (tmp_path / "3/.scratch-train" / f"{file.name}.arrow.part").write_bytes(b"half")
    convert(tmp_path / "beans", tmp_path / "3")
    assert {path.name: path.read_bytes() for path in (tmp_path / "3").iterdir()} == one


def test_what_is_all_there_is_not_unpacked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_parquet(tmp_path / "beans", "train")
    convert(tmp_path / "beans", tmp_path / "out")
    monkeypatch.setattr("rayclean.convert.arrow_tables.ParquetTable.images", lambda self: pytest.fail("unpacked"))
    convert(tmp_path / "beans", tmp_path / "out")


def test_a_scratch_folder_keeps_what_others_have_in_it(tmp_path: Path) -> None:
    save_parquet(tmp_path / "beans", "train")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "mine").write_text("x")
    convert(tmp_path / "beans", tmp_path / "out", "--scratch", str(scratch))
    assert os.listdir(scratch) == ["mine"]
    assert len(read(tmp_path / "out")) == NUM_ROWS


def test_plain_numbers_in_a_file_that_names_no_classes_are_labels_too(tmp_path: Path) -> None:
    (tmp_path / "numbers").mkdir()
    table = rows(0, 9, label=lambda i: i % 4, image=image)
    pq.write_table(
        table.rename_columns(["picture", "kind"]).replace_schema_metadata(None), tmp_path / "numbers/a.parquet"
    )
    convert(tmp_path / "numbers/a.parquet", tmp_path / "out", "--image", "picture", "--label", "kind")
    assert (tmp_path / "out/classes.txt").read_text().splitlines() == ["0", "1", "2", "3"]
    assert [facts["label"] for _, (facts, *_) in sorted(read(tmp_path / "out").items())] == [i % 4 for i in range(9)]
    assert "path" not in read(tmp_path / "out")["00000000"][0]
    convert(tmp_path / "numbers", tmp_path / "same", "--files", "*.parquet", "--image", "picture", "--label", "kind")
    assert (tmp_path / "same/train-000001.tar").read_bytes() == (tmp_path / "out/train-000001.tar").read_bytes()


def test_class_names_of_texts_are_sorted_and_rows_without_label_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["rust", "healthy", "ash"]
    for i, (first, last) in enumerate(((0, 17), (17, NUM_ROWS))):
        table = rows(first, last, label=lambda i: None if i == 4 else words[i % 3]).replace_schema_metadata(None)
        (tmp_path / "texts/train").mkdir(parents=True, exist_ok=True)
        pq.write_table(table, tmp_path / f"texts/train/{i:04d}.parquet")
    convert(tmp_path / "texts", tmp_path / "out")
    assert (tmp_path / "out/classes.txt").read_text().splitlines() == ["ash", "healthy", "rust"]
    labels = [facts["label"] for _, (facts, *_) in sorted(read(tmp_path / "out").items())]
    assert labels == [None if i == 4 else 2 - i % 3 for i in range(NUM_ROWS)]
    assert "1 labels are none of the classes" in capsys.readouterr().out


def test_images_that_rows_only_name_are_read_from_their_folder_alone(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    (folder / "img").mkdir(parents=True)
    for i in range(NUM_ROWS):
        (folder / f"img/{i}.png").write_bytes(image(i))
    (tmp_path / "secret.png").write_bytes(image(0))

    def named(i: int) -> object:
        paths = {
            5: str(tmp_path / "secret.png"),
            6: "../secret.png",
            7: "img/none.png",
            8: None,
            9: str(folder / "img/9.png"),
        }
        return {"bytes": image(i) if i > 20 else None, "path": paths.get(i, f"img/{i}.png")}

    for save in (save_to_disk, lambda where, **columns: save_parquet(where, "train", **columns)):
        save(folder, image=named)
        with pytest.raises(
            InputError, match=r"train: found 26 of 30 images, not .*row 5 .*/secret\.png.*--max-missing 4"
        ):
            convert(folder, tmp_path / "out")
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        convert(folder, out, "--max-missing", "4")
        found = read(out)
        assert sorted(map(int, found)) == [i for i in range(NUM_ROWS) if i not in (5, 6, 7, 8)]
        assert all(found[f"{i:08d}"][2] == image(i) for i in map(int, found))
        assert found["00000009"][0]["path"] == "img/9.png"
        missing = (out / "train-missing.txt").read_text()
        assert [line.split(" (")[0].partition(" ")[2] for line in missing.splitlines()] == [
            f"row {i}" for i in (5, 6, 7, 8)
        ]
        for state in folder.glob("*.arrow"):
            state.unlink()
        (folder / "state.json").unlink(missing_ok=True)


def test_a_name_on_the_hub_needs_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"owner/beans: found no such .*pip install 'rayclean\[huggingface\]'"):
        convert("owner/beans", tmp_path / "out")


def test_a_name_on_the_hub_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a library with what is used of `datasets`: the files in which it caches whole splits."""
    names = [f"beans-train-{i}.arrow" for i in range(2)]
    save_stream(tmp_path / "cache" / names[0], rows(0, 17))
    save_stream(tmp_path / "cache" / names[1], rows(17, NUM_ROWS))

    class Dataset(SimpleNamespace):
        def __len__(self) -> int:
            return int(self.rows)

    def load_dataset(name: str, subset: str | None, *, split: str) -> Dataset:
        if name != "owner/beans":
            raise FileNotFoundError(f"no {name} on the hub")
        assert (subset, split) == ("small", "train")
        files = [{"filename": str(tmp_path / "cache" / file)} for file in names]
        return Dataset(cache_files=files, rows=counted)

    library = ModuleType("datasets")
    library.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", library)
    counted = NUM_ROWS
    convert("owner/beans", tmp_path / "out", "--subset", "small")
    check(read(tmp_path / "out"), names)
    with pytest.raises(ConfigError, match="expected the name of a whole split"):
        convert("owner/beans", tmp_path / "out", "--split", "train[:10]")
    with pytest.raises(InputError, match="no owner/none on the hub"):
        convert("owner/none", tmp_path / "out")
    counted = 10
    with pytest.raises(InputError, match="found 30 rows in files of its cache, expected 10"):
        convert("owner/beans", tmp_path / "other", "--subset", "small")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--split", "val"], r"found no file of split val among 2 Parquet files \(data/train-00000-of-00002.parquet"),
        (["--label", "fine"], "found columns image, label, thumb, size, not fine"),
        (["--also", "none"], "not none"),
        (["--image", "label"], "found int64 in column label, expected images"),
        (["--label", "size"], "found float in column size, expected whole numbers or texts"),
        (["--also", "image"], "column image has dict, expected numbers or texts"),
    ],
)
def test_columns_and_splits_that_are_not_there_are_named(tmp_path: Path, more: list[str], said: str) -> None:
    save_parquet(tmp_path / "beans", "train", thumb=lambda i: b"", size=lambda i: i / 2)
    with pytest.raises(InputError, match=said):
        convert(tmp_path / "beans", tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_told_is_refused(tmp_path: Path) -> None:
    beans = tmp_path / "beans"
    save_parquet(beans, "train", second=lambda i: {"bytes": b"x", "path": "y"})
    with pytest.raises(InputError, match=r"found 2 columns of images in .*--image"):
        convert(beans, tmp_path / "out")
    with pytest.raises(ConfigError, match="--also row: a field of this name is written already"):
        convert(beans, tmp_path / "out", "--image", "image", "--also", "row")
    save_parquet(beans, "train", label=lambda i: -1)
    with pytest.raises(InputError, match="found no label in column label, expected classes; choose another --split"):
        convert(beans, tmp_path / "out")
    (beans / "data/train-00001-of-00002.parquet").write_bytes(b"PAR1 half of it")
    with pytest.raises(InputError, match=r"train-00001-of-00002\.parquet: cannot be read"):
        convert(beans, tmp_path / "out")

"""Folders of images to shards: the files' bytes, shuffled the same by any number of workers, resumed after a kill."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rayclean.catalog.labels import ClassList, LabelField
from rayclean.catalog.scan import ScanSettings, scan_shard
from rayclean.convert.files import FileItem, make_keys
from rayclean.convert.plan import SHARD_BYTES, SHARD_SAMPLES, cut
from rayclean.convert.samples import IMAGE_EXTENSIONS, Found, Options, Split
from rayclean.convert.write import write
from rayclean.errors import ConfigError, InputError, RaycleanError
from rayclean.shards.tar import split_name
from rayclean.shards.write import Sample, write_shard
from rayclean.storage.store import TEMPORARY, Store
from tests.convert.helpers import convert
from tests.helpers import image_bytes, png_bytes, random_pixels

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-c", "from rayclean.cli import main; main()", "convert", "imagefolder")
NUM_IMAGES = 30  # of three classes of unequal size

imagefolder = partial(convert, "imagefolder")


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """An ImageFolder with what is awkward: nested folders, equal stems, odd names, other files."""
    files = {f"owl/{i}.png": png_bytes(i) for i in range(14)}
    files |= {f"robin/deep/er/{i}.PNG": png_bytes(100 + i) for i in range(9)}
    files |= {f"__jay__/{i}.v2.jpg": image_bytes(random_pixels(200 + i), "JPEG") for i in range(5)}
    files |= {
        "owl/ö 100%.jpeg": image_bytes(random_pixels(300), "JPEG"),
        "owl/w.webp": image_bytes(random_pixels(301), "WEBP"),
    }
    assert len(files) == NUM_IMAGES
    others = {"owl/notes.txt": b"x", "owl/LICENSE": b"x", "owl/._0.png": b"x", ".cache/0.png": b"x", "top.png": b"x"}
    for name, content in {**files, **others}.items():
        path = tmp_path / "birds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "birds"


@pytest.fixture(params=["local", "memory"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path / "shards")
        return
    root = f"memory://convert-{uuid.uuid4().hex}"
    yield root
    Store(root).remove("")


def members(store: Store) -> dict[str, dict[str, bytes]]:
    """Content by extension of every key in all shards, none of which may be there twice."""
    found: dict[str, dict[str, bytes]] = {}
    for shard in (name for name in store.list("") if name.endswith(".tar")):
        with tarfile.open(fileobj=io.BytesIO(store.read(shard))) as tar:
            for info in tar:
                key, extension = split_name(info.name) or ("", "")
                file = tar.extractfile(info)
                assert file is not None
                assert extension not in found.setdefault(key, {})
                found[key][extension] = file.read()
    return found


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def write_all(items: Sequence[FileItem], out: str, options: Options) -> None:
    """Writes a split of one class."""
    list(write(Found([Split("train", items, len(items))], ["owl"]), out, options, Console(stderr=True)))


def test_shards_hold_the_files_bytes_labels_and_paths(birds: Path, out: str) -> None:
    imagefolder(birds, out, "--shard-size", "7")
    store = Store(out)
    assert store.read("classes.txt").decode().splitlines() == ["__jay__", "owl", "robin"]
    assert [name for name in store.list("") if name.endswith(".tar")] == [f"train-{i:06d}.tar" for i in range(5)]
    found = members(store)
    assert len(found) == NUM_IMAGES
    for content in found.values():
        facts = json.loads(content.pop("json"))
        ((extension, image),) = content.items()
        path = birds / facts["path"]
        assert image == path.read_bytes()
        assert extension == path.suffix[1:].lower()
        assert facts["label"] == ["__jay__", "owl", "robin"].index(facts["path"].split("/")[0])


def test_a_catalog_of_the_shards_has_all_rows_and_labels(birds: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    imagefolder(birds, out, "--shard-size", "7")
    classes = ClassList.load(str(out / "classes.txt"))
    settings = ScanSettings(IMAGE_EXTENSIONS, LabelField.parse("json:label"), None, classes, 1e6)
    scans = [scan_shard(str(path), settings) for path in sorted(out.glob("train-*.tar"))]
    assert sum(scan.quarantine.num_rows for scan in scans) == 0
    labels = Counter(label for scan in scans for label in scan.rows["label"].to_pylist())
    assert {classes.names[label]: count for label, count in labels.items()} == {"__jay__": 5, "owl": 16, "robin": 9}
    # Sorted by class, as they lie on disk, a shard would have one class or two.
    assert sum(len(set(scan.rows["label"].to_pylist())) == 3 for scan in scans) >= 3


def test_other_files_are_counted(birds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imagefolder(birds, tmp_path / "shards")
    said = capsys.readouterr().out
    assert "30 samples in 1 shards" in said
    assert "left out, as no images: 1 txt, 1 without extension" in said


def test_shards_are_the_same_for_any_number_of_workers_and_differ_by_seed(birds: Path, tmp_path: Path) -> None:
    for name, more in {"one": ("1", "0"), "three": ("3", "0"), "seed": ("1", "1")}.items():
        imagefolder(birds, tmp_path / name, "--shard-size", "4", "--workers", more[0], "--seed", more[1])
    one, three, seed = (shards(tmp_path / name) for name in ("one", "three", "seed"))
    assert len(one) == 8
    assert one == three
    assert list(one) == list(seed)
    assert all(one[name] != seed[name] for name in one)
    assert members(Store(str(tmp_path / "one"))) == members(Store(str(tmp_path / "seed")))


def test_a_rerun_writes_what_is_not_there_whole(birds: Path, out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = (birds, out, "--shard-size", "8")
    imagefolder(*command)
    store = Store(out)
    names = [name for name in store.list("") if name.endswith(".tar")]
    first = {name: store.read(name) for name in names}
    assert len(names) == 4
    store.remove(names[0])
    store.publish(names[1], first[names[1]][:-1024])  # copies that were cut, one of them at a full record
    store.publish(names[3], first[names[3]][: tarfile.RECORDSIZE])
    assert len(first[names[3]]) > tarfile.RECORDSIZE
    written: list[str] = []

    def write(path: str, samples: Iterable[Sample]) -> None:
        written.append(path.rpartition("/")[2])
        write_shard(path, samples)

    monkeypatch.setattr("rayclean.convert.write.write_shard", write)
    imagefolder(*command)
    assert written == [names[0], names[1], names[3]]
    assert {name: store.read(name) for name in names} == first
    imagefolder(*command)
    assert len(written) == 3


def test_a_killed_conversion_goes_on(birds: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    imagefolder(birds, whole, "--shard-size", "1")
    command = [*COMMAND, str(birds), str(out), "--shard-size", "1", "--workers", "1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not list(out.glob("*.tar")) and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    before = shards(out)
    rest = out / f".train-000029.tar{TEMPORARY}elsewhere-1-2"
    rest.write_bytes(b"half of a sh")
    imagefolder(birds, out, "--shard-size", "1")
    assert before
    assert shards(out) == shards(whole)
    assert not [name for name in os.listdir(out) if TEMPORARY in name]


def test_what_belongs_to_another_conversion_is_not_mixed(birds: Path, out: str) -> None:
    imagefolder(birds, out, "--shard-size", "7")
    store = Store(out)
    before = {name: store.read(name) for name in store.list("")}
    for more in (["--seed", "1"], ["--shard-size", "8"]):
        with pytest.raises(ConfigError, match=r"train\.json: found shards of another conversion .*'seed': 0.*remove"):
            imagefolder(birds, out, "--shard-size", "7", *more)
    (birds / "owl/0.png").write_bytes(png_bytes(999, 9, 9))
    with pytest.raises(ConfigError, match=r"train\.json: found shards of another conversion"):
        imagefolder(birds, out, "--shard-size", "7")
    assert {name: store.read(name) for name in store.list("")} == before
    store.remove("train.json")
    with pytest.raises(ConfigError, match=r"found shards of another conversion \{'shards': 5"):
        imagefolder(birds, out, "--shard-size", "7")


def test_splits_share_a_folder_and_its_classes(birds: Path, tmp_path: Path) -> None:
    out, val = tmp_path / "shards", tmp_path / "val"
    imagefolder(birds, out)
    (val / "robin").mkdir(parents=True)
    (val / "robin/0.png").write_bytes(png_bytes(7))
    with pytest.raises(ConfigError, match=r"classes\.txt: found 3 classes .*expected 1 \(robin"):
        imagefolder(val, out, "--split", "val")
    imagefolder(val, out, "--split", "val", "--classes", str(out / "classes.txt"))
    with tarfile.open(out / "val-000000.tar") as tar:
        file = tar.extractfile("robin/0.json")
        assert file is not None
        assert json.load(file)["label"] == 2
    (val / "crow").mkdir()
    with pytest.raises(InputError, match=r"found folders crow \(1 in all\) that are none of the 3 classes"):
        imagefolder(val, out, "--split", "val", "--classes", str(out / "classes.txt"))


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"half", r"owl/3\.png: found 4 bytes, expected \d+"), (None, r"owl/3\.png: cannot be read: No such")],
)
def test_a_file_that_changes_after_it_was_listed_stops_its_shard(
    birds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, said: str
) -> None:
    def write(path: str, samples: Iterable[Sample]) -> None:
        (birds / "owl/3.png").unlink()
        if content is not None:
            (birds / "owl/3.png").write_bytes(content)
        write_shard(path, samples)

    monkeypatch.setattr("rayclean.convert.write.write_shard", write)
    with pytest.raises(InputError, match=said):
        imagefolder(birds, tmp_path / "shards")
    assert shards(tmp_path / "shards") == {}


def test_the_error_of_a_worker_is_the_drivers(birds: Path, tmp_path: Path) -> None:
    items = [FileItem(f"{i}", str(birds), f"owl/{i}.png", -1, {"label": 0}) for i in range(6)]
    with pytest.raises(InputError, match=r"owl/\d\.png: found \d+ bytes, expected -1"):
        write_all(items, str(tmp_path / "shards"), Options(shard_size=1, workers=2))
    assert shards(tmp_path / "shards") == {}


def test_a_key_that_is_there_twice_is_refused(birds: Path, tmp_path: Path) -> None:
    items = [FileItem("same", str(birds), f"owl/{i}.png", 1, {"label": 0}) for i in range(2)]
    with pytest.raises(InputError, match="train: key 'same' is there twice"):
        write_all(items, str(tmp_path / "shards"), Options())


@pytest.mark.parametrize(
    ("folders", "files", "said"),
    [
        ([], [], r"nothing: cannot be read: No such file.*expected ROOT/CLASS/IMAGE"),
        (["nothing"], [], "found no folders, expected one per class"),
        (["nothing/owl"], [], "train: found none of 0 images; unpack them"),
        (["nothing/a\nb"], ["nothing/a\nb/0.png"], "expected a line of text"),
        (["nothing/ a"], ["nothing/ a/0.png"], "without outer blanks"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, folders: list[str], files: list[str], said: str) -> None:
    for name in folders:
        (tmp_path / name).mkdir(parents=True)
    for name in files:
        (tmp_path / name).write_bytes(png_bytes())
    with pytest.raises(InputError, match=said):
        imagefolder(tmp_path / "nothing", tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_an_output_that_cannot_be_is_named(birds: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RaycleanError, match="file/shards"):
        imagefolder(birds, tmp_path / "file/shards")
    with pytest.raises(ConfigError, match="nosuch"):
        imagefolder(birds, "nosuch://bucket/shards")


def test_on_the_command_line_an_error_is_a_line_and_an_exit_code(tmp_path: Path) -> None:
    command = [*COMMAND, str(tmp_path / "none"), str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"rayclean: {tmp_path}/none: cannot be read")
    assert "Traceback" not in done.stderr


names = st.text(st.characters(blacklist_characters="/\0", codec="utf-8"), min_size=1, max_size=6)
paths = st.lists(st.lists(names, min_size=1, max_size=3).map("/".join), unique=True, max_size=8)


@given(paths.map(lambda found: [f"{path}.png" for path in found] + [f"{path}.jpg" for path in found[:2]]))
def test_keys_are_unique_and_read_back_unchanged(found: list[str]) -> None:
    keys = make_keys(found)
    assert len(set(keys)) == len(found)
    for key in keys:
        assert split_name(f"{key}.png") == (key, "png")


def test_plain_names_are_their_own_keys() -> None:
    assert make_keys(["a/b 1.png", "c.d/é.jpg"]) == ["a/b 1", "c.d/é"]
    assert make_keys(["a/b.png", "a/b.jpg", "c.png"]) == ["a/b%2Epng", "a/b%2Ejpg", "c%2Epng"]
    assert make_keys(["__a__/b.x.png", os.fsdecode(b"\xff.png")]) == ["%5F_a__/b%2Ex", "%FF"]


@given(st.integers(1, 10**5), st.integers(0, 10**11), st.one_of(st.none(), st.integers(1, 10**4)))
def test_shards_are_cut_evenly_and_not_too_large(num_samples: int, num_bytes: int, shard_size: int | None) -> None:
    edges = np.array(cut(num_samples, num_bytes, shard_size))
    sizes = np.diff(edges)
    assert edges[0] == 0
    assert edges[-1] == num_samples
    assert sizes.min() >= max(1, sizes.max() - 1)
    assert sizes.max() <= (shard_size or SHARD_SAMPLES)
    if shard_size is None and sizes.max() > 1:
        assert sizes.max() * num_bytes / num_samples <= SHARD_BYTES

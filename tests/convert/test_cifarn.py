"""CIFAR-N to shards: every label, pixels unchanged, and nothing called that a pickle names."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from rayclean.catalog.labels import ClassList, LabelField
from rayclean.catalog.scan import ScanSettings, scan_shard
from rayclean.errors import InputError
from tests.convert import helpers

BATCH = 8
NUM_TRAIN = 5 * BATCH
CLASSES = ["airplane", "automobile", "bird"]
HUMAN = ("aggre_label", "worse_label", "random_label1", "random_label2", "random_label3")


def python2(value: object) -> bytes:
    """A value as Python 2 and NumPy 1 pickled it: text and the bytes of arrays both are its `str`."""
    if isinstance(value, dict):
        return b"}(" + b"".join(python2(each) for item in value.items() for each in item) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(python2(each) for each in value) + b"e"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, np.ndarray):
        kind = b"cnumpy\ndtype\n(" + python2(value.dtype.str[1:]) + b"K\x00K\x01tR(K\x03" + python2("|")
        kind += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + python2("b") + b"tR"
        shape = b"(" + b"".join(python2(side) for side in value.shape) + b"t"
        return empty + b"(K\x01" + shape + kind + b"I00\n" + python2(value.tobytes().decode("latin1")) + b"tb"
    assert isinstance(value, str)
    return b"T" + struct.pack("<i", len(value)) + value.encode("latin1")


def write_pickle(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x80\x02" + python2(value) + b".")


def save_old(path: Path, labels: dict[str, NDArray[np.int64]]) -> None:
    """As torch saves it under NumPy 1, whose module had another name."""
    torch.save(labels, path)
    with zipfile.ZipFile(path) as saved:
        parts = {info.filename: saved.read(info) for info in saved.infolist()}
    with zipfile.ZipFile(path, "w") as saved:
        for name, content in parts.items():
            saved.writestr(name, content.replace(b"numpy._core", b"numpy.core"))


class Cifar:
    """A small CIFAR-10N, and CIFAR-100N of as many images, in a folder."""

    def __init__(self, root: Path) -> None:
        rng = np.random.default_rng(0)
        self.root = root
        self.pixels = rng.integers(0, 256, (NUM_TRAIN + BATCH, 3, 32, 32), dtype=np.uint8)
        self.truth = rng.integers(0, len(CLASSES), NUM_TRAIN + BATCH)
        self.human = {name: rng.integers(0, len(CLASSES), NUM_TRAIN) for name in HUMAN}
        self.coarse = rng.integers(0, 2, NUM_TRAIN)
        names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
        for i, name in enumerate(names):
            write_pickle(root / "cifar-10-batches-py" / name, self.batch(i * BATCH, (i + 1) * BATCH, "labels"))
        write_pickle(root / "cifar-10-batches-py/batches.meta", {"label_names": CLASSES, "num_vis": 3072})
        write_pickle(root / "cifar-100-python/train", self.batch(0, NUM_TRAIN, "fine_labels"))
        write_pickle(root / "cifar-100-python/test", self.batch(NUM_TRAIN, NUM_TRAIN + BATCH, "fine_labels"))
        write_pickle(root / "cifar-100-python/meta", {"fine_label_names": CLASSES, "coarse_label_names": ["a", "b"]})
        self.clean = {"clean_label": self.truth[:NUM_TRAIN]}
        torch.save({**self.clean, **self.human}, root / "CIFAR-10_human.pt")
        coarse = {"clean_coarse_label": self.coarse, "noisy_coarse_label": 1 - self.coarse}
        save_old(root / "CIFAR-100_human.pt", {**self.clean, "noisy_label": self.human["worse_label"], **coarse})

    def batch(self, first: int, last: int, entry: str) -> dict[str, object]:
        data = self.pixels[first:last].reshape(last - first, -1)
        labels = self.truth[first:last].tolist()
        return {"batch_label": "a batch", "data": data, entry: labels, "filenames": ["é.png"] * len(labels)}


@pytest.fixture
def cifar(tmp_path: Path) -> Cifar:
    return Cifar(tmp_path / "cifar")


def read(out: Path, split: str) -> dict[str, tuple[dict[str, Any], NDArray[np.uint8]]]:
    """Facts and pixels by key."""
    found = {}
    for shard in sorted(out.glob(f"{split}-*.tar")):
        with tarfile.open(shard) as tar:
            contents = {info.name: (tar.extractfile(info) or pytest.fail(info.name)).read() for info in tar}
        for name in (name for name in contents if name.endswith(".png")):
            image = Image.open(io.BytesIO(contents[name]))
            assert image.mode == "RGB"
            found[name[:-4]] = json.loads(contents[f"{name[:-4]}.json"]), np.asarray(image)
    return found


def convert(cifar: Cifar, out: Path, *more: str) -> None:
    helpers.convert("cifarn", cifar.root, out, "--shard-size", "9", *more)


def test_cifar10n_keeps_all_labels_and_the_pixels(cifar: Cifar, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    convert(cifar, out)
    assert (out / "classes.txt").read_text().splitlines() == CLASSES
    train = read(out, "cifar10n-train")
    assert sorted(train) == [f"{i:06d}" for i in range(NUM_TRAIN)]
    for i in range(NUM_TRAIN):
        facts, pixels = train[f"{i:06d}"]
        np.testing.assert_array_equal(pixels, cifar.pixels[i].transpose(1, 2, 0))
        labels = {name: int(values[i]) for name, values in {**cifar.clean, **cifar.human}.items()}
        path = f"cifar-10-batches-py/data_batch_{1 + i // BATCH}"
        assert facts == {"label": labels["worse_label"], **labels, "index": i, "path": path}
    test = read(out, "cifar10n-test")
    assert sorted(test) == [f"t{i:06d}" for i in range(BATCH)]
    for i in range(BATCH):
        facts, pixels = test[f"t{i:06d}"]
        np.testing.assert_array_equal(pixels, cifar.pixels[NUM_TRAIN + i].transpose(1, 2, 0))
        true = int(cifar.truth[NUM_TRAIN + i])
        assert facts == {"label": true, "clean_label": true, "index": i, "path": "cifar-10-batches-py/test_batch"}


def test_cifar100n_has_coarse_labels_too_and_files_of_numpy_1_load(cifar: Cifar, tmp_path: Path) -> None:
    convert(cifar, tmp_path / "shards", "--set", "cifar100")
    for facts, _ in read(tmp_path / "shards", "cifar100n-train").values():
        i = facts["index"]
        assert facts == {
            "label": cifar.human["worse_label"][i],
            "noisy_label": cifar.human["worse_label"][i],
            "clean_label": cifar.truth[i],
            "clean_coarse_label": cifar.coarse[i],
            "noisy_coarse_label": 1 - cifar.coarse[i],
            "index": i,
            "path": "cifar-100-python/train",
        }
    assert len(read(tmp_path / "shards", "cifar100n-train")) == NUM_TRAIN
    assert len(read(tmp_path / "shards", "cifar100n-test")) == BATCH


@pytest.mark.parametrize("name", ["worse_label", "random_label2"])
def test_a_catalog_reads_the_label_that_its_config_names(cifar: Cifar, tmp_path: Path, name: str) -> None:
    out = tmp_path / "shards"
    convert(cifar, out)
    label, truth = LabelField.parse(f"json:{name}"), LabelField.parse("json:clean_label")
    settings = ScanSettings(("png",), label, truth, ClassList.load(str(out / "classes.txt")), 1e6)
    labels: dict[int, tuple[int, int]] = {}
    for shard in sorted(out.glob("cifar10n-train-*.tar")):
        scan = scan_shard(str(shard), settings)
        assert scan.truth is not None
        assert scan.quarantine.num_rows == 0
        rows = zip(scan.rows.to_pylist(), scan.truth.to_pylist(), strict=True)
        labels |= {int(row["key"]): (row["label"], true["label"]) for row, true in rows}
    assert labels == {i: (cifar.human[name][i], cifar.truth[i]) for i in range(NUM_TRAIN)}


def test_shards_are_the_same_for_any_number_of_workers(cifar: Cifar, tmp_path: Path) -> None:
    for workers in ("1", "3"):
        convert(cifar, tmp_path / workers, "--workers", workers)
    one, three = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("1", "3"))
    assert len(one) == 5 + 1 + 3
    assert one == three


def test_labels_may_lie_elsewhere_and_be_tensors(cifar: Cifar, tmp_path: Path) -> None:
    convert(cifar, tmp_path / "here")
    (cifar.root / "CIFAR-10_human.pt").unlink()
    with pytest.raises(InputError, match=r"CIFAR-10_human\.pt: cannot be read: No such.*--labels"):
        convert(cifar, tmp_path / "none")
    labels = {name: torch.from_numpy(values) for name, values in {**cifar.clean, **cifar.human}.items()}
    torch.save(labels, tmp_path / "labels.pt")
    convert(cifar, tmp_path / "there", "--labels", str(tmp_path / "labels.pt"))
    for name in ("cifar10n-train-000000.tar", "cifar10n-test-000000.tar"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


class Attack:
    """Unpickled without care, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_no_pickle_calls_anything(cifar: Cifar, tmp_path: Path, protocol: int) -> None:
    attack = {"data": Attack(tmp_path / "attacked"), "labels": [0], "clean_label": Attack(tmp_path / "attacked")}
    (cifar.root / "cifar-10-batches-py/data_batch_3").write_bytes(pickle.dumps(attack, protocol))
    with pytest.raises(InputError, match=r"data_batch_3: not a pickle of CIFAR's: it names (posix|os)\.mkdir"):
        convert(cifar, tmp_path / "shards")
    write_pickle(cifar.root / "cifar-10-batches-py/data_batch_3", cifar.batch(2 * BATCH, 3 * BATCH, "labels"))
    torch.save(attack, cifar.root / "CIFAR-10_human.pt", pickle_protocol=2)
    with pytest.raises(InputError, match=r"CIFAR-10_human\.pt: not a file of labels alone: .*(posix|os)\.mkdir"):
        convert(cifar, tmp_path / "shards")
    assert not (tmp_path / "attacked").exists()
    assert not (tmp_path / "shards").exists()


def test_files_of_another_form_are_refused(cifar: Cifar, tmp_path: Path) -> None:
    batch = cifar.root / "cifar-10-batches-py/data_batch_1"
    whole = batch.read_bytes()
    for content, said in (
        (b"", "not a pickle of CIFAR's"),
        (whole[:-100], "not a pickle of CIFAR's"),
        (b"\x80\x02" + python2({"labels": [1]}) + b".", "found labels, expected data, labels"),
        (b"\x80\x02" + python2({"labels": [1], "data": cifar.pixels[:2]}) + b".", r"expected uint8 of \(1, 3072\)"),
    ):
        batch.write_bytes(content)
        with pytest.raises(InputError, match=rf"data_batch_1: .*{said}"):
            convert(cifar, tmp_path / "shards")
    batch.unlink()
    with pytest.raises(InputError, match="data_batch_1: cannot be read: No such file"):
        convert(cifar, tmp_path / "shards")


def test_labels_of_other_images_are_refused(cifar: Cifar, tmp_path: Path) -> None:
    clean, worse = cifar.clean["clean_label"], cifar.human["worse_label"]
    for labels, said in (
        ({"clean_label": clean}, "found clean_label, expected clean_label, worse_label"),
        ({"clean_label": clean[:-1], "worse_label": worse[:-1]}, "found 39 rows of clean_label, expected 40"),
        (
            {"clean_label": np.roll(clean, 1), "worse_label": worse},
            r"found \d+ clean labels of 40 that are not CIFAR's",
        ),
        ({"clean_label": clean, "worse_label": worse + 1}, r"worse_label has others than 0\.\.2"),
        ({"clean_label": clean, "worse_label": worse / 2}, "labels alone: .*Float64DType"),
        ({"clean_label": clean, "worse_label": torch.ones(40)}, "worse_label is float32"),
    ):
        torch.save(labels, cifar.root / "CIFAR-10_human.pt")
        with pytest.raises(InputError, match=said):
            convert(cifar, tmp_path / "shards")

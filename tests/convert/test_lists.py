"""Clothing1M and WebVision, whose images are named by lists, to shards."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from rayclean.catalog.labels import ClassList, LabelField
from rayclean.catalog.scan import ScanSettings, scan_shard
from rayclean.convert.samples import IMAGE_EXTENSIONS
from rayclean.errors import ConfigError, InputError
from tests.convert.helpers import convert
from tests.helpers import image_bytes, random_pixels

GARMENTS = ["T-Shirt", "Down Coat", "Dress"]
SYNSETS = [f"n{i:08d} crane" for i in range(60)]


def jpeg(seed: int) -> bytes:
    return image_bytes(random_pixels(seed), "JPEG")


def write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture
def clothing(tmp_path: Path) -> Path:
    """Images 0-19 with noisy labels, 15-29 with clean ones; 0-14 are the noisy list, 15-17 clean_train, ..."""
    root = tmp_path / "clothing1m"
    names = [f"images/{i % 3}/{i:02d}/41{i},27{i}.jpg" for i in range(30)]
    for i, name in enumerate(names):
        write(root / name, jpeg(i))
    write(root / "category_names_eng.txt", "\n".join(GARMENTS) + "\n")
    write(root / "noisy_label_kv.txt", "".join(f"{names[i]} {i % 3}\n" for i in range(20)))
    write(root / "clean_label_kv.txt", "".join(f"{names[i]} {(i + 1) % 3}\r\n" for i in range(15, 30)))
    lists = {
        "noisy_train": range(15),
        "clean_train": range(15, 22),
        "clean_val": (22, 23, 18),
        "clean_test": range(24, 30),
    }
    for name, rows in lists.items():
        write(root / f"{name}_key_list.txt", "".join(f"{names[i]}\n" for i in rows))
    return root


@pytest.fixture
def webvision(tmp_path: Path) -> Path:
    """Three images of each class from Google, one from Flickr, two for validation."""
    root = tmp_path / "webvision"
    write(root / "info/synsets.txt", "\n".join(SYNSETS))
    for source, count, names in (
        ("google", 180, "google/q{:04d}/a.b{}.jpg"),
        ("flickr", 60, "flickr/q{:04d}/{}.jpg"),
    ):
        paths = [names.format(i % 60, i) for i in range(count)]
        write(root / f"info/train_filelist_{source}.txt", "".join(f"{path} {i % 60}\n" for i, path in enumerate(paths)))
        for i, path in enumerate(paths):
            write(root / path, jpeg(i))
    write(root / "info/val_filelist.txt", "".join(f"val{i:06d}.jpg {i // 2}\n" for i in range(120)))
    for i in range(120):
        write(root / f"val_images_256/val{i:06d}.jpg", jpeg(1000 + i))
    return root


def read(out: Path, split: str, images: Path, absent: str = "") -> dict[str, dict[str, Any]]:
    """JSON by path of all samples of a split, whose images must be the files below `images`, each once."""
    found: dict[str, dict[str, Any]] = {}
    for shard in sorted(out.glob(f"{split}-*.tar")):
        with tarfile.open(shard) as tar:
            contents = {info.name: (tar.extractfile(info) or pytest.fail(info.name)).read() for info in tar}
        for name, content in contents.items():
            if name.endswith(".json"):
                facts = json.loads(content)
                file = images / facts["path"].removeprefix(absent)
                assert contents[name.replace(".json", ".jpg")] == file.read_bytes()
                assert facts["path"] not in found
                found[facts["path"]] = facts
    return found


def clothing1m(root: Path, out: Path, *more: str) -> None:
    convert("clothing1m", root, out, "--shard-size", "6", *more)


def mini_webvision(root: Path, out: Path, *more: str) -> None:
    convert("webvision", root, out, "--classes", "50", *more)


def test_clothing1m_has_a_split_a_list_and_keeps_both_labels(clothing: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    clothing1m(clothing, out)
    assert (out / "classes.txt").read_text().splitlines() == GARMENTS
    samples = {split: read(out, split, clothing) for split in ("noisy_train", "clean_train", "val", "test", "both")}
    numbers = {split: sorted(int(path.split("/")[2]) for path in found) for split, found in samples.items()}
    assert numbers == {
        "noisy_train": list(range(15)),
        "clean_train": list(range(15, 22)),
        "val": [18, 22, 23],
        "test": list(range(24, 30)),
        "both": list(range(15, 20)),
    }
    for split, found in samples.items():
        for path, facts in found.items():
            i = int(path.split("/")[2])
            noisy, clean = {"noisy_label": i % 3}, {"clean_label": (i + 1) % 3}
            known = {**(noisy if i < 20 else {}), **(clean if i >= 15 else {})}
            label = i % 3 if split in ("noisy_train", "both") else (i + 1) % 3
            assert facts == {"label": label, **known, "path": path}


def test_a_catalog_of_the_images_with_both_labels_knows_label_and_truth(clothing: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    clothing1m(clothing, out, "--splits", "both")
    assert not list(out.glob("noisy_train*"))
    label, truth = LabelField.parse("json:label"), LabelField.parse("json:clean_label")
    settings = ScanSettings(IMAGE_EXTENSIONS, label, truth, ClassList.load(str(out / "classes.txt")), 1e6)
    scan = scan_shard(str(out / "both-000000.tar"), settings)
    assert scan.quarantine.num_rows == 0
    assert scan.truth is not None
    rows = zip(*(table.to_pylist() for table in (scan.rows, scan.truth)), strict=True)
    found = {int(row["key"].split("/")[2]): (row["label"], truth["label"]) for row, truth in rows}
    assert found == {i: (i % 3, (i + 1) % 3) for i in range(15, 20)}


def test_clothing1m_lies_as_others_unpack_it_and_gives_the_same_shards(clothing: Path, tmp_path: Path) -> None:
    clothing1m(clothing, tmp_path / "first")
    for name in clothing.glob("*.txt"):
        write(clothing / "annotations" / name.name, name.read_bytes())
        name.unlink()
    for folder in (clothing / "images").iterdir():
        shutil.move(folder, clothing / folder.name)
    (clothing / "images").rmdir()
    clothing1m(clothing, tmp_path / "second")
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("first", "second")
    )
    assert first == second
    assert read(tmp_path / "second", "val", clothing, "images/")


def test_missing_images_stop_the_conversion_until_they_are_allowed(
    clothing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shards"
    gone = [clothing / f"images/{i % 3}/{i:02d}/41{i},27{i}.jpg" for i in (3, 7)]
    for path in gone:
        path.unlink()
    with pytest.raises(
        InputError, match=r"noisy_train: found 13 of 15 images, not .*41(3,273|7,277)\.jpg.*--max-missing 2"
    ):
        clothing1m(clothing, out)
    assert not out.exists()
    with pytest.raises(InputError, match="13 of 15"):
        clothing1m(clothing, out, "--max-missing", "1")
    clothing1m(clothing, out, "--max-missing", "2")
    assert len(read(out, "noisy_train", clothing)) == 13
    assert (out / "noisy_train-missing.txt").read_text().splitlines() == [str(path) for path in gone]
    assert json.loads((out / "noisy_train.json").read_text())["missing"] == 2
    assert "2 images missing, see noisy_train-missing.txt" in capsys.readouterr().out
    assert not (out / "val-missing.txt").exists()
    write(gone[0], jpeg(3))  # one is found again: the shards are others
    with pytest.raises(ConfigError, match=r"noisy_train\.json: found shards of another conversion"):
        clothing1m(clothing, out, "--max-missing", "2")


def test_images_that_are_not_unpacked_are_said_at_once(clothing: Path, tmp_path: Path) -> None:
    for folder in (clothing / "images").iterdir():
        shutil.rmtree(folder)
    with pytest.raises(InputError, match=r"noisy_train: found none of 15 images, the first is .*/images/0/00/.*unpack"):
        clothing1m(clothing, tmp_path / "shards", "--max-missing", "1000")


def test_lines_that_repeat_are_counted(clothing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = clothing / "clean_val_key_list.txt"
    file.write_text(file.read_text() * 2 + "\n\n")
    clothing1m(clothing, tmp_path / "shards", "--splits", "val")
    assert len(read(tmp_path / "shards", "val", clothing)) == 3
    assert "3 lines are there twice" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("noisy_label_kv.txt", "images/0/00/new.jpg", r"noisy_label_kv\.txt:21: found .*expected `image label`"),
        ("noisy_label_kv.txt", "images/0/00/new.jpg one", "expected `image label`"),
        ("noisy_label_kv.txt", "images/0/00/new.jpg 3", r"noisy_label_kv\.txt:21: found label 3, expected 0\.\.2"),
        (
            "noisy_label_kv.txt",
            "images/0/00/410,270.jpg 1",
            r":21: found 1 for images/0/00/410,270\.jpg, but 0 further up",
        ),
        ("clean_val_key_list.txt", "images/9/99/new.jpg", r"1 images, the first .*no label in .*clean_label_kv"),
        ("clean_val_key_list.txt", "../../etc/x.jpg", r"clean_val_key_list\.txt:4: .*expected a path in the data set"),
        ("clean_val_key_list.txt", "/etc/x.jpg", "expected a path in the data set"),
        ("clean_val_key_list.txt", "images/x", "expected a png, jpg, jpeg, webp file"),
        ("category_names_eng.txt", "Dress", "class 'Dress' is there twice"),
    ],
)
def test_broken_lists_are_refused(clothing: Path, tmp_path: Path, file: str, line: str, said: str) -> None:
    with (clothing / file).open("a") as opened:
        opened.write(line + "\n")
    with pytest.raises(InputError, match=said):
        clothing1m(clothing, tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_a_list_that_is_not_there_is_named(clothing: Path, tmp_path: Path) -> None:
    (clothing / "clean_label_kv.txt").unlink()
    with pytest.raises(InputError, match=r"clean_label_kv\.txt: cannot be read.*official layout"):
        clothing1m(clothing, tmp_path / "shards")


def test_mini_webvision_is_the_first_50_classes_of_google(
    webvision: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shards"
    mini_webvision(webvision, out, "--source", "google", "--shard-size", "40")
    assert (out / "classes.txt").read_text().splitlines() == SYNSETS[:50]
    train, val = read(out, "train_google", webvision), read(out, "val", webvision / "val_images_256")
    assert not list(out.glob("train_flickr*"))
    assert len(train) == 150
    assert all(facts == {"label": int(path[8:12]), "path": path} for path, facts in train.items())
    labels = {f"val{i:06d}.jpg": i // 2 for i in range(100)}
    assert val == {path: {"label": k, "clean_label": k, "path": path} for path, k in labels.items()}
    said = capsys.readouterr().out
    assert "30 images of other classes left out" in said
    assert "20 images of other classes left out" in said


def test_all_of_webvision_has_a_split_a_source(webvision: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    convert("webvision", webvision, out)
    assert [len(read(out, f"train_{source}", webvision)) for source in ("google", "flickr")] == [180, 60]
    assert len((out / "classes.txt").read_text().splitlines()) == 60
    (webvision / "val_images_256").rename(webvision / "val_images")
    again = tmp_path / "again"
    convert("webvision", webvision, again, "--splits", "val")
    assert (again / "val-000000.tar").read_bytes() == (out / "val-000000.tar").read_bytes()


def test_a_subset_does_not_mix_with_the_whole(webvision: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    convert("webvision", webvision, out, "--splits", "val")
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(ConfigError, match=r"val\.json: found shards of another conversion"):
        mini_webvision(webvision, out, "--splits", "val")
    with pytest.raises(ConfigError, match=r"classes\.txt: found 60 classes"):
        mini_webvision(webvision, out, "--splits", "train", "--source", "flickr")
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_what_webvision_lacks_is_named(webvision: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--classes 61: .*synsets\.txt has 60"):
        convert("webvision", webvision, tmp_path / "shards", "--classes", "61")
    shutil.rmtree(webvision / "val_images_256")
    with pytest.raises(InputError, match="found no folder val_images_256 or val_images"):
        mini_webvision(webvision, tmp_path / "shards")
    mini_webvision(webvision, tmp_path / "shards", "--splits", "train", "--source", "google")
    with pytest.raises(ConfigError, match="--source bing: expected one of google, flickr, both"):
        mini_webvision(webvision, tmp_path / "shards", "--source", "bing")

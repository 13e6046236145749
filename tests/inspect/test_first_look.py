"""What is proposed of shards: where labels, images and features lie, and which classes they name."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.errors import ConfigError, InputError
from rayclean.inspect import first_look
from rayclean.inspect.draft import (
    Answers,
    draft,
    network_reader,
    offset_of,
    parse_classes,
    propose_classes,
    propose_network,
    shown,
)
from rayclean.inspect.first_look import FirstLook, Place, look_at_shards
from tests.helpers import Content, image_bytes, png_bytes, write_tar

Members = Callable[[int], dict[str, bytes]]


def _npy(number: int) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.full(4, number, np.float32))
    return buffer.getvalue()


def _json(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


@pytest.fixture
def look(tmp_path: Path) -> Callable[..., FirstLook]:
    """A look at a shard of so many samples with these members: `look(lambda i: {"cls": ...}, folder=...)`."""

    def write(members: Members, num: int = 40, folder: Callable[[int], str] = lambda _: "") -> FirstLook:
        found: list[Content] = []
        for i in range(num):
            found += [(f"{folder(i)}{i:04d}.{name}", content) for name, content in members(i).items()]
        return look_at_shards(write_tar(tmp_path / "0.tar", found))

    return write


def _label(found: FirstLook) -> str | None:
    return None if found.label is None else found.label.field


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (lambda i: {"png": png_bytes(), "cls": b"%d\n" % (i % 5)}, "cls"),
        (lambda i: {"png": png_bytes(), "txt": b"caption %d" % i, "cls": b"%d" % (i % 5)}, "cls"),
        (lambda i: {"png": png_bytes(), "json": _json(id=i, width=8, label=i % 5)}, "json:label"),
        (lambda i: {"json": _json(truth=i % 5, noisy_label=i % 4)}, "json:noisy_label"),
        (lambda i: {"info.json": _json(ann={"category_id": [i % 5]}, w=i % 2)}, "info.json:ann.category_id"),
        (lambda i: {"json": _json(true_label=i % 5)}, None),  # the truth is not given by mistake
        (lambda i: {"json": _json(label=i)}, None),  # a number of its own each
        (lambda i: {"json": _json(label=i / 7)}, None),
        (lambda i: {"cls": b"7"}, None),  # one class tells nothing
        (lambda i: {"cls": b"%d" % (i % 5)} if i % 2 else {"png": png_bytes()}, None),  # half of them lack it
    ],
)
def test_the_place_of_labels_is_proposed_by_name_and_by_what_is_there(
    members: Members, expected: str | None, look: Callable[..., FirstLook]
) -> None:
    assert _label(look(members)) == expected


def test_what_may_be_labels_but_is_not_called_so_is_only_listed(look: Callable[..., FirstLook]) -> None:
    found = look(lambda i: {"json": _json(license=i % 3)})
    assert found.label is None
    assert [place.field for place in found.places] == ["json:license"]


def test_folders_are_labels_where_nothing_else_is(look: Callable[..., FirstLook]) -> None:
    found = look(lambda i: {"png": png_bytes()}, folder=lambda i: f"train/{'cat' if i % 2 else 'dog'}/")
    assert _label(found) == "folder"
    assert propose_classes(found, found.label) == ["cat", "dog"]


def test_images_are_known_by_their_bytes_and_features_by_their_extension(look: Callable[..., FirstLook]) -> None:
    found = look(lambda i: {"bmp": image_bytes(np.zeros((4, 4, 3), np.uint8), "BMP"), "emb.npy": _npy(i), "cls": b"1"})
    assert (found.images, found.features) == (["bmp"], "emb.npy")
    assert propose_network(found) == "features"
    assert dict(found.extensions) == {"bmp": 40, "emb.npy": 40, "cls": 40}


def test_three_shards_are_looked_at_and_not_all_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_look, "LOOKED_SAMPLES", 4)
    for shard in range(9):
        write_tar(tmp_path / f"{shard}.tar", [(f"{shard}{i}.cls", b"%d" % shard) for i in range(6)])
    found = look_at_shards(f"{tmp_path}/*.tar")
    assert (len(found.shards), found.num_samples) == (9, 12)
    assert found.label is not None
    assert sorted(found.label.counts) == [0, 4, 8]


def test_a_shard_without_samples_or_of_something_else_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no samples"):
        look_at_shards(write_tar(tmp_path / "empty.tar", []))
    (tmp_path / "text.tar").write_text("no tar " * 200)
    with pytest.raises(InputError, match=r"text\.tar"):
        look_at_shards(f"{tmp_path}/text.tar")


def test_what_strangers_write_is_passed_over(look: Callable[..., FirstLook]) -> None:
    found = look(lambda i: {"json": b"{" * 500, "cls": b"\xff\xfe", "txt": b"", "label": b"%d" % (i % 3)})
    assert [place.field for place in found.places] == ["label"]


def _seen(*values: int | str) -> Place:
    return Place("cls", dict.fromkeys(values, 3))


@pytest.mark.parametrize(
    ("place", "classes", "offset"),
    [
        (_seen(0, 1, 2), 3, 0),
        (_seen(2, 0), 3, 0),
        (_seen(1, 2, 3), 3, 1),
        (_seen(1, 3), 4, 0),  # a gap: they may count from 0
        (_seen("dog", "cat"), ["cat", "dog"], 0),
        (_seen("dog", 7), ["7", "dog"], 0),
    ],
)
def test_classes_that_fit_are_proposed(place: Place, classes: object, offset: int) -> None:
    found = propose_classes(FirstLook(["/no/such/0.tar"]), place)
    assert found == classes
    assert found is not None
    assert offset_of(place, found) == offset


@given(st.sets(st.integers(0, 300), min_size=2))
def test_all_numbers_that_were_seen_are_labels_of_what_is_proposed(numbers: set[int]) -> None:
    place = _seen(*numbers)
    count = propose_classes(FirstLook(["/no/such/0.tar"]), place)
    assert isinstance(count, int)
    offset = offset_of(place, count)
    assert all(0 <= number - offset < count for number in numbers)


def test_nothing_is_proposed_of_what_does_not_tell() -> None:
    look = FirstLook(["/no/such/0.tar"])
    assert propose_classes(look, None) is None
    assert propose_classes(look, _seen(-1, 3)) is None
    assert propose_classes(look, _seen(*(f"class {i}" for i in range(500)))) is None


def test_a_file_of_classes_beside_the_shards_comes_first_where_it_fits(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog\nbird\n")
    look = FirstLook([f"{tmp_path}/0.tar"])
    assert propose_classes(look, _seen(0, 2)) == f"{tmp_path}/classes.txt"
    assert propose_classes(look, _seen(1, 2, 3)) == f"{tmp_path}/classes.txt"
    assert offset_of(_seen(1, 2, 3), f"{tmp_path}/classes.txt") == 1
    assert propose_classes(look, _seen("cat", "dog")) == f"{tmp_path}/classes.txt"
    assert propose_classes(look, _seen(0, 7)) == 8
    assert propose_classes(look, _seen("cat", "cow")) == ["cat", "cow"]


def test_classes_are_read_as_people_write_them(tmp_path: Path) -> None:
    (tmp_path / "names").write_text("a\nb\n")
    assert parse_classes(" 12 ") == 12
    assert parse_classes("cat, black dog") == ["cat", "black dog"]
    assert parse_classes(f"{tmp_path}/names") == f"{tmp_path}/names"
    for text in ("0", "cat,,dog", "cat,cat", f"{tmp_path}/none", ""):
        with pytest.raises(ConfigError, match=r"data\.classes"):
            parse_classes(text)
    assert shown([str(i) for i in range(20)]) == "0, 1, 2, 3, 4, 5, 6, 7, ... (20 in all)"


def _answers(network: str, model: str | None = None) -> Answers:
    return Answers("/data/{00..99}.tar", "cls", ["7", "a: b", "no"], 1, network, model, "runs/x")


def _with(images: list[str], *extensions: str) -> FirstLook:
    look = FirstLook(["/data/00.tar"], 7, images=images)
    look.extensions.update([*images, *extensions])
    return look


def test_the_text_says_what_the_answers_say() -> None:
    text, config = draft(_answers("frozen", "lite"), _with(["jpg"], "cls"))
    assert (config.data.shards, config.data.classes, config.data.label_offset) == (
        "/data/{00..99}.tar",
        ["7", "a: b", "no"],
        1,
    )
    assert (config.model.name, config.model.frozen, config.data.image) == ("lite", True, "png;jpg;jpeg;webp;jpe;jfif")
    assert "# .cls 1, .jpg 1" in text.splitlines()
    _, config = draft(_answers("nothing"), _with(["bmp"], "cls"))
    assert (config.model.frozen, config.data.image) == (False, "bmp")
    _, config = draft(_answers("features"), _with([], "emb.npy"))
    assert (config.data.features, config.data.image) == ("emb.npy", "none")
    _, config = draft(_answers("file:emb/*.parquet"), _with(["png"], "npy"))
    assert config.data.features == "file:emb/*.parquet"


def test_networks_that_these_shards_cannot_have_are_refused() -> None:
    pictures, vectors = network_reader(_with(["png"], "cls")), network_reader(_with([], "npy"))
    assert [pictures(text) for text in ("frozen", "nothing ", "file:a.parquet")] == [
        "frozen",
        "nothing",
        "file:a.parquet",
    ]
    assert vectors("features") == "features"
    with pytest.raises(ConfigError, match=r"no member of the samples ends in npy or npz \(found: cls, png\)"):
        pictures("features")
    with pytest.raises(ConfigError, match=r"have no images \(found: npy\)"):
        vectors("frozen")
    with pytest.raises(ConfigError, match="expected frozen, features or nothing"):
        pictures("resnet")
    with pytest.raises(ConfigError, match="no network looks at features"):
        draft(_answers("features", "lite"), _with([], "npy"))

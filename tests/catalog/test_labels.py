"""Where a label is, and which class it names."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.catalog.labels import ClassList, LabelField
from rayclean.errors import ConfigError
from rayclean.schema import NONE_OF_CLASSES
from rayclean.shards.decode import BadSample

TEN = ClassList.load(10)
PETS = ClassList.load(["cat", "dog", "no"])


def reason(field: str, members: dict[str, bytes], classes: ClassList = TEN) -> str:
    with pytest.raises(BadSample) as caught:
        classes.index_of(LabelField.parse(field).read("a/b", members))
    return caught.value.reason


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("cls", LabelField("cls")),
        ("Label.TXT", LabelField("label.txt")),
        ("json:label", LabelField("json", ("label",))),
        ("json:a.b.c", LabelField("json", ("a", "b", "c"))),
        ("json", LabelField("json")),
        ("info.json:action.label", LabelField("info.json", ("action", "label"))),
        ("folder", LabelField("")),
    ],
)
def test_fields(text: str, field: LabelField) -> None:
    assert LabelField.parse(text) == field


@pytest.mark.parametrize("text", ["", " ", "json:", "json:a..b", "json:.a", ".cls", "a/b", ":x", "yaml:label"])
def test_fields_that_cannot_be_right(text: str) -> None:
    with pytest.raises(ConfigError, match="label field"):
        LabelField.parse(text)


@pytest.mark.parametrize(
    ("field", "content", "value"),
    [
        ("cls", b" 7\n", "7"),
        ("cls", b"\xef\xbb\xbf7", "7"),
        ("cls", "caf\u00e9".encode(), "caf\u00e9"),
        ("json:a.b", b'{"a": {"b": 3}}', 3),
        ("json:a", b'{"a": 3.0}', 3.0),
        ("json:a", b'{"a": "dog"}', "dog"),
        ("json:a", b'{"a": " dog\\n"}', "dog"),
        ("json:a", b'{"a": [3]}', 3),
        ("json:a", b'{"a": ["dog"]}', "dog"),
        ("info.json:a.b", b'{"a": {"b": 3}}', 3),
    ],
)
def test_a_label_is_read_as_it_is_written(field: str, content: bytes, value: object) -> None:
    found = LabelField.parse(field).read("a/b", {field.partition(":")[0]: content})
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("field", "members"),
    [
        ("cls", {}),
        ("cls", {"json": b"{}"}),
        ("json:a", {"json": b"{}"}),
        ("json:a", {"json": b'{"a": null}'}),
        ("json:a.b", {"json": b'{"a": 1}'}),
        ("json:a", {"json": b"[1]"}),
    ],
)
def test_missing_labels(field: str, members: dict[str, bytes]) -> None:
    assert reason(field, members) == "missing_label"


@pytest.mark.parametrize(
    ("field", "content"),
    [
        ("cls", b""),
        ("cls", b"abc"),
        ("cls", b"\xff\xfe"),
        ("cls", b"10"),
        ("cls", b"-1"),
        ("cls", b"nan"),
        ("cls", b"1.5"),
        ("cls", b"1e0"),
        ("cls", b"1_0"),
        ("cls", "\u0663".encode()),
        ("cls", b"9" * 5000),
        ("json:a", b'{"a": '),
        ("json:a", b"\xff"),
        ("json:a", b'{"a": NaN}'),
        ("json:a", b'{"a": Infinity}'),
        ("json:a", b'{"a": true}'),
        ("json:a", b'{"a": 1.5}'),
        ("json:a", b'{"a": 1e300}'),
        ("json:a", b'{"a": [1, 0]}'),
        ("json:a", b'{"a": []}'),
        ("json:a", b'{"a": [[1]]}'),
        ("cls", b"[0, 1]"),
        ("cls", b"[[1]]"),
        ("cls", b'"cat"'),
        ("cls", b"["),
        ("json:a", b'{"a": {"b": 1}}'),
        ("json:a", b'{"a": -1}'),
        ("json:a", b'{"a": ' + b"9" * 5000 + b"}"),
        ("json:a", b"[" * 100_000),
        ("json:a", b'{"a": "\\ud800"}'),
    ],
)
def test_bad_labels(field: str, content: bytes) -> None:
    with pytest.raises(BadSample) as caught:
        TEN.index_of(LabelField.parse(field).read("a/b", {field.partition(":")[0]: content}))
    assert caught.value.reason == "bad_label"
    caught.value.text.encode()  # fits a table
    assert len(caught.value.text) < 300


@given(st.integers(-20, 20))
def test_whole_numbers_in_range_are_classes_in_any_form(number: int) -> None:
    forms: list[object] = [number, float(number), str(number), f"{number}.0", json.loads(json.dumps(number))]
    for value in forms:
        if 0 <= number < 10:
            assert TEN.index_of(value) == number
        else:
            with pytest.raises(BadSample, match="out of range: 0 <= label < 10"):
                TEN.index_of(value)


@given(st.integers(-20, 20) | st.floats() | st.booleans() | st.text(max_size=4))
def test_a_truth_is_a_class_or_minus_one_for_none_of_them(value: float | bool | str) -> None:
    if value in (-1, "-1", "-1.0") and not isinstance(value, bool):
        assert TEN.truth_of(value) == NONE_OF_CLASSES
        return
    try:
        label = TEN.index_of(value)
    except BadSample:
        with pytest.raises(BadSample):
            TEN.truth_of(value)
    else:
        assert TEN.truth_of(value) == label


def test_a_class_that_is_called_minus_one_is_a_truth_of_its_own() -> None:
    classes = ClassList.load(["-1", "1"])
    assert [classes.truth_of(value) for value in ("-1", "1", -1)] == [0, 1, NONE_OF_CLASSES]


@given(st.floats() | st.booleans() | st.none())
def test_no_other_scalar_is_a_class(value: float | bool | None) -> None:
    if isinstance(value, float) and math.isfinite(value) and value.is_integer() and 0 <= value < 10:
        assert TEN.index_of(value) == int(value)
        return
    with pytest.raises(BadSample):
        TEN.index_of(value)


def test_names_match_exactly() -> None:
    assert [PETS.index_of(name) for name in ("cat", "dog", "no")] == [0, 1, 2]
    for name in ("Cat", "cat ", "ca", "cow", ""):
        with pytest.raises(BadSample, match="none of the 3 classes"):
            PETS.index_of(name)
    assert PETS.index_of(1) == 1


def test_numbers_as_text_are_indexes_unless_a_class_is_called_by_a_number() -> None:
    assert PETS.index_of("2") == 2
    digits = ClassList.load(["3", "1"])
    assert [digits.index_of("3"), digits.index_of("1")] == [0, 1]
    with pytest.raises(BadSample):
        digits.index_of("0")


def test_class_lists(tmp_path: Path) -> None:
    assert (TEN.num_classes, TEN.names[:2]) == (10, ("0", "1"))
    path = tmp_path / "names.txt"
    path.write_text("cat\n dog\r\nno\n\n", encoding="utf-8-sig")
    assert ClassList.load(str(path)) == PETS
    assert pickle.loads(pickle.dumps(PETS)).index_of("dog") == 1


@pytest.mark.parametrize(
    "spec", [0, -1, [], [""], ["a", " "], ["a", 1], ["a", False], ["a", "b", "a"], "/no/such/file"]
)
def test_class_lists_that_cannot_be_right(spec: int | list[str] | str) -> None:
    with pytest.raises(ConfigError, match=r"data\.classes"):
        ClassList.load(spec)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"a\n\nb\n", b"a\na\n", b"\xff"])
def test_files_of_names_that_cannot_be_right(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=r"data\.classes"):
        ClassList.load(str(tmp_path / "names.txt"))


def test_what_a_list_of_numbers_is_refused_for() -> None:
    for field, content in (("cls", b"[0, 0, 1]"), ("json:a", b'{"a": [0.1, 0.2, 0.7]}')):
        with pytest.raises(BadSample, match=r"list of 3 numbers; one-hot or probabilities.*the index of the largest"):
            TEN.index_of(LabelField.parse(field).read("k", {field.partition(":")[0]: content}))


@pytest.mark.parametrize("text", ["[3]", '"3"', "3"])
def test_a_text_member_may_hold_json(text: str) -> None:
    assert TEN.index_of(text) == 3
    assert ClassList.load(["a", "b", "c", "[3]"]).index_of("[3]") == 3  # a name first


def test_the_folder_is_the_label() -> None:
    field = LabelField.parse("folder")
    assert field.members == frozenset()
    assert [field.read(key, {}) for key in ("train/dog/1", "./dog/1", "dog/a b")] == ["dog", "dog", "dog"]
    for key in ("1", "./1", "/1"):
        with pytest.raises(BadSample) as caught:
            field.read(key, {})
        assert caught.value.reason == "missing_label"


@given(st.integers(1, 20), st.integers(-3, 3))
def test_numbers_from_an_offset_on(num_classes: int, offset: int) -> None:
    counted, named = ClassList.load(num_classes, offset=offset), ClassList.load(["cat", "dog"], offset=offset)
    for label in range(num_classes):
        for form in (label + offset, str(label + offset), float(label + offset)):
            assert counted.index_of(form) == label
            assert counted.written(label, form) == form or isinstance(form, str)
            assert counted.index_of(counted.written(label, form)) == label
    for number in (offset - 1, offset + num_classes):
        with pytest.raises(BadSample, match=rf"out of range: {offset} <= label < {offset + num_classes}"):
            counted.index_of(number)
    assert counted.names == tuple(str(offset + label) for label in range(num_classes))
    assert [named.index_of(form) for form in ("dog", 1 + offset)] == [1, 1]


@pytest.mark.parametrize(
    "text",
    [
        '["cat", "dog", "no"]',
        '{"cat": 0, "dog": 1, "no": 2}',
        '{"1": "dog", "0": "cat", "2": "no"}',
        ' {"cat": 1, "dog": 2, "no": 3}',
        "cat\ndog\nno\n",
    ],
)
def test_a_file_of_classes(tmp_path: Path, text: str) -> None:
    (tmp_path / "classes.json").write_text(text)
    assert ClassList.load(str(tmp_path / "classes.json")) == PETS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"cat": 0, "dog": 2}', "without a gap"),
        ('{"cat": 0, "dog": 0}', "without a gap"),
        ('{"cat": "x"}', "without a gap"),
        ("{}", "found no class"),
        ('["cat", ', "is not JSON"),
        ('["cat", 3]', "class 1 is 3"),
        ('{"0": "cat", "1": "cat"}', "'cat' is there twice"),
    ],
)
def test_a_file_of_classes_that_cannot_be_right(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(ConfigError, match=said):
        ClassList.load(str(tmp_path / "classes.json"))

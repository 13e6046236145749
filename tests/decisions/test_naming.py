"""Decisions go by name: they mean the same whatever order `data.classes` has, and what no longer fits is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rayclean.config import Config
from rayclean.decisions.decisions import latest, read_decisions, settle
from rayclean.decisions.entries import Choice, Classes, Entry, read_entries
from rayclean.decisions.naming import REVIEW, SAME, Naming, compared, log_name, note_classes
from rayclean.errors import ConfigError, InputError
from rayclean.run.pipeline import compute
from rayclean.run.run import Run
from rayclean.run.start import look
from rayclean.schema import DROPPED
from rayclean.storage.contents import encode, read_table
from rayclean.storage.executor import Inline
from rayclean.storage.published import LABELS, MANIFEST, Published, TableFile
from rayclean.storage.store import Store
from tests.helpers import image_bytes, write_tar

PETS = ("cat", "dog", "fox", "owl")
THEN, LATER = "2026-01-01T00:00:00.000+00:00", "2100-01-01T00:00:00.000+00:00"


def named(key: str, given: str, choice: Choice = Choice.KEEP, label: str | None = None) -> Entry:
    return Entry(row=7, shard="a.tar", key=key, given=given, decision=choice, label=label, time=THEN)


def numbered(key: str, given: int, choice: Choice = Choice.KEEP, label: int | None = None, time: str = THEN) -> bytes:
    """A line as releases wrote it that had no names."""
    line = {"row": 7, "shard": "a.tar", "key": key, "given": given, "decision": choice, "label": label, "time": time}
    return json.dumps(line).encode() + b"\n"


def log(run: Path, *lines: bytes, who: str = "anna") -> Path:
    path = run / log_name(who)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(lines))
    return path


def table(run: Path, classes: Sequence[str], given: dict[str, int], *, is_old: bool = False) -> Store:
    """A published table, as far as it tells which classes a log is about; an earlier release's names none."""
    store = Store(str(run))
    part = pa.table({"shard": ["a.tar"] * len(given), "key": list(given), "given_label": list(given.values())})
    entries = []
    for name, content in (("part-00000.parquet", part), ("classes.parquet", pa.table({"name": list(classes)}))):
        data = encode(name, content, "{}")
        store.publish(f"{LABELS}/{name}", data)
        entries.append(TableFile.of(name if is_old else f"{LABELS}/{name}", data).to_json())
    manifest = {"merge": "merge-1", "files": entries} | ({} if is_old else {"classes": list(classes)})
    store.publish(MANIFEST, encode(MANIFEST, manifest, "{}"))
    return store


def said(run: Path, classes: Sequence[str], told: Sequence[str] | str | None = None) -> dict[str, str | int]:
    """What a run with such classes makes of its logs, by name."""
    store = Store(str(run))
    found = read_decisions(store, Naming.of_run(store, classes, told))
    return (
        {}
        if found is None
        else {key: DROPPED if label == DROPPED else classes[label] for _, key, label in found.labels}
    )


CHOICES = st.sampled_from([Choice.KEEP, Choice.RELABEL, Choice.DROP, Choice.UNSURE, Choice.UNDO])
LINES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), CHOICES, st.integers(0, 3)), max_size=8)
SAID = {"a": "fox", "b": "dog", "c": DROPPED}
NEW = [
    Classes(classes=PETS).encode(),
    named("a", "cat", Choice.RELABEL, "fox").encode(),
    named("b", "dog").encode(),
    named("c", "fox", Choice.DROP).encode(),
]
OLD = [numbered("a", 0, Choice.RELABEL, 2), numbered("b", 1), numbered("c", 2, Choice.DROP)]
GIVEN = {"a": 0, "b": 1, "c": 2}


@given(LINES, st.permutations(PETS), st.booleans())
def test_decisions_mean_the_same_by_name_in_any_order_of_the_classes(
    lines: list[tuple[str, int, Choice, int]], order: list[str], has_numbers: bool
) -> None:
    said = [(key, was, choice, to if choice == Choice.RELABEL else None) for key, was, choice, to in lines]
    expected = [named(k, PETS[was], choice, None if to is None else PETS[to]) for k, was, choice, to in said]
    data = Classes(classes=PETS).encode() + b"".join(each.encode() for each in expected)
    if has_numbers:
        data = b"".join(numbered(*each) for each in said)
    naming = Naming(tuple(order), noted={"anna": PETS})
    entries = read_entries(data, "log", lambda classes: naming.names_now("anna", classes)).entries
    assert entries == expected
    assert settle({"anna": latest(entries)}) == settle({"anna": latest(expected)})


@given(st.permutations(range(4)))
def test_new_names_place_by_place_are_a_renaming(order: list[int]) -> None:
    """What is told names the log's classes in the log's order, whatever order the run has."""
    new = [f"new {name}" for name in PETS]
    naming = Naming(tuple(new[i] for i in order), told=tuple(new))
    entries = read_entries(b"".join(NEW), "log", lambda classes: naming.names_now("anna", classes)).entries
    assert [(each.given, each.label) for each in entries] == [
        ("new cat", "new fox"), ("new dog", None), ("new fox", None)
    ]  # fmt: skip


def test_a_log_with_names_needs_nothing_else(tmp_path: Path) -> None:
    log(tmp_path, *NEW)
    assert said(tmp_path, PETS) == SAID
    assert said(tmp_path, PETS[::-1]) == SAID
    assert said(tmp_path, ["emu", *PETS]) == SAID


def test_decisions_that_mean_the_same_have_one_digest(tmp_path: Path) -> None:
    """An old log and a new one, and one that went through another order of the classes."""
    digests = set()
    for lines in (NEW, OLD, [Classes(classes=PETS[::-1]).encode(), *NEW[1:]], [NEW[0], *OLD]):
        log(tmp_path, *lines)
        naming = Naming(PETS, noted={"anna": PETS})
        found = read_decisions(Store(str(tmp_path)), naming)
        assert found is not None
        digests.add(found.digest)
    assert len(digests) == 1


def test_a_class_that_is_gone_is_refused_with_the_row(tmp_path: Path) -> None:
    log(tmp_path, *NEW)
    with pytest.raises(InputError) as caught:
        said(tmp_path, ["cat", "dog", "owl"])
    for words in ("review/anna.jsonl: row 7, key a of a.tar: 'fox' is none of", "cat, dog, fox, owl", "cat, dog, owl",
                  "merge.verified_classes"):  # fmt: skip
        assert words in str(caught.value)


def test_a_class_that_is_called_otherwise_is_for_people_to_settle(tmp_path: Path) -> None:
    log(tmp_path, *NEW)
    renamed = ["cat", "dog", "vixen", "owl"]
    with pytest.raises(InputError, match="'fox' is none of the run's classes"):
        said(tmp_path, renamed)
    expected = {"a": "vixen", "b": "dog", "c": DROPPED}
    assert said(tmp_path, renamed, SAME) == expected
    assert said(tmp_path, renamed[::-1], renamed) == expected
    (tmp_path / "names.txt").write_text("\n".join(renamed))
    assert said(tmp_path, renamed[::-1], str(tmp_path / "names.txt")) == expected
    log(tmp_path, NEW[0], NEW[2])
    assert said(tmp_path, renamed) == {"b": "dog"}, "no decision is about it"


def test_what_is_told_must_be_enough(tmp_path: Path) -> None:
    log(tmp_path, *NEW)
    with pytest.raises(ConfigError, match=r"merge\.verified_classes names 2 classes, review/anna\.jsonl is about 4"):
        said(tmp_path, ["vixen", "owl"], SAME)
    with pytest.raises(ConfigError, match=r"merge\.verified_classes: 'cat' is there twice"):
        said(tmp_path, PETS, ["cat", "cat"])


@pytest.mark.parametrize("is_old", [True, False])
def test_an_old_log_is_read_by_the_table_that_it_was_made_over(is_old: bool, tmp_path: Path) -> None:
    log(tmp_path, *OLD)
    note_classes(table(tmp_path, PETS, GIVEN, is_old=is_old))
    turned = PETS[::-1]
    assert said(tmp_path, turned) == SAID
    table(tmp_path, turned, {key: turned.index(PETS[label]) for key, label in GIVEN.items()})
    note_classes(Store(str(tmp_path)))
    assert said(tmp_path, turned) == SAID, "another table has taken that one's place"


def test_an_old_log_and_nothing_is_refused_with_both_lists(tmp_path: Path) -> None:
    log(tmp_path, *OLD)
    note_classes(Store(str(tmp_path)))
    with pytest.raises(InputError, match=r"review/anna\.jsonl has classes by number.*4 classes of the run: cat, dog"):
        said(tmp_path, PETS)
    turned = PETS[::-1]
    note_classes(table(tmp_path, turned, {"a": 3, "b": 2, "c": 1}))  # made over other classes: given labels differ
    with pytest.raises(InputError) as caught:
        said(tmp_path, PETS)
    for words in ("the published table: owl, fox, dog, cat", "the run: cat, dog, fox, owl", "merge.verified_classes"):
        assert words in str(caught.value)
    assert said(tmp_path, PETS, SAME) == SAID
    assert said(tmp_path, turned, list(PETS)) == SAID


def test_a_table_that_may_be_a_later_one_tells_only_of_classes_that_it_confirms(tmp_path: Path) -> None:
    """Given labels that fit say nothing of a class that no decided sample has: it may have had another place."""
    line, confirms = numbered("a", 0, Choice.RELABEL, 2), numbered("c", 2)
    table(tmp_path, PETS, GIVEN)
    for lines, is_told in (
        ([line], False),
        ([line, confirms], True),
        ([numbered("a", 0, Choice.RELABEL, 2, LATER)], True),
    ):
        path = log(tmp_path, *lines)
        note_classes(Store(str(tmp_path)))
        note = path.with_suffix(".classes.json")
        assert note.exists() == is_told
        note.unlink(missing_ok=True)


@pytest.mark.parametrize("time", [THEN, LATER])
@pytest.mark.parametrize(("key", "given_label"), [("gone", 0), ("a", 1), ("a", 9)])
def test_a_table_of_other_samples_or_labels_tells_nothing(
    key: str, given_label: int, time: str, tmp_path: Path
) -> None:
    log(tmp_path, numbered("b", 1, time=time) if key == "a" else b"", numbered(key, given_label, time=time), b'{"row":')
    note_classes(table(tmp_path, PETS, GIVEN))
    with pytest.raises(InputError, match="nothing tells for sure"):
        said(tmp_path, PETS)


def test_a_log_or_a_table_that_cannot_be_read_stops_nobody_who_does_not_ask(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log(tmp_path, b"garbage\n", *OLD)
    log(tmp_path, *OLD, who="ben")
    table(tmp_path, PETS, GIVEN).publish(f"{LABELS}/part-00000.parquet", b"damaged")
    note_classes(Store(str(tmp_path)))
    said_of = [each.getMessage().partition(":")[0] for each in caplog.records]
    assert said_of == ["review/anna.jsonl", "review/ben.jsonl"]


def test_a_number_that_is_no_class_is_refused_with_the_row(tmp_path: Path) -> None:
    log(tmp_path, *OLD, numbered("d", 9))
    with pytest.raises(InputError, match=r"anna\.jsonl, line 4: row 7, key d of a\.tar: has class 9 of 4"):
        said(tmp_path, PETS, SAME)


def test_a_line_that_a_crash_cut_is_said_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log(tmp_path, *NEW[:3], NEW[3][:40])
    assert said(tmp_path, PETS) == {"a": "fox", "b": "dog"}
    assert [each.message.partition(":")[0] for each in caplog.records] == ["review/anna.jsonl"]
    log(tmp_path, *NEW[:2], b"\xff\xfe garbage\n", NEW[3])
    with pytest.raises(InputError, match=r"review/anna\.jsonl, line 3: is no decision"):
        said(tmp_path, PETS)


def test_long_lists_are_shown_where_they_differ() -> None:
    names = [f"class {i}" for i in range(1000)]
    other = [*names[:500], "new", *names[501:], "more"]
    assert compared(("the log", names), ("the run", other)) == (
        "1000 classes of the log and 1001 of the run differ at 500: 'class 500' / 'new', 1000: none / 'more'"
    )
    text = compared(("the log", names), ("the run", names[::-1]))
    assert text.endswith("and 997 more")
    assert len(text) < 300


def test_the_published_classes_of_any_release(tmp_path: Path) -> None:
    for is_old in (True, False):
        assert Published.open(table(tmp_path, PETS, GIVEN, is_old=is_old)).names == PETS


# ---- a whole run, whose shards name their labels


@pytest.fixture
def pets(tiny_config: Callable[..., Config], tmp_path: Path) -> Callable[..., Config]:
    """Config of a run on 40 images of four named classes, classes in any order."""
    rng = np.random.default_rng(0)
    members = []
    for i in range(40):
        image = image_bytes(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8))
        members += [(f"k{i:02d}.png", image), (f"k{i:02d}.cls", PETS[i % 4].encode())]
    write_tar(tmp_path / "pets.tar", members)

    def make(classes: Sequence[str], *more: str) -> Config:
        return tiny_config(
            tmp_path / "run", f"data.shards={tmp_path}/pets.tar", "data.truth=", f"data.classes=[{', '.join(classes)}]",
            "train.epochs=1", "train.from=", "scores=[loss]", *more,
        )  # fmt: skip

    return make


def test_a_run_takes_the_same_decisions_after_the_classes_were_put_in_another_order(
    pets: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    """What went wrong: "keep cat" became `verified_label` fox, with a score of 0."""
    finish(pets(PETS))
    old = [
        numbered("k00", 0),
        numbered("k05", 1, Choice.RELABEL, 2),
        numbered("k10", 2, Choice.DROP),
        numbered("k03", 3),
    ]
    log(tmp_path / "run", *(each.replace(b"a.tar", b"pets.tar") for each in old))
    turned = (*PETS[2:], *PETS[:2])
    for _ in range(2):  # the second time the table has the new order already
        run = finish(pets(turned, f"merge.verified={REVIEW}"))
        assert Published.open(run.store).names == turned
        found = _by_key(run)
        assert found["k00"] == ("cat", 1.0)
        assert found["k05"] == ("fox", 0.0)
        assert found["k10"] == ("none", 0.0)
        assert found["k03"] == ("owl", 1.0)
    new = [
        Classes(classes=PETS).encode(),
        named("k00", "cat").encode(),
        named("k05", "dog", Choice.RELABEL, "fox").encode(),
    ]
    new += [named("k10", "fox", Choice.DROP).encode(), named("k03", "owl").encode()]
    log(tmp_path / "run", *(each.replace(b"a.tar", b"pets.tar") for each in new))
    assert look(run.config, run.store).merge()[0].folder == run.merge()[0].folder, "the same in words is the same table"


def test_a_row_that_has_another_given_label_now_is_refused_before_anything_is_trained(
    pets: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    run = finish(pets(PETS))
    lines = [named("k00", "cat"), named("k01", "fox", Choice.DROP), named("k02", "owl", Choice.UNSURE)]
    lines += [named("gone", "fox", Choice.DROP)]
    data = b"".join(each.encode() for each in lines).replace(b"a.tar", b"pets.tar")
    log(tmp_path / "run", Classes(classes=PETS).encode(), data)
    config = pets(PETS, f"merge.verified={REVIEW}", "train.epochs=2")
    with pytest.raises(InputError) as caught:
        compute(look(config, run.store), Inline(), Console(quiet=True))
    for words in (
        "review/anna.jsonl: row 7, key k01 of pets.tar",
        "'fox', now it is 'dog'; decide",
        "verified_classes",
    ):
        assert words in str(caught.value)


def _by_key(run: Run) -> dict[str, tuple[str, float]]:
    names = [*run.classes.names, "none"]  # -1
    tables = [read_table(run.store, f"labels/{name}") for name in run.store.list("labels") if name.startswith("part-")]
    return {
        line["key"]: (names[line["verified_label"]], line["label_score"])
        for each in tables
        for line in each.to_pylist()
        if line["verified_label"] is not None
    }

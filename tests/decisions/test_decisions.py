"""Decisions of a review: what logs say together, and what a run makes of them."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.config import Config
from rayclean.decisions.decisions import Decisions, agreed, latest, read_decisions, settle, standing
from rayclean.decisions.entries import Choice, Classes, Entry, Verdict, read_entries
from rayclean.decisions.naming import REVIEW, Naming, log_name
from rayclean.errors import InputError
from rayclean.merge.stage import MODEL
from rayclean.run.run import Run
from rayclean.schema import DROPPED
from rayclean.storage.contents import read_table
from rayclean.storage.published import Published
from rayclean.storage.store import Store

Tiny = Callable[..., Config]
Finish = Callable[..., Run]


NAMES = tuple(str(i) for i in range(6))  # of the tiny run
NAMING = Naming(NAMES)


def entry(key: str, decision: Choice, label: str | None = None, given_label: str = "0", shard: str = "a.tar") -> Entry:
    return Entry(row=3, shard=shard, key=key, given=given_label, decision=decision, label=label, time="now")


def read(data: bytes, name: str = "log") -> tuple[list[Entry], int]:
    found = read_entries(data, name, lambda classes: classes or ())
    return found.entries, found.whole


CHOICES = st.sampled_from([(choice, None) for choice in Choice if choice != Choice.RELABEL] + [(Choice.RELABEL, "2")])
ENTRIES = st.lists(st.builds(lambda key, says: entry(key, *says), st.sampled_from("abc"), CHOICES), max_size=12)


def encoded(entries: list[Entry]) -> bytes:
    return b"".join(each.encode() for each in entries)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])), CHOICES)
def test_a_line_is_read_as_it_was_written(key: str, shard: str, says: tuple[Choice, str | None]) -> None:
    line = entry(key, *says, shard=shard)
    assert line.encode().count(b"\n") == 1
    assert read(line.encode()) == ([line], len(line.encode()))


@given(st.lists(st.builds(lambda key, says: entry(key, *says), st.sampled_from("aй"), CHOICES), min_size=1, max_size=3))
def test_a_log_that_is_cut_anywhere_keeps_every_whole_line(entries: list[Entry]) -> None:
    data = encoded(entries)
    ends = list(itertools.accumulate(len(each.encode()) for each in entries))
    for cut in range(len(data) + 1):
        found, whole = read(data[:cut])
        # A line that lacks its end alone is whole.
        assert found == entries[: sum(end - 1 <= cut for end in ends)]
        assert data[:whole].rstrip(b"\n") == encoded(found).rstrip(b"\n")
        assert cut - whole < max(len(each.encode()) for each in entries)


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"nonsense",
        b"\0\0\0",
        entry("a", Choice.KEEP).encode().replace(b'"keep"', b'"keeep"').strip(),
        entry("a", Choice.KEEP).encode().replace(b'"row": 3', b'"row": "3"').strip(),
        entry("a", Choice.KEEP).encode().replace(b'"row": 3', b'"row": %d' % 2**70).strip(),
        entry("a", Choice.KEEP).encode().replace(b'"given": "0"', b'"given": -1').strip(),
        b"[" * 100_000,
        b'{"classes": []}',
        b'{"classes": ["cat", "dog", "cat"]}',
        b'{"classes": "cat"}',
        entry("a", Choice.KEEP).encode().replace(b'"label": null', b'"label": "4"').strip(),
        entry("a", Choice.RELABEL, "4").encode().replace(b'"label": "4"', b'"label": null').strip(),
        entry("a", Choice.RELABEL, "4").encode().replace(b'"label": "4"', b'"label": 4').strip(),
    ],
)
def test_a_line_in_the_middle_that_is_none_is_an_error_that_names_it(line: bytes) -> None:
    good = entry("a", Choice.KEEP).encode()
    with pytest.raises(InputError, match=r"anna\.jsonl, line 2: is no decision"):
        read(good + line + b"\n" + good, "anna.jsonl")


@given(ENTRIES)
def test_undo_takes_back_the_last_decision_that_stands(entries: list[Entry]) -> None:
    stacks: dict[str, list[Entry]] = {}
    for each in entries:
        stack = stacks.setdefault(each.key, [])
        if each.decision != Choice.UNDO:
            stack.append(each)
        elif stack:
            stack.pop()
    assert latest(entries) == {("a.tar", key): stack[-1] for key, stack in stacks.items() if stack}
    stand = standing(entries)
    assert sorted(map(id, stand)) == sorted(id(each) for stack in stacks.values() for each in stack)
    assert [id(each) for each in entries if any(each is one for one in stand)] == list(map(id, stand))


@pytest.mark.parametrize(
    ("says", "verified"),
    [
        ((Choice.KEEP, None), "7"),
        ((Choice.RELABEL, "2"), "2"),
        ((Choice.DROP, None), DROPPED),
        ((Choice.UNSURE, None), None),
    ],
)
def test_what_a_decision_says_of_the_label(says: tuple[Choice, str | None], verified: Verdict | None) -> None:
    one = entry("a", *says, given_label="7")
    assert one.verified == verified
    labels = settle({"anna": {one.sample: one}}).labels
    assert labels == ({one.sample: verified} if verified is not None else {})


@pytest.mark.parametrize(
    ("said", "holds"),
    [
        ([], None),
        ([None], None),
        ([1], 1),
        ([1, None, None], 1),
        ([1, 2], None),
        ([1, 2, 1], 1),
        ([1, 2, 3], None),
        ([1, 1, 2, 2], None),
        ([DROPPED, 0], None),
        ([DROPPED, DROPPED, 0], DROPPED),
    ],
)
def test_what_more_than_half_say_holds(said: list[int | None], holds: int | None) -> None:
    for order in itertools.permutations(said):
        assert agreed(order) == holds


def test_those_who_differ_are_listed_until_one_of_them_decides_otherwise() -> None:
    keep, drop = entry("a", Choice.KEEP, given_label="4"), entry("a", Choice.DROP)
    outcome = settle({"anna": latest([keep]), "ben": latest([drop])})
    assert outcome == ({}, [keep.sample])
    same = entry("a", Choice.RELABEL, "4", given_label="4")
    outcome = settle({"anna": latest([keep]), "ben": latest([drop, same])})
    assert outcome == ({keep.sample: "4"}, [])


def digest_of(logs: Mapping[str, list[Entry]]) -> str:
    return Decisions.make(settle({who: latest(entries) for who, entries in logs.items()}).labels, NAMES).digest


@given(ENTRIES, ENTRIES, ENTRIES)
def test_the_digest_hangs_on_the_outcome_alone(anna: list[Entry], ben: list[Entry], more: list[Entry]) -> None:
    logs = {"anna": anna, "ben": ben}
    assert digest_of(logs) == digest_of({"ben": ben, "anna": anna}) == digest_of({"x": ben, "y": anna})
    undone = [copy for each in more if each.decision != Choice.UNDO for copy in (each, entry(each.key, Choice.UNDO))]
    assert digest_of({"anna": anna + undone, "ben": ben}) == digest_of(logs)
    later = [each.model_copy(update={"time": "later", "row": 9}) for each in anna]
    assert digest_of({"anna": later, "ben": ben}) == digest_of(logs)
    new = entry("new", Choice.KEEP)
    assert digest_of({"anna": [*anna, new], "ben": ben}) != digest_of(logs)
    assert digest_of({"anna": [*anna, entry("new", Choice.UNSURE)], "ben": ben}) == digest_of(logs)


def write_log(folder: str | Path, reviewer: str, *entries: Entry, torn: bytes = b"") -> None:
    path = Path(folder, log_name(reviewer))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(Classes(classes=NAMES).encode() + encoded(list(entries)) + torn)


def rows_of(run: Run) -> dict[str, dict[str, object]]:
    tables = [read_table(run.store, f"labels/{name}") for name in run.store.list("labels") if name.startswith("part-")]
    return {row["key"]: row for table in tables for row in table.to_pylist()}


def about(row: Mapping[str, object], decision: Choice, label: int | None = None) -> Entry:
    """A decision on a row of the table."""
    facts = {"row": row["row"], "shard": row["shard"], "key": row["key"], "given": str(row["given_label"])}
    return Entry.model_validate(
        {**facts, "decision": decision, "label": None if label is None else str(label), "time": "now"}
    )


def test_a_run_takes_them_in(tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    plain = finish(tiny_config(tmp_path / "run", "scores=[loss, iofm]"))
    config = tiny_config(tmp_path / "run", "scores=[loss, iofm]", f"merge.verified={REVIEW}")
    assert finish(config).merge()[0].folder == plain.merge()[0].folder, "nobody has decided anything"

    before = rows_of(plain)
    given_label = before["k20"]["given_label"]
    assert isinstance(given_label, int)
    other = (given_label + 1) % 3
    anna = [about(before["k05"], Choice.KEEP), about(before["k20"], Choice.RELABEL, other)]
    ben = [about(before[key], Choice.DROP) for key in ("k07", "other")]
    ben += [about(before["k09"], Choice.UNSURE), about(before["k11"], Choice.DROP), about(before["k11"], Choice.UNDO)]
    disputed = [about(before["k13"], Choice.KEEP)], [about(before["k13"], Choice.DROP)]
    write_log(config.run.dir, "anna", *anna, *disputed[0])
    write_log(config.run.dir, "ben", *ben, *disputed[1], torn=b'{"row": 1')
    run = finish(config)
    assert run.merge()[0].folder != plain.merge()[0].folder
    assert run.main.trained.folder == plain.main.trained.folder
    assert {name for name in run.store.list("") if name.startswith("merge-")} == {
        each.merge()[0].folder for each in (plain, run)
    }

    after = rows_of(run)
    kept, moved = after["k05"], after["k20"]
    assert (kept["verified_label"], kept["label_score"], kept["is_label_issue"]) == (kept["given_label"], 1.0, False)
    assert (moved["verified_label"], moved["predicted_label"], moved["label_score"]) == (other, other, 0.0)
    for key in ("k07", "other"):
        dropped = after[key]
        assert dropped["verified_label"] == -1
        assert (dropped["label_score"], dropped["predicted_score"], dropped["is_label_issue"]) == (0.0, 1.0, True)
        assert dropped["issue_kind"] == "none_of_the_classes"
    others = set(after) - {"k05", "k20", "k07", "other"}
    assert all(after[key]["verified_label"] is None for key in others)
    order = [sorted(others, key=lambda key, rows=rows: (rows[key]["label_score"], key)) for rows in (before, after)]  # type: ignore[misc]
    assert order[0] == order[1]
    assert Published.open(run.store).summary()["verified"] == 4
    assert "-1 none of the classes" in _meaning(run)


def _meaning(run: Run) -> str:
    field = read_table(run.store, Published.open(run.store).parts[0]).schema.field("verified_label")
    return str(field.metadata[b"meaning"].decode())


def test_dropped_rows_lower_what_is_believed_of_the_others(tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    """Rows that the model believes in and people drop count as wrong in the calibration."""
    plain = finish(tiny_config(tmp_path / "run", "scores=[loss, iofm]"))
    before = rows_of(plain)
    sure = sorted(before, key=lambda key: float(str(before[key]["label_score"])))[-8:]
    config = tiny_config(tmp_path / "run", "scores=[loss, iofm]", f"merge.verified={REVIEW}")
    write_log(config.run.dir, "anna", *(about(before[key], Choice.DROP) for key in sure))
    after = rows_of(finish(config))
    rest = [key for key in after if key not in sure]
    assert sum(float(str(after[key]["label_score"])) for key in rest) < sum(
        float(str(before[key]["label_score"])) for key in rest
    )


def test_samples_that_are_no_rows_any_more_are_counted(tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    run = finish(tiny_config(tmp_path / "run", "scores=[loss]"))
    rows = rows_of(run)
    gone = [entry("gone", Choice.KEEP, shard="00.tar"), entry("k05", Choice.DROP, shard="elsewhere.tar")]
    config = tiny_config(tmp_path / "run", "scores=[loss]", f"merge.verified={REVIEW}")
    write_log(config.run.dir, "anna", about(rows["k05"], Choice.DROP), *gone)
    fit = finish(config).merge()[0]
    assert fit.verified is not None
    found = fit.verified.find(fit.files.catalog)
    assert (found.rows.tolist(), found.labels.tolist()) == ([rows["k05"]["row"]], [DROPPED])
    assert fit.verified.num_elsewhere(found) == 2
    facts = fit.open()(MODEL).facts
    assert (facts["verified"], facts["verified_elsewhere"]) == (1, 2)


def test_a_class_that_the_run_has_not_is_an_error(tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    run = finish(tiny_config(tmp_path / "run", "scores=[loss]"))
    write_log(run.store.root, "anna", about(rows_of(run)["k05"], Choice.RELABEL, 6))
    with pytest.raises(InputError, match=r"review/anna\.jsonl: row \d+, key k05 of .*'6' is none of the run's classes"):
        read_decisions(run.store, NAMING)


def test_a_worker_has_the_decisions_of_the_start(tmp_path: Path) -> None:
    write_log(tmp_path, "anna", entry("a", Choice.KEEP))
    decisions = read_decisions(Store(str(tmp_path)), NAMING)
    assert decisions is not None
    sent = pickle.dumps(decisions)
    write_log(tmp_path, "anna", entry("a", Choice.DROP))
    assert (
        pickle.loads(sent).digest
        == decisions.digest
        != getattr(read_decisions(Store(str(tmp_path)), NAMING), "digest", "")
    )


def test_logs_of_nothing_are_nothing(tmp_path: Path) -> None:
    assert read_decisions(Store(str(tmp_path)), NAMING) is None
    write_log(tmp_path, "anna", entry("a", Choice.UNSURE), torn=b"{")
    (tmp_path / REVIEW / "notes.txt").write_text("not a log")
    assert read_decisions(Store(str(tmp_path)), NAMING) is None

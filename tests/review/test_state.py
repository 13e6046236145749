"""A review at work: what is offered to whom, what is written, what is undone."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from rayclean.decisions.decisions import read_decisions
from rayclean.decisions.entries import Choice
from rayclean.decisions.naming import Naming, log_name
from rayclean.errors import ConfigError, InputError
from rayclean.review.queue import Queue
from rayclean.review.state import Review, View, parse_view
from rayclean.storage.store import Store
from tests.review.runs import read_log
from tests.review.tables import NAMES, queue, table

SCORES = [0.1, 0.2, 0.3, 0.8, 0.9]


def review(run: Path, *, held: int = 100) -> Review:
    return Review(run, lambda known: None if known else queue(SCORES, held))


def written(run: Path, reviewer: str) -> list[tuple[str, str, str | None]]:
    return [(each.key, each.decision.value, each.label) for each in read_log(run, reviewer)]


def agreed_on(run: Path) -> dict[str, int]:
    found = read_decisions(Store(str(run)), Naming(NAMES))
    return {key: label for _, key, label in found.labels} if found else {}


def test_a_row_that_one_has_decided_is_offered_to_no_other(tmp_path: Path) -> None:
    here = review(tmp_path)
    assert here.rows("anna", View.OPEN) == [0, 1, 2, 3, 4]
    here.decide("anna", 1, Choice.RELABEL, "cat")
    here.decide("anna", 0, Choice.UNSURE)
    for who in ("anna", "ben"):
        assert here.rows(who, View.OPEN) == [2, 3, 4]
    assert (here.rows("anna", View.MINE), here.rows("ben", View.MINE)) == ([0, 1], [])
    assert (here.rows("anna", View.OTHERS), here.rows("ben", View.OTHERS)) == ([], [1, 0])
    assert written(tmp_path, "anna") == [("k1", "relabel", "cat"), ("k0", "unsure", None)]
    assert not (tmp_path / log_name("ben")).exists(), "who only looks leaves nothing"
    assert agreed_on(tmp_path) == {"k1": 2}


def test_what_others_say_is_seen_once_it_is_decided(tmp_path: Path) -> None:
    here = review(tmp_path)
    here.decide("anna", 1, Choice.DROP)
    item = here.item("ben", 1, View.OTHERS)
    assert (item["num_others"], item["others"], item["mine"]) == (1, [], None)
    here.decide("ben", 1, Choice.KEEP)
    item = here.item("ben", 1, View.MINE)
    assert item["others"] == [{"decision": "drop", "label": None, "reviewer": "anna"}]
    assert item["mine"] == {"decision": "keep", "label": None}


def test_a_dispute_is_listed_until_it_is_settled(tmp_path: Path) -> None:
    here = review(tmp_path)
    here.decide("anna", 1, Choice.DROP)
    here.decide("ben", 1, Choice.KEEP)
    assert here.rows("eve", View.DISPUTED) == [1]
    assert (here.progress()["disputed"], here.progress()["agreed"]) == (1, 0)
    assert agreed_on(tmp_path) == {}
    assert [each["reviewer"] for each in here.item("eve", 1, View.DISPUTED)["others"]] == ["anna", "ben"]
    here.decide("eve", 1, Choice.KEEP)
    assert here.rows("eve", View.DISPUTED) == []
    assert (here.progress()["disputed"], here.progress()["agreed"]) == (0, 1)
    assert agreed_on(tmp_path) == {"k1": 1}


def test_undo_goes_back_one_by_one(tmp_path: Path) -> None:
    here = review(tmp_path)
    here.decide("anna", 0, Choice.KEEP)
    here.decide("anna", 1, Choice.DROP)
    here.decide("anna", 0, Choice.DROP)
    assert here.undo("anna") == 0
    assert here.item("anna", 0, View.OPEN)["mine"] == {"decision": "keep", "label": None}
    assert (here.undo("anna"), here.undo("anna"), here.undo("anna")) == (1, 0, None)
    assert here.rows("anna", View.OPEN) == [0, 1, 2, 3, 4]
    assert agreed_on(tmp_path) == {}
    assert [decision for _, decision, _ in written(tmp_path, "anna")] == ["keep", "drop", "drop", *["undo"] * 3]
    assert here.undo("ben") is None


def test_the_same_decision_twice_is_one(tmp_path: Path) -> None:
    here = review(tmp_path)
    for _ in range(2):
        here.decide("anna", 0, Choice.RELABEL, "cat")
    assert written(tmp_path, "anna") == [("k0", "relabel", "cat")]


def test_the_given_label_as_a_class_is_keep(tmp_path: Path) -> None:
    here = review(tmp_path)
    here.decide("anna", 1, Choice.RELABEL, "bee")
    assert written(tmp_path, "anna") == [("k1", "keep", None)]


@pytest.mark.parametrize(
    ("row", "choice", "label", "words"),
    [
        (9, Choice.KEEP, None, "no row 9"),
        (0, Choice.RELABEL, None, "expected a label with relabel"),
        (0, Choice.KEEP, "bee", "expected a label with relabel"),
        (0, Choice.UNDO, None, "decision undo"),
        (2**67, Choice.KEEP, None, "no row"),
        (-1, Choice.KEEP, None, "no row -1"),
        (0, Choice.RELABEL, "dog", "label 'dog' is none of the table's 3 classes"),
    ],
)
def test_what_cannot_be_is_refused_and_not_written(
    row: int, choice: Choice, label: str | None, words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        review(tmp_path).decide("anna", row, choice, label)
    assert agreed_on(tmp_path) == {}


def test_a_reviewer_whose_name_cannot_be_is_refused(tmp_path: Path) -> None:
    here = review(tmp_path)
    with pytest.raises(ConfigError):
        here.decide("../anna", 0, Choice.KEEP)
    with pytest.raises(ConfigError):
        here.rows("../anna", View.OPEN)
    with pytest.raises(ConfigError, match="expected one of open"):
        parse_view("all")


def test_the_next_rows_come_when_the_first_are_done(tmp_path: Path) -> None:
    here = review(tmp_path, held=2)
    seen = []
    while rows := here.rows("anna", View.OPEN):
        assert len(rows) <= 2
        seen.append(rows[0])
        here.decide("anna", rows[0], Choice.KEEP)
    assert seen == [0, 1, 2, 3, 4]
    progress = here.progress()
    assert (progress["done"], progress["total"], progress["flagged_left"]) == (5, 5, 0)


def test_a_new_start_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    first = review(tmp_path, held=2)
    first.decide("anna", 0, Choice.DROP)
    first.close()
    with (tmp_path / log_name("anna")).open("ab") as file:
        file.write(b'{"row": 1, "sha')
    second = review(tmp_path, held=2)
    assert second.rows("anna", View.OPEN) == [1, 2]
    assert second.repaired == ["anna"]
    progress = second.progress()
    assert (progress["done"], progress["total"], progress["flagged_left"]) == (1, 3, 2)
    assert progress["reviewers"] == [{"name": "anna", "done": 1}]
    assert second.undo("anna") == 0
    assert second.rows("anna", View.OPEN) == [0, 1, 2]
    progress = second.progress()
    assert (progress["done"], progress["total"], progress["flagged_left"]) == (0, 3, 3)


def test_what_another_process_writes_is_seen(tmp_path: Path) -> None:
    here, there = review(tmp_path), review(tmp_path)
    assert here.rows("anna", View.OPEN) == [0, 1, 2, 3, 4]
    there.decide("ben", 0, Choice.KEEP)
    assert here.rows("anna", View.OPEN) == [1, 2, 3, 4]
    there.decide("ben", 1, Choice.KEEP)
    assert here.item("anna", 1, View.OPEN)["num_others"] == 1
    assert here.progress()["reviewers"] == [{"name": "ben", "done": 2}]


def test_a_table_that_a_run_replaces_is_taken_in(tmp_path: Path) -> None:
    tables = [queue(SCORES), None, queue([0.9, 0.1, 0.9, 0.9, 0.9], merge="merge-2")]
    here = Review(tmp_path, lambda known: tables.pop(0))
    here.decide("anna", 0, Choice.KEEP)
    assert here.rows("anna", View.OPEN) == [1, 2, 3, 4]
    assert here.rows("anna", View.OPEN) == [1, 2, 3, 4]
    assert here.queue.merge == "merge-2"
    assert here.progress()["flagged_left"] == 1


def test_a_table_with_other_classes_gives_the_logs_the_same_names(tmp_path: Path) -> None:
    """Row 1 is a bee; the page has shown so."""
    tables = [queue(SCORES), queue(SCORES, merge="merge-2", names=("cat", "dog", "bee"))]
    here = Review(tmp_path, lambda known: tables.pop(0))
    here.decide("anna", 1, Choice.RELABEL, "cat", "bee")
    here.decide("anna", 2, Choice.RELABEL, "ant")
    here.rows("anna", View.MINE)
    assert here.queue.merge == "merge-2"
    assert here.item("anna", 1, View.MINE)["mine"]["label"] == {"label": 0, "name": "cat"}
    assert here.item("anna", 2, View.MINE)["mine"]["label"] == {"label": None, "name": "ant"}
    with pytest.raises(InputError, match="row 1 is labelled 'dog' now; load the page again"):
        here.decide("anna", 1, Choice.KEEP, None, "bee")
    here.undo("anna")
    here.decide("anna", 1, Choice.KEEP)
    assert [(each.given, each.label) for each in read_log(tmp_path, "anna")][-1] == ("dog", None)


def test_logs_are_read_again_where_the_classes_are_called_otherwise(tmp_path: Path) -> None:
    there = review(tmp_path)
    there.decide("ben", 1, Choice.RELABEL, "ant")
    tables = [queue(SCORES), queue(SCORES, merge="merge-2", names=("emu", "bee", "cat"))]
    here = Review(tmp_path, lambda known: tables.pop(0), lambda names: Naming(names, told=names))
    here.decide("anna", 1, Choice.RELABEL, "ant")
    assert here.progress()["agreed"] == 1
    here.rows("eve", View.OPEN)
    item = here.item("eve", 1, View.DISPUTED)
    assert [each["label"] for each in item["others"]] == [{"label": 0, "name": "emu"}] * 2


def test_an_equal_picture_is_shown_with_its_label(tmp_path: Path) -> None:
    here = review(tmp_path)
    assert here.item("anna", 3, View.OPEN)["duplicate_of"] == {"row": 0, "label": 0, "name": "ant"}
    assert here.item("anna", 0, View.OPEN)["duplicate_of"] is None


def test_of_many_classes_the_likely_and_the_latest_have_keys(tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(100)]
    here = Review(tmp_path, lambda known: None if known else queue(SCORES, names=names))

    def keys(row: int) -> dict[str, int]:
        return {each["key"]: each["label"] for each in here.item("anna", row, View.OPEN)["choices"]}

    assert keys(0) == {"1": 1, "2": 0, "3": 2}  # the suggestion, then the neighbours' labels
    here.decide("anna", 1, Choice.RELABEL, "class 70")
    here.decide("anna", 2, Choice.RELABEL, "class 99")
    assert keys(0) == {"1": 1, "2": 0, "3": 2, "4": 99, "5": 70}


def test_of_a_row_of_none_of_the_classes_no_class_is_suggested(tmp_path: Path) -> None:
    none = pa.array([-1] * len(SCORES), pa.int32())
    rows = table(SCORES)
    rows = rows.set_column(rows.schema.get_field_index("predicted_label"), rows.schema.field("predicted_label"), none)
    many = tuple(f"class {label}" for label in range(99))
    for names in (NAMES, many):
        found = Review(tmp_path, lambda known, names=names: None if known else Queue("m", names, ds.dataset(rows)))  # type: ignore[misc]
        item = found.item("anna", 0, View.OPEN)
        assert item["suggestion"] is None
        assert item["probability"] == 0.75
        assert all(choice["label"] >= 0 for choice in item["choices"])
        found.close()


def test_an_undefined_score_is_null(tmp_path: Path) -> None:
    assert review(tmp_path).item("anna", 1, View.OPEN)["scores"] == {"loss": None}

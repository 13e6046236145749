"""What `rayclean learn` prints holds all of the result, and no markup of strangers; its words are those of the file."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rayclean.learn.removal import Removal, Rightness
from rayclean.learn.result import Result, print_learned
from rayclean.learn.trial import Trial

SAID = "no accuracy: set learn.test to shards whose labels are right"


def trial(name: str = "on everything", accuracy: dict[int, float] | None = None, **more: Any) -> Trial:
    return Trial(name, "learn-1", accuracy or {}, **more)


def result_of(*trials: Trial, **removals: Removal) -> Result:
    return Result("odd", "learn/odd-1.json", list(trials), {trials[int(n[1:])].name: r for n, r in removals.items()})


def printed(result: Result, root: str = "/runs/one") -> list[str]:
    """As the command line's: a file of 160 columns."""
    sink = io.StringIO()
    print_learned(Console(file=sink, width=160, soft_wrap=True, highlight=False, emoji=False), root, result)
    return sink.getvalue().splitlines()


@given(st.dictionaries(st.integers(1, 9), st.floats(0, 1), min_size=1), st.floats(0, 1))
def test_each_network_is_a_line_of_its_figures(accuracy: dict[int, float], validation: float) -> None:
    _, line, kept = printed(result_of(trial("ODD", accuracy, validation={1: 0.0, 2: validation})))
    figures = max(accuracy.values()), accuracy[max(accuracy)], validation
    assert line.split() == ["ODD", *(f"{100 * value:.1f}%" for value in figures)]
    assert kept == "kept in /runs/one/learn/odd-1.json"


def test_what_a_lesson_left_out_is_told_and_what_was_undone() -> None:
    rightness = [Rightness(0.75, None, 0.5), Rightness(None, None, None), None]  # the last: of shards without a truth
    removals = {f"_{i}": Removal(1200, 0, 10_000, each) for i, each in enumerate(rightness)}
    rounds = [trial(f"round {i}", {1: 0.5}, undone=i == 2) for i in (1, 2, 3)]
    lines = printed(result_of(*rounds, **removals))
    assert lines[1].split()[-4:] == ["1,200", "of", "10,000", "75.0%"]
    assert lines[2].startswith("round 2 (undone)")
    assert [line.split()[-3:] for line in lines[2:4]] == [["1,200", "of", "10,000"]] * 2


def test_without_test_samples_the_field_that_names_them_is_named() -> None:
    assert SAID in printed(result_of(trial(), trial()))
    assert SAID not in printed(result_of(trial(), trial(accuracy={1: 0.0})))


@pytest.mark.parametrize("place", ["[red]/runs/x[/red]", "/runs/[/]", "s3://bucket/[bold]"])
def test_a_place_is_printed_as_it_is(place: str) -> None:
    assert printed(result_of(trial()), place)[-1] == f"kept in {place}/learn/odd-1.json"


def test_the_words_of_the_file_are_those_of_earlier_releases() -> None:
    choice = {"weight_decay": 0.1}
    rounds = [
        trial("plain", {1: 0.25}, correct="learn-1/c", choice=choice),
        trial("round 1", undone=False),
        trial("ODD", lesson="lesson-1/l", more={"folders": ["learn-0"]}),
    ]
    removals = {"_1": Removal(3, 0, 9, None), "_2": Removal(3, 1, 9, Rightness(None, 1.0, 0.5))}
    told = json.loads(json.dumps(result_of(*rounds, **removals).to_json()))["trials"]
    assert told[0] == {
        "name": "plain",
        "best": 0.25,
        "last": 0.25,
        "accuracy": {"1": 0.25},
        "validation": {},
        "removal": None,
        "facts": {"folder": "learn-1", "correct": "learn-1/c", "choice": choice},
    }
    assert told[1]["facts"] == {"folder": "learn-1", "lesson": None, "undone": False}
    assert told[2]["facts"] == {"folder": "learn-1", "lesson": "lesson-1/l", "folders": ["learn-0"]}
    counts = {"removed": 3, "rows": 9}
    assert told[1]["removal"] == {**counts, "relabelled": 0}
    truth = {"precision": None, "relabelled_right": 1.0, "kept_right": 0.5}
    assert told[2]["removal"] == {**counts, "relabelled": 1, **truth}

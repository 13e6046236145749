"""`rayclean init`: by options alone, and by questions."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from rayclean.cli import commands
from rayclean.config import load_config
from rayclean.inspect import doctor
from tests.feature_runs import clusters, write_feature_shards

Init = Callable[..., tuple[int, str, str]]


@pytest.fixture
def init(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Init:
    """Calls the command in an empty folder, without the check of the cluster, which starts Ray; code, out, err."""
    monkeypatch.setattr(doctor, "_cluster", lambda config: iter(()))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["rayclean", "init", *arguments])
        code = commands.call()
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, str | None]]]:
    """Has a person give these answers, empty for what is proposed; returns what was asked, with the proposals."""

    def answer(*answers: str | Exception) -> list[tuple[str, str | None]]:
        questions: list[tuple[str, str | None]] = []
        left: Iterator[str | Exception] = iter(answers)

        def prompt(question: str, default: str | None = None, **_: Any) -> str:
            questions.append((question, default))
            said = next(left)
            if isinstance(said, Exception):
                raise said
            return said or default or ""

        monkeypatch.setattr(typer, "prompt", prompt)
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        return questions

    return answer


def test_options_are_answers_and_the_rest_is_proposed(init: Init, tiny_shards: str, tmp_path: Path) -> None:
    code, out, err = init("mine.yaml", "--shards", tiny_shards, "--network", "nothing")
    config = load_config(tmp_path / "mine.yaml")
    assert (config.data.shards, config.data.label, config.data.classes) == (tiny_shards, "cls", 6)
    assert (config.run.dir, config.data.truth) == ("runs/mine", None)
    # One of its 53 samples has no label, which is more than a run takes: it is said, and the file is there.
    assert code == 2
    assert "error   " in out
    assert "mine.yaml is written, but its run would fail" in err


def test_what_was_checked_can_be_begun(init: Init, tiny_shards: str, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    shutil.copy(tiny_shards.replace("*", "01"), tmp_path / "shards/01.tar")
    code, out, _ = init(
        "--shards",
        "shards/*.tar",
        "--label",
        "cls",
        "--classes",
        "a,b,c,d,e,f",
        "--network",
        "nothing",
        "--run",
        "there",
    )
    assert code == 0
    assert "rayclean.yaml is written and checked; begin with: rayclean run rayclean.yaml" in out
    assert load_config("rayclean.yaml").data.classes == list("abcdef")
    assert load_config("rayclean.yaml").run.dir == "there"


def test_features_that_are_there_are_taken(init: Init, tmp_path: Path) -> None:
    shards = write_feature_shards(tmp_path / "shards", clusters())
    code, out, err = init("--shards", shards, "--yes")
    assert code == 0, out + err
    config = load_config("rayclean.yaml")
    assert (config.data.features, config.data.image, config.model.frozen) == ("npy", "none", False)


def test_without_a_terminal_what_is_not_told_is_named(init: Init, tmp_path: Path, tiny_shards: str) -> None:
    code, _, err = init()
    assert (code, "--shards is missing" in err) == (2, True)
    code, _, err = init("--shards", tiny_shards, "--label", "nowhere", "--yes")
    assert (code, "--classes is missing" in err) == (2, True)
    assert not (tmp_path / "rayclean.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--shards", "none/*.tar"), "no file matches"),
        (("--shards", "s3://me:secret@bucket/0.tar"), "carries credentials"),
        (("--label", "json:"), "label field 'json:'"),
        (("--classes", "a,a"), "'a' is there twice"),
        (("--network", "features"), "no member of the samples ends in npy"),
        (("no/such/folder/x.yaml",), "there is no folder no/such/folder"),
    ],
)
def test_a_wrong_option_is_one_line_and_nothing_is_written(
    arguments: tuple[str, ...], expected: str, init: Init, tiny_shards: str, tmp_path: Path
) -> None:
    others = () if "--shards" in arguments else ("--shards", tiny_shards)
    code, out, err = init(*arguments, *others, "--yes")
    assert (code, out) == (2, "")
    (line,) = err.strip().splitlines()
    assert expected in line
    assert "secret" not in line
    assert not list(tmp_path.glob("*.yaml"))


def test_a_config_that_is_there_stays(init: Init, tiny_shards: str, tmp_path: Path) -> None:
    (tmp_path / "rayclean.yaml").write_text("mine")
    code, _, err = init("--shards", tiny_shards, "--yes")
    assert (code, "is there already" in err) == (2, True)
    assert (tmp_path / "rayclean.yaml").read_text() == "mine"


def test_four_questions_make_a_config_and_wrong_answers_are_asked_again(
    init: Init, asked: Callable[..., list[tuple[str, str | None]]], tiny_shards: str, tmp_path: Path
) -> None:
    questions = asked("none.tar", tiny_shards, "", "cat,cat", "", "features", "nothing")
    _, _, err = init()
    assert [default for _, default in questions] == [None, None, "cls", "6", "6", "frozen", "frozen"]
    assert [question.split(" (")[0] for question, _ in questions[1::2]] == [
        "Where are the shards",
        "Which classes",
        "Which network",
    ]
    assert "cls, json:truth" in questions[2][0]
    assert ("no file matches" in err, "is there twice" in err, "ends in npy" in err) == (True, True, True)
    assert load_config("rayclean.yaml").data.classes == 6


def test_what_options_say_is_not_asked_nor_anything_with_yes(
    init: Init, asked: Callable[..., list[tuple[str, str | None]]], tiny_shards: str
) -> None:
    questions = asked("", "")
    init("a.yaml", "--shards", tiny_shards, "--network", "nothing")
    assert len(questions) == 2
    init("b.yaml", "--shards", tiny_shards, "--network", "nothing", "--yes")
    assert len(questions) == 2


def test_who_leaves_a_question_has_interrupted_it(
    init: Init, asked: Callable[..., list[tuple[str, str | None]]], tmp_path: Path
) -> None:
    asked(typer.Abort())
    code, _, err = init()
    assert (code, "interrupted" in err, "Traceback" in err) == (130, True, False)
    assert not list(tmp_path.glob("*.yaml"))

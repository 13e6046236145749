"""A config's text: nothing is there twice, nothing is too much, and what is wrong is told with its line."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from rayclean.config import Config, TrainSection, dump_config, load_config, yaml_text
from rayclean.errors import ConfigError
from rayclean.run.saved import load_run


def write(folder: Path, content: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(content)
    return path


BASE = "run: {dir: runs/x}\ndata: {shards: '*.tar', classes: 3}\n"
LAUGHS = "l0: &l0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BASE + "train: {epochs: 9}\nmerge: {}\ntrain: {lr: 1}\n", "line 5: train is there twice, first in line 3"),
        (BASE + "train:\n  lr: 3\n  seed: 0\n  'lr': 4\n", "line 6: train.lr is there twice, first in line 4"),
        (BASE + "train:\n  roles:\n    a: {lr: 1}\n    a: {lr: 2}\n", "line 6: train.roles.a is there twice"),
        (BASE + "train: " + "[" * 3000, "line 3: more than 32 levels"),
        (BASE + "train: " + "{a: " * 3000, "line 3: more than 32 levels"),
        (BASE + "".join(f"{' ' * i}a:\n" for i in range(1000)), "line 34: more than 32 levels"),
        ("".join(f"k{i}: &k{i} [{f'*k{i - 1}' if i else 1}]\n" for i in range(400)), "line 31: more than 32 levels"),
        (BASE + "train: &a\n  roles: *a\n", "line 4: the anchor 'a' is inside itself"),
        (BASE + "scores: &a [*a]\n", "line 3: the anchor 'a' is inside itself"),
        (BASE + LAUGHS, "line 7: more than 20000 values"),
        (BASE + "scores: [" + "a, " * 300_000 + "]", "line 3: more than 20000 values"),
        (BASE + "#" * 2**20, "line 1: more than 1048576 characters"),
        (BASE + "train:\n  epochs: 1e9\n", "line 4: train.epochs: .*found '1e9'"),
        (BASE + "train:\n\n  epochs: 1.0e+9\n", "line 5: train.epochs: .*found 1000000000.0"),
        (BASE + "train: {batch_size: 1000000000000000000000}\n", "line 3: train.batch_size: "),
        ("run: {dir: x}\ndata:\n  shards: a\n  classes: 1000000000000", "line 4: data.classes: at most 1000000"),
        ("run:\n  seed: 1\n  dir: ''\ndata: {shards: a, classes: 2}", "line 3: run.dir: a folder or URL expected"),
        ("run:\n  seed: 1\ndata: {shards: a, classes: 2}", "line 1: run.dir: required"),
        ('run: {dir: "a\\0b"}\ndata: {shards: a, classes: 2}', "line 1: run.dir: a folder or URL expected"),
        ('data: {shards: a, classes: 2}\nrun: {dir: "\\ud800"}', r"line 2: is not YAML: '\\ud800' is no str"),
        (BASE + "iofm: {num: 3}\n3: 4\n", "line 4: a name expected before the colon, found int"),
        (BASE + "? [a]\n: 1\n", "line 3: a name expected before the colon, found list"),
        (BASE + "scores:\n- a\n- [b]\n", "line 5: scores: "),
        (BASE + "blocks:\n  rows: 3000\n", r"line 4: blocks.table_rows \(1000000\) must be"),
        (BASE + "\nscores: [iofn]\n", "line 4: scores: unknown score 'iofn'"),
        (BASE + "x: !!timestamp foo", "line 3: is not YAML: 'foo' is no timestamp"),
        (BASE + "x: " + "9" * 5000, "line 3: is not YAML: '9+' is no int"),
        (BASE + "x: [1,\n\n", "line 5: is not YAML: "),
        (BASE + "x: \x01", "line 3: is not YAML: the character 0x1 is not allowed"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_told_with_its_line_within_a_second(content: str, said: str, tmp_path: Path) -> None:
    path = write(tmp_path, content)
    started_s = time.process_time()
    with pytest.raises(ConfigError, match=rf"config\.yaml: (line \d+: [^;]*; )*{said}") as caught:
        load_config(path)
    assert time.process_time() - started_s < 3  # 0.6 s where nothing else runs; a crowded processor is slower
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("command", ["run", "plan", "doctor"])
def test_a_wrong_config_is_told_before_anything_heavy_is_loaded(command: str, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom rayclean.cli.commands import call\ncode = call()\n"
        "print(code, sorted({'torch', 'ray', 'faiss', 'sklearn'} & set(sys.modules)))"
    )
    path = write(tmp_path, BASE + "train: {}\ntrain: {}\n")
    ended = subprocess.run(
        [sys.executable, "-c", code, command, str(path)], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "2 []\n"), ended.stderr
    assert "line 4: train is there twice" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BASE + "train: {}\ntrain: {}\n", "line 4: train is there twice"),
        ("run: 3\ndata: {shards: a, classes: 2}\n", "line 1: run: "),
        ("data: {shards: a, classes: 2}\n", "run: required, but not set"),
        ("[]", "expected sections"),
        ("\x01", "line 1: is not YAML"),
    ],
)
def test_a_runs_own_config_is_read_by_the_same_rules(content: str, said: str, tmp_path: Path) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ConfigError, match=f"{path}: {said}"):
        load_run(str(tmp_path))


def test_a_runs_own_config_may_be_longer_than_the_one_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yaml_text, "MAX_NODES", 400)
    path = write(tmp_path, BASE.replace("'*.tar'", f"[{'a, ' * 380}]"))
    saved = yaml.safe_dump(dump_config(load_config(path)))
    assert load_run(str(write(tmp_path, saved).parent)).data.shards == ["a"] * 380
    with pytest.raises(ConfigError, match="more than 400 values"):
        load_config(path)


def test_a_value_from_the_command_line_has_no_line(tmp_path: Path) -> None:
    path = write(tmp_path, BASE + "train:\n  epochs: 3\n")
    with pytest.raises(ConfigError, match=r"config\.yaml: train\.epochs: .*found -1"):
        load_config(path, ["train.epochs=-1"])


def test_anchors_and_merges_that_fit_are_read(tmp_path: Path) -> None:
    path = write(
        tmp_path, BASE + "train:\n  roles:\n    a: &a {lr: 0.5, epochs: 3}\n    b: {<<: *a, lr: 0.7}\n    c: *a\n"
    )
    config = load_config(path)
    assert [(config.train_of(role).lr, config.train_of(role).epochs) for role in "abc"] == [
        (0.5, 3),
        (0.7, 3),
        (0.5, 3),
    ]


def test_a_device_without_an_end_is_no_config() -> None:
    with pytest.raises(ConfigError, match="more than 1048576 characters"):
        load_config("/dev/zero")


def places(model: type[BaseModel], *inside: str) -> list[tuple[str, ...]]:
    """The fields of a section and of those in it."""
    found: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        here = (*inside, field.alias or name)
        found.append(here)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += places(field.annotation, *here)
    return found


ROLE = [("train", "roles", "x", field) for _, field in places(TrainSection, "")]
PLACES = [*places(Config), *ROLE, ("train", "roles", "x", "model"), ("train", "roles", "ce"), ("x",), ("train", "x")]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates()
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=5) | SCALARS, SCALARS, max_size=3)
NUMBERS = st.integers(-1, 3) | st.floats(0, 1) | st.lists(st.integers(0, 5), max_size=3)


PIECES = (
    "|a|run|train|dir|: |- |\n|  |\t|[|]|{|}|,|&a |*a|<<|!!int |!!set |!!omap |!!binary |!!python/name:os.system |? |> "
)
PIECES += "|\"|'|#|---|...|%YAML|0x|1e9|.inf|1:2|2001-01-01|~|\\|=|@|`|\ufeff|\x85|\u2028"


def config_or_refusal(content: bytes, path: Path, *overrides: str) -> None:
    path.write_bytes(content)
    try:
        assert isinstance(load_config(path, overrides), Config)
    except ConfigError as error:
        str(error).encode()  # and it can be printed


@settings(deadline=None, max_examples=150)
@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), NUMBERS | VALUES), min_size=1, max_size=3))
def test_any_values_make_a_config_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[tuple[str, ...], Any]]
) -> None:
    tree = yaml.safe_load(BASE)
    for place, value in changes:
        section = tree
        for name in place[:-1]:
            if not isinstance(section.get(name), dict):
                section[name] = {}
            section = section[name]
        section[place[-1]] = value
    config_or_refusal(yaml.safe_dump(tree).encode(), tmp_path_factory.mktemp("any") / "config.yaml")


@settings(deadline=None, max_examples=300)
@given(
    pieces=st.lists(st.sampled_from([*PIECES.split("|"), "|"]) | st.text(max_size=3)),
    rest=st.binary(max_size=8),
    valid=st.booleans(),
)
def test_any_text_makes_a_config_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str], rest: bytes, valid: bool
) -> None:
    text = (BASE if valid else "") + "".join(pieces)
    path = tmp_path_factory.mktemp("any") / "config.yaml"
    config_or_refusal(text.encode("utf-8", "replace") + (b"" if valid else rest), path, f"train.lr={''.join(pieces)}")

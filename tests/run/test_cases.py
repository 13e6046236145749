"""Inputs as people have them: rows, quarantine, what doctor and the run say, and how a run that is refused ends.

The same is asked of inputs that are made here and, where there are any, of those in the folder `RAYCLEAN_CASES`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console

from rayclean.catalog.stage import find_sources
from rayclean.config import load_config
from rayclean.errors import ConfigError, RaycleanError
from rayclean.inspect import doctor
from rayclean.run.pipeline import compute
from rayclean.run.start import ONE_WORKER, start
from rayclean.storage.contents import read_table
from rayclean.storage.executor import Inline
from rayclean.storage.store import Store
from rayclean.storage.units import block_name
from tests.run.case_images import UNDECODABLE
from tests.run.cases import BAD_LABELS, CASES, LABELS, NAMES, NUM_CLASSES, ONE_BASED, TWICE, make

ROOT = Path(__file__).parents[2]
GIVEN = Path(os.environ.get("RAYCLEAN_CASES", ROOT.parent / "shared/cases"))
IN_MEMORY = {"14-misaligned-features": "flagged", "17-pandas-labels": "AUROC"}
# As a command would train on two threads; whatever it writes beside its memory may end that process.
TRAINING = """
import sys
from rich.console import Console
from rayclean.catalog.stage import find_sources
from rayclean.cluster.nodes import Workers
from rayclean.config import load_config
from rayclean.run.pipeline import compute
from rayclean.run.start import start
from rayclean.storage.executor import Inline
from rayclean.storage.store import Store

config = load_config(sys.argv[1], [f"run.dir={sys.argv[2]}"])
workers = dict.fromkeys(("cpu", "gpu", "train"), Workers(1, 2, 0, "cpu"))
this = start(config, Store(config.run.dir), find_sources(config.data), workers, leaves_word=False)
compute(this, Inline(), Console(quiet=True), "train")
print("trained", this.main.last.epoch, flush=True)
"""


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of inputs that are made here."""
    root = tmp_path_factory.mktemp("cases")
    for name in (*CASES, TWICE):
        make(name, root)
    return root


@pytest.fixture(params=["made", "given"])
def root(request: pytest.FixtureRequest, made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of inputs, which configs find."""
    if request.param == "given" and not GIVEN.is_dir():
        pytest.skip("RAYCLEAN_CASES names no folder")
    folder = made if request.param == "made" else GIVEN
    monkeypatch.setenv("RAYCLEAN_CASES", str(folder))
    return folder


@dataclass
class Outcome:
    """What came of an input.

    Attributes:
        rows: label by key.
        bad: reason and text by key of each sample in quarantine.
        counts: what the catalog counts.
        error: that ended it.
    """

    rows: dict[str, int] = field(default_factory=dict)
    bad: dict[str, tuple[str, str]] = field(default_factory=dict)
    counts: dict[str, object] = field(default_factory=dict)
    error: RaycleanError | None = None


def outcome(config_file: Path, run_dir: Path, *overrides: str) -> Outcome:
    """As `rayclean run CONFIG --until catalog` does it, in this process."""
    config = load_config(config_file, [f"run.dir={run_dir}", *overrides])
    this = start(config, Store(config.run.dir), find_sources(config.data), ONE_WORKER, leaves_word=False)
    found = Outcome()
    try:
        compute(this, Inline(), Console(quiet=True), "catalog")
    except RaycleanError as error:
        found.error = error
    rows = this.catalog.rows_of_shard(0).select(["key", "label"]).to_pylist()
    found.rows = {row["key"]: row["label"] for row in rows}
    assert len(found.rows) == len(rows)
    found.counts = this.catalog.summary
    quarantine = read_table(this.store, f"{this.catalog.folder}/quarantine/{block_name(0)}.parquet").to_pylist()
    found.bad = {each["key"]: (each["reason"], each["text"]) for each in quarantine}
    return found


@pytest.mark.parametrize("name", CASES)
def test_rows_quarantine_and_words(name: str, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    case = CASES[name]
    found = outcome(root / name / "config.yaml", tmp_path / "run")
    assert len(found.rows) == found.counts["rows"] == case.rows
    assert found.counts["quarantined"] == dict(case.quarantined)
    assert Counter(reason for reason, _ in found.bad.values()) == case.quarantined
    assert found.counts["samples"] == case.rows + sum(case.quarantined.values())
    assert found.counts["strays"] == dict(case.strays)
    said = caplog.text if found.error is None else str(found.error)
    assert (found.error is None) == bool(case.rows)
    assert found.error is None or found.error.exit_code == 2
    assert case.said in said if case.said else not said


@pytest.mark.parametrize("name", CASES)
def test_doctor_says_it_before_the_run(name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_cluster", lambda config: iter(()))  # that asks Ray, and nothing of the shards
    case = CASES[name]
    config = load_config(root / name / "config.yaml", [f"run.dir={tmp_path / 'run'}"])
    _, shard, folder = doctor.examine(config)
    assert folder.level == "ok"
    assert f"{case.rows:,} rows" in shard.text
    assert all(reason in shard.text for reason in case.quarantined)
    assert all(f"{kind} {count}" in shard.text for kind, count in case.strays.items())
    assert (shard.level == "error") == bool(case.said)
    assert (ONE_BASED in shard.text) == (case.said == ONE_BASED)


def test_the_labels_are_those_that_were_meant(root: Path, tmp_path: Path) -> None:
    for name, start_of_key in (("01-appledouble", "train/"), ("02-info-json", ""), ("04-hardlinks", "")):
        rows = outcome(root / name / "config.yaml", tmp_path / name).rows
        assert rows == {f"{start_of_key}{i:04d}": i % NUM_CLASSES for i in range(60)}


def test_labels_from_1_are_rows_once_the_config_says_so(root: Path, tmp_path: Path) -> None:
    found = outcome(root / "03-one-based/config.yaml", tmp_path / "run", "data.label_offset=1")
    assert found.bad == {}
    assert sorted(found.rows.values()) == [label for label in range(200) for _ in range(5)]


def test_folders_are_labels_once_the_config_says_so(root: Path, tmp_path: Path) -> None:
    found = outcome(root / "05-folder-labels/config.yaml", tmp_path / "run", "data.label=folder")
    assert found.error is None
    assert len(found.rows) == 60
    assert all(NAMES[label] == key.split("/")[0] for key, label in found.rows.items())


def test_images_of_each_kind(root: Path, tmp_path: Path) -> None:
    found = outcome(root / "06-image-kinds/config.yaml", tmp_path / "run")
    assert set(found.bad) == set(UNDECODABLE)
    for key, said in UNDECODABLE.items():
        assert said in found.bad[key][1]


def test_labels_of_each_form(root: Path, tmp_path: Path) -> None:
    found = outcome(root / "07-label-forms/config.yaml", tmp_path / "run")
    assert found.rows == {**dict.fromkeys(LABELS, 3), "minus0": 0}
    assert set(found.bad) == set(BAD_LABELS)
    assert "out of range: 0 <= label < 4" in found.bad["neg"][1]
    assert "one-hot" in found.bad["onehot"][1]


def test_keys_with_blanks_and_dots_before_them(root: Path, tmp_path: Path) -> None:
    found = outcome(root / "11-multi-ext/config.yaml", tmp_path / "run")
    assert set(found.rows) == {f"v1.0/sä mple {i:03d}" for i in range(30)}


def test_a_section_that_is_there_twice_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="line 5: train is there twice, first in line 3; keep one, or join") as caught:
        load_config(root / TWICE / "config.yaml")
    assert caught.value.exit_code == 2


@pytest.mark.slow
def test_a_network_of_4_channels_trains_on_two_threads(root: Path, tmp_path: Path) -> None:
    config = root / "00-width-under-16/config.yaml"
    # Threads that wait for each other by turning in circles take minutes where others are at work.
    env = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", TRAINING, str(config), str(tmp_path / "run")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "trained 2\n"), done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_MEMORY)
def test_arrays_in_memory_as_people_have_them(name: str) -> None:
    """What these scripts print of features in another order, and of Series with an index of their own."""
    if not GIVEN.is_dir():
        pytest.skip("RAYCLEAN_CASES names no folder; tests/memory asks the same of arrays of its own")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(GIVEN / name / "repro.py")], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Error" not in done.stdout
    lines = [line for line in done.stdout.splitlines() if IN_MEMORY[name] in line]
    assert len(lines) > 4
    for flagged, true in re.findall(r"flagged (\d+) of 2000 \(true (\d+)", done.stdout):
        assert abs(int(flagged) - int(true)) < 0.1 * int(true)
    assert all(float(found) > 0.95 for found in re.findall(r"AUROC ([\d.]+)", done.stdout))
    assert set(re.findall(r"given_label as passed:? ([\d.]+)", done.stdout)) <= {"1.0"}


def test_no_case_is_without_a_test() -> None:
    if not GIVEN.is_dir():
        pytest.skip("RAYCLEAN_CASES names no folder")
    assert {path.name for path in GIVEN.iterdir() if path.is_dir()} <= {*CASES, *IN_MEMORY, TWICE}

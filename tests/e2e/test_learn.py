"""`rayclean learn` on Ray, killed with all it started and given again: the same networks, the same record."""

from __future__ import annotations

import contextlib
import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from rayclean.storage.contents import read_json
from rayclean.storage.store import Store
from tools.faults.driver import BIN, Driver, Ended, Seen, labels, seen, started, wait_for
from tools.faults.run_folder import NUM_GOOD, RUN_TIMEOUT_S, Finished, RunFolder

pytestmark = pytest.mark.timeout(500)

EPOCHS = 2
ACCURACY = "learn-*/accuracy/epoch-*.json"
LAST_SNAPSHOTS = f"learn-*/snapshots/epoch-{EPOCHS:04d}.safetensors"
LESSONS = "lesson-*/*.safetensors"
RESULTS = "learn/*.json"


@dataclass(frozen=True)
class Learned:
    """A run that was learned from.

    Attributes:
        ended: what the last command left.
        before: for the killed one, the published files at the time of the kill.
    """

    run: RunFolder
    ended: Ended
    before: Seen


def _command(run: RunFolder) -> list[str]:
    """`rayclean learn` of two networks: one on all rows, one on those above the cut; three in ten labels are wrong."""
    test = (f"learn.test={run.load().data.shards}", "learn.test_label=json:truth")
    settings = (f"learn.train.epochs={EPOCHS}", "learn.retrain.cut=0.5", *test)
    return [str(BIN / "rayclean"), "learn", str(run.path), "--method", "retrain", "--json", *settings]


def _give(command: Sequence[str], env: dict[str, str], logs: Path) -> Ended:
    with started(command, env, logs) as driver:
        return driver.wait(RUN_TIMEOUT_S)


def _published(run: RunFolder) -> Seen:
    return {name: facts for kind in (ACCURACY, LAST_SNAPSHOTS, RESULTS) for name, facts in seen(run.path, kind).items()}


def _kill_all(driver: Driver) -> None:
    """As a machine that loses power: the driver first, so that it cannot tell of the others' end."""
    driver.kill()

    def gone() -> bool:
        for process in driver.living():
            with contextlib.suppress(psutil.Error):
                process.kill()
        return not driver.living()

    wait_for("the end of all that the driver started", gone, 60, pause_s=0.05)


@pytest.fixture(scope="module")
def unbroken(reference: Finished, env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Learned:
    """Learning without a break. Its folder may get more files; none of it changes."""
    run = reference.run.copy_without([], tmp_path_factory.mktemp("unbroken") / "run")
    ended = _give(_command(run), env, tmp_path_factory.mktemp("log"))
    assert ended.code == 0, ended.err
    return Learned(run, ended, {})


@pytest.fixture(scope="module")
def resumed(reference: Finished, env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Learned:
    """The same in another folder, killed after the first epoch of the first network, then given again."""
    run = reference.run.copy_without([], tmp_path_factory.mktemp("killed") / "run")
    logs = tmp_path_factory.mktemp("log")

    def first_accuracy(driver: Driver) -> Path | None:
        assert driver.process.poll() is None, driver.err.read_text()
        return next(run.path.glob(ACCURACY), None)

    with started(_command(run), env, logs / "first") as driver:
        wait_for("the first accuracy", lambda: first_accuracy(driver), RUN_TIMEOUT_S)
        _kill_all(driver)
    before = _published(run)
    ended = _give(_command(run), env, logs / "second")
    assert ended.code == 0, ended.err
    return Learned(run, ended, before)


def _trials(learned: Learned) -> list[dict[str, Any]]:
    trials: list[dict[str, Any]] = json.loads(learned.ended.out)["trials"]
    return trials


def _digests(folder: Path, pattern: str) -> dict[str, str]:
    return {name: digest for name, (_, _, digest) in seen(folder, pattern).items()}


def test_the_record_says_how_well_each_network_did_and_what_was_left_out(unbroken: Learned) -> None:
    plain, retrained = _trials(unbroken)
    for trial in (plain, retrained):
        assert list(trial["accuracy"]) == [str(epoch) for epoch in range(1, EPOCHS + 1)]
        assert 0 <= trial["last"] <= trial["best"] <= 1
    assert plain["removal"] is None
    removal = retrained["removal"]
    assert removal["rows"] == NUM_GOOD
    assert 0 < removal["removed"] < NUM_GOOD
    assert 0 <= removal["precision"] <= 1  # these shards have the truth


def test_what_is_printed_is_what_is_kept(unbroken: Learned) -> None:
    (kept,) = unbroken.run.path.glob(RESULTS)
    name = str(kept.relative_to(unbroken.run.path))
    assert read_json(Store(str(unbroken.run.path)), name) == json.loads(unbroken.ended.out)


@pytest.mark.slow
def test_a_killed_method_ends_with_the_same_bytes(unbroken: Learned, resumed: Learned) -> None:
    assert 0 < len(resumed.before) < len(_published(unbroken.run))
    assert not any(Path(name).match(RESULTS) for name in resumed.before)  # it was killed before its end
    for pattern, count in ((LAST_SNAPSHOTS, 2), (ACCURACY, 2 * EPOCHS), (LESSONS, 1), (RESULTS, 1)):
        expected = _digests(unbroken.run.path, pattern)
        assert len(expected) == count
        assert _digests(resumed.run.path, pattern) == expected
    assert _trials(resumed) == _trials(unbroken)


@pytest.mark.slow
def test_learning_leaves_the_table_as_it_was(reference: Finished, unbroken: Learned, resumed: Learned) -> None:
    for learned in (unbroken, resumed):
        assert labels(learned.run.path) == labels(reference.run.path)
        assert not list(learned.run.path.glob("learn-*/checkpoints/*"))  # nobody reads them any more


def test_the_report_of_that_run_opens_without_a_server(unbroken: Learned, env: dict[str, str], tmp_path: Path) -> None:
    folder = unbroken.run.path
    ended = _give([str(BIN / "rayclean"), "report", str(folder), "--top", "20"], env, tmp_path / "log")
    assert ended.code == 0, ended.err
    assert ended.out.strip() == f"open {folder}/report/index.html"
    pages = "".join(page.read_text() for page in (folder / "report").glob("*.html"))
    assert f"{NUM_GOOD}" in pages
    assert "http://" not in pages.replace("http://www.w3.org", "")


def test_an_export_as_csv_has_every_row_and_may_be_given_again(
    unbroken: Learned, env: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [str(BIN / "rayclean"), "export", str(unbroken.run.path), "--to", "csv", "--out", str(out), "--json"]
    ended = _give(command, env, tmp_path / "log")
    assert ended.code == 0, ended.err
    summary = json.loads(ended.out)
    lines = [line for part in sorted(out.glob("data/*.csv")) for line in csv.DictReader(part.open(newline=""))]
    assert [int(line["row"]) for line in lines] == list(range(NUM_GOOD))
    assert Counter(line["reason"] for line in lines) == summary["reasons"]
    assert 0 < sum(line["kept"] == "true" for line in lines) < NUM_GOOD == summary["exported"]
    files = _digests(out, "**/*")
    assert {"README.md", "croissant.json"} < set(files)
    again = _give(command, env, tmp_path / "again")
    assert (again.code, json.loads(again.out)) == (0, summary)
    assert _digests(out, "**/*") == files

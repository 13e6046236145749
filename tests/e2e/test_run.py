"""An unbroken run, what the commands say of it, and starts that find all or none of it done."""

from __future__ import annotations

import hashlib
import json
import os

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from rayclean.cli import commands
from rayclean.run.grow import STAGES, grow
from rayclean.run.start import look
from rayclean.schema import SCORES, label_schema
from rayclean.storage.lease import hold
from rayclean.storage.published import Published
from rayclean.storage.store import Store
from tools.faults.driver import labels, seen
from tools.faults.run_folder import NUM_BAD, NUM_GOOD, Finished, finish

pytestmark = pytest.mark.timeout(500)


@pytest.fixture(scope="module")
def again(reference: Finished, env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A copy of the finished run, started once more, with fewer bad samples allowed than there are."""
    run = reference.run.copy_without([], tmp_path_factory.mktemp("again") / "run")
    return Finished(run, finish(run, env, tmp_path_factory.mktemp("log"), "data.max_bad_share=0.005"))


def _invoke(*arguments: str) -> str:
    result = CliRunner().invoke(commands.app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_summary_says_where_the_table_is(reference: Finished) -> None:
    assert f"{reference.run.path}/labels" in reference.ended.out
    assert "Traceback" not in reference.ended.err


def test_the_table_has_the_documented_columns(reference: Finished) -> None:
    expected = label_schema(SCORES[name] for name in reference.run.load().score_names())
    parts = sorted((reference.run.path / "labels").glob("part-*.parquet"))
    assert len(parts) == 3
    for part in parts:
        found = pq.read_schema(part)
        assert found.equals(expected)
        assert [field.metadata for field in found] == [field.metadata for field in expected]


def test_every_sample_is_a_row_or_in_quarantine(reference: Finished) -> None:
    parts = sorted((reference.run.path / "labels").glob("part-*.parquet"))
    table = pq.ParquetDataset(parts).read(["row", "key"])
    summary = Published.open(Store(str(reference.run.path))).summary()
    assert table["row"].to_pylist() == list(range(NUM_GOOD))
    assert table["key"].to_pylist() == [f"{row:03d}" for row in range(NUM_GOOD)]
    assert summary["quarantined"] == {"missing_label": 1, "undecodable": 1}
    assert summary["rows"] + NUM_BAD == summary["samples"] == NUM_GOOD + NUM_BAD


def test_the_manifest_names_every_file_with_its_digest(reference: Finished) -> None:
    files = labels(reference.run.path)
    merge, entries = json.loads(files.pop("tables/_manifest.json"))
    found = {entry["name"]: (entry["bytes"], entry["sha256"]) for entry in entries}
    assert found == {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}
    assert (reference.run.path / merge).is_dir()


def test_a_finished_run_is_not_done_again(reference: Finished, again: Finished) -> None:
    before = {name: (mtime, digest) for name, (_, mtime, digest) in seen(reference.run.path, "*-*/**/*").items()}
    after = {name: (mtime, digest) for name, (_, mtime, digest) in seen(again.run.path, "*-*/**/*").items()}
    assert len(before) > 50
    assert after == before
    assert labels(again.run.path) == labels(reference.run.path)


def test_too_many_bad_samples_are_exit_code_3(again: Finished) -> None:
    assert again.ended.code == 3, again.ended.err
    assert f"quarantined: {NUM_BAD} of {NUM_GOOD + NUM_BAD} samples" in again.ended.out
    assert f"{again.run.path}/labels" in again.ended.out


def test_status_shows_every_stage_done(reference: Finished) -> None:
    lines = _invoke("status", str(reference.run.path)).splitlines()
    named = {job.stage for job in grow(look(reference.run.load(), Store(str(reference.run.path)))).jobs.values()}
    assert [line.split()[0] for line in lines] == [stage for stage in STAGES if stage in named]
    assert {line.split()[1].rstrip(",") for line in lines} == {"done"}


def test_evaluate_compares_every_score_with_the_truth(reference: Finished) -> None:
    result = json.loads(_invoke("evaluate", str(reference.run.path), "--json"))
    assert result["rows"] == NUM_GOOD
    assert result["true_noise_rate"] == pytest.approx(0.3)
    assert set(result["scores"]) == set(reference.run.load().score_names())
    shown = _invoke("evaluate", str(reference.run.path))
    assert all(name in shown for name in result["scores"])


def test_plan_looks_at_the_shards(reference: Finished) -> None:
    assert "4 shards, 2" in _invoke("plan", *reference.run.command()[2:])


def test_a_second_driver_is_refused(
    reference: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", reference.run.command())
    with hold(Store(str(reference.run.path))):
        assert commands.call() == 2
    assert f"is held by process {os.getpid()} on " in capsys.readouterr().err


def test_until_stops_early(until_catalog: Finished, reference: Finished) -> None:
    assert until_catalog.ended.code == 0, until_catalog.ended.err
    assert "done until catalog" in until_catalog.ended.out
    stages = {path.name.split("-")[0] for path in until_catalog.run.path.glob("*-*")}
    assert stages == {"catalog"}
    contents = {name: digest for name, (_, _, digest) in seen(until_catalog.run.path, "catalog-*/**/*").items()}
    assert contents == {name: digest for name, (_, _, digest) in seen(reference.run.path, "catalog-*/**/*").items()}

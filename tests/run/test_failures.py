"""What failed is written to the run folder, until it is done; what is in quarantine is listed with its counts."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

import pytest
from rich.console import Console

from rayclean.catalog.table import SHARDS_FILE
from rayclean.config import Config
from rayclean.errors import InputError, StageError
from rayclean.inspect.errors import find_errors
from rayclean.report.run_text import print_errors
from rayclean.run import ledger, pipeline
from rayclean.run.failures import MAX_UNITS, FailedUnit, note_failures, read_failures
from rayclean.run.run import Run
from rayclean.run.start import look
from rayclean.storage.executor import Executor, Inline, JobReport, Trainer, Watcher
from rayclean.storage.graph import Graph
from rayclean.storage.store import Store
from rayclean.storage.units import Job, UnitResult
from tests.conftest import Sample
from tests.helpers import sample, write_tar

QUIET = Console(quiet=True)


@dataclass(frozen=True)
class Brittle(Job):
    """Units of which some fail while a file says so."""

    stage: ClassVar[str] = "paths"
    suffix: ClassVar[str] = ".json"

    def units(self) -> Sequence[str]:
        return ["0", "1", "2"]

    def open(self) -> Callable[[str], UnitResult]:
        def compute(unit: str) -> UnitResult:
            if self.store.exists(f"broken/{unit}"):
                raise ValueError(f"[bold]unit {unit}[/bold] is broken")
            return UnitResult({}, rows=1)

        return compute


@pytest.fixture
def run(scored: Run, tmp_path: Path) -> Run:
    """A copy of a finished run."""
    shutil.copytree(scored.store.path, tmp_path / "run")
    config = scored.config.model_copy(
        update={"run": scored.config.run.model_copy(update={"dir": str(tmp_path / "run")})}
    )
    return look(config, Store(config.run.dir))


def do(run: Run, *folders: str, executor: Executor | None = None) -> None:
    """Does brittle jobs of these folders in this process."""
    graph = Graph()
    graph.want(*(Brittle(run.store, folder) for folder in folders))
    ledger.do(executor or Inline(), lambda: graph, QUIET, run.store)


def test_failed_units_are_written_down_until_they_are_done(run: Run) -> None:
    store, folders = run.store, ("brittle-00000000", "brittle-00000001")
    note_failures(store, "embed", {"embed-00000000/000000.safetensors": "OSError: full"})
    store.publish("broken/1", b"")
    with pytest.raises(StageError, match=r"2 unit\(s\) of paths failed"):
        do(run, *folders)
    noted = read_failures(store)
    assert set(noted) == {"embed", "paths"}
    # Units of two jobs may have the same name.
    assert [unit.file for unit in noted["paths"].units] == ["brittle-00000000/1.json", "brittle-00000001/1.json"]
    assert noted["paths"].count == 2
    assert noted["paths"].units[0].error == "ValueError: [bold]unit 1[/bold] is broken"
    assert find_errors(run.config, 20).failed["paths"] == noted["paths"]

    store.remove("broken/1")
    do(run, *folders)
    assert set(read_failures(store)) == {"embed"}
    do(run, *folders)
    assert set(read_failures(store)) == {"embed"}


def test_the_words_of_the_record_and_of_errors_json_are_those_of_earlier_releases(run: Run) -> None:
    note_failures(run.store, "paths", {"paths-00000000/0.json": "OSError: full"})
    written = json.loads(run.store.read("record/failed.json"))["paths"]
    units = [{"error": "OSError: full", "file": "paths-00000000/0.json"}]
    assert written == {"at": written["at"], "count": 1, "units": units}
    told = json.loads(json.dumps(find_errors(run.config, 20).to_json()))
    assert told["failed"] == [{"stage": "paths", **written}]
    (data,) = told["data"]
    assert list(data) == ["data", "shards", "shards_read", "truncated", "reasons", "samples"]
    assert list(data["samples"][0]) == ["shard", "sample", "key", "reason", "text"]


def test_a_stage_with_nothing_left_to_do_has_no_failures(run: Run) -> None:
    do(run, "brittle-00000000")
    note_failures(run.store, "paths", {"brittle-00000000/0.json": "a worker of a dead driver has done it"})
    do(run, "brittle-00000000")
    assert read_failures(run.store) == {}


def test_units_that_are_done_meanwhile_are_not_listed(run: Run) -> None:
    failed = {f"brittle-00000000/{unit}.json": "x" for unit in range(3)}
    note_failures(run.store, "paths", failed)
    run.store.publish("brittle-00000000/1.json", b"{}")
    entry = find_errors(run.config, 20).failed["paths"]
    assert entry.count == 2
    assert [unit.file for unit in entry.units] == ["brittle-00000000/0.json", "brittle-00000000/2.json"]
    for unit in (0, 2):
        run.store.publish(f"brittle-00000000/{unit}.json", b"{}")
    assert find_errors(run.config, 20).failed == {}


class Nobody(Inline):
    """An executor for which there is no place."""

    def run(self, grow: Callable[[], Graph], watcher: Watcher | None = None) -> list[JobReport]:
        raise StageError("nothing has run for 300 s: no resources")


def test_a_run_that_ends_as_a_whole_is_written_down(run: Run) -> None:
    with pytest.raises(StageError, match="no resources"):
        do(run, "brittle-00000000", executor=Nobody())
    (entry,) = find_errors(run.config, 20).failed.values()
    assert entry.units == (FailedUnit("nothing has run for 300 s: no resources", "run"),)
    do(run, "brittle-00000000")
    assert read_failures(run.store) == {}


def test_a_role_whose_training_fails_is_written_down(run: Run) -> None:
    def broken(*_: object) -> None:
        raise StageError("training failed in spite of retries, last with: CUDA out of memory")

    config = run.config.model_copy(update={"train": run.config.train.model_copy(update={"epochs": 1, "lr": 0.5})})
    anew = look(config, run.store)
    with pytest.raises(StageError, match="CUDA"):
        pipeline.compute(anew, Inline(train=cast(Trainer, broken)), QUIET, "train")
    (unit,) = read_failures(run.store)["train"].units
    assert unit.error.endswith("CUDA out of memory")
    pipeline.compute(anew, Inline(), QUIET, "train")
    assert read_failures(run.store) == {}


def test_a_disk_too_full_for_the_note_does_not_hide_the_failure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.store.publish("broken/1", b"")
    plain = Store.publish

    def full(self: Store, name: str, data: bytes) -> None:
        if name.startswith("record/failed"):
            raise OSError(28, "No space left on device")
        plain(self, name, data)

    monkeypatch.setattr(Store, "publish", full)
    with pytest.raises(StageError, match="unit 1"):
        do(run, "brittle-00000000")


def test_the_note_of_very_many_failures_is_bounded(run: Run) -> None:
    num = MAX_UNITS + 500
    note_failures(run.store, "paths", {f"paths-00000000/{i}.json": "x" * 10_000 for i in range(num)})
    entry = read_failures(run.store)["paths"]
    assert (entry.count, len(entry.units)) == (num, MAX_UNITS)
    assert len(run.store.read("record/failed.json")) < 3 * 2**20


def test_samples_in_quarantine_are_counted_and_listed(run: Run) -> None:
    found = find_errors(run.config, 20)
    (data,) = found.data
    assert found.failed == {}
    assert data.reasons == {"missing_label": 1}
    assert (data.shards, data.shards_read, data.truncated) == (4, 4, ())
    (line,) = data.samples
    assert (line.key, line.reason) == ("bad", "missing_label")
    assert line.shard in run.catalog.shards["name"].to_pylist()
    assert find_errors(run.config, 0).data[0].samples == ()


def test_an_unfinished_catalog_says_how_far_it_has_got(run: Run) -> None:
    whole = find_errors(run.config, 20).data
    run.store.remove(f"{run.catalog.folder}/{SHARDS_FILE}")
    assert find_errors(run.config, 20).data == whole  # all shards are read, but not joined
    run.store.remove(f"{run.catalog.folder}/rows/000000.parquet")
    assert find_errors(run.config, 20).data[0].shards_read == 3


def test_bad_samples_of_all_kinds_are_printed_as_they_are(
    tiny_config: Callable[..., Config],
    finish: Callable[..., Run],
    tiny_samples: list[Sample],
    write_tiny: Callable[[Path, Sequence[Sample], Sequence[int]], str],
    tmp_path: Path,
) -> None:
    samples = [each for each in tiny_samples if each[0][0] != "bad.png"]
    pattern = write_tiny(tmp_path / "shards", samples, (20, 20))
    strange = ["[red]a", ":cat:", "new\nline"]
    write_tar(tmp_path / "shards/03.tar", [member for key in strange for member in sample(key, "nonsense")])
    cut = Path(write_tar(tmp_path / "shards/04.tar", sample("whole", 0) + sample("cut", 1)))
    cut.write_bytes(cut.read_bytes()[: -2 * 512 - 100])
    config = tiny_config(tmp_path / "run", f"data.shards={pattern}")
    run = finish(config)
    found = find_errors(config, 20)
    (data,) = found.data
    assert data.reasons == {"bad_label": 3, "truncated": 1}
    assert [(line.shard, line.key) for line in data.samples] == [
        *(("03.tar", key) for key in strange),
        ("04.tar", "cut"),
    ]
    assert [line.shard for line in data.truncated] == ["04.tar"]
    run.store.remove(f"{run.catalog.folder}/{SHARDS_FILE}")
    assert find_errors(config, 20) == found  # from the shards' own files, before they are joined

    note_failures(run.store, "paths", {"paths-00000000/0.json": "ValueError: [bold]x[/bold]\x1b[2J"})
    sink = io.StringIO()
    console = Console(file=sink, width=300, force_terminal=True)
    found = find_errors(config, 2)
    print_errors(console, found, 2)
    text = sink.getvalue()
    for shown in ("paths: 1 failed", "[bold]x[/bold]\\x1b[2J", "4 samples in quarantine", "bad_label 3", "04.tar: "):
        assert shown in text
    assert "'[red]a'" in text
    assert "':cat:'" in text
    assert "and 2 more" in text
    assert "\x1b[2J" not in text
    assert "1 of 5 shards are cut short" in text


def test_a_run_that_was_never_started_is_an_input_error(tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        find_errors(tiny_config(tmp_path), 20)

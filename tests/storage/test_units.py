"""The unit protocol: done means published; order, deletions and retries change nothing; mixtures are refused."""

from __future__ import annotations

import errno
import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.errors import EnvironmentMixError, UnitError
from rayclean.storage import units
from rayclean.storage.contents import STAMP_KEY, map_arrays, read_json
from rayclean.storage.executor import run_inline
from rayclean.storage.store import Store
from rayclean.storage.units import (
    ENVIRONMENT_FILE,
    RETRY_PAUSES_S,
    Job,
    UnitResult,
    block_name,
    block_names,
    block_range,
    check_environment,
    compute_and_publish,
    num_blocks,
)


@dataclass(frozen=True)
class Squares(Job):
    """The squares of a block of numbers, and their sum beside."""

    stage: ClassVar[str] = "squares"
    total: int
    size: int

    def units(self) -> Sequence[str]:
        return [f"rows/{name}" for name in block_names(self.total, self.size)]

    def beside(self, unit: str) -> Sequence[str]:
        return [f"sums/{unit[5:]}.json"]

    def open(self) -> Callable[[str], UnitResult]:
        def compute(unit: str) -> UnitResult:
            start, stop = block_range(int(unit.removeprefix("rows/")), self.size, self.total)
            squares = np.arange(start, stop) ** 2
            return UnitResult({"squares": squares}, {f"sums/{unit[5:]}.json": int(squares.sum())}, rows=stop - start)

        return compute


@pytest.fixture
def job(tmp_path: Path) -> Squares:
    return Squares(Store(str(tmp_path)), "squares-00", 10, 3)


def files(job: Job) -> dict[str, bytes]:
    root = Path(job.store.path) / job.folder
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if name != ENVIRONMENT_FILE}


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(1, 50))
def test_blocks_cover_everything_once_in_order(total: int, size: int) -> None:
    ranges = [block_range(i, size, total) for i in range(num_blocks(total, size))]
    assert [row for start, stop in ranges for row in range(start, stop)] == list(range(total))
    assert all(stop - start == size for start, stop in ranges[:-1])
    assert block_names(total, size) == [block_name(i) for i in range(len(ranges))] == sorted(block_names(total, size))


def test_names_sort_as_they_count() -> None:
    assert [int(name) for name in sorted(block_name(i) for i in (10, 9, 100_000, 0))] == [0, 9, 10, 100_000]


def test_done_means_that_the_file_is_there(job: Squares) -> None:
    assert job.missing() == list(job.units()) == [f"rows/{i:06d}" for i in range(4)]
    compute_and_publish(job, job.open(), "rows/000002", "{}")
    assert job.missing() == ["rows/000000", "rows/000001", "rows/000003"]
    run_inline([job])
    assert job.missing() == []
    found = [map_arrays(job.store, job.file(unit))["squares"] for unit in job.units()]
    assert np.concatenate(found).tolist() == [i * i for i in range(10)]


def test_a_unit_without_its_own_file_is_not_done(job: Squares) -> None:
    run_inline([job])
    job.store.remove(job.file("rows/000001"))  # what lies beside it is still there
    assert job.missing() == ["rows/000001"]


@pytest.mark.parametrize("seed", range(3))
def test_order_and_deletions_change_no_byte(seed: int, job: Squares, tmp_path: Path) -> None:
    run_inline([job])
    expected = files(job)
    rng = np.random.default_rng(seed)
    other = Squares(Store(str(tmp_path / "elsewhere")), job.folder, job.total, job.size)
    for unit in rng.permutation(other.units()):
        compute_and_publish(other, other.open(), str(unit), "{}")
    assert files(other) == expected
    for name in rng.permutation(sorted(expected))[:5]:
        job.store.remove(f"{job.folder}/{name}")
    run_inline([job])
    still = files(job)
    assert {name for name in expected if name.startswith("rows/")} <= set(still)
    assert all(still[name] == expected[name] for name in still)


def test_what_lies_beside_a_unit_is_there_before_it(job: Squares, monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[str] = []
    publish = Store.publish

    def note(self: Store, name: str, data: bytes | memoryview) -> None:
        published.append(name)
        publish(self, name, data)

    monkeypatch.setattr(Store, "publish", note)
    compute_and_publish(job, job.open(), "rows/000000", "{}")
    assert published == ["squares-00/sums/000000.json", "squares-00/rows/000000.safetensors"]


def test_unit_files_carry_the_stamp_of_who_computed_them(job: Squares) -> None:
    compute_and_publish(job, job.open(), "rows/000000", '{"threads": 7}')
    data = job.store.read(job.file("rows/000000"))
    assert json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"][STAMP_KEY] == '{"threads": 7}'


def failing(job: Squares, error: Exception, times: int) -> tuple[Callable[[str], UnitResult], list[str]]:
    compute, tries = job.open(), []

    def flaky(unit: str) -> UnitResult:
        tries.append(unit)
        if len(tries) <= times:
            raise error
        return compute(unit)

    return flaky, tries


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []
    monkeypatch.setattr(units, "RETRY_PAUSES_S", (0.001, 0.002, 0.003))
    monkeypatch.setattr("time.sleep", taken.append)
    return taken


def test_pauses_grow() -> None:
    assert len(RETRY_PAUSES_S) == 3
    assert sorted(RETRY_PAUSES_S) == list(RETRY_PAUSES_S)


@pytest.mark.parametrize("error", [OSError("503"), TimeoutError("slow"), ConnectionResetError("gone")])
def test_input_and_output_errors_are_tried_again_three_times(error: OSError, job: Squares, pauses: list[float]) -> None:
    compute, tries = failing(job, error, times=3)
    compute_and_publish(job, compute, "rows/000000", "{}")
    assert (len(tries), pauses) == (4, [0.001, 0.002, 0.003])
    assert job.missing() == list(job.units())[1:]


def test_the_fourth_failure_is_the_units(job: Squares, pauses: list[float]) -> None:
    compute, tries = failing(job, OSError("503"), times=4)
    with pytest.raises(OSError, match="503"):
        compute_and_publish(job, compute, "rows/000000", "{}")
    assert len(tries) == 4
    assert files(job) == {}


def test_a_publication_that_fails_is_tried_again(
    job: Squares, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, failures = Store.publish, [OSError("disk full")]

    def flaky(self: Store, name: str, data: bytes | memoryview) -> None:
        if failures:
            raise failures.pop()
        publish(self, name, data)

    monkeypatch.setattr(Store, "publish", flaky)
    compute_and_publish(job, job.open(), "rows/000000", "{}")
    assert "rows/000000" not in job.missing()


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), UnitError("a cut file"), MemoryError(), OSError(errno.ENOSPC, "full")]
)
def test_other_errors_are_raised_at_once(error: Exception, job: Squares, pauses: list[float]) -> None:
    compute, tries = failing(job, error, times=1)
    with pytest.raises(type(error)):
        compute_and_publish(job, compute, "rows/000000", "{}")
    assert (len(tries), pauses, files(job)) == (1, [], {})


def stamp(**changes: object) -> str:
    return json.dumps({"device": "cpu", "threads": 1, "libraries": {"torch": "2.14"}} | changes, sort_keys=True)


def test_the_same_environment_may_go_on(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for _ in range(2):
        check_environment(store, "embed-00", stamp(), mix_allowed=False)
    assert read_json(store, f"embed-00/{ENVIRONMENT_FILE}") == json.loads(stamp())
    check_environment(store, "embed-01", stamp(device="H100"), mix_allowed=False)  # a folder of its own


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": "H100"}, "device: cpu there, H100 here"),
        ({"threads": 4}, "threads: 1 there, 4 here"),
        ({"libraries": {"torch": "2.15"}}, "'torch': '2.15'"),
    ],
)
def test_a_mixture_is_refused_with_what_changed(change: dict[str, object], said: str, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    check_environment(store, "embed-00", stamp(), mix_allowed=False)
    with pytest.raises(EnvironmentMixError) as caught:
        check_environment(store, "embed-00", stamp(**change), mix_allowed=False)
    text = str(caught.value)
    assert said in text
    assert "embed-00" in text
    assert "run.mix_environments" in text
    assert sum(f"{name}: " in text for name in ("device", "threads", "libraries")) == 1  # and nothing else
    check_environment(store, "embed-00", stamp(**change), mix_allowed=True)


def test_a_job_travels_to_workers(job: Squares) -> None:
    assert pickle.loads(pickle.dumps(job)).missing() == job.missing()

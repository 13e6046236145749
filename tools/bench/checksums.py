"""What checksums cost: their share of the time of a run's units, reading, computing and writing together.

    .venv/bin/python tools/bench/checksums.py RUN [STAGE ...]

RUN is a finished run with `run.keep: all`. The units of embed, paths and interpolate (or of those that are named) are
computed once more in this process, and what they write is encoded and published to a temporary folder. Both times come
from the same pass, so that a busy machine slows both. Headers are parsed with or without checksums and do not count.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from rayclean.run.saved import load_run
from rayclean.run.start import look
from rayclean.storage import checksums
from rayclean.storage.contents import encode
from rayclean.storage.store import Store
from rayclean.storage.units import Job

BENCHED = ("embed", "paths", "interpolate")
TIMED: dict[Any, tuple[str, ...]] = {
    checksums: ("seal_arrays", "seal_json", "seal_table", "seal_bytes", "check_table", "open_bytes"),
    checksums.CheckedArrays: ("_check",),
}


@contextmanager
def timed_checksums(spent: list[float]) -> Iterator[None]:
    """Adds the seconds in which checksums are made or compared to the only entry of a list."""

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            begun_s = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent[0] += time.perf_counter() - begun_s

        return call

    patches = [
        patch.object(owner, name, timed(getattr(owner, name))) for owner, names in TIMED.items() for name in names
    ]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


def measure(jobs: list[Job], out: Store) -> tuple[int, float, float]:
    """Units, seconds of all, seconds of checksums."""
    spent, units, begun_s = [0.0], 0, time.perf_counter()
    with timed_checksums(spent):
        for job in jobs:
            compute = job.open()
            for unit in job.units():
                out.publish(job.file(unit), encode(job.file(unit), compute(unit).content, "{}"))
                units += 1
    return units, time.perf_counter() - begun_s, spent[0]


def main() -> None:
    """Prints one line per stage."""
    run, stages = sys.argv[1], sys.argv[2:] or BENCHED
    this = look(load_run(run), Store(run))
    walks = this.walks
    jobs_of: dict[str, list[Job]] = {
        "embed": [this.main.embed(walk.snapshot) for walk in walks],
        "paths": [this.paths(walk) for walk in walks],
        "interpolate": [this.interpolate(walk) for walk in walks],
    }
    for name in stages:
        with tempfile.TemporaryDirectory() as folder:
            units, seconds, spent = measure(jobs_of[name], Store(folder))
        print(f"{name:12} {units:5} units {seconds:8.2f} s, of which checksums {spent:.4f} s: {spent / seconds:.2%}")


if __name__ == "__main__":
    main()

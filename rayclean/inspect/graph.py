"""`rayclean plan --graph`: the jobs that a config leads to, what each reads, and what of them is there."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

from rayclean.catalog.stage import find_sources
from rayclean.config import Config, override_config
from rayclean.run.grow import grow
from rayclean.run.start import CATALOG_FILE, ONE_WORKER, look, start
from rayclean.storage.graph import Missing, Unnamed
from rayclean.storage.store import Store


@dataclass(frozen=True)
class JobLine:
    """A job of the graph.

    Attributes:
        kind: what it is called in the code.
        num_units: None where they can be counted only when what it reads is there.
        num_missing: likewise.
        is_wanted: whether a start would see to it: what is done and what nothing needs any more is left alone.
        reads: positions of the jobs that it reads, in the list of all.
    """

    stage: str
    kind: str
    folder: str
    num_units: int | None
    num_missing: int | None
    is_wanted: bool
    reads: tuple[int, ...]


def draw_graph(config: Config) -> tuple[list[JobLine], list[Unnamed]]:
    """The jobs of a config in an order in which each comes after what it reads, and what cannot be named yet.

    Nothing is written to the run's folder; of a run that was never started the shards are looked up.

    Raises:
        RaycleanError: the shards cannot be reached, or the config cannot be right.
    """
    store = Store(config.run.dir)
    if store.exists(CATALOG_FILE):
        return _lines(config, store)
    with tempfile.TemporaryDirectory() as folder:
        aside = override_config(config, [f"run.dir={folder}"])
        start(aside, Store(folder), find_sources(config.data), ONE_WORKER)
        return _lines(aside, Store(folder))


def _lines(config: Config, store: Store) -> tuple[list[JobLine], list[Unnamed]]:
    graph, missing = grow(look(config, store)), Missing()
    wanted, place = graph.wanted(missing), {key: index for index, key in enumerate(graph.jobs)}
    lines = []
    for key, job in graph.jobs.items():
        left = missing(job) if key in wanted else None
        countable = left is not None or not job.lists_inputs
        lines.append(
            JobLine(
                stage=job.stage,
                kind=key[0],
                folder=job.folder,
                num_units=len(job.units()) if countable else None,
                num_missing=None if left is None else len(left),
                is_wanted=key in wanted,
                reads=tuple(sorted(place[before.key] for before in job.after)),
            )
        )
    return lines, graph.unnamed

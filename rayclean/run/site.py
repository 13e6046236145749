"""Where a start computes: what computes its jobs, how many workers there are, what a device of theirs can do."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from rayclean import interrupts
from rayclean.cluster.sizing import Workers
from rayclean.config import Config
from rayclean.run.start import ONE_WORKER, precision_here
from rayclean.storage.executor import Executor, Inline
from rayclean.storage.fingerprint import environment_stamp
from rayclean.storage.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Site:
    """Where a start computes.

    Attributes:
        executor: what computes.
        workers: of `cpu`, `gpu` and `train`, settled.
        precision_of: asks what `auto` precision is where such workers run.
        check: refuses a store that some worker does not see.
    """

    executor: Executor
    workers: dict[str, Workers]
    precision_of: Callable[[Workers], str] = precision_here
    check: Callable[[Store], object] = Store.check


@contextmanager
def opened(config: Config, store: Store, verbose: bool = False, mixes: bool | None = None) -> Iterator[Site]:
    """The site that `run.executor` asks for, as long as the block lasts.

    Args:
        config: the run.
        store: its files, which all nodes must see.
        verbose: let Ray speak.
        mixes: accept units of another environment; None: as `run.mix_environments` says.

    Raises:
        ConfigError: no cluster answers, or a node does not see the run's folder.
    """
    mixes = config.run.mix_environments if mixes is None else mixes
    if config.run.executor == "inline":
        threads = int(os.environ.get("OMP_NUM_THREADS") or 1)
        yield Site(Inline(environment_stamp(threads, "cpu"), mixes=mixes), ONE_WORKER)
        return
    interrupts.check()
    log.info("connecting to the cluster of RAY_ADDRESS" if os.environ.get("RAY_ADDRESS") else "starting Ray")
    from rayclean.cluster import nodes
    from rayclean.cluster.actors import Actors
    from rayclean.cluster.connect import connect
    from rayclean.cluster.data import Data

    with connect(verbose):
        nodes.check_nodes(store)
        workers = nodes.settle(config.resources, config.train.workers)
        kind: type[Actors] | type[Data] = Data if config.run.executor == "data" else Actors
        with kind(workers, mixes) as executor:
            yield Site(executor, workers, partial(nodes.call_on, precision_here), nodes.check_nodes)

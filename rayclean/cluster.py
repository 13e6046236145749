"""Ray: connect, see what the nodes have, size the pools."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray
import ray.data
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayclean.config import Pool
from rayclean.errors import ConfigError
from rayclean.storage.store import Store

log = logging.getLogger(__name__)
# Of glibc's mallopt, with values that keep blocks of up to 1 GiB.
KEEP_MEMORY = {"M_MMAP_THRESHOLD": (-3, 2**30), "M_TRIM_THRESHOLD": (-1, 2**31 - 1)}


@dataclass(frozen=True)
class Workers:
    """A pool's size, settled: how many actors, and what each may use."""

    actors: int
    cpus: float
    gpus: float
    device: str

    @property
    def threads(self) -> int:
        """Threads of one actor; Ray sets OMP_NUM_THREADS to it."""
        return max(1, int(self.cpus))


def fitting(workers: Workers) -> int:
    """How many actors of a pool fit the nodes that live now, at least one; it was settled when others did."""
    total = ray.cluster_resources()
    count = int(total.get("CPU", 0) / workers.cpus)
    if workers.gpus:
        count = min(count, int(total.get("GPU", 0) / workers.gpus))
    return max(1, count)


@contextlib.contextmanager
def connect(verbose: bool = False) -> Iterator[None]:
    """Attaches to the cluster that RAY_ADDRESS names, else starts Ray here for the length of the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray Train's report() waits up to one interval when epochs are shorter than it; the default is 2 s.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    address = os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {}
    if address == "local":
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # nothing but loopback listens
        options = {"include_dashboard": False, "object_store_memory": 256 * 2**20}
    if not verbose:  # the core's own lines go straight to stderr
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    level = "info" if verbose else "error"
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.CRITICAL)
    try:
        with contextlib.nullcontext() if verbose else _stderr_closed():
            ray.init(address=address, log_to_driver=verbose, logging_level=level, **options)
    except ConnectionError as e:
        raise ConfigError(f"RAY_ADDRESS={address}: no cluster answers there ({e})") from e
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _stderr_closed() -> Iterator[None]:
    """Drops what Ray's core prints while it starts, such as that its log level was set; errors are raised."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def settle(pool: Pool, runs_networks: bool) -> Workers:
    """Fills what the config leaves open from what the cluster has.

    A pool that runs networks gets an actor a GPU where there are any; any other an actor a CPU.
    """
    total = ray.cluster_resources()
    gpus_there = total.get("GPU", 0)
    gpus = pool.gpus if pool.gpus is not None else (1.0 if gpus_there and runs_networks else 0.0)
    cpus = pool.cpus if pool.cpus is not None else 1.0
    fitting = int(gpus_there / gpus) if gpus else max(1, int(total.get("CPU", 1) / cpus))
    if gpus and not fitting:
        raise ConfigError(f"a pool asks for {gpus:g} GPUs an actor, but the cluster has {gpus_there:g}")
    return Workers(pool.actors or fitting, cpus, gpus, "cuda" if gpus else "cpu")


def check_nodes(store: Store) -> list[str]:
    """Runs on every node: sees this run's folder there, and the same versions.

    Raises:
        ConfigError: a node does not see the folder, or has another rayclean, torch or Ray.
    """
    probe = f"probe-{os.getpid()}"
    store.publish(probe, b"rayclean")
    here = _versions()
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        tasks = [
            ray.remote(num_cpus=0)(_look)
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(store, probe)
            for node in nodes
        ]
        for host, sees, versions in ray.get(tasks):
            if not sees:
                raise ConfigError(
                    f"run.dir {store.root} is not shared: node {host} does not see what the driver writes there; "
                    "use a folder that all nodes mount, or an object store"
                )
            if versions != here:
                raise ConfigError(f"node {host} has {versions}, the driver {here}; install the same on all nodes")
        return [node["NodeManagerHostname"] for node in nodes]
    finally:
        store.remove(probe)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("rayclean", "ray", "torch")}


def _look(store: Store, probe: str) -> tuple[str, bool, dict[str, str]]:
    return socket.gethostname(), store.exists(probe), _versions()


def settle_training(pool: Pool, num_workers: int) -> Workers:
    """Training workers: a GPU each where there are any, else an equal share of the CPUs as threads."""
    total = ray.cluster_resources()
    gpus = pool.gpus if pool.gpus is not None else (1.0 if total.get("GPU", 0) >= num_workers else 0.0)
    cpus = pool.cpus if pool.cpus is not None else (1.0 if gpus else max(1.0, total.get("CPU", 1) // num_workers))
    if cpus * num_workers > total.get("CPU", 0) or gpus * num_workers > total.get("GPU", 0):
        raise ConfigError(
            f"{num_workers} training workers of {cpus:g} CPUs and {gpus:g} GPUs do not fit the cluster "
            f"({total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs); lower train.workers or resources.train"
        )
    return Workers(num_workers, cpus, gpus, "cuda" if gpus else "cpu")


def call_on(workers: Workers, function: Callable[..., Any], *args: Any) -> Any:
    """Calls a function where a pool's workers would run."""
    remote = ray.remote(num_cpus=1, num_gpus=workers.gpus or None)(function)
    return ray.get(remote.remote(*args))


def keep_freed_memory() -> None:
    """Has a worker keep memory that it freed; called where networks run on CPUs.

    By default glibc may give the activations of each batch back to the system: 2,000 page faults a batch of 64
    images of 32 px, a fifth of the time. The worker then stays as large as its largest batch made it.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for parameter, value in KEEP_MEMORY.values():
            mallopt(parameter, value)

"""The nodes of the cluster: see what they have, call what is to run there, say what is waited for."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import math
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import ray
import ray.data
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayclean.cluster.connect import last_line
from rayclean.cluster.sizing import NodeSize, Workers, in_words, size_pools, size_training
from rayclean.config import ResourcesSection
from rayclean.errors import ClusterError, ConfigError
from rayclean.storage.store import Store

Found = TypeVar("Found")
log = logging.getLogger(__name__)
# A node's death is noticed by missing heartbeats, after some 20 s; a busy node starts a worker in half a minute.
ANSWER_S = 120.0
WAIT_TOLD_S = 30.0
# Of glibc's mallopt, with values that keep blocks of up to 1 GiB.
KEEP_MEMORY = {"M_MMAP_THRESHOLD": (-3, 2**30), "M_TRIM_THRESHOLD": (-1, 2**31 - 1)}


def node_sizes() -> list[NodeSize]:
    """What each node has that lives now."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [NodeSize(each.get("CPU", 0.0), each.get("GPU", 0.0)) for each in resources]


def memory_share(workers: Workers) -> float:
    """Bytes that one actor may hold: as much of a node's memory as of its CPUs, on the node that has the least of it.

    Infinite where an actor asks for no CPU, or Ray knows of no memory.
    """
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    each = [found["memory"] / found["CPU"] for found in resources if found.get("CPU") and found.get("memory")]
    return workers.cpus * min(each) if each and workers.cpus else math.inf


def settle(resources: ResourcesSection, num_workers: int) -> dict[str, Workers]:
    """The sizes of the pools and of training on the nodes that live now."""
    nodes = node_sizes()
    cpu, gpu = size_pools(resources.cpu, resources.gpu, nodes)
    return {"cpu": cpu, "gpu": gpu, "train": size_training(resources.train, num_workers, nodes)}


def on_each_node(function: Callable[..., Found], *args: Any) -> Iterator[tuple[str, Found | Exception]]:
    """Calls a function on every node that lives now; gives each node's name and what came back, errors too."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    remote = ray.remote(num_cpus=0)(function)
    calls = [
        remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(*args)
        for node in nodes
    ]
    ray.wait(calls, num_returns=len(calls), timeout=ANSWER_S)
    for node, call in zip(nodes, calls, strict=True):
        found: Found | Exception
        try:
            found = ray.get(call, timeout=0)
        except ray.exceptions.GetTimeoutError:
            found = TimeoutError(f"no answer for {ANSWER_S:g} s")
        except ray.exceptions.RayError as e:
            found = e
        yield f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})", found


def check_nodes(store: Store) -> list[str]:
    """Runs on every node: sees this run's folder there, and the same versions.

    Returns:
        The nodes' names.

    Raises:
        ConfigError: a node does not see the folder, or has another rayclean, torch or Ray.
        ClusterError: a node has died meanwhile, or does not answer.
    """
    probe = f"probe-{os.getpid()}"
    store.publish(probe, b"rayclean")
    here = _versions()
    names = []
    try:
        for node, found in on_each_node(_look, store, probe):
            if isinstance(found, Exception):
                raise ClusterError(
                    f"node {node} could not be looked at: {last_line(found)}; give the same command again once the "
                    "node is well or out of the cluster"
                )
            sees, versions = found
            if not sees:
                raise ConfigError(
                    f"run.dir {store.root} is not shared: node {node} does not see what the driver writes there; "
                    "use a folder that all nodes mount, or an object store"
                )
            if versions != here:
                raise ConfigError(f"node {node} has {versions}, the driver {here}; install the same on all nodes")
            names.append(node)
        return names
    finally:
        store.remove(probe)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("rayclean", "ray", "torch")}


def _look(store: Store, probe: str) -> tuple[bool, dict[str, str]]:
    return store.exists(probe), _versions()


def call_on(function: Callable[[Workers], Found], workers: Workers) -> Found:
    """Calls a function of a pool's size where its workers would run.

    Raises:
        ClusterError: the node died meanwhile, or the function failed there.
    """
    remote = ray.remote(num_cpus=min(1, workers.cpus), num_gpus=workers.gpus or None)(function)
    call = remote.remote(workers)
    with waiting_told(f"a worker of {workers.cpus:g} CPUs and {workers.gpus:g} GPUs", lambda: True):
        try:
            found: Found = ray.get(call)
        except ray.exceptions.RayError as e:
            raise ClusterError(f"a node could not be asked what its device can do: {last_line(e)}") from e
    return found


def what_is_there() -> str:
    """The nodes that live now, and what of them is free, for people who wait."""
    free = ray.available_resources()
    return f"{in_words(node_sizes())}; free now: {free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs"


@contextlib.contextmanager
def waiting_told(asked: str, waits: Callable[[], bool]) -> Iterator[None]:
    """Says in one line what is asked for and what is there when it does not come, as long as the block lasts.

    Args:
        asked: what is asked for.
        waits: whether it is waited for still; asked in a thread of its own.
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(WAIT_TOLD_S):
            if waits() and not ended.is_set():
                log.warning("waiting for %s; %s", asked, what_is_there())
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def keep_freed_memory() -> None:
    """Has a worker keep memory that it freed; called where networks run on CPUs.

    By default glibc may give the activations of each batch back to the system: 2,000 page faults per batch of 64
    images of 32 px, a fifth of the time. The worker then stays as large as its largest batch made it.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for parameter, value in KEEP_MEMORY.values():
            mallopt(parameter, value)

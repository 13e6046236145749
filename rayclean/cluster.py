"""Ray: connect, see what the nodes have, call what is to run there, say what is waited for."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import ray
import ray.data
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayclean.config import Pool
from rayclean.errors import ClusterError, ConfigError
from rayclean.private_ray import closed, private_folder
from rayclean.sizing import NodeSize, Workers, in_words, room, size_pool, size_training
from rayclean.storage.store import Store

Found = TypeVar("Found")
log = logging.getLogger(__name__)
# A node's death is noticed by missing heartbeats, after some 20 s; a busy node starts a worker in half a minute.
ANSWER_S = 120.0
WAIT_TOLD_S = 30.0
# Of glibc's mallopt, with values that keep blocks of up to 1 GiB.
KEEP_MEMORY = {"M_MMAP_THRESHOLD": (-3, 2**30), "M_TRIM_THRESHOLD": (-1, 2**31 - 1)}


@contextlib.contextmanager
def connect(verbose: bool = False) -> Iterator[None]:
    """Attaches to the cluster that RAY_ADDRESS names, else starts Ray here for the length of the block.

    Raises:
        ConfigError: no cluster answers there, or it does not let us in.
        ClusterError: Ray cannot start here.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray Train's report() waits up to one interval when epochs are shorter than it; the default is 2 s.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    if not verbose:  # the core's own lines go straight to stderr
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.CRITICAL)
    address = os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        if address == "local":
            stack.enter_context(closed())
            options = {"include_dashboard": False, "object_store_memory": 256 * 2**20, "_temp_dir": private_folder()}
        try:
            with contextlib.nullcontext() if verbose else _stderr_closed():
                level = "info" if verbose else "error"
                ray.init(address=address, log_to_driver=verbose, logging_level=level, **options)
        except Exception as e:  # Ray's own start raises bare ones, as where a busy machine takes over 30 s
            if address == "local":
                ray.shutdown()  # what has started of it
                raise ClusterError(f"Ray could not start on this machine: {last_line(e)}") from e
            if isinstance(e, ConnectionError | ray.exceptions.AuthenticationError):
                raise ConfigError(f"RAY_ADDRESS={address}: no cluster answers there ({last_line(e)})") from e
            raise
        stack.callback(ray.shutdown)
        yield


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


def node_sizes() -> list[NodeSize]:
    """What each node has that lives now."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [NodeSize(each.get("CPU", 0.0), each.get("GPU", 0.0)) for each in resources]


def settle(pool: Pool, runs_networks: bool) -> Workers:
    """A pool's size on the nodes that live now."""
    return size_pool(pool, runs_networks, node_sizes())


def settle_training(pool: Pool, num_workers: int) -> Workers:
    """The size of training's workers on the nodes that live now."""
    return size_training(pool, num_workers, node_sizes())


def fitting(workers: Workers) -> int:
    """How many actors of a pool fit the nodes that live now, at least one; it was settled when others did."""
    return max(1, room(node_sizes(), workers.cpus, workers.gpus))


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


def last_line(error: BaseException) -> str:
    """An error in one line: what Ray raises holds tracebacks, and the cause comes last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("rayclean", "ray", "torch")}


def _look(store: Store, probe: str) -> tuple[bool, dict[str, str]]:
    return store.exists(probe), _versions()


def call_on(workers: Workers, function: Callable[..., Found], *args: Any) -> Found:
    """Calls a function where a pool's workers would run.

    Raises:
        ClusterError: the node died meanwhile, or the function failed there.
    """
    remote = ray.remote(num_cpus=min(1, workers.cpus), num_gpus=workers.gpus or None)(function)
    call = remote.remote(*args)
    with waiting_told(f"a worker of {workers.cpus:g} CPUs and {workers.gpus:g} GPUs", lambda: True):
        try:
            found: Found = ray.get(call)
        except ray.exceptions.RayError as e:
            raise ClusterError(f"a node could not be asked what its device can do: {last_line(e)}") from e
    return found


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
                free = ray.available_resources()
                log.warning(
                    "waiting for %s; %s; free now: %g CPUs and %g GPUs",
                    *(asked, in_words(node_sizes()), free.get("CPU", 0), free.get("GPU", 0)),
                )
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

    By default glibc may give the activations of each batch back to the system: 2,000 page faults a batch of 64
    images of 32 px, a fifth of the time. The worker then stays as large as its largest batch made it.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for parameter, value in KEEP_MEMORY.values():
            mallopt(parameter, value)

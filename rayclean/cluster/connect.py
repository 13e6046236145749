"""Connect to the cluster that RAY_ADDRESS names, or start Ray here."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import ray

from rayclean import interrupts
from rayclean.cluster.private_ray import closed, private_folder
from rayclean.errors import ClusterError, ConfigError


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
        stack.callback(ray.shutdown)  # of what has started, where that is not all
        try:
            with interrupts.kept(), contextlib.nullcontext() if verbose else _stderr_closed():
                level = "info" if verbose else "error"
                ray.init(address=address, log_to_driver=verbose, logging_level=level, **options)
        except Exception as e:  # Ray's own start raises bare ones, as where a busy machine takes over 30 s
            if address == "local":
                ray.shutdown()  # what has started of it
                raise ClusterError(f"Ray could not start on this machine: {last_line(e)}") from e
            if isinstance(e, ConnectionError | ray.exceptions.AuthenticationError):
                raise ConfigError(f"RAY_ADDRESS={address}: no cluster answers there ({last_line(e)})") from e
            raise
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


def last_line(error: BaseException) -> str:
    """An error in one line: what Ray raises holds tracebacks, and the cause comes last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__

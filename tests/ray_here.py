"""A Ray for tests: closed as a command's is, with as many logical CPUs as a test asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import ray

from rayclean.cluster.private_ray import closed


@contextmanager
def logical_cpus(count: int) -> Iterator[None]:
    """One node with so many CPUs, whatever the machine has."""
    options = {"include_dashboard": False, "object_store_memory": 128 * 2**20, "log_to_driver": False}
    with closed():
        ray.init(address="local", num_cpus=count, num_gpus=0, logging_level="error", **options)
        try:
            yield
        finally:
            ray.shutdown()

"""How training's ranks find each other: not at all where there is one, and behind closed doors on one node.

Torch's rendezvous and its gloo and nccl sockets ask nobody for anything, so that whoever reaches them takes part. Ray
Train's own way has rank 0 listen on all interfaces, for a single rank too. Between nodes there is no other way: their
network must be closed.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import ray
import torch.distributed as dist
from ray.train.torch import TorchConfig

from rayclean.storage.node import node_folder

LOOPBACK = "127.0.0.1"
_TorchBackend: Any = TorchConfig().backend_cls


class ClosedBackend(_TorchBackend):  # type: ignore[misc]
    """Ray Train's torch backend, which opens no port to other machines while all ranks are on one node."""

    file: str | None = None  # where the ranks of one node have met

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """Makes the process group, if there is anything to group."""
        ranks = len(worker_group)
        if ranks == 1:
            return
        if len(set(worker_group.execute(_node))) > 1:
            super().on_start(worker_group, backend_config)
            return
        self.file = worker_group.execute_single(0, _meeting_file)
        how = (backend_config.backend, backend_config.timeout_s, self.file)
        ray.get([worker_group.execute_single_async(rank, _join, *how, rank, ranks) for rank in range(ranks)])

    def on_shutdown(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """Ends the process group; where a rank has died, its file stays."""
        super().on_shutdown(worker_group, backend_config)
        if self.file is not None:
            with contextlib.suppress(ray.exceptions.RayError):
                worker_group.execute_single(0, _remove, self.file)
            self.file = None


class ClosedTorch(TorchConfig):  # type: ignore[misc]
    """Ray Train's torch settings with that backend."""

    @property
    def backend_cls(self) -> type[ClosedBackend]:
        """What Ray Train starts."""
        return ClosedBackend


def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _meeting_file() -> str:
    """A file that only this user's processes on this node can open."""
    return str(node_folder("ranks") / uuid.uuid4().hex)


def _remove(file: str) -> None:
    Path(file).unlink(missing_ok=True)


def _join(backend: str, timeout_s: float, file: str, rank: int, ranks: int) -> None:
    """Joins the process group of one node, whose sockets listen on the loopback interface alone."""
    interface = loopback_interface()
    os.environ |= {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface}
    store = dist.FileStore(file, ranks)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=timedelta(seconds=timeout_s))


def loopback_interface() -> str:
    """Its name: lo on Linux, lo0 elsewhere."""
    found = psutil.net_if_addrs().items()
    return next(name for name, addresses in found if any(each.address == LOOPBACK for each in addresses))

"""What a run will cost, before anything starts: rows, forwards, memory, disk and time."""

from __future__ import annotations

import time
from dataclasses import dataclass

import fsspec
import numpy as np
import torch

from rayclean.catalog.labels import ClassList
from rayclean.catalog.stage import find_sources
from rayclean.config import Config
from rayclean.errors import InputError
from rayclean.shards.tar import TruncatedTar, group_members, scan_members
from rayclean.train.forward import Forward, ForwardSettings
from rayclean.train.precision import resolve_precision
from rayclean.train.spec import network_spec

PROBE_S = 1.5
# Distinct undirected pairs over L n, measured at L = 10 on learned features (docs/methods.md, section 7).
PAIR_SHARE = 0.75
TRAINING_FORWARDS = 3  # forward and backward of a step, in forwards
CATALOG_ROW_BYTES = 64
PROCESS_BYTES = 1.2e9  # a worker with torch's CUDA build loaded


@dataclass(frozen=True)
class Plan:
    """Costs of a run; times are for this machine's cores as they are now."""

    shards: int
    rows: int
    exact: bool
    snapshots: int
    training_forwards: int
    scoring_forwards: int
    forwards_per_s: float
    disk_bytes: int
    worker_bytes: int
    driver_bytes: int

    @property
    def seconds(self) -> dict[str, float]:
        """Time on one worker like the one that was probed."""
        rate = max(self.forwards_per_s, 1e-9)
        return {"train": self.training_forwards / rate, "score": self.scoring_forwards / rate}


def count_rows(config: Config) -> tuple[int, int, bool]:
    """Shards, samples, and whether the samples were counted or projected from the first shard.

    Raises:
        InputError: the first shard holds nothing to project from.
    """
    sources = find_sources(config.data)
    first = sources.slice(0, 1).to_pylist()[0]
    with fsspec.open(first["url"], "rb") as file:
        members = []
        try:
            for member in scan_members(file, first["url"]):
                members.append(member)
        except TruncatedTar:
            pass
    samples = sum(1 for _ in group_members(members, lambda member: (member.key, member.extension)))
    if sources.num_rows == 1:
        return 1, samples, True
    if not samples:
        raise InputError(f"{first['url']} holds no samples, so the others cannot be projected from it")
    total_bytes = int(np.sum(sources["size"].to_numpy()))
    return sources.num_rows, round(samples * total_bytes / first["size"]), False


def _forward_rate(forward: Forward, size: int) -> float:
    """Images a second through the network with this process's threads."""
    images = np.zeros((forward.settings.batch_size, size, size, 3), np.uint8)
    inputs = forward.normalized(images)
    forward.logits(inputs)
    count, started_s = 0, time.monotonic()
    while time.monotonic() - started_s < PROBE_S:
        forward.logits(inputs)
        count += len(images)
    return count / (time.monotonic() - started_s)


def estimate(config: Config) -> Plan:
    """Projects a run from its first shard and a probe of the network on this machine.

    Raises:
        InputError: the shards cannot be read.
    """
    shards, rows, exact = count_rows(config)
    num_classes = ClassList.load(config.data.classes).num_classes
    spec = network_spec(config, num_classes)
    precision = resolve_precision(config.score.precision)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    forward = Forward(spec.build(), spec, ForwardSettings(device, precision, config.score.batch_size))
    names = config.score_names()
    walked = len(config.train.snapshot_epochs()) if "iofm" in names else int("iofm_last" in names)
    interior = PAIR_SHARE * config.iofm.num * (config.iofm.steps - 1)
    inn_walked = len(config.inn.epochs or [0]) if "inn" in names else 0
    inn_interior = PAIR_SHARE * config.inn.num * (config.inn.steps - 1)
    snapshots = max(walked, inn_walked, 1)
    epochs = [config.train_of(role).epochs for role in config.role_names()]
    embedding_bytes = 2 * 2 * forward.network.feature_dim + 4 * num_classes  # features twice: with the index
    lists_bytes = config.iofm.num * 12
    points = walked * interior + inn_walked * inn_interior
    paths_bytes = 0.2 * points * (4 * num_classes + 12) + (walked + inn_walked) * (4 * num_classes + 18)
    trajectories_bytes = 9 * sum(epochs)
    return Plan(
        shards=shards,
        rows=rows,
        exact=exact,
        snapshots=snapshots,
        training_forwards=rows * sum(epochs) * (TRAINING_FORWARDS + 1),
        scoring_forwards=round(rows * (snapshots + len(epochs) - 1 + points)),
        forwards_per_s=_forward_rate(forward, spec.size),
        disk_bytes=round(rows * (snapshots * (embedding_bytes + lists_bytes) + paths_bytes + trajectories_bytes + 200)),
        worker_bytes=round(PROCESS_BYTES + rows * CATALOG_ROW_BYTES),
        driver_bytes=round(PROCESS_BYTES + 16 * rows),
    )

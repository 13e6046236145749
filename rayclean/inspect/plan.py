"""What a run will cost, before anything starts: rows, forwards, memory, disk and time."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch

from rayclean.catalog.labels import ClassList
from rayclean.catalog.stage import catalog_mark, find_sources, open_catalog
from rayclean.catalog.table import COLUMNS_FILE
from rayclean.config import Config
from rayclean.errors import InputError
from rayclean.neighbors.files import HELD_BYTES
from rayclean.neighbors.index import IndexSettings
from rayclean.neighbors.ivf import count_cells
from rayclean.neighbors.parts import plan_parts
from rayclean.schema import Array
from rayclean.shards.opening import open_shard
from rayclean.shards.tar import TruncatedTar, group_members, scan_members
from rayclean.storage.store import Store
from rayclean.train.forward import Forward, ForwardSettings
from rayclean.train.precision import resolve_precision
from rayclean.train.spec import network_spec

PROBE_S = 1.5
# Distinct undirected pairs over L n, measured at L = 10 on learned features (docs/methods.md, section 7).
PAIR_SHARE = 0.75
TRAINING_FORWARDS = 3  # forward and backward of a step, in forwards
CATALOG_ROW_BYTES = 64
PROCESS_BYTES = 1.2e9  # a worker with torch's CUDA build loaded
ID_BYTES, CELL_BYTES, LIST_BYTES = 8, 4, 8  # of a row in its list, of a row beside its features, of a list's size


@dataclass(frozen=True)
class SearchPlan:
    """What the neighbour search of a snapshot keeps in files, which actors map, and in memory.

    Attributes:
        index_bytes: features by label and, where anything goes through IVF, their lists and the quantiser. An actor
            maps all of it for lists of any label.
        part_bytes: of the largest part's files.
        label_bytes: of the parts that an actor maps for lists of the same label, for the label that has most.
        held_bytes: what an actor holds of its own besides, at most, to search flat.
        labels: that have rows.
        ivf_labels: those of them whose same-label lists go through IVF.
        ivf_any_label: whether lists of any label do.
        cells: of the quantiser; 0 without IVF.
        counted: the rows of each label are the scanned catalog's, before any noise that is made; else all labels are
            taken as equally large.
    """

    index_bytes: int
    part_bytes: int
    label_bytes: int
    held_bytes: int
    labels: int
    ivf_labels: int
    ivf_any_label: bool
    cells: int
    counted: bool


@dataclass(frozen=True)
class Plan:
    """Costs of a run; times are for this machine's cores as they are now.

    Attributes:
        search: of the last snapshot, whose lists are of any label too.
    """

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
    search: SearchPlan

    @property
    def seconds(self) -> dict[str, float]:
        """Time on one worker like the one that was probed."""
        rate = max(self.forwards_per_s, 1e-9)
        return {"train": self.training_forwards / rate, "score": self.scoring_forwards / rate}


def count_rows(sources: pa.Table) -> tuple[int, bool]:
    """Samples in all shards, and whether they were counted or projected from the first shard.

    Raises:
        InputError: the first shard holds nothing to project from.
    """
    first = sources.slice(0, 1).to_pylist()[0]
    with open_shard(first["url"]) as file:
        members = []
        try:
            for member in scan_members(file, first["url"]):
                members.append(member)
        except TruncatedTar:
            pass
    samples = sum(1 for _ in group_members(members, lambda member: (member.key, member.extension)))
    if sources.num_rows == 1:
        return samples, True
    if not samples:
        raise InputError(f"{first['url']} holds no samples, so the others cannot be projected from it")
    total_bytes = int(np.sum(sources["size"].to_numpy()))
    return round(samples * total_bytes / first["size"]), False


def count_labels(
    config: Config, classes: ClassList, sources: pa.Table, rows: int, features: str | None = None
) -> tuple[Array, bool]:
    """(K,) rows of each label, and whether they were counted: by the run's catalog, where it is there.

    `features`: as for `catalog_mark`.
    """
    store = Store(config.run.dir)
    catalog = open_catalog(store, catalog_mark(config.data, classes, sources, config.verified_label, features))
    if store.exists(f"{catalog.folder}/{COLUMNS_FILE}"):
        return catalog.class_counts, True
    each, more = divmod(rows, classes.num_classes)
    return each + (np.arange(classes.num_classes) < more), False


def plan_search(counts: Array, dim: int, settings: IndexSettings, counted: bool) -> SearchPlan:
    """What a snapshot's index takes; headers of files and the padding of arrays are left out.

    Args:
        counts: (K,) rows of each label.
        dim: of the features.
        settings: how neighbours are searched.
        counted: see `SearchPlan`.
    """
    rows, ivf_labels = int(counts.sum()), settings.ivf_labels(counts)
    ivf_any_label = settings.any_label and settings.uses_ivf(rows)
    cells = count_cells(rows) if settings.needs_ivf(counts) else 0
    row_bytes = 2 * dim + (CELL_BYTES + 2 * dim + ID_BYTES if cells else 0)
    parts = plan_parts(counts, settings.part_rows)
    sizes = [(part.stop - part.start) * row_bytes + cells * LIST_BYTES for part in parts]
    largest = max((part.stop - part.start for part in parts), default=0)
    label_bytes: Counter[int] = Counter()
    for part, size in zip(parts, sizes, strict=True):
        label_bytes.update(dict.fromkeys((label for label, *_ in part.spans), size))
    flat_rows = rows - int(counts[ivf_labels].sum())
    if settings.any_label and not ivf_any_label:
        flat_rows = rows
    elif settings.pool is not None:
        flat_rows = min(flat_rows, settings.pool)
    return SearchPlan(
        index_bytes=sum(sizes) + cells * 4 * dim,
        part_bytes=max(sizes, default=0),
        label_bytes=max(label_bytes.values(), default=0),
        held_bytes=min(4 * dim * flat_rows, max(HELD_BYTES, 4 * dim * largest)),
        labels=int((counts > 0).sum()),
        ivf_labels=len(ivf_labels),
        ivf_any_label=ivf_any_label,
        cells=cells,
        counted=counted,
    )


def index_settings(config: Config) -> IndexSettings:
    """The search at the last snapshot, for whose votes lists of any label are asked."""
    neighbors, seed = config.neighbors, config.run.seed
    part_rows, ivf_rows, target = config.blocks.index_rows, neighbors.ivf_rows, neighbors.recall_target
    return IndexSettings(neighbors.pool, seed, part_rows, ivf_rows, target, True, "cpu")


def _forward_rate(forward: Forward, size: int) -> float:
    """Images per second through the network with this process's threads."""
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
    sources, classes = find_sources(config.data), ClassList.of(config.data)
    rows, exact = count_rows(sources)
    num_classes = classes.num_classes
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
    counts, counted = count_labels(config, classes, sources, rows)
    dim, settings = forward.network.feature_dim, index_settings(config)
    search = plan_search(counts, dim, settings, counted)
    earlier = plan_search(counts, dim, replace(settings, any_label=False), counted)
    embedding_bytes = 2 * dim + 4 * num_classes
    lists_bytes = config.iofm.num * 12
    points = walked * interior + inn_walked * inn_interior
    paths_bytes = 0.2 * points * (4 * num_classes + 12) + (walked + inn_walked) * (4 * num_classes + 18)
    trajectories_bytes = 9 * sum(epochs)
    rows_bytes = rows * (snapshots * (embedding_bytes + lists_bytes) + paths_bytes + trajectories_bytes + 200)
    return Plan(
        shards=sources.num_rows,
        rows=rows,
        exact=exact,
        snapshots=snapshots,
        training_forwards=rows * sum(epochs) * (TRAINING_FORWARDS + 1),
        scoring_forwards=round(rows * (snapshots + len(epochs) - 1 + points)),
        forwards_per_s=_forward_rate(forward, spec.size),
        disk_bytes=round(rows_bytes) + search.index_bytes + (snapshots - 1) * earlier.index_bytes,
        worker_bytes=round(PROCESS_BYTES + rows * CATALOG_ROW_BYTES),
        driver_bytes=round(PROCESS_BYTES + 16 * rows),
        search=search,
    )

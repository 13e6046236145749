"""What heads on features make of every row: the one that has seen all labels, and those that are blind to the row's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import scipy

from rayclean.catalog.features import StandardFeatures
from rayclean.catalog.table import Catalog
from rayclean.embed.beliefs import pack, unpack, with_rest
from rayclean.embed.stage import embedding_arrays
from rayclean.embed.table import Embedding, Space
from rayclean.late import torch
from rayclean.schema import Array
from rayclean.storage.contents import map_arrays
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.units import Job, UnitResult, block_name, block_names, block_range
from rayclean.train.head import Head
from rayclean.train.heads import Heads, mean_belief
from rayclean.train.heads_worker import HeadsTask
from rayclean.train.old_heads import ALL_HEADS
from rayclean.train.sample_losses import sample_losses
from rayclean.train.snapshots import Snapshot

VERSION = 1


@dataclass(frozen=True)
class HeadEmbedding(Embedding):
    """Features as a head takes them, and its logits.

    Attributes:
        source: the features.
        file: the head.
    """

    source: StandardFeatures
    file: str

    @cached_property
    def _head(self) -> Head:
        return Head.read(map_arrays(self.store, self.file), "cpu")

    def features(self, rows: Array) -> Array:
        """(R, d) float32 what the last layer sees of one or more `rows` (R,)."""
        return self._head.seen(self.source.read(rows))


@dataclass(frozen=True)
class HeadEmbedJob(Space):
    """Runs the head of a snapshot over all rows."""

    stage: ClassVar[str] = "embed"
    pool: ClassVar[str] = "gpu"
    catalog: Catalog
    snapshot: Snapshot
    source: StandardFeatures
    device: str
    block_rows: int

    def units(self) -> Sequence[str]:
        return block_names(self.catalog.num_rows, self.block_rows)

    def open(self) -> Callable[[str], UnitResult]:
        head = Head.read(map_arrays(self.store, self.snapshot.file), self.device)

        def compute(unit: str) -> UnitResult:
            start, stop = block_range(int(unit), self.block_rows, self.catalog.num_rows)
            logits = head.logits(self.source.read(np.arange(start, stop)))
            content = embedding_arrays(None, logits, self.catalog.label[start:stop])
            return UnitResult(content, rows=stop - start, facts={"heads": stop - start})

        return compute

    @property
    def embedding(self) -> Embedding:
        """What the finished job gives."""
        what = self.store, self.folder, self.block_rows, self.catalog.num_classes
        return HeadEmbedding(*what, self.source, self.snapshot.file)


def head_embed_job(
    catalog: Catalog, snapshot: Snapshot, source: StandardFeatures, device: str, block_rows: int, after: Job
) -> HeadEmbedJob:
    """What the head of a snapshot makes of a catalog's rows; `after`: the statistics of the features."""
    inputs = [catalog.fingerprint, snapshot.fingerprint, source.folder]
    mark = fingerprint("head", VERSION, {"block_rows": block_rows}, inputs)
    return HeadEmbedJob(catalog.store, f"embed-{mark}", catalog, snapshot, source, device, block_rows, after=(after,))


@dataclass(frozen=True)
class BlindJob(Job):
    """What heads that have not seen a row's label believe of it, by weight decay, and the scores of their mean."""

    stage: ClassVar[str] = "embed"
    pool: ClassVar[str] = "gpu"
    task: HeadsTask
    device: str

    def units(self) -> Sequence[str]:
        return block_names(self.task.catalog.num_rows, self.task.block_rows)

    def open(self) -> Callable[[str], UnitResult]:
        task = replace(self.task, device=self.device)
        heads = load_heads(task)
        catalog = task.catalog

        def compute(unit: str) -> UnitResult:
            start, stop = block_range(int(unit), task.block_rows, catalog.num_rows)
            features, labels = task.rows(np.arange(start, stop)), catalog.label[start:stop]
            logits = [
                heads.blind_logits(features, decay, heads.folds[start:stop]).astype(np.float64)
                for decay in range(len(task.settings.weight_decays))
            ]
            loss, margin, _ = sample_losses(mean_belief(logits), labels)
            content: dict[str, Array] = {"loss_oof": 0.0 - loss, "margin_oof": margin}
            for decay, each in enumerate(logits):
                packed = pack(with_rest(scipy.special.softmax(each, axis=1)), labels)
                content |= {f"{name}_{decay}": values for name, values in packed.items()}
            return UnitResult(content, rows=stop - start, facts={"heads": len(logits) * (stop - start)})

        return compute

    @property
    def beliefs(self) -> BlindBeliefs:
        """What the finished job gives."""
        task = self.task
        return BlindBeliefs(task.catalog, self.folder, task.settings.weight_decays)


def load_heads(task: HeadsTask) -> Heads:
    """The finished heads of a role."""
    arrays = map_arrays(task.store, f"{task.folder}/{ALL_HEADS}")
    tensors = {name: torch.from_numpy(np.array(values)).to(task.device) for name, values in arrays.items()}
    return Heads(tensors, task.folds(), task.settings)


@dataclass(frozen=True)
class BlindBeliefs:
    """Beliefs of heads that have not seen the rows' labels.

    Attributes:
        catalog: the rows.
        folder: of `BlindJob`.
        weight_decays: whose heads they are.
    """

    catalog: Catalog
    folder: str
    weight_decays: tuple[float, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the beliefs, in order."""
        return tuple(f"head {decay:g}" for decay in self.weight_decays)

    def read(self, block: int) -> dict[str, Array]:
        """By name (n, K) float64 beliefs of a block of rows."""
        arrays = self.arrays(block)
        found = {}
        for decay, name in enumerate(self.names):
            packed = {
                part: arrays[f"{part}_{decay}"] for part in ("values", "classes", "rest") if f"{part}_{decay}" in arrays
            }
            found[name] = unpack(packed, slice(None), self.catalog.num_classes)[:, :-1]
        return found

    def arrays(self, block: int) -> Mapping[str, Array]:
        """A block's file."""
        return map_arrays(self.catalog.store, f"{self.folder}/{block_name(block)}.safetensors")


def blind_job(task: HeadsTask, snapshot: Snapshot, device: str, after: Job) -> BlindJob:
    """The beliefs of a finished role's blind heads.

    Args:
        task: the role's.
        snapshot: its last one, which stands for all its heads.
        device: where they score.
        after: the statistics of the features.
    """
    inputs = [task.catalog.fingerprint, task.folder, snapshot.fingerprint, task.features.folder]
    mark = fingerprint("blind", VERSION, {"block_rows": task.block_rows}, inputs)
    return BlindJob(task.store, f"embed-{mark}", task, device, after=(after,))

"""Embedding: a snapshot's features and logits of every row, one block of rows per unit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.embed.beliefs import MAX_DENSE_CLASSES, pack, softmax, with_rest
from rayclean.embed.table import Embedding, Space
from rayclean.schema import Array
from rayclean.shards.access import PixelSettings
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.units import UnitResult, block_names, block_range
from rayclean.train.forward import Forward, ForwardSettings
from rayclean.train.sample_losses import sample_losses
from rayclean.train.snapshots import Snapshot, load_snapshot
from rayclean.train.spec import NetworkSpec

VERSION = 1


@dataclass(frozen=True)
class EmbedJob(Space):
    """Runs a snapshot over all rows."""

    stage: ClassVar[str] = "embed"
    pool: ClassVar[str] = "gpu"
    catalog: Catalog
    snapshot: Snapshot
    spec: NetworkSpec
    forward: ForwardSettings
    pixels: PixelSettings
    block_rows: int

    def units(self) -> Sequence[str]:
        """One unit per block of rows; a block may span shards."""
        return block_names(self.catalog.num_rows, self.block_rows)

    def open(self) -> Callable[[str], UnitResult]:
        network = load_snapshot(self.store, self.snapshot.file, self.spec)
        forward = Forward(network, self.spec, self.forward)
        pixels = self.catalog.shared_pixels(self.spec.size, self.pixels)

        def compute(unit: str) -> UnitResult:
            start, stop = block_range(int(unit), self.block_rows, self.catalog.num_rows)
            features, logits = forward.embed(forward.normalized(pixels.read(np.arange(start, stop))))
            labels = self.catalog.label[start:stop]
            content = embedding_arrays(features.cpu().numpy(), logits.cpu().numpy(), labels)
            return UnitResult(content, rows=stop - start, facts={"forwards": stop - start})

        return compute

    @property
    def embedding(self) -> Embedding:
        """What the finished job gives."""
        return Embedding(self.store, self.folder, self.block_rows, self.catalog.num_classes)


def embedding_arrays(features: Array | None, logits: Array, labels: Array) -> dict[str, Array]:
    """What a block's file holds: features (float16) where any, loss and margin at the label, logits or beliefs."""
    loss, margin, _ = sample_losses(logits, labels)
    arrays: dict[str, Array] = {} if features is None else {"features": features.astype(np.float16)}
    arrays |= {"loss": loss.astype(np.float32), "margin": margin.astype(np.float32)}
    if logits.shape[1] <= MAX_DENSE_CLASSES:
        return arrays | {"logits": logits}
    return arrays | pack(with_rest(softmax(logits)), labels)


def embed_job(
    catalog: Catalog,
    snapshot: Snapshot,
    spec: NetworkSpec,
    forward: ForwardSettings,
    pixels: PixelSettings,
    block_rows: int,
) -> EmbedJob:
    """The embedding of a snapshot."""
    fields = {
        "size": spec.size,
        "mean": spec.mean,
        "std": spec.std,
        "precision": forward.precision,
        "batch_size": forward.batch_size,
        "block_rows": block_rows,
    }
    mark = fingerprint("embed", VERSION, fields, [catalog.fingerprint, snapshot.fingerprint])
    return EmbedJob(catalog.store, f"embed-{mark}", catalog, snapshot, spec, forward, pixels, block_rows)

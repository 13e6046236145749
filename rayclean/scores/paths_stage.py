"""Paths: forwards along the pairs, added up by row, one unit per block of pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rayclean.catalog.table import Catalog
from rayclean.embed.beliefs import pack
from rayclean.embed.stage import EmbedJob
from rayclean.embed.table import Embedding
from rayclean.schema import Array
from rayclean.scores.interpolation import walk_block
from rayclean.scores.pairs import Pairs
from rayclean.scores.pairs_stage import PairsJob
from rayclean.shards.access import PixelSettings
from rayclean.storage.contents import map_arrays
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.units import Job, UnitResult, block_name, block_range, num_blocks
from rayclean.train.forward import Forward, ForwardSettings
from rayclean.train.snapshots import Snapshot, load_snapshot
from rayclean.train.spec import NetworkSpec

VERSION = 2


@dataclass(frozen=True)
class PathsJob(Job):
    """Walks the paths of a snapshot's pairs, one unit per block of pairs.

    Attributes:
        embedding: of the snapshot that walks, for the paths' ends; the pairs may come from another network's.
    """

    stage: ClassVar[str] = "paths"
    pool: ClassVar[str] = "gpu"
    lists_inputs: ClassVar[bool] = True
    catalog: Catalog
    embedding: Embedding
    snapshot: Snapshot
    spec: NetworkSpec
    forward: ForwardSettings
    pixels: PixelSettings
    pairs_folder: str
    num_groups: int
    steps: int
    end_weight: float
    block_pairs: int

    def units(self) -> Sequence[str]:
        """One unit per block of a group's pairs; the pairs must be there."""
        names = []
        for group in range(self.num_groups):
            total = len(self._group(group)["left"])
            names += [f"{block_name(group)}-{block_name(i)}" for i in range(num_blocks(total, self.block_pairs))]
        return names

    def _group(self, group: int) -> Mapping[str, Array]:
        return map_arrays(self.store, f"{self.pairs_folder}/{block_name(group)}.safetensors")

    def open(self) -> Callable[[str], UnitResult]:
        network = load_snapshot(self.store, self.snapshot.file, self.spec)
        forward = Forward(network, self.spec, self.forward)
        pixels = self.catalog.shared_pixels(self.spec.size, self.pixels)

        def compute(unit: str) -> UnitResult:
            group, block = (int(part) for part in unit.split("-"))
            arrays = self._group(group)
            start, stop = block_range(block, self.block_pairs, len(arrays["left"]))
            pairs = Pairs(*(arrays[name][start:stop] for name in Pairs._fields))
            with forward.running():
                sums, decoded = walk_block(
                    pairs,
                    lambda rows: forward.normalized(pixels.read(rows)),
                    self.embedding.beliefs,
                    forward.probabilities,
                    self.steps,
                    self.forward.batch_size,
                    self.end_weight,
                )
            facts = {"forwards": len(pairs.left) * (self.steps - 1), "decoded": decoded, "pairs": len(pairs.left)}
            content = {"rows": sums.rows, "num_paths": sums.num_paths}
            content |= pack(sums.sums, self.catalog.label[sums.rows])
            return UnitResult(content, rows=decoded, facts=facts)

        return compute


def paths_job(pairs: PairsJob, ends: EmbedJob, steps: int, end_weight: float, block_pairs: int) -> PathsJob:
    """The paths along pairs, walked by the snapshot of `ends`."""
    fields = {
        "steps": steps,
        "end_weight": end_weight,
        "block_pairs": block_pairs,
        "precision": ends.forward.precision,
        "batch_size": ends.forward.batch_size,
    }
    mark = fingerprint("paths", VERSION, fields, [pairs.folder, ends.folder])
    return PathsJob(
        ends.store,
        f"paths-{mark}",
        pairs.catalog,
        ends.embedding,
        ends.snapshot,
        ends.spec,
        ends.forward,
        ends.pixels,
        pairs.folder,
        len(pairs.units()),
        steps,
        end_weight,
        block_pairs,
        after=(pairs, ends),
    )

"""New shards with the samples that were chosen: one unit per input shard, in parallel, and resumed where it stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from rayclean.catalog.labels import ClassList, LabelField
from rayclean.errors import ConfigError, UnitError
from rayclean.export.copying import Copied, Wanted, copy_samples
from rayclean.export.relabel import relabelled
from rayclean.export.rows import Chosen, ShardRowReader, ShardRows, source_labels
from rayclean.schema import Array
from rayclean.shards.opening import open_shard
from rayclean.storage.contents import read_json
from rayclean.storage.store import Store
from rayclean.storage.units import Job, UnitResult, block_name


@dataclass(frozen=True)
class ShardsJob(Job):
    """Copies the chosen samples of each shard to a shard of the same name below `out`.

    A unit's file in the run says what it wrote; it is done when both are there. A worker holds one new shard in
    memory. A shard of which nothing is chosen gives none.

    Attributes:
        out: where the new shards go.
        chosen: which samples.
        field: where a sample holds its label.
        names: of the run's classes, by label.
        source: the shards' classes: others where `noise.classes` took a pair of them.
    """

    stage: ClassVar[str] = "export"
    suffix: ClassVar[str] = ".json"
    out: Store
    chosen: Chosen
    field: LabelField
    names: tuple[str, ...]
    source: ClassList

    def units(self) -> Sequence[str]:
        return [f"shards/{block_name(shard)}" for shard in range(self.chosen.catalog.shards.num_rows)]

    def missing(self) -> list[str]:
        """Units without a file, and those whose new shard is gone; these lose their file."""
        names = [inside(name) for name in self.chosen.catalog.shards["name"].to_pylist()]
        folders = {name.rpartition("/")[0] for name in names}
        there = {f"{folder}/{file}".lstrip("/") for folder in folders for file in self.out.list(folder)}
        undone = set(super().missing())
        for unit, name in zip(self.units(), names, strict=True):
            if unit not in undone and name not in there and self.facts(unit)["samples"]:
                self.store.remove(self.file(unit))
                undone.add(unit)
        return [unit for unit in self.units() if unit in undone]

    def facts(self, unit: str) -> dict[str, Any]:
        """What a finished unit wrote."""
        facts: dict[str, Any] = read_json(self.store, self.file(unit))
        return facts

    def open(self) -> Callable[[str], UnitResult]:
        reader = ShardRowReader(self.chosen)
        to_source = source_labels(self.names, self.source.names)

        def compute(unit: str) -> UnitResult:
            shard = reader.read(int(unit.rpartition("/")[2]))
            copied = Copied()
            if shard.exported.any():
                with open_shard(shard.identity.url) as file:
                    wanted = self._wanted(shard, to_source)
                    copied = copy_samples(file, shard.identity.url, wanted, self.field.extension)
                shard.check_unchanged()
                self.out.publish(shard.name, memoryview(copied.data))
            facts = {
                "samples": copied.samples,
                "relabelled": copied.changed,
                "not_exported": shard.rows.num_rows - copied.samples,
                "quarantined": shard.quarantined,
                "left_out": shard.left_out,
                "bytes": len(copied.data),
            }
            content = facts | {"name": shard.name, "sha256": hashlib.sha256(copied.data).hexdigest()}
            return UnitResult(content, rows=shard.rows.num_rows, facts={"samples": copied.samples})

        return compute

    def _wanted(self, shard: ShardRows, to_source: Array) -> Mapping[int, Wanted]:
        """The chosen samples by their positions; those whose label is not the one in the shard with the change."""
        rows = shard.rows.select(["sample", "key"]).filter(shard.exported).to_pylist()
        labels = to_source[shard.decision.label[shard.exported]]
        wanted = {}
        for row, label, old in zip(rows, labels.tolist(), shard.in_shard[shard.exported].tolist(), strict=True):
            if label != old and not self.field.extension:
                raise UnitError(
                    f"{shard.name} '{row['key']}': its label is the name of its folder, which a copy keeps, "
                    "and it would have another one; export a list (--to parquet) instead"
                )
            change = partial(relabelled, field=self.field, classes=self.source, label=label)
            wanted[row["sample"]] = Wanted(row["key"], change if label != old else None)
        return wanted


def inside(name: str) -> str:
    """The name of a new shard below the output folder.

    Raises:
        ConfigError: it would lie outside.
    """
    if ".." in name.split("/"):
        raise ConfigError(f"data.shards: {name}: a new shard of this name would lie outside --out; name it plainly")
    return name

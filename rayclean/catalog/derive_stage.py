"""A catalog derived from another: rows left out on purpose, labels made wrong on purpose, the truth kept aside.

The thresholds of what stays are found once over all rows; then each shard is done by itself, as in `imbalance.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from rayclean.arrays import Array
from rayclean.catalog import imbalance, noise
from rayclean.catalog.scan import TRUTH_SCHEMA
from rayclean.catalog.table import Catalog
from rayclean.config import NoiseSection
from rayclean.storage.contents import map_arrays, read_table
from rayclean.storage.draws import seeded_hash
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.units import Job, UnitResult, block_name

VERSION = 1
PLAN = "plan"
IMBALANCE, HELD_OUT = "imbalance", "validation"  # why a row is left out
LEFT_OUT_SCHEMA = pa.schema(
    [("sample", pa.int32()), ("key", pa.string()), ("label", pa.int32()), ("reason", pa.string())]
)
UNKNOWN = -1


@dataclass(frozen=True)
class Derivation:
    """What is done to a catalog.

    Attributes:
        noise: imbalance and wrong labels.
        seed: of every draw.
        held_out: rows of each true class that are kept apart, as verified.
        keeps: the `rest` for training and scoring, or what is `held_out`, with its true labels.
        threshold_part: which rows get the class of AUM's threshold samples, one more than there are; None for none.
        base: labels that are changed: the `truth` where the shards have it, or the given `label`.
        size: of the images that `instance` looks at.
        max_pixels: see `decode_image`.
    """

    noise: NoiseSection
    seed: int
    held_out: int
    keeps: str
    size: int
    max_pixels: float
    base: str = "truth"
    threshold_part: int | None = None

    @property
    def leaves_out(self) -> bool:
        """Whether rows are left out, for which thresholds must be found first."""
        return self.noise.imbalance is not None or self.held_out > 0


@dataclass(frozen=True)
class PlanJob(Job):
    """Finds which rows stay: thresholds of their hashes, by true class. One unit."""

    stage: ClassVar[str] = "catalog"
    pool: ClassVar[str] = "catalog"
    source: Catalog
    derivation: Derivation

    def units(self) -> Sequence[str]:
        """The one unit; none where all rows stay."""
        return [PLAN] if self.derivation.leaves_out else []

    def open(self) -> Callable[[str], UnitResult]:
        """Nothing to load."""

        def compute(_: str) -> UnitResult:
            truth, ids = base_labels(self.source, self.derivation.base), self.source.clip_id
            num_classes, settings = self.source.num_classes, self.derivation.noise
            known = np.flatnonzero(truth != UNKNOWN)
            held_out = np.full(num_classes, self.derivation.held_out)
            apart = imbalance.keep_thresholds(truth[known], _apart_ids(ids[known]), held_out, self.derivation.seed)
            rest = known[~imbalance.is_kept(truth[known], _apart_ids(ids[known]), apart, self.derivation.seed)]
            counts = np.bincount(truth[rest], minlength=num_classes)
            targets = imbalance.class_targets(settings.imbalance or "none", counts, settings.ratio, settings.classes)
            stay = imbalance.keep_thresholds(truth[rest], ids[rest], targets, self.derivation.seed)
            return UnitResult({"apart": apart, "stay": stay}, rows=len(truth))

        return compute


def _apart_ids(ids: Array) -> Array:
    """Draw ids for what is held out, so that its draws are independent of those of the imbalance."""
    return seeded_hash(0, "validation", ids)


def base_labels(source: Catalog, base: str) -> Array:
    """(N,) int64 labels that are changed: the truth where it is meant and there, -1 where unknown; else the given."""
    parts = []
    if base == "label":
        return source.label.astype(np.int64)
    for shard in range(source.shards.num_rows):
        truth = source.truth_of_shard(shard)
        if truth is None:
            return source.label.astype(np.int64)
        parts.append(truth["label"].fill_null(UNKNOWN).to_numpy())
    return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)


@dataclass(frozen=True)
class DeriveJob(Job):
    """Writes the rows of a shard that stay, their labels, and why others do not."""

    stage: ClassVar[str] = "catalog"
    suffix: ClassVar[str] = ".parquet"
    pool: ClassVar[str] = "catalog"
    source: Catalog
    derivation: Derivation

    def units(self) -> Sequence[str]:
        """A unit a shard."""
        return [f"rows/{block_name(i)}" for i in range(self.source.shards.num_rows)]

    def beside(self, unit: str) -> Sequence[str]:
        """What is left out, in quarantine, and the truth."""
        return [f"{kind}/{unit.removeprefix('rows/')}.parquet" for kind in ("left_out", "quarantine", "truth")]

    def open(self) -> Callable[[str], UnitResult]:
        """Loads the plan."""
        plan: Mapping[str, Array] = {}
        if self.derivation.leaves_out:
            plan = map_arrays(self.store, f"{self.folder}/{PLAN}.safetensors")
        truth = base_labels(self.source, self.derivation.base)

        def compute(unit: str) -> UnitResult:
            name = unit.removeprefix("rows/")
            return self._shard(int(name), name, plan, truth)

        return compute

    def _shard(self, shard: int, name: str, plan: Mapping[str, Array], all_truth: Array) -> UnitResult:
        entry = self.source.shards.slice(shard, 1).to_pylist()[0]
        rows = np.arange(entry["first_row"], entry["first_row"] + entry["rows"])
        table, truth, ids = self.source.rows_of_shard(shard), all_truth[rows], self.source.clip_id[rows]
        known = truth != UNKNOWN
        apart, stays = np.zeros(len(rows), bool), np.ones(len(rows), bool)
        seed = self.derivation.seed
        if self.derivation.held_out:
            apart[known] = imbalance.is_kept(truth[known], _apart_ids(ids[known]), plan["apart"], seed)
        if self.derivation.noise.imbalance:
            stays[known] = imbalance.is_kept(truth[known], ids[known], plan["stay"], seed)
        keeps_apart = self.derivation.keeps == "held_out"
        kept = apart if keeps_apart else stays & ~apart
        reasons = np.where(apart, HELD_OUT, IMBALANCE)
        truth = self._relabelled(truth, kept)
        given = self._given(table, rows, truth, ids, kept, keeps_apart)
        content = _with_labels(table.filter(pa.array(kept)), given)
        left_out = table.filter(pa.array(~kept)).select(["sample", "key", "label"])
        left_out = left_out.append_column("reason", pa.array(reasons[~kept], pa.string())).cast(LEFT_OUT_SCHEMA)
        quarantine = read_table(self.store, f"{self.source.folder}/quarantine/{name}.parquet")
        beside = {
            f"left_out/{name}.parquet": left_out,
            f"quarantine/{name}.parquet": quarantine,
            f"truth/{name}.parquet": _truth_table(truth[kept]),
        }
        return UnitResult(content, beside, rows=len(rows), facts={"left_out": left_out.num_rows})

    def _relabelled(self, truth: Array, kept: Array) -> Array:
        """True labels in the classes that are left."""
        classes = self.derivation.noise.classes
        if classes is None:
            return truth
        result = truth.copy()
        result[kept] = imbalance.relabel(truth[kept], classes)
        return result

    def _given(self, table: pa.Table, rows: Array, truth: Array, ids: Array, kept: Array, keeps_apart: bool) -> Array:
        """Given labels of the rows that stay."""
        settings = self.derivation.noise
        if keeps_apart:
            return truth[kept].astype(np.int32)
        if self.derivation.threshold_part is not None:
            num_classes = self.source.num_classes
            drawn = noise.threshold_samples(ids, num_classes, self.derivation.threshold_part, self.derivation.seed)
            return np.where(drawn, num_classes, truth)[kept].astype(np.int32)
        if settings.kind is None:
            labels = table["label"].to_numpy()[kept]
            return labels if settings.classes is None else truth[kept].astype(np.int32)
        num_classes = self.source.num_classes if settings.classes is None else 2
        seed = self.derivation.seed
        if settings.kind == "instance":
            pixels = self.source.pixels(self.derivation.size, self.derivation.max_pixels)
            images = pixels.read(rows[kept]) if kept.any() else np.empty((0, 1, 1, 3), np.uint8)
            assert settings.rate is not None  # the config's check lets none through
            return noise.instance_labels(images, truth[kept], ids[kept], num_classes, settings.rate, seed)
        matrix, rates = settings.matrix_array, settings.rates_array
        arguments = truth[kept], ids[kept], num_classes, settings.rate, seed
        return noise.flip_labels(settings.kind, *arguments, matrix=matrix, rates=rates)


def _with_labels(table: pa.Table, labels: Array) -> pa.Table:
    """The rows of a shard, numbered anew, with these labels."""
    columns = {
        "index_in_shard": pa.array(np.arange(table.num_rows), pa.int32()),
        "label": pa.array(labels, pa.int32()),
    }
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


def _truth_table(truth: Array) -> pa.Table:
    labels = pa.array(truth, pa.int32(), mask=truth == UNKNOWN)
    return pa.table({"index_in_shard": pa.array(np.arange(len(truth)), pa.int32()), "label": labels}, TRUTH_SCHEMA)


def derived_fingerprint(source: Catalog, derivation: Derivation) -> str:
    """What a derived catalog depends on."""
    fields: dict[str, Any] = {
        "noise": derivation.noise.model_dump(mode="json"),
        "seed": derivation.seed,
        "held_out": derivation.held_out,
        "keeps": derivation.keeps,
        "base": derivation.base,
        "threshold_part": derivation.threshold_part,
    }
    if derivation.noise.kind == "instance":
        fields["image"] = [derivation.size, derivation.max_pixels]
    return fingerprint("derived", VERSION, fields, [source.fingerprint])

"""A catalog derived from another: rows left out on purpose, labels made wrong on purpose, the truth kept aside.

The thresholds of what stays are found once over all rows; then each shard is done by itself, as in `imbalance.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from rayclean.catalog import imbalance, noise
from rayclean.catalog.scan import TRUTH_SCHEMA
from rayclean.catalog.table import Catalog
from rayclean.config import NoiseSection
from rayclean.config.noise_kinds import IMBALANCES, NOISE_KINDS, Imbalance, NoiseKind
from rayclean.errors import InputError
from rayclean.schema import NONE_OF_CLASSES, UNKNOWN, Array
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


@dataclass(frozen=True)
class Derivation:
    """What is done to a catalog.

    Attributes:
        noise: imbalance and wrong labels.
        seed: of every draw.
        held_out: rows per class that are kept apart, as verified.
        keeps: the `rest` for training and scoring, or what is `held_out`, with its verified labels.
        threshold_part: which rows get the class of AUM's threshold samples, one more than there are; None for none.
        size: of the images that `instance` looks at.
        max_pixels: see `decode_image`.
        base: part of the catalog's name.
        none_by_truth: whether rows that are of none of the classes by `data.truth` stay as they are.
        kind: of `noise`; it travels with the job, since a worker may not know what was registered elsewhere.
        imbalance: likewise.
    """

    noise: NoiseSection
    seed: int
    held_out: int
    keeps: str
    size: int
    max_pixels: float
    base: str = "truth"
    threshold_part: int | None = None
    none_by_truth: bool = False
    kind: NoiseKind | None = field(init=False, compare=False, repr=False)
    imbalance: Imbalance | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        kind, imbalance = self.noise.kind, self.noise.imbalance
        object.__setattr__(self, "kind", None if kind is None else NOISE_KINDS.get(kind))
        object.__setattr__(self, "imbalance", None if imbalance is None else IMBALANCES.get(imbalance))

    @property
    def changes_labels(self) -> bool:
        """Whether labels or rows are made other than they were: what they were is then the truth."""
        return self.noise.is_on or self.threshold_part is not None

    @property
    def leaves_out(self) -> bool:
        """Whether rows are left out, for which thresholds must be found first."""
        return self.imbalance is not None or self.held_out > 0


@dataclass(frozen=True)
class PlanJob(Job):
    """Finds which rows stay: thresholds of their hashes, by true class. One unit."""

    stage: ClassVar[str] = "catalog"
    source: Catalog
    derivation: Derivation

    def units(self) -> Sequence[str]:
        """The one unit; none where all rows stay."""
        return [PLAN] if self.derivation.leaves_out else []

    def open(self) -> Callable[[str], UnitResult]:
        def compute(_: str) -> UnitResult:
            labels, ids, seed = self.source.label, self.source.clip_id, self.derivation.seed
            num_classes, settings = self.source.num_classes, self.derivation.noise
            verified = verified_labels(self.source)
            known = verified != UNKNOWN
            held_out = np.full(num_classes, self.derivation.held_out)
            apart = imbalance.keep_thresholds(verified[known], _apart_ids(ids[known]), held_out, seed)
            rest = ~_is_apart(verified, ids, apart, seed)
            counts = np.bincount(labels[rest], minlength=num_classes)
            targets = counts
            if self.derivation.imbalance is not None:
                targets = imbalance.targets_of(self.derivation.imbalance, counts, settings.ratio, settings.classes)
            stay = imbalance.keep_thresholds(labels[rest], ids[rest], targets, seed)
            return UnitResult({"apart": apart, "stay": stay}, rows=len(labels))

        return compute


def _apart_ids(ids: Array) -> Array:
    """Draw ids for what is kept apart, so that its draws are independent of those of the imbalance."""
    return seeded_hash(0, "validation", ids)


def _is_apart(verified: Array, ids: Array, thresholds: Array, seed: int) -> Array:
    """(N,) bool: rows that are kept apart; none without a verified label."""
    known, apart = verified != UNKNOWN, np.zeros(len(verified), bool)
    apart[known] = imbalance.is_kept(verified[known], _apart_ids(ids[known]), thresholds, seed)
    return apart


def verified_labels(source: Catalog) -> Array:
    """(N,) int64 labels of rows that may be kept apart: of a member of their own, `UNKNOWN` without; else the given."""
    tables = [source.verified_of_shard(shard) for shard in range(source.shards.num_rows)]
    parts = [_labels(table) for table in tables if table is not None]
    return np.concatenate(parts) if parts else source.label.astype(np.int64)


def _labels(table: pa.Table) -> Array:
    return np.asarray(table["label"].fill_null(UNKNOWN).to_numpy().astype(np.int64))


@dataclass(frozen=True)
class DeriveJob(Job):
    """Writes the rows of a shard that stay, their labels, and why others do not."""

    stage: ClassVar[str] = "catalog"
    suffix: ClassVar[str] = ".parquet"
    lists_inputs: ClassVar[bool] = True
    source: Catalog
    derivation: Derivation

    def units(self) -> Sequence[str]:
        return [f"rows/{block_name(i)}" for i in range(self.source.shards.num_rows)]

    def beside(self, unit: str) -> Sequence[str]:
        """What is left out, in quarantine, and the truth."""
        return [f"{kind}/{unit.removeprefix('rows/')}.parquet" for kind in ("left_out", "quarantine", "truth")]

    def open(self) -> Callable[[str], UnitResult]:
        plan: Mapping[str, Array] = {}
        if self.derivation.leaves_out:
            plan = map_arrays(self.store, f"{self.folder}/{PLAN}.safetensors")
        verified = verified_labels(self.source) if self.derivation.held_out else np.empty(0, np.int64)

        def compute(unit: str) -> UnitResult:
            name = unit.removeprefix("rows/")
            return self._shard(int(name), name, plan, verified)

        return compute

    def _shard(self, shard: int, name: str, plan: Mapping[str, Array], all_verified: Array) -> UnitResult:
        entry = self.source.shards.slice(shard, 1).to_pylist()[0]
        rows = np.arange(entry["first_row"], entry["first_row"] + entry["rows"])
        table, ids = self.source.rows_of_shard(shard), self.source.clip_id[rows]
        labels, seed = table["label"].to_numpy().astype(np.int64), self.derivation.seed
        apart, stays = np.zeros(len(rows), bool), np.ones(len(rows), bool)
        if self.derivation.held_out:
            apart = _is_apart(all_verified[rows], ids, plan["apart"], seed)
        if self.derivation.imbalance is not None:
            stays = imbalance.is_kept(labels, ids, plan["stay"], seed)
        keeps_apart = self.derivation.keeps == "held_out"
        kept = apart if keeps_apart else stays & ~apart
        reasons = np.where(apart, HELD_OUT, IMBALANCE)
        before = self._relabelled(labels, kept)
        given = all_verified[rows][kept].astype(np.int32) if keeps_apart else self._given(rows, before, ids, kept)
        truth = self._truth(shard, labels, before)
        if not keeps_apart:
            given = np.where(truth[kept] == NONE_OF_CLASSES, before[kept], given).astype(np.int32)
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

    def _truth(self, shard: int, labels: Array, before: Array) -> Array:
        """True labels of a shard's rows: the labels before the noise where labels are made, else only carried on.

        Raises:
            InputError: by the truth of the shards the labels are wrong before any noise is made.
        """
        derivation = self.derivation
        if derivation.changes_labels and not derivation.none_by_truth:
            return before
        table = self.source.truth_of_shard(shard)
        if table is None:
            return before
        known = _labels(table)
        if not derivation.changes_labels:
            return known
        if (other := (known >= 0) & (known != labels)).any():
            row = int(other.argmax())
            key = self.source.rows_of_shard(shard)["key"][row].as_py()
            raise InputError(
                f"{self.source.shards['name'][shard].as_py()}: key {key!r} has the label {labels[row]} and the truth "
                f"{known[row]}; noise.* takes labels for the truth, and of data.truth only -1, none of the classes: "
                "set data.label to the field with the right labels, or unset data.truth"
            )
        return np.where(known == NONE_OF_CLASSES, NONE_OF_CLASSES, before)

    def _relabelled(self, truth: Array, kept: Array) -> Array:
        """Labels in the classes that are left."""
        classes = self.derivation.noise.classes
        if classes is None:
            return truth
        result = truth.copy()
        result[kept] = imbalance.relabel(truth[kept], classes)
        return result

    def _given(self, rows: Array, truth: Array, ids: Array, kept: Array) -> Array:
        """Given labels of the rows that stay, made from those before."""
        settings = self.derivation.noise
        if self.derivation.threshold_part is not None:
            num_classes = self.source.num_classes
            drawn = noise.threshold_samples(ids, num_classes, self.derivation.threshold_part, self.derivation.seed)
            return np.where(drawn, num_classes, truth)[kept].astype(np.int32)
        kind = self.derivation.kind
        if kind is None:
            return truth[kept].astype(np.int32)
        images = None
        if kind.reads_images:
            pixels = self.source.pixels(self.derivation.size, self.derivation.max_pixels)
            images = pixels.read(rows[kept]) if kept.any() else np.empty((0, 1, 1, 3), np.uint8)
        asked = noise.NoiseRows(
            truth=truth[kept],
            draw_ids=ids[kept],
            num_classes=self.source.num_classes if settings.classes is None else 2,
            seed=self.derivation.seed,
            rate=settings.rate,
            rates=settings.rates_array,
            matrix=settings.matrix_array,
            images=images,
        )
        return noise.make_labels(kind, asked)


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


def derived_mark(source: Catalog, derivation: Derivation) -> str:
    """What a derived catalog is made from."""
    fields: dict[str, Any] = {
        "noise": derivation.noise.model_dump(mode="json"),
        "seed": derivation.seed,
        "held_out": derivation.held_out,
        "keeps": derivation.keeps,
        "base": derivation.base,
        "threshold_part": derivation.threshold_part,
    }
    if derivation.kind is not None and derivation.kind.reads_images:
        fields["image"] = [derivation.size, derivation.max_pixels]
    for name, chosen in (("kind", derivation.kind), ("imbalance", derivation.imbalance)):
        if chosen is not None and chosen.version > 1:  # names of catalogs of before stay
            fields[f"{name}_version"] = chosen.version
    return fingerprint("derived", VERSION, fields, [source.mark])

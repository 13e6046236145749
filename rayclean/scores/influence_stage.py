"""OSM and OSD of a snapshot: one solve on a sample of rows, one pass over all, one fit of what makes them z-scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.config import InfluenceSection
from rayclean.embed.table import Embedding, Space
from rayclean.errors import InputError
from rayclean.schema import Array
from rayclean.scores.influence_scores import (
    HESSIAN_SALT,
    VERIFIED_SALT,
    LastLayer,
    fit,
    raw_influence,
    solve,
    totals_of,
)
from rayclean.storage.contents import map_arrays
from rayclean.storage.draws import drawn_of_each_class, uniform
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.units import Job, UnitResult, block_name, block_names, block_range, num_blocks

VERSION = 1
SOLVED, FIT, SOLVER_FILE = "solved", "fit", "solver.json"
RAW = "raw"
FIT_ROWS = 100_000  # of which the votes' mixtures are fitted, about


class Verified(NamedTuple):
    """Rows whose labels are known to be right, embedded at the same snapshot."""

    catalog: Catalog
    embedding: Embedding


@dataclass(frozen=True)
class InfluenceJob(Job):
    """What the steps of a snapshot's influence share.

    Attributes:
        embedding: of the snapshot.
        verified: None without any, and then there is no OSD.
        by_clip: whether a row's influence is that of its clip's mean gradient, and z-scores run over clips.
        among: a file of labels by row, `LEFT_OUT` for rows that are not trained on and count nowhere; None for all.
    """

    stage: ClassVar[str] = "influence"
    catalog: Catalog
    embedding: Embedding
    verified: Verified | None
    settings: InfluenceSection
    seed: int
    by_clip: bool
    among: str | None = None

    def counted(self) -> Array:
        """(N,) bool: rows that the Hessian and the z-scores are of."""
        if self.among is None:
            return np.ones(self.catalog.num_rows, bool)
        return np.asarray(map_arrays(self.store, self.among)["labels"] >= 0)


@dataclass(frozen=True)
class SolveJob(InfluenceJob):
    """Solves with the Hessian of a stratified sample of rows. One unit."""

    def units(self) -> Sequence[str]:
        return [SOLVED]

    def beside(self, unit: str) -> Sequence[str]:
        """What the solver says of itself."""
        return [SOLVER_FILE]

    def open(self) -> Callable[[str], UnitResult]:
        return lambda _: self._solve()

    def _solve(self) -> UnitResult:
        sample = _last_layer(self.embedding, self.catalog, self._hessian_rows())
        verified = None
        if self.verified is not None:
            rows = self._verified_rows(self.verified.catalog)
            verified = _last_layer(self.verified.embedding, self.verified.catalog, rows)
        solved, facts = solve(sample, verified, self.settings.damping, self.settings.probes, self.seed)
        return UnitResult(solved, {SOLVER_FILE: facts}, rows=len(sample.labels))

    def _hessian_rows(self) -> Array:
        """Rows of all classes in their shares."""
        rows = np.flatnonzero(self.counted())
        share = min(1.0, self.settings.hessian_rows / max(len(rows), 1))
        ids, labels = self.catalog.draw_id[rows], self.catalog.label[rows]
        # Rounded up, so that no class that has rows is without any.
        return rows[drawn_of_each_class(self.seed, HESSIAN_SALT, ids, labels, lambda count: math.ceil(share * count))]

    def _verified_rows(self, catalog: Catalog) -> Array:
        return verified_rows(catalog, self.settings, self.seed)


def verified_rows(catalog: Catalog, settings: InfluenceSection, seed: int) -> Array:
    """The verified rows: `validation_num` per class, drawn by what they are.

    Raises:
        InputError: there is none.
    """
    num, ids, labels = settings.validation_num, catalog.draw_id, catalog.label
    rows = drawn_of_each_class(seed, VERIFIED_SALT, ids, labels, lambda _: num)
    if not len(rows):
        raise InputError(f"influence.validation: found no usable sample in {settings.validation}")
    return rows


def _last_layer(embedding: Embedding, catalog: Catalog, rows: Array) -> LastLayer:
    return LastLayer(embedding.logits(rows), embedding.features(rows), catalog.label[rows])


@dataclass(frozen=True)
class RawJob(InfluenceJob):
    """The norms of the influence on the model, and its deviations over verified rows, one block of rows per unit."""

    def units(self) -> Sequence[str]:
        return [f"{RAW}/{name}" for name in block_names(self.catalog.num_rows, self.embedding.block_rows)]

    def open(self) -> Callable[[str], UnitResult]:
        solved = map_arrays(self.store, f"{self.folder}/{SOLVED}.safetensors")

        def compute(unit: str) -> UnitResult:
            block = int(unit.removeprefix(f"{RAW}/"))
            start, stop = block_range(block, self.embedding.block_rows, self.catalog.num_rows)
            rows = np.arange(start, stop)
            raw = self._of_clips(solved, rows) if self.by_clip else self._of_frames(solved, rows)
            return UnitResult(raw, rows=stop - start)

        return compute

    def _of_frames(self, solved: Mapping[str, Array], rows: Array) -> dict[str, Array]:
        return raw_influence(solved, _last_layer(self.embedding, self.catalog, rows))

    def _of_clips(self, solved: Mapping[str, Array], rows: Array) -> dict[str, Array]:
        """Of the whole clips that the rows are frames of: one that two blocks share is done in both, alike."""
        clips, clip_of_row = np.unique(self.catalog.clip[rows], return_inverse=True)
        frames, clip_of_frame = self.catalog.frames_of(clips)
        raw = raw_influence(solved, _last_layer(self.embedding, self.catalog, frames), clip_of_frame)
        return {name: values[clip_of_row] for name, values in raw.items()}


@dataclass(frozen=True)
class FitJob(InfluenceJob):
    """Moments over all rows, and from where a class votes. One unit."""

    def units(self) -> Sequence[str]:
        return [FIT]

    def open(self) -> Callable[[str], UnitResult]:
        def compute(_: str) -> UnitResult:
            total, block_rows = self.catalog.num_rows, self.embedding.block_rows
            counted, blocks, sampled = self.counted(), [], []
            for block in range(num_blocks(total, block_rows)):
                start, stop = block_range(block, block_rows, total)
                raw = map_arrays(self.store, f"{self.folder}/{RAW}/{block_name(block)}.safetensors")
                drawn = uniform(self.seed, "influence.fit", self.catalog.draw_id[start:stop]) < FIT_ROWS / total
                here = counted[start:stop]
                if self.by_clip:  # one row stands for its clip
                    here = here & self.catalog.is_first_of_clip(start, stop)
                kept, drawn = {name: values[here] for name, values in raw.items()}, drawn[here]
                blocks.append(kept)
                sampled.append({name: values[drawn] for name, values in kept.items()})
            sample = {name: np.concatenate([each[name] for each in sampled]) for name in sampled[0]}
            return UnitResult(fit(totals_of(blocks), sample, self.settings.standardize), rows=total)

        return compute


def influence_jobs(
    catalog: Catalog,
    embed: Space,
    verified: tuple[Catalog, Space] | None,
    settings: InfluenceSection,
    seed: int,
    by_clip: bool = False,
    among: str | None = None,
) -> tuple[SolveJob, RawJob, FitJob]:
    """The steps of a snapshot's influence, in order; `among` is as in `InfluenceJob`."""
    # Left out is what the inputs' names say already, and gamma, which is asked for later and changes no file.
    fields = settings.model_dump(exclude={"role", "validation", "validation_label", "gamma", "epochs"}) | {"seed": seed}
    if by_clip:
        fields["by_clip"] = True
    inputs, known = [catalog.fingerprint, embed.folder], None
    of_known: tuple[Job, ...] = ()
    if verified is not None:
        inputs += [verified[0].fingerprint, verified[1].folder]
        known, of_known = Verified(verified[0], verified[1].embedding), (verified[1],)
    if among is not None:
        inputs.append(among)
    folder = f"influence-{fingerprint('influence', VERSION, fields, inputs)}"
    shared = catalog.store, folder, catalog, embed.embedding, known, settings, seed, by_clip, among
    solve = SolveJob(*shared, after=(embed, *of_known))
    raw = RawJob(*shared, after=(solve, embed))
    return solve, raw, FitJob(*shared, after=(raw,))

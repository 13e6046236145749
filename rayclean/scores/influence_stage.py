"""OSM and OSD of a snapshot: one solve on a sample of rows, one pass over all, one fit of what makes them z-scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from rayclean.arrays import Array
from rayclean.catalog.table import Catalog
from rayclean.config import InfluenceSection
from rayclean.embed.table import Embedding
from rayclean.errors import InputError
from rayclean.scores.influence import (
    class_deviation,
    damping_share,
    gradient_norms,
    gradient_products,
    gradients,
    influence_norms,
    probe_norms,
    residuals,
    validation_influence,
)
from rayclean.scores.influence_solvers import (
    SPECTRUM_QUANTILES,
    DenseSolver,
    Hessian,
    make_solver,
    rademacher,
    relative_error,
)
from rayclean.scores.influence_votes import Moments, fit_votes, moments, standardized
from rayclean.storage.contents import map_arrays
from rayclean.storage.draws import seeded_hash, smallest_draws, uniform
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.units import Job, UnitResult, block_names, block_range, num_blocks

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
        verified: the validation rows; None without, and then there is no OSD.
    """

    stage: ClassVar[str] = "influence"
    catalog: Catalog
    embedding: Embedding
    verified: Verified | None
    settings: InfluenceSection
    seed: int


@dataclass(frozen=True)
class SolveJob(InfluenceJob):
    """Solves with the Hessian of a stratified sample of rows. One unit."""

    def units(self) -> Sequence[str]:
        """The one unit."""
        return [SOLVED]

    def open(self) -> Callable[[str], UnitResult]:
        """Nothing to load."""
        return lambda _: self._solve()

    def _solve(self) -> UnitResult:
        rows = self._hessian_rows()
        logits, features = self.embedding.logits(rows), self.embedding.features(rows)
        probabilities = self.embedding.beliefs(rows)[:, :-1]
        solver = make_solver(Hessian(probabilities, features, self.settings.damping))
        shape = probabilities.shape[1], features.shape[1] + 1
        content: dict[str, Array] = {}
        residual = residuals(logits, self.catalog.label[rows])
        facts: dict[str, Any] = {"hessian_rows": len(rows), "parameters": shape[0] * shape[1]}
        if isinstance(solver, DenseSolver):
            content["inverse"] = solver.inverse()
            norms = influence_norms(content["inverse"], residual, features)
        else:
            content["probes"] = solver.solve(rademacher(self.settings.probes, shape, self.seed))
            norms = probe_norms(gradient_products(content["probes"], residual, features))
            facts["osm_relative_error"] = relative_error(self.settings.probes) / 2
        if self.verified is not None:
            chosen, labels = self._verified_rows(self.verified)
            own = self.verified.embedding
            right = gradients(residuals(own.logits(chosen), labels), own.features(chosen))
            content |= {"validation": solver.solve(right), "labels": labels}
            facts["validation_rows"] = len(chosen)
        spectrum = solver.spectrum()
        facts["spectrum"] = dict(zip(map(str, SPECTRUM_QUANTILES), spectrum.quantiles.tolist(), strict=True))
        facts["mean_eigenvalue"] = spectrum.mean
        facts["damping_share"] = damping_share(norms, gradient_norms(residual, features), self.settings.damping)
        return UnitResult(content, {SOLVER_FILE: facts}, rows=len(rows))

    def _hessian_rows(self) -> Array:
        """Rows of all classes in their shares, by seeded hash; ascending."""
        share = min(1.0, self.settings.hessian_rows / self.catalog.num_rows)
        chosen = []
        for label in np.flatnonzero(self.catalog.class_counts):
            start, stop = self.catalog.label_range(int(label))
            rows = self.catalog.by_label[start:stop]
            ids = self.catalog.draw_id[rows]
            chosen.append(rows[smallest_draws(self.seed, "influence.hessian", ids, math.ceil(share * len(rows)))])
        return np.sort(np.concatenate(chosen))

    def _verified_rows(self, verified: Verified) -> tuple[Array, Array]:
        """`validation_num` rows a class with the smallest seeded hashes, and their labels."""
        catalog, chosen = verified.catalog, []
        for label in np.flatnonzero(catalog.class_counts):
            start, stop = catalog.label_range(int(label))
            rows = catalog.by_label[start:stop]
            hashes = seeded_hash(self.seed, "influence.validation", catalog.draw_id[rows])
            chosen.append(rows[np.argsort(hashes, kind="stable")[: self.settings.validation_num]])
        if not chosen:
            raise InputError(f"influence.validation: found no usable sample in {self.settings.validation}")
        rows = np.sort(np.concatenate(chosen))
        return rows, catalog.label[rows].astype(np.int64)


@dataclass(frozen=True)
class RawJob(InfluenceJob):
    """The norms of the influence on the model, and its deviations over the validation rows, a block of rows a unit."""

    def units(self) -> Sequence[str]:
        """A unit a block of rows."""
        return [f"{RAW}/{name}" for name in block_names(self.catalog.num_rows, self.embedding.block_rows)]

    def open(self) -> Callable[[str], UnitResult]:
        """Maps what was solved."""
        solved = map_arrays(self.store, f"{self.folder}/{SOLVED}.safetensors")

        def compute(unit: str) -> UnitResult:
            block = int(unit.removeprefix(f"{RAW}/"))
            start, stop = block_range(block, self.embedding.block_rows, self.catalog.num_rows)
            rows = np.arange(start, stop)
            features = self.embedding.features(rows)
            residual = residuals(self.embedding.logits(rows), self.catalog.label[start:stop])
            if "inverse" in solved:
                content = {"norm": influence_norms(solved["inverse"], residual, features)}
            else:
                content = {"norm": probe_norms(gradient_products(solved["probes"], residual, features))}
            if "validation" in solved:
                influence = validation_influence(solved["validation"], residual, features)
                content["deviation"] = class_deviation(influence, solved["labels"], self.catalog.num_classes)
            return UnitResult(content, rows=len(rows))

        return compute


@dataclass(frozen=True)
class FitJob(InfluenceJob):
    """Moments over all rows, and from where a class votes. One unit."""

    def units(self) -> Sequence[str]:
        """The one unit."""
        return [FIT]

    def open(self) -> Callable[[str], UnitResult]:
        """Nothing to load."""

        def compute(_: str) -> UnitResult:
            totals: dict[str, Moments] = {}
            sampled: dict[str, list[Array]] = {"norm": [], "deviation": []}
            total, block_rows = self.catalog.num_rows, self.embedding.block_rows
            for block in range(num_blocks(total, block_rows)):
                start, stop = block_range(block, block_rows, total)
                raw = map_arrays(self.store, f"{self.folder}/{RAW}/{block:06d}.safetensors")
                drawn = uniform(self.seed, "influence.fit", self.catalog.draw_id[start:stop]) < FIT_ROWS / total
                for name, values in raw.items():
                    here = moments(values)
                    totals[name] = totals[name].merged(here) if name in totals else here
                    sampled[name].append(values[drawn])
            content = {
                f"{name}_{key}": np.atleast_1d(value)
                for name, m in totals.items()
                for key, value in m._asdict().items()
            }
            if "deviation" in totals:
                osm = standardized(np.concatenate(sampled["norm"]), fit=totals["norm"])
                osd = self._osd(np.concatenate(sampled["deviation"]), totals["deviation"])
                content["thresholds"] = fit_votes(osm, osd)
            return UnitResult(content, rows=total)

        return compute

    def _osd(self, deviation: Array, fit: Moments) -> Array:
        kind = self.settings.standardize
        return standardized(deviation, kind, fit if kind == "samples" else None)


def influence_jobs(
    catalog: Catalog, embedding: Embedding, verified: Verified | None, settings: InfluenceSection, seed: int
) -> tuple[SolveJob, RawJob, FitJob]:
    """The steps of a snapshot's influence, in order."""
    fields = settings.model_dump(exclude={"role", "validation", "validation_label", "gamma"}) | {"seed": seed}
    inputs = [catalog.fingerprint, embedding.folder]
    if verified is not None:
        inputs += [verified.catalog.fingerprint, verified.embedding.folder]
    folder = f"influence-{fingerprint('influence', VERSION, fields, inputs)}"
    shared = catalog.store, folder, catalog, embedding, verified, settings, seed
    return SolveJob(*shared), RawJob(*shared), FitJob(*shared)

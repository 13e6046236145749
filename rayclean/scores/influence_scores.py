"""OSM and OSD in steps that can be done block by block: solve on a sample, one pass over all rows, fit, standardize."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy

from rayclean.schema import Array
from rayclean.scores.influence import (
    class_deviation,
    clip_means,
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
from rayclean.scores.influence_votes import (
    Moments,
    Standardize,
    fit_votes,
    moments,
    osd_score,
    osm_score,
    standardized,
    votes,
)

HESSIAN_SALT, VERIFIED_SALT = "influence.hessian", "influence.validation"  # which rows are drawn


class LastLayer(NamedTuple):
    """Some rows as the last layer sees them: (N, K) logits, (N, d) features, (N,) labels."""

    logits: Array
    features: Array
    labels: Array


def solve(
    sample: LastLayer, verified: LastLayer | None, damping: float, probes: int, seed: int
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Solves with the Hessian of a sample of rows.

    Args:
        sample: rows of all classes in their shares, with their given labels.
        verified: rows whose labels are right; None without.
        damping: added to the Hessian's diagonal.
        probes: Rademacher probes, where the Hessian is too large to be inverted.
        seed: of the probes.

    Returns:
        `inverse` (p, p), or `probes` (m, K, d+1); with verified rows `validation` (V, K, d+1) and `labels` (V,).
        And facts for the record: the spectrum, how much the damping decides, the probes' error.
    """
    solver = make_solver(
        Hessian(scipy.special.softmax(sample.logits.astype(np.float64), axis=1), sample.features, damping)
    )
    shape = sample.logits.shape[1], sample.features.shape[1] + 1
    residual = residuals(sample.logits, sample.labels)
    solved: dict[str, Array] = {}
    facts: dict[str, Any] = {"hessian_rows": len(residual), "parameters": shape[0] * shape[1]}
    if isinstance(solver, DenseSolver):
        solved["inverse"] = solver.inverse()
        norms = influence_norms(solved["inverse"], residual, sample.features)
    else:
        solved["probes"] = solver.solve(rademacher(probes, shape, seed))
        norms = probe_norms(gradient_products(solved["probes"], residual, sample.features))
        facts["osm_relative_error"] = relative_error(probes) / 2
    if verified is not None:
        right = gradients(residuals(verified.logits, verified.labels), verified.features)
        solved |= {"validation": solver.solve(right), "labels": verified.labels.astype(np.int64)}
        facts["validation_rows"] = len(right)
    spectrum = solver.spectrum()
    facts["spectrum"] = dict(zip(map(str, SPECTRUM_QUANTILES), spectrum.quantiles.tolist(), strict=True))
    facts["mean_eigenvalue"] = spectrum.mean
    # On an over-fitted network the damping alone decides, and OSM is the norm of the gradient: the record says how far.
    facts["damping_share"] = damping_share(norms, gradient_norms(residual, sample.features), damping)
    return solved, facts


def raw_influence(solved: Mapping[str, Array], rows: LastLayer, clips: Array | None = None) -> dict[str, Array]:
    """One pass over rows: `norm` (N,) of the influence on the model; `deviation` (N, K) with verified rows.

    Args:
        solved: of `solve`.
        rows: to be judged.
        clips: (N,) dense ids; with them one value per clip, of its frames' mean gradient (Influential Rank, 4.4).
    """

    def whole(products: Array) -> Array:
        return products if clips is None else clip_means(products, clips)

    residual = residuals(rows.logits, rows.labels)
    if "inverse" in solved:
        raw = {"norm": influence_norms(solved["inverse"], residual, rows.features, clips)}
    else:
        raw = {"norm": probe_norms(whole(gradient_products(solved["probes"], residual, rows.features)))}
    if "validation" in solved:
        influence = whole(validation_influence(solved["validation"], residual, rows.features))
        raw["deviation"] = class_deviation(influence, solved["labels"], rows.logits.shape[1])
    return raw


def fit(totals: Mapping[str, Moments], sample: Mapping[str, Array], kind: Standardize) -> dict[str, Array]:
    """What makes raw influences z-scores and votes.

    Args:
        totals: moments of `norm` and of `deviation` over all rows.
        sample: raw influences of a random part of the rows.
        kind: over what OSD is standardized.

    Returns:
        The moments' columns, and `thresholds` (K,) where there are deviations.
    """
    result = {f"{name}_{key}": np.atleast_1d(v) for name, m in totals.items() for key, v in m._asdict().items()}
    if "deviation" in totals:
        osm = standardized(sample["norm"], fit=totals["norm"])
        osd = standardized(sample["deviation"], kind, totals["deviation"] if kind == "samples" else None)
        result["thresholds"] = fit_votes(osm, osd)
    return result


def totals_of(blocks: Sequence[Mapping[str, Array]]) -> dict[str, Moments]:
    """Moments over all rows, from the raw influences block by block."""
    totals: dict[str, Moments] = {}
    for raw in blocks:
        for name, values in raw.items():
            here = moments(values)
            totals[name] = totals[name].merged(here) if name in totals else here
    return totals


def influence_scores(raw: Mapping[str, Array], fitted: Mapping[str, Array], kind: Standardize) -> dict[str, Array]:
    """`osm` of rows, (N,), and with deviations `osd` (N,), higher = cleaner, and `osd_votes` (N,) int16."""

    def moments_of(name: str) -> Moments:
        return Moments(*(fitted[f"{name}_{key}"] for key in Moments._fields))

    result: dict[str, Array] = {"osm": osm_score(standardized(raw["norm"], fit=moments_of("norm")))}
    if "deviation" in raw:
        over_rows = moments_of("deviation") if kind == "samples" else None
        osd = standardized(raw["deviation"], kind, over_rows)
        result |= {"osd": osd_score(osd), "osd_votes": votes(osd, fitted["thresholds"])}
    return result

"""What is told of a cell: how labels are ordered, what probabilities are worth, and whether a difference is one.

Clean is the positive class of AUROC, wrong that of average precision. Letters: N rows, D draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rayclean.evaluate.metrics import auroc, average_precision, flag_metrics
from rayclean.export.choose import Lines, settle
from rayclean.export.cut import caution_of
from rayclean.export.options import ExportOptions
from rayclean.schema import UNKNOWN, Array
from tools.cells.honest_data import Rows
from tools.cells.honest_steps import Judged
from tools.cells.honest_ways import Way, cleanlab_scores, oracle

DRAWS = 1000  # of the bootstrap
TAILS = (2.5, 97.5)  # percent
NUM_WIDTHS, NUM_MASSES = 15, 10  # bins of equal width, and of equally many rows
PRECISION = 0.9  # of `rayclean export`
NO_THRESHOLD = 0.0  # beside a precision none is read


def ranking(values: Array, clean: Array) -> dict[str, float]:
    """AUROC and average precision of a score (N,)."""
    return {"auroc": auroc(values, clean), "average_precision": average_precision(values, clean)}


def judged_figures(judged: Judged, rows: Rows, belief: Array) -> dict[str, Any]:
    """What rayclean's table is worth."""
    clean, right, summary = rows.clean, judged.right, judged.summary
    wrong, (low, high) = float((~clean).mean()), (summary["noise_rate_low"], summary["noise_rate_high"])
    flags = flag_metrics(right, clean)
    return {
        "rows": len(clean),
        "label_score": ranking(right, clean),
        "scores": {name: ranking(filled(values), clean) for name, values in judged.scores.items()},
        "predicted_right": float((judged.predicted == rows.truth).mean()),
        "given_right": float(clean.mean()),
        "argmax_right": float((belief.argmax(axis=1) == rows.truth).mean()),
        "predicted_none": float((judged.predicted < 0).mean()),
        "noise_rate": {"true": wrong, "found": summary["noise_rate"], "low": low, "high": high},
        "interval_holds": bool(low <= wrong <= high),
        "calibration_error": calibration_error(right, clean),
        "flagged": {"share": flags.num_flagged / len(clean), "precision": flags.precision, "recall": flags.recall},
        "reliable": summary["reliable"],
        "reason": summary["reason"],
    }


def rival_figures(way: Way, judged: Judged, rows: Rows, seed: int) -> dict[str, Any]:
    """What cleanlab and the oracle give, and rayclean's AUROC beside cleanlab's and beside the best single score."""
    clean, named = rows.clean, way.probabilities()
    cleanlab = {
        f"{name} {method}": values
        for name, (probabilities, _) in named.items()
        for method, values in cleanlab_scores(rows.labels, probabilities).items()
    }
    singles = {name: filled(values) for name, values in judged.scores.items()}
    right, likeliest = oracle(way.belief, rows, seed)
    best = {"cleanlab": best_of(cleanlab, clean), "single": best_of(singles, clean)}
    against = {f"cleanlab {best['cleanlab']}": cleanlab[best["cleanlab"]], best["single"]: singles[best["single"]]}
    found = differences(judged.right, against, clean, seed)
    return {
        "cleanlab": {name: ranking(values, clean) for name, values in cleanlab.items()},
        "probabilities": {name: facts for name, (_, facts) in named.items()},
        "best": best,
        "oracle": ranking(right, clean) | {"predicted_right": float((likeliest == rows.truth).mean())},
        "less_cleanlab": found[f"cleanlab {best['cleanlab']}"],
        "less_single": found[best["single"]],
    }


def classed_figures(judged: Judged, rows: Rows) -> dict[str, Any]:
    """AUROC among rows of which a class is right, of `label_score` and of the score that is best there."""
    there, singles = rows.truth >= 0, {name: filled(values) for name, values in judged.scores.items()}
    clean = rows.clean[there]
    best = best_of({name: values[there] for name, values in singles.items()}, clean)
    return {
        "label_score": ranking(judged.right[there], clean),
        "best": best,
        "single": ranking(singles[best][there], clean),
    }


def export_figures(judged: Judged, clean: Array) -> dict[str, Any]:
    """What `rayclean export --precision` lets go, and what it would at the table's word."""
    return {
        "cautious": removed_figures(judged, clean, caution_of(judged.summary)),
        "by_word": removed_figures(judged, clean, 0.0),
    }


def removed_figures(judged: Judged, clean: Array, caution: float) -> dict[str, Any]:
    """What `rayclean export --precision` lets go of rows that nobody has verified.

    Args:
        judged: of N rows.
        clean: (N,) bool, whether labels are right.
        caution: of `caution_of`; 0 takes the table at its word.

    Returns:
        `wrong`: the share of wrong labels in what goes, None where nothing goes; `share` of the rows that go; `recall`:
        the share of the wrong labels that go.
    """
    lines = Lines.of(judged.table)
    rule = settle(ExportOptions(precision=PRECISION), NO_THRESHOLD, lambda: [lines], caution)
    unseen = lines.verified == UNKNOWN
    gone, bad = unseen & ~rule.decide(lines).kept, unseen & ~clean
    return {
        "wrong": float(bad[gone].mean()) if gone.any() else None,
        "share": float(gone.sum() / max(unseen.sum(), 1)),
        "recall": float(gone[bad].mean()) if bad.any() else None,
    }


def calibration_error(right: Array, clean: Array, weights: Array | None = None) -> float:
    """The larger of the errors over bins of equal width and over bins of equally many rows.

    Args:
        right: (N,) P(label right).
        clean: (N,) bool, whether it is.
        weights: (N,) for how many rows each stands; None for itself alone.
    """
    stands_for = np.ones(len(right)) if weights is None else weights
    gaps = stands_for * (right - clean)
    by_width = np.bincount(np.minimum((right * NUM_WIDTHS).astype(np.int64), NUM_WIDTHS - 1), gaps)
    by_mass = [gaps[part].sum() for part in np.array_split(np.argsort(right, kind="stable"), NUM_MASSES)]
    return float(max(np.abs(by_width).sum(), np.abs(by_mass).sum()) / stands_for.sum())


def filled(values: Array) -> Array:
    """A score whose undefined rows have the middle of the others: it says nothing of them."""
    undefined = np.isnan(values)
    if undefined.all():
        return np.zeros_like(values)
    return np.where(undefined, np.median(values[~undefined]), values)


def best_of(scores: Mapping[str, Array], clean: Array) -> str:
    """The score of the largest AUROC, the first of equals."""
    return max(scores, key=lambda name: auroc(scores[name], clean))


def differences(ours: Array, others: Mapping[str, Array], clean: Array, seed: int) -> dict[str, Any]:
    """By score how much larger our AUROC is, with its interval over draws of the rows, the same for all.

    `verdict` is `more` or `less`, or `tie` where the interval holds 0.
    """
    measures = {name: DrawnAuroc(values, clean) for name, values in others.items()}
    own, rng = DrawnAuroc(ours, clean), np.random.default_rng(seed)
    draws: dict[str, list[float]] = {name: [] for name in others}
    for _ in range(DRAWS):
        times = np.bincount(rng.integers(0, len(clean), len(clean)), minlength=len(clean)).astype(np.float64)
        mine = own(times)
        for name, measure in measures.items():
            draws[name].append(mine - measure(times))
    found = {}
    for name, values in draws.items():
        low, high = (float(np.nanpercentile(values, tail)) for tail in TAILS)
        verdict = "more" if low > 0 else "less" if high < 0 else "tie"
        found[name] = {
            "difference": auroc(ours, clean) - auroc(others[name], clean),
            "low": low,
            "high": high,
            "verdict": verdict,
        }
    return found


class DrawnAuroc:
    """AUROC of a score (N,) where rows count several times or not at all; the rows are ordered once."""

    def __init__(self, values: Array, clean: Array) -> None:
        self._levels, place = np.unique(values, return_inverse=True)
        self._place, self._clean = place.ravel(), clean.astype(np.float64)

    def __call__(self, times: Array) -> float:
        """Of rows that count so many times (N,) float64."""
        of_level = (times * self._clean, times * (1 - self._clean))
        good, bad = (np.bincount(self._place, each, minlength=len(self._levels)) for each in of_level)
        pairs = good.sum() * bad.sum()
        return float(good @ (np.cumsum(bad) - bad / 2) / pairs) if pairs else float("nan")

"""The joint model of beliefs that have seen the labels: T by anchors, the lean by near rows [our choice].

A row's belief comes from paths between rows, so it is not just a memory of its own label. T is counted where it is
surest, pooled over the classes; how many labels are wrong in all, the rows beside the anchors tell, which have not seen
theirs. The belief leans to the row's own label; how much, near rows tell too. The lean moves all log-odds alike, so no
order by label_score changes, only what it says.

Letters: N rows, K classes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy

from rayclean.merge.joint import Float64, Ints, JointModel
from rayclean.merge.near import Near, learned_share, near_counts, noise_ratio, own_lean
from rayclean.merge.transition import adjusted, class_shares, find_anchors, noisier, pooled_transition, surest
from rayclean.scores.sources import BELIEF_FLOOR

# Within .002 AUROC of the best value in every cell that it was chosen by (docs/methods.md, section 8).
SHARPNESS = 2.0
RAISED_ROWS = 10_000  # that the lean is raised by
MAX_LEAN = 20.0
ROWS_AT_ONCE = 4096  # in a fit; what is computed of the sample takes no memory to speak of beside it


def fit_joint(beliefs: Float64, given: Ints, near: Near | None = None, noise_floor: float = 0.0) -> JointModel:
    """Fits T, the prior and the lean to rows; no truth is used, nothing is random.

    Which entries of T are large, and the prior, are those of the beliefs as they are: anchors by lowered ones cost
    asymmetric noise .05 AUROC. How large they are together, near rows tell; where anchors have been memorised, all.

    Args:
        beliefs: (N, K) of a random part of the rows.
        given: (N,) their labels.
        near: what the lean is measured on; without it there is none.
        noise_floor: the least share of wrong labels; the lean is raised until the model sees as many.

    Raises:
        ValueError: no row, or shapes that do not fit.
    """
    if beliefs.ndim != 2 or given.shape != beliefs.shape[:1] or not len(given):
        raise ValueError(f"beliefs (N, K) and labels (N,) expected, found {beliefs.shape} and {given.shape}")
    num_classes = beliefs.shape[1]
    log_mean = np.log(np.mean(beliefs, axis=0, dtype=np.float64) + BELIEF_FLOOR)
    blocks = [slice(start, start + ROWS_AT_ONCE) for start in range(0, len(given), ROWS_AT_ONCE)]
    found = [surest(adjusted(beliefs[block], log_mean)) for block in blocks]
    top, gap = (np.concatenate(column) for column in zip(*found, strict=True))
    rows, classes = find_anchors(top, gap)
    counts = np.zeros((num_classes, num_classes))
    np.add.at(counts, (classes, given[rows]), 1)
    model = JointModel(
        log_mean=log_mean,
        transition=pooled_transition(counts),
        prior=class_shares(np.bincount(given, minlength=num_classes)),
        sharpness=SHARPNESS,
        lean=0.0,
        num_rows=len(given),
        num_anchors=len(rows),
        agreement=float((top == given).mean()),
    )
    # One step towards the prior that explains itself; more follow the network's confusion.
    explained = (np.exp(model.log_posterior(beliefs[block], given[block])[:, :-1]).sum(axis=0) for block in blocks)
    prior = class_shares(np.sum(list(explained), axis=0))
    model = replace(model, prior=prior)
    if near is not None:
        ratio = noise_ratio(near, log_mean)
        learned = learned_share(ratio)
        # The anchors' own labels are memorised: those that were near by the first snapshot stand for them.
        if learned:
            beside = near_counts(near, log_mean)
            # As many counts as the near rows have, so that `learned` alone says how much either weighs.
            own = counts * (beside.sum() / counts.sum())
            model = replace(model, transition=pooled_transition((1 - learned) * own + learned * beside))
            noise_floor = max(noise_floor, learned * float(1 - prior @ np.diag(model.transition)))
        # As odds, class by class: a plain factor overshoots where one class has all the noise (AUROC .919 for .922).
        # What is learned by heart has been taken from near rows already, and is not raised again.
        transition = noisier(model.transition, ratio ** (1 - learned))
        model = replace(model, transition=transition, lean=own_lean(near, log_mean))
    return raised(model, noise_floor, beliefs, given)


def raised(model: JointModel, noise_floor: float, beliefs: Float64, given: Ints) -> JointModel:
    """The model with the least lean, not below its own, by which so many labels are wrong."""
    # The search asks for the share some ten times; every m-th row tells it to half a percentage point.
    some = slice(None, None, -(-len(given) // RAISED_ROWS))

    def short(lean: float) -> float:
        found = replace(model, lean=lean).posterior(beliefs[some], given[some]).label_score
        return noise_floor - float(1 - found.mean(dtype=np.float64))

    # No root to search for: either enough labels are wrong already, or no lean makes them so.
    if short(model.lean) <= 0 or short(model.lean + MAX_LEAN) > 0:
        return model
    return replace(model, lean=float(scipy.optimize.brentq(short, model.lean, model.lean + MAX_LEAN, xtol=1e-6)))

"""Whether beliefs say anything of the labels at all [our choice].

Features in another order than the labels, labels counted from 1, or a network that has learned nothing give beliefs
that no model can mend: it would find nearly all labels wrong, and be sure of it.

Letters: N rows, K classes.
"""

from __future__ import annotations

import numpy as np

from rayclean.merge.joint import MEMORISED, Float64, Ints, JointModel
from rayclean.merge.transition import adjusted
from rayclean.merge.trust import agreement
from rayclean.scores.sources import BELIEF_FLOOR

LEAST_ERRORS = 4.0  # standard errors above chance
ENOUGH = 0.5  # of the way from chance to full agreement: few rows that agree so far are not doubted
CERTAIN = 0.99  # labels nearly all of one class: no order can be told from another
MOST_MOVED = 0.5  # share of the rows in classes whose labels mostly are those of another class


def chance_doubt(beliefs: Float64, given: Ints) -> str:
    """Why beliefs (N, K) are worthless: they agree with the labels (N,) no more than in any order. Empty if not."""
    log_mean = np.log(np.mean(beliefs, axis=0, dtype=np.float64) + BELIEF_FLOOR)
    num_classes, num_rows = beliefs.shape[1], len(given)
    if num_classes < 2 or len(np.unique(given)) < 2:
        return ""
    surest = adjusted(beliefs, log_mean).argmax(axis=1)
    found = float((surest == given).mean())
    believed, labels = (np.bincount(each, minlength=num_classes) / num_rows for each in (surest, given))
    chance = float(believed @ labels)
    if not _like_chance(found, chance, _error(believed, labels, num_rows)):
        return ""
    return (
        f"beliefs agree with {found:.1%} of the labels, and would with {chance:.1%} by chance: they may be in another "
        "order than the labels, or of a network that has learned nothing"
    )


def _error(one: Float64, other: Float64, num_rows: int) -> float:
    """Standard error of the agreement of two columns of classes, in any order, by their shares (K,)."""
    chance = float(one @ other)
    # Over all orders of one of the columns: labels are dealt out without putting back, hence N - 1 below.
    variance = chance - float(one @ other**2) - float(one**2 @ other) + chance**2
    return float(np.sqrt(max(variance, 0.0) / max(num_rows - 1, 1)))


def _like_chance(found: float, chance: float, error: float) -> bool:
    """Whether an agreement is no more than chance; of so few rows that not even full agreement would be: no."""
    room, margin = 1 - chance, LEAST_ERRORS * error
    return margin < room and found <= chance + min(margin, ENOUGH * room)


def near_doubt(near_labels: Ints, given: Ints) -> str:
    """Why near rows are worthless: their labels are the row's own as by chance.

    Labels are (N, J), `NO_LABEL` where there are fewer. Empty if not, or if no row has a near one.
    """
    there = near_labels >= 0
    rows = np.flatnonzero(there.any(axis=1))
    if not len(rows):
        return ""
    equal = ((near_labels == given[:, None]) & there)[rows].sum(axis=1) / there[rows].sum(axis=1)
    shares = np.bincount(given) / len(given)
    chance = float(shares @ shares)
    if chance > CERTAIN or not _like_chance(float(equal.mean()), chance, _error(shares, shares, len(rows))):
        return ""
    return (
        f"near rows have the same label in {equal.mean():.1%} of the cases, and would by chance in {chance:.1%}: they "
        "may be in another order than the labels"
    )


def seen_doubt(beliefs: Float64, given: Ints, near_labels: Ints) -> str:
    """Why beliefs (N, K) look as if they had learned the labels (N,). Empty if not.

    Near rows (N, J), `NO_LABEL` where there are fewer, tell how many labels are wrong at the least (`trust.agreement`).
    """
    found = agreement(beliefs, given, near_labels)
    if found.own >= MEMORISED:
        return f"{found.own:.1%} of the labels are their likeliest class, as where models have learned them"
    if 1 - found.own < found.floor:
        return (
            f"{found.own:.1%} of the labels are their likeliest class, though by near rows {found.floor:.1%} of the "
            "labels are wrong or more, as where models have learned them"
        )
    return ""


def moved_doubt(model: JointModel, given: Ints) -> str:
    """Why labels (N,) look as if they were counted otherwise: most of them stand for another class. Empty if not."""
    transition = model.transition
    likeliest = transition.argmax(axis=1)
    moved = np.flatnonzero(likeliest != np.arange(len(transition)))
    share = float(model.prior[moved].sum())
    if share <= MOST_MOVED:
        return ""
    # One step in all classes is what labels look like that are counted from another number.
    steps = np.unique((likeliest[moved] - moved) % len(transition))
    by = f", by {steps[0]} in all of them" if len(steps) == 1 else ""
    return (
        f"in classes of {share:.0%} of the rows most labels are those of another class{by}: labels may be counted from "
        "1, or be in another order of the classes than the beliefs"
    )

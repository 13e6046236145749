"""The report's sentences for those who decide: what a flag is worth, and how far the probabilities are to be believed.

Every number says what it is computed from; none of them is more than the table, or what people and truths say of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rayclean.evaluate.evaluate import Bin
from rayclean.evaluate.noise_words import CALIBRATED, NONE
from rayclean.report.page_truth import Known, Reliability
from rayclean.schema import Array

OF = 1000
UNSURE = (0.1, 0.9)  # probabilities in between tell most about what they are worth


@dataclass
class Expected:
    """What the table's own probabilities lead one to expect of its flags.

    Attributes:
        flagged: rows with `is_label_issue`.
        wrong: sum of 1 - `label_score` over these.
        others: all other rows.
        missed: the same sum over them.
    """

    flagged: int = 0
    wrong: float = 0.0
    others: int = 0
    missed: float = 0.0

    def add(self, scores: Array, flagged: Array) -> None:
        """Counts rows (N,) by their probability of being right."""
        self.flagged += int(flagged.sum())
        self.wrong += float((1 - scores[flagged]).sum())
        self.others += int((~flagged).sum())
        self.missed += float((1 - scores[~flagged]).sum())


def flag_words(found: Expected, threshold: float, things: str, known: Known | None, rests_on: str) -> list[str]:
    """What is flagged, and what a flag is worth: one paragraph each.

    Args:
        found: of all rows.
        threshold: `merge.threshold`.
        things: what rows are called: images, samples.
        known: rows of which it is known whether their label is right; None without any.
        rests_on: what the probabilities rest on, as `basis` has it.
    """
    total = found.flagged + found.others
    what = f"{things} whose given label is right with a probability below {threshold:.0%}"
    if not found.flagged:
        return [f"Flagged are {what}. None of the {total:,} is."]
    told = f"Flagged are {what}: {found.flagged:,} of {total:,}."
    right = OF - round(OF * found.wrong / found.flagged)
    worth = f"Of {OF:,} flagged {things}, about {OF - right:,} are really wrong and {right:,} are right after all"
    missed = f"; of {OF:,} that are not flagged, {_about(found.missed, found.others)} wrong" if found.others else ""
    summed = f"This is what the probabilities of the table add up to; {rests_on}."
    return [told, f"{worth}{missed}. {summed}", *_found(known, threshold, things)]


def _about(part: float, whole: int) -> str:
    count = round(OF * part / whole)
    return f"about {count:,} are" if count else "fewer than 1 is"


def _found(known: Known | None, threshold: float, things: str) -> list[str]:
    """What a truth, or people, say of the flagged ones."""
    flagged = None if known is None else ~known.right[known.scores < threshold]
    if known is None or flagged is None or not len(flagged):
        return []
    wrong, total = int(flagged.sum()), len(flagged)
    if known.by_truth:
        share = f"By the truth it is {round(OF * wrong / total):,} of {OF:,}"
        return [f"{share}: {wrong:,} of {total:,} that were compared."]
    looked = f"People have looked at {total:,} {things} that are flagged without their word: {wrong:,} were wrong."
    return [f"{looked} Where they chose what to look at, this is no average over all flagged ones."]


def basis(summary: Mapping[str, Any]) -> str:
    """What the probabilities of a table rest on, as the end of a sentence about them."""
    own = f"they are the model's own ({summary['merge_score']})"
    if CALIBRATED not in summary:  # of an earlier release
        return own
    if summary[CALIBRATED] == NONE:
        return f"{own}, and no labels that people have checked have calibrated them yet (rayclean review)"
    return f"they are calibrated by {summary['verified']:,} labels that people have checked"


def reliability_words(found: Reliability | None, things: str) -> list[str]:
    """How far the probabilities are to be believed: one paragraph each.

    Args:
        found: of the rows of which it is known whether their label is right; None without any.
        things: what rows are called.
    """
    if found is None:
        return [
            "Nobody knows yet: no label of this run is known to be right or wrong. Name labels that people have "
            "checked (merge.verified), and this shows how far label_score is to be believed."
        ]
    shown = _telling(found.bins)
    said, right = (f"{100 * share:.0f}%" for share in (shown.mean_score, shown.clean_share))
    told = f"Of {shown.rows:,} {things} whose label_score is about {said}, {right} have a right label."
    average = f"Over all ranges the two differ by {100 * found.error:.1f} percentage points on average."
    how = f"By {found.source}; the expected calibration error is {found.error:.3f}."
    plot = "On the dashed line a label_score of .8 means that 80% of such labels are right; larger dots have more rows."
    return [f"{_on_the_whole(found.bins, things)} {told} {average}", f"{how} {plot}"]


def _on_the_whole(bins: Sequence[Bin], things: str) -> str:
    """How many right labels the probabilities lead one to expect, and how many there are."""
    total = sum(each.rows for each in bins)
    expected = sum(each.rows * each.mean_score for each in bins) / total
    right = sum(each.rows * each.clean_share for each in bins) / total
    many = "many" if expected > right else "few"
    by = f"{100 * abs(expected - right):.1f}"
    off = "" if by == "0.0" else f": {by} percentage points too {many} are expected"
    have = f"{100 * right:.1f}% have one{off}"
    return f"Of {total:,} {things} {100 * expected:.1f}% are expected to have a right label, and {have}."


def _telling(bins: Sequence[Bin]) -> Bin:
    """The range with most rows among those of unsure probabilities; among all where there is none."""
    unsure = [each for each in bins if UNSURE[0] <= each.mean_score <= UNSURE[1]]
    return max(unsure or bins, key=lambda each: each.rows)

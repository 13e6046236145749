"""An export's choice in words, for its card."""

from __future__ import annotations

from rayclean.export.choose import Rule
from rayclean.export.cut import EVERY_ROW
from rayclean.export.options import ExportOptions

_LABELS = {
    "given": "Labels are the given ones; rows of which people say that another label is right go.",
    "verified": "Labels are the given ones, and people's where they have looked.",
}


def in_words(options: ExportOptions, rule: Rule) -> str:
    """What was asked for, and where the cut fell."""
    at = f"{rule.cut.right:.6g}"
    ties = "" if rule.cut.last_row == EVERY_ROW else f"; of those with exactly this, rows up to {rule.cut.last_row}"
    stay = (
        f"those stay whose label is right with a probability of at least {at}{ties}"
        if rule.cut.right <= 1
        else "none stays"
    )
    if options.budget is not None and options.removed:
        how = f"{options.budget:,} rows go, those most likely wrong: {stay}."
    elif options.budget is not None:
        how = f"At most {options.budget:,} rows stay, those most likely right: {stay}."
    elif options.precision is not None:
        how = f"As many rows go as have a mean probability of being wrong of at least {options.precision}: {stay}."
    else:
        how = f"Of all rows {stay}."
    labels = _LABELS.get(rule.labels)
    if labels is None:
        labels = (
            f"Labels are the given ones, but predictions of a probability of at least {rule.sure} where they differ, "
            "and people's where they have looked."
        )
    return f"{how} {labels}" + (" These are the rows that go." if options.removed else "")

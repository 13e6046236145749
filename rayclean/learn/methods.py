"""The ways of learning with the result: what `rayclean learn --method` may name.

To add one, write its function in a file of its own and an entry here; from outside the package, register the entry
(docs/adding.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from rayclean.config.registry import Entry, Registry


@dataclass(frozen=True)
class Method(Entry):
    """A way of learning.

    Attributes:
        function: from `rayclean.learn.course.Course` to the trials, a list of `Trial`. It trains and computes by the
            course alone, so that the same command goes on where it was stopped.
    """


METHODS = Registry(
    "--method",
    "method",
    (
        Method("plain", "a new network on all rows as they are", "rayclean.learn.retrain:plain"),
        Method("retrain", "a new network on what the table thinks is right", "rayclean.learn.retrain:retrain"),
        Method("odd", "rows go whose loss random labels could have [ODD]", "rayclean.learn.odd:odd"),
        Method(
            "influential_rank",
            "rounds of removal by influence and training on [Influential Rank]",
            "rayclean.learn.influential_rank:influential_rank",
        ),
        Method(
            "dividemix",
            "two networks that divide the rows for each other [DivideMix, INN]",
            "rayclean.learn.dividemix_phase:dividemix",
        ),
        Method("rog", "a robust classifier on a network's features, no training [RoG]", "rayclean.learn.rog_job:rog"),
    ),
)

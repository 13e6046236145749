"""Whose beliefs over the classes are believed, and how those of several networks become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rayclean.schema import Array

# Of float32 softmax: classes that a network rules out further than that tie.
BELIEF_FLOOR = 1e-9
NearRows = Literal["without", "with", "alone"]


@dataclass(frozen=True)
class Sources:
    """Whose beliefs are taken.

    Attributes:
        epoch: of the snapshot of role `main`; None: the last one.
        roles: further networks, each by its last snapshot.
        near: whether the labels of near rows are believed beside them, or alone.
        blind: beliefs that have not seen the labels, which are believed instead of all these: names, each with the
            logarithm of its mean row (K,).
    """

    epoch: int | None = None
    roles: tuple[str, ...] = ()
    near: NearRows = "without"
    blind: tuple[tuple[str, tuple[float, ...]], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The fields, all plain; `blind` where there is any."""
        fields = {"epoch": self.epoch, "roles": list(self.roles), "near": self.near}
        return fields | ({"blind": {name: list(log_mean) for name, log_mean in self.blind}} if self.blind else {})

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Sources:
        """Rebuilds from `to_json`."""
        blind = tuple((name, tuple(log_mean)) for name, log_mean in fields.get("blind", {}).items())
        return cls(fields["epoch"], tuple(fields["roles"]), fields.get("near", "without"), blind)


LAST = Sources()


def combined(beliefs: Sequence[Array]) -> Array:
    """The geometric mean of several networks' beliefs, (N, K) float64, rows sum to 1; of one network as it is.

    Networks that were trained apart err apart, and a class that one of them rules out is out. The arithmetic mean
    gives up to .005 AUROC less (docs/results/merge.md).

    Args:
        beliefs: (N, K) each, not negative.
    """
    if len(beliefs) == 1:
        return np.asarray(beliefs[0], np.float64)
    log_mean = np.mean([np.log(np.asarray(each, np.float64) + BELIEF_FLOOR) for each in beliefs], axis=0)
    result: Array = np.exp(log_mean - log_mean.max(axis=1, keepdims=True))
    result /= result.sum(axis=1, keepdims=True)
    return result

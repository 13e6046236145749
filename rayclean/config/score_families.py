"""The families of scores (docs/methods.md): which scores a run may name, and what gives them.

Their functions lie in `rayclean.run.families`. To add one, write its job and its function and an entry here; from
outside the package, register the entry (docs/adding.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from rayclean.config.registry import Entry, Registry
from rayclean.errors import ConfigError
from rayclean.schema import MAIN, SCORES, Score

# What other folders of a run are called before their fingerprint.
RESERVED = {"catalog", "features", "train", "embed", "neighbors", "merge", "decide", "learn", "lesson", "export"}


@dataclass(frozen=True)
class Family(Entry):
    """Scores that one idea gives, together.

    Attributes:
        function: from a run (`rayclean.run.run.Run`) to what the family adds to it (`rayclean.scores.family.Added`), or
            None where it adds nothing: none of its scores is among `run.config.score_names()`.
        scores: what it gives, in the order of the table's columns; higher is cleaner.
        stages: what its jobs call their stage. A stage's folders are found by it, so no other family may have it.
    """

    scores: tuple[Score, ...] = ()
    stages: tuple[str, ...] = ()

    @property
    def help(self) -> str:
        """Its scores of role `main`, and what they are."""
        return f"{', '.join(score.name for score in self.scores if score.role == MAIN)}: {self.meaning}"


class Families(Registry[Family]):
    """The registry: names of scores and of stages are each one family's alone."""

    def register(self, entry: Family) -> Family:
        """As of `Registry`.

        Raises:
            ConfigError: a name is taken, or cannot be one.
        """
        others = [other for other in self._entries.values() if other.name != entry.name]
        taken = {score.name for other in others for score in other.scores}
        stages = {stage for other in others for stage in other.stages} | RESERVED
        for what, names, there in (
            ("score", [score.name for score in entry.scores], taken),
            ("stage", list(entry.stages), stages),
        ):
            for name in names:
                self.check_name(what, name)
                if name in there:
                    raise ConfigError(f"{self.noun} {entry.name}: {what} {name} is there already; choose another name")
        return super().register(entry)

    def scores(self) -> dict[str, Score]:
        """All scores by name, in the order of the table's columns: those of role `main` first."""
        found = [score for family in self for score in family.scores]
        return {score.name: score for score in sorted(found, key=lambda score: score.role != MAIN)}

    def stages(self) -> tuple[str, ...]:
        """The stages of all families."""
        return tuple(stage for family in self for stage in family.stages)


def _ours(family: str) -> tuple[Score, ...]:
    return tuple(score for score in SCORES.values() if score.family == family)


FAMILIES = Families(
    "scores",
    "family of scores",
    (
        Family(
            "trajectory",
            "loss, margin and wrong predictions, at the end and over the epochs",
            "rayclean.run.families:trajectory",
            scores=_ours("trajectory"),
            stages=("trajectory",),
        ),
        Family(
            "interpolation",
            "IOFM and INN: belief in the label along paths to neighbours",
            "rayclean.run.families:interpolation",
            scores=_ours("interpolation"),
            stages=("pairs", "paths", "interpolate"),
        ),
        Family(
            "vote",
            "the labels of the nearest rows",
            "rayclean.run.families:vote",
            scores=_ours("vote"),
            stages=("vote",),
        ),
        Family(
            "influence",
            "OSM and OSD: influence on the last layer, and on verified rows",
            "rayclean.run.families:influence",
            scores=_ours("influence"),
            stages=("influence",),
        ),
        Family(
            "aum",
            "AUM beside that of threshold samples",
            "rayclean.run.families:aum",
            scores=_ours("aum"),
            stages=("aum",),
        ),
        Family(
            "out_of_fold",
            "loss and margin by heads on features that have not seen the row's label",
            "rayclean.run.families:out_of_fold",
            scores=_ours("out_of_fold"),
        ),
        Family(
            "simulated",
            "ODD: the loss beside that of random labels",
            "rayclean.run.families:simulated",
            scores=_ours("simulated"),
            stages=("simulate",),
        ),
    ),
)


def score_of(name: str) -> Score:
    """A score by its name.

    Raises:
        KeyError: nobody has registered it.
    """
    return FAMILIES.scores()[name]

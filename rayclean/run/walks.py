"""Which paths a run's scores need: IOFM's at every snapshot, INN's at the last or at those that are named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rayclean.config import MAIN, SELF, Config
from rayclean.embed.features_stage import features_job
from rayclean.embed.table import Space
from rayclean.run.roles import Role
from rayclean.scores.interpolation import INTERIOR, TRAPEZOID
from rayclean.storage.fingerprint import file_digest
from rayclean.train.snapshots import Snapshot


@dataclass(frozen=True)
class Walk:
    """Paths from all rows to their neighbours, walked by one snapshot of role `main`.

    Attributes:
        score: `iofm` or `inn`.
        snapshot: whose beliefs are averaged along the paths.
        space: whose features say what is near.
        any_label: neighbours of any label, not of the row's own alone.
        num: L, the length of the lists.
        steps: H.
        end_weight: of a path's ends.
    """

    score: str
    snapshot: Snapshot
    space: Space
    any_label: bool
    num: int
    steps: int
    end_weight: float


def plan_walks(config: Config, roles: Mapping[str, Role]) -> tuple[Walk, ...]:
    """The walks of IOFM (`iofm_last` alone: at the last snapshot), then those of INN, in order of their epochs."""
    names, main, iofm = config.score_names(), roles[MAIN], config.iofm
    wanted: list[Snapshot] = []
    if "iofm" in names:
        wanted = [snapshot for snapshot in main.trained.snapshots if snapshot.epoch in main.usual_epochs]
    elif "iofm_last" in names:
        wanted = [main.last]
    walks = [Walk("iofm", s, main.near(s), False, iofm.num, iofm.steps, TRAPEZOID) for s in wanted]
    if "inn" in names:
        walks += [_inn(config, roles, snapshot) for snapshot in _inn_snapshots(config, main)]
    return tuple(walks)


def _inn_snapshots(config: Config, main: Role) -> list[Snapshot]:
    epochs = config.inn.epochs
    if epochs is None:
        return [main.last]
    return [snapshot for snapshot in main.trained.snapshots if snapshot.epoch in epochs]


def _inn(config: Config, roles: Mapping[str, Role], snapshot: Snapshot) -> Walk:
    inn = config.inn
    space: Space
    if inn.file is not None:
        main = roles[MAIN]
        space = features_job(main.catalog, inn.file, file_digest(inn.file, "inn.features"), config.blocks.rows)
    elif inn.features in (SELF, MAIN) or config.on_features:
        space = roles[MAIN].near(snapshot)
    else:
        space = roles[inn.features].near(roles[inn.features].last)
    weight = TRAPEZOID if inn.end_points else INTERIOR
    return Walk("inn", snapshot, space, True, inn.num, inn.steps, weight)

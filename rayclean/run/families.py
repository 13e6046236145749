"""The training runs of a run, and the jobs of the scores that each takes from one of them alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from rayclean.cluster.sizing import Workers
from rayclean.config import MAIN, PLANT, THRESHOLDED
from rayclean.run.roles import Role
from rayclean.run.rows import Rows
from rayclean.schema import SCORES
from rayclean.scores.aum_stage import ExcessJob, ThresholdedRole, ThresholdsJob, aum_jobs
from rayclean.scores.influence_stage import FitJob as InfluenceFitJob
from rayclean.scores.influence_stage import RawJob, SolveJob, influence_jobs
from rayclean.scores.simulate_stage import CheckJob, JudgeJob, ThresholdJob, simulate_jobs
from rayclean.scores.trajectory_stage import TrajectoryJob, trajectory_job
from rayclean.train.plan import role_seed
from rayclean.train.snapshots import Snapshot


@dataclass
class Families(Rows):
    """Roles, and trajectory, influence, simulated and AUM scores: those that need neither neighbours nor paths."""

    workers: dict[str, Workers]
    precision: tuple[str, str]

    @cached_property
    def roles(self) -> dict[str, Role]:
        """The training runs, `main` first."""

        def role(name: str) -> Role:
            catalog = self.planted.get(name, self.catalog)
            return Role(name, self.config, self.store, catalog, self.workers, self.precision)

        return {name: role(name) for name in self.config.role_names()}

    @property
    def main(self) -> Role:
        """The network whose beliefs are scored."""
        return self.roles[MAIN]

    def trajectory_jobs(self) -> dict[str, TrajectoryJob]:
        """The trajectory scores of each role that has epochs and of which any are wanted; `main`'s always."""
        rows, wanted = self.config.blocks.rows, {SCORES[name].role for name in self.config.score_names()}
        trained = {name: role.trained for name, role in self.roles.items() if name in wanted | {MAIN}}
        return {
            name: trajectory_job(self.catalog, each.folder, each.trajectories, each.epochs, rows)
            for name, each in trained.items()
            if each.epochs
        }

    def influences(self) -> dict[Snapshot, tuple[SolveJob, RawJob, InfluenceFitJob]]:
        """The steps of the influence scores, in order of the snapshots; none where no score needs them."""
        names, settings = self.config.score_names(), self.config.influence
        if not {"osm", "osd"} & set(names):
            return {}
        role, known = self.roles[settings.role], self.derived.get("held_out", self.validation)
        found = {}
        for snapshot in role.trained.snapshots:
            if snapshot.epoch in (*settings.epochs, role.last.epoch):
                embed, verified = role.embed(snapshot), None
                if "osd" in names and known is not None:
                    verified = known, role.embed(snapshot, known)
                by_clip, seed = self.config.data.group_by == "gradient", self.config.run.seed
                found[snapshot] = influence_jobs(self.catalog, embed, verified, settings, seed, by_clip)
        return found

    def influence(self) -> tuple[SolveJob, RawJob, InfluenceFitJob] | None:
        """The steps of the influence scores at the last snapshot; None where no score needs them."""
        return list(found.values())[-1] if (found := self.influences()) else None

    def simulate(self) -> tuple[ThresholdJob, JudgeJob] | None:
        """The steps of ODD; None where it is not wanted."""
        if "odd" not in self.config.score_names():
            return None
        return self._simulated(self.config.simulated_loss.role)[:2]

    def planted_check(self) -> tuple[ThresholdJob, CheckJob] | None:
        """The steps that compare planted labels with the simulation; None without role `plant`."""
        if PLANT not in self.planted:
            return None
        simulated, _, check = self._simulated(PLANT)
        return simulated, check

    def aum(self) -> tuple[ThresholdsJob, ExcessJob] | None:
        """The steps of AUM with threshold samples; None where it is not wanted."""
        if "aum_excess" not in self.config.score_names():
            return None
        trained = [(self.roles[name].catalog, self.roles[name].trained) for name in THRESHOLDED]
        found = [ThresholdedRole(rows, each.folder, each.trajectories, each.epochs) for rows, each in trained]
        return aum_jobs(tuple(found), self.config.blocks.rows)

    def _simulated(self, name: str) -> tuple[ThresholdJob, JudgeJob, CheckJob]:
        settings, role = self.config.simulated_loss, self.roles[name]
        trained, last = role.trained, settings.epoch_of(role.trained.epochs)
        snapshot = next(each for each in trained.snapshots if each.epoch == last)
        embed = role.embed(snapshot) if settings.kind != "gauss" else None
        seed, block_rows = self.config.run.seed, self.config.blocks.rows
        seed = role_seed(seed, PLANT) if name == PLANT else seed
        return simulate_jobs(
            role.catalog, snapshot, embed, trained.folder, trained.trajectories, settings, seed, block_rows
        )

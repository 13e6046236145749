"""A run: from the config to its jobs and what each reads, as far as earlier ones have published."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property

from rayclean.cluster.sizing import Workers
from rayclean.config import MAIN
from rayclean.config.score_families import FAMILIES
from rayclean.decisions.decisions import read_decisions
from rayclean.decisions.naming import REVIEW, Naming
from rayclean.decisions.verified import VerifiedFile, VerifiedSource
from rayclean.embed.stage import EmbedJob
from rayclean.embed.table import Space
from rayclean.merge.clips_stage import ClipsJob
from rayclean.merge.stage import MODEL, ApplyJob, FitJob, merge_jobs
from rayclean.neighbors.index import IndexSettings
from rayclean.neighbors.ivf_stage import ProbesJob, QuantizerJob
from rayclean.neighbors.stage import AnyLabelJob, IndexJob, SameLabelJob, neighbors_folder
from rayclean.run.once import once
from rayclean.run.roles import NotTrained, Role, Roles
from rayclean.run.rows import Rows
from rayclean.run.walks import Walk, plan_walks
from rayclean.schema import JOINT
from rayclean.scores.clips_table import ClipFiles
from rayclean.scores.family import Added
from rayclean.scores.interpolate_stage import InterpolateJob, interpolate_job
from rayclean.scores.pairs_stage import PairsJob, pairs_job
from rayclean.scores.paths_stage import PathsJob, paths_job
from rayclean.scores.table import ScoreFiles
from rayclean.scores.vote_stage import VoteJob, vote_job
from rayclean.storage.fingerprint import file_digest
from rayclean.storage.units import Job
from rayclean.train.snapshots import Snapshot


@dataclass
class Run(Rows):
    """One start of a run: its config, its files, and what is known once earlier stages are done.

    Attributes:
        workers: of `cpu`, `gpu` and `train`.
        precision: of training and of scoring, resolved.
        flat: whether neighbours are searched flat and without FAISS.
        known: roles that are known to be trained; a start does not look for their files again.
    """

    workers: dict[str, Workers]
    precision: tuple[str, str]
    flat: bool = False
    known: set[str] = field(default_factory=set)

    @cached_property
    def roles(self) -> Roles:
        """The training runs, `main` first."""

        def role(name: str) -> Role:
            catalog = self.planted.get(name, self.catalog)
            return Role(name, self.config, self.store, catalog, self.workers, self.precision)

        return Roles((name, role(name)) for name in self.config.role_names())

    @once
    def without(self, names: frozenset[str]) -> Run:
        """The run as far as it goes without some roles, whose networks are not trained yet."""
        found = replace(self)
        found.__dict__["roles"] = Roles((name, role) for name, role in self.roles.items() if name not in names)
        return found

    @property
    def main(self) -> Role:
        """The network whose beliefs are scored."""
        return self.roles[MAIN]

    @cached_property
    def walks(self) -> tuple[Walk, ...]:
        """All paths that the scores need."""
        return plan_walks(self.config, self.roles)

    def walks_of(self, score: str) -> tuple[Walk, ...]:
        """The walks of one score, in order of their epochs."""
        return tuple(walk for walk in self.walks if walk.score == score)

    @cached_property
    def voted(self) -> tuple[Snapshot, ...]:
        """Snapshots whose neighbours vote, in order of their epochs; the last one, for the evidence, always.

        The joint model asks those of the first snapshot which of the walked ones to trust.
        """
        epochs = {*self.config.neighbors.vote_epochs, self.main.last.epoch}
        if self.is_joint:
            epochs.add(min(walk.snapshot.epoch for walk in self.walks) if self.walks else self.main.last.epoch)
        return tuple(snapshot for snapshot in self.main.trained.snapshots if snapshot.epoch in epochs)

    @property
    def is_joint(self) -> bool:
        """Whether the merge is that of all beliefs."""
        return self.config.merge_score() == JOINT

    @cached_property
    def others(self) -> dict[str, EmbedJob]:
        """Of the other networks that learned the given labels, the last snapshot: the joint model may believe them."""
        roles = {name: role for name, role in self.roles.items() if name != MAIN and name not in self.planted}
        return {name: role.embed(role.last) for name, role in roles.items()} if self.is_joint else {}

    @once
    def index_settings(self, space: Space) -> IndexSettings:
        """How neighbours in a space are searched; lists of any label are for evidence and for INN."""
        neighbors = self.config.neighbors
        return IndexSettings(
            pool=neighbors.pool,
            seed=self.config.run.seed,
            part_rows=self.config.blocks.index_rows,
            ivf_rows=neighbors.ivf_rows,
            recall_target=neighbors.recall_target,
            any_label=space.folder in self._with_any_label,
            device=self.workers["gpu"].device,
            flat=self.flat,
        )

    @cached_property
    def _with_any_label(self) -> frozenset[str]:
        voted = (self.main.embed(snapshot) for snapshot in self.voted)
        return frozenset(space.folder for space in (*voted, *(walk.space for walk in self.walks_of("inn"))))

    @once
    def lists_folder(self, space: Space, num: int) -> str:
        """The folder of a space's index and of its lists of `num` neighbours."""
        return neighbors_folder(self.catalog, space.embedding, self.index_settings(space), num, self.config.blocks.rows)

    @once
    def index(self, space: Space, num: int) -> IndexJob:
        """The index of a space, for lists of `num` neighbours; its coarse quantiser before it, where IVF pays."""
        folder, settings = self.lists_folder(space, num), self.index_settings(space)
        shared = self.store, folder, self.catalog, space.embedding, settings
        return IndexJob(*shared, after=(space, QuantizerJob(*shared, after=(space,))))

    @once
    def lists(self, space: Space, num: int, any_label: bool) -> SameLabelJob | AnyLabelJob:
        """Lists of neighbours in a space."""
        index = self.index(space, num)
        shared = self.store, index.folder, self.catalog, index.settings, num
        probes, kind = ProbesJob(*shared, after=(index,)), AnyLabelJob if any_label else SameLabelJob
        return kind(*shared, self.config.blocks.rows, after=(index, probes))

    @once
    def pairs(self, walk: Walk) -> PairsJob:
        """The pairs of a walk."""
        blocks, lists = self.config.blocks, self.lists(walk.space, walk.num, walk.any_label)
        return pairs_job(walk.any_label, self.catalog, walk.space, lists, blocks.index_rows, blocks.rows)

    @once
    def paths(self, walk: Walk) -> PathsJob:
        """The paths of a walk."""
        ends = self.main.embed(walk.snapshot)
        return paths_job(self.pairs(walk), ends, walk.steps, walk.end_weight, self.config.blocks.pairs)

    @once
    def interpolate(self, walk: Walk) -> InterpolateJob:
        """The interpolation scores of a walk."""
        return interpolate_job(self.paths(walk), self.main.embed(walk.snapshot))

    @once
    def vote(self, snapshot: Snapshot) -> VoteJob:
        """The vote at a snapshot."""
        lists = self.lists(self.main.embed(snapshot), self.config.neighbors.vote_num, any_label=True)
        return vote_job(self.catalog, lists, self.config.blocks.rows)

    @cached_property
    def added(self) -> dict[str, Added]:
        """What each family of scores adds, by its name; families that add nothing are left out.

        So are those that need a role which `without` has taken away.
        """
        found = {}
        for family in FAMILIES:
            with suppress(NotTrained):
                if (added := family.load()(self)) is not None:
                    found[family.name] = added
        return found

    def score_jobs(self) -> tuple[Job, ...]:
        """The jobs that give the scores, and the beliefs beside them."""
        embeds = self.main.embed(self.main.last), *self.others.values()
        return (*embeds, *(job for added in self.added.values() for job in added.jobs))

    def score_files(self) -> ScoreFiles:
        """Where the scores lie."""
        scores = FAMILIES.scores()
        return ScoreFiles(
            catalog=self.catalog,
            embedding=self.main.embed(self.main.last).embedding,
            scores=tuple(scores[name] for name in self.config.score_names()),
            readers=tuple(added.reader for added in self.added.values()),
            vote_folders=tuple(self.vote(snapshot).folder for snapshot in self.voted),
            belief_folders=self._belief_folders(),
            others={name: job.embedding for name, job in self.others.items()},
        )

    def _belief_folders(self) -> dict[int, tuple[str, ...]]:
        epochs = sorted({walk.snapshot.epoch for walk in self.walks} | {self.main.last.epoch})
        return {
            epoch: tuple(self.interpolate(walk).folder for walk in self.walks if walk.snapshot.epoch == epoch)
            for epoch in epochs
        }

    @once
    def merge(self) -> tuple[FitJob, ApplyJob]:
        """The fit and the application of the merge."""
        config = self.config
        return merge_jobs(
            self.score_files(),
            config.merge,
            config.merge_score(),
            config.iofm.num,
            config.blocks.table_rows,
            config.run.seed,
            self.verified,
            self.score_jobs(),
        )

    @cached_property
    def verified(self) -> VerifiedSource | None:
        """The labels that people have verified, where `merge.verified` names any: a file, or the run's own review."""
        path = self.config.merge.verified
        if path is None:
            return None
        if path == REVIEW:
            told = self.config.merge.verified_classes
            return read_decisions(self.store, Naming.of_run(self.store, self.classes.names, told))
        return VerifiedFile(path, file_digest(path, "merge.verified"), self.classes.names)

    @once
    def merge_clips(self) -> tuple[FitJob, ClipsJob] | None:
        """The same of clips; None where images stand alone."""
        if not self.catalog.has_clips:
            return None
        rows, apply = self.merge()
        folder, clips = f"{rows.folder}-clips", ClipFiles(self.score_files())
        how = rows.score, rows.sample_rows, rows.seed, rows.verified
        fit = FitJob(self.store, folder, clips, *how, after=rows.after)
        cut = apply.threshold, apply.table_rows, apply.has_verified
        return fit, ClipsJob(self.store, folder, clips, fit.file(MODEL), *cut, after=(fit, *rows.after))

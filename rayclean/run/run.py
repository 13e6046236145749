"""A run: from the config to its jobs and what each reads, as far as earlier ones have published."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

from rayclean.catalog.table import Catalog
from rayclean.config.score_families import FAMILIES
from rayclean.decisions.decisions import read_decisions
from rayclean.decisions.naming import REVIEW, Naming
from rayclean.decisions.verified import VerifiedFile, VerifiedSource
from rayclean.embed.table import Space
from rayclean.merge.clips_stage import ClipsJob
from rayclean.merge.stage import MODEL, ApplyJob, FitJob, merge_jobs
from rayclean.neighbors.index import IndexSettings
from rayclean.neighbors.ivf_stage import ProbesJob, QuantizerJob
from rayclean.neighbors.stage import AnyLabelJob, IndexJob, SameLabelJob, neighbors_folder
from rayclean.run.networks import Networks
from rayclean.run.once import once
from rayclean.run.roles import NotTrained
from rayclean.run.walks import Walk
from rayclean.scores.blind import SHARE_NEIGHBORS
from rayclean.scores.clips_table import ClipFiles
from rayclean.scores.family import Added
from rayclean.scores.feature_paths_stage import FeaturePathsJob, blind_paths_job, seen_paths_job
from rayclean.scores.interpolate_stage import InterpolateJob, interpolate_job
from rayclean.scores.pairs_stage import PairsJob, pairs_job
from rayclean.scores.paths_stage import PathsJob, paths_job
from rayclean.scores.table import BlindFiles, ScoreFiles
from rayclean.scores.vote_stage import VoteJob, vote_job
from rayclean.storage.fingerprint import file_digest
from rayclean.storage.store import Store
from rayclean.storage.units import Job
from rayclean.train.snapshots import Snapshot


@dataclass
class Run(Networks):
    """One start of a run: its config, its files, and what is known once earlier stages are done.

    Attributes:
        flat: whether neighbours are searched flat and without FAISS.
    """

    flat: bool = False

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
        voted = (self.main.near(snapshot) for snapshot in self.voted)
        return frozenset(space.folder for space in (*voted, *(walk.space for walk in self.walks_of("inn"))))

    @once
    def lists_folder(self, space: Space, num: int | tuple[int, int]) -> str:
        """The folder of a space's index and of its lists of `num` neighbours, see `index`."""
        return neighbors_folder(self.catalog, space.embedding, self.index_settings(space), num, self.config.blocks.rows)

    @once
    def index(self, space: Space, num: int | tuple[int, int]) -> IndexJob:
        """The index of a space, for lists of `num` neighbours; its coarse quantiser before it, where IVF pays.

        `num`: of one kind of lists, or those of the same label and of any, which share the index then.
        """
        folder, settings = self.lists_folder(space, num), self.index_settings(space)
        shared = self.store, folder, self.catalog, space.embedding, settings
        return IndexJob(*shared, after=(space, QuantizerJob(*shared, after=(space,))))

    @property
    def _nums(self) -> tuple[int, int]:
        """Neighbours of the same label and of any that all scores on features share."""
        return self.config.iofm.num, max(SHARE_NEIGHBORS, self.config.neighbors.vote_num, self.config.inn.num)

    @once
    def same_label(self, space: Space, num: int) -> SameLabelJob:
        """Lists of neighbours of the same label in a space."""
        return SameLabelJob(*self._search(space, num), self.config.blocks.rows, after=self._searched(space, num))

    @once
    def any_label(self, space: Space, num: int) -> AnyLabelJob:
        """Lists of at least `num` neighbours of any label in a space."""
        num = self._nums[1] if self.config.on_features else num
        return AnyLabelJob(*self._search(space, num), self.config.blocks.rows, after=self._searched(space, num))

    def _search(self, space: Space, num: int) -> tuple[Store, str, Catalog, IndexSettings, int]:
        index = self.index(space, self._nums if self.config.on_features else num)
        return self.store, index.folder, self.catalog, index.settings, num

    @once
    def _searched(self, space: Space, num: int) -> tuple[IndexJob, ProbesJob]:
        """The index, and how much of it is searched."""
        index = self.index(space, self._nums if self.config.on_features else num)
        most = self._nums[1] if self.config.on_features else num
        return index, ProbesJob(self.store, index.folder, self.catalog, index.settings, most, after=(index,))

    @once
    def pairs(self, walk: Walk) -> PairsJob:
        """The pairs of a walk."""
        lists = self.any_label(walk.space, walk.num) if walk.any_label else self.same_label(walk.space, walk.num)
        blocks = self.config.blocks
        return pairs_job(walk.any_label, self.catalog, walk.space, lists, blocks.index_rows, blocks.rows)

    @once
    def paths(self, walk: Walk) -> PathsJob:
        """The paths of a walk through a network."""
        ends = self.network.embed(walk.snapshot)
        return paths_job(self.pairs(walk), ends, walk.steps, walk.end_weight, self.config.blocks.pairs)

    @once
    def interpolate(self, walk: Walk) -> InterpolateJob | FeaturePathsJob:
        """The interpolation scores of a walk."""
        if not self.config.on_features:
            return interpolate_job(self.paths(walk), self.network.embed(walk.snapshot))
        how = walk.num, walk.steps, walk.end_weight, self.workers["gpu"].device, self.config.blocks.rows
        if walk.any_label:
            return blind_paths_job(self.heads.task, self.any_label(walk.space, walk.num), walk.snapshot, *how)
        source = self.heads.features_of(self.catalog)
        return seen_paths_job(source, self.same_label(walk.space, walk.num), walk.snapshot, *how)

    @once
    def vote(self, snapshot: Snapshot) -> VoteJob:
        """The vote at a snapshot."""
        num = self.config.neighbors.vote_num
        lists = self.any_label(self.main.near(snapshot), num)
        return vote_job(self.catalog, lists, self.config.blocks.rows, num)

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
        blind = (self.heads.blind,) if self.config.on_features else ()
        embeds = self.main.embed(self.main.last), *self.others.values(), *blind
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
            blind=self._blind_files() if self.config.on_features else None,
        )

    def _blind_files(self) -> BlindFiles:
        return BlindFiles(self.heads.blind.beliefs, None if self.old else self.vote(self.main.last).folder)

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
            self._old_files(),
        )

    def _old_files(self) -> ScoreFiles | None:
        """Those of the run that `train.from` names, by heads alone.

        How labels go wrong few new rows cannot tell; and near rows of a small shard are all of it.
        """
        if self.old is None or not self.is_joint:
            return None
        files = self.old.score_files()
        return replace(files, blind=BlindFiles(self.old.heads.blind.beliefs, None))

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

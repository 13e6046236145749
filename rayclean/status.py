"""How far a run is, from its files alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rayclean.config import Config
from rayclean.pipeline import STAGES
from rayclean.record import wall_times
from rayclean.start import look
from rayclean.storage.store import Store
from rayclean.storage.units import Job
from rayclean.train.stage import is_trained
from rayclean.train.worker import TrainTask

RECENT_UNITS = 200


@dataclass
class Progressing:
    """What `status` says of one stage."""

    stage: str
    done: int
    total: int
    units_per_s: float | None = None
    wall_s: float | None = None

    @property
    def left_s(self) -> float | None:
        """Seconds to the end of the stage at the rate of its last units."""
        return (self.total - self.done) / self.units_per_s if self.units_per_s else None


def progress(config: Config) -> Iterator[Progressing]:
    """How far each stage is, from the files alone; stages after the first unfinished one are not known yet.

    Steps that share a stage's name share its time, which is the sum over all starts.
    """
    this = look(config, Store(config.run.dir))
    wall_s = wall_times(this)
    for stage in STAGES:
        if stage.jobs is None:
            epochs = [_trained_epochs(role.task) for role in this.roles.values()]
            done, total = (sum(column) for column in zip(*epochs, strict=True))
            rate = None
        else:
            jobs = stage.jobs(this)
            total = sum(len(job.units()) for job in jobs)
            done = total - sum(len(job.missing()) for job in jobs)
            rate = _recent_rate(jobs) if 0 < done < total else None
        yield Progressing(stage.name, done, total, rate, wall_s.pop(stage.name, None))
        if done < total:
            return


def _trained_epochs(task: TrainTask) -> tuple[int, int]:
    """Epochs done, and epochs in all; a role that is not trained counts as one."""
    total = max(task.train.epochs, 1)
    seen = len(task.store.list(f"{task.folder}/trajectories"))
    return (total if is_trained(task) else min(seen, total - 1)), total


def _recent_rate(jobs: Sequence[Job]) -> float | None:
    """Units a second over the last ones that were published."""
    times = sorted(
        job.store.modified_s(job.file(unit)) for job in jobs for unit in set(job.units()) - set(job.missing())
    )[-RECENT_UNITS:]
    return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else None

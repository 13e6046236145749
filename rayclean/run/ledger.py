"""What a start leaves written of its work: facts of each job, what failed, how long each stage took."""

from __future__ import annotations

import resource
from collections.abc import Callable, Mapping

from rich.console import Console

from rayclean.cluster.progress import Board
from rayclean.errors import DamagedFile, InputError, StageError
from rayclean.run.failures import note_failures, noted_failures, read_failures
from rayclean.run.record import STEPS, record
from rayclean.storage.damage import DamageFound
from rayclean.storage.executor import Executor, JobReport, TrainingJob
from rayclean.storage.graph import Graph, Missing
from rayclean.storage.store import Store


class Ledger(Board):
    """A board that also records jobs as they end.

    Args:
        console: where progress is shown.
        store: the run's files.
    """

    def __init__(self, console: Console, store: Store) -> None:
        super().__init__(console, store.root.rpartition("/")[2])
        self.store = store
        self.failed: dict[str, dict[str, str]] = {}

    def ended(self, report: JobReport) -> None:
        """Records a job, and notes what failed of its stage so far."""
        job = report.job
        failed = self.failed.setdefault(job.stage, {})
        failed |= {job.file(unit): error for unit, error in report.failed.items()}
        note_failures(self.store, job.stage, failed)
        if report.units:
            facts = {
                "step": job.stage,
                "units": report.units,
                "rows": report.rows,
                "busy_s": report.busy_s,
                "wall_s": report.ended_s - report.started_s,
                "peak_rss_bytes": report.peak_rss_bytes,
                "facts": report.facts,
            }
            record(self.store, job.folder, facts)


def do(executor: Executor, grow: Callable[[], Graph], console: Console, store: Store) -> None:
    """Computes what is missing of a graph, and leaves a record of it.

    Args:
        executor: what computes.
        grow: the graph as far as it can be named, see `Schedule`.
        console: where progress is shown.
        store: the run's files.

    Raises:
        StageError: units failed; all that do not depend on them are done.
        InputError: they could not read what people gave.
        DamageFound: they met files of the run that are not what was written.
    """
    with Ledger(console, store) as ledger, noted_failures(store, "run", "run"):
        reports = executor.run(grow, ledger)
    _clear_failures(store, grow())
    by_stage: dict[str, list[JobReport]] = {}
    for report in reports:
        by_stage.setdefault(report.job.stage, []).append(report)
    for stage, found in by_stage.items():
        of_roles = [[each] for each in found if isinstance(each.job, TrainingJob)]  # one after the other
        for each in of_roles or [found]:
            role = {"role": each[0].job.label} if isinstance(each[0].job, TrainingJob) else {}
            wall_s = max(report.ended_s for report in each) - min(report.started_s for report in each)
            record(store, STEPS, {"step": stage, **role, "wall_s": wall_s, **_driver_memory()})
    if by_stage and executor.facts:
        record(store, STEPS, {"step": "run", **executor.facts})
    _raise_failures(by_stage)


def _clear_failures(store: Store, graph: Graph) -> None:
    """Takes back what was noted of stages in which nothing is missing any more, and of the run as a whole."""
    missing = Missing()
    for stage in read_failures(store):
        jobs = [job for job in graph.jobs.values() if job.stage == stage]
        if stage == "run" or (jobs and not any(map(missing, jobs))):
            note_failures(store, stage, {})


def _raise_failures(by_stage: Mapping[str, list[JobReport]]) -> None:
    reports = [report for found in by_stage.values() for report in found]
    if damaged := [DamagedFile(*each) for report in reports for each in report.damaged.items()]:
        raise DamageFound(damaged)
    for report in reports:
        if report.error is not None and isinstance(report.job, TrainingJob):
            raise report.error
    for stage, found in by_stage.items():
        failed = {report.job.file(unit): error for report in found for unit, error in report.failed.items()}
        if failed:
            raise _failure(stage, failed)


def _failure(stage: str, failed: Mapping[str, str]) -> Exception:
    unreadable = [error for error in failed.values() if error.startswith("InputError: ")]
    if unreadable:
        return InputError(unreadable[0].removeprefix("InputError: "))
    shown = "; ".join(f"{unit}: {error}" for unit, error in list(failed.items())[:3])
    return StageError(
        f"{len(failed)} unit(s) of {stage} failed ({shown}); all that do not depend on them are done: mend the cause "
        "and run the same command again"
    )


def _driver_memory() -> dict[str, int]:
    return {"driver_peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}

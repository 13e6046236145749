"""What became of the units of a graph in this start: counted by job, told to whoever watches."""

from __future__ import annotations

import time

from rayclean.cluster import last_words
from rayclean.cluster.nodes import on_each_node
from rayclean.cluster.pool import WORKER_DIED, Row, Sent
from rayclean.storage.executor import JobReport, TrainingJob, Watcher
from rayclean.storage.graph import Key, Schedule


class Book:
    """The reports of a graph's jobs.

    Args:
        watcher: is told.
        words: names the worker processes whose deaths are asked for.
    """

    def __init__(self, watcher: Watcher, words: str) -> None:
        self.watcher, self.words = watcher, words
        self.reports: dict[Key, JobReport] = {}

    def settle(self, schedule: Schedule, what: Sent, row: Row) -> None:
        """Takes down a unit that has ended, and lets what waits for it go on."""
        report = self._note(what, row)
        if row.error:
            schedule.fail(what.job)
        elif schedule.done(what.job):
            self.watcher.ended(report)

    def _note(self, what: Sent, row: Row) -> JobReport:
        now = time.monotonic()
        report = self.reports.setdefault(what.job.key, JobReport(what.job, started_s=now - row.seconds))
        report.busy_s += row.seconds
        report.ended_s = now
        report.peak_rss_bytes = max(report.peak_rss_bytes, row.peak_rss_bytes)
        meter = self.watcher.meter(what.job.stage)
        if row.error:
            report.failed[what.unit] = row.error
            report.damaged |= dict([row.damaged] if row.damaged else [])
            meter.advance(0, failed=1)
            return report
        report.add(row.rows, row.facts or {})
        meter.advance(rows=row.rows, bad=int((row.facts or {}).get("quarantined", 0)))
        return report

    def trained(self, schedule: Schedule, job: TrainingJob, error: BaseException | None, started_s: float) -> None:
        """Takes down a training that has ended; what is no Exception ends the run."""
        if error is not None and not isinstance(error, Exception):
            raise error
        report = JobReport(job, started_s=started_s, ended_s=time.monotonic(), error=error)
        self.reports[job.key] = report
        if error is not None:
            report.failed[job.label] = str(error)
            schedule.fail(job)
            return
        report.add(0, {})
        if schedule.done(job):
            self.watcher.ended(report)

    def close(self) -> list[JobReport]:
        """All reports; of what worker processes died is found out, and jobs that cannot be done are told."""
        self._explain()
        for report in self.reports.values():
            if report.failed:
                self.watcher.ended(report)
        return list(self.reports.values())

    def _explain(self) -> None:
        reports = self.reports.values()
        lost = [(each, unit) for each in reports for unit, error in each.failed.items() if error == WORKER_DIED]
        if not lost:
            return
        signals: dict[str, set[str]] = {}
        for _, found in on_each_node(last_words.deaths, self.words):
            for death in found if isinstance(found, list) else ():
                signals.setdefault(death.at, set()).add(death.signal)
        for report, unit in lost:
            why = last_words.in_words(signals.get(report.job.file(unit), set()))
            report.failed[unit] = f"{WORKER_DIED} ({why})"

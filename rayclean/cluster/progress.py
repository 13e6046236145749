"""How far a stage is: a bar on a terminal, plain lines elsewhere, and metrics where Ray is connected.

A line comes when a stage begins, and each 30 s while it is at work, whether or not any of its units has ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from rayclean import interrupts
from rayclean.cluster.metrics import StepMetrics, step_metrics
from rayclean.storage import executor
from rayclean.storage.executor import Watcher

if TYPE_CHECKING:  # what is in memory is scored without rich
    from rich.console import Console
    from rich.progress import Progress, TaskID

LINE_INTERVAL_S = 30.0
POLL_S = 1.0


class Meter:
    """Counts finished units and samples of one step.

    Args:
        label: what is being done.
        total: units to do.
        console: where it is shown.
        metrics: where it is shown beside; None where no Ray is connected.
    """

    def __init__(self, label: str, total: int, console: Console, metrics: StepMetrics | None = None) -> None:
        self.label, self.total, self.console, self.metrics = label, total, console, metrics
        self.done = self.rows = self.failed = self.bad = 0
        self.started_s = self.last_line_s = time.monotonic()
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self._tell()

    def expect(self, total: int) -> None:
        """Takes in that there are more units than were known, or fewer."""
        if total != self.total:
            self.total = total
            self._tell()
            if self.bar is not None and self.task is not None:
                self.bar.update(self.task, total=total)

    def advance(self, units: int = 1, rows: int = 0, failed: int = 0, bad: int = 0) -> None:
        """Adds finished units, their samples, failed units and bad samples."""
        self.done += units
        self.rows += rows
        self.failed += failed
        self.bad += bad
        self._tell()
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=self.done, rate=self._rate())

    @property
    def is_at_work(self) -> bool:
        """Whether units are left that can run."""
        return self.done + self.failed < self.total

    def say(self) -> None:
        """Prints a plain line."""
        self.last_line_s = time.monotonic()
        self.console.print(self.line(), markup=False, highlight=False, soft_wrap=True)

    def _tell(self) -> None:
        if self.metrics is not None:
            self.metrics.show(self.done, self.total, self.rows, self.failed, self.bad)

    def _rate(self) -> str:
        seconds = max(time.monotonic() - self.started_s, 1e-3)
        return f"{self.rows / seconds:,.0f} samples/s" if self.rows else ""

    def line(self) -> str:
        """One plain line of progress."""
        seconds = time.monotonic() - self.started_s
        left_s = seconds / self.done * (self.total - self.done) if self.done else float("nan")
        parts = [f"{self.label}: {self.done}/{self.total} units", self._rate()]
        parts.append(f"{left_s:.0f} s left" if self.done else "")
        parts.append(f"{self.bad} bad samples" if self.bad else "")
        parts.append(f"{self.failed} failed" if self.failed else "")
        return ", ".join(part for part in parts if part)


@contextmanager
def watched(shown: executor.Meter, num_done: Callable[[], int], rows: int, total: int) -> Iterator[None]:
    """Advances a meter while the block runs, by what others publish meanwhile.

    Args:
        shown: the meter.
        num_done: how many units are done by now.
        rows: samples of a unit.
        total: units that are done once the block has ended, whatever could be seen of the last ones.
    """
    stop, told = threading.Event(), 0

    def tell(done: int) -> None:
        nonlocal told
        new = max(0, done - told)
        shown.advance(new, rows=new * rows)
        told += new

    def watch() -> None:
        while not stop.wait(POLL_S):
            tell(num_done())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    tell(total)


class Board(Watcher, AbstractContextManager["Board"]):
    """The meters of all stages that are at work, side by side; shown while the block runs.

    Args:
        console: where they are shown.
        run: names the run to whoever watches the metrics.
    """

    def __init__(self, console: Console, run: str = "") -> None:
        self.console, self.run = console, run
        self.meters: dict[str, Meter] = {}
        self._stack = ExitStack()
        self._bars: Progress | None = None
        self._stop = threading.Event()

    def __enter__(self) -> Board:
        if self.console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn())
            bars = Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[rate]}"), console=self.console)
            self._bars = self._stack.enter_context(bars)
        else:
            thread = threading.Thread(target=self._say_lines, daemon=True)
            thread.start()
            self._stack.callback(thread.join)
            self._stack.callback(self._stop.set)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def meter(self, stage: str, total: int = 0) -> Meter:
        """The meter of a stage; a new one begins now."""
        if stage not in self.meters:
            metrics = step_metrics(stage, self.run)
            if metrics is not None:
                self._stack.enter_context(metrics.refreshed())
            found = self.meters[stage] = Meter(stage, total, self.console, metrics)
            if self._bars is not None:
                found.bar, found.task = self._bars, self._bars.add_task(stage, total=total, rate="")
            elif total:
                found.say()
        return self.meters[stage]

    def opened(self, counts: Mapping[str, int]) -> None:
        """Takes in, by stage, how many units can run by now and are not done."""
        interrupts.check()
        for stage, count in counts.items():
            if stage in self.meters:
                found = self.meters[stage]
                found.expect(found.done + found.failed + count)
            elif count:
                self.meter(stage, count)

    def _say_lines(self) -> None:
        """The lines of stages whose last one is old, until the block ends."""
        while not self._stop.wait(POLL_S):
            now = time.monotonic()
            for each in list(self.meters.values()):
                if each.is_at_work and now - each.last_line_s >= LINE_INTERVAL_S:
                    each.say()


@contextmanager
def meter(label: str, total: int, console: Console, run: str = "") -> Iterator[Meter]:
    """One meter that is shown while the block runs; `run` names the run to whoever watches the metrics."""
    with Board(console, run) as board:
        yield board.meter(label, total)

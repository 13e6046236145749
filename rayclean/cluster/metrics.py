"""What Ray's Prometheus endpoint shows of a run: how far the step at work is, told by the driver.

Ray puts `ray_` before the names. Gauges hold for the step at work and vanish soon after it; the counter only grows.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

GAUGES = {
    "rayclean_units_done": "Units of the step at work that this start has finished; epochs in training.",
    "rayclean_units_total": "Units of the step at work that were missing when it began; epochs in training.",
    "rayclean_failed_units": "Units of the step at work that have failed in this start.",
    "rayclean_bad_samples": "Samples that the step at work has put in quarantine in this start.",
}
SAMPLES = "rayclean_samples_total", "Samples that units of this start have covered, once per unit."
REFRESH_S = 5.0  # Ray 2.60 sends a gauge once after it was set, and drops it after 20 s


class StepMetrics:
    """The metrics of one step.

    Args:
        stage: a tag.
        run: another; the last part of the run's path.
        gauge: makes a metric of a name, a text and tag keys, as `ray.util.metrics.Gauge`.
        counter: likewise, as `ray.util.metrics.Counter`.
    """

    def __init__(self, stage: str, run: str, gauge: Callable[..., Any], counter: Callable[..., Any]) -> None:
        tags = {"stage": stage, "run": run}
        keys = tuple(tags)
        self._gauges = [gauge(name, text, keys).set_default_tags(tags) for name, text in GAUGES.items()]
        self._samples = counter(*SAMPLES, keys).set_default_tags(tags)
        self._values: tuple[int, ...] = (0,) * len(GAUGES)
        self._rows = 0
        self._lock = threading.Lock()

    def show(self, done: int, total: int, rows: int, failed: int, bad: int) -> None:
        """Takes in the step's counts so far."""
        with self._lock:
            self._values = done, total, failed, bad
            self._set()
            if rows > self._rows:
                self._samples.inc(rows - self._rows)
                self._rows = rows

    def _set(self) -> None:
        for gauge, value in zip(self._gauges, self._values, strict=True):
            gauge.set(value)

    @contextmanager
    def refreshed(self, every_s: float = REFRESH_S) -> Iterator[None]:
        """Tells the last counts again and again while the block runs, however long a unit takes."""
        stop = threading.Event()

        def refresh() -> None:
            while not stop.wait(every_s):
                with self._lock:
                    self._set()

        thread = threading.Thread(target=refresh, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def step_metrics(stage: str, run: str) -> StepMetrics | None:
    """The metrics of a step; None where no Ray is connected: there is no endpoint, and Ray need not be loaded."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    from ray.util.metrics import Counter, Gauge

    return StepMetrics(stage, run, Gauge, Counter)

"""Pictures of an evaluation.

AUROC over epochs, as the papers' figures have it, `label_score`'s reliability, and ODD's two distributions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rayclean.errors import ConfigError
from rayclean.evaluate.evaluate import Evaluation
from rayclean.evaluate.simulated import NO_TRUTH, PLANTED, RIGHT, SIMULATED, WRONG, SimulatedLosses

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES, RELIABILITY, ODD = "curves.png", "reliability.png", "odd.png"
LOSSES = {
    SIMULATED: ("random labels, simulated", "black"),
    RIGHT: ("rows with right labels", "tab:blue"),
    WRONG: ("rows with wrong labels", "tab:red"),
    NO_TRUTH: ("rows with no known truth", "tab:grey"),
    PLANTED: ("planted random labels", "tab:purple"),
}


def draw(result: Evaluation, folder: Path) -> list[Path]:
    """Writes the pictures into a folder; ODD's where losses were simulated.

    Returns:
        Their paths.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError as e:
        raise ConfigError("pictures need matplotlib: pip install 'rayclean[plots]'") from e
    folder.mkdir(parents=True, exist_ok=True)
    figures = {CURVES: _curves(result), RELIABILITY: _reliability(result)}
    if result.simulated:
        figures[ODD] = _odd(result.simulated)
    paths = []
    for name, figure in figures.items():
        FigureCanvasAgg(figure)
        figure.savefig(folder / name)
        paths.append(folder / name)
    return paths


def _curves(result: Evaluation) -> Figure:
    """One line per score; a dot for a score that one epoch alone has."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for index, (name, quality) in enumerate(result.scores.items()):
        style = ("-", "--", ":", "-.")[index // 10 % 4]
        marker = "o" if len(quality.curve) == 1 else None
        axes.plot(list(quality.curve), list(quality.curve.values()), style, marker=marker, label=name)
    axes.set(xlabel="epoch", ylabel="AUROC, clean against wrong", title="Scores as of each epoch")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return figure


def _reliability(result: Evaluation) -> Figure:
    """Share of right labels against mean `label_score`, above how many rows each bin has."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    scores = [each.mean_score for each in result.reliability]
    upper.plot([0, 1], [0, 1], "--", color="grey", label="calibrated")
    upper.plot(scores, [each.clean_share for each in result.reliability], "o-", label="label_score")
    upper.set(ylabel="share of right labels", ylim=(0, 1), title=f"calibration error {result.label_score['ece']:.3f}")
    upper.grid(alpha=0.3)
    upper.legend()
    lower.bar(scores, [each.rows for each in result.reliability], width=0.04)
    lower.set(xlabel="label_score", ylabel="rows", xlim=(0, 1))
    return figure


def _odd(simulated: list[SimulatedLosses]) -> Figure:
    """Densities of ln(loss), one panel per network; only bins that have any loss in some panel are shown."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4 * len(simulated)), layout="constrained")
    panels = figure.subplots(len(simulated), 1, sharex=True, squeeze=False)[:, 0]
    for axes, each in zip(panels, simulated, strict=True):
        _densities(axes, each)
    filled = np.flatnonzero(np.sum([counts for each in simulated for counts in each.counts.values()], axis=0))
    edges = simulated[0].edges
    panels[-1].set(xlabel="ln(loss)", xlim=(edges[filled[0]], edges[filled[-1] + 1]))
    return figure


def _densities(axes: Axes, simulated: SimulatedLosses) -> None:
    for name, counts in simulated.counts.items():
        text, color = LOSSES[name]
        total = sum(counts)
        density = np.array(counts) / (max(total, 1) * np.diff(simulated.edges))
        axes.stairs(density, simulated.edges, baseline=None, color=color, label=f"{text} ({total:,})")
    place = np.log(max(simulated.threshold, np.exp(simulated.edges[0])))
    axes.axvline(place, color="black", linestyle="--", label=f"ODD's threshold, loss {simulated.threshold:.3g}")
    axes.set(ylabel="density", title=f"Losses of role {simulated.role} at ODD's epoch {simulated.epoch}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")

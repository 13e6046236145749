"""Pictures of an evaluation: AUROC over epochs, as the papers' figures have it, and `label_score`'s reliability."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rayclean.errors import ConfigError
from rayclean.report.evaluate import Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES, RELIABILITY = "curves.png", "reliability.png"


def draw(result: Evaluation, folder: Path) -> list[Path]:
    """Writes the pictures into a folder.

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
    paths = []
    for name, figure in ((CURVES, _curves(result)), (RELIABILITY, _reliability(result))):
        FigureCanvasAgg(figure)
        figure.savefig(folder / name)
        paths.append(folder / name)
    return paths


def _curves(result: Evaluation) -> Figure:
    """A line a score; a dot for a score that one epoch alone has."""
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

"""The plots of the report as inline SVG; colours and fonts are the style sheet's, which has them light and dark.

Text is escaped by `Markup.format`, numbers are written short.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from markupsafe import Markup

from rayclean.evaluate.evaluate import Bin
from rayclean.report.page_numbers import NO_TRUTH, RIGHT, WRONG, Spread
from rayclean.schema import Array

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT_EDGE, TOP, BOTTOM = 8, 332, 10, 160
GROUPS = {RIGHT: "right", WRONG: "wrong", NO_TRUTH: "unknown"}
# Blue and vermilion of Okabe and Ito, told apart by colour-blind people, as the light style sheet has them.
BLUE, VERMILION = (0, 94, 162), (213, 94, 0)
FAINTEST = 0.03  # opacity of a cell of nearly nothing, so that the matrix is seen to have one there
BLACK_ON = 0.179  # luminance from which black text has more contrast than white: 4.6 or better either way
CELL, MOST_NUMBERS = 34, 16  # more columns than this have colours alone
MAX_SIDE = 760.0


def histogram(spread: Spread, title: str) -> Markup:
    """Stacked bars of a score by truth, with the two fitted components as lines."""
    heights = np.sum([np.zeros(len(spread.edges) - 1), *spread.counts.values()], axis=0)
    curves = [curve for curve in (spread.clean, spread.noisy) if curve is not None]
    # The outermost bins hold the tails of components too: a spike there must not flatten all else.
    most = max([1.0, float(heights.max()), *(float(curve[1:-1].max(initial=0)) for curve in curves)])
    x, y = _scale(spread.edges[0], spread.edges[-1], LEFT, RIGHT_EDGE), _scale(0, most, BOTTOM, TOP)
    parts, base = [], np.zeros(len(heights))
    for group, counts in spread.counts.items():
        path = _bars(spread.edges, base, base + counts, x, y)
        parts.append(Markup('<path class="bar {}" d="{}"/>').format(GROUPS[group], path))
        base = base + counts
    middles = (spread.edges[:-1] + spread.edges[1:]) / 2
    for name, curve in (("clean", spread.clean), ("noisy", spread.noisy)):
        if curve is not None:
            points = " ".join(
                f"{x(at):.1f},{y(min(value, most)):.1f}" for at, value in zip(middles, curve, strict=True)
            )
            parts.append(Markup('<polyline class="fit {}" points="{}"/>').format(name, points))
    ticks = np.linspace(spread.edges[0], spread.edges[-1], 5)
    return _svg(WIDTH, HEIGHT, title, [*parts, _axis(ticks, x)])


def reliability(bins: Sequence[Bin], title: str) -> Markup:
    """Share of right labels against mean `label_score`; a dot's area is its rows."""
    width, height = 340, 340
    x, y = _scale(0, 1, 44, 330), _scale(0, 1, 296, 10)
    most = max((each.rows for each in bins), default=1)
    parts = [Markup('<rect class="frame" x="44" y="10" width="286" height="286"/>')]
    parts.append(Markup('<line class="ideal" x1="44" y1="296" x2="330" y2="10"/>'))
    points = " ".join(f"{x(each.mean_score):.1f},{y(each.clean_share):.1f}" for each in bins)
    parts.append(Markup('<polyline class="fit clean" points="{}"/>').format(points))
    for each in bins:
        text = f"{each.rows:,} rows: label_score {each.mean_score:.3f}, right {each.clean_share:.3f}"
        size = 2 + 8 * math.sqrt(each.rows / most)
        parts.append(
            Markup('<circle class="dot" cx="{}" cy="{}" r="{}"><title>{}</title></circle>').format(
                f"{x(each.mean_score):.1f}", f"{y(each.clean_share):.1f}", f"{size:.1f}", text
            )
        )
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(_text(x(tick), 312, f"{tick:g}", "middle"))
        parts.append(_text(38, y(tick) + 4, f"{tick:g}", "end"))
    parts.append(_text(187, 332, "label_score", "middle"))
    parts.append(
        Markup('<text transform="translate(10 153) rotate(-90)" text-anchor="middle">share of right labels</text>')
    )
    return _svg(width, height, title, parts)


def heat_map(
    values: Array,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    tell: Callable[[int, int], str],
    number: Callable[[float], str],
    power: float = 0.5,
) -> Markup:
    """A matrix in colours: that of the page at 0, blue above and vermilion below.

    Args:
        values: (R, C), -1 to 1; NaN stays empty.
        rows: names, left.
        columns: names, above.
        title: for those who cannot see it.
        tell: the words of a cell, by row and column.
        number: what is written in a cell, where there is room.
        power: of a value that its colour is of; below 1 small values are seen.
    """
    side = min(CELL, MAX_SIDE / max(len(columns), 1))
    font = min(12.0, max(side * 0.8, 5.0))
    left, top = (8 + 0.62 * font * max((len(_short(name)) for name in names), default=1) for names in (rows, columns))
    parts = []
    for i, name in enumerate(rows):
        parts.append(_text(left - 6, top + (i + 0.5) * side + font * 0.35, _short(name), "end", font, name))
    for j, name in enumerate(columns):
        place = f"translate({left + (j + 0.5) * side + font * 0.35:.1f} {top - 6:.1f}) rotate(-90)"
        label = Markup('<text transform="{}" font-size="{}"><title>{}</title>{}</text>')
        parts.append(label.format(place, f"{font:.1f}", name, _short(name)))
    written = len(columns) <= MOST_NUMBERS
    for (i, j), value in np.ndenumerate(values):
        if math.isnan(value):
            continue
        x, y = left + j * side, top + i * side
        sign, share = "up" if value > 0 else "down", min(abs(value), 1.0) ** power
        opacity = max(share, FAINTEST)
        cell = Markup(
            '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill-opacity="{:.3f}">{}</rect>'
        )
        told = Markup("<title>{}</title>").format(tell(i, j))
        parts.append(cell.format(sign, x, y, side - 1, side - 1, opacity, told))
        if written:
            dark = " light" if luminance(BLUE if value > 0 else VERMILION, share) < BLACK_ON else ""
            label = Markup('<text class="cell{}" x="{}" y="{}" text-anchor="middle">{}</text>')
            parts.append(label.format(dark, f"{x + side / 2:.1f}", f"{y + side / 2 + 3.5:.1f}", number(value)))
    return _svg(left + len(columns) * side + 4, top + len(rows) * side + 4, title, parts)


def luminance(colour: tuple[int, int, int], share: float) -> float:
    """Relative luminance, 0 to 1 (WCAG 2), of a colour of this opacity on white."""
    mixed = ((255 + (part - 255) * share) / 255 for part in colour)
    linear = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in mixed)
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"


def _scale(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    """Maps [low, high] to [start, stop]."""
    span = (high - low) or 1.0
    return lambda value: start + (float(value) - low) / span * (stop - start)


def _bars(edges: Array, lower: Array, upper: Array, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    """One path of all bars that are higher than nothing."""
    bars = zip(edges[:-1], edges[1:], lower, upper, strict=True)
    return "".join(
        f"M{x(a) + 0.4:.1f} {y(low):.1f}H{x(b) - 0.4:.1f}V{y(high):.1f}H{x(a) + 0.4:.1f}Z"
        for a, b, low, high in bars
        if high > low
    )


def _axis(ticks: Array, x: Callable[[float], float]) -> Markup:
    """The line below a histogram with its numbers; the outermost stay inside."""
    line = Markup('<line class="axis" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(LEFT, BOTTOM, RIGHT_EDGE, BOTTOM)
    anchors = ["start", *["middle"] * (len(ticks) - 2), "end"]
    numbers = [_text(x(tick), BOTTOM + 16, f"{tick:.3g}", anchor) for tick, anchor in zip(ticks, anchors, strict=True)]
    return Markup("").join([line, *numbers])


def _text(x: float, y: float, text: str, anchor: str, size: float = 12, title: str | None = None) -> Markup:
    label = Markup('<text x="{}" y="{}" text-anchor="{}" font-size="{}">{}{}</text>')
    told = Markup("<title>{}</title>").format(title) if title and title != text else ""
    return label.format(f"{x:.1f}", f"{y:.1f}", anchor, f"{size:.1f}", told, text)


def _svg(width: float, height: float, title: str, parts: Sequence[Markup]) -> Markup:
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}" width="{}">')
    size = f"{width:.0f}", f"{height:.0f}"
    return head.format(*size, title, size[0]) + Markup("").join(parts) + Markup("</svg>")

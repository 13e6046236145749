"""The tables over the results of tools/cells/honest.py: means over the seeds of each cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Figures = dict[str, Any]
Column = Callable[[Sequence[Figures]], str]


def mean_of(*path: str, digits: int = 3) -> Column:
    """The mean of a figure over the seeds, without the 0 before the point."""
    return lambda seeds: short(float(np.mean([_at(seed, path) for seed in seeds])), digits)


def quality_of(*path: str) -> Column:
    """Mean AUROC and, in brackets, mean average precision."""
    auroc, precision = (mean_of(*path, name, digits=4) for name in ("auroc", "average_precision"))
    return lambda seeds: f"{auroc(seeds)} ({precision(seeds)})"


def best_quality(kind: str, scores: str) -> Column:
    """As `quality_of`, of the score that is best with each seed, and the names of these."""

    def column(seeds: Sequence[Figures]) -> str:
        best = [seed["best"][kind] for seed in seeds]
        found = [{"it": seed[scores][name]} for seed, name in zip(seeds, best, strict=True)]
        return f"{quality_of('it')(found)} {', '.join(dict.fromkeys(best))}"

    return column


def difference_of(name: str) -> Column:
    """The mean difference, the mean ends of its interval, and how many seeds say what."""

    def column(seeds: Sequence[Figures]) -> str:
        difference, low, high = (
            float(np.mean([seed[name][part] for seed in seeds])) for part in ("difference", "low", "high")
        )
        verdicts = Counter(seed[name]["verdict"] for seed in seeds)
        said = ", ".join(word if len(verdicts) == 1 else f"{count} {word}" for word, count in verdicts.items())
        return f"{difference:+.4f} [{low:+.4f}, {high:+.4f}] {said}"

    return column


def mean_there(*path: str) -> Column:
    """As `mean_of`, of the seeds that have the figure."""
    return lambda seeds: _of_there(seeds, path, np.mean)


def least_there(*path: str) -> Column:
    """The least of the seeds that have the figure."""
    return lambda seeds: _of_there(seeds, path, np.min)


def beside(*columns: Column) -> Column:
    """Several in one."""
    return lambda seeds: ", ".join(column(seeds) for column in columns)


def noise_rate(seeds: Sequence[Figures]) -> str:
    """The mean rate that is found, with its interval, and the true one; how many intervals hold it."""
    found, low, high, true = (mean_of("noise_rate", part)(seeds) for part in ("found", "low", "high", "true"))
    return f"{found} [{low}, {high}] of {true}, held {count_of('interval_holds')(seeds)}"


def count_of(name: str) -> Column:
    """With how many seeds something is so."""
    return lambda seeds: f"{sum(seed[name] for seed in seeds)} of {len(seeds)}"


def flagged(seeds: Sequence[Figures]) -> str:
    """Mean share of flagged rows, their precision and recall."""
    return ", ".join(mean_of("flagged", part)(seeds) for part in ("share", "precision", "recall"))


ORDER: Mapping[str, Column] = {
    "rows": lambda seeds: f"{np.mean([seed['rows'] for seed in seeds]):.0f}",
    "label_score": quality_of("label_score"),
    "best single score": best_quality("single", "scores"),
    "cleanlab's best": best_quality("cleanlab", "cleanlab"),
    "oracle": quality_of("oracle"),
    "label_score less best single": difference_of("less_single"),
    "less cleanlab": difference_of("less_cleanlab"),
}
WORTH: Mapping[str, Column] = {
    "predicted right": mean_of("predicted_right"),
    "given right": mean_of("given_right"),
    "belief's argmax right": mean_of("argmax_right"),
    "oracle right": mean_of("oracle", "predicted_right"),
    "noise rate": noise_rate,
    "calibration error": mean_of("calibration_error"),
    "none predicted": mean_of("predicted_none"),
    "flagged, precision, recall": flagged,
    "reliable": count_of("reliable"),
    "seconds": lambda seeds: f"{np.mean([seed['seconds'] for seed in seeds]):.0f}",
}
REMOVED: Mapping[str, Column] = {
    "seeds": lambda seeds: str(len(seeds)),
    "of what goes wrong": mean_there("removed", "cautious", "wrong"),
    "least of the seeds": least_there("removed", "cautious", "wrong"),
    "rows that go": mean_of("removed", "cautious", "share"),
    "of the wrong labels": mean_of("removed", "cautious", "recall"),
    "by the table's word: of what goes wrong": mean_there("removed", "by_word", "wrong"),
    "of the wrong labels then": mean_of("removed", "by_word", "recall"),
}
WITH_VERIFIED: Mapping[str, Column] = {
    "seeds": lambda seeds: str(len(seeds)),
} | {
    f"{number}: {words}": beside(mean_there("verified", number, figure), mean_there("proposed", number, figure))
    for number in ("100", "400")
    for words, figure in (
        ("calibration error", "calibration_error"),
        ("noise rate off by", "noise_rate_error"),
        ("these rows' own rate off by", "sampled_rate_error"),
        ("of what goes wrong", "removed_wrong"),
    )
}
OF_A_CLASS: Mapping[str, Column] = {
    "label_score, of a class": quality_of("of_a_class", "label_score"),
    "best single, of a class": quality_of("of_a_class", "single"),
}

TABLES: Sequence[tuple[Mapping[str, Column], Sequence[str], str]] = (
    (ORDER, ("judged",), "best"),
    (WORTH, ("judged",), "best"),
    (REMOVED, ("removed",), "removed"),
    (WITH_VERIFIED, ("verified", "proposed"), "proposed"),
    (OF_A_CLASS, ("judged",), "of_a_class"),
)


def tables(results: Sequence[Figures]) -> list[str]:
    """Markdown, one table for some kinds of figures; cells that lack them are left out of it."""
    lines: list[str] = []
    for columns, kinds, needed in TABLES:
        there = {result["cell"]: seeds_of(result, kinds) for result in results}
        there = {cell: seeds for cell, seeds in there.items() if seeds and all(needed in seed for seed in seeds)}
        if there:
            lines += ["", *_table(there, columns)] if lines else _table(there, columns)
    return lines


def seeds_of(result: Figures, kinds: Sequence[str]) -> list[Figures]:
    """The figures of the seeds that have all of some kinds; those of `judged` as they are, others under their kind."""
    found = [result["kinds"].get(kind, {"seeds": {}})["seeds"] for kind in kinds]
    seeds = [seed for seed in found[0] if all(seed in each for each in found)]
    return [
        {
            name: value
            for kind, each in zip(kinds, found, strict=True)
            for name, value in (each[seed] if kind == "judged" else {kind: each[seed]}).items()
        }
        for seed in seeds
    ]


def _table(cells: Mapping[str, Sequence[Figures]], columns: Mapping[str, Column]) -> list[str]:
    rows = [[cell, *(column(seeds) for column in columns.values())] for cell, seeds in cells.items()]
    return [
        "| " + " | ".join(["cell", *columns]) + " |",
        "|---" * (len(columns) + 1) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def short(value: float, digits: int) -> str:
    """A share without the 0 before the point."""
    return f"{value:.{digits}f}".removeprefix("0")


def _of_there(seeds: Sequence[Figures], path: Sequence[str], summed: Callable[[list[float]], Any]) -> str:
    there = [float(value) for value in (_found(seed, path) for seed in seeds) if value is not None]
    return short(float(summed(there)), 3) if there else "-"


def _at(figures: Figures, path: Sequence[str]) -> float:
    return float(_found(figures, path))


def _found(figures: Any, path: Sequence[str]) -> Any:
    for name in path:
        figures = figures[name]
    return figures

"""The benchmark of scores by features: it runs, its search is apart, and drawn lists are of rows like the row."""

from __future__ import annotations

import numpy as np
import pytest

from rayclean.memory.features import FeatureScoring
from tools.bench_features import DrawnScoring, Took, WatchedScoring, made_rows, main
from tools.honest_ways import ByFeatures

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("search", [[], ["--search"]])
def test_a_line_of_the_table(search: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(["--rows", "400", "--dim", "12", "--classes", "3", *search])
    header, dashes, line = (text.strip("|").split("|") for text in capsys.readouterr().out.splitlines())
    assert len(header) == len(dashes) == len(line)
    assert [cell.strip() for cell in line[:4]] == ["400", "12", "3", "1"]
    fit_s, _, search_s, _, regression_s = (float(cell) for cell in line[4:9])
    assert fit_s > search_s >= 0
    assert regression_s >= 0
    assert float(line[10]) > 0
    assert all(0.85 < float(quality) <= 1 for quality in line[-1].split(","))


def test_watched_scores_are_the_scorers_own() -> None:
    rows = made_rows(200, 8, 3, seed=1)
    watched, plain = ByFeatures(rows, 0, WatchedScoring).scoring, ByFeatures(rows, 0).scoring
    assert isinstance(watched, WatchedScoring)
    assert type(plain) is FeatureScoring
    np.testing.assert_array_equal(watched.neighbors, plain.neighbors)
    assert len(watched.searches) == 1


def test_drawn_lists_are_of_rows_of_the_label_or_of_the_cloud() -> None:
    rows = made_rows(3000, 8, 3, seed=1)
    scoring = ByFeatures(rows, 0, DrawnScoring).scoring
    labels = scoring.samples.labels
    same = labels[scoring._nearest(5, any_label=False)]
    np.testing.assert_array_equal(same, np.repeat(labels[:, None], 5, axis=1))
    assert (rows.truth[scoring.neighbors] == rows.truth[:, None]).mean() > 0.9  # labels are so in .8 of the rows


def test_a_part_is_taken_off() -> None:
    assert Took(5, 8).less(Took(1, 2)) == Took(4, 6)
    assert Took(4, 6).over(Took(2, 12)) == "2.00 | 0.50"

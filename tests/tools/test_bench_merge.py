"""The benchmark of the joint model: it runs, its rows are what it says, and blocks change nothing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from rayclean.merge.anchors import fit_joint
from tools.bench.merge import LEAN, NUM_NEIGHBORS, Made, Rows, apply, drawn, main

MADE = Made(num_rows=950, num_classes=5, noise="next_class", rate=0.3, seed=3)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.bench.merge.BLOCK_ROWS", 100)


def all_rows(made: Made) -> Rows:
    return Rows(*(np.concatenate(column) for column in zip(*made.blocks(), strict=True)))


@pytest.mark.parametrize(("noise", "wrong"), [("symmetric", 0.3 * 4 / 5), ("next_class", 0.3)])
def test_the_figures_are_sane(noise: str, wrong: float, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--rows", "900", "--classes", "5", "--noise", noise])
    header, dashes, line = (text.strip("|").split("|") for text in capsys.readouterr().out.splitlines())
    assert len(header) == len(dashes) == len(line)
    rows, classes, kind, fitted, fit_s, applied_s, rate, before, after, end, area, found, right = (
        cell.strip().replace(",", "") for cell in line
    )
    assert (rows, classes, kind, fitted) == ("900", "5", f"{noise} 0.3", "900")
    assert float(fit_s) >= 0
    assert float(applied_s) >= 0
    assert float(rate) > 0
    assert 20 < float(before) <= float(after) <= float(end)
    assert 0.97 < float(area) <= 1
    estimate, known = (float(value) for value in found.rstrip(")").split(" ("))
    assert known == pytest.approx(wrong, abs=0.06)
    assert estimate == pytest.approx(known, abs=0.05)
    predicted, given = (float(value) for value in right.rstrip(")").split(" ("))
    assert given == pytest.approx(1 - known, abs=1e-3)
    assert given + 0.1 < predicted <= 1


def test_the_header_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--rows", "60", "--classes", "3", "--no-header"])
    assert capsys.readouterr().out.startswith("| 60 | 3 | symmetric 0.3 | 60 |")


@pytest.mark.usefixtures("small_blocks")
def test_rows_come_in_blocks_and_each_time_the_same() -> None:
    blocks = list(MADE.blocks())
    assert [len(rows.given) for rows in blocks] == [100] * 9 + [50]
    once, again = all_rows(MADE), all_rows(MADE)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(once, again, strict=True))
    np.testing.assert_allclose(once.beliefs.sum(axis=1), 1, atol=1e-12)
    assert once.beliefs.dtype == np.float64
    np.testing.assert_array_equal(once.draws, np.arange(950))
    assert set(np.unique((once.given - once.truth) % 5)) == {0, 1}
    assert not np.array_equal(blocks[0].truth, blocks[1].truth)


@pytest.mark.usefixtures("small_blocks")
def test_the_fit_sees_the_drawn_rows_alone_and_all_where_they_are_few() -> None:
    rows = all_rows(MADE)
    sample = drawn(MADE, sample_rows=10_000)
    assert np.concatenate(sample.beliefs).tobytes() == rows.beliefs.tobytes()
    np.testing.assert_array_equal(sample.given, rows.given)
    part = np.concatenate(drawn(MADE, sample_rows=300).beliefs)
    assert len(part) == pytest.approx(300, abs=6 * (300 * 0.7) ** 0.5)
    assert {row.tobytes() for row in part} < {row.tobytes() for row in rows.beliefs}


def test_neighbours_show_the_lean_that_was_put_in() -> None:
    made = Made(num_rows=4000, num_classes=8, noise="symmetric", rate=0.4, seed=0)
    sample = drawn(made, sample_rows=4000)
    assert sample.near.neighbors.shape == (len(sample.near.given), NUM_NEIGHBORS, 8)
    assert fit_joint(np.concatenate(sample.beliefs), sample.given, sample.near).lean == pytest.approx(LEAN, abs=0.3)


@pytest.mark.usefixtures("small_blocks")
def test_block_by_block_finds_what_all_at_once_finds() -> None:
    rows = all_rows(MADE)
    model = fit_joint(rows.beliefs, rows.given)
    found, whole = apply(model, MADE), model.posterior(rows.beliefs, rows.given)
    clean = rows.given == rows.truth
    assert found.auroc == pytest.approx(roc_auc_score(clean, whole.label_score), abs=1e-12)
    assert found.noise_rate == pytest.approx(1 - whole.label_score.astype(np.float64).mean(), abs=1e-12)
    assert found.true_noise_rate == pytest.approx((~clean).mean(), abs=1e-12)
    assert found.predicted_right == pytest.approx((whole.predicted == rows.truth).mean(), abs=1e-12)
    assert found.seconds > 0

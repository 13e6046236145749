"""AUM with threshold samples: the cut, how two networks agree, and the whole way through a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.catalog.noise import threshold_samples
from rayclean.config import Config
from rayclean.errors import ConfigError
from rayclean.run.run import Run
from rayclean.scores.aum import aum_excess, aum_threshold
from rayclean.storage.contents import map_arrays, read_table
from rayclean.train.trajectories import read_trajectory

Finish = Callable[..., Run]
Tiny = Callable[..., Config]
TRAINED = ("train.epochs=3", "train.from=", "train.snapshot_every=3", "scores=[aum, aum_excess]")


def test_at_most_one_in_a_hundred_threshold_samples_is_above_the_threshold() -> None:
    aum = np.random.default_rng(0).normal(size=1000)
    assert (aum > aum_threshold(aum)).sum() == 10
    assert np.isnan(aum_threshold(np.empty(0)))


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_a_row_is_flagged_by_every_network_that_knows_its_label(seed: int, num_rows: int) -> None:
    rng = np.random.default_rng(seed)
    aum, thresholds, drawn = rng.normal(size=(2, num_rows)), rng.normal(size=2), rng.random((2, num_rows)) < 0.4
    found = aum_excess(aum, thresholds, drawn)
    for row in range(num_rows):
        own = [aum[r, row] - thresholds[r] for r in range(2) if not drawn[r, row]]
        assert np.isnan(found[row]) if not own else found[row] == max(own)


def test_sets_of_threshold_samples_are_disjoint_and_of_their_size() -> None:
    ids = np.random.default_rng(0).integers(0, 2**64, 20_000, dtype=np.uint64)
    parts = np.stack([threshold_samples(ids, 9, part, 5) for part in range(10)])
    assert (parts.sum(axis=0) == 1).all()
    assert np.abs(parts.mean(axis=1) - 0.1).max() < 4 * np.sqrt(0.09 / 20_000)


@pytest.fixture(scope="module")
def thresholded(tiny_config: Tiny, finish: Finish, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finish(tiny_config(tmp_path_factory.mktemp("aum") / "run", *TRAINED))


def table_of(run: Run) -> pa.Table:
    names = [name for name in run.store.list("labels") if name.startswith("part-")]
    return pa.concat_tables([read_table(run.store, f"labels/{name}") for name in names])


def test_two_roles_are_trained_with_a_class_more(thresholded: Run) -> None:
    assert thresholded.config.role_names() == ("main", "aum1", "aum2")
    sets = []
    for name in ("aum1", "aum2"):
        role = thresholded.roles[name]
        weight = map_arrays(thresholded.store, role.last.file)["head.weight"]
        assert len(weight) == thresholded.catalog.num_classes + 1
        changed = role.catalog.label != thresholded.catalog.label
        assert (role.catalog.label[changed] == thresholded.catalog.num_classes).all()
        assert changed.any()
        sets.append(changed)
    assert not (sets[0] & sets[1]).any()


def test_the_score_is_that_of_the_roles_margins(thresholded: Run) -> None:
    blocks = range(-(-thresholded.catalog.num_rows // thresholded.config.blocks.rows))
    excess = []
    for name in ("aum1", "aum2"):
        role = thresholded.roles[name]
        margins = [
            np.concatenate([read_trajectory(role.store, role.trained.folder, epoch, b)[1] for b in blocks])
            for epoch in (1, 2, 3)
        ]
        aum = np.mean(np.stack(margins).astype(float), axis=0)
        drawn = role.catalog.label == thresholded.catalog.num_classes
        excess.append(np.where(drawn, -np.inf, aum - np.percentile(aum[drawn], 99)))
    found = table_of(thresholded)["score_aum_excess"].to_numpy()
    np.testing.assert_allclose(found, np.maximum(*excess), rtol=1e-6, atol=1e-6)


def test_the_given_labels_stay_as_they_are(thresholded: Run) -> None:
    assert table_of(thresholded)["given_label"].to_pylist() == thresholded.catalog.label.tolist()


def test_it_needs_epochs(tiny_config: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="score aum_excess needs epochs"):
        tiny_config(tmp_path / "run", "scores=[aum_excess]")

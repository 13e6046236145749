"""Rows of cells: noise is that of a run, what is missing is named, frozen predictions are of other rows."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rayclean.catalog.flips import CIFAR10_TARGETS
from rayclean.errors import ConfigError, InputError
from tools.cells.honest_data import ALL, CELLS, DESIGN, FROZEN, REAL, FeatureCell, Folders, PeerCell

CELL = FeatureCell(("a", "b"), 10, kind="symmetric", rate=0.5)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Features of two shards of 300 rows, whose images are there for the first; predictions of 30 rows."""
    rng = np.random.default_rng(0)
    for name in "ab":
        truth = np.arange(300) % 10
        np.savez(
            tmp_path / f"{name}.npz",
            features=rng.normal(size=(300, 4)).astype(np.float32),
            keys=np.array([f"{name}{row:03}" for row in range(300)]),
            clean_label=truth,
            worse_label=(truth + (truth == 3)) % 10,
        )
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        for row in range(300):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)).save(file, "png")
            for extension, content in (("png", file.getvalue()), ("json", json.dumps({"label": 0}).encode())):
                member = tarfile.TarInfo(f"a{row:03}.{extension}")
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
    given, true = (rng.integers(0, 10, 30).astype(np.uint8) for _ in range(2))
    np.savez(tmp_path / "p.npz", pred_probs=np.full((30, 10), 0.1, np.float32), given=given, true=true)
    return Folders(tmp_path, tmp_path, tmp_path)


def test_labels_as_they_are_given_are_those_of_their_field(folders: Folders) -> None:
    rows = FeatureCell(("a",), 10, label="worse_label").read(folders, seed=0)
    assert rows.inputs.shape == (300, 4)
    np.testing.assert_array_equal(rows.clean, rows.truth != 3)


def test_noise_of_shards_together_is_that_of_each(folders: Folders) -> None:
    both = CELL.read(folders, seed=1)
    each = [replace(CELL, files=(name,)).read(folders, seed=1) for name in CELL.files]
    np.testing.assert_array_equal(both.labels, np.concatenate([rows.labels for rows in each]))
    np.testing.assert_array_equal(both.inputs, np.concatenate([rows.inputs for rows in each]))
    assert (CELL.read(folders, seed=2).labels != both.labels).any()
    assert (~both.clean).mean() == pytest.approx(0.45, abs=0.08)


def test_classes_turn_into_those_that_the_kind_says(folders: Folders) -> None:
    rows = replace(CELL, kind="asymmetric_cifar10", rate=1.0).read(folders, seed=0)
    np.testing.assert_array_equal(rows.labels, CIFAR10_TARGETS[rows.truth])


def test_classes_of_unequal_size_lose_rows_with_all_that_is_theirs(folders: Folders) -> None:
    rows = replace(CELL, imbalance="step", rate=0.0).read(folders, seed=0)
    np.testing.assert_array_equal(np.bincount(rows.truth), [60] * 5 + [6] * 5)
    whole = replace(CELL, rate=0.0).read(folders, seed=0)
    by_features = {row.tobytes(): label for row, label in zip(whole.inputs, whole.labels, strict=True)}
    assert [by_features[row.tobytes()] for row in rows.inputs] == rows.labels.tolist()


def test_noise_that_depends_on_images_reads_the_shards(folders: Folders) -> None:
    cell = replace(CELL, files=("a",), kind="instance", shards=("a",))
    rows = cell.read(folders, seed=0)
    assert 0.3 < (~rows.clean).mean() < 0.7
    with pytest.raises(InputError, match=r"no image of sample 'b000'.*--images"):
        replace(cell, files=("a", "b")).read(folders, seed=0)
    with pytest.raises(ConfigError, match="--images FOLDER"):
        cell.read(replace(folders, images=None), seed=0)


def test_predictions_are_cut_with_their_labels(folders: Folders) -> None:
    whole, part = (PeerCell("p", *ends).read(folders, seed=0) for ends in ((0, 30), (10, 20)))
    np.testing.assert_array_equal(part.labels, whole.labels[10:20])
    np.testing.assert_array_equal(part.truth, whole.truth[10:20])
    assert part.num_classes == 10
    assert part.inputs.shape == (10, 10)


def test_what_is_missing_is_named(folders: Folders) -> None:
    with pytest.raises(ConfigError, match=r"a.npz is needed.*--features FOLDER"):
        CELL.read(Folders(), seed=0)
    with pytest.raises(InputError, match=r"c.npz is not there.*--features FOLDER"):
        replace(CELL, files=("c",)).read(folders, seed=0)
    with pytest.raises(InputError, match="none called random_label1"):
        replace(CELL, label="random_label1").read(folders, seed=0)


def test_frozen_rows_by_predictions_are_no_rows_of_design() -> None:
    assert len(CELLS) == len(DESIGN) + len(REAL) + len(FROZEN) + len(ALL)
    seen = [cell for cell in DESIGN.values() if isinstance(cell, PeerCell)]
    fresh = [cell for cell in FROZEN.values() if isinstance(cell, PeerCell)]
    assert {cell.file for cell in seen} == {cell.file for cell in fresh}
    assert max(cell.stop for cell in seen) <= min(cell.start for cell in fresh)

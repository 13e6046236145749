"""The papers' tables: training in parts is training at once, figures are LabelScorer's, a cell's rows and its table."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rayclean import LabelScorer
from rayclean.errors import ConfigError
from rayclean.evaluate.evaluate import auroc
from rayclean.schema import Array
from rayclean.shards.write import write_shards
from tools.cells.paper_tables import MORE_TO_TRAIN, figures, main, make_scorer, measure, table
from tools.cells.papers import CELLS, Cell, make_noisy, read_images

NAME = "iofm-cifar10-symmetric-0.8"
TINY = ("--device", "cpu", "--model", "small_resnet", "--epochs", "2", "--snapshot-every", "1", "--rows", "50")
CELL = replace(CELLS[NAME], model="small_resnet", epochs=2, snapshot_every=1)


@pytest.fixture(scope="module")
def arrays() -> tuple[Array, Array]:
    """(60, 8, 8, 3) images of ten classes, each brighter than the one before, and their true labels."""
    truth = np.arange(60) % 10
    noise = np.random.default_rng(0).integers(0, 60, (60, 8, 8, 3))
    return (noise + 20 * truth[:, None, None, None]).astype(np.uint8), truth


@pytest.fixture(scope="module")
def file(arrays: tuple[Array, Array], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("images") / "tiny.npz"
    np.savez(path, images=arrays[0], labels=arrays[1])
    return str(path)


def written(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_parts_and_reruns_give_the_figures_of_one_fit(
    arrays: tuple[Array, Array], file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = [NAME, "--images", file, *TINY, "--out", str(out)]
    assert main(["train", *options, "--seconds", "0"]) == MORE_TO_TRAIN
    with pytest.raises(ConfigError, match="not trained to the end: main, ce; run train again"):
        main(["score", *options])
    with pytest.raises(ConfigError, match="was made with other seed, data"):
        main(["train", *options, "--seed", "1"])
    assert main(["train", *options]) == 0
    before = written(out)
    assert main(["train", *options]) == 0
    assert written(out) == before
    assert main(["score", *options]) == 0
    before = written(out)
    assert main(["score", *options]) == 0
    assert written(out) == before

    data = make_noisy(CELL, *arrays, 50, 0)
    scorer = LabelScorer(**CELL.settings(), device="cpu")
    scorer.fit(data.images, data.samples.labels, num_classes=10, keys=data.keys)
    clean = data.samples.labels == data.truth
    result = json.loads((out / f"{NAME}.json").read_text())
    assert result["scores"] == figures(scorer, CELL.scores, clean)
    assert (result["rows"], result["wrong"]) == (50, pytest.approx(1 - clean.mean()))
    for name in CELL.scores:
        by_epoch = dict(scorer.score_epochs(name))
        assert list(by_epoch) == ([2] if name == "inn" else [1, 2])
        np.testing.assert_allclose(by_epoch[2], scorer.score_samples(name), rtol=1e-12, err_msg=name)
        assert result["scores"][name]["final"] == auroc(scorer.score_samples(name), clean)
    singles, means = dict(scorer.score_epochs("iofm_last")), dict(scorer.score_epochs("iofm"))
    np.testing.assert_allclose(means[2], (singles[1] + singles[2]) / 2, rtol=1e-12)

    capsys.readouterr()
    assert main(["table", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == table({NAME: result})
    assert sum("epochs=2" in line for line in lines) == len(CELL.scores)


def test_a_cell_that_does_not_exist(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["rate", "cifar11", "--images", file])
    assert ended.value.code == 2
    assert "argument CELL: invalid choice: 'cifar11'" in capsys.readouterr().err


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_can_be_scored(name: str) -> None:
    cell = CELLS[name]
    scorer = LabelScorer(**cell.settings(), device="cpu")
    assert set(scorer.role_names) == ({"main", "ce"} if name.startswith("iofm") else {"main", "ce", "ce_ne"})
    assert set(cell.published) <= set(cell.scores)
    assert all(final is None or final <= best for best, final in cell.published.values())
    assert cell.inn_epochs()[-1] == cell.snapshots()[-1] == cell.epochs


def test_images_of_shards_are_those_of_arrays(arrays: tuple[Array, Array], file: str, tmp_path: Path) -> None:
    def sample(row: int) -> tuple[str, dict[str, bytes]]:
        buffer = io.BytesIO()
        Image.fromarray(arrays[0][row]).save(buffer, format="PNG")
        members = {"png": buffer.getvalue(), "json": json.dumps({"clean_label": int(arrays[1][row])}).encode()}
        return f"{row:04d}", members

    write_shards(str(tmp_path), "tiny", (sample(row) for row in range(60)), 30)
    for source in (file, str(tmp_path), str(tmp_path / "tiny-*.tar")):
        images, labels = read_images(source, "json:clean_label", 10)
        np.testing.assert_array_equal(images, arrays[0])
        np.testing.assert_array_equal(labels, arrays[1])


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("inn-cifar10-pair-2-7", [40, 4]),
        ("iofm-cifar10-step-asymmetric-0.2", [40] * 5 + [4] * 5),
        ("iofm-cifar10-symmetric-0.8", [40] * 10),
    ],
)
def test_imbalance_comes_first_then_noise(name: str, counts: list[int]) -> None:
    truth = np.arange(400) % 10
    images = np.random.default_rng(0).integers(0, 256, (400, 2, 2, 3), dtype=np.uint8)
    data = make_noisy(CELLS[name], images, truth, None, 0)
    assert np.bincount(data.truth).tolist() == counts
    assert data.num_classes == len(counts)
    kept = np.array([int(key) for key in data.keys])
    np.testing.assert_array_equal(data.images, images[kept])
    first, second = CELLS[name].classes or (0, 1)
    expected = truth[kept] if data.num_classes == 10 else np.where(truth[kept] == first, 0, 1)
    assert set(truth[kept]) == ({first, second} if data.num_classes == 2 else set(range(10)))
    np.testing.assert_array_equal(data.truth, expected)
    movable = np.ones(len(kept), bool)
    if CELLS[name].noise == "asymmetric_cifar10":
        movable = np.isin(data.truth, [2, 3, 4, 5, 9])
    wrong = data.samples.labels != data.truth
    share = CELLS[name].rate * (0.9 if CELLS[name].noise == "symmetric" else 1)
    assert not wrong[~movable].any()
    assert wrong[movable].mean() == pytest.approx(share, abs=4 * (share * (1 - share) / movable.sum()) ** 0.5)
    assert data.digest() != make_noisy(CELLS[name], images, truth, None, 1).digest()


@pytest.fixture
def options() -> Callable[[float], argparse.Namespace]:
    return lambda seconds: argparse.Namespace(device="cpu", seed=0, seconds=seconds)


def test_the_projection_grows_with_rows_and_roles(
    arrays: tuple[Array, Array], options: Callable[[float], argparse.Namespace]
) -> None:
    def minutes(cell: Cell, rows: int) -> float:
        said = measure(cell, make_noisy(cell, *arrays, None, 0), options(0), rows)[1]
        assert said.startswith(f"{rows} rows, {len(make_scorer(cell, options(0)).role_names)} roles of 150 epochs")
        return float(said.partition("training ")[2].partition(" min")[0])

    cell = replace(CELL, epochs=150)
    # Far apart, since a busy machine moves single measurements.
    assert minutes(cell, 10_000_000) > 20 * minutes(cell, 100_000) > 0


def test_the_table_leaves_blank_what_is_missing() -> None:
    scores = {"loss": {"best": 0.95, "best_epoch": 3, "final": 0.7}}
    lines = table({NAME: {"changes": {}, "rows": 50000, "scores": scores}})
    assert lines[:2] == ["| cell | rows | score | ours, best (final) | paper, best (final) |", "|---|---|---|---|---|"]
    assert f"| {NAME} | 50000 | loss | .950 (.700) | .919 (.569) |" in lines
    assert f"| {NAME} | 50000 | aum |  | .948 (.809) |" in lines
    assert "| inn-cifar10-symmetric-0.8 |  | inn |  | .885 |" in lines
    assert not [line for line in lines if "ens_loss" in line]

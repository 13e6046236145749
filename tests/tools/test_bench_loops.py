"""The loops that are timed beside each other do the same work, and the table says what they took."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rayclean.cluster.connect import connect
from rayclean.config import TrainSection
from rayclean.run.run import Run
from rayclean.schema import Array
from rayclean.shards.urls import expand_shards
from rayclean.shards.write import write_shards
from rayclean.train.feed import Feed
from rayclean.train.loop import LoopSettings, Rank, train_epochs
from rayclean.train.plan import epoch_seed, plan_cached
from tools.bench.loops import (
    BARE,
    PLAIN,
    Pass,
    Plain,
    Spent,
    embed_turns,
    main,
    one_process_group,
    read_ray,
    read_streamed,
    read_webdataset,
    reader_turns,
    table,
    train_turns,
)
from tools.bench.score import run_of
from tools.data.make_synthetic import synthetic_samples

pytestmark = pytest.mark.usefixtures("one_thread")

SAMPLES, CLASSES, SIZE = 96, 3, 8


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("synthetic")
    write_shards(str(folder), "synthetic", synthetic_samples(SAMPLES, CLASSES, SIZE, 0.3, 0), 40)
    return f"{folder}/*.tar"


@pytest.fixture(scope="module")
def run(shards: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    changes: dict[str, dict[str, Any]] = {"model": {"width": 4}, "blocks": {"rows": 40}}
    return run_of(tmp_path_factory.mktemp("run"), shards, CLASSES, SIZE, changes)


def settings_of(run: Run, **changes: Any) -> TrainSection:
    return TrainSection(**{"epochs": 3, "batch_size": 32, **changes})


@pytest.mark.parametrize("size", [SIZE, 5])
def test_readers_give_the_same_images(size: int, run: Run, shards: str) -> None:
    found = np.stack(list(read_streamed(run.catalog, size)))
    assert found.shape == (SAMPLES, size, size, 3)
    np.testing.assert_array_equal(found, np.stack(list(read_webdataset(expand_shards(shards), size))))


@pytest.mark.slow
def test_ray_data_gives_the_same_images(run: Run, shards: str) -> None:
    def ordered(images: Iterator[Array]) -> list[bytes]:
        return sorted(image.tobytes() for image in images)

    with connect():
        assert ordered(read_ray(expand_shards(shards), 5)) == ordered(read_streamed(run.catalog, 5))


def test_each_reader_reads_all_in_each_turn(run: Run, shards: str) -> None:
    turns = reader_turns(run, expand_shards(shards), 2, with_ray=False)
    assert len(turns) == 2
    assert all(each.rows == SAMPLES and each.spent.cpu_s > 0 for turn in turns for each in turn.values())


def test_a_cold_unit_decodes_and_a_warm_one_does_not(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    read = run.catalog.pixels(SIZE, 1e6).__class__.read

    def counted(pixels: Any, rows: Array) -> Array:
        before = pixels.reader.decoded
        images = read(pixels, rows)
        decoded.append(pixels.reader.decoded - before)
        return images

    monkeypatch.setattr("rayclean.catalog.table.RowPixels.read", counted)
    turns = embed_turns(run, 1)
    assert list(turns[0]) == [BARE, "rayclean, cold image cache", "rayclean, warm image cache"]
    assert {each.rows for each in turns[0].values()} == {SAMPLES - 2 * 40}  # the second turn's unit is the last one
    assert decoded[1:] == [40, 40, 0, 40, 16, 0]  # after the bare loop's own batch: another unit, cold, warm


@pytest.mark.parametrize("loss", ["mixup", "ce"])
def test_the_plain_loop_trains_what_the_product_trains(loss: str, run: Run) -> None:
    train = settings_of(run, loss=loss)
    task = replace(run.network.task, train=train, feed=replace(run.network.task.feed, batch_size=train.batch_size))
    feed = Feed(task.catalog, task.feed, 0, 1)
    images = torch.from_numpy(feed.images(np.arange(SAMPLES)))
    plain = Plain(task, images, torch.from_numpy(task.catalog.label.astype(np.int64)))
    settings = LoopSettings(train, task.spec, task.feed.seed, SAMPLES, "float32", "cpu", 1)
    started = {name: value.clone() for name, value in plain.network.state_dict().items()}
    for epoch, network, _ in train_epochs(settings, task.spec.build(task.feed.seed), feed.batches, Rank(0, 1)):
        generator = torch.Generator().manual_seed(epoch_seed(task.feed.seed, epoch, 0, "batches"))
        plain.epoch(torch.from_numpy(plan_cached(task.feed.seed, epoch, 0, 1, SAMPLES)), generator)
        for name, value in network.state_dict().items():
            torch.testing.assert_close(plain.network.state_dict()[name], value, rtol=1e-3, atol=1e-4, msg=name)
    assert max(float((value - started[name]).abs().max()) for name, value in network.state_dict().items()) > 0.05


def test_training_leaves_torch_as_it_was_and_fills_nothing_meanwhile(run: Run) -> None:
    deterministic: Any = torch.utils.deterministic
    assert deterministic.fill_uninitialized_memory
    task = replace(run.network.task, train=settings_of(run))
    feed = Feed(task.catalog, task.feed, 0, 1)
    settings = LoopSettings(task.train, task.spec, 0, SAMPLES, "float32", "cpu", 1)
    epochs = train_epochs(settings, task.spec.build(0), feed.batches, Rank(0, 1))
    next(epochs)
    assert not deterministic.fill_uninitialized_memory
    epochs.close()  # type: ignore[attr-defined]
    assert deterministic.fill_uninitialized_memory


@pytest.mark.parametrize("reports", [False, True])
def test_each_turn_of_training_is_an_epoch_of_each_loop(reports: bool, run: Run, tmp_path: Path) -> None:
    reported: list[int] = []
    report: Callable[..., None] | None = (lambda epoch, state: reported.append(epoch)) if reports else None
    task = replace(run.network.task, folder=f"trained-{reports}", train=settings_of(run))
    with one_process_group():
        turns = train_turns(task, report)
    assert len(turns) == 2  # the first epoch warms up
    assert reported == ([1, 2, 3] if reports else [])
    for turn in turns:
        assert {each.rows for each in turn.values()} == {SAMPLES}
        product = [each.spent.wall_s for name, each in turn.items() if name.startswith("rayclean")]
        assert len(product) == 2 + reports
        assert product == sorted(product)  # each holds the one before
        assert min(product) > 0
    assert torch.are_deterministic_algorithms_enabled()  # as the product had it


def test_the_table_holds_medians_of_rates_and_of_ratios() -> None:
    def turn(wall_s: float, cpu_s: float) -> dict[str, Pass]:
        return {PLAIN: Pass(100, Spent(1, 1)), "ours": Pass(100, Spent(wall_s, cpu_s)), "far": Pass(50, Spent(1, 9))}

    turns = [turn(2, 1.25), turn(4, 1.25), turn(1, 1.25), turn(5, 1.25), turn(8, 1.25)]
    lines = table(turns, PLAIN, apart=["far"]).splitlines()
    assert lines[2] == "| plain | 100 | 1 | 1 |"
    assert lines[3] == "| ours | 25 | 0.25 (0.20 to 0.50) | 0.80 (0.80 to 0.80) |"
    assert lines[4] == "| far | 50 | 0.50 (0.50 to 0.50) |  |"


def test_the_command_makes_shards_where_none_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--samples=60", "--classes=3", "--size=8", "--width=4", "--block-rows=25", "--turns=1"]
    main(["embed", *small, "--precision=float32"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "float32, batches of 64"
    assert [line.split("|")[1].strip() for line in lines[4:]] == [
        BARE,
        "rayclean, cold image cache",
        "rayclean, warm image cache",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("what", [["reader"], ["train", "--ray"]], ids=["reader", "train"])
def test_the_commands_with_ray(what: list[str], shards: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([what[0], shards, *what[1:], "--classes=3", "--size=8", "--width=4", "--turns=1"])
    printed = capsys.readouterr().out
    assert ("ray.data.read_webdataset" if what == ["reader"] else "report to Ray Train") in printed

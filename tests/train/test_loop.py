"""Training: broken off and resumed it gives the same bits as unbroken; its files say what the weights do."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.cluster.sizing import Workers
from rayclean.config import TrainSection
from rayclean.run.run import Run
from rayclean.schema import Array
from rayclean.storage.resume import Resume
from rayclean.storage.store import Store
from rayclean.train.forward import Forward
from rayclean.train.loop import Rank, State
from rayclean.train.optimizer import learning_rate
from rayclean.train.sample_losses import sample_losses
from rayclean.train.snapshots import load_snapshot, snapshot_name
from rayclean.train.stage import train_task
from rayclean.train.trajectories import read_trajectory, trajectory_name
from rayclean.train.weights import load_weights_from
from rayclean.train.worker import TrainTask, train

ALONE = Rank(0, 1)
EPOCHS = 4

pytestmark = pytest.mark.usefixtures("one_thread")


class Killed(Exception):
    """The process ends here."""


def files(task: TrainTask) -> dict[str, bytes]:
    root = Path(task.store.path) / task.folder
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def train_in_pieces(task: TrainTask, *ends: int) -> list[int]:
    """Trains, and is killed after each of the epochs in `ends`; goes on from what was reported, through a file."""
    reported: list[int] = []
    saved: bytes | None = None

    def report(epoch: int, state: State | None) -> None:
        nonlocal saved
        buffer = io.BytesIO()
        torch.save(state, buffer)
        saved = buffer.getvalue()
        reported.append(epoch)
        if epoch in ends:
            raise Killed

    for _ in range(len(ends) + 1):
        state = torch.load(io.BytesIO(saved), weights_only=True) if saved else None
        torch.manual_seed(len(reported))  # a new process draws from elsewhere
        try:
            train(task, ALONE, Resume(state, state["epoch"] if state else 0), report)
        except Killed:
            continue
    return reported


@pytest.fixture(scope="module")
def base(scored: Run, tmp_path_factory: pytest.TempPathFactory) -> TrainTask:
    """A task on the catalog of the tiny run, with a store of its own."""
    settings = TrainSection(epochs=EPOCHS, snapshot_every=3, batch_size=16)
    return replace(
        scored.network.task, store=Store(str(tmp_path_factory.mktemp("loop"))), folder="loop", train=settings
    )


@pytest.mark.parametrize(
    ("name", "settings", "feed"),
    [
        ("cached", {}, {}),
        ("streamed", {"loss": "ce"}, {"cache_bytes": 0, "shuffle_rows": 20}),
        ("autoaugment", {"loss": "ce+ne", "augment": "autoaugment", "schedule": "constant", "momentum": 0}, {}),
        ("crops", {"optimizer": "adamw", "lr": 1e-3, "augment": "random_resized_crop"}, {"cache_bytes": 0}),
        # It is broken off where the rate has just fallen; the next epoch starts at the lower one.
        ("steps", {"loss": "ce", "schedule": "step", "milestones": [2, 3], "decay": 0.5}, {}),
    ],
)
def test_a_resumed_training_is_the_unbroken_one(
    name: str, settings: dict[str, Any], feed: dict[str, Any], base: TrainTask
) -> None:
    section = TrainSection(**base.train.model_dump(by_alias=True) | settings)
    whole = replace(base, folder=f"whole-{name}", train=section, feed=replace(base.feed, **feed))
    broken = replace(whole, folder=f"broken-{name}")
    assert train_in_pieces(whole) == [1, 2, 3, 4]
    assert train_in_pieces(broken, 2) == [1, 2, 3, 4]
    expected = files(whole)
    assert sorted(expected) == sorted(
        [snapshot_name(3), snapshot_name(4)]
        + [f"trajectories/epoch-{epoch:04d}/{block:06d}.parquet" for epoch in range(1, 5) for block in range(4)]
    )
    found = files(broken)
    assert found.keys() == expected.keys()
    assert [file for file in expected if found[file] != expected[file]] == []
    assert expected[snapshot_name(3)] != expected[snapshot_name(4)]


def test_an_attempt_that_died_in_an_epoch_leaves_no_trace(base: TrainTask) -> None:
    whole, broken = replace(base, folder="whole-2"), replace(base, folder="broken-2")
    train_in_pieces(whole)
    # Its last snapshot and trajectories are there, but its report was not registered: they are written again.
    saved: list[bytes] = []

    def report(epoch: int, state: State | None) -> None:
        if epoch == 3:
            raise Killed
        buffer = io.BytesIO()
        torch.save(state, buffer)
        saved.append(buffer.getvalue())

    with pytest.raises(Killed):
        train(broken, ALONE, Resume(), report)
    assert snapshot_name(3) in files(broken)
    train(broken, ALONE, Resume(torch.load(io.BytesIO(saved[-1]), weights_only=True), 2), lambda *_: None)
    assert files(broken) == files(whole)


def test_a_finished_training_is_left_alone(base: TrainTask) -> None:
    task = replace(base, folder="finished")
    states: list[Any] = []
    train(task, ALONE, Resume(), lambda epoch, state: states.append(state))
    before = files(task)
    train(task, ALONE, Resume(states[-1], EPOCHS), lambda *_: pytest.fail("nothing is left to report"))
    assert files(task) == before


@pytest.mark.parametrize(
    ("lost", "kept"),
    [
        ([snapshot_name(EPOCHS)], EPOCHS),  # comes back from its own epoch's checkpoint
        ([trajectory_name(EPOCHS, 2)], EPOCHS),
        ([snapshot_name(3), trajectory_name(3, 0)], 2),  # trained again from the epoch before
        ([trajectory_name(1, 1), snapshot_name(3)], None),  # nothing is kept: from the start
    ],
)
def test_what_was_lost_comes_back_and_nothing_else_is_written(
    lost: list[str], kept: int | None, base: TrainTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(base, folder=f"lost-{lost[0][:5]}-{kept}-{len(lost)}")
    states: list[bytes] = []

    def report(epoch: int, state: State | None) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        states.append(buffer.getvalue())

    train(task, ALONE, Resume(), report)
    before = files(task)
    for name in lost:
        task.store.remove(f"{task.folder}/{name}")
    epochs = [epoch for epoch in range(1, EPOCHS + 1) if task.missing_of(epoch)]
    written: list[str] = []
    publish = Store.publish

    def noted(self: Store, name: str, data: bytes | memoryview) -> None:
        written.append(name)
        publish(self, name, data)

    monkeypatch.setattr(Store, "publish", noted)
    state = None if kept is None else torch.load(io.BytesIO(states[kept - 1]), weights_only=True)
    train(task, ALONE, Resume(state, EPOCHS, stop=epochs[-1]), lambda *_: None)
    assert files(task) == before
    assert sorted(written) == sorted(f"{task.folder}/{name}" for name in lost)


def test_another_seed_is_another_training(base: TrainTask) -> None:
    one = replace(base, folder="seed-0", train=base.train.model_copy(update={"epochs": 1}))
    other = replace(one, folder="seed-1", feed=replace(one.feed, seed=1))
    for task in (one, other):
        train(task, ALONE, Resume(), lambda *_: None)
    assert files(one)[snapshot_name(1)] != files(other)[snapshot_name(1)]


def test_trajectories_are_what_the_snapshot_says_of_the_bare_images(trained: Run) -> None:
    task, catalog = trained.network.task, trained.catalog
    snapshot = load_snapshot(task.store, f"{task.folder}/{snapshot_name(3)}", task.spec)
    forward = Forward(snapshot, task.spec, task.forward)
    images = catalog.pixels(8, 1e6).read(np.arange(catalog.num_rows))
    expected: tuple[Array, ...] = sample_losses(forward.logits(forward.normalized(images)).numpy(), catalog.label)
    blocks = range(-(-catalog.num_rows // task.block_rows))
    found = [read_trajectory(task.store, task.folder, 3, block) for block in blocks]
    for column, wanted in zip(zip(*found, strict=True), expected, strict=True):
        np.testing.assert_allclose(np.concatenate(column), wanted, rtol=1e-5, atol=1e-6)


def test_it_learns(base: TrainTask) -> None:
    settings = TrainSection(epochs=12, batch_size=8, loss="ce", augment="none", lr=0.1)
    task = replace(base, folder="learns", train=settings)
    train(task, ALONE, Resume(), lambda *_: None)

    def mean_loss(epoch: int) -> float:
        return float(np.concatenate([read_trajectory(task.store, task.folder, epoch, b)[0] for b in range(4)]).mean())

    assert mean_loss(12) < 0.7 * mean_loss(1)


def test_training_starts_from_the_weights_that_are_named(base: TrainTask, tiny_snapshot: Path) -> None:
    settings = base.train.model_copy(update={"epochs": 1, "lr": 1e-30, "weight_decay": 0, "from_": str(tiny_snapshot)})
    task = replace(base, folder="from", train=settings)
    train(task, ALONE, Resume(), lambda *_: None)
    found = load_snapshot(task.store, f"from/{snapshot_name(1)}", task.spec)
    start = task.spec.build(9)
    load_weights_from(str(tiny_snapshot), start)
    for (name, value), (_, wanted) in zip(found.named_parameters(), start.named_parameters(), strict=True):
        torch.testing.assert_close(value, wanted, msg=name)


@settings(deadline=None)
@given(st.floats(0, 1, exclude_max=True), st.floats(1e-4, 10))
def test_the_rate_falls_along_a_cosine(progress: float, lr: float) -> None:
    settings = TrainSection(lr=lr)
    rate = learning_rate(settings, progress)
    assert rate == pytest.approx(lr * math.cos(math.pi * progress / 2) ** 2, abs=1e-12 * lr)
    assert learning_rate(TrainSection(lr=lr, schedule="constant"), progress) == lr
    assert learning_rate(settings, 0) == lr
    assert learning_rate(settings, min(progress + 0.1, 1)) <= rate


@settings(deadline=None)
@given(
    st.integers(1, 200),
    st.sets(st.integers(1, 250), min_size=1, max_size=5).map(sorted),
    st.integers(1, 60),
    st.floats(1e-4, 10),
    st.floats(0.01, 0.99),
)
def test_the_rate_falls_after_each_milestone(
    epochs: int, milestones: list[int], steps: int, lr: float, decay: float
) -> None:
    settings = TrainSection(epochs=epochs, lr=lr, schedule="step", milestones=milestones, decay=decay)
    for epoch in range(1, epochs + 1):
        wanted = lr
        for milestone in milestones:
            if epoch > milestone:  # the epochs 1..milestone are still at the rate before
                wanted *= decay
        for step in {0, steps // 2, steps - 1}:
            rate = learning_rate(settings, (epoch - 1 + step / steps) / epochs)
            assert rate == pytest.approx(wanted, rel=1e-12), (epoch, step)


def test_the_papers_steps() -> None:
    """Influential Rank on CIFAR-10: .1, divided by 10 at epochs 40 and 80 of 120."""
    settings = TrainSection(epochs=120, lr=0.1, schedule="step", milestones=[40, 80])
    rates = [learning_rate(settings, epoch / 120) for epoch in range(120)]
    assert rates == pytest.approx([0.1] * 40 + [0.01] * 40 + [0.001] * 40, rel=1e-12)


def test_only_the_schedule_with_steps_reads_their_settings(scored: Run) -> None:
    known = scored.network.task

    def folder(**changes: Any) -> str:
        train = TrainSection.model_validate(scored.config.train.model_dump(by_alias=True) | {"epochs": 4} | changes)
        config = scored.config.model_copy(update={"train": train})
        return train_task(config, known.store, known.catalog, ("float32",) * 2, Workers(1, 1, 0, "cpu")).folder

    steps = {"schedule": "step", "milestones": [2, 3]}
    assert folder() == folder(decay=0.5)
    folders = [folder(), folder(**steps), folder(**steps, decay=0.5), folder(schedule="step", milestones=[2])]
    assert len(set(folders)) == len(folders)


def test_runs_of_other_schedules_keep_the_folders_that_they_had(scored: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read of `train` where the rate has no steps; another name among these would train every run anew."""
    seen: list[dict[str, Any]] = []

    def note(stage: str, version: int, fields: dict[str, Any], inputs: list[str]) -> str:
        seen.append(fields)
        return ""

    monkeypatch.setattr("rayclean.train.stage.fingerprint", note)
    known = scored.network.task
    train_task(scored.config, known.store, known.catalog, ("float32", "float32"), Workers(1, 1, 0, "cpu"))
    assert set(seen[0]["train"]) == {
        *("loss", "mixup_alpha", "epochs", "snapshot_every", "optimizer", "lr", "momentum", "weight_decay"),
        *("schedule", "batch_size", "augment", "trajectories"),
    }

"""Heads that are trained in windows, by ranks, from a state: the same bytes, blind to a fold, a plain formula."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torch.distributed as dist

from rayclean.errors import ConfigError, InputError
from rayclean.schema import Array
from rayclean.train.head_layers import Tensors
from rayclean.train.head_loop import MOMENTUM, HeadTask, head_epochs, train_heads
from rayclean.train.head_losses import partners
from rayclean.train.heads import RATE, Heads, HeadSettings, rate_rows, stable_rate, standardized
from rayclean.train.loop import Rank, State
from rayclean.train.plan import epoch_seed
from rayclean.train.windows import epoch_windows, window_rows_of

pytestmark = pytest.mark.usefixtures("one_thread")

N, D, K, F = 100, 6, 10, 3
ALONE = Rank(0, 1)
Head = Literal["linear", "hidden"]
HEADS: tuple[Head, ...] = ("linear", "hidden")
# Of few epochs: so many steps that none are added.
SETTINGS = HeadSettings(weight_decays=(0.01, 0.3, 1.0), folds=F, epochs=3, batch_size=1)
CASES = [replace(SETTINGS, loss="mixup"), replace(SETTINGS, loss="ce"), replace(SETTINGS, loss="ce+ne")]


def layer_of(heads: Heads, head: int) -> tuple[Array, Array]:
    """Weight and bias of a head's last layer."""
    arrays = heads.head(head).arrays()
    return arrays["head.weight"], arrays["head.bias"]


def features_of(num_rows: int = N) -> torch.Tensor:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(num_rows, D)) + np.arange(num_rows)[:, None] % K
    return torch.from_numpy(standardized(values.astype(np.float32)))


def rows(at: Array) -> torch.Tensor:
    return features_of()[torch.from_numpy(at)]


def made(settings: HeadSettings = SETTINGS, windows: bool = True) -> HeadTask:
    """A task in several windows, or in one."""
    rng = np.random.default_rng(1)
    labels, folds = rng.integers(0, K, N), rng.integers(0, F, N)
    task = HeadTask(labels, folds, K, settings, 7, stable_rate(features_of(), 7))
    return replace(task, block_rows=9, window_rows=40) if windows else task


def changed(task: HeadTask, fold: int) -> HeadTask:
    """With other labels in a fold."""
    return replace(task, targets=np.where(task.folds == fold, (task.targets + 1) % K, task.targets))


def copied(state: State) -> State:
    return {
        "epoch": state["epoch"],
        **{part: {name: v.clone() for name, v in state[part].items()} for part in ("heads", "velocities")},
    }


def states_of(task: HeadTask, rank: Rank = ALONE, state: State | None = None) -> list[State]:
    """The states after each epoch, as they were then."""
    found = []
    for epoch, heads, after in head_epochs(rows, task, rank, state):
        assert epoch == after["epoch"]
        assert heads.tensors is after["heads"]
        found.append(copied(after))
    return found


def same(one: State, other: State) -> bool:
    return one["epoch"] == other["epoch"] and all(
        one[part][name].numpy().tobytes() == other[part][name].numpy().tobytes()
        for part in ("heads", "velocities")
        for name in one[part]
    )


def head_bytes(tensors: Tensors, heads: list[int]) -> list[bytes]:
    return [tensor[head].numpy().tobytes() for head in heads for tensor in tensors.values()]


def check_blind(one: Tensors, other: Tensors, fold: int, settings: HeadSettings = SETTINGS) -> None:
    """Heads that are blind to a fold are the same; all others are not."""
    heads = Heads(one, np.empty(0), settings)
    blind = [heads.blind_to(fold, decay) for decay in range(len(settings.weight_decays))]
    assert head_bytes(one, blind) == head_bytes(other, blind)
    for head in set(range(settings.num_heads)) - set(blind):
        assert head_bytes(one, [head]) != head_bytes(other, [head])


def ranks_of(rank: Rank, folder: Path) -> None:
    """What each of some ranks finds: all states of each case, states after a resume, and with another fold's labels."""
    meeting = f"file://{folder}/meeting-{rank.count}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank.index, world_size=rank.count)
    cases = [states_of(made(settings), rank) for settings in CASES]
    resumed = states_of(made(), rank, cases[0][0])
    others = [states_of(changed(made(settings), 1), rank)[-1] for settings in CASES]
    halfway = states_of(changed(made(), 1), rank, cases[0][0])[-1]
    found = {"cases": cases, "resumed": resumed, "others": others, "halfway": halfway}
    torch.save(found, folder / f"{rank.count}-{rank.index}.pt")
    dist.destroy_process_group()


def one_of_several(index: int, folder: str) -> None:
    torch.set_num_threads(1 + index)
    for count in (3, 2):
        if index < count:
            ranks_of(Rank(index, count), Path(folder))


def test_one_two_and_three_ranks_have_the_same_bytes_and_are_blind(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    others = [spawn.Process(target=one_of_several, args=(index, str(tmp_path)), daemon=True) for index in (1, 2)]
    for other in others:
        other.start()
    one_of_several(0, str(tmp_path))
    for other in others:
        other.join()
        assert other.exitcode == 0
    alone = [states_of(made(settings)) for settings in CASES]
    for count in (2, 3):
        for index in range(count):
            found = torch.load(tmp_path / f"{count}-{index}.pt", weights_only=True)
            for states, expected in zip(found["cases"], alone, strict=True):
                assert all(same(*pair) for pair in zip(states, expected, strict=True))
            assert all(same(*pair) for pair in zip(found["resumed"], alone[0][1:], strict=True))
            for other, states in zip(found["others"], alone, strict=True):
                check_blind(other["heads"], states[-1]["heads"], 1)
            check_blind(found["halfway"]["heads"], alone[0][-1]["heads"], 1)


@pytest.mark.parametrize("windows", [True, False])
@pytest.mark.parametrize("settings", [*CASES, replace(SETTINGS, head="hidden")], ids=lambda s: f"{s.head}-{s.loss}")
def test_training_goes_on_from_every_epoch_to_the_same_bytes(settings: HeadSettings, windows: bool) -> None:
    task = replace(made(settings, windows), weights=np.random.default_rng(3).integers(0, 3, N) / 2)
    whole = states_of(task)
    assert len(whole) == task.epochs
    for at in range(len(whole)):
        rest = states_of(task, state=copied(whole[at]))
        assert all(same(*pair) for pair in zip(rest, whole[at + 1 :], strict=True))


@pytest.mark.parametrize("head", HEADS)
def test_any_number_of_threads_has_the_same_bytes(head: Head) -> None:
    # Batches of 250 rows: where torch's threads share out a softmax over these, its bits change.
    rng = np.random.default_rng(0)
    features = torch.from_numpy(standardized(rng.normal(size=(500, 64)).astype(np.float32)))
    labels, folds = rng.integers(0, K, 500), rng.integers(0, F, 500)
    settings, found = replace(SETTINGS, head=head, batch_size=250), []
    for threads in (1, 2, 3, 8):
        torch.set_num_threads(threads)
        *_, heads = itertools.islice(train_heads(features, labels, folds, K, settings, 0), 3)
        assert torch.get_num_threads() == threads
        found.append(head_bytes(heads.tensors, [*range(settings.num_heads)]))
    torch.set_num_threads(1)
    assert all(each == found[0] for each in found)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("fold", range(F))
def test_heads_of_either_kind_have_seen_no_label_of_their_fold(fold: int, head: Head) -> None:
    settings = replace(SETTINGS, head=head, batch_size=25, epochs=1, weight_decays=(0.01, 0.3))
    one, other = (states_of(task)[-1] for task in (made(settings), changed(made(settings), fold)))
    check_blind(one["heads"], other["heads"], fold, settings)


def plain_head(task: HeadTask, decay: float, left_out: int | None, epochs: int) -> Array:
    """(K, d + 1) one head after some epochs, one row after the other."""
    features, settings = features_of().numpy().astype(np.float64), task.settings
    weights = np.ones(N) if task.weights is None else task.weights
    targets = np.eye(K)[task.targets] if task.targets.ndim == 1 else task.targets
    layer, speed = np.zeros((2, K, D + 1))
    for epoch in range(1, epochs + 1):
        windows = [
            window_rows_of(blocks, N, task.block_rows)
            for blocks in epoch_windows(task.seed, epoch, N, task.block_rows, task.window_rows)
        ]
        kept = [window[weights[window] > 0] for window in windows]
        counts = [-(-len(window) // settings.batch_size) for window in kept]
        step = 0
        for number, (window, count) in enumerate(zip(kept, counts, strict=True)):
            rng = np.random.default_rng(epoch_seed(task.seed, epoch - 1, number, "heads"))
            for batch in np.array_split(rng.permutation(window), count):
                share, other = 1.0, batch
                if settings.loss == "mixup":
                    share = rng.beta(settings.alpha, settings.alpha)
                    other = batch[partners(task.folds[batch], rng)]
                gradient, seen = np.zeros_like(layer), task.folds[batch] != left_out
                for a, b in zip(batch[seen], other[seen], strict=True):
                    mixed = np.append(share * features[a] + (1 - share) * features[b], 1)
                    beliefs = np.exp(layer @ mixed) / np.exp(layer @ mixed).sum()
                    error = share * weights[a] * (beliefs - targets[a])
                    error = error + (1 - share) * weights[b] * (beliefs - targets[b])
                    gradient += np.outer(error, mixed) / seen.sum()
                gradient[:, :-1] += decay * layer[:, :-1]
                speed = MOMENTUM * speed + gradient
                done = (epoch - 1 + step / sum(counts)) / task.epochs
                at = task.rate * 0.5 * (1 + np.cos(np.pi * done))
                layer = layer - at * (gradient + MOMENTUM * speed)
                step += 1
    return layer


@pytest.mark.parametrize("loss", ["mixup", "ce"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("windows", [False, True])
def test_heads_equal_a_plain_loop(windows: bool, soft: bool, loss: str) -> None:
    rng = np.random.default_rng(4)
    task = made(replace(SETTINGS, weight_decays=(0.01, 1.0), batch_size=16, loss=loss), windows)
    if soft:
        targets = rng.dirichlet(np.ones(K), N).astype(np.float32)
        task = replace(task, targets=targets, weights=rng.integers(0, 3, N) / 2)
    *_, (_, heads, _) = itertools.islice(head_epochs(rows, task, ALONE), 3)
    for decay, strength in enumerate(task.settings.weight_decays):
        for fold in (*range(F), None):
            head = heads.seeing(decay) if fold is None else heads.blind_to(fold, decay)
            found = np.column_stack(layer_of(heads, head))
            np.testing.assert_allclose(found, plain_head(task, strength, fold, 3), rtol=1e-3, atol=1e-4)


def test_rows_of_weight_0_leave_no_trace() -> None:
    weights = np.random.default_rng(2).integers(0, 2, N).astype(np.float64)
    task = replace(made(), weights=weights)
    expected = states_of(task)[-1]
    gone = replace(task, targets=np.where(weights > 0, task.targets, (task.targets + 3) % K))

    def others(at: Array) -> torch.Tensor:
        return torch.where(torch.from_numpy(weights[at] > 0)[:, None], rows(at), torch.nan)

    *_, (_, _, state) = head_epochs(others, gone, ALONE)
    assert same(state, expected)


def test_no_row_to_learn_from_is_said() -> None:
    with pytest.raises(InputError, match="none of 100 rows has a weight above 0"):
        states_of(replace(made(), weights=np.zeros(N)))


@pytest.mark.parametrize(("field", "said"), [("loss", "mixup, ce, ce"), ("head", "linear, hidden")])
def test_an_unknown_name_is_said(field: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"{field} of the heads: unknown name 'other'; valid: {said}"):
        HeadSettings(**{field: "other"})  # type: ignore[arg-type]


def test_hidden_heads_learn_any_labels_by_heart_where_linear_ones_cannot() -> None:
    rng = np.random.default_rng(5)
    features = torch.from_numpy(standardized(rng.normal(size=(300, 20)).astype(np.float32)))
    labels, folds = rng.integers(0, K, 300), rng.integers(0, 2, 300)
    right = {}
    for head in HEADS:
        settings = HeadSettings((1e-4,), 2, 120, 64, loss="ce", head=head)
        *_, heads = train_heads(features, labels, folds, K, settings, 0)
        right[head] = (heads.seeing_logits(features, 0).argmax(axis=1) == labels).mean()
        assert heads.blind_logits(features, 0).shape == (300, K)
        np.testing.assert_array_equal(
            heads.blind_logits(features[:50], 0, folds[:50]).argmax(axis=1),
            heads.blind_logits(features, 0)[:50].argmax(axis=1),
        )
    assert right["hidden"] == 1
    assert right["linear"] < 0.6


def test_at_most_one_window_and_a_block_are_held() -> None:
    task, held = made(), []

    def spied(at: Array) -> torch.Tensor:
        found = rows(at)
        tensors = [each for each in gc.get_objects() if type(each) is torch.Tensor and each.shape[1:] == (D,)]
        held.append(sum(map(len, tensors)))
        return found

    next(head_epochs(spied, task, ALONE))
    assert task.window_rows <= max(held) <= task.window_rows + 2 * task.block_rows


@pytest.mark.parametrize("num_rows", [1, 20_000, 20_001, 10**6])
def test_the_rate_asks_for_all_of_few_rows_and_for_some_of_many(num_rows: int) -> None:
    found = rate_rows(num_rows, 3)
    assert len(found) == min(num_rows, 20_000)
    assert len(np.unique(found)) == len(found)
    assert 0 <= found[0] <= found[-1] < num_rows
    assert (np.diff(found) > 0).all()


def test_the_rate_is_lower_where_features_hang_together() -> None:
    rng = np.random.default_rng(0)
    apart = standardized(rng.normal(size=(500, 400)).astype(np.float32))
    together = standardized((rng.normal(size=(500, 1)) + 0.1 * rng.normal(size=(500, 400))).astype(np.float32))
    assert stable_rate(torch.from_numpy(apart), 0) == RATE
    largest = np.linalg.eigvalsh(together.T.astype(np.float64) @ together / 500)[-1]
    assert stable_rate(torch.from_numpy(together), 0) == pytest.approx(2 / largest, rel=1e-3)
    assert stable_rate(torch.zeros(4, 3), 0) == RATE

"""DivideMix: resumed it gives the same bits, on two ranks the same networks; it learns past wrong labels."""

from __future__ import annotations

import io
import math
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from rayclean.config import DivideMixSection
from rayclean.errors import ConfigError, UnitError
from rayclean.learn.dividemix import dividemix_epochs
from rayclean.learn.dividemix_settings import DivideMixSettings
from rayclean.learn.rescoring import rescore
from rayclean.schema import Array
from rayclean.train.forward import Forward
from rayclean.train.loop import Rank, State
from rayclean.train.models import Network
from tests.learn.test_rescoring import ALONE, SPEC, MemorySource, settings_of


def small(**changes: Any) -> DivideMixSettings:
    """Settings for a few rows."""
    fields = {"epochs": 4, "warmup": 1, "batch_size": 6, "lr": 0.05, "ramp": 2, "num": 2, "steps": 2}
    return settings_of(**{**fields, "score_batch_size": 16, **changes})


SHORT = small(epochs=2)

pytestmark = pytest.mark.usefixtures("one_thread")


def networks_of() -> tuple[Network, Network]:
    return SPEC.build(0), SPEC.build(1)


def weights(networks: tuple[Network, Network]) -> list[torch.Tensor]:
    return [value.clone() for network in networks for value in network.state_dict().values()]


def saved(state: State) -> State:
    """The state as it comes back from a file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    read: State = torch.load(buffer, weights_only=True)
    return read


Epochs = list[tuple[list[torch.Tensor], State, dict[str, Any]]]


def epochs_of(settings: DivideMixSettings, source: MemorySource, state: State | None = None, **more: Any) -> Epochs:
    """Trains to the end; weights, state as it would be read from a file, and facts after each epoch."""
    found: Epochs = []
    networks = networks_of()
    for epoch, bare, facts, after in dividemix_epochs(settings, SPEC, networks, source, source.rank, state, **more):
        assert bare == networks
        assert epoch == (state["epoch"] if state else 0) + len(found) + 1
        found.append((weights(bare), saved(after), facts))
    assert found, "nothing was left to train"
    return found


def run(settings: DivideMixSettings, source: MemorySource, **more: Any) -> list[torch.Tensor]:
    """Weights after the last epoch."""
    return epochs_of(settings, source, **more)[-1][0]


def equal(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def some_scores(num_rows: int = 40) -> tuple[Array, Array]:
    rng = np.random.default_rng(3)
    return rng.random(num_rows), rng.random(num_rows)


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "loss": ({"history": 2, "penalty": "entropy"}, {}),
    "iofm every other epoch": ({"score": "iofm", "rescore_every": 2, "schedule": "cosine"}, {}),
    "inn from scores": (
        {"score": "inn", "start": "scores", "warmup": 2, "rescore_every": 2},
        {"starts": some_scores()},
    ),
    "joint": ({"score": "joint", "augment": "none"}, {"given_scores": some_scores()[0]}),
    "adamw on crops": ({"optimizer": "adamw", "lr": 1e-3, "augment": "random_resized_crop"}, {}),
    "drawn rows": ({"sample_rows": 18, "lambda_u": 0, "use_unlabelled": False, "rescore_every": 2}, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_resumed_training_is_the_unbroken_one(name: str) -> None:
    changes, more = CASES[name]
    settings, source = small(**changes), MemorySource.random(40)
    unbroken = epochs_of(settings, source, **more)
    whole, last, _ = unbroken[-1]
    for stop in (2, 3):
        there, state, _ = unbroken[stop - 1]
        assert not equal(there, whole)
        torch.manual_seed(99)  # a new process draws from elsewhere
        resumed = epochs_of(settings, source, state, **more)
        found, again, _ = resumed[-1]
        assert equal(found, whole)
        assert [facts for *_, facts in resumed] == [facts for *_, facts in unbroken[stop:]]
        assert again["epoch"] == last["epoch"] == 4


def test_facts_say_what_was_done() -> None:
    settings = small(lambda_u=10.0, epochs=3)
    first, second, third = (facts for *_, facts in epochs_of(settings, MemorySource.random(40)))
    assert set(first) == {"loss"}
    assert set(second) == {
        *("loss_labelled", "loss_unlabelled", "penalty", "lambda_u"),
        *("labelled_share", "clean_posterior", "clean_mean", "noisy_mean", "by_order"),
    }
    assert (second["lambda_u"], third["lambda_u"]) == (5, 10)
    for name, values in second.items():
        assert name == "lambda_u" or len(values) == 2
    assert all(0 < share < 1 for share in second["labelled_share"])
    assert all(clean > noisy for clean, noisy in zip(second["clean_mean"], second["noisy_mean"], strict=True))


def test_a_finished_training_is_left_alone() -> None:
    source = MemorySource.random(40)
    _, state, _ = epochs_of(SHORT, source)[-1]
    assert list(dividemix_epochs(SHORT, SPEC, networks_of(), source, ALONE, state)) == []


@pytest.fixture(scope="module")
def short(one_thread: None) -> list[torch.Tensor]:
    """Weights after a warm-up and one epoch of two parts."""
    return run(SHORT, MemorySource.random(40))


@pytest.mark.parametrize("changes", [{"seed": 1}, {"alpha": 1.0}, {"temperature": 1.0}, {"lambda_u": 0.0}])
def test_settings_and_seeds_matter(changes: dict[str, Any], short: list[torch.Tensor]) -> None:
    assert not equal(short, run(small(**{"epochs": 2, **changes}), MemorySource.random(40)))


def test_each_network_learns_from_the_split_of_the_other() -> None:
    """Epoch 1 of given scores: the first network's weights hang on the second one's scores, and on those alone."""
    settings = small(score="inn", start="scores", epochs=1)
    source, (one, two) = MemorySource.random(40), some_scores()

    def first_network(starts: tuple[Array, Array]) -> list[torch.Tensor]:
        found = run(settings, source, starts=starts)
        return found[: len(found) // 2]

    base = first_network((one, two))
    assert equal(base, first_network((one[::-1], two)))
    assert not equal(base, first_network((one, two[::-1])))


def test_a_network_that_is_sure_of_all_labels_trains_without_an_unlabelled_part() -> None:
    settings, source = small(score="joint", start="scores", warmup=0, epochs=1), MemorySource.random(40)
    ((_, _, facts),) = epochs_of(settings, source, given_scores=np.ones(40))
    assert facts["labelled_share"] == [1, 1]
    assert facts["loss_unlabelled"] == [0, 0]
    ((_, _, facts),) = epochs_of(settings, source, given_scores=np.linspace(0, 0.4, 40))
    assert facts["labelled_share"] == [6 / 40] * 2
    assert facts["by_order"] == [1, 1]


def test_drawn_rows_are_even_over_the_labels_and_fresh() -> None:
    seen: list[Array] = []

    class Watched(MemorySource):
        def batches(self, rows: Array, *rest: Any) -> Any:
            seen.append(rows)
            return super().batches(rows, *rest)

    source = Watched(**vars(MemorySource.random(90)))
    source.labels[:] = np.repeat([0, 1, 2], [60, 25, 5])
    run(small(epochs=3, sample_rows=30, lambda_u=0.0, use_unlabelled=False), source)
    counts = [np.bincount(source.labels[rows], minlength=3).tolist() for rows in seen[:2]]
    assert counts == [[20, 20, 5]] * 2  # twice as many in the warm-up, as far as there are
    labelled_and_rest = [np.sort(np.concatenate(seen[i : i + 2])) for i in (2, 4, 6, 8)]
    assert [np.bincount(source.labels[rows]).tolist() for rows in labelled_and_rest] == [[10, 10, 5]] * 4
    assert len({rows.tobytes() for rows in labelled_and_rest}) == 4


class Counting(torch.nn.Module):
    """A body that notes mode, gradient and size of each of its forwards."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.seen = torch.nn.Linear(3, 4), list[tuple[bool, bool, int]]()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append((self.training, torch.is_grad_enabled(), len(images)))
        features: torch.Tensor = self.linear(images.mean(dim=(2, 3)))
        return features


def test_a_step_has_no_more_forwards_than_the_method() -> None:
    networks = tuple(Network(Counting(), torch.nn.Linear(4, 3)) for _ in range(2))
    settings = small(score="joint", start="scores", warmup=0, epochs=1, batch_size=10)
    source = MemorySource.random(40)
    scores = np.repeat([0.9, 0.2], [10, 30])  # one step
    list(dividemix_epochs(settings, SPEC, networks, source, ALONE, given_scores=scores))  # type: ignore[arg-type]
    trained_then_other: list[tuple[bool, bool, int]] = [(True, False, 10)] * 4 + [(True, True, 40), (False, False, 20)]
    first, second = (network.body.seen for network in networks)
    assert first == trained_then_other
    assert second == trained_then_other[-1:] + trained_then_other[:-1]


def two_colors(num_rows: int, flipped: float, rank: Rank = ALONE) -> tuple[MemorySource, Array]:
    """Reddish and bluish 16 px images, a share of their labels flipped; and the true labels."""
    rng = np.random.default_rng(0)
    truth = np.arange(num_rows) % 2
    pixels = rng.integers(0, 140, (num_rows, 16, 16, 3))
    pixels[np.arange(num_rows), :, :, 2 * truth] += 60
    labels = np.where(rng.random(num_rows) < flipped, 1 - truth, truth).astype(np.int32)
    digests = np.stack([np.arange(num_rows, dtype=np.uint64)] * 2, axis=1)
    return MemorySource(pixels.astype(np.uint8), labels, digests, digests[:, 0].copy(), rank), truth


COLORS = replace(SPEC, num_classes=2, size=16)


def color_networks() -> tuple[Network, Network]:
    """One convolution with BatchNorm: it learns colours in seconds and hardly learns single images."""
    networks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)]
        networks.append(Network(torch.nn.Sequential(*layers, torch.nn.Flatten()), torch.nn.Linear(8, 2)))
    return networks[0], networks[1]


@pytest.mark.parametrize("score", ["loss", "iofm", "inn"])
def test_it_learns_past_wrong_labels(score: Any) -> None:
    source, truth = two_colors(240, 0.4)
    rows, is_right = np.arange(240), source.labels == truth
    settings = small(epochs=5, warmup=2, batch_size=16, score=score, lambda_u=5.0, augment="none")
    _, networks, _, after = list(dividemix_epochs(settings, COLORS, color_networks(), source, ALONE))[-1]
    for learner, network in zip(after["learners"], networks, strict=True):
        labelled = learner["split"]["is_labelled"].numpy()
        assert is_right[labelled].mean() > 0.9 > is_right.mean()
        scores = rescore(settings, COLORS, network, source, rows, ALONE) * (-1 if score == "loss" else 1)
        assert scores[is_right].mean() > scores[~is_right].mean()
    forwards = [Forward(network, COLORS, settings.forward) for network in networks]
    summed = sum(forward.logits(forward.normalized(source.pixels)) for forward in forwards)
    assert isinstance(summed, torch.Tensor)
    assert (summed.argmax(dim=1).numpy() == truth).mean() > 0.95


def test_training_that_diverges_stops() -> None:
    with pytest.raises(UnitError, match="lower learn"):
        run(small(lr=1e30), MemorySource.random(40))


def test_scores_that_are_wanted_and_missing_are_named() -> None:
    source = MemorySource.random(40)
    with pytest.raises(ConfigError, match="no label_score is given"):
        run(small(score="joint"), source)
    with pytest.raises(ConfigError, match="no inn of two networks"):
        run(small(score="inn", start="scores"), source)
    with pytest.raises(ConfigError, match=r"found \(39,\).*each of 40 rows"):
        run(small(score="joint"), source, given_scores=np.ones(39))
    with pytest.raises(ConfigError, match="1 that are not finite"):
        run(small(score="joint"), source, given_scores=np.r_[np.ones(39), math.nan])


def test_a_rate_for_another_optimizer_is_refused() -> None:
    said = r"learn\.dividemix\.lr: at most 0\.01 expected with optimizer adamw.*found 0\.02"
    with pytest.raises(ConfigError, match=said):
        settings_of(optimizer="adamw")


def test_inn_scores_anew_every_ninth_epoch() -> None:
    inn = DivideMixSection(score="inn", start="scores", warmup=30, rescore_every=9, epochs=300)
    assert [epoch for epoch in range(1, 301) if inn.splits(epoch)] == [1, *range(31, 301, 9)]
    assert inn.mixture_kind == "beta"
    assert inn.epochs_since(9, 0.0) == 8
    plain = DivideMixSection()
    assert [plain.is_warm_up(epoch) for epoch in (10, 11)] == [True, False]
    assert plain.epochs_since(11, 0.5) == 0.5


SCORES = (small(), small(score="iofm"), small(score="inn"))


def one_of_two(index: int, folder: str) -> None:
    """A rank: its scores of each kind, weights after training, and the same after a resume."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=index, world_size=2)
    rank = Rank(index, 2)
    source = MemorySource.random(41, rank=rank)
    rows, network = np.arange(41), SPEC.build(5)
    scores = [rescore(settings, SPEC, network, source, rows, rank) for settings in SCORES]
    settings = small(epochs=3)
    _, (_, state, _), (whole, _, _) = epochs_of(settings, source)
    resumed = run(settings, source, state=state)
    splits = [learner["split"]["clean"] for learner in state["learners"]]
    torch.save({"scores": scores, "whole": whole, "resumed": resumed, "splits": splits}, f"{folder}/{index}.pt")
    dist.destroy_process_group()


def test_two_ranks_are_one_training(tmp_path: Path) -> None:
    other = multiprocessing.get_context("spawn").Process(target=one_of_two, args=(1, str(tmp_path)), daemon=True)
    other.start()
    one_of_two(0, str(tmp_path))  # here: another process would import all of torch first, too
    other.join()
    assert other.exitcode == 0
    one, two = (torch.load(tmp_path / f"{index}.pt", weights_only=False) for index in range(2))
    source, rows = MemorySource.random(41), np.arange(41)
    for settings, *found in zip(SCORES, one["scores"], two["scores"], strict=True):
        alone = rescore(settings, SPEC, SPEC.build(5), source, rows, ALONE)
        np.testing.assert_array_equal(found[0], found[1])
        np.testing.assert_allclose(found[0], alone, rtol=1e-5)
    for each in (one, two):
        assert equal(each["whole"], each["resumed"])
    for name in ("whole", "splits"):
        assert equal(one[name], two[name])

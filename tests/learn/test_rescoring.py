"""Scores inside training: the plain formulas on all rows, any rows and any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import rayclean.learn.rescoring as rescoring
from rayclean.config import DivideMixSection, IofmSection, TrainSection
from rayclean.errors import UnitError
from rayclean.learn.dividemix_settings import DivideMixSettings, divided_train
from rayclean.learn.rescoring import rescore, share_of
from rayclean.neighbors import brute
from rayclean.neighbors.brute import list_neighbors, propose_among
from rayclean.neighbors.select import Points
from rayclean.schema import NO_ROW, Array
from rayclean.train.batches import cached_rows
from rayclean.train.forward import Forward, ForwardSettings
from rayclean.train.loop import Rank
from rayclean.train.models import Network
from rayclean.train.plan import epoch_seed, steps_of
from rayclean.train.spec import NetworkSpec

ALONE = Rank(0, 1)
SPEC = NetworkSpec("small_resnet", 3, 4, None, 8, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))

pytestmark = pytest.mark.usefixtures("one_thread")


def settings_of(seed: int = 0, score_batch_size: int = 256, **fields: Any) -> DivideMixSettings:
    """Settings by the names of fields, of walks, of `train`, or else of the section; the others are the authors'."""
    walks = IofmSection(num=fields.pop("num", 10), steps=fields.pop("steps", 3))
    names = ("optimizer", "momentum", "weight_decay", "augment")
    train = TrainSection.model_validate({name: fields.pop(name) for name in names if name in fields})
    section = DivideMixSection.model_validate(fields)
    forward = ForwardSettings("cpu", "float32", score_batch_size)
    return DivideMixSettings(section, walks, divided_train(section, train), seed, "float32", forward, 1)


@dataclass
class MemorySource:
    """What DivideMix reads, all in memory."""

    pixels: Array
    labels: Array
    digests: Array
    draws: Array
    rank: Rank = ALONE

    @classmethod
    def random(cls, num_rows: int, seed: int = 0, rank: Rank = ALONE) -> MemorySource:
        """Random 8 px images of three labels, the last two rows equal."""
        rng = np.random.default_rng(seed)
        pixels = rng.integers(0, 256, (num_rows, 8, 8, 3), dtype=np.uint8)
        labels = rng.integers(0, 3, num_rows).astype(np.int32)
        digests = rng.integers(0, 2**63, (num_rows, 2)).astype(np.uint64)
        pixels[-1], labels[-1], digests[-1] = pixels[-2], labels[-2], digests[-2]
        return cls(pixels, labels, digests, rng.integers(0, 2**63, num_rows).astype(np.uint64), rank)

    def images(self, rows: Array) -> Array:
        return self.pixels[rows]

    def batches(self, rows: Array, epoch: int, name: str, batch_size: int) -> Iterator[tuple[Array, torch.Tensor]]:
        seed = epoch_seed(1, epoch, 0, name)
        for some in cached_rows(rows, seed, epoch, batch_size, self.rank.index, self.rank.count):
            yield some, torch.from_numpy(self.pixels[some])

    def num_batches(self, rows: Array, batch_size: int) -> int:
        return steps_of(-(-len(rows) // self.rank.count), batch_size)


def network_of(seed: int) -> Network:
    """A network with BatchNorm statistics and a head that are not those of the start."""
    network = SPEC.build(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        network.head.weight.normal_(0, 2, generator=generator)
        for name, buffer in network.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2, generator=generator)
    return network


def plain_scores(settings: DivideMixSettings, network: Network, source: MemorySource, rows: Array) -> Array:
    """Each row by itself, each path point by point, from both ends."""
    forward = Forward(network, SPEC, settings.forward)
    images = forward.normalized(source.images(rows))
    features = forward.embed(images)[0].numpy().astype(np.float16).astype(np.float64)
    labels, digests = source.labels[rows], source.digests[rows]
    found = np.zeros(len(rows))
    for row in range(len(rows)):
        if settings.section.score == "loss":
            found[row] = -np.log(forward.probabilities(images[row : row + 1])[0, labels[row]].item())
            continue
        same = labels == labels[row]
        allowed = np.ones(len(rows), bool) if settings.section.score == "inn" else same.copy()
        allowed &= ~((digests == digests[row]).all(axis=1) & same)
        distances = np.where(allowed, ((features - features[row]) ** 2).sum(axis=1), np.inf)
        near, steps = np.argsort(distances)[: settings.walks.num], settings.walks.steps
        beliefs = []
        for other in near[np.isfinite(distances[near])]:
            shares = torch.arange(steps + 1)[:, None, None, None] / steps
            belief = forward.probabilities((1 - shares) * images[row] + shares * images[other])[:, labels[row]]
            beliefs.append(np.trapezoid(belief.numpy(), dx=1 / steps))
        found[row] = np.mean(beliefs) if beliefs else forward.probabilities(images[row : row + 1])[0, labels[row]]
    return found


@pytest.mark.parametrize("score", ["loss", "iofm", "inn"])
@pytest.mark.parametrize("rows", [np.arange(40), np.arange(3, 40, 2)])
def test_scores_are_the_plain_formulas(score: str, rows: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rescoring, "BLOCK_VALUES", 8 * 8 * 3 * 10)  # several blocks
    settings = settings_of(score=score, num=3, steps=4, score_batch_size=8)
    network, source = network_of(0), MemorySource.random(40)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = rescore(settings, SPEC, network.train(), source, rows, ALONE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, plain_scores(settings, network, source, rows), rtol=2e-5, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_row_without_neighbors_keeps_its_own_belief() -> None:
    settings, source, network = settings_of(score="iofm", num=2), MemorySource.random(12), network_of(1)
    source.labels[:] = [0, 1] + [2] * 10
    forward = Forward(network, SPEC, settings.forward)
    own = forward.probabilities(forward.normalized(source.pixels[:2]))
    found = rescore(settings, SPEC, network, source, np.arange(12), ALONE)
    np.testing.assert_allclose(found[:2], [own[0, 0], own[1, 1]], rtol=1e-5)


@pytest.mark.parametrize("score", ["loss", "inn"])
def test_a_network_that_diverged_is_said_to_have(score: str) -> None:
    network = network_of(0)
    with torch.no_grad():
        network.head.bias.fill_(float("nan"))
    settings = settings_of(score=score, lr=7.5)
    with pytest.raises(UnitError, match=r"not finite.*7\.5"):
        rescore(settings, SPEC, network, MemorySource.random(10), np.arange(10), ALONE)


@pytest.mark.parametrize("base_rows", [1, 7, 1000])
@pytest.mark.parametrize("any_label", [True, False])
def test_blocks_of_points_change_no_list(base_rows: int, any_label: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    features, source = rng.normal(size=(50, 5)).astype(np.float16), MemorySource.random(80)
    rows = np.sort(rng.choice(80, 50, replace=False))
    points = Points(rows, source.labels, source.digests, source.draws, lambda positions: features[positions])
    cpu, queries = torch.device("cpu"), np.array([4, 9, 10, 49])
    expected = list_neighbors(points, np.arange(50), 4, any_label, cpu)
    monkeypatch.setattr(brute, "BASE_ROWS", base_rows)
    found = list_neighbors(points, queries, 4, any_label, cpu)
    np.testing.assert_array_equal(found.rows, expected.rows[queries])
    np.testing.assert_array_equal(found.distances, expected.distances[queries])
    assert (found.rows != rows[queries][:, None]).all()
    if not any_label:
        assert (source.labels[found.rows] == source.labels[rows[queries]][:, None])[found.rows >= 0].all()


def test_proposals_end_where_the_points_do() -> None:
    features = np.arange(6, dtype=np.float16)[:, None]
    propose = propose_among(lambda positions: features[positions], np.array([1, 3, 5]), torch.device("cpu"))
    found = propose(np.array([[2.9], [0.0]], np.float32), 5)
    np.testing.assert_array_equal(found, [[3, 1, 5, NO_ROW, NO_ROW], [1, 3, 5, NO_ROW, NO_ROW]])


@pytest.mark.parametrize(("num_rows", "ranks"), [(10, 3), (2, 4), (7, 1)])
def test_shares_are_all_rows_in_order(num_rows: int, ranks: int) -> None:
    shares = [share_of(num_rows, Rank(index, ranks)) for index in range(ranks)]
    np.testing.assert_array_equal(np.concatenate(shares), np.arange(num_rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1

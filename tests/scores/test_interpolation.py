"""IOFM by pairs equals IOFM by its definition, at H-1 forwards a distinct pair."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from rayclean.schema import Array
from rayclean.scores.interpolation import PathMeans, interior_sums, partial_sums, path_means
from rayclean.scores.pairs import Pairs, undirected_pairs
from rayclean.train.models import build_model

Network = Callable[[torch.Tensor], torch.Tensor]

pytestmark = pytest.mark.usefixtures("one_thread")


class Counted:
    """A network with its softmax that counts the images it was given."""

    def __init__(self, network: nn.Module) -> None:
        self.network, self.images, self.batches = network, 0, list[int]()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.images += len(images)
        self.batches.append(len(images))
        with torch.inference_mode():
            return torch.softmax(self.network(images), dim=1)


def random_network(kind: str, num_classes: int, seed: int) -> nn.Module:
    """A small network in float64, far from linear, in evaluation mode."""
    if kind == "small_resnet":
        network: nn.Module = build_model(kind, num_classes, width=1 + seed % 3, seed=seed)
        with torch.no_grad():
            network.head.weight.mul_(20)  # type: ignore[union-attr, operator]
        return network.double().eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = (nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
        network = nn.Sequential(*layers).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(5)
    return network


def by_definition(network: Network, images: torch.Tensor, i: int, neighbors: Array, steps: int) -> Array:
    """Beliefs of row i: (H+1) L forwards, weighed as the trapezoid rule has it."""
    paths = []
    for j in neighbors:
        path = [network(((steps - h) / steps * images[i] + h / steps * images[j])[None])[0] for h in range(steps + 1)]
        paths.append((path[0] / 2 + sum(path[1:-1]) + path[-1] / 2) / steps)
    mean = sum(paths) / len(paths) if paths else network(images[i][None])[0]
    return np.asarray(mean)


def by_pairs(
    network: Network,
    images: torch.Tensor,
    lists: Array,
    labels: Array,
    steps: int,
    batch_size: int,
    block_pairs: int,
    counted: Network,
) -> tuple[PathMeans, int]:
    """As the stages do it: end points known, pairs in blocks, partial sums added up by row."""
    num_rows = len(images)
    ends = network(images).numpy()
    pairs = undirected_pairs(np.arange(num_rows), lists)
    shuffled = np.random.default_rng(0).permutation(len(pairs.left))
    sums, num_paths = np.zeros((num_rows, ends.shape[1])), np.zeros(num_rows, np.int64)
    for start in range(0, len(shuffled), block_pairs):
        block = Pairs(*(column[shuffled[start : start + block_pairs]] for column in pairs))
        interior = interior_sums(counted, images, block.left, block.right, steps, batch_size)
        part = partial_sums(block, interior, ends[block.left], ends[block.right])
        assert (np.diff(part.rows) > 0).all()
        sums[part.rows] += part.sums
        num_paths[part.rows] += part.num_paths
    assert num_paths.tolist() == (lists >= 0).sum(axis=1).tolist()
    return path_means(ends, sums, num_paths, steps, labels), len(pairs.left)


def random_lists(num_rows: int, num: int, rng: np.random.Generator) -> Array:
    """Lists of `num` other rows; some are shorter, as those of rare labels are."""
    lists = np.full((num_rows, num), -1)
    for i in range(num_rows):
        others = rng.permutation(np.delete(np.arange(num_rows), i))[:num]
        others = others[: len(others) if rng.random() < 0.8 else rng.integers(0, len(others) + 1)]
        lists[i, : len(others)] = others
    return lists


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["convolution", "convolution", "small_resnet"]),
    num_classes=st.integers(1, 7),
    num_rows=st.integers(1, 7),
    size=st.integers(3, 9),
    num=st.integers(1, 10),
    steps=st.integers(2, 6),
    batch_size=st.integers(1, 70),
    block_pairs=st.integers(1, 30),
    seed=st.integers(0, 10_000),
)
@example("convolution", 3, 12, 5, 10, 3, 7, 11, 0)
@example("convolution", 3, 12, 5, 10, 6, 64, 100, 1)
@example("small_resnet", 4, 5, 8, 4, 3, 16, 5, 2)
def test_it_equals_the_definition_and_walks_each_pair_once(
    kind: str,
    num_classes: int,
    num_rows: int,
    size: int,
    num: int,
    steps: int,
    batch_size: int,
    block_pairs: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.normal(size=(num_rows, 3, size, size)))
    lists = random_lists(num_rows, num, rng)
    labels = rng.integers(0, num_classes, num_rows)
    network = random_network(kind, num_classes, seed)
    plain, counted = Counted(network), Counted(network)
    means, num_pairs = by_pairs(plain, images, lists, labels, steps, batch_size, block_pairs, counted)
    distinct = {(min(i, j), max(i, j)) for i in range(num_rows) for j in lists[i].tolist() if j >= 0}
    assert num_pairs == len(distinct)
    assert counted.images == (steps - 1) * len(distinct)
    assert max(counted.batches, default=0) <= batch_size
    for i in range(num_rows):
        expected = by_definition(plain, images, i, lists[i][lists[i] >= 0], steps)
        np.testing.assert_allclose(means.belief[i], expected, rtol=0, atol=1e-6)
        assert means.score[i] == means.belief[i, labels[i]]
        np.testing.assert_allclose(means.one_minus[i], 1 - expected[labels[i]], rtol=0, atol=1e-6)
    np.testing.assert_allclose(means.belief.sum(axis=1), 1, rtol=0, atol=1e-9)
    assert (means.belief >= 0).all()


def test_the_plain_formula_is_not_met_by_accident() -> None:
    """The two ways differ as soon as a weight is wrong: with the ends' halves left out, by far more than 1e-6."""
    network = Counted(random_network("convolution", 3, 0))
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 5, 5)))
    ends = network(images).numpy()
    right = by_definition(network, images, 0, np.array([1]), 3)
    interior = interior_sums(network, images, np.array([0]), np.array([1]), 3, 8)
    assert np.abs(right - interior[0] / 3).max() > 1e-3
    assert np.abs(right - (ends[0] + interior[0] + ends[1]) / 3).max() > 1e-3


def test_a_row_without_paths_keeps_its_own_belief() -> None:
    own = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    means = path_means(own, np.zeros((2, 3)), np.zeros(2, np.int64), 3, np.array([1, 0]))
    assert means.belief.tolist() == own.tolist()
    assert means.score.tolist() == [0.5, 0.1]
    assert means.one_minus.tolist() == [0.5, 0.9]


def test_one_minus_keeps_what_float64_loses() -> None:
    tiny = 1e-20
    own = np.array([[1.0, tiny]])
    means = path_means(own, np.array([[2.5, 2.5 * tiny]]), np.array([1]), 3, np.array([0]))
    assert means.score[0] == 1.0
    assert means.one_minus[0] == pytest.approx(tiny, rel=1e-12)


@pytest.mark.parametrize("steps", [2, 3, 5])
def test_a_linear_belief_gives_the_middle_of_its_ends(steps: int) -> None:
    """On a path where the belief is linear the trapezoid rule is exact (methods.md, section 2)."""

    def linear(images: torch.Tensor) -> torch.Tensor:
        first = images[:, 0, 0, 0]
        return torch.stack([first, 1 - first], dim=1)

    images = torch.tensor([0.1, 0.9], dtype=torch.float64)[:, None, None, None].expand(2, 3, 2, 2)
    ends = linear(images).numpy()
    pairs = undirected_pairs(np.arange(2), np.array([[1], [0]]))
    interior = interior_sums(linear, images, pairs.left, pairs.right, steps, 4)
    part = partial_sums(pairs, interior, ends[pairs.left], ends[pairs.right])
    means = path_means(ends, part.sums, part.num_paths, steps, np.array([0, 1]))
    np.testing.assert_allclose(means.belief, 0.5, atol=1e-12)

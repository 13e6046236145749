"""IOFM and INN of DivideMix on features: as if each point of a path went through the network; lists are found once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import rayclean.learn.rescoring as rescoring
from rayclean.learn.rescoring import NearLists, rescore
from rayclean.neighbors.brute import list_neighbors
from rayclean.train.models import Network
from rayclean.train.spec import FeatureSpec, feature_spec
from tests.learn.test_rescoring import ALONE, MemorySource, settings_of

pytestmark = pytest.mark.usefixtures("one_thread")

D, K, N = 12, 3, 40


class Walked(FeatureSpec):
    """The same network, taken for one whose points must go through it."""

    @property
    def is_linear(self) -> bool:
        return False


def source_of() -> MemorySource:
    source = MemorySource.random(N)
    source.pixels = np.random.default_rng(0).normal(size=(N, 1, 1, D)).astype(np.float32)
    return source


def network_of(seed: int) -> Network:
    network = feature_spec(D, K).build()
    with torch.no_grad():
        network.head.weight.normal_(0, 1, generator=torch.Generator().manual_seed(seed))
    return network


@pytest.mark.parametrize("score", ["loss", "iofm", "inn"])
def test_a_path_needs_its_ends_alone(score: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rescoring, "BLOCK_VALUES", 5 * D)  # several blocks
    settings, source, rows = (
        settings_of(score=score, num=3, steps=4, score_batch_size=8),
        source_of(),
        np.arange(0, N, 2),
    )
    spec = feature_spec(D, K)
    walked = Walked(**vars(spec))
    found, expected = (rescore(settings, each, network_of(1), source, rows, ALONE) for each in (spec, walked))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_lists_are_found_once_for_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    find = list_neighbors

    def counted(*arguments: Any) -> Any:
        calls.append(1)
        return find(*arguments)

    monkeypatch.setattr(rescoring, "list_neighbors", counted)
    settings, source, spec = settings_of(score="inn", num=3, score_batch_size=8), source_of(), feature_spec(D, K)
    for is_kept, expected in ((True, 2), (False, 4)):
        calls.clear()
        near = NearLists(is_kept)
        for seed, rows in ((1, np.arange(N)), (2, np.arange(N)), (1, np.arange(5, N)), (2, np.arange(5, N))):
            found = rescore(settings, spec, network_of(seed), source, rows, ALONE, near)
            np.testing.assert_array_equal(found, rescore(settings, spec, network_of(seed), source, rows, ALONE))
        assert len(calls) == expected + 4  # those of the comparison

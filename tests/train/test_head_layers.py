"""What heads are made of: plain formulas for logits, autograd's gradients, heads that do not know of each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rayclean.train.head_layers import HIDDEN_UNITS, KINDS, STRENGTH, Tensors, single_thread

B, D, K, H = 7, 6, 4, 3
pytestmark = pytest.mark.usefixtures("one_thread")


def made(kind: str) -> tuple[Tensors, torch.Tensor]:
    """Heads away from their start, and inputs."""
    generator = torch.Generator().manual_seed(0)
    heads = KINDS[kind].start(D, H, K, 5)
    heads = {name: tensor + 0.3 * torch.randn(tensor.shape, generator=generator) for name, tensor in heads.items()}
    return heads, torch.randn(B, D, generator=generator)


def plain_logits(heads: Tensors, inputs: torch.Tensor) -> torch.Tensor:
    """(H, K, B), one head after the other."""
    found = []
    for head in range(H):
        one = {name: tensor[head] for name, tensor in heads.items()}
        seen = inputs
        if "inner" in one:
            seen = torch.relu(torch.nn.functional.linear(inputs, one["inner"], one["inner_bias"]))
        found.append(torch.nn.functional.linear(seen, one["weight"], one["bias"]).T)
    return torch.stack(found)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients_are_those_of_torchs_layers(kind: str) -> None:
    heads, inputs = made(kind)
    error = torch.randn(H, K, B, generator=torch.Generator().manual_seed(1))
    traced = {name: tensor.clone().requires_grad_() for name, tensor in heads.items()}
    expected = plain_logits(traced, inputs)
    (expected * error).sum().backward()  # type: ignore[no-untyped-call]
    logits, seen = KINDS[kind].logits(heads, inputs)
    torch.testing.assert_close(logits, expected.detach(), rtol=1e-4, atol=1e-4)
    found = KINDS[kind].gradients(heads, inputs, seen, error)
    assert found.keys() == heads.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, traced[name].grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_heads_start_with_logits_of_0(kind: str) -> None:
    heads = KINDS[kind].start(D, H, K, 5)
    logits, _ = KINDS[kind].logits(heads, torch.randn(B, D))
    assert logits.shape == (H, K, B)
    assert not logits.any()


def test_hidden_units_are_each_heads_own_and_keep_the_size_of_features() -> None:
    heads = KINDS["hidden"].start(300, H, K, 5)
    again, other = (KINDS["hidden"].start(300, H, K, seed) for seed in (5, 6))
    assert torch.equal(heads["inner"], again["inner"])
    assert not torch.equal(heads["inner"], other["inner"])
    assert not torch.equal(heads["inner"][0], heads["inner"][1])
    inputs = torch.randn(50, 300) * np.sqrt(STRENGTH / 300)
    _, units = KINDS["hidden"].logits(heads, inputs)
    assert units.shape == (H, HIDDEN_UNITS, 50)
    assert 0.8 < float(units.square().mean()) < 1.2


def test_threads_come_back_after_an_error() -> None:
    def fail() -> None:
        with single_thread() as threads:
            assert (threads, torch.get_num_threads()) == (2, 1)
            raise ZeroDivisionError

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)

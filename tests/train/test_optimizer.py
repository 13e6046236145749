"""The optimizers against their formulas, and through a whole training."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.config import TrainSection
from rayclean.train.models import Network
from rayclean.train.optimizer import learning_rate, make_optimizer, set_rate

STEPS = 12


def two_weights() -> Network:
    torch.manual_seed(0)
    return Network(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))


def gradients() -> list[list[torch.Tensor]]:
    """Of each step, one a parameter."""
    generator = torch.Generator().manual_seed(1)
    shapes = [parameter.shape for parameter in two_weights().parameters()]
    return [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(STEPS)]


def stepped(
    train: TrainSection, network: Network, optimizer: torch.optim.Optimizer, first: int, last: int
) -> list[torch.Tensor]:
    """The weights after some steps, with the rates of the schedule."""
    for step, given_ones in list(enumerate(gradients()))[first:last]:
        set_rate(optimizer, learning_rate(train, step / STEPS))
        for parameter, gradient in zip(network.parameters(), given_ones, strict=True):
            parameter.grad = gradient
        optimizer.step()
    return [parameter.detach().clone() for parameter in network.parameters()]


def adamw_by_formula(train: TrainSection) -> list[torch.Tensor]:
    """Algorithm 2 of Loshchilov and Hutter (ICLR 2019), in float64."""
    found = []
    for number, parameter in enumerate(two_weights().parameters()):
        weight = parameter.detach().double().numpy()
        mean, square = np.zeros_like(weight), np.zeros_like(weight)
        for step, given_ones in enumerate(gradients()):
            gradient, rate = given_ones[number].double().numpy(), learning_rate(train, step / STEPS)
            mean = train.momentum * mean + (1 - train.momentum) * gradient
            square = 0.999 * square + 0.001 * gradient**2
            unbiased = mean / (1 - train.momentum ** (step + 1))
            scale = np.sqrt(square / (1 - 0.999 ** (step + 1))) + 1e-8
            weight = weight - rate * train.weight_decay * weight - rate * unbiased / scale
        found.append(torch.from_numpy(weight).float())
    return found


@settings(deadline=None, max_examples=20)
@given(st.floats(0, 0.99), st.floats(0, 1), st.floats(1e-5, 1e-2))
def test_adamw_is_its_formula(momentum: float, decay: float, lr: float) -> None:
    train = TrainSection(optimizer="adamw", momentum=momentum, weight_decay=decay, lr=lr)
    network = two_weights()
    found = stepped(train, network, make_optimizer(network, train), 0, STEPS)
    for ours, formula in zip(found, adamw_by_formula(train), strict=True):
        torch.testing.assert_close(ours, formula, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "nesterov", "theirs"),
    [
        ({}, True, torch.optim.SGD),
        ({}, False, torch.optim.SGD),
        ({"momentum": 0}, True, torch.optim.SGD),
        ({"optimizer": "adamw"}, True, torch.optim.AdamW),
        ({"optimizer": "adamw"}, False, torch.optim.AdamW),
    ],
)
def test_steps_are_torchs(fields: dict[str, Any], nesterov: bool, theirs: type[torch.optim.Optimizer]) -> None:
    train = TrainSection(**fields)
    options: dict[str, Any] = {"lr": train.lr, "weight_decay": train.weight_decay}
    if theirs is torch.optim.AdamW:
        options["betas"] = (train.momentum, 0.999)
    else:
        options |= {"momentum": train.momentum, "nesterov": nesterov and train.momentum > 0}
    one, two = two_weights(), two_weights()
    found = stepped(train, one, make_optimizer(one, train, nesterov), 0, STEPS)
    expected = stepped(train, two, theirs(two.parameters(), **options), 0, STEPS)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_state_read_from_a_file_goes_on_bit_for_bit(optimizer: str) -> None:
    train, whole, broken = TrainSection.model_validate({"optimizer": optimizer}), two_weights(), two_weights()
    expected = stepped(train, whole, make_optimizer(whole, train), 0, STEPS)
    before = make_optimizer(broken, train)
    stepped(train, broken, before, 0, 5)
    buffer = io.BytesIO()
    torch.save(before.state_dict(), buffer)
    buffer.seek(0)
    after = make_optimizer(broken, train)
    after.load_state_dict(torch.load(buffer, weights_only=True))
    found = stepped(train, broken, after, 5, STEPS)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))

"""What heads are made of, many at once: a linear layer, or one after a hidden layer of their own.

Every tensor has the heads along its first axis, so that some of them are a view. Samples stand along the last axis of
logits and of their gradients: the products are fastest so on a CPU.

Letters: H heads, B samples, d features, U hidden units, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeAlias

import numpy as np

from rayclean.late import torch
from rayclean.train.plan import epoch_seed

Tensors: TypeAlias = "dict[str, torch.Tensor]"
STRENGTH = 1280.0  # squared length of an average row of features, to which rate, weight decays and first weights belong
HIDDEN_UNITS = 512


class Layers(Protocol):
    """How logits come from features, and gradients from those at the logits."""

    def start(self, num_features: int, num_heads: int, num_classes: int, seed: int) -> Tensors:
        """The tensors before the first step."""

    def logits(self, heads: Tensors, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(H, K, B) logits of (B, d) inputs, and what the last layer saw."""

    def gradients(self, heads: Tensors, inputs: torch.Tensor, seen: torch.Tensor, error: torch.Tensor) -> Tensors:
        """The gradients of all tensors by (H, K, B) those at the logits."""


class Linear:
    """`weight` (H, K, d) and `bias` (H, K), at first 0."""

    def start(self, num_features: int, num_heads: int, num_classes: int, seed: int) -> Tensors:
        """See `Layers`."""
        shape = (num_heads, num_classes, num_features)
        return {"weight": torch.zeros(shape), "bias": torch.zeros(shape[:2])}

    def logits(self, heads: Tensors, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Layers`."""
        weight, bias = heads["weight"], heads["bias"]
        found = weight.flatten(0, 1) @ inputs.T
        return found.view(*bias.shape, -1).add_(bias[:, :, None]), inputs

    def gradients(self, heads: Tensors, inputs: torch.Tensor, seen: torch.Tensor, error: torch.Tensor) -> Tensors:
        """See `Layers`."""
        return {"weight": (error.flatten(0, 1) @ inputs).view_as(heads["weight"]), "bias": error.sum(dim=2)}


class Hidden:
    """`inner` (H, U, d) and `inner_bias` (H, U) of rectified units, then `weight` (H, K, U) and `bias` (H, K).

    The inner weights start as He et al. (ICCV 2015) have it, for features of squared length `STRENGTH`; all else is 0.
    """

    def start(self, num_features: int, num_heads: int, num_classes: int, seed: int) -> Tensors:
        """See `Layers`. Each head draws its own."""
        shape, scale = (HIDDEN_UNITS, num_features), np.float32(np.sqrt(2 / STRENGTH))
        drawn = [
            np.random.default_rng(epoch_seed(seed, 0, head, "heads.hidden")).normal(size=shape).astype(np.float32)
            for head in range(num_heads)
        ]
        return {
            "inner": torch.from_numpy(np.stack(drawn) * scale),
            "inner_bias": torch.zeros(num_heads, HIDDEN_UNITS),
            "weight": torch.zeros(num_heads, num_classes, HIDDEN_UNITS),
            "bias": torch.zeros(num_heads, num_classes),
        }

    def logits(self, heads: Tensors, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Layers`."""
        units = (heads["inner"].flatten(0, 1) @ inputs.T).view(*heads["inner_bias"].shape, -1)
        units = units.add_(heads["inner_bias"][:, :, None]).relu_()
        return torch.baddbmm(heads["bias"][:, :, None], heads["weight"], units), units

    def gradients(self, heads: Tensors, inputs: torch.Tensor, seen: torch.Tensor, error: torch.Tensor) -> Tensors:
        """See `Layers`."""
        inner = torch.bmm(heads["weight"].mT, error).mul_(seen > 0)
        return {
            "inner": (inner.flatten(0, 1) @ inputs).view_as(heads["inner"]),
            "inner_bias": inner.sum(dim=2),
            "weight": torch.bmm(error, seen.mT),
            "bias": error.sum(dim=2),
        }


KINDS: dict[str, Layers] = {"linear": Linear(), "hidden": Hidden()}


@contextmanager
def single_thread() -> Iterator[int]:
    """Torch has one thread inside, and gets back those that it had; their number is handed over.

    Threads that share out a product change its bits, and wait for each other on a busy machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)

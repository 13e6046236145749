"""One head by itself: features to logits, what its last layer sees, and what lies on a line between two features.

Letters: R rows, d features, U hidden units, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rayclean.late import torch
from rayclean.schema import Array

# A snapshot's arrays; the last two of a head with a layer of hidden units alone.
NAMES = {"weight": "head.weight", "bias": "head.bias", "inner": "inner.weight", "inner_bias": "inner.bias"}


@dataclass(frozen=True)
class Head:
    """A linear layer, or one after rectified hidden units.

    Attributes:
        tensors: float32, `weight` (K, d or U) and `bias` (K,); with hidden units `inner` (U, d) and `inner_bias` (U,).
    """

    tensors: Mapping[str, torch.Tensor]

    @classmethod
    def read(cls, arrays: Mapping[str, Array], device: str) -> Head:
        """The head of a snapshot's arrays."""
        there = {name: file for name, file in NAMES.items() if file in arrays}
        return cls({name: torch.from_numpy(np.array(arrays[file])).to(device) for name, file in there.items()})

    def arrays(self) -> dict[str, Array]:
        """What a snapshot holds."""
        return {NAMES[name]: tensor.cpu().numpy().copy() for name, tensor in self.tensors.items()}

    @property
    def is_linear(self) -> bool:
        """Whether its logits are linear in the features."""
        return "inner" not in self.tensors

    @property
    def device(self) -> torch.device:
        """The device that its tensors are on."""
        return self.tensors["weight"].device

    def ends(self, features: Array) -> Array:
        """What is linear in features (R, d): (R, K) logits, or (R, U) what goes into the hidden units."""
        weight, bias = ("weight", "bias") if self.is_linear else ("inner", "inner_bias")
        inputs = torch.from_numpy(features).to(self.device)
        return torch.addmm(self.tensors[bias], inputs, self.tensors[weight].T).cpu().numpy()

    def logits_at(self, ends: Array) -> Array:
        """(R, K) logits at points between ends, or at these."""
        if self.is_linear:
            return ends
        units = torch.from_numpy(ends).to(self.device, torch.float32).relu()
        return torch.addmm(self.tensors["bias"], units, self.tensors["weight"].T).cpu().numpy()

    def logits(self, features: Array) -> Array:
        """(R, K) float32 of features (R, d)."""
        return self.logits_at(self.ends(features))

    def seen(self, features: Array) -> Array:
        """(R, d or U) float32 what the last layer sees of features (R, d)."""
        return features if self.is_linear else np.maximum(self.ends(features), 0)

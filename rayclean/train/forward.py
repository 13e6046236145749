"""A network run for scoring: evaluation mode, batches of one fixed size, the last one padded.

A fixed batch size keeps the kernels' choice, and so the bits, the same wherever a block is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rayclean.late import torch
from rayclean.schema import Array
from rayclean.train.precision import autocast
from rayclean.train.spec import NetworkSpec

if TYPE_CHECKING:
    from rayclean.train.models import Network


@dataclass(frozen=True)
class ForwardSettings:
    """How a network is run: part of every fingerprint that depends on its outputs."""

    device: str
    precision: str
    batch_size: int


class Forward:
    """Runs a network on images.

    Args:
        network: put into evaluation mode and moved to the device; not changed otherwise.
        spec: its normalisation.
        settings: device, precision and batch size.
    """

    def __init__(self, network: Network, spec: NetworkSpec, settings: ForwardSettings) -> None:
        self.spec, self.settings = spec, settings
        self.device = torch.device(settings.device)
        self.network = network.to(self.device).to(memory_format=torch.channels_last).eval()

    def normalized(self, images: Array) -> torch.Tensor:
        """Images, (N, size, size, 3) uint8, or features, as the network's input on the device: `NetworkSpec.inputs`."""
        # A mapped or cached array may be read-only; it is only read here.
        tensor = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        return self.spec.inputs(tensor)

    @contextmanager
    def running(self) -> Iterator[None]:
        """What every forward runs in. Around many calls it keeps the weights' copies in bfloat16 between them."""
        with torch.inference_mode(), autocast(self.settings.precision, self.device.type):
            yield

    def _padded(self, inputs: torch.Tensor, run: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Applies `run` to one or more inputs, in batches of the fixed size."""
        size = self.settings.batch_size
        outputs = []
        with self.running():
            for start in range(0, len(inputs), size):
                batch = inputs[start : start + size]
                short = size - len(batch)
                if short:
                    batch = torch.cat([batch, batch.new_zeros((short, *batch.shape[1:]))])
                batch = batch.contiguous(memory_format=torch.channels_last)
                outputs.append(run(batch)[: size - short])
        return torch.cat(outputs)

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, K) float32 logits of normalised inputs."""
        return self._padded(inputs, self.network)

    def probabilities(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, K) float32 softmax of normalised inputs."""
        return torch.softmax(self.logits(inputs).float(), dim=1)

    def features(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, d) float32 penultimate features of normalised inputs; the last layer is not run."""
        return self._padded(inputs, lambda batch: self.network.features(batch).float())

    def embed(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, d) penultimate features and (N, K) logits of normalised inputs, float32."""

        def run(batch: torch.Tensor) -> torch.Tensor:
            features = self.network.features(batch).float()
            return torch.cat([features, self.network.logits(features)], dim=1)

        both = self._padded(inputs, run)
        return both[:, : self.network.feature_dim], both[:, self.network.feature_dim :]

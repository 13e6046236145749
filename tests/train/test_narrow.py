"""Networks of few channels train on two threads: oneDNN's backward of a strided 1x1 convolution kills the process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from rayclean.config import Config
from rayclean.inspect.doctor import _networks
from rayclean.train.models import MODEL_NAMES, build_model
from rayclean.train.models.layers import SAFE_CHANNELS, Projection, convolutions_at_fault

# Batches that 16 does not divide: there the fault overwrites memory that is not its own.
TRAINING = """
import sys
import torch
from rayclean.config import TrainSection
from rayclean.train.loop import LoopSettings, Rank, train_epochs
from rayclean.train.spec import NetworkSpec

def batches(epoch):
    for step in range(12):
        num = (33, 61, 127)[step % 3]
        images = torch.randint(0, 256, (num, 12, 12, 3), dtype=torch.uint8)
        yield images, torch.randint(0, 3, (num,)), None

for width in (4, 8, 12):
    spec = NetworkSpec("small_resnet", 3, width, None, 12, (0.5,) * 3, (0.5,) * 3)
    train = TrainSection(epochs=1, augment="none", batch_size=127, lr=0.01)
    settings = LoopSettings(train, spec, 0, 12 * 127, "float32", "cpu", threads=2)
    for _, network, _ in train_epochs(settings, spec.build(), batches, Rank(0, 1)):
        assert all(bool(weight.isfinite().all()) for weight in network.parameters())
    print("trained", width, flush=True)
"""


def test_narrow_networks_train_on_two_threads() -> None:
    command = [sys.executable, "-c", TRAINING]
    # Threads that wait for each other by turning in circles take minutes where others are at work.
    env = {**os.environ, "PYTHONFAULTHANDLER": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.stdout.split("\n")[:-1] == ["trained 4", "trained 8", "trained 12"], done.stderr[-2000:]
    assert done.returncode == 0


@pytest.mark.parametrize("channels", [1, 4, 12, SAFE_CHANNELS - 1, SAFE_CHANNELS, 24])
@pytest.mark.parametrize("size", [(6, 6), (7, 5)])
def test_a_projection_has_the_names_and_the_numbers_of_torchs_own(
    one_thread: None, channels: int, size: tuple[int, int]
) -> None:
    """The numbers of torch for few channels are taken without oneDNN, whose backward pass may overwrite memory."""
    plain = nn.Conv2d(channels, 2 * channels, kernel_size=1, stride=2, bias=False)
    ours = Projection(channels, 2 * channels, 2)
    ours.load_state_dict(plain.state_dict())
    images = torch.randn(5, channels, *size, generator=torch.Generator().manual_seed(0))
    results = []
    for conv in (plain, ours):
        maps = images.contiguous(memory_format=torch.channels_last).requires_grad_()
        with torch.backends.mkldnn.flags(enabled=conv is ours or channels >= SAFE_CHANNELS):
            out = conv.to(memory_format=torch.channels_last)(maps)
            out.square().sum().backward()
        assert maps.grad is not None
        assert conv.weight.grad is not None
        results.append((out, maps.grad, conv.weight.grad))
    for of_torch, of_ours in zip(*results, strict=True):
        torch.testing.assert_close(of_ours, of_torch, rtol=1e-5, atol=1e-5)
        assert channels < SAFE_CHANNELS or torch.equal(of_ours, of_torch)


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_networks_of_this_package_are_not_at_fault(name: str) -> None:
    assert not convolutions_at_fault(build_model(name, 3, width=4))


def test_convolutions_of_others_that_are_at_fault_are_named() -> None:
    class Foreign(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.narrow = nn.Conv2d(8, 16, 1, stride=2)
            self.wide = nn.Conv2d(16, 16, 1, stride=2)
            self.square = nn.Conv2d(8, 16, 3, stride=2)
            self.dense = nn.Conv2d(8, 16, 1)

    assert convolutions_at_fault(Foreign()) == ["narrow"]


def test_doctor_names_a_convolution_of_another_network_that_may_end_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_config: Callable[..., Config]
) -> None:
    (tmp_path / "narrow_network.py").write_text(
        "from torch import nn\n"
        "class Small(nn.Module):\n"
        "    def __init__(self, num_classes, channels=8):\n"
        "        super().__init__()\n"
        "        self.stem = nn.Conv2d(3, channels, 1)\n"
        "        self.skip = nn.Conv2d(channels, 16, 1, stride=2)\n"
        "        self.head = nn.Linear(16, num_classes)\n"
        "    def features(self, images):\n"
        "        return self.skip(self.stem(images)).mean(dim=(2, 3))\n"
        "def wide(num_classes):\n"
        "    return Small(num_classes, 16)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    train = ("train.epochs=1", "train.from=")
    for name, num in (("narrow_network:Small", 1), ("narrow_network:wide", 0), ("small_resnet", 0)):
        findings = list(_networks(tiny_config(tmp_path / "run", f"model.name={name}", *train)))
        assert len(findings) == num
        assert all(each.level == "warning" and f"{name}: body.model.skip is" in each.text for each in findings)

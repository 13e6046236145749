"""Training on arrays in memory: as a run with one worker does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from rayclean.catalog.noise import threshold_samples
from rayclean.config import THRESHOLDED, Config
from rayclean.errors import ConfigError
from rayclean.memory.rows import MemoryRole, Samples, Training, Trajectory
from rayclean.train.batches import Batch, cached_batches
from rayclean.train.forward import Forward, ForwardSettings
from rayclean.train.loop import LoopSettings, Rank, train_epochs
from rayclean.train.models import Network
from rayclean.train.plan import role_seed
from rayclean.train.precision import resolve_precision
from rayclean.train.sample_losses import sample_losses
from rayclean.train.spec import network_spec
from rayclean.train.weights import load_weights_from

AfterEpoch = Callable[[int, Training], bool]


def train_role(
    config: Config,
    role: str,
    samples: Samples,
    num_classes: int,
    device: str,
    training: Training | None = None,
    after_epoch: AfterEpoch | None = None,
) -> MemoryRole:
    """Trains a role on all samples; without epochs it takes the weights that `train.from` names.

    The same seeds and the same order of batches as a run with one worker whose images fit its cache. A role of AUM's
    threshold samples has a class more, which some of the samples get.

    Args:
        config: how.
        role: which.
        samples: what to train on.
        num_classes: K.
        device: `cuda` or `cpu`.
        training: of an earlier call with the same config and samples: it goes on from there, and is changed.
        after_epoch: called after each epoch with the epoch and the training; what it returns says whether to go on.

    Raises:
        ConfigError: the role wants images of another size.
    """
    training = training or Training()
    if role in THRESHOLDED:
        samples, num_classes = _with_threshold_samples(config, role, samples, num_classes), num_classes + 1
    spec, train, model = network_spec(config, num_classes, role), config.train_of(role), config.model_of(role)
    if spec.size != (size := samples.images.shape[1]):
        raise ConfigError(f"role {role}: model.size is {spec.size}, but images are {size} px; leave it out, or resize")
    score_precision = resolve_precision(config.score.precision, device)
    forward = ForwardSettings(device, score_precision, config.score.batch_size)
    trained = MemoryRole(spec, forward, samples.labels, training)
    if len(training.trajectories) == train.epochs and training.weights:
        return trained
    if training.trajectories and training.state is None:
        raise ValueError(f"role {role}: {len(training.trajectories)} epochs of {train.epochs}, and no state to go on")
    network = spec.build(role_seed(config.run.seed, role), model.weights)
    if train.from_ is not None:
        load_weights_from(train.from_, network)
    if train.epochs == 0:
        training.weights[0] = _copied(network)
    else:
        _train(config, role, samples, network, trained, after_epoch)
    return trained


def _with_threshold_samples(config: Config, role: str, samples: Samples, num_classes: int) -> Samples:
    """Some samples get a class more, which means nothing."""
    drawn = threshold_samples(samples.draws, num_classes, THRESHOLDED.index(role), config.run.seed)
    return replace(samples, labels=np.where(drawn, num_classes, samples.labels).astype(np.int32))


def _train(
    config: Config,
    role: str,
    samples: Samples,
    network: Network,
    trained: MemoryRole,
    after_epoch: AfterEpoch | None,
) -> None:
    """Does the epochs that are missing; what they give goes to `trained.training`."""
    train, training, device = config.train_of(role), trained.training, trained.forward.device
    seed = role_seed(config.run.seed, role)
    settings = LoopSettings(
        train=train,
        spec=trained.spec,
        seed=seed,
        rank_rows=len(samples.labels),
        precision=resolve_precision(train.precision, device),
        device=device,
        threads=torch.get_num_threads(),
    )
    kept = {*train.snapshot_epochs(), *config.also_kept(role)}

    def batches(epoch: int) -> Iterator[Batch]:
        return cached_batches(samples.images, samples.labels, seed, epoch, train.batch_size)

    with _torch_settings_kept():
        for epoch, after, state in train_epochs(settings, network, batches, Rank(0, 1), training.state):
            training.state = state
            forward = Forward(after, trained.spec, trained.forward)
            training.trajectories.append(_trajectory(forward, samples, config.blocks.rows))
            if epoch in kept:
                training.weights[epoch] = _copied(after)
            if after_epoch is not None and not after_epoch(epoch, training):
                break
    if len(training.trajectories) == train.epochs:
        training.state = None  # it holds the network and its momentum on the device


@contextmanager
def _torch_settings_kept() -> Iterator[None]:
    """Undoes what training sets for the whole process: a notebook goes on with its own settings."""
    mode, state = torch.get_deterministic_debug_mode(), torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.set_rng_state(state)


def _copied(network: Network) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _trajectory(forward: Forward, samples: Samples, block_rows: int) -> Trajectory:
    logits = [
        forward.logits(forward.normalized(samples.images[start : start + block_rows])).float().cpu().numpy()
        for start in range(0, len(samples.images), block_rows)
    ]
    loss, margin, wrong = sample_losses(np.concatenate(logits), samples.labels)
    return loss.astype(np.float32), margin.astype(np.float32), wrong

"""A train function on Ray Train's workers: a checkpoint an epoch, resumed from the last one that is registered."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeAlias

import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer

from rayclean.cluster import Workers, keep_freed_memory
from rayclean.errors import StageError
from rayclean.storage.checkpoint_store import checkpoint_filesystem
from rayclean.storage.store import Store

CHECKPOINTS = "checkpoints"
STATE_FILE = "state.pt"
MAX_FAILURES = 3

State: TypeAlias = dict[str, Any]
Report: TypeAlias = Callable[[int, State | None], None]
# What each rank runs: the task, its index, the number of ranks, where to go on, and what to call after each epoch.
TrainFunction: TypeAlias = Callable[[Any, int, int, State | None, Report], None]


def run_training(function: TrainFunction, task: Any, store: Store, folder: str, workers: Workers) -> None:
    """Runs a train function to its end, going on from the last checkpoint of an earlier start.

    Args:
        function: picklable, what each rank does. Its report is called by every rank at the end of each epoch with the
            epoch and, on rank 0, the state, of plain values and tensors; what the epoch publishes lies in the store
            by then.
        task: handed to it.
        store: the run's files.
        folder: below which the checkpoints lie.
        workers: how many ranks, and what each may use.

    Raises:
        StageError: the workers failed more often than Ray Train restarts them.
    """
    resources = {"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {})
    filesystem = None if store.is_local else checkpoint_filesystem(store.fs)
    trainer = TorchTrainer(
        _train_on_worker,
        train_loop_config={"function": function, "task": task},
        torch_config=TorchConfig(backend="nccl" if workers.gpus else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers.actors, use_gpu=bool(workers.gpus), resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name=CHECKPOINTS,
            storage_path=store.full(folder),
            storage_filesystem=filesystem,
            failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            logging_config=ray.train.LoggingConfig(log_level="CRITICAL"),
        ),
    )
    try:
        _call_apart(trainer.fit)
    except ray.train.TrainingFailedError as e:
        cause = [line for line in str(e).splitlines() if line.strip()]
        raise StageError(f"training failed in spite of retries, last with: {cause[-1] if cause else e}") from e


def _call_apart(function: Callable[[], object]) -> None:
    """Calls a function outside the main thread, and waits.

    In the main thread Ray Train replaces the handler of SIGINT, for good, by one that exits with code 0.
    """
    ended: Future[object] = Future()

    def call() -> None:
        try:
            ended.set_result(function())
        except BaseException as e:
            ended.set_exception(e)

    threading.Thread(target=call, daemon=True).start()
    ended.result()


def _train_on_worker(config: dict[str, Any]) -> None:
    """One rank."""
    keep_freed_memory()
    context = ray.train.get_context()
    state: State | None = None
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            state = torch.load(Path(folder) / STATE_FILE, map_location="cpu", weights_only=True)
    config["function"](config["task"], context.get_world_rank(), context.get_world_size(), state, _report)


def _report(epoch: int, state: State | None) -> None:
    name = f"epoch-{epoch:04d}"
    if state is None:
        ray.train.report({"epoch": epoch}, checkpoint_dir_name=name)
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save(state, Path(folder) / STATE_FILE)
        checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report({"epoch": epoch}, checkpoint=checkpoint, checkpoint_dir_name=name)

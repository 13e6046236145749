"""A train function on Ray Train's workers: one checkpoint per epoch, resumed from the last one that is registered."""

from __future__ import annotations

import tempfile
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
from ray.train.torch import TorchTrainer
from ray.util import placement_group_table

from rayclean.cluster import last_words
from rayclean.cluster.connect import last_line
from rayclean.cluster.last_words import LastWords
from rayclean.cluster.nodes import keep_freed_memory, on_each_node, waiting_told
from rayclean.cluster.sizing import Workers
from rayclean.cluster.together import ClosedTorch
from rayclean.errors import DamagedFile, StageError
from rayclean.storage.checkpoint_store import checkpoint_filesystem
from rayclean.storage.damage import DamageFound
from rayclean.storage.executor import TrainFunction
from rayclean.storage.resume import (
    CHECKPOINTS,
    Resume,
    State,
    checkpoint_name,
    find_resume,
    set_damaged_record_aside,
    write_state,
)
from rayclean.storage.store import Store

MAX_FAILURES = 3


def run_training(
    function: TrainFunction,
    task: Any,
    store: Store,
    folder: str,
    lost: int | None = None,
    stop: int | None = None,
    *,
    workers: Workers,
) -> None:
    """Trains on Ray Train's workers, as `Trainer` says; `workers`: how many ranks, and what each may use."""
    set_damaged_record_aside(store, folder)
    pool = uuid.uuid4().hex
    filesystem = None if store.is_local else checkpoint_filesystem(store.fs)
    trainer = TorchTrainer(
        _train_on_worker,
        train_loop_config={
            "function": function,
            "task": task,
            "pool": pool,
            "find_resume": partial(_find_resume, Store(store.root), folder, lost, stop),
        },
        torch_config=ClosedTorch(backend="nccl" if workers.gpus else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers.actors, use_gpu=bool(workers.gpus), resources_per_worker=_resources(workers)
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
    asked = f"{workers.actors} training workers of {workers.cpus:g} CPUs and {workers.gpus:g} GPUs each"
    try:
        with waiting_told(asked, lambda: _is_any("PENDING", workers)):
            in_thread(trainer.fit).result()
    except ray.train.TrainingFailedError as e:
        if damaged := _damaged(e):
            raise DamageFound(damaged) from e
        raise StageError(f"training failed in spite of retries, last with: {_cause(e, pool)}") from e


def is_placed(workers: Workers) -> bool:
    """Whether training's workers have their place; Ray Train asks for all of them at once."""
    return _is_any("CREATED", workers)


def _is_any(state: str, workers: Workers) -> bool:
    bundles = [_resources(workers)] * workers.actors
    groups = placement_group_table().values()
    return any(group["state"] == state and list(group["bundles"].values()) == bundles for group in groups)


def _resources(workers: Workers) -> dict[str, float]:
    """What one worker asks for."""
    return {"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {})


def _damaged(error: Exception) -> list[DamagedFile]:
    """Files that training workers met and could not read; Ray Train hands on what they raised inside its own."""
    failures = getattr(error, "worker_failures", {}).values()
    found = (getattr(failure, "_base_exc", failure) for failure in failures)
    return list({each.path: each for each in found if isinstance(each, DamagedFile)}.values())


def _cause(error: Exception, pool: str) -> str:
    """Why training failed: the signals of its workers, where they died of any, else what Ray says last."""
    found = [death for _, each in on_each_node(last_words.deaths, pool) if isinstance(each, list) for death in each]
    if not found:
        return last_line(error)
    ranks = ", ".join(sorted({death.at for death in found}))
    return f"{ranks} died ({last_words.in_words({death.signal for death in found})})"


def in_thread(function: Callable[[], object]) -> Future[None]:
    """Calls a function outside the main thread.

    In the main thread Ray Train replaces the handler of SIGINT, for good, by one that exits with code 0.
    """
    ended: Future[None] = Future()

    def call() -> None:
        try:
            function()
        except BaseException as e:
            ended.set_exception(e)
        else:
            ended.set_result(None)

    threading.Thread(target=call, daemon=True).start()
    return ended


def _train_on_worker(config: dict[str, Any]) -> None:
    """One rank."""
    keep_freed_memory()
    context = ray.train.get_context()
    resume = config["find_resume"]()
    rank = context.get_world_rank()
    with LastWords(config["pool"]).doing(f"rank {rank}"):
        config["function"](config["task"], rank, context.get_world_size(), resume, _report)


def _find_resume(store: Store, folder: str, lost: int | None, stop: int | None) -> Resume:
    checkpoint = ray.train.get_checkpoint()
    registered = None if checkpoint is None else int(Path(checkpoint.path).name.removeprefix("epoch-"))
    return find_resume(store, folder, registered, lost, stop)


def _report(epoch: int, state: State | None) -> None:
    name = checkpoint_name(epoch)
    if state is None:
        ray.train.report({"epoch": epoch}, checkpoint_dir_name=name)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_state(Path(folder), state)
        checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report({"epoch": epoch}, checkpoint=checkpoint, checkpoint_dir_name=name)

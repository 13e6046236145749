"""One training worker: the loop on the catalog's rows, with snapshots and trajectories published as it goes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from rayclean.errors import UnitError
from rayclean.storage.contents import write
from rayclean.storage.executor import Report
from rayclean.storage.resume import Resume
from rayclean.storage.units import block_range, num_blocks
from rayclean.train.feed import Feed
from rayclean.train.forward import Forward
from rayclean.train.loop import Rank, train_epochs
from rayclean.train.task import RoleTask, WorkerTask
from rayclean.train.trajectories import trajectory_name, trajectory_table


@dataclass(frozen=True, kw_only=True)
class TrainTask(WorkerTask, RoleTask):
    """One role's training.

    Attributes:
        also_kept: epochs whose weights are kept beside those of `train.snapshot_epochs`.
    """

    also_kept: tuple[int, ...]

    @property
    def epochs(self) -> int:
        """As configured; 0 for weights that are scored as they are."""
        return self.train.epochs

    def results(self) -> str:
        """The task's own folder."""
        return self.folder

    def publish_untrained(self) -> None:
        """The network before the first step."""
        self.publish_snapshot(0, self.new_network())

    def run(self, rank: Rank, resume: Resume, report: Report) -> None:
        """Trains on one rank; see `train`."""
        train(self, rank, resume, report)

    def kept_epochs(self) -> tuple[int, ...]:
        """Epochs after which weights are published as snapshots."""
        return tuple(sorted({*self.train.snapshot_epochs(), *self.also_kept}))

    def missing_of(self, epoch: int) -> set[str]:
        """Files of an epoch that are not there: its trajectories, and its snapshot where it is kept."""
        blocks = num_blocks(self.catalog.num_rows, self.block_rows) if epoch else 0
        names = {f"{self.folder}/{trajectory_name(epoch, block)}" for block in range(blocks)}
        folders = {f"{self.folder}/{trajectory_name(epoch, 0)}".rpartition("/")[0]}
        if epoch in self.kept_epochs():
            names.add(self.snapshot_file(epoch))
            folders.add(self.snapshot_file(epoch).rpartition("/")[0])
        return names - {f"{folder}/{name}" for folder in folders for name in self.store.list(folder)}


def train(task: TrainTask, rank: Rank, resume: Resume, report: Report) -> None:
    """Trains from a state, or from the start, to the last epoch.

    Of epochs whose files are final only what is missing is written: their other files have been read, and weights that
    are trained again need not have the same bits on every device.

    Args:
        task: what to train.
        rank: this process.
        resume: where to go on.
        report: called by every rank at the end of each epoch with the epoch and, on rank 0, the state.
            The snapshot and trajectories of the epoch lie in the store by then.
    """
    state, stop = resume.state, resume.stop or task.train.epochs
    network = task.new_network()
    if state is not None and state["epoch"] >= stop and not task.missing_of(state["epoch"]):
        return
    feed, settings = task.open_feed(rank), task.loop(rank, task.catalog.num_rows, stop)
    for epoch, bare, after in train_epochs(settings, network, feed.batches, rank, state, again=True):
        missing = task.missing_of(epoch) if epoch <= resume.final else None
        write_trajectories(task, task.forward_of(bare), feed, epoch, rank, missing)
        is_wanted = missing is None or task.snapshot_file(epoch) in missing
        if rank.index == 0 and epoch in task.kept_epochs() and is_wanted:
            task.publish_snapshot(epoch, bare)
        if state is None or epoch != state["epoch"]:
            report(epoch, after if rank.index == 0 else None)


def write_trajectories(
    task: WorkerTask, forward: Forward, feed: Feed, epoch: int, rank: Rank, wanted: Collection[str] | None = None
) -> None:
    """Writes the trajectories of an epoch; the ranks share the blocks out.

    Args:
        task: whose.
        forward: with the bare module, not DDP's.
        feed: has the images.
        epoch: whose end it is.
        rank: this process.
        wanted: files to write; None for all.
    """
    total = task.catalog.num_rows
    for block in range(rank.index, num_blocks(total, task.block_rows), rank.count):
        name = f"{task.folder}/{trajectory_name(epoch, block)}"
        if wanted is not None and name not in wanted:
            continue
        start, stop = block_range(block, task.block_rows, total)
        # A pass of its own: the losses of the training batches are of augmented images, and mixed ones under MixUp.
        logits = forward.logits(forward.normalized(feed.images(np.arange(start, stop)))).float().cpu().numpy()
        if not np.isfinite(logits).all():
            raise UnitError(
                f"training diverged: the network's output is not finite after epoch {epoch}; lower train.lr "
                f"({task.train.lr:g}) or set train.precision=float32"
            )
        write(task.store, name, trajectory_table(logits, task.catalog.label[start:stop]))

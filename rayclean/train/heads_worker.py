"""One training worker of heads: all heads of a role learn at once, with snapshots and trajectories as they go."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import scipy

from rayclean.catalog.features import StandardFeatures
from rayclean.catalog.groups import smallest_draws as smallest_of_groups
from rayclean.errors import UnitError
from rayclean.late import torch
from rayclean.schema import MAIN, Array
from rayclean.storage.contents import map_arrays, read_json, write
from rayclean.storage.draws import smallest_draws, uniform
from rayclean.storage.executor import Report
from rayclean.storage.resume import Resume, State
from rayclean.storage.units import block_range, num_blocks
from rayclean.train.head_loop import HeadTask, head_epochs
from rayclean.train.heads import Heads, HeadSettings, mean_belief
from rayclean.train.loop import Rank
from rayclean.train.old_heads import ALL_HEADS, CHOICE_FILE, OldHeads
from rayclean.train.snapshots import snapshot_name
from rayclean.train.task import RoleTask
from rayclean.train.trajectories import trajectory_name, trajectory_table

CHOICE_ROWS = 20_000  # whose labels tell which weight decay is best
CHECKPOINTS = 12  # at most: many epochs of heads take no time to speak of


@dataclass(frozen=True, kw_only=True)
class HeadsTask(RoleTask):
    """The training of a role's heads: picklable, the same on every rank.

    Attributes:
        features: of these rows.
        settings: how heads learn.
        seed: of all draws.
        snapshot_every: epochs between kept ones.
        also_kept: a further epoch whose weights are kept, ODD's; 0 for none. The last one takes its place where heads
            learn fewer.
        device: where heads learn.
        threads: of torch.
        old: heads of an earlier run, which are taken as they are; None where they are trained.
    """

    features: StandardFeatures
    settings: HeadSettings
    seed: int
    snapshot_every: int
    also_kept: int
    device: str
    threads: int
    old: OldHeads | None = None

    @property
    def epochs(self) -> int:
        """As configured, or fewer of very many rows; none of old heads."""
        return 0 if self.old is not None else min(self.settings.epochs, self.passes)

    @property
    def passes(self) -> int:
        """Passes over the rows: of few rows an epoch has several, since few steps make no head."""
        return self.settings.epochs_of(self.catalog.num_rows)

    def last_pass(self, epoch: int) -> int:
        """With which an epoch ends."""
        return -(-epoch * self.passes // self.epochs)

    def usual_epochs(self) -> tuple[int, ...]:
        """Epochs after which weights are published, but for ODD's."""
        last = self.epochs
        return (*(epoch for epoch in range(1, last) if epoch % self.snapshot_every == 0), last)

    def kept_epochs(self) -> tuple[int, ...]:
        """Epochs after which weights are published."""
        odds = min(self.also_kept, self.epochs)
        return tuple(sorted({*self.usual_epochs(), *([odds] if odds else [])}))

    def chosen(self) -> int:
        """Position of the weight decay whose blind heads tell the labels best; 0 before that is known."""
        file = f"{self.folder}/{CHOICE_FILE}"
        return int(read_json(self.store, file)["decay"]) if self.store.exists(file) else 0

    def results(self) -> str:
        """That of the weight decay which was chosen."""
        return self.decay_folder(self.chosen())

    def publish_untrained(self) -> None:
        """Old heads, as if they were this role's after epoch 0."""
        if self.old is None:
            raise ValueError("heads have epochs")
        store, folder = self.old.store, self.old.folder
        last = max(store.list(f"{folder}/decay-0/snapshots"))
        for decay in range(len(self.settings.weight_decays)):
            content = self.old.snapshot(decay, f"snapshots/{last}")
            write(self.store, f"{self.decay_folder(decay)}/{snapshot_name(0)}", content)
        write(self.store, f"{self.folder}/{ALL_HEADS}", dict(map_arrays(store, f"{folder}/{ALL_HEADS}")))
        write(self.store, f"{self.folder}/{CHOICE_FILE}", self.old.facts)

    def run(self, rank: Rank, resume: Resume, report: Report) -> None:
        """Trains on one rank; see `train_heads_on_rank`."""
        train_heads_on_rank(self, rank, resume, report)

    def decay_folder(self, decay: int) -> str:
        """What the seeing head of a weight decay gives: as a network's role has it."""
        return f"{self.folder}/decay-{decay}"

    @property
    def blind_folder(self) -> str:
        """What the mean of the blind heads makes of the rows at snapshots before the last: as trajectories have it."""
        return f"{self.folder}/blind"

    def blind_epochs(self) -> tuple[int, ...]:
        """Epochs after which that is written; of the role alone whose heads are believed."""
        return self.usual_epochs()[:-1] if self.role == MAIN else ()

    def missing_of(self, epoch: int) -> set[str]:
        """Files of an epoch that are not there: trajectories, snapshots, after the last one all heads."""
        blocks, names = range(num_blocks(self.catalog.num_rows, self.block_rows) if epoch else 0), set()
        for decay in range(len(self.settings.weight_decays)):
            folder = self.decay_folder(decay)
            names |= {f"{folder}/{trajectory_name(epoch, block)}" for block in blocks}
            names |= {f"{folder}/{snapshot_name(epoch)}"} if epoch in self.kept_epochs() else set()
        if epoch in self.blind_epochs():
            names |= {f"{self.blind_folder}/{trajectory_name(epoch, block)}" for block in blocks}
        if epoch == self.epochs:
            names |= {f"{self.folder}/{ALL_HEADS}", f"{self.folder}/{CHOICE_FILE}"}
        folders = {name.rpartition("/")[0] for name in names}
        return names - {f"{folder}/{name}" for folder in folders for name in self.store.list(folder)}

    def folds(self) -> Array:
        """(N,) int64 the fold of each row, drawn for its group: the same in any sharding."""
        smallest = smallest_of_groups(self.catalog.group, self.catalog.draw_id)
        return np.asarray((uniform(self.seed, "heads.fold", smallest) * self.settings.folds).astype(np.int64))

    def rows(self, rows: Array) -> torch.Tensor:
        """(R, d) float32 features of rows (R,), on the device."""
        return torch.from_numpy(self.features.read(rows)).to(self.device)


def train_heads_on_rank(task: HeadsTask, rank: Rank, resume: Resume, report: Report) -> None:
    """Trains to the last epoch; of epochs that are final only what is missing is written.

    Args:
        task: what to train.
        rank: this process.
        resume: where to go on.
        report: see `TrainFunction`.
    """
    torch.set_num_threads(task.threads)
    stop, every = resume.stop or task.epochs, -(-task.epochs // CHECKPOINTS)
    for epoch, heads, state in _epochs(task, rank, resume):
        missing = task.missing_of(epoch) if epoch <= resume.final else None
        _write_trajectories(task, heads, epoch, rank, missing)
        if rank.index == 0:
            _write_weights(task, heads, epoch, missing)
        is_told = epoch % every == 0 or epoch == task.epochs
        if is_told and (resume.state is None or state["epoch"] != resume.state["epoch"]):
            report(epoch, state if rank.index == 0 else None)
        if epoch >= stop:
            return


def _epochs(task: HeadsTask, rank: Rank, resume: Resume) -> Iterator[tuple[int, Heads, State]]:
    """All epochs from that of the state on, of which files may be lost."""
    what = HeadTask(
        targets=np.asarray(task.catalog.label),
        folds=task.folds(),
        num_classes=task.catalog.num_classes,
        settings=task.settings,
        seed=task.seed,
        rate=task.features.rate,
        block_rows=task.block_rows,
    )
    ends = {task.last_pass(epoch): epoch for epoch in range(1, task.epochs + 1)}
    if (state := resume.state) is not None:
        tensors = {name: tensor.to(task.device) for name, tensor in state["heads"].items()}
        yield ends[state["epoch"]], Heads(tensors, what.folds, task.settings), state
    for done, heads, after in head_epochs(task.rows, what, rank, state):
        if done in ends:
            yield ends[done], heads, after


def _write_trajectories(task: HeadsTask, heads: Heads, epoch: int, rank: Rank, wanted: Collection[str] | None) -> None:
    """What the seeing heads make of all rows after an epoch, and the blind ones; the ranks share the blocks out."""
    total, decays = task.catalog.num_rows, range(len(task.settings.weight_decays))
    for block in range(rank.index, num_blocks(total, task.block_rows), rank.count):
        start, stop = block_range(block, task.block_rows, total)
        files = {f"{task.decay_folder(decay)}/{trajectory_name(epoch, block)}": [decay] for decay in decays}
        if epoch in task.blind_epochs():
            files[f"{task.blind_folder}/{trajectory_name(epoch, block)}"] = []
        if wanted is not None and not set(files) & set(wanted):
            continue
        features = task.rows(np.arange(start, stop))
        for file, seeing in files.items():
            logits = [heads.seeing_logits(features, decay) for decay in seeing] or [
                heads.blind_logits(features, decay, heads.folds[start:stop]) for decay in decays
            ]
            if not all(np.isfinite(each).all() for each in logits):
                raise UnitError(f"heads diverged after epoch {epoch} of role {task.role}: features of huge values?")
            if wanted is None or file in wanted:
                found = logits[0] if seeing else mean_belief(logits)
                write(task.store, file, trajectory_table(found, task.catalog.label[start:stop]))


def _write_weights(task: HeadsTask, heads: Heads, epoch: int, wanted: Collection[str] | None) -> None:
    def publish(name: str, content: object) -> None:
        if wanted is None or name in wanted:
            write(task.store, name, content)

    if epoch in task.kept_epochs():
        for decay in range(len(task.settings.weight_decays)):
            file = f"{task.decay_folder(decay)}/{snapshot_name(epoch)}"
            publish(file, heads.head(heads.seeing(decay)).arrays())
    if epoch == task.epochs:
        publish(f"{task.folder}/{ALL_HEADS}", {name: each.cpu().numpy() for name, each in heads.tensors.items()})
        publish(f"{task.folder}/{CHOICE_FILE}", _choice(task, heads))


def _choice(task: HeadsTask, heads: Heads) -> dict[str, object]:
    """Which weight decay's blind heads tell the given labels of some rows best, and how well each does."""
    chosen = np.flatnonzero(smallest_draws(task.seed, "heads.choice", task.catalog.draw_id, CHOICE_ROWS))
    labels, folds = task.catalog.label[chosen], heads.folds[chosen]
    totals = np.zeros(len(task.settings.weight_decays))
    for start in range(0, len(chosen), task.block_rows):
        here = slice(start, start + task.block_rows)
        features = task.rows(chosen[here])
        for decay in range(len(totals)):
            found = scipy.special.log_softmax(
                heads.blind_logits(features, decay, folds[here]).astype(np.float64), axis=1
            )
            totals[decay] += found[np.arange(len(found)), labels[here]].sum()
    return {
        "decay": int(totals.argmax()),
        "likelihoods": (totals / max(len(chosen), 1)).tolist(),
        "settings": asdict(task.settings),
        "seed": task.seed,
        "classes": task.catalog.num_classes,
        "statistics": task.features.folder,
        "features": task.features.rows.mark,
    }

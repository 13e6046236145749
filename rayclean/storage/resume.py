"""Where a training goes on: which of its checkpoints is whole and early enough, and what is final by then."""

from __future__ import annotations

import io
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from rayclean.errors import DamagedFile, LostFile
from rayclean.storage.checksums import open_bytes, seal_bytes
from rayclean.storage.store import Store

CHECKPOINTS = "checkpoints"
STATE_FILE = "state.pt"
SUM_FILE = "state.sum"
# What Ray Train keeps of the checkpoints that it was told of.
RECORD_FILE = "checkpoint_manager_snapshot.json"
State: TypeAlias = dict[str, Any]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resume:
    """Where a training goes on.

    Attributes:
        state: what the report of an epoch held; None: from the start.
        final: the last epoch whose files are final; of those up to it, only what is missing is written.
        stop: the epoch after which nothing is missing, where all epochs were trained before; None: to the end.
    """

    state: State | None = None
    final: int = 0
    stop: int | None = None


def checkpoint_name(epoch: int) -> str:
    """The folder of an epoch's checkpoint."""
    return f"epoch-{epoch:04d}"


def write_state(folder: Path, state: State) -> None:
    """Writes a checkpoint's files: the state, as torch saves it, and its checksum."""
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    (folder / STATE_FILE).write_bytes(data)
    (folder / SUM_FILE).write_bytes(seal_bytes(data)[len(data) :])


def read_state(store: Store, folder: str) -> State:
    """The state of a checkpoint; one of an earlier release has no checksum and is read as it is.

    Raises:
        DamagedFile: it is missing, or not what was written.
    """
    import torch

    name = f"{folder}/{STATE_FILE}"
    try:
        data = store.read(name)
        if store.exists(f"{folder}/{SUM_FILE}"):
            open_bytes(memoryview(data + store.read(f"{folder}/{SUM_FILE}")), store.full(name))
        state: State = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except FileNotFoundError as e:
        raise LostFile(store.full(name)) from e
    except DamagedFile:
        raise
    except Exception as e:  # whatever torch makes of a file that is not whole
        raise DamagedFile(store.full(name), f"it is no whole checkpoint: {type(e).__name__}") from e
    return state


def find_resume(store: Store, folder: str, registered: int | None, lost: int | None, stop: int | None) -> Resume:
    """The newest checkpoint that is whole and no later than the first epoch of which a file is lost.

    Args:
        store: the run's files.
        folder: below which the checkpoints lie.
        registered: the epoch of the last checkpoint that all workers have reported; None where Ray Train knows none.
        lost: the first epoch of which a file is missing; None where none is known to be.
        stop: see `Resume`.
    """
    names = store.list(f"{folder}/{CHECKPOINTS}")
    epochs = sorted(int(name[6:]) for name in names if name.startswith("epoch-") and name[6:].isdigit())
    # What lies beside or behind the last one that is registered may be half written.
    final = registered if registered is not None else max(epochs[-2:-1], default=0)
    for epoch in reversed([epoch for epoch in epochs if epoch <= min(final, lost or final)]):
        name = f"{folder}/{CHECKPOINTS}/{checkpoint_name(epoch)}"
        try:
            return Resume(read_state(store, name), final, stop)
        except DamagedFile as e:
            log.warning("%s: %s; training goes on from an earlier epoch", e.path, e.reason)
    return Resume(None, final, stop)


def set_damaged_record_aside(store: Store, folder: str) -> None:
    """Ray Train fails where its record of checkpoints is damaged; without one it goes by what is there."""
    name = f"{folder}/{CHECKPOINTS}/{RECORD_FILE}"
    if not store.exists(name):
        return
    there = set(store.list(f"{folder}/{CHECKPOINTS}"))
    try:
        state = json.loads(store.read(name))
        named = {result["checkpoint_dir_name"] for result in state["checkpoint_results"]}
        is_whole = named <= there and (not named or state["latest_checkpoint_result"]["checkpoint_dir_name"] in named)
    except (ValueError, KeyError, TypeError):
        is_whole = False
    if not is_whole:
        log.warning("%s: is damaged; set aside, the checkpoints are looked through", store.full(name))
        store.move(name, f"{name}.damaged")

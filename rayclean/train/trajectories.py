"""Trajectories: the loss, the margin and the prediction of every row at the end of an epoch."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from rayclean.schema import Array
from rayclean.storage.contents import read_table
from rayclean.storage.store import Store
from rayclean.storage.units import block_name
from rayclean.train.sample_losses import sample_losses


def trajectory_name(epoch: int, block: int) -> str:
    """File name of a block's trajectory in an epoch, below the role's folder."""
    return f"trajectories/epoch-{epoch:04d}/{block_name(block)}.parquet"


def trajectory_table(logits: Array, labels: Array) -> pa.Table:
    """What a block's trajectory file holds."""
    loss, margin, wrong = sample_losses(logits, labels)
    return pa.table({"loss": loss.astype(np.float32), "margin": margin.astype(np.float32), "wrong": wrong})


def read_trajectory(store: Store, folder: str, epoch: int, block: int) -> tuple[Array, Array, Array]:
    """loss, margin and wrong of a block of rows at the end of an epoch."""
    table = read_table(store, f"{folder}/{trajectory_name(epoch, block)}")
    return table["loss"].to_numpy(), table["margin"].to_numpy(), table["wrong"].to_numpy()

"""Which samples lie in which shard: fixed by the samples and the seed, so that a conversion can be gone on with."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rayclean.convert.samples import Item, Options, Split, printable
from rayclean.errors import InputError
from rayclean.storage.draws import draw_id, seeded_hash

FORMAT = 1
# Without --shard-size. A shard is what a worker holds and a rerun repeats; 5,000 keeps sets of small images parallel.
SHARD_SAMPLES = 5_000
SHARD_BYTES = 2**28
_SHOWN = 5


def check(split: Split, max_missing: int) -> None:
    """Refuses a split that cannot be what its user means.

    Raises:
        InputError: no images, more missing ones than `max_missing`, or a key twice.
    """
    count, total = len(split.missing), len(split.items) + len(split.missing)
    if not split.items:
        first = f", the first is {split.missing[0]}" if split.missing else ""
        raise InputError(f"{split.name}: found none of {total:,} images{first}; unpack them, or check the folder")
    if count > max_missing:
        names = ", ".join(split.missing[:_SHOWN]) + (f" and {count - _SHOWN:,} more" if count > _SHOWN else "")
        raise InputError(
            f"{split.name}: found {total - count:,} of {total:,} images, not {names}; fetch or unpack them, or go on "
            f"without them with --max-missing {count}"
        )
    keys = set[str]()
    for item in split.items:
        if item.key in keys:
            raise InputError(f"{split.name}: key {item.key!r} is there twice; samples need different names")
        keys.add(item.key)


def class_lines(classes: Sequence[str]) -> bytes:
    """The file of class names, which must give the same names when a run reads it.

    Raises:
        InputError: a name that is no line of text, or is there twice.
    """
    for name in classes:
        if name.strip().splitlines() != [name] or name != printable(name):
            raise InputError(f"class {name!r}: expected a line of text without outer blanks; rename it")
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise InputError(f"class {twice!r} is there twice, expected different names; rename one")
    return "".join(f"{name}\n" for name in classes).encode()


@dataclass(frozen=True)
class Plan:
    """Which samples are in which shard.

    Attributes:
        split: all of them.
        parts: those of each shard, in order.
        facts: what SPLIT.json says of them.
    """

    split: Split
    parts: list[list[Item]]
    facts: dict[str, Any]


def make_plan(split: Split, options: Options, num_classes: int) -> Plan:
    """Shuffles and cuts a split that `check` has passed."""
    # By a hash of the key, so that neither the order of a list nor NumPy's release matters.
    ids = np.fromiter((draw_id(item.key, b"") for item in split.items), np.uint64, len(split.items))
    order = np.argsort(seeded_hash(options.seed, "shards", ids), kind="stable")
    edges = cut(len(order), split.num_bytes, options.shard_size)
    parts = [[split.items[i] for i in order[first:last]] for first, last in itertools.pairwise(edges)]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}\n".encode())
        for item in part:
            digest.update(f"{item.key}\n{item.identity()}\n".encode("utf-8", "surrogatepass"))
    counts = {"samples": len(split.items), "shards": len(parts), "classes": num_classes, "missing": len(split.missing)}
    return Plan(split, parts, {"format": FORMAT, "seed": options.seed, **counts, "digest": digest.hexdigest()})


def cut(num_samples: int, num_bytes: int, shard_size: int | None) -> list[int]:
    """Edges of shards of nearly equal numbers of samples: 0 = first < ... < last = `num_samples`.

    Args:
        num_samples: at least 1.
        num_bytes: of all of them.
        shard_size: most samples per shard; None: see `Options`.
    """
    most = shard_size or max(1, min(SHARD_SAMPLES, SHARD_BYTES * num_samples // max(num_bytes, 1)))
    num_shards = -(-num_samples // most)
    return [num_samples * i // num_shards for i in range(num_shards + 1)]

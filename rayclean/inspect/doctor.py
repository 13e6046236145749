"""Checks before a run: are the shards sound, is the run folder writable, is the cluster fit for it?"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rayclean.catalog.labels import ClassList, num_past_last, one_based_hint
from rayclean.catalog.scan import ShardScan, scan_shard
from rayclean.catalog.stage import find_sources, scan_settings
from rayclean.catalog.table import counted
from rayclean.cluster import nodes
from rayclean.cluster.connect import connect
from rayclean.config import Config
from rayclean.errors import RaycleanError
from rayclean.inspect.doctor_features import (
    GivenLook,
    SizedLook,
    describe_features,
    given_source,
    missed_network,
    other_widths,
)
from rayclean.storage.amounts import size
from rayclean.storage.store import Store
from rayclean.train.models import MODEL_NAMES
from rayclean.train.models.layers import convolutions_at_fault
from rayclean.train.spec import network_spec

SAMPLED_SHARDS = 3
# The share of a shard's rows that its commonest label may have before it looks sorted by class.
SORTED_SHARE = 0.9


@dataclass(frozen=True)
class Finding:
    """One line of `rayclean doctor`."""

    level: Literal["ok", "warning", "error"]
    text: str


def examine(config: Config) -> Iterator[Finding]:
    """Checks features, the shards, the run folder, then the cluster; an error of one does not hide the others."""
    said = set()
    for check in (_features, _shards, _folder, _cluster):
        try:
            yield from check(config)
        except RaycleanError as e:
            if str(e) not in said:  # what features lack, the shards lack too
                yield Finding("error", str(e))
            said.add(str(e))


def _features(config: Config) -> Iterator[Finding]:
    if config.on_features:
        yield Finding("ok", describe_features(config))


def _shards(config: Config) -> Iterator[Finding]:
    sources = find_sources(config.data).to_pylist()
    total = sum(source["size"] for source in sources)
    yield Finding("ok", f"{len(sources):,} shards, {size(total)}")
    classes = ClassList.of(config.data)
    settings = scan_settings(config.data, classes, config.verified_label)
    step = max(1, len(sources) // SAMPLED_SHARDS)
    given = given_source(config)
    embedder = None if given is None else given.open()
    sides: list[int] = []
    widths = []
    for source in sources[::step][:SAMPLED_SHARDS]:
        if embedder is not None:
            taken = GivenLook(embedder, source["name"])
            scan = scan_shard(source["url"], settings, taken)
            widths.append((source["name"], taken.width))
            notes = [f"{scan.rows.num_rows:,} rows with {taken.width:,} features each"]
        else:
            scan = scan_shard(source["url"], settings, SizedLook(**vars(settings.look()), sides=sides))
            notes = [f"{scan.rows.num_rows:,} rows"]
        yield _judged(config, classes, source["name"], scan, notes)
    yield from (Finding("error", text) for text in other_widths(widths))
    if (text := missed_network(config, sides)) is not None:
        yield Finding("warning", text)


def _judged(config: Config, classes: ClassList, name: str, scan: ShardScan, notes: list[str]) -> Finding:
    """What is said of a shard, after these notes."""
    level: Literal["ok", "warning", "error"] = "ok"
    if bad := scan.quarantine.num_rows:
        reasons = sorted(set(scan.quarantine["reason"].to_pylist()))
        notes.append(f"{bad:,} samples for quarantine ({', '.join(reasons)})")
        level = "error" if bad > config.data.max_bad_share * max(scan.num_samples, 1) else "warning"
    if scan.truncated:
        notes.append(f"cut short: {scan.truncated}")
        level = "error"
    counts = np.bincount(scan.rows["label"].to_numpy(), minlength=1)
    if not counts[0] and num_past_last(scan.quarantine["text"].to_pylist()):
        notes.append(one_based_hint(classes.num_classes, classes.offset))
        level = "error"
    if scan.strays:
        notes.append(f"files of no sample: {counted(scan.strays)}")
    is_sorted = classes.num_classes > 1 and scan.rows.num_rows > 1 and counts.max() > SORTED_SHARE * counts.sum()
    if is_sorted and not config.on_features:  # heads have blocks of all shards at once
        notes.append(
            f"{counts.max() / counts.sum():.0%} of one class: shards that are sorted by class train badly "
            "unless the decoded set fits data.cache_bytes; shuffle the samples over the shards"
        )
        level = "warning" if level == "ok" else level
    return Finding(level, f"{name}: {', '.join(notes)}")


def _folder(config: Config) -> Iterator[Finding]:
    store = Store(config.run.dir)
    store.publish("doctor-probe", b"rayclean")
    store.remove("doctor-probe")
    free = f", {shutil.disk_usage(store.path).free / 1e9:.0f} GB free" if store.is_local else ""
    yield Finding("ok", f"run.dir {store.root} can be written{free}")


def _cluster(config: Config) -> Iterator[Finding]:
    with connect():
        hosts = nodes.check_nodes(Store(config.run.dir))
        yield Finding("ok", f"Ray on {len(hosts)} node(s); all see run.dir and have the same versions")
        workers = nodes.settle(config.resources, config.train.workers)
        training, scoring = workers["train"], workers["gpu"]
        yield Finding(
            "ok", f"training: {training.actors} worker(s) of {training.threads} thread(s) on {training.device}"
        )
        if training.device == "cpu" and training.threads > 1 and not config.on_features:
            yield from _networks(config)
        yield Finding("ok", f"scoring: {scoring.actors} actor(s) of {scoring.threads} thread(s) on {scoring.device}")


def _networks(config: Config) -> Iterator[Finding]:
    """Of other people's networks, what may end training on the threads of a CPU."""
    num_classes = ClassList.of(config.data).num_classes
    specs = (network_spec(config, num_classes, role) for role in config.role_names() if config.train_of(role).epochs)
    for spec in {spec.name: spec for spec in specs if spec.name not in MODEL_NAMES}.values():
        if names := convolutions_at_fault(spec.build()):
            yield Finding(
                "warning",
                f"model.name {spec.name}: {names[0]} is a strided 1x1 convolution of fewer than 16 channels, whose "
                "backward pass in oneDNN writes beside its memory on CPUs with AVX-512: the worker may die; train on a "
                "GPU, with resources.train.cpus=1, or with 16 channels",
            )

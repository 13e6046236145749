"""How a run begins: its shards as they are now, its pools and its precision; or how one is looked at afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from rayclean.catalog.labels import ClassList
from rayclean.catalog.looks import FeatureSource
from rayclean.catalog.noise import check_noise
from rayclean.catalog.stage import catalog_mark, find_sources, open_catalog, with_features
from rayclean.catalog.table import SOURCES_FILE, Catalog
from rayclean.cluster.sizing import Workers
from rayclean.config import Config, DataSection
from rayclean.decisions.naming import note_classes
from rayclean.embed.sources import feature_source, features_asked
from rayclean.errors import ConfigError, InputError, RaycleanError
from rayclean.run.run import Run
from rayclean.run.saved import load_run
from rayclean.storage.contents import create, read_json, read_table, write
from rayclean.storage.published import Published
from rayclean.storage.store import Store
from rayclean.train.precision import resolve_precision
from rayclean.train.stage import is_trained

PRECISION_FILE = "precision.json"
CATALOG_FILE = "catalog.json"
ASKED = "asked"  # in it: what the config says of features
ONE_WORKER = dict.fromkeys(("cpu", "gpu", "train"), Workers(1, 1, 0, "cpu"))  # this process
log = logging.getLogger(__name__)


def precision_here(workers: Workers) -> str:
    """What `auto` precision is on a device of this process."""
    return resolve_precision("auto", workers.device)


def start(
    config: Config,
    store: Store,
    sources: pa.Table,
    workers: dict[str, Workers],
    precision_of: Callable[[Workers], str] = precision_here,
    leaves_word: bool = True,
) -> Run:
    """A run as it begins: its shards as they are now, precision settled for its whole life.

    Args:
        config: the run.
        store: its files.
        sources: the shards as they are now.
        workers: of `cpu`, `gpu` and `train`, settled.
        precision_of: asks what `auto` precision is where such workers run.
        leaves_word: whether commands that only look are to find this start's catalogs; not of a start that only
            learns, perhaps with other verified samples than the run's.

    Raises:
        ConfigError: the classes or the noise cannot be right.
    """
    classes, noise = ClassList.of(config.data), config.noise
    if noise.kind is not None:
        num_classes = len(noise.classes or classes.names)
        check_noise(noise.kind, num_classes, noise.rate, matrix=noise.matrix_array, rates=noise.rates_array)
    if "auto" in (config.train.precision, config.score.precision) and not store.exists(PRECISION_FILE):
        found = {name: precision_of(workers[pool]) for name, pool in (("train", "train"), ("score", "gpu"))}
        create(store, PRECISION_FILE, found)
    precision = _settled_precision(config, store)
    features = feature_source(config, workers["gpu"].device, precision[1])
    catalog = scanned(store, config.data, classes, sources, config.verified_label, features)
    verified = config.validation_data()
    validation = None
    if verified is not None:
        there = find_sources(verified, "influence.validation")
        validation = scanned(store, verified, classes, there, None, features)
    if config.data.truth is not None and config.influence.held_out and config.influence.validation_label is None:
        log.warning(
            "influence.validation=split keeps rows apart with their given labels, since data.truth is read by evaluate "
            "alone; where others are verified, name their member: influence.validation_label=json:…"
        )
    if leaves_word:
        _note_catalog(store, catalog, validation, features_asked(config))
    run = Run(config, store, catalog, validation, workers, precision, features=features, old=_old_run(config))
    note_classes(store)
    note_sources(run, read_table(store, f"{catalog.folder}/{SOURCES_FILE}"))
    return run


def score_precision(config: Config, store: Store) -> str:
    """What networks score with: as the config or an earlier start of the run has settled it, else by this process."""
    if store.exists(PRECISION_FILE) or config.score.precision != "auto":
        return _settled_precision(config, store)[1]
    return resolve_precision("auto")


def note_sources(run: Run, sources: pa.Table) -> None:
    """Says of each catalog that is made from the run's where its shards lie: the same place."""
    for derived in (*run.derived.values(), *run.planted.values()):
        _note_places(run.store, derived, sources)


def _note_places(store: Store, catalog: Catalog, sources: pa.Table) -> None:
    """Says where the shards of a catalog lie now; they may have been moved since the last start."""
    file = f"{catalog.folder}/{SOURCES_FILE}"
    if not store.exists(file) or read_table(store, file) != sources:
        write(store, file, sources)


def scanned(
    store: Store,
    data: DataSection,
    classes: ClassList,
    sources: pa.Table,
    verified: str | None = None,
    features: FeatureSource | None = None,
) -> Catalog:
    """The catalog of shards as they are now, before it is made.

    `verified` as for `scan_settings`; `features`: how rows have them, None without.
    """
    mark = None if features is None else features.mark
    catalog = open_catalog(store, catalog_mark(data, classes, sources, verified, mark))
    _note_places(store, catalog, with_features(sources, features))
    return catalog


def _note_catalog(store: Store, catalog: Catalog, validation: Catalog | None, asked: Mapping[str, Any] | None) -> None:
    """Leaves word which catalog is the run's, and says so when the shards or how they are read have changed.

    `asked`: what its config says of features.
    """
    if store.exists(CATALOG_FILE):
        before = read_json(store, CATALOG_FILE)["fingerprint"]
        if before != catalog.mark:
            log.warning(
                "the shards, or how they are read, have changed: they are read again, beside catalog-%s; what was "
                "computed stays where the rows turn out the same",
                before,
            )
    marks: dict[str, Any] = {"fingerprint": catalog.mark}
    marks["validation"] = validation.mark if validation else None
    if asked is not None:
        marks[ASKED] = asked
    write(store, CATALOG_FILE, marks)


def look(config: Config, store: Store) -> Run:
    """A run as its files show it, without a cluster and without its shards: for commands that only read.

    Raises:
        InputError: the run was never started.
    """
    if not store.exists(CATALOG_FILE):
        raise InputError(f"{store.root} holds no run that was started; use `rayclean run` first")
    marks = read_json(store, CATALOG_FILE)
    catalog = open_catalog(store, marks["fingerprint"])
    validation = open_catalog(store, marks["validation"]) if marks.get("validation") else None
    old = _old_run(config)
    return Run(config, store, catalog, validation, ONE_WORKER, _settled_precision(config, store), old=old)


def _old_run(config: Config) -> Run | None:
    """The run whose heads judge new shards on features, where `train.from` names one.

    Raises:
        ConfigError: it is none, or cannot be read.
    """
    source = config.train.from_
    if source is None or not config.on_features:
        return None
    try:
        return look(load_run(source), Store(source))
    except RaycleanError as e:
        raise ConfigError(
            f"train.from {source}: expected the folder or URL of a run on features that is done; {e}"
        ) from e


def look_at_current(config: Config, store: Store) -> tuple[Run, Published]:
    """A run as `look` has it, and its table, which must be the one that the config leads to.

    Raises:
        InputError: it is not, or there is none.
    """
    table = Published.open(store)
    this = look(config, store)
    if not _is_of(this, table):
        raise table.older()
    return this, table


def is_current(this: Run, table: Published) -> bool:
    """Whether a table is the one that the config of the last start leads to, as far as that can be told yet."""
    try:
        return _is_of(this, table)
    except (OSError, RaycleanError):
        return False


def _is_of(this: Run, table: Published) -> bool:
    trained = all(is_trained(role.task) for role in this.roles.values())
    return trained and table.merge == this.merge()[1].folder


def _settled_precision(config: Config, store: Store) -> tuple[str, str]:
    """Precision of training and of scoring; `auto` is what the run's first start found."""
    auto = read_json(store, PRECISION_FILE) if store.exists(PRECISION_FILE) else {}
    train, score = config.train.precision, config.score.precision
    return (
        auto.get("train", "float32") if train == "auto" else train,
        auto.get("score", "float32") if score == "auto" else score,
    )

"""What a run on features will cost: looks at images that nobody has looked at yet, heads, disk and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from rayclean.catalog.labels import ClassList
from rayclean.catalog.looks import Embedder, FeatureSource
from rayclean.catalog.stage import FEATURES, find_sources, scan_settings, with_features
from rayclean.config import Config
from rayclean.embed.beliefs import MAX_DENSE_CLASSES, NUM_LARGEST
from rayclean.embed.sources import feature_source
from rayclean.errors import InputError
from rayclean.inspect.plan import (
    CATALOG_ROW_BYTES,
    PROBE_S,
    PROCESS_BYTES,
    Plan,
    SearchPlan,
    count_labels,
    count_rows,
    estimate,
    index_settings,
    plan_search,
)
from rayclean.run.start import score_precision
from rayclean.schema import Array
from rayclean.scores.blind import SHARE_NEIGHBORS
from rayclean.shards.decode import BadSample
from rayclean.shards.opening import open_shard, read_content
from rayclean.shards.tar import Member, TruncatedTar, group_members, scan_members
from rayclean.storage.store import Store
from rayclean.train.head_loop import HeadTask, head_epochs
from rayclean.train.heads import HeadSettings
from rayclean.train.loop import Rank
from rayclean.train.stage import head_settings
from rayclean.train.windows import WINDOW_ROWS

PROBED_SAMPLES = 64  # of the first shard, at most, by which the width and the time of a look are told
PROBED_ROWS = 4096
SEEN_BYTES = 20  # of a row beside its features: digest and number of the sample
LISTED_BYTES = 12  # of a near row in a list: its number and its distance
# Of a row in the catalog, scores, vote, merge and table, and of simulated losses whatever the rows are, as measured.
OTHER_BYTES, SIMULATED_BYTES = 600, 800_000


@dataclass(frozen=True)
class FeaturePlan:
    """Costs of a run on features; times are for this machine's cores as they are now.

    Attributes:
        exact: rows are counted, not projected from the first shard.
        looks: samples whose features are not there yet: each is looked at once.
        decodes: images that are decoded for it.
        forwards: of the frozen network.
        looks_per_s: measured, with the decoding.
        dim: features of a row.
        heads: that learn, of all roles.
        head_rows: rows that they learn from, each as often as there are epochs.
        head_rows_per_s: measured, all heads of a role at once.
        feature_bytes: files of features.
        disk_bytes: with these, and the index, which goes when the run is done.
        search: of the features.
    """

    shards: int
    rows: int
    exact: bool
    looks: int
    decodes: int
    forwards: int
    looks_per_s: float
    dim: int
    heads: int
    head_rows: int
    head_rows_per_s: float
    feature_bytes: int
    disk_bytes: int
    worker_bytes: int
    driver_bytes: int
    search: SearchPlan

    @property
    def seconds(self) -> dict[str, float]:
        """Time on one worker like the one that was probed."""
        look = self.looks / max(self.looks_per_s, 1e-9)
        return {"look": look, "train": self.head_rows / max(self.head_rows_per_s, 1e-9)}


def plan_run(config: Config) -> Plan | FeaturePlan:
    """Projects a run from its first shard and a probe on this machine.

    Raises:
        RaycleanError: the shards or features cannot be read, or a network's weights cannot be had.
    """
    return estimate_features(config) if config.on_features else estimate(config)


def estimate_features(config: Config) -> FeaturePlan:
    """The same of a run on features.

    Raises:
        InputError: no sample of the first shard has features.
    """
    sources, classes, store = find_sources(config.data), ClassList.of(config.data), Store(config.run.dir)
    rows, exact = count_rows(sources)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = feature_source(config, device, score_precision(config, store))
    if source is None:
        raise TypeError("a run on features expected")
    probed = _probe_look(config, classes, source, sources.slice(0, 1).to_pylist()[0])
    looks = _missing_rows(store, with_features(sources, source), rows)
    counts, counted = count_labels(config, classes, sources, rows, source.mark)
    search = plan_search(counts, probed.dim, index_settings(config), counted)
    settings = [head_settings(config.train_of(role)) for role in config.role_names()]
    learned = [rows * each.epochs_of(rows) for each in settings]
    heads_bytes = sum(_heads_bytes(each, probed.dim, classes.num_classes) for each in settings)
    feature_bytes = rows * (2 * probed.dim + SEEN_BYTES)
    epochs = [min(each.epochs, each.epochs_of(rows)) for each in settings]
    others = rows * _row_bytes(config, settings, classes.num_classes, epochs)
    windows = 4 * probed.dim * min(rows, WINDOW_ROWS)
    return FeaturePlan(
        shards=sources.num_rows,
        rows=rows,
        exact=exact,
        looks=looks,
        decodes=looks if source.of_pixels else 0,
        forwards=looks if source.runs_network else 0,
        looks_per_s=probed.per_s,
        dim=probed.dim,
        heads=sum(each.num_heads for each in settings),
        head_rows=sum(learned),
        head_rows_per_s=_head_rate(settings[0], probed.dim, classes.num_classes, rows, device),
        feature_bytes=feature_bytes,
        disk_bytes=feature_bytes + search.index_bytes + heads_bytes + others + SIMULATED_BYTES,
        worker_bytes=round(PROCESS_BYTES + rows * CATALOG_ROW_BYTES + windows + heads_bytes),
        driver_bytes=round(PROCESS_BYTES + 16 * rows),
        search=search,
    )


def _missing_rows(store: Store, sources: pa.Table, rows: int) -> int:
    """Rows of shards whose features are not there, by the shards' sizes."""
    files = sources[FEATURES].to_pylist()
    there = {f"{folder}/{name}" for folder in {file.partition("/")[0] for file in files} for name in store.list(folder)}
    is_missing = np.array([file not in there for file in files])
    sizes = sources["size"].to_numpy()
    return round(rows * float(sizes[is_missing].sum()) / max(float(sizes.sum()), 1))


@dataclass(frozen=True)
class _Probed:
    dim: int
    per_s: float


def _probe_look(config: Config, classes: ClassList, source: FeatureSource, shard: dict[str, str]) -> _Probed:
    """Looks at samples of the first shard: how many features they have, and how many get theirs per second.

    The network is loaded before that, by a look at the first of them.
    """
    embedder = source.open()
    samples = _first_samples(shard["url"], embedder, scan_settings(config.data, classes).images)
    dim = _dim(embedder, shard, samples[:1])
    for several in ([], samples):
        dim = dim or _dim(embedder, shard, several)
    if not dim:
        raise InputError(
            f"{shard['url']}: none of its first {len(samples)} samples has features; check data.features and data.image"
        )
    started_s, count = time.monotonic(), 0
    while not count or time.monotonic() - started_s < PROBE_S:
        _dim(embedder, shard, samples)
        count += len(samples)
    return _Probed(dim, count / max(time.monotonic() - started_s, 1e-9))


def _dim(embedder: Embedder, shard: dict[str, str], samples: list[tuple[str, dict[str, bytes]]]) -> int:
    """Features of samples: how many each has, 0 where none has any."""
    for key, contents in samples:
        try:
            embedder.see(key, contents)
        except BadSample:
            continue
    taken = embedder.take(shard["name"])
    return int(taken.features.shape[1]) if len(taken.features) > len(taken.bad) else 0


def _first_samples(url: str, embedder: Embedder, images: tuple[str, ...]) -> list[tuple[str, dict[str, bytes]]]:
    """Keys of the first samples of a shard that can be looked at, with the members that are read."""
    found: list[tuple[str, dict[str, bytes]]] = []
    with open_shard(url) as file:

        def members() -> Iterator[Member]:
            try:
                yield from scan_members(file, url)
            except TruncatedTar:
                return

        for sample in group_members(members(), lambda member: (member.key, member.extension)):
            wanted = [member for member in sample if member.extension in embedder.members]
            contents = {each.extension: read_content(file, each.offset, each.size, url) for each in wanted}
            if contents or not embedder.members:
                found.append((sample[0].key, contents))
            if len(found) == PROBED_SAMPLES:
                break
    return found


def _head_rate(settings: HeadSettings, dim: int, num_classes: int, rows: int, device: str) -> float:
    """Rows per second that all heads of a role learn from, with this process's threads."""
    count = max(min(rows, PROBED_ROWS), 1)
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(count, dim)).astype(np.float32)).to(device)
    folds, labels = np.arange(count) % settings.folds, rng.integers(0, num_classes, count)
    task = HeadTask(labels, folds, num_classes, settings, 0, 1e-3)
    done, started_s = 0, time.monotonic()
    for epoch, *_ in head_epochs(_picker(features), task, Rank(0, 1)):
        done = epoch * count
        if time.monotonic() - started_s >= PROBE_S:
            break
    return done / max(time.monotonic() - started_s, 1e-9)


def _picker(features: torch.Tensor) -> Callable[[Array], torch.Tensor]:
    return lambda rows: features[torch.from_numpy(np.asarray(rows)).to(features.device)]


def _heads_bytes(settings: HeadSettings, dim: int, num_classes: int) -> int:
    """All heads of a role as a file has them."""
    heads = settings.layers.start(dim, 1, num_classes, 0)
    return settings.num_heads * sum(value.numel() * value.element_size() for value in heads.values())


def _row_bytes(config: Config, settings: list[HeadSettings], num_classes: int, epochs: list[int]) -> int:
    """Of a row beside its features: trajectories, beliefs, lists of near rows, and the rest."""
    belief = 4 * num_classes if num_classes <= MAX_DENSE_CLASSES else 8 * (NUM_LARGEST + 1) + 4
    near = config.iofm.num + max(SHARE_NEIGHBORS, config.neighbors.vote_num, config.inn.num)
    beliefs = (len(settings[0].weight_decays) + 1) * belief + 8
    followed = sum(count * len(each.weight_decays) for count, each in zip(epochs, settings, strict=True))
    return 9 * followed + beliefs + LISTED_BYTES * near + OTHER_BYTES

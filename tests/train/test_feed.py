"""Training batches: each row of the catalog once an epoch, by whichever way it comes; an epoch repeats."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.catalog.table import Catalog
from rayclean.config import Config
from rayclean.errors import ShardChangedError, UnitError
from rayclean.run.run import Run
from rayclean.schema import Array
from rayclean.train.batches import Batch, Lesson
from rayclean.train.feed import Feed, FeedSettings, shuffled, stream_rows
from rayclean.train.plan import plan_stream
from tests.helpers import Content

CACHED, STREAMED = 2**30, 0


def settings_of(cache_bytes: int, shuffle_rows: int = 10, batch_size: int = 7, seed: int = 0) -> FeedSettings:
    return FeedSettings(8, 1e6, cache_bytes, shuffle_rows, batch_size, seed)


@pytest.fixture(scope="module")
def catalog(scored: Run) -> Catalog:
    return scored.catalog


@pytest.fixture(scope="module")
def images(catalog: Catalog) -> Array:
    """All images, by offset."""
    return catalog.pixels(8, 1e6).read(np.arange(catalog.num_rows))


def contents(batches: Iterator[Batch]) -> list[tuple[bytes, int]]:
    """Image and label of every sample of an epoch, in order."""
    return [
        (image.numpy().tobytes(), int(label))
        for batch in batches
        for image, label in zip(batch.images, batch.labels, strict=True)
    ]


def expected(catalog: Catalog, images: Array) -> Counter[tuple[bytes, int]]:
    return Counter((image.tobytes(), int(label)) for image, label in zip(images, catalog.label, strict=True))


def test_streaming_a_shard_gives_the_rows_of_the_catalog(catalog: Catalog, images: Array) -> None:
    found = [item for shard in range(4) for item in stream_rows(catalog, shard, settings_of(STREAMED))]
    assert [row for row, _ in found] == list(range(catalog.num_rows))
    np.testing.assert_array_equal(np.stack([image for _, image in found]), images)


@pytest.mark.parametrize("cache_bytes", [CACHED, STREAMED], ids=["cached", "streamed"])
@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_an_epoch_is_every_row_once(cache_bytes: int, batch_size: int, catalog: Catalog, images: Array) -> None:
    feed = Feed(catalog, settings_of(cache_bytes, batch_size=batch_size), 0, 1)
    assert (feed.cache is not None) == (cache_bytes == CACHED)
    for epoch in (1, 2):
        assert Counter(contents(feed.batches(epoch))) == expected(catalog, images)


@pytest.mark.parametrize("cache_bytes", [CACHED, STREAMED], ids=["cached", "streamed"])
@pytest.mark.parametrize("ranks", [2, 3, 5, 7])
def test_ranks_share_the_rows_in_equal_steps(cache_bytes: int, ranks: int, catalog: Catalog, images: Array) -> None:
    epochs = [list(Feed(catalog, settings_of(cache_bytes), rank, ranks).batches(3)) for rank in range(ranks)]
    assert len({tuple(len(batch.labels) for batch in batches) for batches in epochs}) == 1
    total = sum((Counter(contents(iter(batches))) for batches in epochs), Counter())
    assert not expected(catalog, images) - total
    repeated = (total - expected(catalog, images)).total()
    assert repeated == -(-catalog.num_rows // ranks) * ranks - catalog.num_rows


@pytest.mark.parametrize("cache_bytes", [CACHED, STREAMED], ids=["cached", "streamed"])
@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("share", [0.05, 0.6])
def test_a_lesson_is_its_rows_once_with_its_labels(
    share: float, ranks: int, cache_bytes: int, catalog: Catalog, images: Array
) -> None:
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(catalog.num_rows) < share, rng.integers(0, 9, catalog.num_rows), -1)
    weights = rng.random(catalog.num_rows).astype(np.float32)
    lesson = Lesson(labels, weights)
    feeds = [Feed(catalog, settings_of(cache_bytes), rank, ranks, lesson) for rank in range(ranks)]
    found = [batch for feed in feeds for batch in feed.batches(1)]
    seen = Counter(
        (image.numpy().tobytes(), int(label), float(weight))
        for batch in found
        for image, label, weight in zip(batch.images, batch.labels, batch.weights, strict=True)  # type: ignore[arg-type]
    )
    wanted = Counter((images[row].tobytes(), int(labels[row]), float(weights[row])) for row in lesson.rows)
    assert not wanted - seen
    assert set(seen) == set(wanted)
    assert seen.total() == -(-len(lesson.rows) // ranks) * ranks


def test_two_passes_of_an_epoch_have_two_orders(catalog: Catalog) -> None:
    feed = Feed(catalog, settings_of(CACHED), 0, 1)
    rows = np.arange(0, catalog.num_rows, 2)
    passes = [np.concatenate([some for some, _ in feed.row_batches(rows, seed, 1, 8)]) for seed in (1, 2, 1)]
    assert sorted(passes[0]) == sorted(passes[1]) == rows.tolist()
    assert passes[0].tolist() != passes[1].tolist()
    np.testing.assert_array_equal(passes[0], passes[2])


def test_nobody_reads_ahead_for_a_pass_that_was_left(catalog: Catalog) -> None:
    before = threading.active_count()
    feed = Feed(catalog, settings_of(STREAMED, batch_size=1), 0, 1)
    batches = feed.row_batches(np.arange(catalog.num_rows), 0, 1, 1)
    next(batches)
    assert threading.active_count() > before
    batches.close()  # type: ignore[attr-defined]
    deadline_s = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_shards_are_cut_for_the_ranks_of_this_run(catalog: Catalog) -> None:
    plans = plan_stream(0, 3, 5, catalog.shards["rows"].to_numpy(), 7)
    rows = catalog.shards["rows"].to_pylist()
    assert any(part.stop - part.start < rows[part.shard] for plan in plans for part in plan.parts)


@pytest.mark.parametrize("cache_bytes", [CACHED, STREAMED], ids=["cached", "streamed"])
def test_an_epoch_repeats_whatever_was_read_before(cache_bytes: int, catalog: Catalog) -> None:
    fresh, used = (Feed(catalog, settings_of(cache_bytes), 0, 2) for _ in range(2))
    before = [contents(used.batches(epoch)) for epoch in (1, 2)]
    assert contents(fresh.batches(2)) == before[1] == contents(used.batches(2))
    assert before[0] != before[1]
    assert contents(Feed(catalog, settings_of(cache_bytes, seed=1), 0, 2).batches(2)) != before[1]


@pytest.mark.parametrize("cache_bytes", [CACHED, STREAMED], ids=["cached", "streamed"])
def test_the_evaluation_pass_reads_rows_in_order(cache_bytes: int, catalog: Catalog, images: Array) -> None:
    feed = Feed(catalog, settings_of(cache_bytes), 1, 2)
    np.testing.assert_array_equal(feed.images(np.arange(3, 40)), images[3:40])


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(1, 20), st.integers(0, 99))
def test_the_buffer_shuffles_and_loses_nothing(num_items: int, size: int, seed: int) -> None:
    items = [(row, np.zeros(0)) for row in range(num_items)]
    found = [row for row, _ in shuffled(iter(items), size, random.Random(seed))]
    assert sorted(found) == list(range(num_items))
    assert all(row < place + size for place, row in enumerate(found))  # none comes before it was read


def test_a_buffer_is_really_used(catalog: Catalog) -> None:
    def order(shuffle_rows: int) -> list[tuple[bytes, int]]:
        return contents(Feed(catalog, settings_of(STREAMED, shuffle_rows), 0, 1).batches(1))

    assert order(1) != order(50)


def test_a_shard_that_changed_is_an_error(
    tiny_config: Callable[..., Config],
    finish: Callable[..., Run],
    tiny_samples: list[list[Content]],
    write_tiny: Callable[..., str],
    tmp_path: Path,
) -> None:
    pattern = write_tiny(tmp_path / "shards", tiny_samples, (20,))
    catalog = finish(tiny_config(tmp_path / "run", f"data.shards={pattern}")).catalog
    write_tiny(tmp_path / "shards", tiny_samples[:-9], (20,))
    with pytest.raises(UnitError, match=r"01\.tar.*expected \d+ samples of the catalog, found \d+"):
        list(stream_rows(catalog, 1, settings_of(STREAMED)))
    with pytest.raises(UnitError, match=r"01\.tar"):  # through the thread that reads ahead, too
        list(Feed(catalog, settings_of(STREAMED), 0, 1).batches(1))
    with pytest.raises(ShardChangedError, match=r"01\.tar"):
        Feed(catalog, settings_of(STREAMED), 0, 1).images(np.arange(30, 40))

"""The units of a run, embed to merge: same bytes in any order, after deletions, and the same scores however it is cut.

docs/design.md, section 5, from the snapshot on; the cases of few neighbours are those of docs/methods.md, section 2.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rayclean.config import Config
from rayclean.embed.beliefs import with_rest
from rayclean.run.grow import grow
from rayclean.run.run import Run
from rayclean.schema import Array
from rayclean.scores.interpolate_stage import reduce_by_row
from rayclean.scores.trajectory import trajectory_scores
from rayclean.storage.contents import encode, map_arrays, read_table
from rayclean.storage.executor import POOLS, Inline, JobReport, TrainingJob, Watcher
from rayclean.storage.graph import Graph, Schedule
from rayclean.storage.store import Store
from rayclean.storage.units import TRAIN, compute_and_publish, num_blocks
from rayclean.train.trajectories import read_trajectory
from tests.helpers import Content, sample

FEW, COPIES, LONELY = 3, 4, 5  # classes of the tiny run: 3 samples, 3 exact copies, 1 sample
NUM_NEIGHBORS = 4
SCORES = ("score_loss", "score_margin", "score_iofm", "score_iofm_last", "score_vote", "label_score")
WITHOUT_VOTE = tuple(name for name in SCORES if name != "score_vote")

Finish = Callable[..., Run]
Tiny = Callable[..., Config]


def table_of(run: Run) -> pa.Table:
    names = [name for name in run.store.list("labels") if name.startswith("part-")]
    return pa.concat_tables([read_table(run.store, f"labels/{name}") for name in names])


def labels_digest(run: Run) -> str:
    names = [name for name in run.store.list("labels") if name.startswith("part-")]
    assert len(names) > 1
    return hashlib.sha256(b"".join(run.store.read(f"labels/{name}") for name in names)).hexdigest()


BESIDE = re.compile(r"/classes-|/_environment\.json")


def unit_files(run: Run) -> list[str]:
    """The files of all units past the catalog, without what lies beside them."""
    root = Path(run.store.path)
    names = [str(path.relative_to(root)) for path in root.glob("*-*/**/*") if path.is_file()]
    return sorted(name for name in names if not name.startswith(("catalog-", "train-")) and not BESIDE.search(name))


class InOrder(Inline):
    """Computes what is ready in some order, each unit opened anew as by an actor of its own."""

    def __init__(self, order: Callable[[list[str]], Sequence[str]]) -> None:
        super().__init__()
        self.order = order

    def run(self, grow: Callable[[], Graph], watcher: Watcher | None = None) -> list[JobReport]:
        schedule = Schedule(grow)
        while True:
            ready = list(iter(lambda: schedule.pop((*POOLS, TRAIN)), None))
            if not ready:
                return []
            for place in self.order([str(i) for i in range(len(ready))]):
                job, unit = ready[int(place)]
                if isinstance(job, TrainingJob):
                    job.train(self.train, Watcher().meter(job.stage))
                else:
                    compute_and_publish(job, job.open(), unit, "{}")
                schedule.done(job)


def shuffled(seed: int) -> Callable[[list[str]], Sequence[str]]:
    return lambda units: [str(unit) for unit in np.random.default_rng(seed).permutation(units)]


@pytest.mark.parametrize("order", [lambda units: units[::-1], shuffled(1)], ids=["backwards", "shuffled"])
def test_any_order_of_units_gives_the_same_bytes(
    order: Callable[[list[str]], Sequence[str]], scored: Run, tiny_config: Tiny, finish: Finish, tmp_path: Path
) -> None:
    other = finish(tiny_config(tmp_path / "other"), InOrder(order))
    assert unit_files(other) == unit_files(scored)
    assert [name for name in unit_files(scored) if other.store.read(name) != scored.store.read(name)] == []
    assert labels_digest(other) == labels_digest(scored)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_deleted_comes_back_the_same(
    seed: int, scored: Run, tiny_config: Tiny, finish: Finish, tmp_path: Path
) -> None:
    config = tiny_config(tmp_path / "again")
    run = finish(config)
    rng = np.random.default_rng(seed)
    for name in rng.permutation(unit_files(run))[: len(unit_files(run)) * (seed + 1) // 4]:
        run.store.remove(str(name))
    run.store.remove("labels")
    again = finish(config, InOrder(shuffled(seed)))
    assert labels_digest(again) == labels_digest(scored)
    assert [name for name in unit_files(again) if again.store.read(name) != scored.store.read(name)] == []


def test_a_finished_run_has_nothing_left_to_do(trained: Run) -> None:
    assert [job.missing() for job in grow(trained).jobs.values() if job.missing()] == []


def assert_same_scores(one: Run, other: Run, names: Sequence[str] = SCORES) -> None:
    """Key by key to 1e-6; what names a row by its number is left out."""
    tables = [table_of(run).drop_columns(["row", "shard", "neighbor_rows", "duplicate_of"]) for run in (one, other)]
    found, expected = (table.sort_by("key").to_pydict() for table in tables)
    assert found["key"] == expected["key"]
    for name in names:
        values, wanted = (np.array(column, np.float64) for column in (found[name], expected[name]))
        np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-6, err_msg=name)
    for name in ("given_label", "predicted_label", "few_neighbors", "is_label_issue"):
        assert found[name] == expected[name]


def test_another_sharding_gives_the_same_scores(
    scored: Run,
    tiny_config: Tiny,
    finish: Finish,
    tiny_samples: list[list[Content]],
    write_tiny: Callable[..., str],
    tmp_path: Path,
) -> None:
    order = np.random.default_rng(5).permutation(len(tiny_samples))
    pattern = write_tiny(tmp_path / "shards", [tiny_samples[i] for i in order], (3, 30))
    other = finish(tiny_config(tmp_path / "run", f"data.shards={pattern}"))
    assert other.catalog.shards.num_rows == 3
    assert table_of(other)["key"].to_pylist() != table_of(scored)["key"].to_pylist()
    assert_same_scores(other, scored, WITHOUT_VOTE)


def test_another_sharding_gives_the_same_votes(
    scored: Run,
    tiny_config: Tiny,
    finish: Finish,
    tiny_samples: list[list[Content]],
    write_tiny: Callable[..., str],
    tmp_path: Path,
) -> None:
    pattern = write_tiny(tmp_path / "shards", tiny_samples[::-1], (20,))
    assert_same_scores(finish(tiny_config(tmp_path / "run", f"data.shards={pattern}")), scored, ["score_vote"])


@pytest.mark.parametrize(
    "overrides",
    [
        ("blocks.rows=7", "blocks.table_rows=21", "blocks.pairs=1000", "blocks.index_rows=1000"),
        ("blocks.rows=64", "blocks.table_rows=64", "blocks.pairs=1", "blocks.index_rows=1"),
        ("score.batch_size=5",),
    ],
)
def test_other_sizes_give_the_same_scores(
    overrides: tuple[str, ...], scored: Run, tiny_config: Tiny, finish: Finish, tmp_path: Path
) -> None:
    assert_same_scores(finish(tiny_config(tmp_path, *overrides)), scored)


def test_a_pool_gives_the_same_scores_in_another_sharding(
    tiny_config: Tiny,
    finish: Finish,
    tiny_samples: list[list[Content]],
    write_tiny: Callable[..., str],
    tmp_path: Path,
) -> None:
    pattern = write_tiny(tmp_path / "shards", tiny_samples[::-1], (20,))
    one = finish(tiny_config(tmp_path / "one", "neighbors.pool=6"))
    other = finish(tiny_config(tmp_path / "other", "neighbors.pool=6", f"data.shards={pattern}"))
    assert_same_scores(one, other, WITHOUT_VOTE)


def test_scores_equal_the_definition(scored: Run) -> None:
    """The whole way from the shards: (H+1) L forwards a row, from pixels and lists found here."""
    import torch

    from rayclean.train.forward import Forward
    from rayclean.train.snapshots import load_snapshot

    run, steps = scored, scored.config.iofm.steps
    snapshot = run.main.trained.snapshots[-1]
    forward = Forward(load_snapshot(run.store, snapshot.file, run.network.spec), run.network.spec, run.network.forward)
    rows = np.arange(run.catalog.num_rows)
    images = forward.normalized(run.catalog.pixels(8, 1e6).read(rows))
    features = run.main.embed(snapshot).embedding.features(rows).astype(np.float64)
    found = table_of(run)
    labels, digests = run.catalog.label, run.catalog.digest
    assert found["row"].to_pylist() == rows.tolist()
    for i in rows:
        others = [
            (float(((features[j] - features[i]) ** 2).sum()), j)
            for j in rows
            if j != i and labels[j] == labels[i] and not (digests[j] == digests[i]).all()
        ]
        near = [j for _, j in sorted(others)[:NUM_NEIGHBORS]]
        paths = [torch.stack([torch.lerp(images[i], images[j], h / steps) for h in range(steps + 1)]) for j in near]
        weights = torch.tensor([0.5, *[1.0] * (steps - 1), 0.5]) / steps
        beliefs = [(weights @ forward.probabilities(path)).numpy() for path in paths]
        belief = np.mean(beliefs, axis=0) if beliefs else forward.probabilities(images[i][None])[0].numpy()
        assert found["score_iofm"][i].as_py() == pytest.approx(belief[labels[i]], abs=1e-6)
        np.testing.assert_allclose(scored.score_files().beliefs_of(np.array([i]))[0], belief, atol=1e-6)
        assert found["few_neighbors"][i].as_py() == (len(near) < NUM_NEIGHBORS)


def own_beliefs(run: Run) -> Array:
    return run.main.embed(run.main.trained.snapshots[-1]).embedding.beliefs(np.arange(run.catalog.num_rows))


def test_rows_without_neighbours_keep_their_own_belief(scored: Run) -> None:
    found, own = table_of(scored).to_pandas(), own_beliefs(scored)
    for label, rows in ((LONELY, 1), (COPIES, 3)):
        here = np.flatnonzero(scored.catalog.label == label)
        assert len(here) == rows
        np.testing.assert_array_equal(found["score_iofm"][here], own[here, label].astype(np.float32))
        assert found["few_neighbors"][here].all()
        np.testing.assert_allclose(scored.score_files().beliefs_of(here), own[here, :-1], rtol=1e-6)


def test_fewer_samples_than_neighbours_are_averaged_over_those_there_are(scored: Run) -> None:
    found = table_of(scored).to_pandas()
    assert (scored.catalog.label == FEW).sum() == 3
    here = (found["given_label"] == FEW).to_numpy()
    assert found["few_neighbors"][here].all()
    assert not found["few_neighbors"][found["given_label"] < FEW].any()
    assert np.isfinite(found["score_iofm"]).all()
    paths = scored.interpolate(scored.walks[-1])
    counted = np.concatenate([map_arrays(scored.store, paths.file(unit))["num_paths"] for unit in paths.units()])
    assert set(counted[here]) == {2}
    assert set(counted[~here & (found["given_label"] < FEW).to_numpy()]) == {NUM_NEIGHBORS}


def lists_of(run: Run, kind: str) -> Array:
    """The lists of a kind, by row."""
    folder = f"{run.lists_folder(run.walks[-1].space, run.walks[-1].num)}/{kind}"
    lists = np.concatenate([map_arrays(run.store, f"{folder}/{name}")["rows"] for name in run.store.list(folder)])
    return lists if kind == "any" else lists[np.argsort(run.catalog.by_label)]


def test_copies_are_neighbours_only_under_another_label(scored: Run) -> None:
    catalog = scored.catalog
    same, anyone = lists_of(scored, "same"), lists_of(scored, "any")
    twins = [
        (i, j)
        for i in range(catalog.num_rows)
        for j in range(catalog.num_rows)
        if i != j and (catalog.digest[i] == catalog.digest[j]).all()
    ]
    assert {catalog.label[i] == catalog.label[j] for i, j in twins} == {True, False}
    for i, j in twins:
        assert j not in same[i]
        assert (j in anyone[i]) == (catalog.label[i] != catalog.label[j])
    for row, mine in enumerate(same):
        assert row not in mine
        assert (catalog.label[mine[mine >= 0]] == catalog.label[row]).all()


def write_run(folder: Path, labels: Sequence[int], seeds: Sequence[int], write_tiny: Callable[..., str]) -> str:
    each = [sample(f"k{i}", label, seed) for i, (label, seed) in enumerate(zip(labels, seeds, strict=True))]
    return write_tiny(folder, each, [1])


@pytest.mark.parametrize(
    ("labels", "seeds"),
    [([2], [0]), ([0] * 9, range(9)), ([1] * 6, [7] * 6), ([0, 1, 2, 3, 4], range(5)), ([0, 1] * 4, [3] * 8)],
    ids=["one-sample", "one-class", "only-copies", "one-of-each", "copies-under-two-labels"],
)
def test_runs_of_hardly_anything_have_a_result(
    labels: list[int],
    seeds: Sequence[int],
    tiny_config: Tiny,
    finish: Finish,
    write_tiny: Callable[..., str],
    tmp_path: Path,
) -> None:
    pattern = write_run(tmp_path / "shards", labels, seeds, write_tiny)
    run = finish(tiny_config(tmp_path / "run", f"data.shards={pattern}", "data.truth="))
    found, own = table_of(run).to_pandas(), own_beliefs(run)
    assert found["given_label"].tolist() == labels
    assert np.isfinite(found[["score_iofm", "label_score", "predicted_score"]]).all(axis=None)
    each = list(zip(labels, seeds, strict=True))
    others = [sum(other == label and image != mine for other, image in each) for label, mine in each]
    assert found["few_neighbors"].tolist() == [count < NUM_NEIGHBORS for count in others]
    alone = np.array(others) == 0
    at_label = own[np.arange(len(labels)), labels].astype(np.float32)
    np.testing.assert_array_equal(found["score_iofm"][alone], at_label[alone])
    copied = [min(i for i, t in enumerate(seeds) if t == s) for s in seeds]
    wanted = [None if first == i else first for i, first in enumerate(copied)]
    assert table_of(run)["duplicate_of"].to_pylist() == wanted
    if len(labels) == 1:
        assert found["score_vote"].isna().all()
        assert table_of(run)["neighbor_rows"].to_pylist() == [[]]


def test_a_single_class_is_certain(
    tiny_config: Tiny, finish: Finish, write_tiny: Callable[..., str], tmp_path: Path
) -> None:
    pattern = write_run(tmp_path / "shards", [0] * 12, range(12), write_tiny)
    overrides = ("data.classes=1", f"data.shards={pattern}", "data.truth=", "train.epochs=1", "train.from=")
    found = table_of(finish(tiny_config(tmp_path / "run", *overrides))).to_pandas()
    assert (found["score_iofm"] == 1).all()
    assert (found["score_vote"] == 1).all()
    assert (found["score_loss"] == 0).all()
    assert not found["is_label_issue"].any()


def test_forwards_are_those_of_distinct_pairs(scored: Run) -> None:
    paths, lists = scored.paths(scored.walks[-1]), lists_of(scored, "same")
    distinct = {(min(i, j), max(i, j)) for i, mine in enumerate(lists.tolist()) for j in mine if j >= 0}
    compute = paths.open()
    facts = [compute(unit).facts for unit in paths.units()]
    assert sum(each["pairs"] for each in facts) == len(distinct)
    assert sum(each["forwards"] for each in facts) == (scored.config.iofm.steps - 1) * len(distinct)


def test_the_vote_is_that_of_the_lists(scored: Run) -> None:
    found, lists, labels = table_of(scored), lists_of(scored, "any"), scored.catalog.label
    expected = [(labels[mine[mine >= 0]] == label).mean() for mine, label in zip(lists, labels, strict=True)]
    np.testing.assert_allclose(found["score_vote"].to_numpy(), expected, rtol=1e-6)
    assert found["neighbor_rows"].to_pylist() == lists[:, :3].tolist()
    assert found["neighbor_labels"].to_pylist() == labels[lists[:, :3]].tolist()


def test_trajectory_scores_are_those_of_the_epochs(trained: Run) -> None:
    blocks = range(num_blocks(trained.catalog.num_rows, trained.config.blocks.rows))
    epochs = []
    for epoch in (1, 2, 3):
        pieces = [read_trajectory(trained.store, trained.main.task.folder, epoch, block) for block in blocks]
        epochs.append([np.concatenate(column) for column in zip(*pieces, strict=True)])
    expected = trajectory_scores(*(np.stack(column) for column in zip(*epochs, strict=True)))
    found = table_of(trained)
    for name in ("loss", "ens_loss", "margin", "aum", "wrong_events"):
        np.testing.assert_allclose(found[f"score_{name}"].to_numpy(), expected[name], rtol=1e-6, atol=1e-9)


def test_iofm_is_the_mean_over_the_snapshots(trained: Run) -> None:
    jobs = [trained.interpolate(walk) for walk in trained.walks]
    assert [walk.snapshot.epoch for walk in trained.walks] == [2, 3]
    assert [snapshot.epoch for snapshot in trained.main.trained.snapshots] == [1, 2, 3]  # the first is ODD's
    scores = [
        np.concatenate([map_arrays(trained.store, job.file(unit))["score"] for unit in job.units()]) for job in jobs
    ]
    found = table_of(trained)
    np.testing.assert_array_equal(found["score_iofm"].to_numpy(), np.mean(scores, axis=0).astype(np.float32))
    np.testing.assert_array_equal(found["score_iofm_last"].to_numpy(), scores[-1].astype(np.float32))


@pytest.mark.parametrize("block_rows", [1, 4, 100])
def test_partial_sums_add_up_however_rows_are_cut(block_rows: int, tmp_path: Path) -> None:
    rng, num_rows, num_classes = np.random.default_rng(0), 11, 3
    store, total, counted = Store(str(tmp_path)), np.zeros((num_rows, num_classes)), np.zeros(num_rows, np.int64)
    files = []
    for i in range(5):
        rows = np.sort(rng.permutation(num_rows)[: rng.integers(0, num_rows + 1)])
        sums, num_paths = rng.random((len(rows), num_classes)).astype(np.float32), rng.integers(1, 4, len(rows))
        np.add.at(total, rows, sums)
        np.add.at(counted, rows, num_paths)
        content = {"rows": rows, "values": sums, "num_paths": num_paths.astype(np.int32)}
        store.publish(f"{i}.safetensors", encode(f"{i}.safetensors", content, "{}"))
        files.append(map_arrays(store, f"{i}.safetensors"))
    for start in range(0, num_rows, block_rows):
        stop = min(start + block_rows, num_rows)
        sums, num_paths = reduce_by_row(files, start, stop, num_classes)
        np.testing.assert_allclose(sums, with_rest(total[start:stop]), rtol=1e-12)
        np.testing.assert_array_equal(num_paths, counted[start:stop])


def test_as_many_vote_as_are_asked(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    run = finish(tiny_config(tmp_path / "run", "neighbors.vote_num=9"))
    catalog, found = run.catalog, table_of(run)
    features = run.main.embed(run.main.last).embedding.features(np.arange(catalog.num_rows)).astype(np.float64)
    for row in range(catalog.num_rows):
        distance = np.square(features - features[row]).sum(axis=1)
        copies = (catalog.digest == catalog.digest[row]).all(axis=1) & (catalog.label == catalog.label[row])
        distance[copies] = np.inf  # a row is a copy of itself
        nearest = np.lexsort((catalog.draw_id, distance))[:9]
        assert found["score_vote"][row].as_py() == pytest.approx((catalog.label[nearest] == catalog.label[row]).mean())

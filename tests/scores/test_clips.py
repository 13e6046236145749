"""Video: frames of one clip are no neighbours, noise takes whole clips, and clips have a table of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from rayclean.catalog.columns_stage import find_clips
from rayclean.config import Config, parse_config
from rayclean.errors import ConfigError
from rayclean.evaluate.evaluate import read_truth
from rayclean.evaluate.results import evaluate_run
from rayclean.run.families import influences
from rayclean.run.run import Run
from rayclean.schema import Array
from rayclean.scores import influence_solvers
from rayclean.storage.contents import map_arrays, read_json
from rayclean.storage.published import PART, Published
from tests.helpers import Content

Finish = Callable[..., Run]
Tiny = Callable[..., Config]
FRAMES = 3
CLIPS = "data.group=json:clip"
INFLUENCE = ("scores=[loss, osm, osd]", "influence.validation=split", "influence.validation_num=2")


@pytest.fixture(scope="session")
def video(
    tiny_samples: list[list[Content]],
    write_tiny: Callable[[Path, Sequence[Sequence[Content]], Sequence[int]], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """The tiny samples as frames: three a clip in the order of the shards, whatever their labels, and across shards."""
    frames = []
    for index, sample in enumerate(tiny_samples):
        members = dict(sample)
        text = next((name for name in members if name.endswith(".json")), None)
        if text is not None:
            members[text] = json.dumps({**json.loads(members[text]), "clip": f"clip {index // FRAMES}"}).encode()
        frames.append(list(members.items()))
    return write_tiny(tmp_path_factory.mktemp("video") / "shards", frames, (13, 1, 21))


def table_of(run: Run, kind: str) -> pa.Table:
    published = Published.open(run.store)
    return pa.concat_tables([published.read(path) for path in published.of_kind(kind)])


@pytest.fixture(scope="session")
def clips(tiny_config: Tiny, finish: Finish, video: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A scored run on frames."""
    return finish(
        tiny_config(tmp_path_factory.mktemp("clips") / "run", f"data.shards={video}", CLIPS, "merge.score=iofm")
    )


def names_of(run: Run) -> list[str]:
    """The clip of each row, as the shards have it."""
    shards = range(run.catalog.shards.num_rows)
    return [name for shard in shards for name in run.catalog.rows_of_shard(shard)["clip"].to_pylist()]


def test_a_clip_is_the_frames_of_one_name_and_one_label(clips: Run) -> None:
    pairs = list(zip(names_of(clips), clips.catalog.label.tolist(), strict=True))
    order = list(dict.fromkeys(pairs))
    assert [order.index(pair) for pair in pairs] == clips.catalog.clip.tolist()
    table = table_of(clips, "clips")
    assert list(zip(table["clip"].to_pylist(), table["given_label"].to_pylist(), strict=True)) == order
    assert table["frames"].to_pylist() == [pairs.count(pair) for pair in order]
    assert table["first_row"].to_pylist() == [pairs.index(pair) for pair in order]
    assert clips.catalog.summary["clips"] == len(order)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=30))
def test_clips_are_numbered_by_their_first_rows(rows: list[tuple[int, int]]) -> None:
    ids, labels = np.array(rows, np.uint64).reshape(-1, 2).T
    found = find_clips(ids, labels.astype(np.int32))
    order = list(dict.fromkeys(rows))
    assert found["clip"].tolist() == [order.index(row) for row in rows]
    pieces = [found["by_clip"][start:stop].tolist() for start, stop in pairwise(found["clip_starts"])]
    assert pieces == [[i for i, row in enumerate(rows) if row == clip] for clip in order]


def test_a_clip_scores_as_the_mean_of_its_frames(clips: Run) -> None:
    rows, table = table_of(clips, PART), table_of(clips, "clips")
    frames = [np.flatnonzero(clips.catalog.clip == clip) for clip in range(len(table))]
    for name in ("score_loss", "score_iofm", "score_vote"):
        scores = rows[name].to_numpy()
        expected = [np.nanmean(scores[each]) if (~np.isnan(scores[each])).any() else np.nan for each in frames]
        np.testing.assert_allclose(table[name].to_numpy(), expected, rtol=1e-6)
    order = np.argsort(table["score_iofm"].to_numpy(), kind="stable")
    steps = np.diff(table["label_score"].to_numpy()[order])
    assert steps.min() >= -1e-7, steps.min()


def test_clips_are_merged_jointly_with_the_lean_of_their_frames(
    tiny_config: Tiny, finish: Finish, video: str, tmp_path: Path
) -> None:
    run = finish(tiny_config(tmp_path / "run", f"data.shards={video}", CLIPS, "merge.score=joint"))
    merges = [run.merge(), run.merge_clips()]
    rows, clips = (read_json(run.store, each[0].file("model"))["model"] for each in merges if each is not None)
    assert clips["lean"] == rows["lean"]
    assert (clips["num_rows"], rows["num_rows"]) == (run.catalog.summary["clips"], run.catalog.num_rows)
    scores = table_of(run, "clips")["label_score"].to_numpy()
    assert ((scores > 0) & (scores < 1)).all()


def test_clips_are_evaluated(clips: Run) -> None:
    table, truth = table_of(clips, "clips"), read_truth(clips.catalog)
    clean = table["given_label"].to_numpy() == truth[table["first_row"].to_numpy()]
    found = evaluate_run(clips.config).clips
    assert found["label_score"] == pytest.approx(roc_auc_score(clean, table["label_score"]))
    assert found["loss"] == pytest.approx(roc_auc_score(clean, table["score_loss"]))


def test_frames_of_a_clip_are_no_neighbours(clips: Run) -> None:
    rows, clip = table_of(clips, PART), clips.catalog.clip
    for row, neighbors in enumerate(rows["neighbor_rows"].to_pylist()):
        assert clip[row] not in clip[neighbors]
    assert rows["neighbor_rows"].to_pylist()[0]


def test_blocks_do_not_matter(clips: Run, tiny_config: Tiny, finish: Finish, video: str, tmp_path: Path) -> None:
    cut = ("blocks.rows=5", "blocks.table_rows=10")
    other = finish(tiny_config(tmp_path / "run", f"data.shards={video}", CLIPS, "merge.score=iofm", *cut))
    one, two = table_of(clips, "clips"), table_of(other, "clips")
    for name in one.column_names:
        if name.startswith(("score", "label_score")):
            np.testing.assert_allclose(one[name].to_numpy(), two[name].to_numpy(), rtol=0, atol=1e-6)
        elif name != "predicted_score":
            assert one[name].to_pylist() == two[name].to_pylist()


def test_noise_takes_whole_clips(tiny_config: Tiny, finish: Finish, video: str, tmp_path: Path) -> None:
    noise = ("data.truth=", "noise.kind=symmetric_exclusive", "noise.rate=0.5")
    run = finish(tiny_config(tmp_path / "run", f"data.shards={video}", CLIPS, *noise))
    wrong, names, truth = run.catalog.label != read_truth(run.catalog), names_of(run), read_truth(run.catalog)
    of_clip: dict[tuple[str, int], set[bool]] = {}
    for name, label, flipped in zip(names, truth.tolist(), wrong.tolist(), strict=True):
        of_clip.setdefault((name, label), set()).add(flipped)
    assert all(len(each) == 1 for each in of_clip.values())
    assert 0 < sum(True in each for each in of_clip.values()) < len(of_clip)


def plain_influence(run: Run) -> tuple[Array, Array]:
    """(C,) norms of H^-1 times the clips' mean gradients, and these gradients (C, p)."""
    steps = next(iter(influences(run).values()))
    catalog, embedding = steps[0].catalog, steps[0].embedding
    rows = np.arange(catalog.num_rows)
    f = softmax(embedding.logits(rows).astype(np.float64), axis=1)
    h = np.c_[embedding.features(rows).astype(np.float64), np.ones(len(rows))]
    g = np.einsum("nk,nj->nkj", f - np.eye(f.shape[1])[catalog.label], h).reshape(len(rows), -1)
    curvature = [np.kron(np.diag(p) - np.outer(p, p), np.outer(x, x)) for p, x in zip(f, h, strict=True)]
    inverse = np.linalg.inv(np.mean(curvature, axis=0) + 0.01 * np.eye(g.shape[1]))
    means = np.stack([g[catalog.clip == clip].mean(axis=0) for clip in range(catalog.clip.max() + 1)])
    return np.linalg.norm(means @ inverse, axis=1), means


@pytest.mark.parametrize("dense", [True, False])
def test_influence_of_the_mean_gradient(
    tiny_config: Tiny, finish: Finish, video: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dense: bool
) -> None:
    if not dense:
        monkeypatch.setattr(influence_solvers, "DENSE_PARAMETERS", 10)
    changes = (*INFLUENCE, "data.group_by=gradient", "influence.probes=4000")
    run = finish(tiny_config(tmp_path / "run", f"data.shards={video}", CLIPS, *changes))
    norms, means = plain_influence(run)
    expected = -(norms - norms.mean()) / norms.std()
    found = table_of(run, "clips")["score_osm"].to_numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 if dense else 0.2)
    rows = table_of(run, PART)
    np.testing.assert_allclose(rows["score_osm"].to_numpy(), found[run.catalog.clip], rtol=0, atol=1e-6)
    steps = next(iter(influences(run).values()))
    raw = np.concatenate([map_arrays(run.store, steps[1].file(unit))["deviation"] for unit in steps[1].units()])
    solved = map_arrays(run.store, f"{steps[0].folder}/solved.safetensors")
    influence = means @ solved["validation"].reshape(-1, means.shape[1]).T
    for k in np.flatnonzero(np.bincount(solved["labels"]) > 1):
        expected = influence[:, solved["labels"] == k].std(axis=1)[run.catalog.clip]
        np.testing.assert_allclose(raw[:, k], expected, rtol=1e-6, atol=1e-12)


def test_scores_of_frames_are_another_thing(tiny_config: Tiny, finish: Finish, video: str, tmp_path: Path) -> None:
    changes = (*INFLUENCE, "run.seed=0")
    by_scores = finish(tiny_config(tmp_path / "scores", f"data.shards={video}", CLIPS, *changes))
    by_gradient = finish(
        tiny_config(tmp_path / "gradient", f"data.shards={video}", CLIPS, *changes, "data.group_by=gradient")
    )
    one, two = (table_of(run, "clips")["score_osm"].to_numpy() for run in (by_scores, by_gradient))
    assert np.abs(one - two).max() > 0.01


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"data": {"group_by": "gradient"}}, "data.group does not say"),
        ({"data": {"group": "json:clip"}, "noise": {"kind": "instance", "rate": 0.2}}, "whole clips"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, dict[str, object]], text: str) -> None:
    data = {"shards": "x.tar", "classes": 2, **changes.get("data", {})}
    with pytest.raises(ConfigError, match=text):
        parse_config({"run": {"dir": "runs/x"}, **changes, "data": data}, "config.yaml")

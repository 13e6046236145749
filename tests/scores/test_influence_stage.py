"""OSM and OSD of a run: the plain formula on the run's own embedding, whatever solves it and however it is cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import softmax

from rayclean.config import Config, parse_config
from rayclean.errors import ConfigError
from rayclean.evaluate import results
from rayclean.run.families import influences
from rayclean.run.run import Run
from rayclean.schema import Array
from rayclean.scores import influence_solvers
from rayclean.storage.contents import map_arrays, read_json, read_table

Finish = Callable[..., Run]
Tiny = Callable[..., Config]
SPLIT = ("scores=[loss, osm, osd]", "influence.validation=split", "influence.validation_num=2")


def table_of(run: Run) -> pa.Table:
    names = [name for name in run.store.list("labels") if name.startswith("part-")]
    return pa.concat_tables([read_table(run.store, f"labels/{name}") for name in names])


def gradients_of(run: Run, which: str = "rest") -> tuple[Array, Array, Array]:
    """(N, p) gradients, (N, K) probabilities and (N, d+1) features with their 1."""
    steps = next(iter(influences(run).values()))
    job = steps[0]
    catalog, embedding = (job.catalog, job.embedding) if which == "rest" else job.verified or (None, None)
    assert catalog is not None
    assert embedding is not None
    rows = np.arange(catalog.num_rows)
    f = softmax(embedding.logits(rows).astype(np.float64), axis=1)
    h = np.c_[embedding.features(rows).astype(np.float64), np.ones(len(rows))]
    residual = f - np.eye(f.shape[1])[catalog.label]
    return np.einsum("nk,nj->nkj", residual, h).reshape(len(rows), -1), f, h


def plain_norms(run: Run) -> tuple[Array, Array]:
    """(N,) norms of H^-1 g, and H^-1 itself."""
    g, f, h = gradients_of(run)
    size = f.shape[1] * h.shape[1]
    curvature = [np.kron(np.diag(p) - np.outer(p, p), np.outer(x, x)) for p, x in zip(f, h, strict=True)]
    inverse = np.linalg.inv(np.mean(curvature, axis=0) + 0.01 * np.eye(size))
    return np.linalg.norm(g @ inverse, axis=1), inverse


def z_score(values: Array) -> Array:
    spread = values.std(axis=0)
    # Equal images are hit alike: 0.
    return np.asarray((values - values.mean(axis=0)) / np.where(spread > 0, spread, 1))


@pytest.fixture(scope="module")
def split(tiny_config: Tiny, finish: Finish, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finish(tiny_config(tmp_path_factory.mktemp("split") / "run", *SPLIT))


def test_osm_equals_the_definition(split: Run) -> None:
    expected = -z_score(plain_norms(split)[0])
    np.testing.assert_allclose(table_of(split)["score_osm"].to_numpy(), expected, rtol=0, atol=1e-6)


def test_osd_equals_the_definition(split: Run) -> None:
    steps = next(iter(influences(split).values()))
    labels = map_arrays(split.store, f"{steps[0].folder}/solved.safetensors")["labels"]
    verified = split.derived["held_out"]
    chosen = [np.flatnonzero(verified.label == k)[: (labels == k).sum()] for k in range(6)]
    assert (np.bincount(labels, minlength=6) <= 2).all()
    inverse = plain_norms(split)[1]
    influence = -gradients_of(split)[0] @ inverse @ gradients_of(split, "held_out")[0].T
    # Classes whose verified rows are all used, so that which ones were drawn does not matter here.
    whole = [k for k in range(6) if (verified.label == k).sum() == len(chosen[k]) > 1]
    assert len(whole) > 2
    raw = np.concatenate([map_arrays(split.store, steps[1].file(unit))["deviation"] for unit in steps[1].units()])
    for k in whole:
        np.testing.assert_allclose(raw[:, k], influence[:, chosen[k]].std(axis=1), rtol=1e-6)
    known = ~np.isnan(raw).all(axis=0)
    expected = -z_score(raw[:, known]).mean(axis=1)
    np.testing.assert_allclose(table_of(split)["score_osd"].to_numpy(), expected, rtol=0, atol=1e-6)


def test_votes_are_in_the_table(split: Run) -> None:
    votes = table_of(split)["osd_votes"]
    assert votes.type == pa.int16()
    assert 0 <= min(votes.to_pylist()) < max(votes.to_pylist()) <= 6
    assert b"more suspicious" in table_of(split).schema.field("osd_votes").metadata[b"meaning"]


def test_verified_rows_are_not_in_the_table(split: Run) -> None:
    assert len(table_of(split)) == split.source.num_rows - split.derived["held_out"].num_rows


def test_the_record_says_how_much_the_damping_decides(split: Run) -> None:
    steps = next(iter(influences(split).values()))
    facts = read_json(split.store, f"{steps[0].folder}/solver.json")
    assert 0 < facts["damping_share"] < 1
    assert facts["parameters"] == 6 * 17
    assert facts["spectrum"]["0.0"] == pytest.approx(0.01, rel=1e-6)  # the Hessian itself is singular


def test_blocks_do_not_matter(split: Run, tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    cut = ("blocks.rows=5", "blocks.table_rows=20")
    other = finish(tiny_config(tmp_path / "run", *SPLIT, *cut))
    for name in ("score_osm", "score_osd"):
        one, two = (table_of(run)[name].to_numpy() for run in (split, other))
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-6)


def test_probes_are_near_the_exact_scores(
    split: Run, tiny_config: Tiny, finish: Finish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(influence_solvers, "DENSE_PARAMETERS", 1)
    run = finish(tiny_config(tmp_path / "run", *SPLIT, "influence.probes=20000"))
    exact, solved = (table_of(each)["score_osd"].to_numpy() for each in (split, run))
    np.testing.assert_allclose(exact, solved, rtol=0, atol=1e-4)
    osm = [table_of(each)["score_osm"].to_numpy() for each in (split, run)]
    assert np.corrcoef(*osm)[0, 1] > 0.999
    assert np.abs(osm[0] - osm[1]).max() < 0.1


def test_verified_shards_of_their_own(tiny_shards: str, tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    fixed = ("scores=[osm, osd]", f"influence.validation={tiny_shards}", "influence.validation_label=json:truth")
    run = finish(tiny_config(tmp_path / "run", *fixed))
    steps = next(iter(influences(run).values()))
    assert run.derived == {}
    assert steps[0].verified is not None
    assert steps[0].verified.catalog.fingerprint != run.catalog.fingerprint
    assert len(table_of(run)) == run.source.num_rows
    assert table_of(run)["score_osd"].null_count == 0


def test_osm_needs_no_verified_rows(tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    found = table_of(finish(tiny_config(tmp_path / "run", "scores=[osm]")))
    assert found["score_osm"].null_count == 0
    assert "osd_votes" not in found.column_names


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scores": ["osd"]}, "score osd needs verified samples"),
        ({"influence": {"role": "cee"}}, "influence.role: no role 'cee'"),
        ({"influence": {"gamma": 1.5}}, "influence.gamma"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config({"run": {"dir": "r"}, "data": {"shards": "s", "classes": 3}, **changes})


def test_a_network_that_is_sure_of_its_labels_is_warned_of(
    split: Run, tiny_config: Tiny, finish: Finish, tmp_path: Path
) -> None:
    assert results.warnings(split) == []
    damped = finish(tiny_config(tmp_path / "run", "scores=[osm]", "influence.damping=1e6"))
    assert "the damping decides 100% of the influence" in results.warnings(damped)[0]
    without = finish(tiny_config(tmp_path / "without", "scores=[loss]"))
    assert results.warnings(without) == []

"""Learning with the result on features that lie beside the labels: every method, without an image."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from rayclean.catalog.stage import find_sources
from rayclean.config import Config, load_config, override_config
from rayclean.errors import ConfigError, InputError
from rayclean.learn import command
from rayclean.learn.decay import OUT_OF_FOLD, VERIFIED
from rayclean.learn.lesson_jobs import read_columns
from rayclean.learn.result import Result
from rayclean.run.run import Run
from rayclean.run.start import ONE_WORKER, start
from rayclean.schema import LEFT_OUT
from rayclean.storage.contents import map_arrays
from rayclean.storage.executor import Inline
from rayclean.storage.store import Store
from rayclean.train.batches import Lesson
from rayclean.train.feature_feed import FeatureFeedSettings
from rayclean.train.feed import Feed
from rayclean.train.inputs import FeatureInputs
from rayclean.train.spec import feature_spec
from tests.helpers import write_tar

Learn = Callable[..., Result]
K, D = 4, 24
TRAIN, TEST, KNOWN = 480, 400, 80


def write_shards(folder: Path, num: int, seed: int, noise: float, num_features: int = D) -> str:
    """Two shards of made features around the centers of classes, of which some have the next class's label."""
    rng, folder_ = np.random.default_rng(seed), folder
    folder_.mkdir(parents=True)
    centers = np.random.default_rng(0).normal(size=(K, num_features)) * 0.8
    truth = rng.integers(0, K, num)
    given = np.where(rng.random(num) < noise, (truth + 1) % K, truth)
    features = (centers[truth] + rng.normal(size=(num, num_features))).astype(np.float32)
    for shard in range(2):
        members = []
        for row in range(shard, num, 2):
            content = io.BytesIO()
            np.save(content, features[row])
            key = f"{seed}-{row:05d}"
            members += [
                (f"{key}.cls", str(given[row]).encode()),
                (f"{key}.json", json.dumps({"truth": int(truth[row])}).encode()),
                (f"{key}.npy", content.getvalue()),
            ]
        write_tar(folder_ / f"{shard}.tar", members)
    return f"{folder_}/*.tar"


@pytest.fixture(scope="module")
def config(finish: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A finished run on noisy labels that knows test samples and verified ones."""
    folder = tmp_path_factory.mktemp("features")
    tree = {
        "run": {"dir": str(folder / "run")},
        "data": {
            "shards": write_shards(folder / "train", TRAIN, 1, 0.4),
            "image": "none",
            "features": "npy",
            "truth": "json:truth",
            "classes": K,
        },
        "train": {"batch_size": 64},
        "blocks": {"rows": 200, "table_rows": 400},
        "learn": {
            "test": write_shards(folder / "test", TEST, 2, 0.0),
            "dividemix": {"epochs": 3, "warmup": 1, "batch_size": 32},
            "rank": {"epochs": 2, "rounds": 1},
        },
        "influence": {"validation": write_shards(folder / "known", KNOWN, 3, 0.0), "gamma": 1},
    }
    (folder / "given.yaml").write_text(yaml.safe_dump(tree))
    made = load_config(folder / "given.yaml", ())
    finish(made)
    return made


def opened(config: Config) -> Run:
    return start(config, Store(config.run.dir), find_sources(config.data), ONE_WORKER, leaves_word=False)


@pytest.fixture
def learn(config: Config, one_thread: None) -> Learn:
    """`learn(method, "section.field=value", ...)` in this process."""

    def do(method: str, *overrides: str) -> Result:
        return command.learn_by(opened(override_config(config, overrides)), method, Inline(), Console(quiet=True))

    return do


def bytes_of(config: Config, folder: str) -> dict[str, bytes]:
    """Snapshots and accuracies in a folder, by name."""
    root = Path(config.run.dir) / folder
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.safetensors"))}


METHODS = {
    "plain": ("plain", "on everything"),
    "cut": ("retrain", "retrain by cut"),
    "weight": ("retrain", "retrain by weight", "learn.retrain.by=weight"),
    "predicted": ("retrain", "retrain by predicted", "learn.retrain.by=predicted"),
    "posterior": ("retrain", "retrain by posterior", "learn.retrain.by=posterior"),
    "odd": ("odd", "ODD"),
    "rank": ("influential_rank", "round 1"),
    "rog": ("rog", "RoG"),
    **{
        score: ("dividemix", name, f"learn.dividemix.score={score}")
        for score, name in {
            "loss": "DivideMix",
            "iofm": "DivideMix by iofm",
            "inn": "DivideMix by inn",
            "joint": "DivideMix by joint",
        }.items()
    },
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_and_comes_back_with_the_same_bytes(name: str, learn: Learn, config: Config) -> None:
    method, trial_name, *fields = METHODS[name]
    first = learn(method, *fields)
    (trial,) = (each for each in first.trials if each.name == trial_name)
    assert trial.last is not None
    assert trial.last > 0.5
    folder, store = trial.folder, Store(config.run.dir)
    before = bytes_of(config, folder)
    assert before
    store.remove(folder)
    if lesson := trial.lesson:
        store.remove(lesson)
    again = learn(method, *fields)
    assert [each.accuracy for each in again.trials] == [each.accuracy for each in first.trials]
    assert bytes_of(config, folder) == before


@pytest.mark.parametrize("name", ["plain", "odd", "rog", "loss"])
def test_which_samples_are_right_is_kept(name: str, learn: Learn, config: Config) -> None:
    method, trial_name, *fields = METHODS[name]
    (trial,) = (each for each in learn(method, *fields).trials if each.name == trial_name)
    right = map_arrays(Store(config.run.dir), str(trial.correct))
    assert {exam: len(each) for exam, each in right.items()} == {"test": TEST, "validation": 5 * K}
    assert right["test"].mean() == pytest.approx(trial.last)


def test_what_the_table_says_makes_learning_better(learn: Learn) -> None:
    """Of .4 wrong labels in one direction; every way of retraining."""
    for by in ("cut", "weight", "posterior"):
        retrained, plain = (learn("retrain", f"learn.retrain.by={by}").trials[i].last for i in (1, 0))
        assert retrained is not None
        assert plain is not None
        assert retrained > plain + 0.02, by


def test_the_posterior_is_the_target(learn: Learn, config: Config) -> None:
    trial = learn("retrain", "learn.retrain.by=posterior").trials[-1]
    arrays = map_arrays(Store(config.run.dir), str(trial.lesson))
    this = opened(config)
    np.testing.assert_allclose(arrays["values"].sum(axis=1), 1, rtol=1e-6)
    assert ((arrays["weights"] >= 0) & (arrays["weights"] <= 1 + 1e-6)).all()
    given = arrays["values"][np.arange(TRAIN), this.catalog.label] * arrays["weights"]
    scores = read_columns(this.catalog, ["label_score"])["label_score"]
    np.testing.assert_allclose(given, scores, atol=0.01)  # the table's are kept off 0 and 1


def test_labels_that_people_gave_since_want_another_table(learn: Learn, config: Config, tmp_path: Path) -> None:
    keys = [key for table in range(2) for key in opened(config).catalog.rows_of_shard(table)["key"].to_pylist()]
    (tmp_path / "checked.csv").write_text(f"key,label\n{keys[0]},2\n{keys[1]},drop\n")
    verified = f"merge.verified={tmp_path}/checked.csv"
    with pytest.raises(InputError, match="made with another config"):
        learn("retrain", "learn.retrain.by=posterior", verified)


def test_a_posterior_needs_the_joint_model(learn: Learn) -> None:
    with pytest.raises(ConfigError, match=r"learn\.retrain\.by is posterior, but merge\.score is loss_oof"):
        learn("retrain", "merge.score=loss_oof", "learn.retrain.by=posterior")


def choice_of(result: Result) -> dict[str, Any]:
    return dict(result.trials[-1].choice or {})


def test_the_weight_decay_is_chosen_without_the_test(learn: Learn, config: Config, tmp_path: Path) -> None:
    alone = "influence.validation=null"
    by_fold, verified = choice_of(learn("plain", alone)), choice_of(learn("plain"))
    assert (by_fold["judged_by"], verified["judged_by"]) == (OUT_OF_FOLD, VERIFIED)
    for found in (by_fold, verified):
        best = int(np.argmax(found["likelihoods"]))
        assert found["weight_decay"] == found["weight_decays"][best]
    wrong = write_shards(tmp_path / "wrong", TEST, 4, 1.0)  # each label of the test is wrong
    assert choice_of(learn("plain", alone, f"learn.test={wrong}")) == by_fold
    assert choice_of(learn("plain", f"learn.test={wrong}")) == verified


def test_a_weight_decay_that_is_given_wins(learn: Learn, config: Config) -> None:
    (trial,) = learn("plain", "learn.train={weight_decay: 0.07}").trials
    assert "choice" not in trial.facts()


def test_what_cannot_be_is_said(learn: Learn, config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"learn\.train\.augment: found crop_flip, but features are not augmented"):
        learn("plain", "learn.train={augment: crop_flip}")
    other = write_shards(tmp_path / "wide", 20, 5, 0.0, num_features=7)
    with pytest.raises(InputError, match="test samples have 7 features, those of the run have 24"):
        learn("plain", f"learn.test={other}")
    with pytest.raises(ConfigError, match=r"the loss ce\+ne takes no soft labels"):
        learn("retrain", "learn.retrain.by=posterior", "learn.train={loss: ce+ne}")


def feed_of(config: Config, cache_bytes: int, ranks: int = 1) -> list[Feed]:
    this = opened(config)
    settings = FeatureFeedSettings(1, 1e6, cache_bytes, 50, 32, 5, inputs=FeatureInputs(this.space.folder))
    labels = np.where(np.arange(TRAIN) % 3 == 0, LEFT_OUT, this.catalog.label)
    return [settings.open(this.catalog, rank, ranks, Lesson(labels)) for rank in range(ranks)]


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_an_epoch_of_features_is_every_row_of_the_lesson(
    learn: Learn, config: Config, cache_bytes: int, ranks: int
) -> None:
    """Streamed or kept, on any number of ranks: each row once but for those that fill up, with its own features."""
    learn("plain")  # the statistics are there
    reader = FeatureInputs(opened(config).space.folder).of(opened(config).catalog)
    seen: list[int] = []
    for feed in feed_of(config, cache_bytes, ranks):
        assert (feed.cache is None) == (cache_bytes == 0)
        batches = list(feed.row_batches(feed.rows, 3, 1, 32))
        for rows, features in batches:
            np.testing.assert_array_equal(features, reader.read(rows))
            seen += rows.tolist()
    assert set(seen) == {row for row in range(TRAIN) if row % 3}
    assert len(seen) - len(set(seen)) < ranks


def test_a_linear_network_is_what_a_head_begins_with() -> None:
    network = feature_spec(D, K).build(seed=3)
    features = np.random.default_rng(0).normal(size=(5, 1, 1, D)).astype(np.float32)
    inputs = feature_spec(D, K).inputs(torch.from_numpy(features))
    assert inputs.shape == (5, D, 1, 1)
    np.testing.assert_array_equal(network.features(inputs).detach(), features[:, 0, 0])
    assert not network(inputs).any()
    assert set(network.state_dict()) == {"head.weight", "head.bias"}  # those of a snapshot of heads

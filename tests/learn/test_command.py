"""Learning with the result of a run: what each method trains on, that phases go on bit for bit, what is counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from rayclean.catalog.stage import find_sources
from rayclean.catalog.table import Catalog
from rayclean.cluster.sizing import Workers
from rayclean.config import Config, override_config
from rayclean.errors import ConfigError, InputError
from rayclean.evaluate.evaluate import read_truth
from rayclean.learn import command
from rayclean.learn.lesson_jobs import read_columns
from rayclean.learn.result import Result
from rayclean.learn.trial import Trial
from rayclean.run.run import Run
from rayclean.run.start import ONE_WORKER, start
from rayclean.schema import Array
from rayclean.storage.contents import map_arrays
from rayclean.storage.executor import Inline
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.resume import Resume
from rayclean.storage.store import Store

Learn = Callable[..., Result]
EPOCHS = "learn.train.epochs=3"


@pytest.fixture(scope="module")
def config(
    tiny_config: Callable[..., Config], tiny_shards: str, finish: Callable[..., Run], tmp_path_factory: Any
) -> Config:
    """A finished run that knows test samples and verified ones."""
    known = [
        f"influence.validation={tiny_shards}",
        "influence.validation_label=json:truth",
        "influence.validation_num=2",
    ]
    test = [f"learn.test={tiny_shards}", "learn.test_label=json:truth"]
    made = tiny_config(tmp_path_factory.mktemp("learned"), *known, *test, "train.lr=0.01", "learn.train={epochs: 3}")
    finish(made)
    return made


def opened(config: Config) -> Run:
    return start(config, Store(config.run.dir), find_sources(config.data), ONE_WORKER, leaves_word=False)


@pytest.fixture
def learn(config: Config, one_thread: None) -> Learn:
    """`learn(method, "section.field=value", ...)` in this process, without Ray."""

    def do(method: str, *overrides: str) -> Result:
        return command.learn_by(opened(override_config(config, overrides)), method, Inline(), Console(quiet=True))

    return do


def weights_of(config: Config, trial: Trial, epoch: int = 3) -> bytes:
    return Store(config.run.dir).read(f"{trial.folder}/snapshots/epoch-{epoch:04d}.safetensors")


def labels_of(config: Config, trial: Trial) -> Array:
    return map_arrays(Store(config.run.dir), str(trial.lesson))["labels"]


def test_every_network_is_examined_after_every_epoch(learn: Learn, config: Config) -> None:
    (trial,) = learn("plain").trials
    assert list(trial.accuracy) == list(trial.validation) == [1, 2, 3]
    assert trial.best == max(trial.accuracy.values())
    assert trial.last == trial.accuracy[3]


def test_verified_samples_are_not_in_the_test(learn: Learn, config: Config) -> None:
    this = opened(config)
    course = command._course(this, Inline(), Console(quiet=True))
    assert course.test is not None
    assert not set(course.test.rows) & set(course.known_rows)
    assert len(course.test.rows) + len(course.known_rows) == course.test.catalog.num_rows


def test_networks_are_examined_where_they_are_trained(learn: Learn, config: Config) -> None:
    """The pools may have other devices; trained weights and batches have to meet."""
    course = command._course(opened(config), Inline(), Console(quiet=True))
    workers = {"train": Workers(1, 1, 1, "cuda"), "gpu": Workers(1, 1, 0, "cpu")}
    course = replace(course, workers={**course.workers, **workers})
    assert course.plain().forward.device == "cuda"
    assert course.forward.device == "cpu"
    swapped = replace(course, workers={"train": workers["gpu"], "gpu": workers["train"]})
    assert swapped.plain().forward.device == "cpu"
    assert swapped.plain().folder == course.plain().folder


def test_retrain_keeps_the_rows_above_the_cut(learn: Learn, config: Config) -> None:
    table = read_columns(opened(config).catalog, ["label_score", "given_label"])
    given, cut = table["given_label"], float(np.median(table["label_score"]))
    result = learn("retrain", f"learn.retrain.cut={cut!r}")
    expected = np.where(table["label_score"] >= cut, given, -1)
    np.testing.assert_array_equal(labels_of(config, result.trials[-1]), expected)
    assert 0 < result.removals["retrain by cut"].removed < len(given)


def test_a_table_of_other_rows_is_refused(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = opened(config).catalog
    monkeypatch.setattr(Catalog, "num_rows", 7)
    with pytest.raises(InputError, match=r"other rows than the run's catalog: found .* rows, expected 7; give its"):
        read_columns(catalog, ["label_score"])


def test_retrain_on_all_rows_is_plain_training(learn: Learn, config: Config) -> None:
    plain, retrained = learn("retrain", "learn.retrain.cut=0").trials
    assert retrained.accuracy == plain.accuracy
    assert weights_of(config, retrained) == weights_of(config, plain)


def test_weights_are_the_scores(learn: Learn, config: Config) -> None:
    plain, weighted = learn("retrain", "learn.retrain.by=weight").trials
    arrays = map_arrays(Store(config.run.dir), str(weighted.lesson))
    np.testing.assert_array_equal(
        arrays["weights"], read_columns(opened(config).catalog, ["label_score"])["label_score"]
    )
    assert (arrays["labels"] >= 0).all()
    assert weights_of(config, weighted) != weights_of(config, plain)


def test_predicted_labels_take_the_place_of_those_that_are_cut(learn: Learn, config: Config) -> None:
    trial = learn("retrain", "learn.retrain.by=predicted", "learn.retrain.sure=0.5").trials[-1]
    names = ["label_score", "given_label", "predicted_label", "predicted_score"]
    table = read_columns(opened(config).catalog, names)
    cut, sure = table["label_score"] < 0.5, table["predicted_score"] >= 0.5
    expected = np.where(~cut, table["given_label"], np.where(sure, table["predicted_label"], -1))
    np.testing.assert_array_equal(labels_of(config, trial), expected)
    assert (cut & sure).any()


def test_a_cut_that_leaves_nothing_is_an_error(learn: Learn, config: Config) -> None:
    with pytest.raises(InputError, match=r"none of 52 rows is left to train on: lower learn\.retrain\.cut"):
        learn("retrain", "learn.retrain.cut=1.0")


def test_odd_goes_on_bit_for_bit_where_nothing_is_removed(learn: Learn, config: Config) -> None:
    (plain,) = learn("plain").trials
    settings = ["simulated_loss.epoch=2", "simulated_loss.percentile=100"]
    (odd,) = learn("odd", *settings, "simulated_loss.kind=empirical").trials
    if (labels_of(config, odd) >= 0).all():
        assert odd.accuracy == plain.accuracy
        assert weights_of(config, odd) == weights_of(config, plain)
    else:
        pytest.fail("a loss above all that are simulated: choose other settings for this test")


def test_odd_removes_what_random_labels_could_be(learn: Learn, config: Config) -> None:
    result = learn("odd", "simulated_loss.epoch=2", "simulated_loss.percentile=30")
    (odd,) = result.trials
    assert list(odd.accuracy) == [1, 2, 3]
    assert odd.more["removed_after_epoch"] == 2
    assert result.removals["ODD"].removed == (labels_of(config, odd) < 0).sum() > 0
    with pytest.raises(ConfigError, match="take an earlier one"):
        learn("odd", "simulated_loss.epoch=1.0")


def test_removals_are_compared_with_the_truth(learn: Learn, config: Config) -> None:
    result = learn("odd", "simulated_loss.epoch=2", "simulated_loss.percentile=30")
    this = opened(config)
    truth, given = read_truth(this.catalog), this.catalog.label
    removed = labels_of(config, result.trials[0]) < 0
    found = result.removals["ODD"].rightness
    assert found is not None
    assert found.precision == pytest.approx((truth != given)[removed].mean())
    assert found.kept_right == pytest.approx((truth == given)[~removed].mean())


def test_influential_rank_removes_and_goes_on(learn: Learn, config: Config) -> None:
    result = learn("influential_rank", "learn.from=main", "learn.rank.epochs=2", "influence.gamma=1")
    first = result.trials[0]
    assert list(first.accuracy) == [0, 1, 2]  # 0: before
    assert result.removals["round 1"].removed > 0
    undone = [trial.undone for trial in result.trials if trial.name.startswith("round")]
    for trial, is_undone in zip(result.trials, undone, strict=False):
        assert is_undone == (trial.validation[2] <= trial.validation[0])
    assert (result.trials[-1].name == "new network") == (not undone[0])


def test_a_round_without_removal_is_longer_training(learn: Learn, config: Config) -> None:
    options = ["learn.from=main", "learn.rank.epochs=2", "learn.rank.removal=nothing"]
    rounds = learn("influential_rank", *options).trials
    assert [trial.name for trial in rounds] == ["round 1", "round 2"]
    assert rounds[1].accuracy[0] == rounds[0].accuracy[2]
    assert [trial.facts()["lesson"] for trial in rounds] == [None, None]  # told all the same


@pytest.fixture(scope="module")
def known_classes(
    write_tiny: Callable[..., str], tiny_samples: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], str]:
    """The override that takes verified samples of the first so many classes alone."""

    def make(num: int) -> str:
        kept = [each for each in tiny_samples if len(each) == 3 and json.loads(each[1][1])["truth"] < num]
        return f"influence.validation={write_tiny(tmp_path_factory.mktemp('known'), kept, [5])}"

    return make


RANK_ONCE = ("learn.from=main", "learn.rank.epochs=1", "learn.rank.rounds=1")


@pytest.mark.parametrize("num", [3, 2])
def test_gamma_is_a_share_of_the_classes_that_can_vote(
    learn: Learn, config: Config, known_classes: Callable[[int], str], num: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 6 classes .8 would be 5 votes, which 3 classes do not have."""
    result = learn("influential_rank", known_classes(num), *RANK_ONCE, "influence.gamma=0.8")
    assert 0 < result.removals["round 1"].removed < len(labels_of(config, result.trials[0]))
    assert "removes no row" not in caplog.text


def test_a_round_that_removes_nothing_says_so_in_a_line(
    learn: Learn, config: Config, known_classes: Callable[[int], str], caplog: pytest.LogCaptureFixture
) -> None:
    result = learn("influential_rank", known_classes(3), *RANK_ONCE, "influence.gamma=4")
    assert result.removals["round 1"].removed == 0
    (line,) = caplog.messages
    assert "removes no row: none has 4 votes of the 3 classes (of 6) with verified rows" in line
    assert "influence.gamma (4)" in line


def test_verified_samples_of_which_no_class_has_two_are_refused(
    learn: Learn, config: Config, known_classes: Callable[[int], str]
) -> None:
    fields = (known_classes(3), "influence.validation_num=1", *RANK_ONCE)
    with pytest.raises(InputError, match=r"no class has two verified rows.*influence\.gamma=0"):
        learn("influential_rank", *fields)
    assert learn("influential_rank", *fields, "influence.gamma=0").removals["round 1"].removed > 0


def test_small_loss_removes_as_many_rows(learn: Learn, config: Config) -> None:
    options = ["learn.from=main", "learn.rank.epochs=1", "learn.rank.rounds=1", "influence.gamma=1"]
    by_influence = learn("influential_rank", *options).removals["round 1"].removed
    by_loss = learn("influential_rank", *options, "learn.rank.removal=small_loss").removals["round 1"].removed
    assert by_loss == by_influence


def test_rog_needs_no_training(learn: Learn, config: Config) -> None:
    (trial,) = learn("rog", "learn.from=main").trials
    assert trial.accuracy.keys() == {0}


def test_weights_from_elsewhere(learn: Learn, config: Config, tiny_snapshot: Path) -> None:
    from_role = learn("rog", "learn.from=main").trials[-1]
    from_file = learn("rog", f"learn.from={tiny_snapshot}").trials[-1]
    assert from_file.accuracy == from_role.accuracy
    with pytest.raises(ConfigError, match=r"learn\.from nowhere: none of plain, main"):
        learn("rog", "learn.from=nowhere")


def test_phases_keep_the_folders_that_they_had(learn: Learn, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    def note(stage: str, version: int, fields: dict[str, Any], inputs: list[str]) -> str:
        seen.append(fields)
        return ""

    monkeypatch.setattr("rayclean.learn.course.fingerprint", note)
    command._course(opened(config), Inline(), Console(quiet=True)).plain()
    assert set(seen[-1]) == {
        *("train", "model", "weights", "start", "stop", "judged", "leaves_state", "spec", "precision", "score_batch"),
        *("feed", "block_rows", "exams"),
    }
    assert set(seen[-1]["train"]) == {
        *("loss", "mixup_alpha", "epochs", "optimizer", "lr", "momentum", "weight_decay", "schedule", "batch_size"),
        *("augment", "trajectories"),
    }


@pytest.mark.parametrize("score", ["loss", "iofm", "inn", "joint"])
def test_dividemix_by_any_score(score: str, learn: Learn, config: Config) -> None:
    fields = f"{{score: {score}, epochs: 2, warmup: 1, schedule: cosine, batch_size: 8}}"
    result = learn("dividemix", f"learn.dividemix={fields}")
    assert list(result.trials[0].accuracy) == [1, 2]
    (told,) = result.to_json()["trials"]
    assert all(0 < share < 1 for share in told["facts"]["last"]["labelled_share"])


def test_dividemix_keeps_the_folders_that_it_had(learn: Learn, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its name is made of; another name among these would train every DivideMix of earlier releases anew."""
    seen: list[dict[str, Any]] = []

    def note(stage: str, version: int, fields: dict[str, Any], inputs: list[str]) -> str:
        seen.append(fields)
        return fingerprint(stage, version, fields, inputs)

    monkeypatch.setattr("rayclean.learn.dividemix_phase.fingerprint", note)
    for more in ("", ", optimizer: adamw"):
        section = "learn.dividemix={epochs: 1, warmup: 1, lr: 0.01, batch_size: 8}"
        learn("dividemix", section, f"learn.train={{epochs: 3{more}}}")
    sgd, adamw = (fields["settings"] for fields in seen)
    assert set(sgd) == {
        *("epochs", "warmup", "start", "score", "mixture", "rescore_every", "history", "num", "steps", "sample_rows"),
        *("batch_size", "lr", "momentum", "weight_decay", "schedule", "milestones", "decay", "alpha", "temperature"),
        *("p_threshold", "lambda_u", "ramp", "use_unlabelled", "penalty", "augment"),
        *("seed", "precision", "score_precision", "score_batch_size"),
    }
    assert sgd["mixture"] is None
    assert set(adamw) - set(sgd) == {"optimizer"}


def test_dividemix_can_begin_with_the_scores_of_two_networks(learn: Learn, config: Config) -> None:
    fields = "{score: inn, start: scores, epochs: 3, warmup: 2, schedule: cosine, batch_size: 8, rescore_every: 2}"
    result = learn("dividemix", f"learn.dividemix={fields}")
    one, two, both = result.trials
    weights = [weights_of(config, trial) for trial in (one, two)]
    assert weights[0] != weights[1]  # other draws
    starts = map_arrays(Store(config.run.dir), f"{both.folder}/starts.safetensors")
    assert starts["0"].shape == starts["1"].shape
    assert (starts["0"] != starts["1"]).any()


def test_labels_that_people_gave_stand_above_all(learn: Learn, config: Config, tmp_path: Path) -> None:
    table = read_columns(opened(config).catalog, ["label_score", "given_label", "key"])
    worst, best = int(table["label_score"].argmin()), int(table["label_score"].argmax())
    other = (int(table["given_label"][best]) + 1) % 3
    lines = ["key,label", f"{table['key'][worst]},{table['given_label'][worst]}", f"{table['key'][best]},{other}"]
    dropped = next(row for row in range(len(table["key"])) if row not in (worst, best))
    lines.append(f"{table['key'][dropped]},drop")
    (tmp_path / "checked.csv").write_text("\n".join(lines) + "\n")
    verified = f"merge.verified={tmp_path}/checked.csv"
    for method, *fields in (["retrain", "learn.retrain.cut=0.4"], ["retrain", "learn.retrain.by=weight"]):
        trial = learn(method, verified, *fields).trials[-1]
        arrays = map_arrays(Store(config.run.dir), str(trial.lesson))
        assert arrays["labels"][[worst, best, dropped]].tolist() == [table["given_label"][worst], other, -1]
        if "weights" in arrays:
            assert arrays["weights"][[worst, best]].tolist() == [1, 1]
    dividemix = "learn.dividemix={epochs: 2, warmup: 1, schedule: cosine, batch_size: 8}"
    assert (
        learn("dividemix", verified, dividemix).trials[-1].accuracy != learn("dividemix", dividemix).trials[-1].accuracy
    )


def test_what_is_missing_is_said(learn: Learn, config: Config) -> None:
    with pytest.raises(ConfigError, match="needs verified samples"):
        learn("influential_rank", "influence.validation=null")
    with pytest.raises(ConfigError, match=r"learn\.train\.epochs"):
        learn("plain", "learn.train={}")
    with pytest.raises(InputError, match=r"learn\.test.*learn\.test_label"):
        learn("plain", "learn.test_label=json:nothing")


def test_verified_samples_may_be_named_only_now(
    learn: Learn, config: Config, write_tiny: Callable[..., str], tiny_samples: Any, tmp_path: Path
) -> None:
    shards = write_tiny(tmp_path / "known", tiny_samples[:40], [20])
    marks = Store(config.run.dir).read("catalog.json")
    fields = ["learn.from=main", "learn.rank.epochs=1", "learn.rank.rounds=1"]
    result = learn("influential_rank", f"influence.validation={shards}", *fields)
    assert result.trials[0].validation
    assert Store(config.run.dir).read("catalog.json") == marks  # the run's own start still holds


@pytest.mark.parametrize("more", ["", ", optimizer: adamw, lr: 0.001, augment: random_resized_crop"])
def test_a_phase_that_was_killed_goes_on_bit_for_bit(more: str, learn: Learn, config: Config) -> None:
    train = f"learn.train={{epochs: 4{more}}}"
    (unbroken,) = learn("plain", train).trials
    expected = weights_of(config, unbroken, 4)
    store = Store(config.run.dir)
    store.remove(unbroken.folder)

    class Killed(Exception):
        pass

    states: list[Any] = []

    def killed_once(
        function: Any, task: Any, store: Store, folder: str, lost: int | None = None, stop: int | None = None
    ) -> None:
        def report(epoch: int, state: Any) -> None:
            states[:] = [dict(state)]
            if epoch == 2:
                raise Killed

        with pytest.raises(Killed):
            function(task, 0, 1, Resume(), report)
        function(task, 0, 1, Resume(states[0]), lambda epoch, state: None)

    this = opened(override_config(config, [train]))
    (resumed,) = command.learn_by(this, "plain", Inline(train=killed_once), Console(quiet=True)).trials
    assert states
    assert resumed.accuracy == unbroken.accuracy
    assert weights_of(config, resumed, 4) == expected

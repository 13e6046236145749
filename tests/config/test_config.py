"""The config: what is written is what is meant, and what cannot be meant is refused with the way out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.config import Config, TrainSection, dump_config, load_config, parse_config, without_retired
from rayclean.errors import ConfigError
from rayclean.schema import SCORES
from rayclean.train.models.registry import check_model_name

ROOT = Path(__file__).parents[2]


def tree(**sections: Any) -> dict[str, Any]:
    """A config with all that is required, its sections merged with these."""
    base: dict[str, Any] = {"run": {"dir": "run"}, "data": {"shards": "*.tar", "classes": 3}}
    for name, section in sections.items():
        base[name] = {**base.get(name, {}), **section} if isinstance(section, dict) else section
    return base


def divided(**fields: Any) -> dict[str, Any]:
    """A config of which DivideMix has these fields."""
    return tree(learn={"dividemix": fields})


def write(folder: Path, content: Any) -> Path:
    path = folder / "config.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def refusal(folder: Path, content: Any, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, content), overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_what_is_not_said_is_filled_in() -> None:
    config = parse_config(tree())
    assert (config.train.epochs, config.train.loss, config.iofm.num, config.iofm.steps) == (40, "mixup", 6, 2)
    assert config.data.image_extensions == ("png", "jpg", "jpeg", "webp", "jpe", "jfif")
    assert config.merge_score() == "joint"
    assert config.score_names() == tuple(score.name for score in SCORES.values() if score.default)
    assert config.role_names() == ("main",)


SHIPPED = sorted((ROOT / "configs").glob("*.yaml"))
CONVERTED = ("cifar10n_full", "cifar100n", "clothing1m", "webvision", "imagefolder")


def load_shipped(path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    for name in re.findall(r"\$\{(\w+)\}", path.read_text()):
        monkeypatch.setenv(name, "somewhere")
    return load_config(path)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_config_that_is_shipped_is_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_shipped(path, monkeypatch)
    assert config.merge_score()
    for role in config.role_names():
        train, model = config.train_of(role), config.model_of(role)
        check_model_name(model.name)
        assert train.epochs == 0 or all(milestone < train.epochs for milestone in train.milestones), role
        if train.epochs:  # each snapshot is T2 epochs after the one before
            assert train.epochs % train.snapshot_every == 0, role


@pytest.mark.parametrize("name", CONVERTED)
def test_configs_of_converted_data_sets_name_what_the_converters_write(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_shipped(ROOT / "configs" / f"{name}.yaml", monkeypatch)
    assert config.data.label.startswith("json:")
    assert config.data.truth in (None, "json:clean_label")
    assert config.data.classes == "somewhere/classes.txt"
    shards = [config.data.shards]
    if config.influence.validation not in (None, "split"):
        shards.append(config.influence.validation or "")
    for pattern in shards:
        assert isinstance(pattern, str)
        assert re.fullmatch(r"somewhere/[a-z0-9_-]+-\*\.tar", pattern)


# Network, epochs, rate, milestones, factor, batch, units before the last layer: IOFM (algorithm 1) and INN (4.1) of
# `main`, Influential Rank (appendix B) of the network that its scores come from.
PAPERS: dict[str, dict[str, tuple[Any, ...]]] = {
    "cifar10n_full": {
        "main": ("preact_resnet18", 150, 0.02, [75, 112], 0.2, 128, None),
        "resnet34": ("resnet34_small", 120, 0.1, [40, 80], 0.1, 128, None),
    },
    "cifar100n": {
        "main": ("preact_resnet18", 150, 0.02, [75, 112], 0.2, 128, None),
        "resnet34": ("resnet34_small", 150, 0.1, [60, 100], 0.1, 128, 50),
    },
    "clothing1m": {"ce": ("resnet50", 80, 0.002, [40], 0.1, 64, None)},
    "webvision": {"ce": ("timm:inception_resnet_v2", 80, 0.01, [50], 0.1, 32, 100)},
}


@pytest.mark.parametrize(("name", "role"), [(name, role) for name, roles in PAPERS.items() for role in roles])
def test_configs_have_the_papers_settings(name: str, role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_shipped(ROOT / "configs" / f"{name}.yaml", monkeypatch)
    train, model = config.train_of(role), config.model_of(role)
    rate = train.lr, train.milestones, train.decay
    assert (model.name, train.epochs, *rate, train.batch_size, model.bottleneck) == PAPERS[name][role]
    assert (train.schedule, train.momentum) == ("step", 0.9)
    assert role == "main" or (config.influence.role == role and train.loss == "ce")
    assert config.train.loss == "mixup"
    assert (config.iofm.num, config.iofm.steps, config.inn.num, config.inn.steps) == (10, 3, 10, 10)


# Influential Rank's post-training (appendix B; Clothing1M's second 10 epochs are ours): from which role, at which rate,
# rounds, epochs, and after which of them the rate falls.
POST_TRAINING: dict[str, tuple[Any, ...]] = {
    "cifar10n_full": ("resnet34", 0.1, 2, 20, [5, 15]),
    "cifar100n": ("resnet34", 0.1, 2, 20, [5, 15]),
    "clothing1m": ("ce", 0.002, 1, 20, [10]),
    "webvision": ("ce", 0.01, 1, 20, [10]),
}


@pytest.mark.parametrize("name", POST_TRAINING)
def test_configs_go_on_from_the_network_that_the_paper_goes_on_from(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_shipped(ROOT / "configs" / f"{name}.yaml", monkeypatch)
    rank = config.learn.rank
    found = config.learn.from_, config.train_to_learn().lr, rank.rounds, rank.epochs, rank.milestones
    assert found == POST_TRAINING[name]
    assert config.learn_role == config.influence.role  # else a network of role main is trained first
    assert config.train_to_learn().loss == "ce"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_configs_say_where_verified_labels_are(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows held out have the given labels unless a member is named; that nobody has verified them here is known."""
    config = load_shipped(path, monkeypatch)
    if config.influence.validation == "split" and config.data.truth is not None:
        assert config.influence.validation_label == config.data.truth


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (tree(train={"epoch": 3}), "train.epoch: unknown field; did you mean 'epochs'?"),
        (tree(train={"form": "x"}), "train.form: unknown field; did you mean 'from'?"),
        (tree(trian={}), "trian: unknown field; did you mean 'train'?"),
        (tree(resources={"train": {"gpu": 1}}), "resources.train.gpu: unknown field; did you mean 'gpus'?"),
        (tree(blocks={"zzzzz": 1}), "blocks.zzzzz: unknown field; valid: index_rows, pairs, rows, table_rows"),
        (tree(scores=["iofn"]), "scores: unknown score 'iofn'; did you mean 'iofm'?"),
        (tree(merge={"score": "aumm"}), "merge.score: unknown score 'aumm'; did you mean 'aum'?"),
        ({"run": {"dir": "x"}}, "data: required, but not set"),
        (tree() | {"run": {}}, "run.dir: required, but not set"),
    ],
)
def test_names_that_are_wrong_or_missing(content: Any, said: str, tmp_path: Path) -> None:
    assert said in refusal(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (tree(train={"epochs": -1}), "train.epochs: .*greater than or equal to 0.*found -1"),
        (tree(train={"loss": "ce-ne"}), r"train.loss: .*'mixup', 'ce' or 'ce\+ne'.*found 'ce-ne'"),
        (tree(train={"lr": float("nan")}), "train.lr: .*found nan"),
        (tree(train={"schedule": "steps"}), "train.schedule: .*'step'.*found 'steps'"),
        (tree(train={"schedule": "step"}), r"train.milestones: schedule step needs .*\[40, 80\] \(found \[\]\)"),
        (
            tree(train={"milestones": [4]}),
            r"train.milestones: schedule cosine has no milestones; .*schedule=step.*found \[4\]",
        ),
        (tree(train={"schedule": "constant", "milestones": [4]}), "schedule constant has no milestones"),
        (tree(train={"schedule": "step", "milestones": [8, 4]}), r"train.milestones: .*grow.*found \[8, 4\]"),
        (tree(train={"schedule": "step", "milestones": [4, 4]}), r"train.milestones: .*grow.*found \[4, 4\]"),
        (tree(train={"schedule": "step", "milestones": [0]}), "train.milestones: .*found 0"),
        (tree(train={"schedule": "step", "milestones": [4], "decay": 1}), "train.decay: .*found 1"),
        (tree(train={"lr": float("inf")}), "train.lr: .*found inf"),
        (tree(train={"optimizer": "adam"}), "train.optimizer: .*'sgd' or 'adamw'.*found 'adam'"),
        (tree(data={"classes": ["de", False]}), r"data.classes: .* YAML takes one for False, .* quote it"),
        (tree(data={"classes": [0, 1]}), r"data.classes: .* YAML takes one for 0, .* quote it"),
        (tree(data={"classes": True}), r"data.classes: .* YAML takes yes and no for True; quote it"),
        (tree(merge={"verified_classes": [None]}), r"merge.verified_classes: .* YAML takes one for None, .* quote it"),
        (tree(train={"optimizer": "adamw", "lr": 0.1}), r"train.lr: at most 0.01 .*take 0.0001 or so.*\(found 0.1\)"),
        (tree(train={"momentum": 1}), "train.momentum: .*less than 1.*found 1"),
        (tree(train={"augment": "random_crop"}), "train.augment: .*'random_resized_crop'.*found 'random_crop'"),
        (tree(train={"roles": {"ce": {"optimizer": "adamw", "lr": 0.1}}}), "train.roles.ce.lr: at most 0.01"),
        (tree(learn={"train": {"optimizer": "adamw", "lr": 0.1}}), "learn.train.lr: at most 0.01"),
        (divided(epochs=0), "learn.dividemix.epochs: .*found 0"),
        (divided(temperature=0), "learn.dividemix.temperature: .*found 0"),
        (divided(warmup=-1), "learn.dividemix.warmup: .*found -1"),
        (divided(p_threshold=1.0), "learn.dividemix.p_threshold: .*found 1.0"),
        (divided(score="margin"), "learn.dividemix.score: .*found 'margin'"),
        (divided(mixture="none"), "learn.dividemix.mixture: gauss or beta .*a loss is no probability"),
        (divided(milestones=[]), "learn.dividemix.milestones: epochs that grow"),
        (divided(milestones=[9, 3]), r"learn.dividemix.milestones: epochs that grow.*found \[9, 3\]"),
        (divided(history=5, sample_rows=100), "learn.dividemix.sample_rows: 0 expected with a history"),
        (divided(use_unlabelled=False), "learn.dividemix.use_unlabelled: true expected, or lambda_u=0"),
        (tree(data={"max_pixels": float("nan")}), "data.max_pixels: .*found nan"),
        (tree(data={"max_pixels": 0}), "data.max_pixels: .*found 0"),
        (tree(data={"std": [1, 0, 1]}), r"data.std\S*: .*found 0"),
        (tree(data={"max_bad_share": 1.5}), "data.max_bad_share: .*found 1.5"),
        (tree(run={"seed": -1}), "run.seed: .*found -1"),
        (tree(run={"seed": 2**64}), "run.seed: .*found 18446744073709551616"),
        (tree(iofm={"steps": 1}), "iofm.steps: .*found 1"),
        (tree(model={"width": 0}), "model.width: .*found 0"),
        (tree(blocks={"rows": 3000}), r"blocks.table_rows \(1000000\) must be a multiple of blocks.rows \(3000\)"),
        (tree(train={"epochs": 0}), "train.epochs is 0, so train.from .*must name weights"),
        (
            tree(train={"epochs": 0, "from": "x"}, scores=["aum", "iofm"]),
            "score aum needs epochs, but .* in role main",
        ),
    ],
)
def test_values_that_cannot_be(content: Any, said: str, tmp_path: Path) -> None:
    assert re.search(said, refusal(tmp_path, content))


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = refusal(tmp_path, tree(train={"epochs": -1, "lerning_rate": 1}, model={"width": 0}))
    assert all(name in text for name in ("train.epochs", "train.lerning_rate", "model.width", "config.yaml"))


def test_scores_without_epochs() -> None:
    config = parse_config(tree(train={"epochs": 0, "from": "x"}))
    assert not any(SCORES[name].needs_epochs for name in config.score_names())
    assert config.train.snapshot_epochs() == (0,)


@pytest.mark.parametrize(
    ("scores", "wanted", "expected"),
    [
        (["vote", "iofm", "aum"], "auto", "joint"),
        (["vote"], "joint", "joint"),
        (["vote", "loss"], "vote", "vote"),
    ],
)
def test_the_score_that_is_merged(scores: list[str], wanted: str, expected: str) -> None:
    config = parse_config(tree(scores=scores, merge={"score": wanted}))
    assert config.merge_score() == expected
    assert config.score_names() == tuple(name for name in SCORES if name in scores)  # in the table's order


@pytest.mark.parametrize(("scores", "wanted"), [(["aum"], "iofm"), ([], "auto")])
def test_a_merge_of_what_is_not_computed_is_refused(scores: list[str], wanted: str) -> None:
    with pytest.raises(ConfigError, match="scores"):
        parse_config(tree(scores=scores, merge={"score": wanted})).merge_score()


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 20))
def test_the_last_epoch_is_always_a_snapshot(epochs: int, every: int) -> None:
    found = TrainSection(epochs=epochs, snapshot_every=every).snapshot_epochs()
    assert found[-1] == epochs
    assert all(epoch % every == 0 for epoch in found[:-1])
    assert list(found) == sorted(set(found))
    assert set(range(every, epochs + 1, every)) <= set(found)


@pytest.mark.parametrize(
    ("override", "section", "field", "value"),
    [
        ("train.epochs=7", "train", "epochs", 7),
        ("train.lr=5e-2", "train", "lr", 0.05),
        ("train.from=a=b.safetensors", "train", "from_", "a=b.safetensors"),
        ("data.size=", "data", "size", None),
        ("data.classes=[cat, dog]", "data", "classes", ["cat", "dog"]),
        ("model.width = 8", "model", "width", 8),
        ("merge.threshold=.25", "merge", "threshold", 0.25),
        ("run.mix_environments=true", "run", "mix_environments", True),
    ],
)
def test_overrides(override: str, section: str, field: str, value: Any, tmp_path: Path) -> None:
    config = load_config(write(tmp_path, tree()), [override])
    assert getattr(getattr(config, section), field) == value


def test_the_last_override_wins_and_the_file_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path, tree(train={"epochs": 5}))
    before = path.read_bytes()
    assert load_config(path, ["train.epochs=6", "train.epochs=7"]).train.epochs == 7
    assert path.read_bytes() == before
    assert load_config(path, ["resources.cpu.actors=3", "scores=[aum]"]).resources.cpu.actors == 3


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epochs", "'train.epochs' is not an override; write section.field=value"),
        ("=3", "is not an override"),
        ("train..epochs=3", "is not an override"),
        ("run.dir.x=3", "'run.dir.x=3': dir is not a section"),
        ("train.epochs=[1", "the value is not YAML"),
        ("train.epohcs=3", "train.epohcs: unknown field; did you mean 'epochs'?"),
        ("scores.aum=1", "scores"),
    ],
)
def test_overrides_that_are_none(override: str, said: str, tmp_path: Path) -> None:
    assert said in refusal(tmp_path, tree(), override)


def test_the_environment_is_put_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKET", "s3://b")
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("NOWHERE", raising=False)
    shards = ["${BUCKET}/a/*.tar", "$BUCKET/b.tar", "/c/$BUCKET", "~/d.tar", "/e/~/f.tar", "$NOWHERE/g.tar", "A$BUCKET"]
    path = write(tmp_path, tree(data={"shards": shards, "truth": "json:x", "features": "file:~/h.parquet"}))
    config = load_config(path, ["run.dir=${BUCKET}/run"])
    first = ["s3://b/a/*.tar", "s3://b/b.tar", "/c/s3://b", "/home/somebody/d.tar", "/e/~/f.tar"]
    assert config.data.shards == [*first, "$NOWHERE/g.tar", "A$BUCKET"]
    assert config.data.features == "file:/home/somebody/h.parquet"
    assert config.run.dir == "s3://b/run"
    assert "the environment has no NOWHERE" in refusal(tmp_path, tree(run={"dir": "${NOWHERE}/x"}))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [", "is not YAML"),
        ("- a\n- b", "expected sections (run, data, ...), found list"),
        ("", "expected sections (run, data, ...), found NoneType"),
        ("!!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)
def test_files_that_are_no_config(content: str, said: str, tmp_path: Path) -> None:
    assert said in refusal(tmp_path, content)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "nothing.yaml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not a text file"):
        load_config(tmp_path / "binary")


positive = st.integers(1, 10**6)
share = st.floats(0, 1)
names = st.text(st.characters(codec="utf-8", exclude_characters="$"), max_size=8)
# Where nothing else is given: osd needs verified samples, and what heads alone have features.
ANYWHERE = [name for name in sorted(SCORES) if name != "osd" and not SCORES[name].on_features]
trees = st.fixed_dictionaries(
    {
        "run": st.fixed_dictionaries(
            {"dir": names.map(lambda name: "runs/" + name.replace("\0", ""))},
            optional={"seed": st.integers(0, 2**63 - 1)},
        ),
        "data": st.fixed_dictionaries(
            {"shards": names | st.lists(names), "classes": positive | st.lists(names) | names},
            optional={"size": positive | st.none(), "mean": st.tuples(share, share, share), "truth": names},
        ),
    },
    optional={
        "train": st.fixed_dictionaries(
            {},
            optional={
                "epochs": positive,
                "lr": st.floats(0, 10, exclude_min=True),
                "from": names | st.none(),
                "loss": st.sampled_from(["mixup", "ce", "ce+ne"]),
            },
        ),
        "scores": st.none() | st.lists(st.sampled_from(ANYWHERE)),
        "resources": st.fixed_dictionaries({}, optional={"gpu": st.fixed_dictionaries({"cpus": positive})}),
    },
)


def test_a_config_of_defaults_reads_back_as_it_was() -> None:
    config = parse_config(tree())
    assert parse_config(yaml.safe_load(yaml.safe_dump(dump_config(config)))) == config


@settings(deadline=None)
@given(trees)
def test_a_saved_config_reads_back_as_it_was(given_tree: dict[str, Any]) -> None:
    config = parse_config(given_tree)
    # The other sections are the defaults, as above.
    given_sections = {name: section for name, section in dump_config(config).items() if name in given_tree}
    again = parse_config(yaml.safe_load(yaml.safe_dump(given_sections)))
    assert again == config
    assert isinstance(config, Config)
    assert dump_config(again) == dump_config(config)


def test_a_config_cannot_be_changed() -> None:
    config = parse_config(tree())
    with pytest.raises(ValueError, match="frozen"):
        config.train.epochs = 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (tree(train={"roles": {"main": {"loss": "ce"}}}), "a role cannot be called 'main'"),
        (tree(train={"roles": {"x": {"los": "ce"}}}), "train.roles.x.los: unknown field; did you mean 'loss'"),
        (tree(train={"roles": {"x": {"loss": "mse"}}}), "train.roles.x.loss: .*found 'mse'"),
        (tree(train={"roles": {"x": {"model": {"widht": 3}}}}), "train.roles.x.widht: unknown field"),
        (tree(train={"roles": {"x": {"epochs": 0}}}), "train.roles.x.epochs is 0"),
        (
            tree(train={"schedule": "step", "milestones": [4], "roles": {"x": {"schedule": "cosine"}}}),
            r"train.roles.x.milestones: schedule cosine has no milestones; .*milestones=\[\]",
        ),
        (tree(inn={"features": "cee"}), "inn.features: no role 'cee'; did you mean 'ce'"),
        (tree(inn={"epochs": [4, 5]}), "inn.epochs: no snapshot after epoch 5"),
        (tree(train={"epochs": 0, "from": "x"}, scores=["inn"]), "set inn.features=self"),
    ],
)
def test_roles_that_cannot_be(content: Any, said: str, tmp_path: Path) -> None:
    assert re.search(said, refusal(tmp_path, content))


def test_roles_are_those_that_the_scores_need() -> None:
    assert parse_config(tree(scores=["iofm", "inn", "aum_ce_ne"])).role_names() == ("main", "ce_ne", "ce")
    assert parse_config(tree(scores=["inn"], inn={"features": "self"})).role_names() == ("main",)
    config = parse_config(tree(train={"lr": 0.3, "roles": {"wide": {"epochs": 5, "model": {"width": 99}}}}))
    assert config.role_names() == ("main", "wide")
    wide = config.train_of("wide")
    assert (wide.lr, wide.epochs, config.model_of("wide").width, config.train.epochs) == (0.3, 5, 99, 40)
    assert config.train_of("ce").loss == "ce"
    assert config.train_of("ce_ne").loss == "ce+ne"


def test_a_role_has_the_steps_of_main_or_its_own() -> None:
    roles = {"x": {"milestones": [3], "decay": 0.2}, "y": {"schedule": "cosine", "milestones": []}}
    config = parse_config(tree(train={"schedule": "step", "milestones": [20, 30], "roles": roles}))
    found = {role: config.train_of(role) for role in ("ce", "x", "y")}
    assert [(train.schedule, train.milestones, train.decay) for train in found.values()] == [
        ("step", [20, 30], 0.1),
        ("step", [3], 0.2),
        ("cosine", [], 0.1),
    ]
    assert parse_config(dump_config(config)) == config


def test_another_optimizer_starts_from_its_own_defaults() -> None:
    roles = {"adam": {"optimizer": "adamw"}, "own": {"optimizer": "adamw", "lr": 1e-3}, "same": {"optimizer": "sgd"}}
    main = {"lr": 0.3, "weight_decay": 0.1, "momentum": 0.5, "epochs": 7}
    config = parse_config(tree(train={**main, "roles": roles}, learn={"from": "adam", "train": {"epochs": 3}}))

    def fields(train: TrainSection) -> tuple[float, ...]:
        return train.lr, train.weight_decay, train.momentum, train.epochs

    assert [fields(config.train_of(role)) for role in ("main", "adam", "own", "same")] == [
        (0.3, 0.1, 0.5, 7),
        (1e-4, 0.05, 0.9, 7),
        (1e-3, 0.05, 0.9, 7),
        (0.3, 0.1, 0.5, 7),
    ]
    assert fields(config.train_to_learn()) == (1e-4, 0.05, 0.9, 3)
    adamw = parse_config(tree(train={"optimizer": "adamw", "roles": {"sgd": {"optimizer": "sgd"}}}))
    assert fields(adamw.train_of("ce")) == (1e-4, 0.05, 0.9, 40)
    assert fields(adamw.train_of("sgd")) == (0.1, 5e-4, 0.9, 40)
    assert parse_config(dump_config(config)) == config


# By their form: user info anywhere, and what a query or a fragment has beside names of versions.
SECRET_URLS = [
    "s3://me:secret@host/a.tar",
    "simplecache::s3://key:secret@bucket/a.tar",
    "{https://host/a.tar,https://me:secret@host/b.tar}",
    "https://secret@host/a.tar",
    "https://host/a.tar?X-Amz-Signature=secret&x=1",
    "https://host/a.tar?sig=secret",
    "https://host/a.tar?auth=secret",
    "https://host/a.tar?code=secret",
    "https://host/a.tar?secret",
    "https://host/a.tar#token=secret",
    "https://host/a.tar#secret",
    "https://host/a.tar?download=1&sig=secret",
    "https://host/a.tar?raw;code=secret",
    "https://host/a.tar?ref=main#secret",
    "https://host/a.tar?versionid=secret",
    "filecache::https://host/a.tar?secret",
    "https://host/a.tar?download=1::https://host/b.tar?sig=secret",
    "az://container/a.tar?sv=1&sig=secret",
    "gs://bucket/a.tar?generation=1&auth=secret",
    "s3://bucket/a.tar#secret",
]
PLAIN_URLS = [
    "s3://bucket/a.tar?versionId=3HL4",
    "gs://bucket/a.tar?generation=1700000000",
    "https://host/a.tar?download",
    "https://host/a.tar?raw=true&ref=main",
    "s3://bucket/train-0??.tar",
    "s3://bucket/{0000..0099}.tar",
    "s3://bucket/me@home/a&b=c.tar",
    "/folder/a.tar?sig=1#2",
]
# A value that may be a URL, wherever it stands.
URL_FIELDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "run.dir": lambda url: {"run": {"dir": url}},
    "data.shards": lambda url: {"data": {"shards": ["a.tar", url], "classes": 2}},
    "data.classes": lambda url: {"data": {"shards": "a.tar", "classes": url}},
    "train.from": lambda url: {"train": {"from": url}},
    "train.roles.ce.from": lambda url: {"train": {"roles": {"ce": {"from": url}}}},
    "model.weights": lambda url: {"model": {"weights": url}},
    "train.roles.ce.model.weights": lambda url: {"train": {"roles": {"ce": {"model": {"weights": url}}}}},
    "inn.features": lambda url: {"inn": {"features": f"file:{url}"}},
    "influence.validation": lambda url: {"influence": {"validation": url}},
    "merge.verified": lambda url: {"merge": {"verified": url}},
    "learn.test": lambda url: {"learn": {"test": url}},
    "learn.from": lambda url: {"learn": {"from": url}},
}


@pytest.mark.parametrize("url", SECRET_URLS)
def test_a_url_with_credentials_is_refused_and_not_repeated(url: str) -> None:
    for where, make in URL_FIELDS.items():
        with pytest.raises(ConfigError, match=rf"^{re.escape(where)}: a URL carries credentials") as caught:
            parse_config(tree() | make(url))
        assert "secret" not in str(caught.value)
    for word in ("AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_STORAGE_", "data.shards: env:NAME"):
        assert word in str(caught.value)


@pytest.mark.parametrize("where", sorted(set(URL_FIELDS) - {"data.shards", "influence.validation", "learn.test"}))
def test_a_question_mark_stands_for_a_character_in_patterns_alone(where: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{re.escape(where)}: a URL carries credentials"):
        parse_config(tree() | URL_FIELDS[where]("s3://bucket/a?secret"))


@pytest.mark.parametrize("url", PLAIN_URLS)
def test_a_url_without_credentials_is_taken(url: str) -> None:
    assert parse_config(tree() | {"data": {"shards": url, "classes": 2}}).data.shards == url


def test_an_override_with_credentials_is_not_repeated_by_any_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("run: {dir: x}\ndata: {shards: a.tar, classes: 2}\n")
    for name in ("data.shards", "data..shards", "run.dir.deeper", "data"):
        with pytest.raises(ConfigError, match="a URL carries credentials") as caught:
            load_config(tmp_path / "a.yaml", [f"{name}=['https://me:secret@host/a.tar'"])
        assert "secret" not in str(caught.value)


def test_a_runs_own_config_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    old = tree(
        resources={"catalog": {"actors": 1}, "score": {}, "merge": {}, "train": {"cpus": 2}},
        iofm={"num": 6, "rounds": []},
        inn={"rounds": [2, 6]},
    )
    with pytest.raises(ConfigError, match=r"resources\.catalog: is resources\.cpu now"):
        parse_config(old)
    with pytest.raises(ConfigError, match=r"inn\.rounds: unknown field"):  # it changed a result: said, not dropped
        parse_config(without_retired(old))
    found = parse_config(without_retired(old | {"inn": {"rounds": []}}))
    assert (found.resources.train.cpus, found.iofm.num) == (2, 6)
    assert old["iofm"]["rounds"] == [], "what was given stays"

"""Catalogs derived from another: noise made on purpose, imbalance, verified rows held out; nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from rayclean.catalog.noise import flip_labels
from rayclean.catalog.table import Catalog
from rayclean.config import Config, parse_config
from rayclean.errors import ConfigError, InputError
from rayclean.evaluate.evaluate import read_truth
from rayclean.evaluate.results import evaluate_run
from rayclean.run.run import Run
from rayclean.run.start import ONE_WORKER, start
from rayclean.schema import NONE_OF_CLASSES, Array
from rayclean.storage.contents import read_table
from rayclean.storage.published import Published
from rayclean.storage.store import Store
from rayclean.storage.units import block_name
from tests.conftest import SHARD_SAMPLES, Sample

Finish = Callable[..., Run]
Tiny = Callable[..., Config]
SYMMETRIC = ("data.truth=", "noise.kind=symmetric", "noise.rate=0.5")


def keys_of(catalog: Catalog) -> list[str]:
    shards = range(catalog.shards.num_rows)
    return [key for shard in shards for key in catalog.rows_of_shard(shard)["key"].to_pylist()]


def left_out(run: Run) -> list[dict[str, object]]:
    folder = f"{run.catalog.folder}/left_out"
    return [row for name in run.store.list(folder) for row in read_table(run.store, f"{folder}/{name}").to_pylist()]


def by_key(catalog: Catalog, values: Array) -> dict[str, int]:
    return dict(zip(keys_of(catalog), values.tolist(), strict=True))


def assert_nothing_lost(run: Run) -> None:
    summary = run.catalog.summary
    gone = sum(summary["quarantined"].values()) + sum(summary["left_out"].values())
    assert summary["rows"] + gone == summary["samples"] == run.source.summary["samples"]
    assert summary["quarantined"] == run.source.summary["quarantined"]
    source = set(keys_of(run.source))
    kept, others = set(keys_of(run.catalog)), {row["key"] for row in left_out(run)}
    assert kept | others == source
    assert len(kept) + len(others) == len(source)


def test_labels_are_flipped_and_the_truth_is_kept_aside(tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    run = finish(tiny_config(tmp_path / "run", *SYMMETRIC))
    before = run.source
    assert keys_of(run.catalog) == keys_of(before)
    expected = flip_labels("symmetric", before.label, before.draw_id, 6, 0.5, seed=0)
    assert run.catalog.label.tolist() == expected.tolist()
    assert read_truth(run.catalog).tolist() == before.label.tolist()
    assert 0.2 < (run.catalog.label != before.label).mean() < 0.6
    assert_nothing_lost(run)
    found = evaluate_run(run.config)
    assert found.true_noise_rate == pytest.approx((run.catalog.label != before.label).mean())
    assert "truth" not in " ".join(read_table(run.store, Published.open(run.store).parts[0]).column_names)


def with_truth(samples: list[Sample], truth: Callable[[int, int], object]) -> list[Sample]:
    """The samples with another truth, by row and given label."""
    return [
        [members[0], (members[1][0], json.dumps({"truth": truth(row, int(members[0][1]))}).encode()), members[2]]
        if len(members) == 3
        else members
        for row, members in enumerate(samples)
    ]


def test_noise_leaves_rows_of_none_of_the_classes_as_they_are(
    tiny_samples: list[Sample], write_tiny: Callable[..., str], tiny_config: Tiny, finish: Finish, tmp_path: Path
) -> None:
    samples = with_truth(tiny_samples, lambda row, label: NONE_OF_CLASSES if row % 4 == 0 else label)
    shards = f"data.shards={write_tiny(tmp_path / 'shards', samples, SHARD_SAMPLES)}"
    noise = ("noise.kind=symmetric", "noise.rate=0.9")
    run = finish(tiny_config(tmp_path / "run", shards, *noise))
    before, given = run.source.label, run.catalog.label
    flipped = flip_labels("symmetric", before, run.source.draw_id, 6, 0.9, seed=0)
    none = read_truth(run.source) == NONE_OF_CLASSES
    assert 5 < none.sum() < len(none) / 2
    assert given.tolist() == np.where(none, before, flipped).tolist()
    assert read_truth(run.catalog).tolist() == np.where(none, NONE_OF_CLASSES, before).tolist()
    assert evaluate_run(run.config).true_noise_rate == pytest.approx((none | (given != before)).mean())
    held_out = finish(tiny_config(tmp_path / "held", shards, "influence.validation=split", "scores=[loss, osm, osd]"))
    by_sample = by_key(held_out.source, read_truth(held_out.source))
    assert all(by_sample[key] == true for key, true in by_key(held_out.catalog, read_truth(held_out.catalog)).items())


def test_noise_over_labels_that_the_truth_calls_wrong_is_refused(
    tiny_config: Tiny, finish: Finish, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"has the label \d and the truth \d.*unset data.truth"):
        finish(tiny_config(tmp_path / "run", "noise.kind=symmetric", "noise.rate=0.5"))


def test_another_seed_is_another_noise(tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    runs = [finish(tiny_config(tmp_path / f"{seed}", *SYMMETRIC, f"run.seed={seed}")) for seed in (0, 1)]
    assert runs[0].catalog.label.tolist() != runs[1].catalog.label.tolist()


@pytest.mark.parametrize("kind", ["symmetric", "instance"])
def test_another_sharding_gets_the_same_noise(
    kind: str,
    tiny_config: Tiny,
    finish: Finish,
    tiny_samples: list[Sequence[tuple[str, bytes]]],
    write_tiny: Callable[..., str],
    tmp_path: Path,
) -> None:
    settings = (*SYMMETRIC, f"noise.kind={kind}", "noise.imbalance=step", "noise.ratio=2")
    one = finish(tiny_config(tmp_path / "one", *settings))
    shards = write_tiny(tmp_path / "other", tiny_samples[::-1], (20, 5))
    other = finish(tiny_config(tmp_path / "two", *settings, f"data.shards={shards}"))
    assert by_key(one.catalog, one.catalog.label) == by_key(other.catalog, other.catalog.label)
    assert by_key(one.catalog, read_truth(one.catalog)) == by_key(other.catalog, read_truth(other.catalog))


def test_an_imbalance_leaves_rows_out_with_their_reason(tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    run = finish(tiny_config(tmp_path / "run", "data.truth=", "noise.imbalance=step", "noise.ratio=4"))
    counts = np.bincount(run.source.label, minlength=6)
    targets = np.minimum(counts, [counts.max()] * 3 + [max(counts.max() // 4, 1)] * 3)
    assert run.catalog.class_counts.tolist() == targets.tolist()
    assert {row["reason"] for row in left_out(run)} <= {"imbalance"}
    assert_nothing_lost(run)


def test_two_classes_are_named_anew(tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    fixed = ("data.truth=", "noise.imbalance=two_class", "noise.classes=[2, 0]", "noise.ratio=2", "train.epochs=1")
    noise = ("noise.kind=symmetric_exclusive", "noise.rate=0.3", "train.from=")
    run = finish(tiny_config(tmp_path / "run", *fixed, *noise))
    assert run.classes.names == ("2", "0")
    assert run.catalog.num_classes == 2
    truth, source = by_key(run.catalog, read_truth(run.catalog)), by_key(run.source, run.source.label)
    assert all(source[key] == (2, 0)[label] for key, label in truth.items())
    assert run.catalog.summary["left_out"]["imbalance"] > 0
    assert_nothing_lost(run)
    assert Published.open(run.store).classes()["name"].to_pylist() == ["2", "0"]


@pytest.mark.parametrize(
    "overrides", [("influence.validation_label=json:truth",), (), SYMMETRIC], ids=["member", "given", "made"]
)
def test_rows_are_held_out_with_their_verified_labels(
    overrides: tuple[str, ...], tiny_config: Tiny, finish: Finish, tmp_path: Path
) -> None:
    split = ("influence.validation=split", "influence.validation_num=2")
    run = finish(tiny_config(tmp_path / "run", *split, *overrides))
    verified = run.derived["held_out"]
    assert not set(keys_of(verified)) & set(keys_of(run.catalog))
    assert {row["key"] for row in left_out(run)} == set(keys_of(verified))
    assert {row["reason"] for row in left_out(run)} == {"validation"}
    known = read_truth(run.source) if "json:truth" in str(overrides) else run.source.label
    truth = by_key(run.source, known)
    assert by_key(verified, verified.label) == {key: truth[key] for key in keys_of(verified)}
    in_all = np.bincount(known, minlength=6)
    ties = (verified.class_counts >= np.minimum(in_all, 2)).all()  # equal key and pixels stay together
    assert ties
    assert verified.class_counts.sum() < len(known)
    assert_nothing_lost(run)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "symetric"}, "noise.kind"),
        ({"kind": "symmetric", "rate": 1.5}, "noise.rate"),
    ],
)
def test_noise_that_cannot_be(settings: dict[str, object], said: str) -> None:
    tree = {"run": {"dir": "r"}, "data": {"shards": "s", "classes": 3, "truth": "json:t"}, "noise": settings}
    with pytest.raises(ConfigError, match=said):
        parse_config(tree)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("noise.kind=symmetric",), "noise.rate"),
        (("noise.kind=asymmetric_cifar10", "noise.rate=0.4"), "expected 10 classes"),
        (("noise.kind=matrix", "noise.matrix=[[1, 0], [0, 1]]"), "noise.matrix"),
    ],
)
def test_noise_that_does_not_fit_the_classes_is_refused_at_the_start(
    overrides: tuple[str, ...], said: str, tiny_config: Tiny, tmp_path: Path
) -> None:
    from rayclean.catalog.stage import find_sources

    config = tiny_config(tmp_path / "run", "data.truth=", *overrides)
    with pytest.raises(ConfigError, match=said):
        start(config, Store(config.run.dir), find_sources(config.data), ONE_WORKER)


def test_a_killed_derivation_goes_on(tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    run = finish(tiny_config(tmp_path / "run", *SYMMETRIC))
    file = f"{run.catalog.folder}/rows/{block_name(2)}.parquet"
    before = run.store.read(file)
    run.store.remove(file)
    finish(run.config)
    assert run.store.read(file) == before


# What a truth may be: right, another class for every row, none of the classes.
TRUTHS: dict[str, Callable[[int, int], object]] = {
    "right": lambda row, label: label,
    "garbage": lambda row, label: (label + 1 + row % 4) % 6,
    "nonsense": lambda row, label: "no class" if row % 2 else 10**6,
}


def test_the_table_is_the_same_whatever_the_truth_says(
    tiny_samples: list[Sample],
    write_tiny: Callable[..., str],
    tiny_config: Tiny,
    finish: Finish,
    tmp_path: Path,
) -> None:
    tables = {}
    for name, truth in TRUTHS.items():
        samples = []
        for row, members in enumerate(tiny_samples):
            if len(members) == 3:  # label, json, image
                label = json.loads(members[1][1])["truth"]
                content = json.dumps({"truth": truth(row, label), "checked": label}).encode()
                members = [members[0], (members[1][0], content), members[2]]
            samples.append(members)
        shards = write_tiny(tmp_path / name / "shards", samples, SHARD_SAMPLES)
        verified = ("influence.validation=split", "influence.validation_label=json:checked")
        fixed = (f"data.shards={shards}", "scores=[loss, osm, osd]", "influence.validation_num=2", *verified)
        run = finish(tiny_config(tmp_path / name / "run", *fixed))
        assert run.config.has_truth
        tables[name] = [run.store.read(part) for part in Published.open(run.store).parts]
        assert tables[name] == tables["right"], name
    assert len(tables["right"]) == 2


def test_a_split_without_a_member_of_its_own_says_whose_labels_it_takes(
    tiny_config: Tiny, finish: Finish, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finish(tiny_config(tmp_path / "run", "influence.validation=split", "scores=[loss]"))
    (line,) = caplog.messages
    assert "with their given labels" in line
    assert "influence.validation_label" in line

"""Features that are wrong or missing: told apart, put aside, or refused with shard and key; never believed."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from rayclean.catalog.features import RowFeatures
from rayclean.config import Config
from rayclean.errors import ConfigError, InputError
from rayclean.evaluate.results import doubts, exit_code
from rayclean.inspect.errors import find_errors
from rayclean.report.run_text import print_errors
from rayclean.report.text import print_summary
from rayclean.run.run import Run
from rayclean.storage.published import Published
from tests.feature_runs import DIM, ROWS, clusters, feature_config, key_of, members_of, write_feature_shards
from tests.helpers import write_tar

Do = Callable[[Config], Run]
CLUSTERS = clusters()


def summary_of(run: Run) -> dict[str, Any]:
    return dict(Published.open(run.store).summary())


def said(write: Callable[..., None], *arguments: Any) -> str:
    text = io.StringIO()
    write(Console(file=text, width=400), *arguments)
    return text.getvalue()


def write_features(path: Path, features: list[Any], keys: list[str] | None = None, **more: list[str]) -> str:
    """A Parquet file of features; returns what `data.features` is then."""
    lists = pa.array([None if each is None else np.asarray(each).tolist() for each in features], pa.list_(pa.float32()))
    names = keys or [key_of(row) for row in range(len(features))]
    pq.write_table(pa.table({"key": names, "features": lists, **more}), path)
    return f"file:{path}"


def with_value(row: int, value: float) -> Any:
    features = CLUSTERS.features[row].copy()
    features[3] = value
    return features


def test_samples_whose_features_cannot_be_used_are_put_aside(finish: Do, tmp_path: Path) -> None:
    instead = {3: np.zeros(DIM - 1), 5: with_value(5, np.nan), 6: with_value(6, np.inf), 7: None, 8: [["x"]]}
    one_row = {9: CLUSTERS.features[9][None]}  # (1, d) is as good as (d,)
    config = feature_config(tmp_path / "run", write_feature_shards(tmp_path, CLUSTERS, instead={**instead, **one_row}))
    run = finish(config)
    summary = summary_of(run)
    assert summary["quarantined"] == {"bad_features": 4, "missing_features": 1}
    assert (summary["rows"], summary["reliable"]) == (ROWS - 5, True)
    assert exit_code(config, summary) == 3  # 5 of 150 are more than data.max_bad_share allows
    (data,) = find_errors(config, 10).data
    assert {each.key: each.reason for each in data.samples} == {
        key_of(row): "missing_features" if row == 7 else "bad_features" for row in instead
    }
    assert "unused_features" not in data.to_json()  # members are no files beside the shards


def test_constant_columns_change_nothing_but_the_scale(finish: Do, tmp_path: Path) -> None:
    more = np.full((ROWS, 2), [7.0, 0.0], np.float32)
    rows = CLUSTERS._replace(features=np.concatenate([CLUSTERS.features, more], axis=1))
    summary = summary_of(finish(feature_config(tmp_path / "run", write_feature_shards(tmp_path, rows))))
    assert (summary["rows"], summary["reliable"], summary["quarantined"]) == (ROWS, True, {})
    assert abs(summary["noise_rate"] - (CLUSTERS.given != CLUSTERS.truth).mean()) < 0.1


def test_shards_of_different_widths_are_named(finish: Do, tmp_path: Path) -> None:
    others = {row: np.zeros(5, np.float32) for row in range(ROWS // 2, ROWS)}
    config = feature_config(tmp_path / "run", write_feature_shards(tmp_path, CLUSTERS, instead=others))
    with pytest.raises(InputError, match=f"01.tar: its samples have 5 features, those of 00.tar have {DIM}"):
        finish(config)


@pytest.mark.parametrize("seed", [1, 2])
def test_features_in_another_order_than_the_labels_are_not_believed(seed: int, finish: Do, tmp_path: Path) -> None:
    order = np.random.default_rng(seed).permutation(ROWS)
    rows = CLUSTERS._replace(features=CLUSTERS.features[order])
    run = finish(feature_config(tmp_path / "run", write_feature_shards(tmp_path, rows)))
    summary = summary_of(run)
    assert not summary["reliable"]
    assert "they may be in another order than the labels" in summary["reason"]
    assert set(summary["doubts"]) == {"head 0.03", "head 0.3", "head 1", "neighbors"}
    assert all("nothing that is said of the labels can be relied on" in line for line in doubts(summary))
    assert f"unreliable: {summary['reason']}" in said(print_summary, "run", summary, 1.0, None)


def test_samples_without_features_and_features_without_samples_are_counted(finish: Do, tmp_path: Path) -> None:
    features = [*CLUSTERS.features[: ROWS - 2], CLUSTERS.features[0], CLUSTERS.features[1]]
    features[4], features[5] = None, features[5][:3]
    keys = [*map(key_of, range(ROWS - 2)), "gone1", "gone2"]
    source = write_features(tmp_path / "features.parquet", features, keys)
    shards = write_feature_shards(tmp_path / "shards", CLUSTERS, instead=dict.fromkeys(range(ROWS)))
    config = feature_config(tmp_path / "run", shards, data={"features": source})
    summary = summary_of(finish(config))
    assert summary["quarantined"] == {"missing_features": 2, "bad_features": 2}
    # The two of bad rows belong to samples, but to no row of the table.
    assert summary["unused_features"] == 4
    assert "features of no sample" in said(print_summary, "run", summary, 1.0, None)
    assert "4 features in files beside the shards are of no sample" in said(print_errors, find_errors(config, 0), 0)


def test_a_key_in_two_shards_cannot_share_features(finish: Do, tmp_path: Path) -> None:
    shards = []
    for name, first in (("a", 0), ("b", 70)):  # keys 70 to 74 are in both
        rows = range(first, first + 75)
        members = [
            part for row in rows for part in members_of(key_of(row), None, CLUSTERS.given[row], CLUSTERS.truth[row])
        ]
        shards.append(write_tar(tmp_path / f"{name}.tar", members))
    source = write_features(tmp_path / "features.parquet", list(CLUSTERS.features))
    with pytest.raises(InputError, match=r"key 's0070' is in 2 shards \(a.tar, b.tar\).*add a column shard"):
        finish(feature_config(tmp_path / "run", shards, data={"features": source}))


def test_no_features_at_all_end_the_run_before_the_training(finish: Do, tmp_path: Path) -> None:
    shards = write_feature_shards(tmp_path, CLUSTERS, instead=dict.fromkeys(range(ROWS)))
    with pytest.raises(InputError, match=r"hold no usable sample .* missing_features 150\); check data.features"):
        finish(feature_config(tmp_path / "run", shards))


@pytest.mark.parametrize(
    ("features", "expected"),
    [("file:{}/none*.parquet", "no file matches; check the path"), ("clip-retrieval:{}/none", "found neither")],
)
def test_files_that_are_not_there_are_said_at_the_start(
    features: str, expected: str, finish: Do, tmp_path: Path
) -> None:
    shards = write_feature_shards(tmp_path / "shards", CLUSTERS)
    config = feature_config(tmp_path / "run", shards, data={"features": features.format(tmp_path)})
    with pytest.raises(ConfigError, match=expected):
        finish(config)


def test_two_features_of_one_key_are_refused_at_the_start(finish: Do, tmp_path: Path) -> None:
    keys = [*map(key_of, range(ROWS - 1)), key_of(0)]
    source = write_features(tmp_path / "features.parquet", list(CLUSTERS.features), keys)
    shards = write_feature_shards(tmp_path / "shards", CLUSTERS)
    with pytest.raises(InputError, match=r"some keys are there twice \(key 's0000'\)"):
        finish(feature_config(tmp_path / "run", shards, data={"features": source}))


def test_shards_of_one_content_have_the_features_of_their_names(finish: Do, tmp_path: Path) -> None:
    shards = write_feature_shards(tmp_path / "one", CLUSTERS, num_shards=1, instead=dict.fromkeys(range(ROWS)))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    features = [*CLUSTERS.features, *-CLUSTERS.features]
    names = [f"{folder}/00.tar" for folder in ("one", "two") for _ in range(ROWS)]
    source = write_features(tmp_path / "f.parquet", features, 2 * [key_of(row) for row in range(ROWS)], shard=names)
    both = [shards, shards.replace("/one/", "/two/")]
    run = finish(feature_config(tmp_path / "run", both, data={"features": source}))
    found = RowFeatures(run.catalog).read(np.arange(2 * ROWS))
    np.testing.assert_allclose(found, np.array(features), atol=0.02)


def test_shards_of_one_name_size_and_time_are_told_apart(finish: Do, tmp_path: Path) -> None:
    others = CLUSTERS._replace(features=-CLUSTERS.features)
    for name, rows in (("one", CLUSTERS), ("two", others)):
        write_feature_shards(tmp_path / name, rows, num_shards=1)
        os.utime(tmp_path / name / "00.tar", (1_700_000_000, 1_700_000_000))
    run = finish(feature_config(tmp_path / "run", [f"{tmp_path}/one/*.tar", f"{tmp_path}/two/*.tar"]))
    found = RowFeatures(run.catalog).read(np.arange(2 * ROWS))
    np.testing.assert_allclose(found, np.concatenate([CLUSTERS.features, others.features]), atol=0.02)

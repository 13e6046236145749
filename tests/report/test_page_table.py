"""One pass over the table, and the near pairs, against the same told plainly from the whole of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from rayclean.evaluate.evaluate import read_truth
from rayclean.inspect.final_table import FinalTable
from rayclean.report import page_near, page_table
from rayclean.report.page_facts import Classes
from rayclean.report.page_near import near_pairs
from rayclean.report.page_table import Seen, scan
from rayclean.report.page_truth import Known, no_truth, read_some_truth, reliability, truth_groups
from rayclean.report.page_views import confusions, label_heat_map
from rayclean.run.run import Run
from rayclean.schema import UNKNOWN, Array
from rayclean.storage.contents import map_arrays
from rayclean.storage.published import Published
from rayclean.storage.units import block_name, num_blocks

Lines = list[dict[str, Any]]
SCORES = ["score_loss", "score_iofm"]
SHOWN = np.array([0, 2, 3])


@pytest.fixture(scope="module")
def rows(trained: Run) -> ds.Dataset:
    table = FinalTable.of(Published.open(trained.store))
    assert table is not None
    return table.rows


@pytest.fixture(scope="module")
def lines(rows: ds.Dataset) -> Lines:
    found: Lines = rows.to_table().to_pylist()
    return found


def seen_of(rows: ds.Dataset, num_rows: int, shares: Array | None = None) -> Seen:
    return scan(rows, num_rows, SCORES, np.full(6, 4) if shares is None else shares, SHOWN)


def test_counts_are_those_of_the_table(rows: ds.Dataset, lines: Lines) -> None:
    found = seen_of(rows, len(lines))
    assert found.kinds == Counter(line["issue_kind"] for line in lines if line["issue_kind"])
    assert found.verified == 0
    for i, given in enumerate(SHOWN):
        for j, predicted in enumerate(SHOWN):
            here = [x for x in lines if x["given_label"] == given and x["predicted_label"] == predicted]
            assert found.confused[i, j] == len(here)
            assert found.flagged[i, j] == sum(line["is_label_issue"] for line in here)


def test_the_worst_of_each_class(rows: ds.Dataset, lines: Lines) -> None:
    found = seen_of(rows, len(lines), np.array([3, 0, 2, 1, 9, 1]))
    by_class = {
        label: sorted((x["label_score"], x["row"]) for x in lines if x["given_label"] == label) for label in range(6)
    }
    expected = [row for label, most in enumerate([3, 0, 2, 1, 9, 1]) for _, row in by_class[label][:most]]
    assert found.worst.tolist() == expected


@pytest.mark.parametrize("most", [10**6, 20, 7])
def test_the_sample_is_every_so_many_rows(
    most: int, rows: ds.Dataset, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_table, "SAMPLE_ROWS", most)
    found = seen_of(rows, len(lines))
    expected = lines[:: found.stride]
    assert len(expected) <= most
    assert found.sample["row"].tolist() == [line["row"] for line in expected]
    for name in (*SCORES, "label_score", "verified_label", "given_label"):
        values = [np.nan if line[name] is None else line[name] for line in expected]
        np.testing.assert_allclose(found.sample[name], values, err_msg=name)


def test_groups_of_copies_are_those_with_several_labels(
    rows: ds.Dataset, lines: Lines, trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: dict[bytes, list[int]] = {}
    for row, digest in enumerate(trained.catalog.digest):
        groups.setdefault(digest.tobytes(), []).append(row)
    mixed = [group for group in groups.values() if len({lines[row]["given_label"] for row in group}) > 1]
    assert [len(group) for group in mixed] == [4]  # the tiny shards have one picture four times, once with label 2
    found = seen_of(rows, len(lines))
    assert [group.rows for group in found.copies.values()] == mixed
    assert found.num_groups == 1
    monkeypatch.setattr(page_table, "SHOWN_COPIES", 2)
    (group,) = seen_of(rows, len(lines)).copies.values()
    assert (group.rows, group.total) == (mixed[0][:2], 4)
    monkeypatch.setattr(page_table, "GROUPS", 0)
    assert (seen_of(rows, len(lines)).copies, found.num_groups) == ({}, 1)


def test_people_may_have_said_that_it_is_none_of_the_classes(rows: ds.Dataset) -> None:
    table = rows.to_table()
    labels = {"verified_label": [-1, 2], "predicted_label": [-1, 2]}
    for name, (first, second) in labels.items():
        values = pa.array([first, second, *table[name].to_pylist()[2:]], pa.int32())
        table = table.set_column(table.schema.get_field_index(name), name, values)
    found = seen_of(ds.dataset(table), table.num_rows)
    assert found.verified == 2
    assert found.sample["verified_label"][:2].tolist() == [-1, 2]
    given, predicted = (table[name].to_numpy() for name in ("given_label", "predicted_label"))
    counted = np.isin(given, SHOWN) & np.isin(predicted, [*SHOWN, -1])
    assert found.confused.sum() == counted.sum()
    assert found.confused[:, -1].tolist() == [int(((given == label) & (predicted == -1)).sum()) for label in SHOWN]


def test_confusions_with_none_of_the_classes_are_told() -> None:
    counts = np.array([[5, 1, 7], [2, 5, 0]])
    seen = Seen(1, {}, np.empty(0), 0, counts, counts)
    classes = Classes(["a", "b", "c"])
    found = confusions(seen, np.array([0, 2]))
    expected = [("a", "none of the classes", 7), ("c", "a", 2), ("a", "c", 1)]
    assert [(classes.name(each.given), classes.name(each.predicted), each.rows) for each in found] == expected
    heat, note = label_heat_map(None, "too few anchors", seen, np.array([0, 2]), classes)
    assert "53.8% of the samples that are labelled a are predicted to be none of the classes" in str(heat)
    assert "no transition matrix: too few anchors" in note
    heat, note = label_heat_map(np.eye(2), None, seen, np.array([0, 2]), classes)
    assert "none of the classes" not in str(heat)


def test_truth_is_counted_by_class_and_kept_where_it_is_asked_for(trained: Run) -> None:
    every, given = read_truth(trained.catalog), trained.catalog.label
    some = np.array([0, 30, 30, 7])
    found = read_some_truth(trained.catalog, some)
    assert found.labels == {row: every[row] for row in (0, 7, 30)}
    assert found.of(np.array([7, 1])).tolist() == [every[7], UNKNOWN]
    assert found.noise_rate == pytest.approx((every != given).mean())
    for label in range(6):
        assert found.noise_rate_of(label) == pytest.approx((every != given)[given == label].mean())
    nothing = no_truth(2)
    assert nothing.noise_rate is None
    assert nothing.noise_rate_of(1) is None
    groups = truth_groups(np.array([1, 1, 1]), np.array([1, 0, UNKNOWN]))
    assert [groups[name].tolist().index(True) for name in ("right", "wrong", "no truth")] == [0, 1, 2]


def test_reliability_has_the_share_of_right_labels() -> None:
    found = reliability(Known(np.array([0.1, 0.11, 0.9, 0.9]), np.array([False, False, True, False]), by_truth=True))
    assert found is not None
    assert [(each.rows, each.clean_share) for each in found.bins] == [(2, 0), (2, 0.5)]
    assert found.error == pytest.approx((0.105 * 2 + 0.4 * 2) / 4)
    assert found.source == "the truth of 4 rows"
    assert reliability(None) is None


@pytest.mark.parametrize("pairs", [60, 2])
def test_near_pairs_are_the_closest_with_other_labels(
    pairs: int, trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_near, "PAIRS", pairs)
    monkeypatch.setattr(page_near, "NEAR", 1.2)  # the tiny pictures are noise, and far from each other
    catalog, block_rows = trained.catalog, trained.config.blocks.rows
    folder = trained.score_files().vote_folders[-1]
    blocks = range(num_blocks(catalog.num_rows, block_rows))
    files = [map_arrays(trained.store, f"{folder}/{block_name(block)}.safetensors") for block in blocks]
    near = np.concatenate([file["neighbors"] for file in files])
    distances = np.sqrt(np.concatenate([file["neighbor_distances"] for file in files]).astype(np.float64))
    usual = float(np.median(distances[:, 0]))
    plain: dict[tuple[int, int], float] = {}
    rows = set()
    for row, (others, far) in enumerate(zip(near.tolist(), distances.tolist(), strict=True)):
        for other, distance in zip(others, far, strict=True):
            differ = catalog.label[row] != catalog.label[other]
            is_copy = (catalog.digest[row] == catalog.digest[other]).all()
            if other >= 0 and distance <= 1.2 * usual and differ and not is_copy:
                rows.add(row)
                plain.setdefault((min(row, other), max(row, other)), distance)
    found = near_pairs(catalog, folder, block_rows)
    assert plain
    assert found.num_rows == len(rows)
    expected = sorted(plain, key=lambda pair: (plain[pair], pair))[:pairs]
    assert [tuple(pair) for pair in found.rows.tolist()] == expected
    np.testing.assert_allclose(found.closeness, [plain[pair] / usual for pair in expected], rtol=1e-5)

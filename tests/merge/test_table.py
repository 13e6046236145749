"""The final table of a block: each column is what it says, in the schema's order and types."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.merge.joint import Posterior
from rayclean.merge.models import fit_model, mixture_input
from rayclean.merge.table import evidence, shard_column, table_of_block
from rayclean.schema import NONE_OF_CLASSES, SCORES, Array, label_columns, label_schema
from rayclean.scores.block import BlockScores

NUM_CLASSES = 4


def random_block(num_rows: int, names: list[str], seed: int, undefined: float = 0.2) -> tuple[BlockScores, Array]:
    """Scores with NaN among them, and the given labels."""
    rng = np.random.default_rng(seed)
    scores = {name: np.where(rng.random(num_rows) < undefined, np.nan, -rng.random(num_rows)) for name in names}
    neighbors = rng.integers(0, 50, (num_rows, 3))
    for row, count in enumerate(rng.integers(0, 4, num_rows)):
        neighbors[row, count:] = -1
    belief = rng.dirichlet(np.ones(NUM_CLASSES), num_rows)
    facts = {
        "odd_quantile": rng.random(num_rows),
        "odd_drop": rng.random(num_rows) < 0.5,
        "osd_votes": rng.integers(0, 9, num_rows),
    }
    return BlockScores(scores, {}, facts, belief, None, neighbors), rng.integers(0, NUM_CLASSES, num_rows)


def table(block: BlockScores, given_labels: Array, seed: int, threshold: float = 0.5) -> pa.Table:
    rng, num_rows = np.random.default_rng(seed), len(given_labels)
    identity = {
        "row": pa.array(np.arange(num_rows)),
        "shard": shard_column(np.zeros(num_rows, np.int64), ["a.tar"]),
        "key": pa.array([f"k{i}" for i in range(num_rows)]),
    }
    return table_of_block(
        identity,
        given_labels,
        np.where(rng.random(num_rows) < 0.5, -1, 7),
        Posterior(
            np.linspace(0, 1, num_rows, dtype=np.float32),
            (given_labels + 1) % NUM_CLASSES,
            np.linspace(0.3, 0.9, num_rows, dtype=np.float32),
            block.belief,
        ),
        block,
        np.where(block.neighbors >= 0, block.neighbors % NUM_CLASSES, -1),
        rng.random(num_rows) < 0.5,
        threshold,
        np.full(num_rows, -1),
        np.zeros(num_rows, bool),
    )


score_lists = st.lists(st.sampled_from(sorted(SCORES)), unique=True, max_size=4)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 12), score_lists, st.integers(0, 500), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_columns_are_what_they_say(num_rows: int, names: list[str], seed: int, threshold: float) -> None:
    block, labels = random_block(num_rows, names, seed)
    found = table(block, labels, seed, threshold)
    assert found.schema.equals(label_schema(SCORES[name] for name in names), check_metadata=True)
    assert found.column_names == [name for name, _, _ in label_columns(SCORES[name] for name in names)]
    columns = found.to_pydict()
    assert columns["given_label"] == labels.tolist()
    assert columns["is_label_issue"] == [score < threshold for score in columns["label_score"]]
    np.testing.assert_allclose(columns["label_score"], np.linspace(0, 1, num_rows), rtol=1e-6)
    assert columns["predicted_label"] == ((labels + 1) % NUM_CLASSES).tolist()
    np.testing.assert_allclose(columns["predicted_score"], np.linspace(0.3, 0.9, num_rows), rtol=1e-6)
    for name in names:
        values = np.array([np.nan if v is None else v for v in columns[f"score_{name}"]], np.float32)
        np.testing.assert_array_equal(values, block.scores[name].astype(np.float32))
    assert set(columns["duplicate_of"]) <= {None, 7}
    assert [len(rows) for rows in columns["neighbor_rows"]] == (block.neighbors >= 0).sum(axis=1).tolist()
    for rows, their_labels, mine in zip(
        columns["neighbor_rows"], columns["neighbor_labels"], block.neighbors, strict=True
    ):
        assert rows == mine[mine >= 0].tolist()
        assert their_labels == [row % NUM_CLASSES for row in rows]


def test_what_is_flagged_and_of_none_of_the_classes_is_called_so() -> None:
    block, labels = random_block(4, [], 0)
    names = ("none_of_the_classes", "duplicate_with_another_label")
    scores = np.array([0.2, 0.3, 0.4, 0.9], np.float32)
    found = table_of_block(
        {"row": pa.array(range(4)), "shard": shard_column(np.zeros(4, np.int64), ["a"]), "key": pa.array(["k"] * 4)},
        labels,
        np.full(4, -1),
        Posterior(scores, np.full(4, NONE_OF_CLASSES), 1 - scores, np.eye(NUM_CLASSES)[(labels + 1) % NUM_CLASSES]),
        block,
        block.neighbors,
        np.zeros(4, bool),
        0.5,
        np.full(4, -1),
        np.array([False, False, True, False]),
    )
    assert found["predicted_label"].to_pylist() == [NONE_OF_CLASSES] * 4
    assert found["issue_kind"].to_pylist() == [names[0], names[0], names[1], None]


def test_every_column_says_what_it_means() -> None:
    schema = label_schema(SCORES.values())
    assert all(field.metadata[b"meaning"] for field in schema)
    assert all(b"higher is cleaner" in schema.field(f"score_{name}").metadata[b"meaning"] for name in SCORES)
    assert len(set(schema.names)) == len(schema.names)


def test_evidence_of_nobody_is_an_empty_list() -> None:
    rows, labels = evidence(np.full((2, 3), -1), np.full((2, 3), -1))
    assert rows.to_pylist() == labels.to_pylist() == [[], []]


def test_undefined_scores_are_null_not_nan() -> None:
    block, labels = random_block(4, ["vote"], 0, undefined=1.0)
    assert table(block, labels, 0)["score_vote"].to_pylist() == [None] * 4


@pytest.mark.parametrize("name", ["loss", "ens_loss"])
def test_a_loss_becomes_a_probability_that_keeps_its_digits(name: str) -> None:
    losses = np.array([1e-20, 1e-3, 5.0])
    block = BlockScores({name: -losses}, {}, {}, np.ones((3, 1)), None, np.zeros((3, 3), int))
    values, one_minus = mixture_input(name, block)
    np.testing.assert_allclose(values, np.exp(-losses))
    assert one_minus is not None
    np.testing.assert_allclose(one_minus, -np.expm1(-losses), rtol=1e-12)
    assert one_minus[0] == pytest.approx(1e-20)


def test_a_score_in_0_1_brings_its_complement() -> None:
    rest = np.array([1e-18, 0.5])
    block = BlockScores(
        {"iofm": 1 - rest, "vote": 1 - rest}, {"iofm": rest}, {}, np.ones((2, 1)), None, np.zeros((2, 3))
    )
    assert mixture_input("iofm", block)[1] is rest
    assert mixture_input("vote", block)[1] is None


@pytest.mark.parametrize("name", ["loss", "aum", "iofm"])
def test_a_cleaner_score_is_a_higher_probability(name: str) -> None:
    rng = np.random.default_rng(0)
    clean = rng.random(400) < 0.8
    raw = np.where(clean, rng.beta(8, 2, 400), rng.beta(2, 8, 400))
    values = {"loss": np.log(raw), "aum": raw * 7 - 3, "iofm": raw}[name]
    block = BlockScores({name: values}, {}, {}, np.ones((400, 1)), None, np.zeros((400, 3)))
    labels = np.zeros(400, np.int64)
    found = fit_model(name, [block], labels).judge(block, labels).label_score
    assert found.dtype == np.float32
    assert (np.diff(found[np.argsort(values)]) >= 0).all()
    assert ((found >= 0.5) == clean).mean() > 0.9


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), max_size=9))
def test_shards_are_named_by_a_dictionary(indexes: list[int]) -> None:
    names = ["a/0.tar", "b/0.tar", "c.tar"]
    column = shard_column(np.array(indexes, np.int64), names)
    assert column.to_pylist() == [names[i] for i in indexes]
    assert pa.types.is_dictionary(column.type)

"""What `show` says of a sample equals the table, the catalog and the truth, read plainly; before the merge, what is."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console
from scipy.stats import rankdata

from rayclean.catalog.table import COLUMNS_FILE, SHARDS_FILE
from rayclean.config import Config
from rayclean.errors import InputError
from rayclean.evaluate.evaluate import read_truth
from rayclean.inspect.final_table import FinalTable
from rayclean.inspect.show import describe
from rayclean.report.run_text import print_sample
from rayclean.run.run import Run
from rayclean.storage.contents import read_table
from rayclean.storage.published import LABELS, TABLES, Published
from rayclean.storage.store import Store
from tests.conftest import Sample
from tests.helpers import sample, write_tar

Facts = dict[str, Any]


def table_of(run: Run) -> pa.Table:
    names = [name for name in run.store.list("labels") if name.startswith("part-")]
    return pa.concat_tables([read_table(run.store, f"labels/{name}") for name in names])


@pytest.fixture(scope="module")
def table(trained: Run) -> list[Facts]:
    lines: list[Facts] = table_of(trained).to_pylist()
    return lines


@pytest.fixture(scope="module")
def found(trained: Run, table: list[Facts]) -> list[Facts]:
    """What is said of each row."""
    return [describe(trained.config, line["key"]) for line in table]


@pytest.fixture
def copied(trained: Run, tmp_path: Path) -> Config:
    """A copy of the run, to be changed."""
    shutil.copytree(trained.store.path, tmp_path / "run")
    return trained.config.model_copy(
        update={"run": trained.config.run.model_copy(update={"dir": str(tmp_path / "run")})}
    )


def label_of(label: int | None) -> Facts | None:
    return None if label is None else {"label": label, "name": str(label)}


def who(line: Facts) -> Facts:
    return {
        "row": line["row"],
        "shard": line["shard"],
        "key": line["key"],
        "given_label": label_of(line["given_label"]),
        "predicted_label": label_of(line["predicted_label"]),
    }


def without(neighbors: Sequence[Facts], *names: str) -> list[Facts]:
    return [{name: value for name, value in each.items() if name not in names} for each in neighbors]


def plain_distances(run: Run, line: Facts) -> list[float]:
    """In float64, of the features of the last snapshot."""
    space = run.main.near(run.main.last).embedding
    here, *there = space.features(np.array([line["row"], *line["neighbor_rows"]])).astype(np.float64)
    return [float(np.linalg.norm(each - here)) for each in there]


def test_a_row_is_told_as_the_table_has_it(found: list[Facts], table: list[Facts]) -> None:
    for facts, line in zip(found, table, strict=True):
        for name in ("row", "shard", "key", "label_score", "is_label_issue", "predicted_score", "issue_kind"):
            assert facts[name] == line[name]
        for name in ("given_label", "predicted_label", "verified_label"):
            assert facts[name] == label_of(line[name])
        assert facts["few_neighbors"] == line["few_neighbors"]
        scores = {name.removeprefix("score_"): value for name, value in line.items() if name.startswith("score_")}
        assert {name: score["value"] for name, score in facts["scores"].items()} == scores
        assert facts["odd_drop"] == line["odd_drop"]
        assert without(facts["neighbors"], "distance") == [who(table[row]) for row in line["neighbor_rows"]]
        assert [each["given_label"]["label"] for each in facts["neighbors"]] == line["neighbor_labels"]
        twin = line["duplicate_of"]
        assert facts["duplicate_of"] == (None if twin is None else who(table[twin]))
        assert facts["aside"] == []
    assert sum(facts["duplicate_of"] is not None for facts in found) == 5
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_neighbours_have_their_distance_nearest_first(found: list[Facts], table: list[Facts], trained: Run) -> None:
    for facts, line in zip(found, table, strict=True):
        told = [each["distance"] for each in facts["neighbors"]]
        assert told == pytest.approx(plain_distances(trained, line), rel=1e-9)
        assert told == sorted(told)
    assert len({facts["neighbors"][0]["distance"] for facts in found}) > len(found) / 2


def test_without_features_neighbours_have_no_distance(copied: Config, trained: Run) -> None:
    Store(copied.run.dir).remove(trained.main.near(trained.main.last).folder)
    facts = describe(copied, "k03")
    assert [each["distance"] for each in facts["neighbors"]] == [None] * 3
    assert "distance" not in printed(facts)
    assert ", predicted " in printed(facts)


def test_ranks_are_those_of_the_whole_column(found: list[Facts], table: list[Facts]) -> None:
    columns = [name for name in table[0] if name.startswith("score_") or name == "label_score"]
    for column in columns:
        values = np.array([np.nan if line[column] is None else line[column] for line in table])
        defined = ~np.isnan(values)
        least, mean = rankdata(values[defined], "min"), rankdata(values[defined], "average")
        ranks = [
            facts["rank"] if column == "label_score" else facts["scores"][column.removeprefix("score_")]
            for facts in found
        ]
        assert {rank["of"] for rank in ranks} == {int(defined.sum())}
        known = [rank for rank, is_there in zip(ranks, defined, strict=True) if is_there]
        assert [rank["rank"] for rank in known] == least.tolist()
        expected = 100 * (mean - 0.5) / defined.sum()
        np.testing.assert_allclose([rank["percentile"] for rank in known], expected, rtol=1e-12)
        assert all(rank["rank"] is None for rank, there in zip(ranks, defined, strict=True) if not there)


def test_the_truth_is_told_where_the_run_has_one(found: list[Facts], trained: Run, copied: Config) -> None:
    truth = read_truth(trained.catalog)
    assert [facts["truth"]["label"] for facts in found] == truth.tolist()
    Store(copied.run.dir).remove(f"{trained.catalog.folder}/truth")
    assert "truth" not in describe(copied, found[0]["key"])


def test_the_table_is_streamed_not_loaded(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Store.read

    def read(self: Store, name: str) -> bytes:
        assert not name.startswith("labels/part-")  # they are mapped, on a disk
        return plain(self, name)

    monkeypatch.setattr(Store, "read", read)
    assert describe(trained.config, "k03")["scores"]


def test_of_a_table_on_an_object_store_the_pages_are_checked_that_are_read(
    trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = Store("memory://show/run")
    try:
        for path in Path(trained.store.path).rglob("*"):
            if path.is_file():
                remote.publish(str(path.relative_to(trained.store.path)), path.read_bytes())
        with monkeypatch.context() as patch:
            for name in ("read", "map"):
                patch.setattr(Store, name, _no_parts(getattr(Store, name)))
            assert FinalTable.of(Published.open(remote)).places("k03")
        part = Published.open(remote).parts[0]
        data = bytearray(remote.read(part))
        data[8:200] = bytes(192)
        remote.publish(part, bytes(data))
        with pytest.raises((pa.ArrowInvalid, OSError)):
            FinalTable.of(Published.open(remote)).rows.to_table()
    finally:
        remote.remove("")


def _no_parts(plain: Callable[[Store, str], Any]) -> Callable[[Store, str], Any]:
    def read(self: Store, name: str) -> Any:
        assert not name.startswith("labels/part-")
        return plain(self, name)

    return read


def test_a_sample_in_quarantine_has_its_reason(trained: Run) -> None:
    facts = describe(trained.config, "bad")
    (aside,) = facts["aside"]
    assert aside["reason"] == "missing_label"
    assert facts["shard"] == aside["shard"]
    assert "given_label" not in facts


def test_a_key_that_is_not_there_names_those_that_look_alike(trained: Run, copied: Config) -> None:
    with pytest.raises(InputError, match=r"no sample 'k0x'; did you mean .*'k0") as error:
        describe(trained.config, "k0x")
    assert error.value.exit_code == 2
    with pytest.raises(InputError, match=r"no sample '\[red\]zzzzzzzz'; see the column key"):
        describe(trained.config, "[red]zzzzzzzz")
    with pytest.raises(InputError, match="no sample ''"):
        describe(trained.config, "")
    for folder in (LABELS, TABLES):
        Store(copied.run.dir).remove(folder)
    with pytest.raises(InputError, match="did you mean"):
        describe(copied, "k0x")
    Store(copied.run.dir).remove(trained.catalog.folder + "/rows")
    with pytest.raises(InputError, match="no shard is read yet"):
        describe(copied, "k0x")


@pytest.fixture(scope="module")
def strange(
    tiny_config: Callable[..., Config],
    finish: Callable[..., Run],
    tiny_samples: list[Sample],
    write_tiny: Callable[[Path, Sequence[Sample], Sequence[int]], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """A run with noise made on purpose, whose keys repeat across shards, within one, and have markup."""
    folder = tmp_path_factory.mktemp("strange")
    pattern = write_tiny(folder / "shards", [each for each in tiny_samples if each[0][0] != "bad.png"], (20, 20))
    key = "[red]x[/red]:cat:"
    write_tar(folder / "shards/03.tar", sample("same", 0, 101) + sample("same", 1, 102) + sample(key, 2, 103))
    write_tar(folder / "shards/04.tar", sample("same", 2, 104) + sample("alone", 1, 105))
    overrides = (f"data.shards={pattern}", "data.truth=", "noise.kind=symmetric", "noise.rate=0.5")
    imbalance = ("noise.imbalance=long_tail", "noise.ratio=20")
    return finish(tiny_config(folder / "run", *overrides, *imbalance, "data.classes=[a, b, '[red]c', d, e, f]"))


def test_a_key_of_several_shards_asks_for_one(strange: Run) -> None:
    with pytest.raises(InputError, match=r"'same' is in 2 shards; choose one by --shard: 03.tar, 04.tar"):
        describe(strange.config, "same")
    with pytest.raises(InputError, match=r"'same' is not in shard 01.tar, but in 03.tar, 04.tar"):
        describe(strange.config, "same", "01.tar")
    assert describe(strange.config, "same", "04.tar")["shard"] == "04.tar"
    # The second one of the shard is no row.
    reasons = [each["reason"] for each in describe(strange.config, "same", "03.tar")["aside"]]
    assert "duplicate_key" in reasons


def test_labels_changed_and_samples_left_out_on_purpose_are_told(strange: Run) -> None:
    source, kept = strange.source, {(line["shard"], line["key"]): line for line in rows(strange)}
    left_out = flipped = 0
    for shard, name in enumerate(source.shards["name"].to_pylist()):
        for line in source.rows_of_shard(shard).to_pylist():
            facts = describe(strange.config, line["key"], name)
            reasons = [each["reason"] for each in facts["aside"] if "text" not in each]
            if (name, line["key"]) in kept:
                assert (facts["truth"]["label"], reasons) == (line["label"], [])
                flipped += facts["given_label"] != facts["truth"]
            else:
                assert ("row" in facts, reasons) == (False, ["imbalance"])
                left_out += 1
    assert min(left_out, flipped) > 3


def printed(facts: Facts) -> str:
    sink = io.StringIO()
    print_sample(Console(file=sink, width=300, force_terminal=True), facts)
    return sink.getvalue()


def test_what_is_printed_is_all_of_it_and_no_markup(strange: Run, found: list[Facts]) -> None:
    text = printed(describe(strange.config, "[red]x[/red]:cat:"))
    assert "'[red]x[/red]:cat:' of 03.tar" in text
    assert any("2 [red]c" in printed(describe(strange.config, line["key"], line["shard"])) for line in rows(strange))
    twin = next(facts for facts in found if facts["duplicate_of"])
    text = printed(twin)
    for shown in (
        "given label",
        "truth",
        "not seen by any score",
        "label_score",
        "iofm",
        "rank",
        "neighbour",
        "distance",
    ):
        assert shown in text
    assert f"equal pixels     row {twin['duplicate_of']['row']} " in text
    assert "missing_label" in printed({"key": "bad", "shard": "s", "aside": [{"reason": "missing_label", "text": ""}]})


def rows(run: Run) -> Iterator[Facts]:
    yield from table_of(run).to_pylist()


def test_before_the_merge_there_is_what_the_finished_stages_say(
    trained: Run, copied: Config, found: list[Facts]
) -> None:
    store, after = Store(copied.run.dir), found[30]
    key = after["key"]
    store.remove("tables/_manifest.json")
    facts = describe(copied, key)
    for name in ("row", "shard", "given_label", "truth"):
        assert facts[name] == after[name]
    assert facts["neighbors"] == without(after["neighbors"], "predicted_label")
    assert (facts["duplicate_of"] or {}).get("row") == (after["duplicate_of"] or {}).get("row")
    assert {"loss", "ens_loss", "margin", "aum", "wrong_events", "vote"} <= set(facts["scores"])
    for name, score in facts["scores"].items():
        assert score["value"] == pytest.approx(after["scores"][name]["value"], rel=1e-6)
    assert "none yet" in printed(facts)

    store.remove(trained.vote(trained.voted[-1]).folder)
    assert "neighbors" not in describe(copied, key)
    store.remove(f"{trained.main.task.folder}/trained.json")
    facts = describe(copied, key)
    assert "scores" not in facts
    assert (facts["duplicate_of"] is None) == (after["duplicate_of"] is None)
    for name in (SHARDS_FILE, COLUMNS_FILE):
        store.remove(f"{trained.catalog.folder}/{name}")
    facts = describe(copied, key)
    assert facts["given_label"] == after["given_label"]
    assert "row" not in facts
    assert describe(copied, "bad")["aside"][0]["reason"] == "missing_label"


def test_a_table_of_an_earlier_start_is_called_so(trained: Run, copied: Config) -> None:
    facts = describe(copied, "k03")
    assert facts["table"] == {"merge": trained.merge()[1].folder, "is_current": True}
    assert "earlier start" not in printed(facts)
    changed = copied.model_copy(update={"merge": copied.merge.model_copy(update={"threshold": 0.25})})
    assert describe(changed, "k03")["table"]["is_current"] is False
    assert "of an earlier start" in printed(describe(changed, "k03"))
    Store(copied.run.dir).remove(f"{trained.main.task.folder}/trained.json")
    assert describe(copied, "k03")["table"]["is_current"] is False

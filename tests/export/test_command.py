"""Exported shards are the chosen samples, byte for byte, whoever copies them and however often they are stopped."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest

from rayclean.catalog.labels import ClassList, LabelField
from rayclean.catalog.table import SHARDS_FILE, SOURCES_FILE
from rayclean.cluster.pool import UnitActor
from rayclean.cluster.sizing import Workers
from rayclean.config import Config, Pool
from rayclean.errors import ConfigError, InputError, RunHeldError, ShardChangedError, StageError
from rayclean.export import command
from rayclean.export.choose import Decision, Rule, settle
from rayclean.export.cut import Cut, caution_of
from rayclean.export.options import ExportOptions
from rayclean.export.rows import Chosen
from rayclean.export.shards_job import ShardsJob, inside
from rayclean.export.table import LabelTable
from rayclean.run.run import Run
from rayclean.run.site import Site
from rayclean.run.start import ONE_WORKER, look
from rayclean.shards.stream import stream_shard
from rayclean.shards.urls import stat_shard
from rayclean.storage.contents import encode
from rayclean.storage.executor import Inline, JobReport, Watcher
from rayclean.storage.graph import Graph
from rayclean.storage.lease import hold
from rayclean.storage.published import Published, TableFile
from rayclean.storage.store import Store
from rayclean.storage.units import Job
from tests.conftest import SHARD_SAMPLES, Sample
from tests.export.runs import columns_of, compute_here, doubtful_run, edited, exported, lines_of
from tools.faults.serving import serving

WISHES: list[dict[str, Any]] = [
    {"cut": 0.4},
    {"cut": 0.4, "removed": True},
    {"budget": 30, "labels": "predicted"},
    {"precision": 0.8, "labels": "verified"},
]


@pytest.fixture(scope="module")
def doubtful(scored: Run, tmp_path_factory: pytest.TempPathFactory) -> Config:
    return doubtful_run(scored, tmp_path_factory.mktemp("doubtful") / "run")


def files_of(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def shards_of(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_of(out).items() if name.endswith(".tar")}


def decided(config: Config, wishes: dict[str, Any]) -> Decision:
    columns = columns_of(config)
    caution = caution_of(Published.open(Store(config.run.dir)).summary())
    return settle(ExportOptions(**wishes), config.merge.threshold, lambda: [columns], caution).decide(columns)


def members_of(data: bytes) -> dict[str, tuple[bytes, bytes]]:
    """Header and content of each member."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for info in tar:
            content = data[info.offset_data : info.offset_data + info.size]
            found[info.name] = data[info.offset : info.offset_data], content
    return found


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize("wishes", WISHES)
def test_there_and_back(
    doubtful: Config,
    tiny_config: Callable[..., Config],
    finish: Callable[..., Run],
    wishes: dict[str, Any],
    tmp_path: Path,
) -> None:
    summary = exported(doubtful, "shards", tmp_path / "out", **wishes)
    decision, lines = decided(doubtful, wishes), lines_of(doubtful)
    chosen = ~decision.kept if wishes.get("removed") else decision.kept
    expected = {
        (line["shard"], line["key"]): (int(label), line["row"])
        for line, label, is_chosen in zip(lines, decision.label, chosen, strict=True)
        if is_chosen
    }
    again = finish(tiny_config(tmp_path / "again", f"data.shards={tmp_path}/out/*.tar"))
    found = {
        (shard, row["key"]): (row["label"], row["digest"])
        for number, shard in enumerate(again.catalog.shards["name"].to_pylist())
        for row in again.catalog.rows_of_shard(number).to_pylist()
    }
    before = look(doubtful, Store(doubtful.run.dir)).catalog
    assert list(found) == list(expected)  # in their order, too; nothing is in quarantine
    for place, (label, row) in expected.items():
        assert found[place] == (label, before.digest[row].tobytes())
    assert again.catalog.summary["quarantined"] == {}
    relabelled = int((decision.label != [line["given_label"] for line in lines])[chosen].sum())
    assert (summary["exported"], summary["relabelled"], summary["quarantined"]) == (len(expected), relabelled, 1)
    if wishes.get("labels"):
        assert relabelled > 0


@pytest.mark.usefixtures("without_ray")
def test_members_and_headers_are_the_originals(doubtful: Config, tmp_path: Path) -> None:
    wishes = {"cut": 0.3, "labels": "predicted"}
    exported(doubtful, "shards", tmp_path / "out", **wishes)
    decision, lines = decided(doubtful, wishes), lines_of(doubtful)
    changed = {
        line["key"]: str(label)
        for line, label in zip(lines, decision.label, strict=True)
        if label != line["given_label"]
    }
    originals = {name: Path(url).read_bytes() for url in before(doubtful) for name in [Path(url).name]}
    num_changed = 0
    for name, data in shards_of(tmp_path / "out").items():
        original = members_of(originals[name])
        for member, (header, content) in members_of(data).items():
            key, _, extension = member.partition(".")
            if extension == "cls" and key in changed:
                num_changed += 1
                assert content.decode() == changed[key]
            else:
                assert (header, content) == original[member]
    assert num_changed == sum(decision.kept & (decision.label != [line["given_label"] for line in lines]))


def before(config: Config) -> list[str]:
    urls: list[str] = look(config, Store(config.run.dir)).catalog.shards["url"].to_pylist()
    return urls


@pytest.mark.usefixtures("without_ray")
def test_both_sides_are_all_rows_and_empty_shards_are_left_out(scored: Run, doubtful: Config, tmp_path: Path) -> None:
    stays, goes = (
        exported(doubtful, "shards", tmp_path / str(removed), cut=0.5, removed=removed) for removed in (False, True)
    )
    keys = [
        key
        for removed in (False, True)
        for path in (tmp_path / str(removed)).glob("*.tar")
        for _, key, _ in stream_shard(str(path), None)
    ]
    assert sorted(keys) == sorted(line["key"] for line in lines_of(doubtful))
    assert stays["exported"] + goes["exported"] == len(keys)
    alone = [line["row"] for line in lines_of(doubtful) if line["shard"] == "01.tar"]
    assert len(alone) == SHARD_SAMPLES[1] == 1
    score = [float(row in alone) for row in range(scored.catalog.num_rows)]
    one = edited(scored, tmp_path / "run", label_score=score)
    summary = exported(one, "shards", tmp_path / "one")
    assert set(shards_of(tmp_path / "one")) == {"01.tar"}
    assert (summary["shards"], summary["empty_shards"]) == (1, 3)
    assert "3 shards of which no sample is left are not there: `00.tar`" in summary["notes"][1]


def jobs_of(monkeypatch: pytest.MonkeyPatch, how: Callable[[Job], None]) -> None:
    monkeypatch.setattr(command, "compute_units", lambda job, *_: how(job))


def test_what_is_stopped_goes_on_to_the_same_bytes(
    doubtful: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs_of(monkeypatch, compute_here)
    exported(doubtful, "shards", tmp_path / "whole", cut=0.4)
    publish = Store.publish
    computed: list[str] = []

    def stops(self: Store, name: str, data: bytes) -> None:
        if name == "02.tar":
            raise KeyboardInterrupt
        publish(self, name, data)

    def counted(job: Job) -> None:
        computed.extend(job.missing())
        compute_here(job)

    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(Store, "publish", stops)
        with pytest.raises(KeyboardInterrupt):
            exported(doubtful, "shards", out, cut=0.4)
    assert set(shards_of(out)) == {"00.tar", "01.tar"} & set(shards_of(tmp_path / "whole"))
    assert not (out / "README.md").exists()
    jobs_of(monkeypatch, counted)
    exported(doubtful, "shards", out, cut=0.4)
    assert computed == ["shards/000002", "shards/000003"]
    assert shards_of(out) == shards_of(tmp_path / "whole")

    (out / "03.tar").unlink()
    exported(doubtful, "shards", out, cut=0.4)
    assert computed[2:] == ["shards/000003"]
    exported(doubtful, "shards", out, cut=0.4)
    assert len(computed) == 3
    assert shards_of(out) == shards_of(tmp_path / "whole")


class Far(Inline):
    """All that a pool does but Ray's own part: jobs are pickled; here units may fail, too."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error, self.sent = error, list[int]()

    def run(self, grow: Callable[[], Graph], watcher: Watcher | None = None) -> list[JobReport]:
        (job,) = grow().jobs.values()
        if self.error is not None:
            report = JobReport(job)
            report.note("shards/000001", self.error)
            return [report]
        actor = UnitActor(Workers(1, 1, 0, "cpu"), True, "far")
        actor.take(pickle.loads(pickle.dumps(job)))
        rows = [actor.run(job.key, unit) for unit in job.missing()[::-1]]
        assert [row.error for row in rows] == [""] * len(rows)
        self.sent.append(len(rows))
        return []


def without_cluster(monkeypatch: pytest.MonkeyPatch, executor: Far) -> None:
    site = Site(executor, ONE_WORKER)
    monkeypatch.setattr(command, "opened", lambda *_, **__: nullcontext(site))


def test_what_actors_are_sent_gives_the_same_bytes_in_any_order(
    doubtful: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = Far()
    with monkeypatch.context() as patch:
        without_cluster(patch, far)
        exported(doubtful, "shards", tmp_path / "sent", cut=0.4)
    jobs_of(monkeypatch, compute_here)
    exported(doubtful, "shards", tmp_path / "here", cut=0.4)
    assert far.sent == [4]
    assert len(shards_of(tmp_path / "sent")) > 2
    assert shards_of(tmp_path / "sent") == shards_of(tmp_path / "here")


@pytest.mark.slow
def test_on_the_pool_the_bytes_are_the_same(doubtful: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    one_actor = doubtful.resources.model_copy(update={"cpu": Pool(actors=1)})  # its start is most of the time
    exported(doubtful.model_copy(update={"resources": one_actor}), "shards", tmp_path / "pool", cut=0.4)
    jobs_of(monkeypatch, compute_here)
    exported(doubtful, "shards", tmp_path / "here", cut=0.4)
    assert len(shards_of(tmp_path / "pool")) > 2
    assert shards_of(tmp_path / "pool") == shards_of(tmp_path / "here")


@pytest.mark.usefixtures("without_ray")
def test_labels_in_json_and_noise_made_on_purpose(
    tiny_config: Callable[..., Config],
    finish: Callable[..., Run],
    tiny_samples: list[Sample],
    write_tiny: Callable[..., str],
    tmp_path: Path,
) -> None:
    """The table's labels are not the shards' then; what is exported has the table's."""
    samples = []
    for sample in tiny_samples:
        key = sample[0][0].partition(".")[0]
        given = next((int(data) for name, data in sample if name.endswith(".cls")), None)
        facts = {"a": [1.50, "é"], "label": {"of": None if given is None else f"c{given}"}, "z": None}
        samples.append([(f"{key}.json", json.dumps(facts).encode()), *(m for m in sample if m[0].endswith(".png"))])
    shards = write_tiny(tmp_path / "shards", samples, SHARD_SAMPLES)
    names = "[" + ", ".join(f"c{label}" for label in range(6)) + "]"
    made = ("data.label=json:label.of", "data.truth=", f"data.shards={shards}", f"data.classes={names}")
    noisy = (*made, "noise.kind=symmetric", "noise.rate=0.5", "noise.imbalance=long_tail", "noise.ratio=3")
    run = finish(tiny_config(tmp_path / "run", *noisy))
    config = doubtful_run(run, tmp_path / "doubtful")
    wishes = {"cut": 0.3, "labels": "predicted"}
    summary = exported(config, "shards", tmp_path / "out", **wishes)
    decision, lines = decided(config, wishes), lines_of(config)
    expected = {
        line["key"]: f"c{label}" for line, label, kept in zip(lines, decision.label, decision.kept, strict=True) if kept
    }
    originals = {name: data for sample in samples for name, data in sample}
    found, num_changed = {}, 0
    for path in sorted((tmp_path / "out").glob("*.tar")):
        for _, key, content in stream_shard(str(path), None):
            found[key] = LabelField.parse(config.data.label).read(key, content)
            assert content["png"] == originals[f"{key}.png"]
            old, new = originals[f"{key}.json"], content["json"]
            was = json.loads(old)["label"]["of"]
            num_changed += was != found[key]
            assert new == old.replace(f'"of": "{was}"'.encode(), f'"of": "{found[key]}"'.encode())
    assert found == expected
    assert summary["relabelled"] == num_changed > 0
    assert summary["left_out"] == sum(run.catalog.summary["left_out"].values()) > 0


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with serving() as store:
        yield store.bucket


def on_object_store(config: Config, bucket: str) -> Config:
    """A copy of a run whose files and shards lie in a bucket."""
    fs, catalog = fsspec.filesystem("s3"), look(config, Store(config.run.dir)).catalog
    fs.put(before(config), f"{bucket}/shards/")
    fs.put(config.run.dir, f"{bucket}/run", recursive=True)
    table = catalog.shards
    found = [stat_shard(f"{bucket}/shards/{Path(url).name}") for url in before(config)]
    for name, values in (("url", [s.url for s in found]), ("tag", [s.tag for s in found])):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    for name, there in ((SHARDS_FILE, table), (SOURCES_FILE, table.select(["url", "name", "size", "tag"]))):
        file = f"{catalog.folder}/{name}"
        Store(f"{bucket}/run").publish(file, encode(file, there, "{}"))
    return config.model_copy(update={"run": config.run.model_copy(update={"dir": f"{bucket}/run"})})


@pytest.mark.usefixtures("without_ray")
def test_from_and_to_an_object_store(doubtful: Config, bucket: str, tmp_path: Path) -> None:
    far, fs = on_object_store(doubtful, bucket), fsspec.filesystem("s3")
    for kind in ("shards", "csv", "labelstudio", "datacomp"):
        exported(doubtful, kind, tmp_path / kind, budget=30, labels="predicted")
        exported(far, kind, f"{bucket}/out/{kind}/", budget=30, labels="predicted")
        found = fs.find(f"{bucket}/out/{kind}")
        there = {name.partition(f"/out/{kind}/")[2]: fs.cat_file(name) for name in found}
        here = files_of(tmp_path / kind)
        for files in (here, there):
            files["_export.json"] = json.loads(files["_export.json"])["summary"]
        assert there == here


@pytest.mark.usefixtures("without_ray")
def test_an_output_folder_is_of_one_export(doubtful: Config, scored: Run, tmp_path: Path) -> None:
    exported(doubtful, "csv", tmp_path / "out", cut=0.4)
    first = files_of(tmp_path / "out")
    exported(doubtful, "csv", tmp_path / "out", cut=0.4)
    assert files_of(tmp_path / "out") == first
    for to, wishes in (("csv", {"cut": 0.5}), ("parquet", {"cut": 0.4})):
        with pytest.raises(ConfigError, match=r"holds another export \(--to csv"):
            exported(doubtful, to, tmp_path / "out", **wishes)
    with pytest.raises(ConfigError, match="holds another export"):
        exported(scored.config, "csv", tmp_path / "out", cut=0.4)
    shards = Path(before(doubtful)[0]).parent
    with pytest.raises(ConfigError, match=r"is not empty \(it holds 00\.tar\)"):
        exported(doubtful, "shards", shards)
    assert files_of(tmp_path / "out") == first


@pytest.mark.usefixtures("without_ray")
def test_what_cannot_be_exported_says_why(scored: Run, doubtful: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--out .*file/x: cannot be written"):
        exported(doubtful, "csv", tmp_path / "file/x")
    with pytest.raises(ConfigError, match="--out: a URL carries credentials") as caught:
        exported(doubtful, "csv", "s3://me:secret@bucket/x")
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="--out nowhere://x"):
        exported(doubtful, "csv", "nowhere://x")
    config = edited(scored, tmp_path / "run")
    Store(config.run.dir).remove("tables/_manifest.json")
    with pytest.raises(InputError, match="no complete table"):
        exported(config, "csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("without_ray")
def test_a_table_of_other_rows_is_refused(scored: Run, tmp_path: Path) -> None:
    keys = [f"k{row}" for row in range(scored.catalog.num_rows)]
    config = edited(scored, tmp_path / "run", key=keys)
    with pytest.raises(InputError, match="the table is of other rows than the run's catalog"):
        exported(config, "shards", tmp_path / "out")


@pytest.mark.usefixtures("without_ray")
def test_a_shard_that_changed_is_not_copied(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], tiny_shards: str, tmp_path: Path
) -> None:
    shutil.copytree(Path(tiny_shards).parent, tmp_path / "shards")
    run = finish(tiny_config(tmp_path / "run", f"data.shards={tmp_path}/shards/*.tar"))
    path = tmp_path / "shards" / "00.tar"
    path.write_bytes(path.read_bytes() + bytes(512))
    with pytest.raises(ShardChangedError, match=r"00\.tar changed since it was cataloged: expected"):
        exported(run.config, "shards", tmp_path / "out", cut=0.0)
    assert "00.tar" not in shards_of(tmp_path / "out")


def test_a_run_that_is_held_waits_for_its_driver(doubtful: Config, tmp_path: Path) -> None:
    with hold(Store(doubtful.run.dir)), pytest.raises(RunHeldError):
        exported(doubtful, "shards", tmp_path / "out")


def test_failed_units_are_told(doubtful: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, kind in ((OSError("away"), StageError), (InputError("gone; look"), InputError)):
        without_cluster(monkeypatch, Far(error=error))
        with pytest.raises(kind, match=r"away|gone; look"):
            exported(doubtful, "shards", tmp_path / type(error).__name__)


def test_a_shards_name_cannot_lead_outside() -> None:
    assert inside("a/b.tar") == "a/b.tar"
    with pytest.raises(ConfigError, match="would lie outside"):
        inside("../b.tar")


def test_a_job_is_small_to_send() -> None:
    table = LabelTable(
        Published(Store("run"), "merge-0", ("a",), 0, (TableFile("labels/part-0-00000.parquet", 1, "0", None),))
    )
    chosen = Chosen(None, None, table, Rule("given", 0.9, Cut(1)), False)  # type: ignore[arg-type]
    job = ShardsJob(Store("run"), "export-0", Store("out"), chosen, LabelField.parse("cls"), ("a",), ClassList(("a",)))
    assert len(pickle.dumps(job)) < 2000
    assert pickle.loads(pickle.dumps(job)).chosen.rule == chosen.rule

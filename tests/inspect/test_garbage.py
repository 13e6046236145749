"""`gc` leaves just what a fresh run of the config of the last start would have made, and whatever is not its own."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rayclean.config import Config, dump_config
from rayclean.errors import InputError, RunHeldError
from rayclean.inspect.garbage import _stage_folder, collect, find_reached, score_kinds
from rayclean.run.grow import STAGES, grow, stages
from rayclean.run.record import STEPS, record
from rayclean.run.run import Run
from rayclean.run.saved import CONFIG_FILE, load_run
from rayclean.run.start import CATALOG_FILE, PRECISION_FILE, look
from rayclean.run.tidy import tidy
from rayclean.storage.executor import Executor
from rayclean.storage.graph import Missing
from rayclean.storage.lease import LEASES, hold
from rayclean.storage.store import Store
from rayclean.storage.units import ENVIRONMENT_FILE, Job

Files = dict[str, bytes]
# All families, all kinds of catalogs, several networks.
EVERYTHING = (
    "train.epochs=2",
    "train.snapshot_every=1",
    "train.from=",
    "scores=[loss, aum, iofm, inn, vote, osm, osd, odd, aum_excess, loss_ce]",
    "train.roles={plant: {}}",
    "inn.features=ce",
    "influence.validation=split",
    "influence.validation_num=1",
    "inn.num=3",
    "inn.steps=2",
    "influence.probes=5",
    "data.truth=",
    "noise.kind=symmetric",
    "noise.rate=0.3",
    "run.keep=all",
)


def files_of(store: Store) -> Files:
    """All files below the run, but who held it."""
    root = Path(store.path)
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.parent.name != LEASES)
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def save_config(run: Run) -> None:
    run.store.publish(CONFIG_FILE, yaml.safe_dump(dump_config(run.config)).encode())


Do = Callable[..., Run]


@pytest.fixture(scope="module")
def do(tiny_config: Callable[..., Config], finish: Callable[..., Run]) -> Do:
    """Does a run and leaves its records and its config, as a start does."""

    def start(folder: Path, *overrides: str, executor: Executor | None = None) -> Run:
        run = finish(tiny_config(folder, *overrides), executor)
        for folder_of in sorted({job.folder for job in grow(run).jobs.values()}):
            record(run.store, folder_of, {"units": 1})
        record(run.store, STEPS, {"step": "merge", "wall_s": 1.0})
        run.store.publish(PRECISION_FILE, b'{"train": "float32", "score": "float32"}')
        save_config(run)
        return run

    return start


@pytest.fixture(scope="module")
def whole(do: Do, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with everything. Only to be read."""
    return do(tmp_path_factory.mktemp("whole") / "run", *EVERYTHING)


@pytest.fixture
def copied(whole: Run, tmp_path: Path) -> Config:
    """A copy of it, to be changed; read from where it lies."""
    shutil.copytree(whole.store.path, tmp_path / "run")
    return load_run(str(tmp_path / "run"))


def changed(config: Config, **sections: dict[str, Any]) -> Config:
    """The config with other values, saved as that of the last start."""
    update = {name: getattr(config, name).model_copy(update=values) for name, values in sections.items()}
    result = config.model_copy(update=update)
    Store(config.run.dir).publish(CONFIG_FILE, yaml.safe_dump(dump_config(result)).encode())
    return result


def folders_of(files: Files) -> set[str]:
    return {name.partition("/")[0] for name in files if "/" in name}


def test_nothing_of_a_finished_run_is_garbage(copied: Config) -> None:
    store = Store(copied.run.dir)
    before = files_of(store)
    kinds = {name.split("-")[0] for name in folders_of(before)}
    assert kinds == {*STAGES, "labels", "tables", "record"}
    found = collect(copied, dry_run=False)
    assert (found.sizes, found.kept, found.cause, found.table) == ({}, (), None, None)
    assert files_of(store) == before
    assert find_reached(copied).folders == folders_of(before) - {"labels", "tables", "record"}


def test_a_run_that_was_tidied_loses_nothing_either(copied: Config) -> None:
    config = changed(copied, run={"keep": "default"})
    store = Store(config.run.dir)
    tidy(look(config, store))
    before = files_of(store)
    assert not any(name.startswith("paths-") for name in before)
    assert any(name.startswith("record/paths-") for name in before)
    assert collect(config, dry_run=False).sizes == {}
    assert files_of(store) == before


@pytest.mark.parametrize(
    "overrides",
    [("iofm.num=3", "merge.threshold=0.25"), ("scores=[loss, iofm]",), ("noise.rate=0.2",)],
)
def test_what_stays_is_what_a_fresh_run_of_the_last_config_makes(
    overrides: tuple[str, ...], whole: Run, do: Do, tmp_path: Path
) -> None:
    shutil.copytree(whole.store.path, tmp_path / "run")
    # The fresh run stands elsewhere, of the same shards; what it has trained is the same to the bit.
    fresh = do(tmp_path / "fresh", *EVERYTHING, *overrides)
    run = do(tmp_path / "run", *EVERYTHING, *overrides)
    before = files_of(run.store)
    config = load_run(run.store.root)
    dry = collect(config, dry_run=True)
    assert files_of(run.store) == before
    found = collect(config, dry_run=False)
    after = files_of(run.store)
    assert found == dry
    assert found.num_bytes == sum(map(len, before.values())) - sum(map(len, after.values())) > 0
    assert {name: before[name] for name in after} == after
    assert folders_of(after) == folders_of(files_of(fresh.store))
    records = {name for name in after if name.startswith("record/")}
    assert records == {name for name in files_of(fresh.store) if name.startswith("record/")}
    assert {CONFIG_FILE, CATALOG_FILE, PRECISION_FILE, "tables/_manifest.json"} <= set(after)
    this = look(config, run.store)
    assert not any(map(Missing(), grow(this).wanted(Missing()).values()))
    assert collect(config, dry_run=False).sizes == {}


def test_while_a_network_is_not_trained_what_follows_from_it_stays(copied: Config) -> None:
    config = changed(copied, train={"lr": 0.05})
    store = Store(config.run.dir)
    before = files_of(store)
    reached = {role.task.folder for role in look(config, store).roles.values()}
    store.publish(f"{sorted(reached)[0]}/snapshots/epoch-0001.safetensors", b"the first epoch of the new one")
    found = collect(config, dry_run=False)
    gone = set(before) - set(files_of(store))
    assert found.kept == score_kinds()
    assert found.cause is not None
    assert "after training" in found.cause
    assert {name.removeprefix("record/").split("-")[0] for name in gone} == {"train"}
    assert store.exists(f"{sorted(reached)[0]}/snapshots/epoch-0001.safetensors")
    assert not store.exists(look(copied, store).main.task.folder)


def test_while_a_catalog_is_not_finished_only_other_catalogs_go(copied: Config) -> None:
    config = changed(copied, noise={"rate": 0.2})  # a derived catalog that is not made yet
    store = Store(config.run.dir)
    before, old, new = files_of(store), look(copied, store), look(config, store)
    found = collect(config, dry_run=False)
    gone = folders_of(before) - folders_of(files_of(store))
    catalogs = {each.folder for each in (*old.derived.values(), *old.planted.values())}
    assert gone == catalogs - {each.folder for each in (*new.derived.values(), *new.planted.values())}
    assert found.kept == ("train", *score_kinds())
    assert store.exists(f"{new.source.folder}/columns.safetensors")


def test_a_file_that_the_config_names_and_that_is_gone_keeps_what_needs_it(copied: Config, tmp_path: Path) -> None:
    verified = tmp_path / "verified.csv"
    config = changed(copied, merge={"verified": str(verified)})
    store = Store(config.run.dir)
    before = files_of(store)
    found = collect(config, dry_run=False)
    assert found.kept == score_kinds()
    assert str(verified) in (found.cause or "")
    assert files_of(store) == before
    verified.write_text("key,label\nk03,1\n")
    merge = look(copied, store).merge()[1].folder
    labels = {name: data for name, data in before.items() if name.startswith(("labels/", "tables/"))}
    found = collect(config, dry_run=False)
    assert set(found.sizes) == {merge, f"record/{merge}.json"}
    assert found.table == merge
    assert {name: data for name, data in files_of(store).items() if name.startswith(("labels/", "tables/"))} == labels


@pytest.mark.parametrize("section", [{"data": {"max_pixels": 1e6}}, {"data": {"classes": 7}}])
def test_a_catalog_that_is_not_the_configs_stops_it(copied: Config, section: dict[str, dict[str, Any]]) -> None:
    # A start that is refused after it has left word of its catalog, and before it has saved its config.
    config = changed(copied, **section)
    before = files_of(Store(config.run.dir))
    with pytest.raises(InputError, match="are of two starts"):
        collect(config, dry_run=False)
    assert files_of(Store(config.run.dir)) == before


def test_a_driver_at_work_is_left_alone(copied: Config) -> None:
    config = changed(copied, iofm={"num": 3})
    store = Store(config.run.dir)
    with hold(store):
        before = files_of(store)
        with pytest.raises(RunHeldError):
            collect(config, dry_run=False)
        assert collect(config, dry_run=True).sizes
        assert files_of(store) == before


def test_what_is_not_a_stages_folder_stays(copied: Config) -> None:
    config = changed(copied, iofm={"num": 3})
    store = Store(config.run.dir)
    strangers = [
        "mine/paths-00000000/x",
        "photos/my.tmp-backup",
        "photos/.a.tmp-host-1-2",
        "train-data-deadbeef/dog.jpg",
        "embed-deadbeef/dog.safetensors",
        "report-20261121/index.html",
        "train-20261121/x",
        "paths-0000000/x",
        "paths-000000000/x",
        "paths-GGGGGGGG/x",
        "paths-00000000-old/x",
        "labels/paths-00000000",
        "log/driver.jsonl",
        "record/failed.json",
        "record/paths-00000000.txt",
        "notes.txt",
    ]
    for name in strangers:
        store.publish(name, b"-")
    for name in ("paths-00000000/x", f"paths-00000000/{ENVIRONMENT_FILE}"):
        store.publish(name, b"-")
    store.publish("record/paths-00000000.json", b"-")
    for name in strangers:
        os.utime(store.full(name), (time.time() - 1e6,) * 2)
    found = collect(config, dry_run=False)
    assert {"paths-00000000", "record/paths-00000000.json"} <= set(found.sizes)
    assert all(store.exists(name) for name in strangers)
    assert not store.exists("paths-00000000")


def test_temporary_files_go_once_nobody_writes_them(copied: Config) -> None:
    root = Path(copied.run.dir)
    folder = next(root.glob("embed-*"))
    old, new = folder / ".000000.safetensors.tmp-host-1-2", folder / ".000001.safetensors.tmp-host-1-3"
    deep = root / "labels/.part-00000.parquet.tmp-host-1-4"
    for path, age_s in ((old, 3700), (new, 3000), (deep, 1e6)):
        path.write_bytes(b"12345")
        os.utime(path, (time.time() - age_s,) * 2)
    found = collect(copied, dry_run=False)
    assert found.sizes == {str(path.relative_to(root)): 5 for path in (old, deep)}
    assert [path.exists() for path in (old, new, deep)] == [False, True, False]


def test_a_removal_that_is_killed_leaves_no_half_folder_and_is_finished_later(
    copied: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(copied, iofm={"num": 3})
    store = Store(config.run.dir)
    before = files_of(store)
    expected = collect(config, dry_run=True)

    def killed(self: Store, name: str) -> None:
        if not name.startswith(LEASES):
            next(path for path in Path(self.path, name).rglob("*") if path.is_file()).unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            collect(config, dry_run=False)
    for folder in folders_of(files_of(store)) & folders_of(before):
        for name in before:
            if name.startswith(f"{folder}/"):
                assert store.exists(name)
    store.remove(LEASES)
    found = collect(config, dry_run=False)
    assert len(found.sizes) == len(expected.sizes)
    assert not set(files_of(store)) & {name for name in before if name.partition("/")[0] in expected.sizes}
    assert not any(".tmp-" in name for name in os.listdir(store.path))


def test_an_object_store_is_cleared_alike(copied: Config) -> None:
    config = changed(copied, iofm={"num": 3})
    remote = Store("memory://garbage")
    try:
        for name, data in files_of(Store(config.run.dir)).items():
            remote.publish(name, data)
        there = load_run(remote.root)
        expected = collect(config, dry_run=False)
        assert collect(there, dry_run=False) == expected
        found = {path.removeprefix(f"{remote.path}/") for path in remote.fs.find(remote.path)}
        left = {name for name in found if not name.startswith(f"{LEASES}/")}
        assert left == set(files_of(Store(config.run.dir)))
    finally:
        remote.remove("")


def subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


def test_every_stage_has_its_kind() -> None:
    kinds = {each.stage for each in subclasses(Job) if each.__module__.startswith("rayclean.")}
    kinds -= {"", "learn", "export"}  # what commands after a run make is theirs
    assert kinds == set(stages())
    assert set(score_kinds()) == {*stages(), "decide"} - {"catalog", "train"}
    assert _stage_folder("train-ce_ne-0123abcd")

"""The whole job with shards and run folder on an object store: the bytes of a run on a disk, and no secret anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from typer.testing import CliRunner

from rayclean.cli import commands
from rayclean.shards.urls import expand_shards
from rayclean.storage.published import CLASSES, PART, Published
from rayclean.storage.store import Store
from tools.faults.driver import BIN, Ended, started, wait_for
from tools.faults.run_folder import RUN_TIMEOUT_S, Finished
from tools.faults.serving import ObjectStore, serving

pytestmark = pytest.mark.timeout(600)
SECRET = "never-to-be-seen"


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with serving() as store:
        yield store


def command(reference: Finished, server: ObjectStore, run: str, *overrides: str) -> list[str]:
    """The reference's run, with shards and run folder in the bucket."""
    places = (f"run.dir={server.bucket}/{run}", f"data.shards={server.bucket}/shards/*.tar")
    return [str(BIN / "rayclean"), "run", str(reference.run.config), *places, *overrides]


@pytest.fixture(scope="module")
def killed_and_resumed(
    reference: Finished, server: ObjectStore, env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Ended:
    """A run whose driver is killed in the middle of a stage, started again on a store that throttles and cuts."""
    shards = expand_shards(reference.run.load().data.shards)
    fsspec.filesystem("s3").put(shards, f"{server.bucket}/shards/")
    store, env = Store(f"{server.bucket}/run"), {**env, **server.env()}

    def paths_begun() -> bool:
        return any(store.list(name) for name in store.list("") if name.startswith("paths-"))

    with started(command(reference, server, "run"), env, tmp_path_factory.mktemp("killed")) as driver:
        wait_for("the first paths", paths_begun, RUN_TIMEOUT_S, 0.2)
        driver.kill()
    server.spoil("throttle", count=20)
    server.spoil("cut", count=5)
    with started(command(reference, server, "run"), env, tmp_path_factory.mktemp("resumed")) as driver:
        return driver.wait(RUN_TIMEOUT_S)


def test_the_table_is_that_of_a_run_on_a_disk(
    reference: Finished, server: ObjectStore, killed_and_resumed: Ended
) -> None:
    assert killed_and_resumed.code == 0, killed_and_resumed.err
    store = Store(f"{server.bucket}/run")
    here, there = Published.open(Store(str(reference.run.path))), Published.open(store)
    assert here.parts
    for kind in (PART, CLASSES):  # their names differ, as the shards' tags do
        assert [store.read(path) for path in there.of_kind(kind)] == [
            here.store.read(path) for path in here.of_kind(kind)
        ]


def test_credentials_are_written_nowhere(server: ObjectStore, killed_and_resumed: Ended) -> None:
    fs = fsspec.filesystem("s3")
    files = fs.find(f"{server.bucket}/run")
    assert len(files) > 50
    assert not [name for name, data in fs.cat(files).items() if SECRET.encode() in data]
    assert SECRET not in killed_and_resumed.out + killed_and_resumed.err


def test_the_commands_take_its_url(reference: Finished, server: ObjectStore, killed_and_resumed: Ended) -> None:
    url, text = f"{server.bucket}/run", {}
    for name, *more in (("status",), ("errors",), ("show", "000"), ("gc", "--dry-run"), ("evaluate",)):
        result = CliRunner().invoke(commands.app, [name, url, *more])
        assert result.exit_code == 0, result.output
        text[name] = result.stdout
    assert "merge" in text["status"]
    assert "no-label" in text["errors"]
    here = CliRunner().invoke(commands.app, ["show", str(reference.run.path), "000"])
    assert text["show"] == here.stdout
    assert "iofm" in text["evaluate"]


def test_what_cannot_work_ends_in_seconds(
    reference: Finished, server: ObjectStore, env: dict[str, str], tmp_path: Path
) -> None:
    for name, overrides, expected in (
        ("bucket", ["run.dir=s3://no-such-bucket/run"], "run.dir s3://no-such-bucket/run: cannot be written"),
        (
            "shards",
            ["data.shards=s3://no-such-bucket/*.tar"],
            "data.shards: s3://no-such-bucket/*.tar: no file matches",
        ),
        ("url", ["data.shards=https://me:secret@host/a.tar"], "data.shards: a URL carries credentials"),
    ):
        wrong = command(reference, server, "wrong", *overrides)
        with started(wrong, {**env, **server.env()}, tmp_path / name) as driver:
            ended = driver.wait(60)
        assert ended.code == 2
        assert expected in " ".join(ended.err.split())
        assert "Traceback" not in ended.err
        assert "me:secret" not in ended.err

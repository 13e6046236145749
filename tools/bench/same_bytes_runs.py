"""`rayclean` of a revision as its users start it: one tree, one process, an environment of its own.

Only the command line is used, whose entry point stands in the revision's `pyproject.toml`; so revisions whose modules
lie elsewhere can be run by the same tool. Nothing that one revision leaves on the machine reaches another: Ray's files,
pictures decoded once per node and copies of remote files lie in a folder that goes away with the run.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tools.bench.same_bytes_compare import FOLDERS
from tools.faults.object_store import ACCESS_KEY

ROOT = Path(__file__).parents[2]
RUN_TIMEOUT_S = 3600
HAVE_A_TABLE = (0, 3)  # exit codes of a run
TRAINED = "train-main-*/snapshots/epoch-*.safetensors"
BUCKET, REGION = "rayclean", "us-east-1"
ENDING_S = 60
READY = "ready:"
# Two nodes of one CPU each.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
node = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100 * 2**20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=node)
cluster.add_node(**node)
cluster.wait_for_nodes()
print("ready:", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
SERVER = """
import sys, threading
from tools.faults.object_store import serve
ready = lambda port: print(f"ready: http://127.0.0.1:{port}", flush=True)
threading.Thread(target=serve, args=(0, ready), daemon=True).start()
sys.stdin.read()
"""


class RunFailed(Exception):
    """A revision's run ended without a table."""


@dataclass(frozen=True)
class Revision:
    """The code of one revision.

    Attributes:
        name: as it was asked for.
        commit: its full hash; None for the working tree, which may change from call to call.
        tree: the folder that holds it.
    """

    name: str
    commit: str | None
    tree: Path

    @property
    def entry(self) -> str:
        """A statement that does what the command `rayclean` does."""
        scripts = tomllib.loads((self.tree / "pyproject.toml").read_text())["project"]["scripts"]
        module, _, function = scripts["rayclean"].partition(":")
        return f"from {module} import {function}; {function}()"


@contextlib.contextmanager
def checked_out(name: str, repository: Path = ROOT) -> Iterator[Revision]:
    """The files of a revision as long as the block lasts; `.` is the working tree as it is.

    They are taken out of the archive, so that a process that is killed leaves the repository nothing to tidy.

    Raises:
        SystemExit: there is no such revision.
    """
    if name == ".":
        yield Revision(name, None, repository)
        return
    git = ["git", "-C", str(repository)]
    found = subprocess.run(
        [*git, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"], capture_output=True, text=True
    )
    if found.returncode:
        raise SystemExit(f"{repository} has no revision {name}; name a commit, a branch, or . for the working tree")
    with tempfile.TemporaryDirectory(prefix="rc-tree-") as folder:
        commit = found.stdout.strip()
        archive = subprocess.run([*git, "archive", commit], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        yield Revision(name, commit, Path(folder))


def make_table(revision: Revision, config: Mapping[str, Any], where: str, overrides: Sequence[str], into: Path) -> None:
    """Does a run and keeps its table; `into` is there whole or not at all.

    Args:
        revision: of the code.
        config: without `run.dir`.
        where: see `Case.where`; an object store has the shards and the run folder, the weights stay a file here.
        overrides: `section.field=value`.
        into: gets `labels/` and `tables/`.

    Raises:
        RunFailed: the run ended without a table.
    """
    with tempfile.TemporaryDirectory(prefix="rc-", ignore_cleanup_errors=True) as folder:
        work, env = Path(folder), environment(revision, Path(folder))
        (work / "config.yaml").write_text(yaml.safe_dump({"run": {"dir": f"{work}/run"}, **config}))
        if where == "object store":
            with _object_store(work) as (fs, reached):
                fs.put(_files_of(config["data"]["shards"]), f"{BUCKET}/shards/")
                there = [f"run.dir=s3://{BUCKET}/run", f"data.shards=s3://{BUCKET}/shards/*.tar"]
                call(revision, {**env, **reached}, work, [*there, *overrides])
                for name in FOLDERS:
                    fs.get(f"{BUCKET}/run/{name}/", f"{work}/run/{name}/", recursive=True)
        elif where == "two nodes":
            with _two_nodes(env, work) as reached:
                call(revision, {**env, **reached}, work, overrides)
        else:
            call(revision, env, work, overrides)
        unfinished = into.with_name(f"{into.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        for name in FOLDERS:
            shutil.copytree(work / "run" / name, unfinished / name)
        unfinished.rename(into)


def train(revision: Revision, config: Mapping[str, Any], into: Path) -> None:
    """Trains as a config says and keeps the last snapshot.

    Raises:
        RunFailed: there is none.
    """
    with tempfile.TemporaryDirectory(prefix="rc-", ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        (work / "config.yaml").write_text(yaml.safe_dump({"run": {"dir": f"{work}/run"}, **config}))
        call(revision, environment(revision, work), work, ["--until", "train"])
        snapshots = sorted((work / "run").glob(TRAINED), key=lambda path: path.name)
        if not snapshots:
            raise RunFailed(f"{revision.name} leaves no {TRAINED} in its run folder")
        into.parent.mkdir(parents=True, exist_ok=True)
        unfinished = into.with_name(f"{into.name}.unfinished")
        shutil.copy(snapshots[-1], unfinished)
        unfinished.rename(into)


def environment(revision: Revision, work: Path) -> dict[str, str]:
    """What a run knows of the machine: its own code, no GPU, no cluster, threads by Ray; one CPU.

    With one CPU each pool is one process: its start is most of the time. Where two nodes are, each has its own.
    """
    kept = {name: value for name, value in os.environ.items() if not re.match("RAY_|OMP_|MKL_|AWS_|PYTHON", name)}
    own = {"PYTHONPATH": str(revision.tree), "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(work), "RAY_TMPDIR": str(work)}
    # Ray's workers would else give way to everybody who is not in Ray, and a run on a busy machine would never end.
    rays = {"RAY_OVERRIDE_RESOURCES": '{"CPU": 1}', "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    return {**kept, **own, **rays}


def call(revision: Revision, env: Mapping[str, str], work: Path, arguments: Sequence[str] = ()) -> None:
    """Does `rayclean run` of `config.yaml` in a folder.

    Raises:
        RunFailed: it ended without a table.
    """
    command = [sys.executable, "-c", revision.entry, "run", str(work / "config.yaml"), *arguments]
    # To a file, as Ray's processes would hold a pipe open after the command's end. Both the path and the working
    # folder lead to the revision, since Ray's workers take modules from there.
    with open(work / "said", "w+") as said:
        try:
            done = subprocess.run(
                command,
                cwd=revision.tree,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                timeout=RUN_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as e:
            raise RunFailed(f"{revision.name} had no table after {RUN_TIMEOUT_S} s") from e
        said.seek(0)
        last = [line.strip() for line in said if line.strip()][-8:]
    if done.returncode not in HAVE_A_TABLE:
        raise RunFailed("\n".join([f"{revision.name} ended with exit code {done.returncode}:", *last]))


def _files_of(pattern: str) -> list[str]:
    path = Path(pattern)
    return [str(file) for file in sorted(path.parent.glob(path.name))]


@contextlib.contextmanager
def _beside(script: str, work: Path, cwd: Path, env: Mapping[str, str]) -> Iterator[str]:
    """A process as long as the block, and what it says once it is ready; it ends when its input does.

    Raises:
        RunFailed: it ended before.
    """
    with (
        open(work / "beside", "w+") as said,
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            cwd=cwd,
            env=env,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            ready = next((line for line in process.stdout if line.startswith(READY)), None)
            if ready is None:
                said.seek(0)
                raise RunFailed(f"what the run needs beside it ended: {said.read().strip()}")
            yield ready.removeprefix(READY).strip()
        finally:
            process.stdin.close()
            try:
                process.wait(ENDING_S)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def _two_nodes(env: Mapping[str, str], work: Path) -> Iterator[dict[str, str]]:
    """A cluster of two nodes on this machine, and the environment that leads to it."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with _beside(CLUSTER, work, work, {**env, **token}) as address:
        yield {**token, "RAY_ADDRESS": address}


@contextlib.contextmanager
def _object_store(work: Path) -> Iterator[tuple[Any, dict[str, str]]]:
    """An S3 server on loopback with an empty bucket: its file system, and the environment that leads to it."""
    import s3fs

    with _beside(SERVER, work, ROOT, os.environ) as url:
        fs = s3fs.S3FileSystem(endpoint_url=url, key=ACCESS_KEY, secret=ACCESS_KEY, skip_instance_cache=True)
        fs.mkdir(BUCKET)
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": ACCESS_KEY, "AWS_DEFAULT_REGION": REGION}
        yield fs, {**keys, "AWS_ENDPOINT_URL": url}

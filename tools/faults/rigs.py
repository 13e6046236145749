"""Where a run with a fault happens: here, on three nodes, on a small disk, behind a link, on an object store."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from tools.faults.acts import Fault, Scene, call, restore_shard
from tools.faults.driver import started, wait_for
from tools.faults.runs import (
    Bench,
    Place,
)
from tools.faults.serving import ObjectStore, serving

NODE = {"num_gpus": 0, "object_store_memory": 100 * 2**20, "include_dashboard": False}
RAYLET, GCS = (
    str(Path(psutil.__file__).parents[1] / f"ray/core/src/ray/{name}") for name in ("raylet/raylet", "gcs/gcs_server")
)


@dataclass
class Rig:
    """What the faults share: the bench, and one object store with a run that is trained.

    Attributes:
        stack: ends the store.
    """

    bench: Bench
    stack: contextlib.ExitStack
    trained: tuple[ObjectStore, Place] | None = None

    def bucket(self) -> tuple[ObjectStore, Place]:
        """The object store and a trained run in it; made at the first call."""
        if self.trained is None:
            server = self.stack.enter_context(serving())
            place = replace(
                self.bench.reference,
                run_dir=f"{server.bucket}/trained",
                shards=f"{server.bucket}/shards",
                env={**self.bench.env, **server.env()},
            )
            shards = replace(place, run_dir=place.shards).store
            for path in sorted((self.bench.folder / "shards").glob("*.tar")):
                shards.publish(path.name, path.read_bytes())
            ended = place.run(self.bench.folder / "logs/bucket", "--until", "train")
            if ended.code:
                raise SystemExit(f"the run in the bucket ended with exit code {ended.code}:\n{ended.err}")
            self.trained = server, place
        return self.trained

    def in_bucket(self, fault: Fault) -> tuple[ObjectStore, Place]:
        """The object store and a copy of the trained run that stands before the fault's stage or the embeddings."""
        server, trained = self.bucket()
        place = replace(trained, run_dir=f"{server.bucket}/{fault.name}")
        for name in trained.published():
            if not (fault.stage == "train" and name.startswith("train-")):
                place.store.publish(name, trained.store.read(name))
        return server, place


@contextlib.contextmanager
def scene_of(fault: Fault, rig: Rig) -> Iterator[Scene]:
    """A place for a fault's run, with what it stands on."""
    bench, logs = rig.bench, rig.bench.folder / "logs" / fault.name
    with contextlib.ExitStack() as stack:
        if fault.on == "store":
            server, place = rig.in_bucket(fault)
            scene = Scene(bench, place, logs, server=server)
        else:
            scene = Scene(bench, bench.before(fault.stage, fault.name), logs)
        if fault.on == "cluster":
            stack.enter_context(_three_nodes(scene))
        elif fault.on == "network":
            stack.enter_context(_node_behind_link(scene))
        elif fault.on == "small":
            stack.enter_context(_own_disk(scene))
        if fault.mend is restore_shard:
            stack.callback(restore_shard, scene)  # also where the run never ended
        scene.place = replace(scene.place, overrides=(*scene.place.overrides, *fault.overrides))
        fault.prepare(scene)
        yield scene


@contextlib.contextmanager
def _three_nodes(scene: Scene) -> Iterator[None]:
    """A head without CPUs and two nodes of one each, as processes of this machine."""
    os.environ.update(RAY_TMPDIR=scene.bench.env["RAY_TMPDIR"], RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0})
    try:
        nodes = [cluster.add_node(**NODE, num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
        scene.nodes = [psutil.Process(node.all_processes["raylet"][0].process.pid) for node in nodes]
        env = {**scene.place.env, "RAY_ADDRESS": cluster.address, "RAY_AUTH_MODE": "disabled"}
        scene.place = replace(scene.place, env=env, overrides=("resources.cpu.actors=2",))
        yield
    finally:
        cluster.shutdown()


@contextlib.contextmanager
def _namespace(kind: str) -> Iterator[tuple[str, ...]]:
    """A namespace of its own; gives the words that make a command run in it."""
    with subprocess.Popen(["unshare", kind, "sleep", "infinity"]) as holder:
        try:
            time.sleep(0.5)  # unshare has become sleep
            if holder.poll() is not None:
                raise RuntimeError(f"unshare {kind} is not allowed here")
            yield ("nsenter", "-t", str(holder.pid), kind)
        finally:
            holder.kill()


@contextlib.contextmanager
def _own_disk(scene: Scene) -> Iterator[None]:
    """The run folder on a tmpfs that only this run sees."""
    with _namespace("-m") as inside:
        disk = scene.bench.folder / "disk"
        disk.mkdir(exist_ok=True)
        call(*inside, "mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk))
        call(*inside, "cp", "-a", scene.place.run_dir, f"{disk}/run")
        seen_at = f"/proc/{inside[2]}/root{disk}/run"
        scene.place = replace(scene.place, run_dir=f"{disk}/run", seen_at=seen_at, prefix=inside)
        yield


@contextlib.contextmanager
def _node_behind_link(scene: Scene) -> Iterator[None]:
    """A head without CPUs and a node in one network, a second node in another, with a link between the two."""
    with _namespace("-n") as here, _namespace("-n") as there, contextlib.ExitStack() as stack:
        call(*here, "ip", "link", "add", "va", "type", "veth", "peer", "name", "vb", "netns", there[2])
        for inside, device, address in ((here, "va", "10.77.0.1"), (there, "vb", "10.77.0.2")):
            call(*inside, "ip", "address", "add", f"{address}/24", "dev", device)
            for name in ("lo", device):
                call(*inside, "ip", "link", "set", name, "up")
        env = {**scene.place.env, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        ray = str(Path(scene.place.command()[0]).with_name("ray"))
        head = [*here, ray, "start", "--head", "--node-ip-address=10.77.0.1", "--port=6399", "--num-cpus=0"]
        join = [ray, "start", "--address=10.77.0.1:6399", "--num-cpus=1"]
        common = ["--include-dashboard=false", "--num-gpus=0", "--object-store-memory=100000000", "--block"]
        stack.enter_context(started([*head, *common], env, scene.logs / "head"))
        time.sleep(8)
        commands = ([*there, *join, "--node-ip-address=10.77.0.2"], [*here, *join, "--node-ip-address=10.77.0.1"])
        for number, command in enumerate(commands):
            node = stack.enter_context(started([*command, *common[1:]], env, scene.logs / f"node{number}"))
            raylet = wait_for("a raylet", functools.partial(node.find, RAYLET), 60, 0.2)
            scene.nodes.append(raylet)
        time.sleep(4)
        scene.netns = here
        scene.place = replace(
            scene.place,
            env={**env, "RAY_ADDRESS": "10.77.0.1:6399"},
            overrides=("resources.cpu.actors=2",),
            prefix=here,
        )
        yield


# One row.

"""What can be done to a run: kills, full disks, lack of memory, a store that fails, shards that change."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from tools.faults.driver import COMPUTING_ACTOR, TRAINING_WORKER, Driver, find_below, wait_for
from tools.faults.run_folder import PARTS
from tools.faults.runs import (
    RUN_TIMEOUT_S,
    Bench,
    Place,
)
from tools.faults.serving import ObjectStore

AWAY_S = 60
CGROUP = Path("/sys/fs/cgroup/memory/rayclean-faults")
RAYLET, GCS = (
    str(Path(psutil.__file__).parents[1] / f"ray/core/src/ray/{name}") for name in ("raylet/raylet", "gcs/gcs_server")
)


@dataclass
class Scene:
    """One run and what its fault needs.

    Attributes:
        logs: for what commands print.
        driver: of the first start.
        nodes: raylets beside the head's.
        server: the object store.
        notes: facts of the fault, for the results.
    """

    bench: Bench
    place: Place
    logs: Path
    driver: Driver = field(init=False)
    nodes: list[psutil.Process] = field(default_factory=list)
    server: ObjectStore | None = None
    netns: tuple[str, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)

    def find(self, title: str) -> psutil.Process | None:
        """A process of the run, on whatever node."""
        found = self.driver.find(title)
        for raylet in self.nodes:
            found = found or find_below(raylet, title)
        return found

    def wait_while_running(self, what: str, look: Callable[[], Any]) -> Any:
        """The first true thing that `look` gives, unless the run ends before."""

        def found() -> Any:
            if self.driver.process.poll() is not None:
                raise RuntimeError(f"the run ended ({self.driver.process.returncode}) before {what}")
            return look()

        # Looking costs little on a disk, and requests on an object store.
        return wait_for(what, found, RUN_TIMEOUT_S, 0.02 if self.server is None else 0.3)


Act = Callable[[Scene], None]


def nothing(_: Scene) -> None:
    """Nobody needs to mend anything."""


@dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        what: for people.
        stage: the fault happens when the first part of it is published.
        inject: does it.
        mend: between the end of the first start and the next.
        on: `disk`, `store` (shards and run folder in a bucket), `cluster` (three nodes), `small` (a disk of its own)
            or `network` (a node behind a link).
        together: drivers that are started at once, in the first and in later starts.
        prepare: changes the run before the first start; the fault then begins with it.
        overrides: fields that every start replaces.
    """

    name: str
    what: str
    stage: str
    inject: Act
    mend: Act = nothing
    on: str = "disk"
    together: tuple[int, int] = (1, 1)
    prepare: Act = nothing
    overrides: tuple[str, ...] = ()


# What is done to a run.


def kill_driver(scene: Scene) -> None:
    scene.driver.kill()


def kill_actor(scene: Scene) -> None:
    scene.wait_while_running("an actor at work", lambda: scene.find(COMPUTING_ACTOR)).kill()


def kill_training_worker(scene: Scene) -> None:
    scene.wait_while_running("a training worker", lambda: scene.find(TRAINING_WORKER)).kill()


def kill_service(title: str) -> Act:
    """Kills one of Ray's own processes, of the Ray that the driver started."""
    return lambda scene: scene.wait_while_running(title, lambda: scene.find(title)).kill()


def kill_everything(scene: Scene) -> None:
    for process in scene.driver.living():
        with contextlib.suppress(psutil.Error):
            process.kill()
    scene.driver.process.wait()


def kill_node(title: str) -> Act:
    """Kills a raylet and its workers, of a node on which such a process is at work."""

    def act(scene: Scene) -> None:
        def at_work() -> psutil.Process | None:
            return next((raylet for raylet in scene.nodes if find_below(raylet, title)), None)

        raylet = scene.wait_while_running("a node at work", at_work)
        for process in (raylet, *raylet.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                process.kill()
        scene.nodes.remove(raylet)

    return act


def cut_link(scene: Scene) -> None:
    """Takes down the link of a node whose actor is at work."""
    scene.wait_while_running("an actor behind the link", lambda: find_below(scene.nodes[0], COMPUTING_ACTOR))
    call(*scene.netns, "ip", "link", "set", "va", "down")


def heal_link_after(seconds: float) -> Act:
    def act(scene: Scene) -> None:
        cut_link(scene)
        threading.Timer(seconds, lambda: call(*scene.netns, "ip", "link", "set", "va", "up")).start()

    return act


def send(number: signal.Signals) -> Act:
    return lambda scene: scene.driver.process.send_signal(number)


def fill_disk(scene: Scene) -> None:
    free = scene.place.prefix
    used = int(call(*free, "df", "--output=used", "-B1", scene.place.run_dir).split()[-1])
    call(*free, "mount", "-o", f"remount,size={used}", str(Path(scene.place.run_dir).parent))


def empty_disk(scene: Scene) -> None:
    call(*scene.place.prefix, "mount", "-o", "remount,size=64m", str(Path(scene.place.run_dir).parent))


def starve_actors(scene: Scene) -> None:
    """Lets no actor at work have another page, until the driver ends: the kernel kills it."""
    CGROUP.mkdir(exist_ok=True)
    (CGROUP / "memory.limit_in_bytes").write_text("4096")
    starved: set[int] = set()
    while scene.driver.process.poll() is None:
        actor = scene.find(COMPUTING_ACTOR)
        if actor is not None and actor.pid not in starved:
            with contextlib.suppress(OSError):
                (CGROUP / "cgroup.procs").write_text(str(actor.pid))
                starved.add(actor.pid)
        time.sleep(0.005)
    scene.notes["deaths"] = len(starved)


def feed_actors(scene: Scene) -> None:
    with contextlib.suppress(OSError):
        CGROUP.rmdir()


def forget_most_paths(scene: Scene) -> None:
    """Leaves one unit of the last paths to do, so that each try of it can be seen."""
    copy = scene.bench.before("interpolate", scene.place.store.root.rpartition("/")[2])
    files = sorted(Path(copy.run_dir).glob(PARTS["paths"]))
    files[-1].unlink()


def limit_actor(scene: Scene) -> None:
    """Limits the address space of the first actor at work to what it has: it cannot allocate, but lives."""
    actor = scene.wait_while_running("an actor at work", lambda: scene.find(COMPUTING_ACTOR))
    size = actor.memory_info().vms
    actor.rlimit(psutil.RLIMIT_AS, (size, size))


def spoil(kind: str, **how: float) -> Act:
    def act(scene: Scene) -> None:
        assert scene.server is not None
        scene.server.spoil(kind, **how)

    return act


def change_shard(scene: Scene) -> None:
    """Overwrites a shard by another one's bytes."""
    _replace_shard(scene, lambda own, other: other)


def remove_shard(scene: Scene) -> None:
    _replace_shard(scene, lambda own, other: None)


def _replace_shard(scene: Scene, change: Callable[[bytes, bytes], bytes | None]) -> None:
    """Puts other bytes in a shard's place; the original is kept for `restore_shard`."""
    local = sorted((scene.bench.folder / "shards").glob("*.tar"))
    new = change(local[2].read_bytes(), local[1].read_bytes())
    if scene.server is None:
        local[2].rename(local[2].with_suffix(".kept"))
        if new is not None:
            local[2].write_bytes(new)
        return
    store = replace(scene.place, run_dir=scene.place.shards).store
    store.remove(local[2].name)
    if new is not None:
        store.publish(local[2].name, new)


def restore_shard(scene: Scene) -> None:
    for path in (scene.bench.folder / "shards").glob("*.kept"):
        path.rename(path.with_suffix(".tar"))
    if scene.server is not None:
        local = sorted((scene.bench.folder / "shards").glob("*.tar"))[2]
        replace(scene.place, run_dir=scene.place.shards).store.publish(local.name, local.read_bytes())


def call(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# Else the node keeps all decoded images of so small a run, and no stage after the first reads a shard again.
UNCACHED = ("data.node_cache_bytes=0",)

FAULTS = (
    Fault("driver", "kill -9 of the driver", "paths", kill_driver),
    Fault("driver_training", "kill -9 of the driver", "train", kill_driver),
    Fault("actor", "kill -9 of an actor in a unit", "paths", kill_actor),
    Fault("training_worker", "kill -9 of a training worker", "train", kill_training_worker),
    Fault("everything", "kill -9 of all processes", "paths", kill_everything),
    Fault("everything_training", "kill -9 of all processes", "train", kill_everything),
    Fault("raylet", "kill -9 of the driver's own raylet", "paths", kill_service(RAYLET)),
    Fault("gcs", "kill -9 of Ray's GCS", "paths", kill_service(GCS)),
    Fault("sigterm", "SIGTERM to the driver", "paths", send(signal.SIGTERM)),
    Fault("ctrl_c", "Ctrl-C", "paths", send(signal.SIGINT)),
    Fault("two_drivers", "two drivers at once", "embed", nothing, together=(2, 1)),
    Fault("two_takeovers", "kill -9 of the driver, two successors at once", "paths", kill_driver, together=(1, 2)),
    Fault("node", "kill -9 of a worker node", "paths", kill_node(COMPUTING_ACTOR), on="cluster"),
    Fault("node_training", "kill -9 of the training worker's node", "train", kill_node(TRAINING_WORKER), on="cluster"),
    Fault("disk", "disk full, then room made", "paths", fill_disk, empty_disk, on="small"),
    Fault(
        "memory",
        "one unit whose process the kernel kills each time, then memory",
        "paths",
        starve_actors,
        feed_actors,
        prepare=forget_most_paths,
    ),
    Fault("memory_limit", "no more memory for one actor (RLIMIT_AS)", "paths", limit_actor),
    Fault(
        "shard_changes", "a shard changes, then is put back", "embed", change_shard, restore_shard, overrides=UNCACHED
    ),
    Fault(
        "shard_vanishes", "a shard vanishes, then is put back", "embed", remove_shard, restore_shard, overrides=UNCACHED
    ),
    Fault("store_away_training", f"store away for {AWAY_S} s", "train", spoil("away", seconds=AWAY_S), on="store"),
    Fault("store_away", f"store away for {AWAY_S} s", "paths", spoil("away", seconds=AWAY_S), on="store"),
    Fault("store_throttles", "300 requests answered 503", "paths", spoil("throttle", count=300), on="store"),
    Fault(
        "store_shard_changes",
        "a shard changes, then is put back",
        "embed",
        change_shard,
        restore_shard,
        "store",
        overrides=UNCACHED,
    ),
    Fault(
        "store_shard_vanishes",
        "a shard vanishes, then is put back",
        "embed",
        remove_shard,
        restore_shard,
        "store",
        overrides=UNCACHED,
    ),
    Fault("partition", "a node's link cut for good", "paths", cut_link, on="network"),
    Fault("partition_heals", "a node's link cut for 40 s", "paths", heal_link_after(40), on="network"),
)

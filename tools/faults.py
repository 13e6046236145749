"""What breaks, what the user then sees, and what the same command makes of it: one fault a row.

    .venv/bin/python tools/faults.py --list
    .venv/bin/python tools/faults.py driver node         # these; all without a name
    .venv/bin/python tools/faults.py --table             # Markdown from what is there

Each fault is done to a run of its own: 240 digits and 4 epochs, or a copy of the unbroken run that ends before the
stage in question. Where the run ended, the same command is given again. Faults of disks and networks need root, as
they happen in namespaces of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.driver import COMPUTING_ACTOR, TRAINING_WORKER, Driver, Ended, find_below, started, wait_for
from tests.e2e.runs import PARTS
from tests.object_store import ObjectStore, serving
from tools.fault_runs import (
    EPOCHS,
    RUN_TIMEOUT_S,
    UNITS,
    Bench,
    Place,
    Published,
    epochs_of,
    matching,
    published_again,
)

RESULTS = Path("docs/results/faults")
MAX_STARTS = 3
AWAY_S = 60
PATH = re.compile(r"(?<![\w:/.])/(?:[^\s/'\",;]+/)+([^\s/'\",;]+)")
PROGRESS = re.compile(r"\w+[\w ]*: \d+/\d+ units")
DONE = (0, 3)  # exit codes of a run that has its table
NODE = {"num_gpus": 0, "object_store_memory": 100 * 2**20, "include_dashboard": False}
RAYLET, GCS = (
    str(Path(psutil.__file__).parents[1] / f"ray/core/src/ray/{name}") for name in ("raylet/raylet", "gcs/gcs_server")
)
CGROUP = Path("/sys/fs/cgroup/memory/rayclean-faults")


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
    _call(*scene.netns, "ip", "link", "set", "va", "down")


def heal_link_after(seconds: float) -> Act:
    def act(scene: Scene) -> None:
        cut_link(scene)
        threading.Timer(seconds, lambda: _call(*scene.netns, "ip", "link", "set", "va", "up")).start()

    return act


def send(number: signal.Signals) -> Act:
    return lambda scene: scene.driver.process.send_signal(number)


def fill_disk(scene: Scene) -> None:
    free = scene.place.prefix
    used = int(_call(*free, "df", "--output=used", "-B1", scene.place.run_dir).split()[-1])
    _call(*free, "mount", "-o", f"remount,size={used}", str(Path(scene.place.run_dir).parent))


def empty_disk(scene: Scene) -> None:
    _call(*scene.place.prefix, "mount", "-o", "remount,size=64m", str(Path(scene.place.run_dir).parent))


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


# Where a run happens.


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
        scene.place = replace(scene.place, env=env, overrides=("resources.score.actors=2",))
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
        _call(*inside, "mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk))
        _call(*inside, "cp", "-a", scene.place.run_dir, f"{disk}/run")
        seen_at = f"/proc/{inside[2]}/root{disk}/run"
        scene.place = replace(scene.place, run_dir=f"{disk}/run", seen_at=seen_at, prefix=inside)
        yield


@contextlib.contextmanager
def _node_behind_link(scene: Scene) -> Iterator[None]:
    """A head without CPUs and a node in one network, a second node in another, with a link between the two."""
    with _namespace("-n") as here, _namespace("-n") as there, contextlib.ExitStack() as stack:
        _call(*here, "ip", "link", "add", "va", "type", "veth", "peer", "name", "vb", "netns", there[2])
        for inside, device, address in ((here, "va", "10.77.0.1"), (there, "vb", "10.77.0.2")):
            _call(*inside, "ip", "address", "add", f"{address}/24", "dev", device)
            for name in ("lo", device):
                _call(*inside, "ip", "link", "set", name, "up")
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
            overrides=("resources.score.actors=2",),
            prefix=here,
        )
        yield


def _call(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# One row.


@dataclass
class Start:
    """One start of the command.

    Attributes:
        seconds: from the start until this driver, and all that were started with it before, had ended.
        shown: the last line on stderr that is no progress; empty where there is none.
        ray_lines: lines of Ray's own on stdout and stderr.
    """

    code: int
    seconds: float
    shown: str
    ray_lines: int


def start_of(ended: Ended, seconds: float) -> Start:
    """What a start looked like to its user."""
    ray_lines = [line for line in (ended.out + ended.err).splitlines() if is_rays(line)]
    own = [line.strip() for line in ended.err.splitlines() if line.strip()]
    own = [line for line in own if not is_rays(line) and not PROGRESS.match(line)]
    return Start(ended.code, round(seconds, 1), plain(own[-1]) if own else "", len(ray_lines))


def is_rays(line: str) -> bool:
    """Whether a line was printed by Ray itself."""
    return "(raylet)" in line or "(gcs_server)" in line or "core_worker" in line or "pid=" in line.partition(")")[0]


def measure(fault: Fault, rig: Rig) -> dict[str, Any]:
    """Does one fault, gives the command again until the run is complete, and counts."""
    pattern, starts = PARTS[fault.stage], list[list[Start]]()
    # What a dead driver left may still be at work when the command is given again.
    with scene_of(fault, rig) as scene, contextlib.ExitStack() as drivers:
        looks: list[Published] = []
        while len(starts) < MAX_STARTS and not (starts and any(each.code in DONE for each in starts[-1])):
            began_s = time.monotonic()
            begun = [
                drivers.enter_context(
                    started(scene.place.command(), scene.place.env, scene.logs / f"start{len(starts)}{number}")
                )
                for number in range(fault.together[min(len(starts), 1)])
            ]
            if not starts:
                scene.driver = begun[0]
                if fault.prepare is nothing and len(begun) == 1:
                    scene.wait_while_running(f"a part of {fault.stage}", lambda: scene.place.has(pattern))
                broken_s = time.monotonic()
                looks.append(scene.place.published())
                fault.inject(scene)
            ended = [(driver.wait(RUN_TIMEOUT_S), time.monotonic() - began_s) for driver in begun]
            starts.append([start_of(each, seconds) for each, seconds in ended])
            looks.append(scene.place.published())
            if len(starts) == 1:
                fault.mend(scene)
        return {
            "fault": fault.name,
            "what": fault.what,
            "stage": fault.stage,
            "on": fault.on,
            "starts": [[vars(each) for each in together] for together in starts],
            "seconds": round(time.monotonic() - broken_s, 1),
            "load": round(os.getloadavg()[0], 1),
            **count_work(looks, pattern),
            "same_bytes": scene.place.table() == rig.bench.reference.table(),
            "samples_missing": scene.place.samples_missing(),
            "notes": scene.notes,
        }


def count_work(looks: Sequence[Published], pattern: str) -> dict[str, Any]:
    """Units and epochs, from looks at the run's files: at the fault, at the end of each start.

    Returns:
        `done`, `total`: files of the stage at the fault and at the end; `units_twice`: units of all stages but training
        that were published again after the fault; `epochs_twice`: epochs whose trajectories were.
    """
    again = published_again(looks)
    files = dict.fromkeys(again, ())
    return {
        "done": len(matching(looks[0], [pattern])),
        "total": len(matching(looks[-1], [pattern])),
        "units_twice": len(matching(files, UNITS)),
        "epochs_twice": len(epochs_of(set(matching(files, [EPOCHS])))),
    }


def table(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Markdown, in the order of the faults."""
    lines = [
        "| `tools/faults.py` | what, when the first part of a stage lies there | exit codes | what the user sees "
        "| done of stage | work done twice | s to the end | same bytes |",
        "|---|---|---|---|--:|---|--:|---|",
    ]
    for fault in FAULTS:
        if fault.name in found:
            row = found[fault.name]
            codes = ", then ".join(" and ".join(str(each["code"]) for each in start) for start in row["starts"])
            seen = [seen_words(each) for start in row["starts"] for each in start]
            words = "<br>".join(filter(None, seen)) or "nothing"
            lines.append(
                f"| `{fault.name}` | {fault.what}: {fault.stage}{PLACES[fault.on]} | {codes} | {words} "
                f"| {row['done']} of {row['total']} | {lost_work(row)} | {row['seconds']:.0f} "
                f"| {'yes' if row['same_bytes'] and not row['samples_missing'] else '**no**'} |"
            )
    return lines


def seen_words(start: Mapping[str, Any]) -> str:
    """What a start showed; empty for one that ended well without a word."""
    words = [f"`{start['shown']}`"] if start["shown"] else []
    if start["ray_lines"]:
        words.append(f"{start['ray_lines']} of Ray's own lines")
    return ", ".join(words) or ("" if start["code"] in DONE else "nothing")


PLACES = {"disk": "", "small": "", "store": ", object store", "cluster": ", three nodes", "network": ", two networks"}


def lost_work(row: Mapping[str, Any]) -> str:
    """Published work that was published again; what was under way at the fault comes on top."""
    parts = [f"{row[name]} {what}{'s' if row[name] != 1 else ''}" for name, what in _WORK if row[name]]
    return ", ".join(parts) or "none"


_WORK = (("units_twice", "unit"), ("epochs_twice", "epoch"))


def plain(line: str, longest: int = 220) -> str:
    """A message without paths and names of this machine, short enough for a table."""
    line = PATH.sub(r".../\1", line).replace("|", "/").replace("`", "'")
    line = re.sub(rf"\b{re.escape(os.uname().nodename)}\b", "host", line)
    return line if len(line) <= longest else f"{line[:longest]}..."


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Break tiny runs in known ways and see what becomes of them.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="faults to try (all)")
    parser.add_argument("--list", action="store_true", help="only list the faults")
    parser.add_argument("--table", action="store_true", help="only print what was measured, as Markdown")
    parser.add_argument("--work", type=Path, help="a folder to work in and keep (a temporary one)")
    options = parser.parse_args(arguments)
    by_name = {fault.name: fault for fault in FAULTS}
    if unknown := set(options.names) - set(by_name):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; see --list")
    if options.list:
        print("\n".join(f"{fault.name:<22}{fault.what}: {fault.stage}{PLACES[fault.on]}" for fault in FAULTS))
        return
    if options.table:
        found = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
        print("\n".join(table(found)))
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="rc-", dir="/tmp", ignore_cleanup_errors=True) as temporary,
        contextlib.ExitStack() as stack,
    ):
        rig = Rig(Bench(options.work or Path(temporary)), stack)
        for name in options.names or by_name:
            try:
                row = measure(by_name[name], rig)
            except Exception as error:  # the others are worth measuring all the same
                print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                continue
            (RESULTS / f"{name}.json").write_text(json.dumps(row, indent=1) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

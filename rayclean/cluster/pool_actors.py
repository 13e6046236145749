"""The actors that Ray Data starts for this driver, which it hands out to nobody: asked of Ray's own tables."""

from __future__ import annotations

import ray
from ray._private.state import actors
from ray._private.worker import global_worker


def own_actors(kind: type) -> dict[str, str]:
    """The state of each actor of this driver that runs a class, by the actor's id."""
    job = ray.get_runtime_context().get_job_id()
    found = {each["ActorID"]: each for each in actors().values() if each["JobID"] == job}
    return {key: each["State"] for key, each in found.items() if kind.__name__ in each["ActorClassName"]}


def is_pending(kind: type) -> bool:
    """Whether an actor waits for a place."""
    return "PENDING_CREATION" in own_actors(kind).values()


def end_actors(kind: type) -> None:
    """Ends the actors of an execution that is over: Ray 2.60 leaves those that it was just starting anew.

    They would hold their CPUs to the end of the run, and the next pool would wait for these.
    """
    for key, state in own_actors(kind).items():
        if state != "DEAD":
            global_worker.core_worker.kill_actor(ray.ActorID(bytes.fromhex(key)), True)

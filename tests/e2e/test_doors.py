"""While a run is at work, nobody without its token gets anything out of its ports but what can do no harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import Watched
from tools.faults.doors import CLIENTS, Door
from tools.faults.run_folder import Finished

pytestmark = pytest.mark.timeout(500)

# What listens beyond loopback without asking for the token, and why it can run no code: it answers every request with
# figures for Prometheus, and takes in none.
FIGURES_ALONE = {("autoscaler", "figures"), ("dashboard", "figures"), ("dashboard agent", "figures")}
RAYS = {
    ("GCS", "gRPC"),
    ("raylet", "gRPC"),
    ("worker", "gRPC"),
    ("driver", "gRPC"),
    ("dashboard agent", "gRPC"),
    ("environment agent", "HTTP"),
}
# These have numbers of their own, and do without where another Ray of the machine has them.
PERHAPS = {("dashboard agent", "HTTP"), *FIGURES_ALONE}


def _doors(watched: Watched) -> dict[Door, str]:
    return {door: answers.speaks for door, answers in watched.watch.answers.items()}


def test_every_port_is_one_that_we_know(watched: Watched, reference: Finished) -> None:
    """So there is none of torch's: one training worker meets nobody."""
    found = {(door.kind, speaks) for door, speaks in _doors(watched).items()}
    assert found - PERHAPS == RAYS
    assert {door.kind for door in watched.watch.missed} <= {"worker"}  # a short one may end while it is tried
    assert sum(door.kind == "worker" for door in _doors(watched)) >= 8  # scan to merge, training among them


def test_all_calls_without_the_token_are_refused(watched: Watched, reference: Finished) -> None:
    assert watched.watch.let_in() == []
    assert watched.watch.clients == dict.fromkeys(CLIENTS, "refused")
    for door, answers in watched.watch.answers.items():
        if (door.kind, answers.speaks) in FIGURES_ALONE:
            assert answers.tried == 0, door
        else:
            assert answers.refused == answers.tried >= 4, door


def test_with_the_token_the_same_calls_are_answered(watched: Watched, reference: Finished) -> None:
    """Else the refusals would prove nothing."""
    for kind in ("GCS", "raylet", "worker"):
        answers = [each for door, each in watched.watch.answers.items() if door.kind == kind]
        assert {each.with_token for each in answers} == {"let in"}, kind


def test_the_token_is_nowhere_but_in_the_environment(
    watched: Watched, reference: Finished, env: dict[str, str]
) -> None:
    (token,) = watched.watch.tokens
    assert not watched.watch.leaks
    read = 0
    for folder in (reference.run.path, watched.logs, Path(env["RAY_TMPDIR"])):
        for path in filter(Path.is_file, folder.rglob("*")):
            assert token.encode() not in path.read_bytes(), path
            read += 1
    assert read > 100
    assert not Path(env["HOME"], ".ray").exists()

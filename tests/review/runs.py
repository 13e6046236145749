"""What the tests of the review share: digits as shards, copies of a run, a server in a process of its own."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from sklearn.datasets import load_digits

from rayclean.config import Config, dump_config, parse_config
from rayclean.decisions.entries import Entry, read_entries
from rayclean.decisions.naming import Naming, log_name
from rayclean.review.command import open_review
from rayclean.review.server import ReviewServer
from rayclean.review.survey import Survey
from rayclean.storage.store import Store
from tests.helpers import image_bytes
from tools.data.make_digits import move_labels

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NUM_ROWS = 240
SERVE = """
import sys
from rich.console import Console
from rayclean.run.saved import load_run
from rayclean.review.survey import Survey
from rayclean.review.command import serve_review
serve_review(load_run(sys.argv[1]), 0, sys.argv[2], Console(width=1000))
"""


def digit_samples() -> list[tuple[str, dict[str, bytes]]]:
    """Digits of 8 px, one in five with another label."""
    digits = load_digits()
    given = move_labels(digits.target[:NUM_ROWS].astype(np.int64), 0.2, seed=0)
    samples = []
    for row, label in enumerate(given):
        pixels = np.rint(digits.images[row] * (255 / 16)).astype(np.uint8)
        image = image_bytes(np.repeat(pixels[..., None], 3, axis=2))
        samples.append((f"{row:03d}", {"png": image, "json": json.dumps({"label": int(label)}).encode()}))
    return samples


def copied(config: Config, folder: Path) -> Config:
    """A run's copy in another folder."""
    shutil.copytree(config.run.dir, folder)
    tree = dump_config(config)
    tree["run"]["dir"] = str(folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    return parse_config(tree)


def entries_of(config: Config, reviewer: str) -> list[Entry]:
    """The decisions of a log; none where there is no log."""
    return read_log(Path(config.run.dir), reviewer) if Path(config.run.dir, log_name(reviewer)).exists() else []


def read_log(run: Path, reviewer: str) -> list[Entry]:
    """The decisions of a log, their classes as it calls them."""
    path, naming = run / log_name(reviewer), Naming.of_run(Store(str(run)), (), None)
    return read_entries(path.read_bytes(), path.name, lambda classes: naming.names_now(reviewer, classes)).entries


@contextlib.contextmanager
def serving(config: Config, reviewer: str | None = None, survey: Survey | None = None) -> Iterator[ReviewServer]:
    """A server in a thread."""
    with open_review(config, 0, reviewer, survey=survey) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Process:
    """`rayclean review` in a process of its own."""

    process: subprocess.Popen[str]
    url: str

    def kill(self) -> None:
        """As the system does when memory runs out."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def serving_apart(config: Config, reviewer: str) -> Iterator[Process]:
    """A server that lives at most as long as the block."""
    command = [sys.executable, "-c", SERVE, config.run.dir, reviewer]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            said = []
            for line in process.stdout or ():
                said.append(line)
                if found := re.search(r"http://\S+", line):
                    yield Process(process, found[0])
                    return
            raise AssertionError(f"the server ended: {''.join(said)}")
        finally:
            process.kill()

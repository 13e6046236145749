"""A real object store for tests and measurements: a server of its own, on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from tools.faults.object_store import ACCESS_KEY

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class ObjectStore:
    """A server that runs.

    Attributes:
        url: of its API.
        bucket: `s3://` and the name of a bucket that is there.
    """

    url: str
    bucket: str = "s3://rayclean"

    def env(self) -> dict[str, str]:
        """What a process needs in its environment to reach it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": "never-to-be-seen",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def counts(self) -> dict[str, dict[str, int]]:
        """Requests and bytes by method since the last call."""
        with urllib.request.urlopen(f"{self.url}/-/counts") as answer:
            counts: dict[str, dict[str, int]] = json.load(answer)
        return counts

    def places(self) -> dict[str, dict[str, dict[str, int]]]:
        """The same by folder in the bucket, since the last call of this one."""
        with urllib.request.urlopen(f"{self.url}/-/places") as answer:
            places: dict[str, dict[str, dict[str, int]]] = json.load(answer)
        return places

    def fill(self, folder: str, count: int) -> None:
        """Makes `00000.tar`, `00001.tar` and so on, each with its number as content."""
        bucket = self.bucket.removeprefix("s3://")
        urllib.request.urlopen(f"{self.url}/-/fill?bucket={bucket}&folder={folder}&count={count}").close()

    def spoil(self, kind: str, **how: float) -> None:
        """Orders a fault: `throttle` and `cut` of the next `count` requests, `away` for `seconds`."""
        arguments = "".join(f"&{name}={value:g}" for name, value in how.items())
        urllib.request.urlopen(f"{self.url}/-/fault?kind={kind}{arguments}").close()


@contextlib.contextmanager
def serving() -> Iterator[ObjectStore]:
    """A server for the length of the block, which this process's environment leads to."""
    import fsspec
    import s3fs

    command = [sys.executable, "-m", "tools.faults.object_store"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        store = ObjectStore(process.stdout.readline().strip())
        with mock.patch.dict(os.environ):
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                del os.environ[name]
            os.environ.update(store.env())
            s3fs.S3FileSystem.clear_instance_cache()
            fsspec.filesystem("s3").mkdir(store.bucket.removeprefix("s3://"))
            try:
                yield store
            finally:
                s3fs.S3FileSystem.clear_instance_cache()
                process.kill()

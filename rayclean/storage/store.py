"""A folder that a run lives in: whole files only, published by one atomic step.

Locally a file is written under a temporary name, flushed to disk and renamed; on an object store one PUT does
the same. Readers never see a part of a file, and whoever publishes last wins, with the same bytes.
"""

from __future__ import annotations

import mmap
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from rayclean.errors import ConfigError
from rayclean.storage.mirror import copy_of
from rayclean.storage.remote import START_PATIENCE_S, patiently, tried_for

TEMPORARY = ".tmp-"


class Store:
    """Files below one root, by paths relative to it.

    Args:
        root: a local folder, or any fsspec URL. A store is picklable and cheap to make.

    Calls to an object store are tried again while it is away (`rayclean.storage.remote`).
    """

    def __init__(self, root: str) -> None:
        import fsspec  # not needed to score arrays in memory

        try:
            # Workers elsewhere publish files that a remembered listing would hide.
            self.fs, path = fsspec.core.url_to_fs(root, use_listings_cache=False)
        except (ValueError, ImportError) as e:
            raise ConfigError(f"run.dir {root}: {e}") from e
        self.is_local = isinstance(self.fs, fsspec.implementations.local.LocalFileSystem)
        self.path = os.path.abspath(path) if self.is_local else path.rstrip("/")
        self.root = self.path if self.is_local else root.rstrip("/")

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.root,)

    def full(self, name: str) -> str:
        """The path of a file as its file system knows it."""
        return f"{self.path}/{name}" if name else self.path

    def exists(self, name: str) -> bool:
        """Whether a whole file (or a folder) of this name is there."""
        if self.is_local:
            return os.path.exists(self.full(name))
        return bool(patiently(self.fs.exists, self.full(name)))

    def list(self, folder: str) -> list[str]:
        """Names in a folder, sorted, without temporary files; empty when there is no such folder."""
        try:
            if self.is_local:
                names = os.listdir(self.full(folder))
            else:
                paths = patiently(self.fs.ls, self.full(folder), detail=False)
                names = [os.path.basename(path.rstrip("/")) for path in paths]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if TEMPORARY not in name)

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        if self.is_local:
            return Path(self.full(name)).read_bytes()
        data: bytes = patiently(self.fs.cat_file, self.full(name))
        return data

    def map(self, name: str) -> memoryview:
        """The bytes of a file without copying them: the node's processes share the pages of the file or of its copy."""
        path = self.copy(name)
        try:
            if path is not None:
                with open(path, "rb") as file:
                    if not os.fstat(file.fileno()).st_size:  # nothing can be mapped of it
                        return memoryview(b"")
                    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except FileNotFoundError:
            if self.is_local:
                raise
        return memoryview(self.read(name))

    def copy(self, name: str) -> str | None:
        """Where a file lies on this node: itself, or a copy of a large remote one; None where it is to be read."""
        path = self.full(name)
        if self.is_local:
            return path
        facts = patiently(self.fs.info, path)
        tag = next(
            (facts[kind] for kind in ("ETag", "etag", "LastModified", "updated", "created") if kind in facts), ""
        )

        def fetch(start: int, stop: int) -> bytes:
            return bytes(patiently(self.fs.cat_file, path, start=start, end=stop))

        found = copy_of(f"{self.root}/{name} {tag}", int(facts["size"]), fetch)
        return None if found is None else str(found)

    def publish(self, name: str, data: bytes | memoryview) -> None:
        """Makes `data` appear whole under `name`, replacing what was there."""
        if not self.is_local:
            patiently(self.fs.pipe_file, self.full(name), bytes(data))
            return
        final = self.full(name)
        folder = os.path.dirname(final)
        os.makedirs(folder, exist_ok=True)
        # Workers of a dead driver may still write: no two writers may share a temporary name.
        writer = f"{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
        temporary = f"{folder}/.{os.path.basename(final)}{TEMPORARY}{writer}"
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, final)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise
        _sync_folder(folder)

    def create(self, name: str, data: bytes) -> bool:
        """Publishes only if there is no such file yet; returns whether it did."""
        if not self.is_local:
            try:
                patiently(self.fs.pipe_file, self.full(name), data, mode="create")
            except FileExistsError:
                return False  # or it is ours, by an earlier try whose answer was lost; content that is unique tells
            return True
        final = self.full(name)
        os.makedirs(os.path.dirname(final), exist_ok=True)
        temporary = f"{final}{TEMPORARY}{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._link(temporary, final, data)
        except FileExistsError:
            return False
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
        return True

    @staticmethod
    def _link(temporary: str, final: str, data: bytes) -> None:
        """Gives a file its name unless that is taken; a rename would replace what has it.

        Raises:
            FileExistsError: it is taken.
        """
        try:
            os.link(temporary, final)
        except FileExistsError:
            raise
        except OSError:  # no hard links, as on gcsfuse and SMB: exclusive all the same, but seen before it is whole
            with open(final, "xb") as file:
                try:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                except BaseException:
                    os.unlink(final)
                    raise

    def move(self, name: str, to: str) -> None:
        """Gives a file another name, replacing what had it."""
        if self.is_local:
            os.replace(self.full(name), self.full(to))
        else:
            patiently(self.fs.mv, self.full(name), self.full(to))

    def remove(self, name: str) -> None:
        """Removes a file or a folder with all below it; missing is fine, also where another driver was faster."""
        if self.exists(name):
            with suppress(FileNotFoundError):
                if self.is_local:
                    self.fs.rm(self.full(name), recursive=True)
                else:
                    patiently(self.fs.rm, self.full(name), recursive=True)

    def modified_s(self, name: str) -> float:
        """When a file was published, in seconds since 1970."""
        if self.is_local:
            return os.stat(self.full(name)).st_mtime
        return float(patiently(self.fs.modified, self.full(name)).timestamp())

    def check(self) -> None:
        """Writes and removes a probe, with little patience for a store that is away.

        Raises:
            ConfigError: the folder or bucket cannot be written; with the cause.
        """
        probe = f"probe-{socket.gethostname()}-{os.getpid()}"
        try:
            if self.is_local:
                self.publish(probe, b"rayclean")
                self.remove(probe)
                if [self.create(probe, b"rayclean") for _ in range(2)] != [True, False]:
                    raise OSError("a file cannot be created only if it is absent, so that two drivers could hold a run")
            else:
                tried_for(START_PATIENCE_S, self.fs.pipe_file, self.full(probe), b"rayclean")
            self.remove(probe)
        except Exception as error:  # each store has its own exceptions, few of them OSError
            cause = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
            raise ConfigError(
                f"run.dir {self.root}: cannot be written: {cause}; check the path, the bucket and the access rights"
            ) from error


def _sync_folder(folder: str) -> None:
    """Makes a rename survive a power cut; some network file systems refuse to sync folders."""
    try:
        fd = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(fd)
    except OSError:
        pass
    finally:
        os.close(fd)

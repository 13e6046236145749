"""Where Ray Train keeps checkpoints of a run on an object store: a file system that waits while the store is away."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.fs

from rayclean.storage.remote import patiently


class _Upload(io.BytesIO):
    """Holds what is written and puts it in one piece when it is closed; a checkpoint is as large as its network."""

    def __init__(self, put: Callable[[bytes], None]) -> None:
        super().__init__()
        self._put = put

    def close(self) -> None:
        """Puts the file."""
        if not self.closed:
            self._put(self.getvalue())
        super().close()


class PatientHandler(pyarrow.fs.FSSpecHandler):  # type: ignore[misc]
    """fsspec's file system for pyarrow, whose calls are tried again as those of `Store` are.

    Ray Train fails for good at the first error of its storage otherwise, in the driver's controller as in workers.
    """

    def get_file_info(self, paths: Any) -> Any:
        """What the paths are."""
        return patiently(super().get_file_info, paths)

    def get_file_info_selector(self, selector: Any) -> Any:
        """What a folder holds."""
        return patiently(super().get_file_info_selector, selector)

    def create_dir(self, path: str, recursive: bool) -> None:
        """Makes a folder."""
        patiently(super().create_dir, path, recursive)

    def delete_dir(self, path: str) -> None:
        """Removes a folder with all below it."""
        with suppress(FileNotFoundError):  # an earlier try, whose answer was lost, has done it
            patiently(super().delete_dir, path)

    def delete_file(self, path: str) -> None:
        """Removes a file."""
        with suppress(FileNotFoundError):
            patiently(super().delete_file, path)

    def open_input_stream(self, path: str) -> Any:
        """A file's bytes, read at once."""
        return self.open_input_file(path)

    def open_input_file(self, path: str) -> Any:
        """A file's bytes, read at once."""
        if not patiently(self.fs.isfile, path):
            raise FileNotFoundError(path)
        return pa.BufferReader(patiently(self.fs.cat_file, path))

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        """A file that is there, whole, once it is closed."""
        return pa.PythonFile(_Upload(lambda data: patiently(self.fs.pipe_file, path, data)), mode="w")


def checkpoint_filesystem(fs: Any) -> pyarrow.fs.FileSystem:
    """An fsspec file system as Ray Train takes it."""
    return pyarrow.fs.PyFileSystem(PatientHandler(fs))

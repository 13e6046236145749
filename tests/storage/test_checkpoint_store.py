"""Checkpoints on a store that fails for a moment: written, listed, read and removed all the same."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from rayclean.storage.checkpoint_store import checkpoint_filesystem

CALLS = ("info", "isdir", "isfile", "exists", "find", "mkdir", "rm", "cat_file", "pipe_file")


class Failing(MemoryFileSystem):  # type: ignore[misc]
    """The first two calls of each kind are cut."""

    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.cut: Counter[str] = Counter()

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return cut_twice(found, self.cut, name) if name in CALLS else found


def cut_twice(call: Callable[..., Any], cut: Counter[str], name: str) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        cut[name] += 1
        if cut[name] <= 2:
            raise ConnectionResetError("cut")
        return call(*args, **kwargs)

    return wrapped


@pytest.fixture
def filesystem(monkeypatch: pytest.MonkeyPatch) -> Iterator[pyarrow.fs.FileSystem]:
    monkeypatch.setattr("rayclean.storage.remote.MAX_PAUSE_S", 0.01)
    monkeypatch.setattr("time.sleep", lambda _: None)
    yield checkpoint_filesystem(Failing())
    MemoryFileSystem().rm("/checkpoints", recursive=True)


def test_a_folder_goes_there_and_back(filesystem: pyarrow.fs.FileSystem, tmp_path: Path) -> None:
    (tmp_path / "here" / "deep").mkdir(parents=True)
    data = bytes(range(256)) * 5000
    for name in ("state.pt", "deep/more.pt"):
        (tmp_path / "here" / name).write_bytes(data)
    local = pyarrow.fs.LocalFileSystem()
    pyarrow.fs.copy_files(
        str(tmp_path / "here"), "/checkpoints/e1", source_filesystem=local, destination_filesystem=filesystem
    )
    (info,) = filesystem.get_file_info(["/checkpoints/e1/state.pt"])
    assert (info.type, info.size) == (pyarrow.fs.FileType.File, len(data))
    pyarrow.fs.copy_files(
        "/checkpoints/e1", str(tmp_path / "back"), source_filesystem=filesystem, destination_filesystem=local
    )
    assert (tmp_path / "back" / "deep" / "more.pt").read_bytes() == data
    filesystem.delete_dir("/checkpoints/e1")
    (info,) = filesystem.get_file_info(["/checkpoints/e1/state.pt"])
    assert info.type == pyarrow.fs.FileType.NotFound
    with pytest.raises(FileNotFoundError):
        filesystem.open_input_file("/checkpoints/e1/state.pt")


def test_it_travels_to_workers() -> None:
    filesystem = pickle.loads(pickle.dumps(checkpoint_filesystem(MemoryFileSystem())))
    with filesystem.open_output_stream("/checkpoints-travelled") as file:
        file.write(b"one")
        file.write(b"two")
    assert MemoryFileSystem().cat_file("/checkpoints-travelled") == b"onetwo"

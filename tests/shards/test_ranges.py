"""Web servers that give whole files alone are found before anything starts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from rayclean.catalog.stage import find_sources
from rayclean.config import DataSection
from rayclean.errors import InputError
from rayclean.shards.access import PixelReader
from rayclean.shards.ranges import check_ranges
from tests.helpers import sample, write_tar
from tests.signed_urls import VARIABLE, signing


class _Whole(SimpleHTTPRequestHandler):
    """Python's own server, which knows no ranges."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The URL of a folder with two shards on such a server."""
    for shard in range(2):
        write_tar(tmp_path / f"{shard}.tar", sample(f"k{shard}", 1, shard))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Whole, directory=str(tmp_path)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_server_without_ranges_is_refused_before_anything_starts(served: str) -> None:
    with pytest.raises(InputError, match=r"0\.tar: its server gives whole files alone .* copy the shards") as error:
        find_sources(DataSection(shards=f"{served}/{{0..1}}.tar", classes=2))
    assert error.value.exit_code == 2


def test_one_with_ranges_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "0.tar", sample("k", 1, 1))
    with signing(tmp_path) as signed:
        monkeypatch.setenv(VARIABLE, signed())
        check_ranges([f"env://{VARIABLE}/0.tar"])


def test_the_url_behind_a_variable_is_not_told(served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, f"{served}/0.tar?sig=secret")
    with pytest.raises(InputError, match=rf"^env://{VARIABLE}/0\.tar: its server gives whole files") as error:
        check_ranges([f"env://{VARIABLE}/0.tar"])
    assert "secret" not in str(error.value)
    assert "127.0.0.1" not in str(error.value)


def test_copies_at_each_process_are_the_way_out(served: str) -> None:
    sources = find_sources(DataSection(shards=[f"simplecache::{served}/{shard}.tar" for shard in range(2)], classes=2))
    reader = PixelReader(sources["url"].to_pylist(), 8, 1e6)
    assert [reader.read_bytes(shard, 0, 6) for shard in range(2)] == [b"k0.cls", b"k1.cls"]

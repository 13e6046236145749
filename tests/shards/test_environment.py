"""Shards behind signed URLs: `env:NAME` reads them, and nothing of the URLs is written or said."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from rayclean.config import Config
from rayclean.errors import ConfigError, InputError, RaycleanError
from rayclean.run.run import Run
from rayclean.shards.opening import open_shard
from rayclean.shards.urls import expand_shards, identify_shard
from rayclean.storage.published import Published
from rayclean.storage.store import Store
from tests.signed_urls import LATER, TELLTALE, TOKEN, VARIABLE, signing

Tiny = Callable[..., Config]
Finish = Callable[..., Run]


@pytest.fixture(scope="module")
def signed(tiny_shards: str) -> Iterator[Callable[..., str]]:
    """`signed()`: the URLs of the tiny shards, one a line."""
    with signing(Path(tiny_shards).parent) as make:
        yield make


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tables(folder: Path) -> list[bytes]:
    return [(folder / part).read_bytes() for part in Published.open(Store(str(folder))).parts]


def test_a_run_by_signed_urls_is_that_of_the_files_and_holds_nothing_of_them(
    tiny_config: Tiny,
    finish: Finish,
    scored: Run,
    signed: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, signed())
    config = tiny_config(tmp_path / "run", f"data.shards=env:{VARIABLE}")
    run = finish(config)
    assert run.source.shards["url"].to_pylist() == [f"env://{VARIABLE}/0{i}.tar" for i in range(4)]
    assert tables(tmp_path / "run") == tables(Path(scored.store.path))
    files = contents(tmp_path / "run")
    assert len(files) > 30
    for word in TELLTALE:
        assert not [name for name, data in files.items() if word.encode() in data], word

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.parquet")}
    monkeypatch.setenv(VARIABLE, signed(LATER))  # signed anew, the run goes on
    finish(config)
    assert {path for path, time in before.items() if path.stat().st_mtime_ns != time} <= {
        path for path in before if path.parent.name == "labels"
    }


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (None, ConfigError, f"env:{VARIABLE}: the environment has no {VARIABLE}"),
        (" \n", ConfigError, "or nothing in it"),
        ("/tmp/{0..\n", ConfigError, "line 1: no pattern of shards"),
        ("pipe:cat secret-file", ConfigError, "line 1: no pattern of shards"),
        (f"env:{VARIABLE}", ConfigError, "names a variable again"),
        ("\n/nowhere/secret-*.tar", InputError, "line 2: matches nothing that can be read"),
        ("nosuch://secret/*.tar", InputError, "line 1: matches nothing that can be read (ValueError)"),
        ("https://h/secret-token?a=1", ConfigError, None),
    ],
)
def test_a_variable_that_cannot_be_is_told_without_its_content(
    content: str | None, kind: type[RaycleanError], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if content is not None:
        monkeypatch.setenv(VARIABLE, content)
    if said is None:  # nothing to look up: its name is all that is known
        assert expand_shards(f"env:{VARIABLE}") == [f"env://{VARIABLE}/secret-token"]
        return
    with pytest.raises(kind, match=re.escape(said)) as caught:
        expand_shards(f"env:{VARIABLE}")
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="expected the name of an environment variable"):
        expand_shards("env:a b")


def test_what_a_store_says_of_a_url_is_not_passed_on(
    signed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, signed("wrong-secret"))
    urls = expand_shards(f"env:{VARIABLE}")
    attempts: list[Callable[[], object]] = [lambda: identify_shard(urls[0]), lambda: open_shard(urls[0])]
    fs, path = fsspec.core.url_to_fs(urls[0])
    attempts += [lambda: fs.cat_file(path, 0, 9), lambda: fs.cat_ranges([path] * 2, [0, 1], [1, 2])]
    for attempt in attempts:
        with pytest.raises((InputError, OSError)) as caught:
            attempt()
        chain = [caught.value, caught.value.__cause__]
        assert all("wrong-secret" not in str(each) and TOKEN not in str(each) for each in chain)
        assert f"env://{VARIABLE}/00.tar" in str(caught.value)
    monkeypatch.setenv(VARIABLE, signed(extra="gone.tar"))
    with pytest.raises(InputError, match=r"gone\.tar: cannot be read: FileNotFoundError") as caught:
        identify_shard(f"env://{VARIABLE}/gone.tar")
    assert TOKEN not in str(caught.value)


def test_shards_of_one_base_name_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "https://h/b/a.tar?sig=2\nhttps://h/a/a.tar?sig=1")
    assert expand_shards(f"env:{VARIABLE}") == [f"env://{VARIABLE}/0000{i}-a.tar" for i in range(2)]
    with pytest.raises(ConfigError, match=r"has no shard b\.tar on this node any more"):
        fsspec.filesystem("env").cat_file(f"{VARIABLE}/b.tar")


def test_a_list_may_name_variables_and_files(tiny_shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, f"{Path(tiny_shards).parent}/00.tar\n{Path(tiny_shards).parent}/01.tar")
    urls = expand_shards([f"env:{VARIABLE}", tiny_shards])
    assert [url for url in urls if url.startswith("env:")] == [f"env://{VARIABLE}/0{i}.tar" for i in range(2)]
    assert len(urls) == 6
    assert identify_shard(urls[-1]).size > 0
    with open_shard(f"env://{VARIABLE}/00.tar") as file:
        assert file.read() == Store(str(Path(tiny_shards).parent)).read("00.tar")

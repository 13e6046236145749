"""What patterns stand for, what is refused, and that a change of a shard is seen."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.errors import ConfigError, InputError
from rayclean.shards.opening import open_shard
from rayclean.shards.urls import expand_shards, identify_shard, short_names
from tests.helpers import samples, tar_bytes, write_tar


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a-00.tar", "a-01.tar", "a-02.tar", "deep/b.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def memory() -> Iterator[str]:
    fs = fsspec.filesystem("memory")
    for name in ("x-0.tar", "x-1.tar"):
        fs.pipe_file(f"/bucket/{name}", tar_bytes(samples([0])))
    yield "memory://bucket"
    fs.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("a-*.tar", ["a-00.tar", "a-01.tar", "a-02.tar"]),
        ("a-0?.tar", ["a-00.tar", "a-01.tar", "a-02.tar"]),
        ("a-{00..01}.tar", ["a-00.tar", "a-01.tar"]),
        ("{a-*,deep/*}.tar", ["a-00.tar", "a-01.tar", "a-02.tar", "deep/b.tar"]),
        ("**/*.tar", ["a-00.tar", "a-01.tar", "a-02.tar", "deep/b.tar"]),
        (["deep/b.tar", "a-02.tar", "a-0*.tar"], ["a-00.tar", "a-01.tar", "a-02.tar", "deep/b.tar"]),
        ("./a-00.tar", ["a-00.tar"]),
    ],
)
def test_local_patterns(folder: Path, patterns: str | list[str], expected: list[str]) -> None:
    assert expand_shards(patterns) == [str(folder / name) for name in expected]


def test_file_urls_are_local_paths(folder: Path) -> None:
    assert expand_shards(f"file://{folder}/a-{{00..01}}.tar") == expand_shards("a-{00..01}.tar")


def test_a_name_with_brackets_and_braces_is_taken_as_it_is(folder: Path) -> None:
    for name in ("[1].tar", "{1,2}.tar"):
        (folder / name).write_bytes(b"")
        assert expand_shards(name) == [str(folder / name)]


@pytest.mark.parametrize("pattern", ["pipe:cat a-00.tar", "  PIPE:ls", "{pipe:a,pipe:b}", ["a-00.tar", "pipe:x"]])
def test_a_pipe_is_refused(folder: Path, pattern: str | list[str]) -> None:
    with pytest.raises(ConfigError, match="pipe: runs a shell"):
        expand_shards(pattern)


@pytest.mark.parametrize("pattern", ["", " ", [], "a-{00..01.tar", ["a-00.tar", ""]])
def test_a_pattern_that_cannot_be_right(folder: Path, pattern: str | list[str]) -> None:
    with pytest.raises(ConfigError, match=r"data\.shards"):
        expand_shards(pattern)


@pytest.mark.parametrize("pattern", ["none-*.tar", "a-{00..07}.tar", "none.tar", ["a-00.tar", "none-*.tar"]])
def test_no_match_names_the_pattern(folder: Path, pattern: str | list[str]) -> None:
    with pytest.raises(InputError) as caught:
        expand_shards(pattern)
    assert (pattern if isinstance(pattern, str) else pattern[-1]) in str(caught.value)


def test_a_folder_is_no_shard(folder: Path) -> None:
    with pytest.raises(InputError, match=r"deep/\*\.tar"):
        expand_shards("deep")


@pytest.mark.parametrize(
    ("suffix", "tool"),
    [(".tar.gz", "gzip"), (".tgz", "gzip"), (".tar.bz2", "bzip2"), (".tar.xz", "xz"), (".tar.zst", "zstd")],
)
def test_a_compressed_tar_is_refused_with_the_command(folder: Path, suffix: str, tool: str) -> None:
    (folder / f"my c{suffix}").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        expand_shards(f"*{suffix}")
    assert f"`{tool} -dc '{folder}/my c{suffix}' > '{folder}/my c.tar'`" in str(caught.value)


def test_the_command_works(folder: Path) -> None:
    plain = Path(write_tar(folder / "z.tar", samples([1])))
    content = plain.read_bytes()
    subprocess.run(["gzip", str(plain)], check=True)
    with pytest.raises(InputError) as caught:
        expand_shards("z.tar.gz")
    subprocess.run(str(caught.value).split("`")[1], shell=True, check=True)
    assert plain.read_bytes() == content


def test_remote_patterns(memory: str) -> None:
    both = ["memory://bucket/x-0.tar", "memory://bucket/x-1.tar"]
    assert expand_shards(f"{memory}/*.tar") == both
    assert expand_shards(f"{memory}/x-{{0..1}}.tar") == both
    with pytest.raises(InputError, match=r"y-\*\.tar: no file matches"):
        expand_shards(f"{memory}/y-*.tar")
    with pytest.raises(InputError, match="nosuch"):
        expand_shards("nosuch://bucket/*.tar")


def test_the_question_mark_of_a_query_is_no_glob() -> None:
    assert expand_shards("https://host.invalid/a.tar?version=1") == ["https://host.invalid/a.tar?version=1"]


def test_short_names() -> None:
    assert short_names(["/d/train/a.tar", "/d/train/b.tar"]) == ["a.tar", "b.tar"]
    assert short_names(["/d/train/a.tar", "/d/val/a.tar"]) == ["train/a.tar", "val/a.tar"]
    assert short_names(["s3://b/a.tar"]) == ["a.tar"]
    assert short_names(["/d/a.tar", "/d/a/b.tar"]) == ["a.tar", "a/b.tar"]
    assert short_names([]) == []


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join), min_size=1, unique=True))
def test_short_names_tell_shards_apart_and_do_not_depend_on_the_place(paths: list[str]) -> None:
    here = short_names([f"/x/y/{path}" for path in paths])
    assert len(set(here)) == len(paths)
    assert all(path.endswith(name) for path, name in zip(paths, here, strict=True))
    assert here == short_names([f"s3://bucket/{path}" for path in paths])


def test_a_local_change_is_seen(tmp_path: Path) -> None:
    url = write_tar(tmp_path / "a.tar", samples([0]))
    before = identify_shard(url)
    assert before == identify_shard(url)
    assert (before.size, before.tag) == (os.path.getsize(url), str(os.stat(url).st_mtime_ns))
    os.utime(url, ns=(0, 0))
    assert identify_shard(url) != before


def test_a_remote_change_is_seen(memory: str) -> None:
    url = f"{memory}/x-0.tar"
    before = identify_shard(url)
    assert before == identify_shard(url)
    assert before.tag
    fsspec.filesystem("memory").pipe_file("/bucket/x-0.tar", tar_bytes(samples([1])))
    assert identify_shard(url).size == before.size
    assert identify_shard(url) != before


@pytest.mark.parametrize("url", ["{folder}/none.tar", "{folder}/deep", "memory://nothing/a.tar", "nosuch://a.tar"])
def test_what_cannot_be_read_is_named_with_the_cause(folder: Path, url: str) -> None:
    url = url.format(folder=folder)
    for function in (identify_shard, open_shard):
        if function is open_shard and url.startswith("nosuch"):
            continue
        with pytest.raises(InputError) as caught:
            function(url)
        assert str(caught.value).startswith(f"{url}: cannot be read: ")
        assert caught.value.__cause__ is not None


def test_a_named_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(InputError, match="not a regular file"):
        identify_shard(str(tmp_path / "a.tar"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")
def test_no_access(tmp_path: Path) -> None:
    url = write_tar(tmp_path / "a.tar", [])
    os.chmod(url, 0)
    with pytest.raises(InputError, match="Permission denied"):
        identify_shard(url)


def test_a_shard_reached_twice_is_there_once_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/0.tar").write_bytes(b"x")
    (tmp_path / "a/1.tar").write_bytes(b"x")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "a/2.tar").symlink_to(tmp_path / "a/0.tar")
    found = expand_shards([f"{tmp_path}/b/*.tar", f"{tmp_path}/a/./0.tar"])
    assert found == [f"{tmp_path}/a/0.tar", f"{tmp_path}/b/1.tar"]
    assert f"read once: 1, such as {tmp_path}/a/0.tar = {tmp_path}/b/0.tar = {tmp_path}/b/2.tar" in caplog.text
    caplog.clear()
    expand_shards(f"{tmp_path}/a/{{0,1}}.tar")
    assert not caplog.text


@pytest.mark.parametrize("folder", ["we[ird]", "a*b", "[x]/{y}"])
def test_folders_that_are_there_are_taken_by_the_letter(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "0.tar").write_bytes(b"x")
    pattern = f"{tmp_path}/{folder}/*.tar".replace("{", r"\{").replace("}", r"\}")
    assert expand_shards(pattern) == [f"{tmp_path}/{folder}/0.tar"]

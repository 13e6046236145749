"""The filter file is what DataComp's own recipe gives for the same uids."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.config import Config
from rayclean.export import datacomp
from rayclean.export.datacomp import UidsJob, filter_file, halves
from rayclean.run.run import Run
from rayclean.storage.store import Store
from tests.export.runs import doubtful_run, exported, lines_of
from tests.helpers import png_bytes, write_tar

pytestmark = pytest.mark.usefixtures("without_ray")


def by_recipe(uids: list[str]) -> np.ndarray:
    """As DataComp's README says."""
    made = np.array([(int(uid[:16], 16), int(uid[16:32], 16)) for uid in uids], np.dtype("u8,u8"))
    made.sort()
    return made


def uid_of(key: str) -> str:
    return hashlib.md5(key.encode()).hexdigest()


def test_uids_are_the_samples_own_or_made(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    facts = {0: "no json", 1: {"uid": "not hex"}, 2: {"uid": 7}, 3: [], 4: {"uid": "F" * 32}, 5: {"uid": uid_of("6")}}
    made = {0, 1, 2, 3}
    for shard in range(3):
        members = []
        for i in range(20):
            key, content = f"s{shard}k{i}", facts.get(i, {"uid": uid_of(f"{shard} {i}"), "truth": 0})
            members += [(f"{key}.cls", b"%d" % (i % 6)), (f"{key}.json", json.dumps(content).encode())]
            members += [(f"{key}.png", png_bytes(shard * 100 + i))]
        write_tar(shards / f"{shard}.tar", members)
    run = finish(tiny_config(tmp_path / "run", f"data.shards={shards}/*.tar", "data.truth="))
    config = doubtful_run(run, tmp_path / "doubtful")
    summary = exported(config, "datacomp", tmp_path / "out", cut=0.2)
    exported(config, "csv", tmp_path / "list", cut=0.2)
    kept = [
        line.split(",")[0:2]
        for part in sorted((tmp_path / "list/data").iterdir())
        for line in part.read_text().replace('"', "").splitlines()[1:]
        if ",true," in line
    ]
    uids = []
    for shard_name, key in kept:
        i = int(key.partition("k")[2])
        own = {4: "f" * 32, 5: uid_of("6")}.get(i, uid_of(f"{key[1]} {i}"))
        uids.append(uid_of(f"{shard_name}/{key}") if i in made else own)
    found = np.load(tmp_path / "out/uids.npy", allow_pickle=False)
    assert found.dtype == np.dtype("u8,u8")
    assert found.tolist() == np.unique(by_recipe(uids)).tolist()
    assert (summary["exported"], summary["uids"]) == (len(kept), len(set(uids)))
    assert summary["made_uids"] == sum(int(key.partition("k")[2]) in made for _, key in kept)
    assert len(set(uids)) < len(uids)


def test_both_sides_together_are_all_rows(doubtful: Config, tmp_path: Path) -> None:
    stays = exported(doubtful, "datacomp", tmp_path / "stays", cut=0.4)
    goes = exported(doubtful, "datacomp", tmp_path / "goes", cut=0.4, removed=True)
    found = np.concatenate([np.load(tmp_path / side / "uids.npy") for side in ("stays", "goes")])
    expected = [uid_of(f"{line['shard']}/{line['key']}") for line in lines_of(doubtful)]
    assert np.sort(found).tolist() == by_recipe(expected).tolist()
    assert stays["exported"] + goes["exported"] == len(expected)


uids = st.text("0123456789abcdef", min_size=32, max_size=32) | st.sampled_from(["0" * 32, "f" * 32, "0" * 31 + "1"])


@given(st.lists(st.lists(uids, max_size=20), min_size=1, max_size=4))
def test_parts_are_merged_sorted_and_distinct(parts: list[list[str]]) -> None:
    class Found(UidsJob):
        def units(self) -> list[str]:
            return [f"uids/{i}" for i in range(len(parts))]

    with pytest.MonkeyPatch.context() as patch:
        arrays = [datacomp._sorted(np.array([halves(uid) for uid in part], np.uint64).reshape(-1, 2)) for part in parts]
        patch.setattr(datacomp, "map_arrays", lambda _, file: {"uids": arrays[int(file.split("/")[-1].split(".")[0])]})
        job = Found(Store("nowhere"), "export", None)  # type: ignore[arg-type]
        data, num = filter_file(job)
    found = np.load(io.BytesIO(data), allow_pickle=False)
    expected = sorted({halves(uid) for part in parts for uid in part})
    assert found.tolist() == expected
    assert (num, found.dtype) == (len(expected), np.dtype("u8,u8"))

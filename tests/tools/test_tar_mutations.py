"""The tool that damages tars: its reader agrees with tarfile where nothing is damaged, and what is wrong is noticed."""

from __future__ import annotations

import io
import random
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from rayclean.catalog.table import Catalog
from rayclean.shards.tar import split_name
from tools.faults.tar_damage import DAMAGES, IMAGES, damaged_tar, whole_tar
from tools.faults.tar_mutations import Outcome, check, make_tars, scan
from tools.faults.tar_reader import Content, Reading, key_of, read_tar

ROOT = Path(__file__).parents[2]
SHARED_MEMORY = Path("/dev/shm")  # where it is there: the disk's waits are half of the time


def test_the_laws_hold_on_200_damaged_tars(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools/faults/tar_mutations.py"), "--number", "200"]
    folder = SHARED_MEMORY if SHARED_MEMORY.is_dir() else tmp_path
    environment = {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"200 tars with {len(DAMAGES)} kinds of damage" in ended.stdout
    assert "\n0 failed units\n" in ended.stdout
    samples, rows, quarantined = map(int, re.findall(r"^(\d+) samples .* = (\d+) rows \+ (\d+)", ended.stdout, re.M)[0])
    assert samples == rows + quarantined > 400
    assert f"\n{rows} samples streamed by training\n" in ended.stdout
    assert rows > 200


@pytest.mark.parametrize("number", range(20))
def test_the_reader_agrees_with_tarfile_on_whole_tars(number: int) -> None:
    data = bytes(whole_tar(random.Random(number)).data)
    reading = read_tar(io.BytesIO(data))
    assert (reading.is_tar, reading.is_broken) == (True, False)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        infos = [(split_name(info.name), info) for info in tar if info.isreg()]
    expected = [(*name, info.offset_data, info.size, False) for name, info in infos if name]
    assert [(key, *member) for key, members in reading.samples for member in members] == expected


@pytest.mark.parametrize(
    "name", ["a.png", "d.e/a.b.PNG", "a", ".png", "__a__/b.png", "__a.b__", "__/x.y", "a/__b__.c", "é.x"]
)
def test_names_are_split_alike(name: str) -> None:
    assert key_of(name.encode()) == split_name(name)


def test_a_number_is_always_the_same_tar_and_every_kind_does_damage() -> None:
    for number in range(len(DAMAGES)):
        kind, tar = damaged_tar(number, 3)
        again = damaged_tar(number, 3)[1]
        assert (kind, bytes(again.data), again.hole) == (DAMAGES[number].__name__, bytes(tar.data), tar.hole)
        numbers = range(number, number + 10 * len(DAMAGES), len(DAMAGES))
        changed = [damaged_tar(i, 3)[1].data != whole_tar(random.Random(f"3 {i}")).data for i in numbers]
        assert sum(changed) > 5, kind


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Catalog, Reading]:
    """A tar that is cut, its catalog, and what is in it."""
    folder = tmp_path_factory.mktemp("scanned")
    cut = next(i for i, damage in enumerate(DAMAGES) if damage.__name__ == "cut")
    ((_, reading),) = make_tars(folder, range(cut, cut + 1), 5)
    catalog = scan(folder, Outcome())
    assert catalog is not None
    return folder / f"{cut:06d}.tar", catalog, reading


def wrong(scanned: tuple[Path, Catalog, Reading], reading: Reading) -> str:
    return " ".join(check(scanned[1], 0, scanned[0], reading, Outcome()))


def test_what_is_wrong_is_noticed(scanned: tuple[Path, Catalog, Reading]) -> None:
    reading = scanned[2]
    assert reading.is_broken
    assert len(reading.samples) > 2
    assert wrong(scanned, reading) == ""
    assert "are not the" in wrong(scanned, Reading(reading.samples[:-1], True))
    assert "broken is False" in wrong(scanned, Reading(reading.samples, False))
    assert "other keys" in wrong(scanned, Reading([("z", members) for _, members in reading.samples], True))
    row = next(i for i, (_, members) in enumerate(reading.samples) if {"png", "cls"} <= {m.extension for m in members})
    key, members = reading.samples[row]
    moved = [Content(m.extension, m.offset + 512 * (m.extension == "png"), m.size) for m in members]
    without = [m for m in members if m.extension != "cls"]
    for changed, said in ((without, "at most"), (moved, "cannot identify|lies elsewhere|undecodable")):
        samples = [*reading.samples[:row], (key, changed), *reading.samples[row + 1 :]]
        try:
            assert re.search(said, wrong(scanned, Reading(samples, True)))
        except Exception as error:
            assert re.search(said, str(error))  # noqa: PT017 - what lies there is no image
    assert len(set(IMAGES)) == len(IMAGES)

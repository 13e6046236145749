"""The tools that break runs: what they count, and the table; without Ray."""

from __future__ import annotations

import json
import os
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.faults.acts import FAULTS
from tools.faults.driver import Ended
from tools.faults.faults import count_work, is_rays, lost_work, main, plain, start_of, table
from tools.faults.run_folder import PARTS
from tools.faults.runs import EPOCHS, UNITS, Place, digit_samples, epochs_of, matching, published_again
from tools.faults.soak import PAUSES_S, VICTIMS, Tally, plan, summary

RAYS = "\x1b[33m(raylet)\x1b[0m A worker died or was killed while executing a task"


def place(run_dir: Path) -> Place:
    return Place(run_dir / "digits.yaml", str(run_dir), "/shards", {}, overrides=("iofm.num=2",), prefix=("nice",))


def publish(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.tmp-1")
    new.write_text(text)
    new.rename(path)


def test_a_file_that_is_published_again_counts_and_one_that_stays_does_not(tmp_path: Path) -> None:
    run = place(tmp_path)
    publish(tmp_path / "paths-1/000000.safetensors", "a")
    publish(tmp_path / "paths-1/000001.safetensors", "b")
    (tmp_path / "paths-1/.000002.safetensors.tmp-host-1-2").write_text("half")
    first = run.published()
    assert set(first) == {"paths-1/000000.safetensors", "paths-1/000001.safetensors"}
    publish(tmp_path / "paths-1/000001.safetensors", "b")  # the same bytes again
    publish(tmp_path / "paths-1/000002.safetensors", "c")
    assert published_again([first, run.published()]) == {"paths-1/000001.safetensors"}
    assert run.has("paths-*/000002.safetensors")
    assert not run.has("paths-*/*.safetensors.tmp*")


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 2).map(lambda mark: (mark,))), max_size=6))
def test_again_means_two_marks_in_any_two_looks(looks: list[dict[str, tuple[int]]]) -> None:
    expected = {name for name in "abc" if len({look[name] for look in looks if name in look}) > 1}
    assert published_again(looks) == expected


def test_work_is_counted_by_stage_and_by_epoch() -> None:
    epoch = "train-main-1/trajectories/epoch-{:04d}/{:06d}.parquet".format
    first = {"embed-1/000000.safetensors": (1,), "embed-1/000001.safetensors": (2,), "record/steps.json": (3,)}
    first |= {epoch(2, block): (4 + block,) for block in range(3)} | {epoch(1, 0): (9,)}
    last = first | dict.fromkeys((epoch(2, 0), epoch(2, 1), "embed-1/000001.safetensors"), (20,))
    last |= {"record/steps.json": (21,), "embed-1/000002.safetensors": (22,)}
    assert count_work([first, last], PARTS["embed"]) == {"done": 2, "total": 3, "units_twice": 1, "epochs_twice": 1}
    assert epochs_of(set(matching(last, [EPOCHS]))) == {1, 2}
    assert not matching(last, [PARTS["paths"]])


def test_patterns_of_units_leave_the_training_and_side_files_out() -> None:
    names = ["catalog-1/rows/000000.parquet", "merge-1/part-00000.parquet", "neighbors-1/lists/000000.safetensors"]
    others = ["catalog-1/truth/000000.parquet", "embed-1/_environment.json", "labels/part-00000.parquet"]
    others.append("train-main-1/trajectories/epoch-0001/000000.parquet")
    assert set(matching(dict.fromkeys([*names, *others], ()), UNITS)) == set(names)


def test_what_the_user_sees_is_ours_and_rays_lines_are_counted() -> None:
    assert start_of(Ended(1, "", f"a warning\n{RAYS}\nrayclean: 1 unit failed\n\n"), 2.34) == start_of(
        Ended(1, f"{RAYS}\n", "rayclean: 1 unit failed"), 2.34
    )
    assert start_of(Ended(0, "", "train: 0/4 units\n2 units were lost\ntrain main: 3/4 units, 9 s left"), 1).shown == (
        "2 units were lost"
    )
    silent = start_of(Ended(-9, "", ""), 1)
    assert (silent.code, silent.shown, silent.ray_lines) == (-9, "", 0)
    assert is_rays(RAYS)
    assert not is_rays("taking over /run: its driver (process 17 on host) is dead")


def test_the_table_has_a_line_for_each_result_in_the_order_of_the_faults() -> None:
    start = {"code": -9, "seconds": 1.0, "shown": "", "ray_lines": 0}
    row = {
        "starts": [[start], [{**start, "code": 2, "shown": "held by process 3"}, {**start, "code": 0}]],
        "done": 1,
        "total": 16,
        "units_twice": 2,
        "epochs_twice": 1,
        "seconds": 41.6,
        "same_bytes": True,
        "samples_missing": 0,
    }
    noisy = {"code": 0, "seconds": 9.0, "shown": "", "ray_lines": 3}
    lines = table({"everything": row | {"starts": [[noisy]]}, "actor": row, "driver": row | {"samples_missing": 1}})
    assert len(lines) == 5
    assert "| 0 | 3 of Ray's own lines | 1 of 16 |" in lines[4]
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|") == lines[3].count("|")
    assert lines[2].startswith("| `driver` |")
    assert lines[2].endswith("| **no** |")
    assert lines[3].endswith(
        "| -9, then 2 and 0 | nothing<br>`held by process 3` | 1 of 16 | 2 units, 1 epoch | 42 | yes |"
    )
    assert lost_work(row | {"units_twice": 0, "epochs_twice": 0}) == "none"


def test_messages_lose_paths_and_do_not_break_the_table() -> None:
    assert plain("rayclean: '/tmp/x/paths-1/0.safetensors': no | space; run.dir=/tmp/x/run, 1/2 units") == (
        "rayclean: '.../0.safetensors': no / space; run.dir=.../run, 1/2 units"
    )
    assert (
        plain("http://127.0.0.1:40443/bucket/run/a.json is away") == "http://127.0.0.1:40443/bucket/run/a.json is away"
    )
    assert plain(f"process 3 on {os.uname().nodename};") == "process 3 on host;"
    assert len(plain("x" * 1000)) < 300


def test_names_of_faults_are_their_own_and_each_breaks_a_stage() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert {fault.stage for fault in FAULTS} <= set(PARTS)


def test_an_unknown_fault_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["no_such_fault"])
    assert "no_such_fault" in capsys.readouterr().err
    main(["--list"])
    assert len(capsys.readouterr().out.splitlines()) == len(FAULTS)


def test_the_command_names_run_and_shards(tmp_path: Path) -> None:
    command = place(tmp_path).command("--until", "train")
    assert command[0] == "nice"
    assert command[2:4] == ["run", str(tmp_path / "digits.yaml")]
    assert command[4:] == [f"run.dir={tmp_path}", "data.shards=/shards/*.tar", "iofm.num=2", "--until", "train"]


def test_the_samples_are_those_of_the_page() -> None:
    samples = digit_samples()
    assert len(samples) == 242
    assert [key for key, members in samples if set(members) != {"png", "json"}] == ["no-label"]
    assert len({key for key, _ in samples}) == 242


def test_kills_repeat_with_their_seed() -> None:
    first = list(islice(plan(3), 200))
    assert first == list(islice(plan(3), 200))
    assert first != list(islice(plan(4), 200))
    assert {victim for _, victim in first} == set(VICTIMS)
    assert all(PAUSES_S[0] <= pause <= PAUSES_S[1] for pause, _ in first)


def test_the_soaks_line_adds_up_its_runs() -> None:
    runs = [
        Tally(Counter(actor=2, driver=1), [-9, 0], units_twice=1, same_bytes=True),
        Tally(Counter(driver=2), [-9, -9, 0], epochs_twice=2, same_bytes=False, samples_missing=3),
    ]
    line = summary(7, runs, 12.4)
    assert json.loads(json.dumps(line)) == line
    assert line["kills"] == 5
    assert line["by_victim"] == {"actor": 2, "driver": 3}
    assert (line["starts"], line["codes"]) == (5, {"-9": 3, "0": 2})
    assert (line["units_twice"], line["epochs_twice"]) == (1, 2)
    assert (line["tables_that_differ"], line["samples_missing"]) == (1, 3)

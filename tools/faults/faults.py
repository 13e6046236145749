"""What breaks, what the user then sees, and what the same command makes of it: one fault per row.

    .venv/bin/python tools/faults/faults.py --list
    .venv/bin/python tools/faults/faults.py driver node         # these; all without a name
    .venv/bin/python tools/faults/faults.py --table             # Markdown from what is there

Each fault is done to a run of its own: 240 digits and 4 epochs, or a copy of the unbroken run that ends before the
stage in question. Where the run ended, the same command is given again. Faults of disks and networks need root, as
they happen in namespaces of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.faults.acts import FAULTS, Fault, nothing
from tools.faults.driver import Ended, started
from tools.faults.rigs import Rig, scene_of
from tools.faults.run_folder import PARTS
from tools.faults.runs import (
    EPOCHS,
    RUN_TIMEOUT_S,
    UNITS,
    Bench,
    Published,
    epochs_of,
    matching,
    published_again,
)

RESULTS = Path("docs/results/faults")
MAX_STARTS = 3
PATH = re.compile(r"(?<![\w:/.])/(?:[^\s/'\",;]+/)+([^\s/'\",;]+)")
PROGRESS = re.compile(r"\w+[\w ]*: \d+/\d+ units")
DONE = (0, 3)  # exit codes of a run that has its table


@dataclass
class Start:
    """One start of the command.

    Attributes:
        seconds: from the start until this driver, and all that were started with it before, had ended.
        shown: the last line on stderr that is no progress; empty where there is none.
        ray_lines: lines of Ray's own on stdout and stderr.
    """

    code: int
    seconds: float
    shown: str
    ray_lines: int


def start_of(ended: Ended, seconds: float) -> Start:
    """What a start looked like to its user."""
    ray_lines = [line for line in (ended.out + ended.err).splitlines() if is_rays(line)]
    own = [line.strip() for line in ended.err.splitlines() if line.strip()]
    own = [line for line in own if not is_rays(line) and not PROGRESS.match(line)]
    return Start(ended.code, round(seconds, 1), plain(own[-1]) if own else "", len(ray_lines))


def is_rays(line: str) -> bool:
    """Whether a line was printed by Ray itself."""
    return "(raylet)" in line or "(gcs_server)" in line or "core_worker" in line or "pid=" in line.partition(")")[0]


def measure(fault: Fault, rig: Rig) -> dict[str, Any]:
    """Does one fault, gives the command again until the run is complete, and counts."""
    pattern, starts = PARTS[fault.stage], list[list[Start]]()
    # What a dead driver left may still be at work when the command is given again.
    with scene_of(fault, rig) as scene, contextlib.ExitStack() as drivers:
        looks: list[Published] = []
        while len(starts) < MAX_STARTS and not (starts and any(each.code in DONE for each in starts[-1])):
            began_s = time.monotonic()
            begun = [
                drivers.enter_context(
                    started(scene.place.command(), scene.place.env, scene.logs / f"start{len(starts)}{number}")
                )
                for number in range(fault.together[min(len(starts), 1)])
            ]
            if not starts:
                scene.driver = begun[0]
                if fault.prepare is nothing and len(begun) == 1:
                    scene.wait_while_running(f"a part of {fault.stage}", lambda: scene.place.has(pattern))
                broken_s = time.monotonic()
                looks.append(scene.place.published())
                fault.inject(scene)
            ended = [(driver.wait(RUN_TIMEOUT_S), time.monotonic() - began_s) for driver in begun]
            starts.append([start_of(each, seconds) for each, seconds in ended])
            looks.append(scene.place.published())
            if len(starts) == 1:
                fault.mend(scene)
        return {
            "fault": fault.name,
            "what": fault.what,
            "stage": fault.stage,
            "on": fault.on,
            "starts": [[vars(each) for each in together] for together in starts],
            "seconds": round(time.monotonic() - broken_s, 1),
            "load": round(os.getloadavg()[0], 1),
            **count_work(looks, pattern),
            "same_bytes": scene.place.table() == rig.bench.reference.table(),
            "samples_missing": scene.place.samples_missing(),
            "notes": scene.notes,
        }


def count_work(looks: Sequence[Published], pattern: str) -> dict[str, Any]:
    """Units and epochs, from looks at the run's files: at the fault, at the end of each start.

    Returns:
        `done`, `total`: files of the stage at the fault and at the end; `units_twice`: units of all stages but training
        that were published again after the fault; `epochs_twice`: epochs whose trajectories were.
    """
    again = published_again(looks)
    files = dict.fromkeys(again, ())
    return {
        "done": len(matching(looks[0], [pattern])),
        "total": len(matching(looks[-1], [pattern])),
        "units_twice": len(matching(files, UNITS)),
        "epochs_twice": len(epochs_of(set(matching(files, [EPOCHS])))),
    }


def table(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Markdown, in the order of the faults."""
    lines = [
        "| `tools/faults/faults.py` | what, when the first part of a stage lies there | exit codes "
        "| what the user sees | done of stage | work done twice | s to the end | same bytes |",
        "|---|---|---|---|--:|---|--:|---|",
    ]
    for fault in FAULTS:
        if fault.name in found:
            row = found[fault.name]
            codes = ", then ".join(" and ".join(str(each["code"]) for each in start) for start in row["starts"])
            seen = [seen_words(each) for start in row["starts"] for each in start]
            words = "<br>".join(filter(None, seen)) or "nothing"
            lines.append(
                f"| `{fault.name}` | {fault.what}: {fault.stage}{PLACES[fault.on]} | {codes} | {words} "
                f"| {row['done']} of {row['total']} | {lost_work(row)} | {row['seconds']:.0f} "
                f"| {'yes' if row['same_bytes'] and not row['samples_missing'] else '**no**'} |"
            )
    return lines


def seen_words(start: Mapping[str, Any]) -> str:
    """What a start showed; empty for one that ended well without a word."""
    words = [f"`{start['shown']}`"] if start["shown"] else []
    if start["ray_lines"]:
        words.append(f"{start['ray_lines']} of Ray's own lines")
    return ", ".join(words) or ("" if start["code"] in DONE else "nothing")


PLACES = {"disk": "", "small": "", "store": ", object store", "cluster": ", three nodes", "network": ", two networks"}


def lost_work(row: Mapping[str, Any]) -> str:
    """Published work that was published again; what was under way at the fault comes on top."""
    parts = [f"{row[name]} {what}{'s' if row[name] != 1 else ''}" for name, what in _WORK if row[name]]
    return ", ".join(parts) or "none"


_WORK = (("units_twice", "unit"), ("epochs_twice", "epoch"))


def plain(line: str, longest: int = 220) -> str:
    """A message without paths and names of this machine, short enough for a table."""
    line = PATH.sub(r".../\1", line).replace("|", "/").replace("`", "'")
    line = re.sub(rf"\b{re.escape(os.uname().nodename)}\b", "host", line)
    return line if len(line) <= longest else f"{line[:longest]}..."


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Break tiny runs in known ways and see what becomes of them.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="faults to try (all)")
    parser.add_argument("--list", action="store_true", help="only list the faults")
    parser.add_argument("--table", action="store_true", help="only print what was measured, as Markdown")
    parser.add_argument("--work", type=Path, help="a folder to work in and keep (a temporary one)")
    options = parser.parse_args(arguments)
    by_name = {fault.name: fault for fault in FAULTS}
    if unknown := set(options.names) - set(by_name):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; see --list")
    if options.list:
        print("\n".join(f"{fault.name:<22}{fault.what}: {fault.stage}{PLACES[fault.on]}" for fault in FAULTS))
        return
    if options.table:
        found = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
        print("\n".join(table(found)))
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="rc-", dir="/tmp", ignore_cleanup_errors=True) as temporary,
        contextlib.ExitStack() as stack,
    ):
        rig = Rig(Bench(options.work or Path(temporary)), stack)
        for name in options.names or by_name:
            try:
                row = measure(by_name[name], rig)
            except Exception as error:  # the others are worth measuring all the same
                print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                continue
            (RESULTS / f"{name}.json").write_text(json.dumps(row, indent=1) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

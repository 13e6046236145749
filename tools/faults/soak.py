"""Kills at random: runs that are killed again and again must end with the bytes of an unbroken one.

    .venv/bin/python tools/faults/soak.py --kills 50 --seed 0

Victims are whoever is at work (an actor, a training worker), the driver, or all processes, at moments that a seed
draws; a worker that is not there when its time comes dies as soon as it is. After the death of a driver the same
command is given at once, while workers of the dead one may still be at work. Runs follow each other until so many
kills were done. The last line is JSON; the exit code is 1 where a table differs or a sample is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psutil

from tools.faults.driver import COMPUTING_ACTOR, TRAINING_WORKER, Driver, started
from tools.faults.runs import EPOCHS, UNITS, Bench, Place, Published, epochs_of, matching, published_again

PAUSES_S = (2.0, 18.0)  # between two kills: the shorter ones meet a driver that starts
POLL_S = 0.02
MAX_KILLS = 10  # of one run, which then ends in peace
MAX_STARTS = 40  # of one run; more would mean that it does not get on
# More often a worker, of whose death a driver must make nothing.
VICTIMS = ("worker", "worker", "worker", "worker", "driver", "everything")
TITLES = {"training worker": TRAINING_WORKER, "actor": COMPUTING_ACTOR}


def plan(seed: int) -> Iterator[tuple[float, str]]:
    """Pauses in seconds and victims, without an end: the same for the same seed."""
    draw = Random(seed)
    while True:
        yield draw.uniform(*PAUSES_S), draw.choice(VICTIMS)


@dataclass
class Tally:
    """What one run lived through.

    Attributes:
        kills: by victim.
        codes: of its starts, in order.
    """

    kills: Counter[str] = field(default_factory=Counter)
    codes: list[int] = field(default_factory=list)
    units_twice: int = 0
    epochs_twice: int = 0
    same_bytes: bool = False
    samples_missing: int = 0


def kill(victim: str, driver: Driver) -> str:
    """Kills a victim; who it was in the end, nobody where the run ended before."""
    while victim == "worker" and driver.process.poll() is None:
        for name, title in TITLES.items():
            found = driver.find(title)
            if found is not None:
                with contextlib.suppress(psutil.Error):
                    found.kill()
                    return name
        time.sleep(POLL_S)
    if driver.process.poll() is not None:
        return ""
    if victim == "everything":
        for process in driver.living():
            with contextlib.suppress(psutil.Error):
                process.kill()
    driver.kill()
    return victim


def soak(place: Place, bench: Bench, seed: int, most: int, logs: Path) -> Tally:
    """Does a run to its end, with at most so many kills on the way."""
    tally, plans, looks = Tally(), plan(seed), list[Published]()
    with contextlib.ExitStack() as drivers:  # what a dead driver left may still be at work during the next start
        while not tally.codes or tally.codes[-1] not in (0, 3):
            if len(tally.codes) == MAX_STARTS:
                raise SystemExit(f"seed {seed}: {MAX_STARTS} starts did not complete the run: {tally.codes}")
            number = len(tally.codes)
            driver = drivers.enter_context(started(place.command(), place.env, logs / f"{number:02d}"))
            while driver.process.poll() is None:
                pause_s, victim = next(plans)
                due_s = time.monotonic() + pause_s
                while driver.process.poll() is None and time.monotonic() < due_s:
                    time.sleep(POLL_S)
                if tally.kills.total() < most and (killed := kill(victim, driver)):
                    tally.kills[killed] += 1
                    looks.append(place.published())
            tally.codes.append(driver.process.returncode)
    looks.append(place.published())
    again = dict.fromkeys(published_again(looks), ())
    tally.units_twice = len(matching(again, UNITS))
    tally.epochs_twice = len(epochs_of(set(matching(again, [EPOCHS]))))
    tally.same_bytes = place.table() == bench.reference.table()
    tally.samples_missing = place.samples_missing()
    return tally


def summary(seed: int, tallies: Sequence[Tally], seconds: float) -> dict[str, object]:
    """The JSON line."""
    kills: Counter[str] = sum((each.kills for each in tallies), Counter())
    codes = Counter(code for each in tallies for code in each.codes)
    return {
        "seed": seed,
        "runs": len(tallies),
        "kills": kills.total(),
        "by_victim": dict(sorted(kills.items())),
        "starts": codes.total(),
        "codes": {str(code): count for code, count in sorted(codes.items())},
        "units_twice": sum(each.units_twice for each in tallies),
        "epochs_twice": sum(each.epochs_twice for each in tallies),
        "tables_that_differ": sum(not each.same_bytes for each in tallies),
        "samples_missing": sum(each.samples_missing for each in tallies),
        "seconds": round(seconds),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Kill tiny runs at random and compare what they end with.")
    parser.add_argument("--kills", type=int, default=50, help="do runs until so many kills were done (50)")
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the next has the next one (0)")
    parser.add_argument("--work", type=Path, help="a folder to work in and keep (a temporary one)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="rc-", dir="/tmp", ignore_cleanup_errors=True) as temporary:
        bench = Bench(options.work or Path(temporary))
        began_s, tallies, done = time.monotonic(), list[Tally](), 0
        while done < options.kills:
            seed = options.seed + len(tallies)
            place, logs = bench.fresh(f"soak{seed}"), bench.folder / "logs" / f"soak{seed}"
            shutil.rmtree(logs, ignore_errors=True)
            tallies.append(soak(place, bench, seed, min(MAX_KILLS, options.kills - done), logs))
            done += tallies[-1].kills.total()
        line = summary(options.seed, tallies, time.monotonic() - began_s)
        print(json.dumps(line))
        if line["tables_that_differ"] or line["samples_missing"]:
            raise SystemExit(1)


if __name__ == "__main__":
    main()

"""Whether two revisions of the code make the same tables of the same data and weights, byte by byte.

    .venv/bin/python tools/bench/same_bytes.py 72a765c . --folder /var/tmp/same
    .venv/bin/python tools/bench/same_bytes.py 72a765c HEAD --cases digits clips --set run.keep=all
    .venv/bin/python tools/bench/same_bytes.py 72a765c . --executor inline

A revision is whatever git calls a commit; `.` is the working tree. Each case of `same_bytes_cases.py` is done by
`rayclean run` of each revision, with the environment that runs this file; what is compared, and what is left out, says
`same_bytes_compare.py`. In the folder stay the shards, the weights that all revisions score with (trained once, by the
first revision that needs them), and the tables: those of a commit are not made again, those of the working tree are.
Ends with exit code 1 where a table differs, 2 where a run gave none.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tools.bench.same_bytes_cases import CASES, DATA, Case, training
from tools.bench.same_bytes_compare import compare
from tools.bench.same_bytes_runs import ROOT, Revision, RunFailed, checked_out, make_table, train

MAX_SHOWN = 30
NAMED = 8  # hexadecimal digits of a digest in a name


class Kept:
    """The folder in which shards, weights and tables stay.

    Args:
        folder: an existing one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    def data(self, case: Case) -> Path:
        """The shards of a case, written where they are missing."""
        place = self.folder / "data" / case.data
        if not place.exists():
            unfinished = place.with_name(f"{place.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            DATA[case.data](unfinished)
            unfinished.rename(place)
        return place

    def weights(self, case: Case, revision: Revision) -> Path | None:
        """What a case is scored with, trained by this revision where it is missing; None where a case trains."""
        if case.trains:
            return None
        config = training(self.data(CASES["digits"]))
        place = self.folder / "weights" / "digits.safetensors"
        if not place.exists():
            note(f"weights: trained with {revision.name}")
            train(revision, config, place)
        return place

    def table(self, case: Case, revision: Revision, weights: Path | None, overrides: Sequence[str]) -> Path:
        """The folder with a revision's `labels/` and `tables/` of a case, made where it is missing.

        Its name has a digest of what the table is made of, so that no table of another case is taken for it.
        """
        data = self.data(case)
        config = case.config(data, weights)
        inputs = [*sorted(data.iterdir()), *([] if weights is None else [weights])]
        made_of = [digest_of(path.read_bytes()) for path in inputs]
        made_of += [json.dumps(case.config(Path("data"), weights and Path("weights"))), case.where]
        mark = digest_of("\n".join(made_of).encode())
        changed = f"+{digest_of(json.dumps(list(overrides)).encode())}" if overrides else ""
        made_by = revision.commit or f"tree-{digest_of(str(revision.tree.resolve()).encode())}"
        place = self.folder / "tables" / f"{case.name}-{mark}" / f"{made_by}{changed}"
        if revision.commit is None:
            shutil.rmtree(place, ignore_errors=True)
        if not place.exists():
            begun_s = time.monotonic()
            place.parent.mkdir(parents=True, exist_ok=True)
            make_table(revision, config, case.where, overrides, place)
            note(f"{case.name}: a table with {revision.name} in {time.monotonic() - begun_s:.0f} s")
        return place


def digest_of(data: bytes) -> str:
    """Of bytes, short enough for a name."""
    return hashlib.sha256(data).hexdigest()[:NAMED]


def note(text: str) -> None:
    """Says what is done meanwhile."""
    print(text, file=sys.stderr, flush=True)


def report(name: str, a: Path, b: Path) -> bool:
    """Prints what two tables of a case differ in, and returns whether they are equal."""
    found = compare(a, b)
    if not found.differences:
        print(f"{name}: equal ({found.files} files, all bytes of {found.same_files})", flush=True)
        return True
    print(f"{name}: {len(found.differences)} difference(s)")
    for line in found.differences[:MAX_SHOWN]:
        print(f"  {line}")
    if len(found.differences) > MAX_SHOWN:
        print(f"  and {len(found.differences) - MAX_SHOWN} more")
    sys.stdout.flush()
    return False


def run_cases(kept: Kept, cases: Sequence[Case], a: Revision, b: Revision, overrides: Sequence[str]) -> int:
    """Does the cases one after the other and returns the exit code."""
    codes = []
    for case in cases:
        try:
            weights = kept.weights(case, a)
            tables = [kept.table(case, a, weights, ()), kept.table(case, b, weights, overrides)]
        except RunFailed as e:
            print(f"{case.name}: no table\n  {'  '.join(str(e).splitlines(keepends=True))}", flush=True)
            codes.append(2)
        else:
            codes.append(int(not report(case.name, *tables)))
    return max(codes)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Make the tables of the same weights with two revisions of the code, and compare them."
    )
    parser.add_argument("a", metavar="REVISION_A", help="a commit, a branch, or . for the working tree")
    parser.add_argument("b", metavar="REVISION_B", help="likewise; overrides are for this one")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="(all)")
    parser.add_argument("--folder", type=Path, help="where shards, weights and tables stay (one that is removed)")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="config of REVISION_B alone")
    parser.add_argument("--executor", metavar="NAME", help="short for --set run.executor=NAME")
    parser.add_argument("--repository", type=Path, default=ROOT, help="whose revisions (this one)")
    options = parser.parse_args(arguments)
    overrides = [*options.set, *([f"run.executor={options.executor}"] if options.executor else [])]
    with contextlib.ExitStack() as stack:
        if options.folder is None:
            options.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        options.folder.mkdir(parents=True, exist_ok=True)
        a, b = (stack.enter_context(checked_out(name, options.repository)) for name in (options.a, options.b))
        return run_cases(Kept(options.folder), [CASES[name] for name in options.cases], a, b, overrides)


if __name__ == "__main__":
    sys.exit(main())

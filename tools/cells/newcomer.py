"""What a newcomer meets: the README's commands with their times and output, and mistakes with what is said of them.

    python tools/cells/newcomer.py FOLDER --rayclean VENV/bin/rayclean --out docs/results/newcomer.md

The folder is made anew; the program is the one that a wheel has installed. Times are seconds by the wall clock.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 1200
HOW = """A fresh environment and a folder of its own, by

    python3 -m venv VENV; VENV/bin/pip install '.[lite]'    # or the wheel of `make wheel`: the same
    python tools/cells/newcomer.py FOLDER --rayclean VENV/bin/rayclean --out docs/results/newcomer.md

Two cores, no GPU. Seconds are by the wall clock, on a machine that others use too."""
LOOKED_AT = """## Looked at

The terminal (bars for each stage at work, side by side; lines where there is none), report and review of the demo at
1,400 and 400 pixels, light and dark, by

    python tools/cells/page_picture.py RUN/report/index.html report.png --size 1400x900 --dark

Text is readable in all eight (browser tests measure the contrast); at 400 x 800 the review page shows the picture, both
labels and all buttons. What is cut there is the command that takes decisions in (whole in its title)."""
MAX_LINES = 14  # of an output that the page shows


@dataclass(frozen=True)
class Ended:
    """A command that has ended.

    Attributes:
        output: stdout, then stderr, as they came.
    """

    command: str
    code: int
    seconds: float
    output: str


@dataclass(frozen=True)
class Mistake:
    """Something that people do.

    Attributes:
        what: in words.
        command: after `rayclean`; {run} is a finished run, {config} its config.
        code: the exit code that is right for it.
        before: makes what it needs in the folder.
    """

    what: str
    command: str
    code: int = 2
    before: Callable[[Path], None] | None = None


def _other_config(name: str, text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(text)

    return write


def _compressed(folder: Path) -> None:
    (folder / "zipped").mkdir()
    with tarfile.open(folder / "zipped/0.tar.gz", "w:gz") as tar:
        tar.add(folder / "digits.yaml", "a.txt")


def _from_one(folder: Path) -> None:
    """Labels 1 to 10, in text members."""
    (folder / "one").mkdir()
    for shard in sorted((folder / "demo/digits").glob("*.tar")):
        with tarfile.open(shard) as source, tarfile.open(folder / "one" / shard.name, "w") as target:
            for member in source:
                content = source.extractfile(member)
                if content is None:
                    continue
                data = content.read()
                if member.name.endswith(".json"):
                    data = str(json.loads(data)["label"] + 1).encode()
                    member.name, member.size = member.name.replace(".json", ".cls"), len(data)
                target.addfile(member, io.BytesIO(data))


def _pictures(folder: Path) -> None:
    (folder / "pictures/cat").mkdir(parents=True)
    (folder / "pictures/cat/0.png").write_bytes(b"\x89PNG")


def _full(folder: Path) -> None:
    (folder / "full").mkdir()
    (folder / "full/mine.txt").write_text("of another tool")


CONFIG = """run: {dir: runs/other}
data: {shards: "demo/digits/*.tar", label: "json:label", classes: 10}
model: {name: lite, frozen: true}
"""
MISTAKES = [
    Mistake("a config that is not there", "run nothing.yaml"),
    Mistake("a field that there is none of", "run {config} train.epoch=5"),
    Mistake("a word for a number", "run {config} train.epochs=ten"),
    Mistake("a section twice", "run twice.yaml", before=_other_config("twice.yaml", CONFIG + "run: {dir: runs/b}\n")),
    Mistake("a pattern that matches nothing", "run {config} 'data.shards=nowhere/*.tar'"),
    Mistake("a folder for a pattern", "run {config} data.shards=demo/digits"),
    Mistake(
        "pictures in folders for shards", "run {config} run.dir=runs/b 'data.shards=pictures/*/*.png'", before=_pictures
    ),
    Mistake("a compressed shard", "run {config} 'data.shards=zipped/*.tar.gz'", before=_compressed),
    Mistake("a label field that is not there", "run {config} run.dir=runs/c data.label=json:class"),
    Mistake("too few classes", "run {config} run.dir=runs/d data.classes=5 --until catalog", code=3),
    Mistake(
        "labels from 1 on",
        "run {config} run.dir=runs/e 'data.shards=one/*.tar' data.label=cls --until catalog",
        code=3,
        before=_from_one,
    ),
    Mistake("YAML's no for a name", "run {config} 'data.classes=[de, no]'"),
    Mistake("a stage that there is none of", "run {config} --until scores"),
    Mistake("a score that is misspelt", "run {config} 'scores=[losss]'"),
    Mistake("a network that there is none of", "run {config} model.name=resnet51"),
    Mistake("credentials in a URL", "run {config} data.shards=s3://me:secret@bucket/0.tar"),
    Mistake("a verified file that is not there", "run {config} merge.verified=checked.csv"),
    Mistake("a report of what is no run", "report demo"),
    Mistake("a run that is not there", "status runs/nothing"),
    Mistake("a key that is not there", "show {run} 00135"),
    Mistake("a kind of export that there is none of", "export {run} --to coco --out clean"),
    Mistake("an export into a folder with other things", "export {run} --to csv --out full", before=_full),
    Mistake("a method that there is none of", "learn {run} --method mixmatch"),
    Mistake("training without test samples' shards", "learn {run} --method retrain 'learn.test=nowhere/*.tar'"),
]


def main() -> None:
    """Does all of it, one after the other, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder to work in, which is made anew")
    parser.add_argument("--rayclean", type=Path, required=True, help="the installed program")
    parser.add_argument("--out", type=Path, help="the page; without it, to stdout")
    given = parser.parse_args()
    shutil.rmtree(given.folder, ignore_errors=True)
    (given.folder / "configs").mkdir(parents=True)
    shutil.copy(ROOT / "configs/digits_features.yaml", given.folder / "configs")
    shutil.copy(ROOT / "configs/digits_features.yaml", given.folder / "digits.yaml")
    program, folder = given.rayclean.absolute(), given.folder.absolute()
    python = program.parent / "python"
    digits = ended(f"{python} {ROOT}/tools/data/make_digits.py demo/digits --moved 0.3", folder)
    run = "demo/features"
    said = [ended(f"{program} {command}", folder) for command in walk(run)]
    found = []
    for mistake in MISTAKES:
        if mistake.before is not None:
            mistake.before(folder)
        command = mistake.command.format(run=run, config="digits.yaml")
        found.append((mistake, ended(f"{program} {command}", folder)))
    names = {str(program): "rayclean", str(python): "python", f"{ROOT}/": "", f"{folder}/": ""}
    text = page([digits, *said], found, names)
    if given.out is None:
        sys.stdout.write(text)
    else:
        given.out.write_text(text)


def walk(run: str) -> list[str]:
    """The README's commands, on the digits."""
    shards = "'demo/digits/*.tar'"
    return [
        "--version",
        "run configs/digits_features.yaml",
        "run configs/digits_features.yaml",
        f"evaluate {run}",
        f"status {run}",
        f"show {run} 000135",
        f"report {run}",
        f"init mine.yaml --shards {shards} --label json:label --network frozen --model lite --yes",
        "doctor mine.yaml",
        "plan mine.yaml",
        f"export {run} --to shards --out clean",
        f"learn {run} --method retrain learn.test={shards} learn.test_label=json:truth",
        f"gc {run} --dry-run",
    ]


def ended(command: str, folder: Path) -> Ended:
    """Runs a command in a folder to its end."""
    started_s = time.monotonic()
    done = subprocess.run(
        command, shell=True, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S
    )
    return Ended(command, done.returncode, time.monotonic() - started_s, done.stdout)


def page(said: list[Ended], found: list[tuple[Mistake, Ended]], names: dict[str, str]) -> str:
    """The page, with paths of this machine taken out."""

    def plain(text: str) -> str:
        for path, name in names.items():
            text = text.replace(path, name)
        return re.sub(r"[ \t]+\n", "\n", text)

    lines = ["# A newcomer's first hour", "", HOW, "", "## The README's commands", ""]
    for each in said:
        output = plain(each.output).splitlines()
        cut = [*output[:MAX_LINES], f"... {len(output) - MAX_LINES} more lines"] if len(output) > MAX_LINES else output
        lines += [f"`{plain(each.command)}`: exit code {each.code}, {each.seconds:.1f} s", "", "```", *cut, "```", ""]
    right = sum(mistake.code == end.code and "Traceback" not in end.output for mistake, end in found)
    lines += ["## Mistakes", "", f"{right} of {len(found)} end as they should, without a traceback.", ""]
    lines += ["| mistake | command | exit code | s | what is said |", "|---|---|--:|--:|---|"]
    for mistake, end in found:
        last = " / ".join(_told(plain(end.output).strip().splitlines())).replace("|", "\\|")
        code = f"{end.code}" if end.code == mistake.code else f"**{end.code}**, not {mistake.code}"
        command = plain(end.command).replace("|", "\\|")
        lines.append(f"| {mistake.what} | `{command}` | {code} | {end.seconds:.1f} | {last} |")
    return "\n".join([*lines, "", LOOKED_AT]) + "\n"


def _told(lines: list[str]) -> list[str]:
    """The error, or the last three lines where there is none."""
    errors = [line for line in lines if line.startswith("rayclean: ")]
    return [line.strip() for line in errors or lines[-3:]]


if __name__ == "__main__":
    main()

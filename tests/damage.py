"""Files of a finished run by kind, and what can happen to one of them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from rayclean.run.grow import STAGES

DAMAGES = ("flipped", "half", "empty", "missing")
# In a folder of several steps, what each makes; files of a step are read by the next ones.
STEPS = {
    "catalog": ("sources", "plan", "rows quarantine truth left_out", "columns shards summary"),
    "neighbors": ("quantizer", "parts", "probes", "same any"),
    "influence": ("solved solver", "raw", "fit"),
    "simulate": ("simulated", "rows"),
    "merge": ("model verified", "part-N classes-part-N"),
}


def _step(kind: str) -> int:
    """Which step of its folder makes a kind; the last one where that has one step."""
    folder, _, name = kind.partition("/")
    steps = STEPS.get(folder.partition("-")[0], ())
    of_name = name.partition("/")[0].partition(".")[0]
    return next((i for i, names in enumerate(steps) if of_name in names.split()), len(steps))


def kinds(run: Path) -> dict[str, list[Path]]:
    """All files of a run by their kind: the path with fingerprints and numbers left out."""
    found: dict[str, list[Path]] = {}
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        name = re.sub(r"[0-9a-f]{8}(?=[-/.])", "H", str(path.relative_to(run)))
        found.setdefault(re.sub(r"[0-9]{4,}", "N", name), []).append(path)
    return found


def stage_of(kind: str) -> str:
    """The stage that makes files of a kind; what belongs to none is made at the start."""
    stage = kind.partition("/")[0].partition("-")[0]
    return stage if stage in STAGES else STAGES[0]


def copy_until_read(run: Path, kind: str, to: Path) -> None:
    """A copy of a finished run in which what reads files of a kind is left to do, and so has to read them."""
    first = STAGES.index(stage_of(kind))
    shutil.copytree(run, to)
    own = kind.partition("/")[0]
    for folder in to.iterdir():
        name = re.sub(r"[0-9a-f]{8}", "H", folder.name)
        later = folder.is_dir() and STAGES.index(stage_of(f"{name}/")) > first
        if folder.is_dir() and name != own and (later or name in ("labels", "tables")) and not kind.startswith(name):
            shutil.rmtree(folder)
    for other, paths in kinds(to).items():
        if other.partition("/")[0] == own and _step(kind) < _step(other) < len(STEPS.get(own.partition("-")[0], ())):
            for path in paths:
                path.unlink()


def damage(path: Path, how: str) -> None:
    """Does one of `DAMAGES` to a file; or `turned`: the values of its last half in the opposite order."""
    data = path.read_bytes()
    if how == "turned":
        words = [data[i : i + 8] for i in range(len(data) // 16 * 8, len(data) - 7, 8)]
        path.write_bytes(data[: len(data) // 16 * 8] + b"".join(words[::-1]) + data[len(data) // 8 * 8 :])
    elif how == "missing":
        path.unlink()
    elif how == "flipped":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :])
    else:
        path.write_bytes(data[: len(data) // 2] if how == "half" else b"")

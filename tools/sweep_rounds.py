"""What paths to the last snapshot give for their forwards: L and H, all rows alike or in rounds.

    RAYCLEAN_CIFAR10N=... .venv/bin/python tools/sweep_rounds.py human asymmetric symmetric
    .venv/bin/python tools/sweep_rounds.py --table         # Markdown from what is there

Each setting is one more start of a cell that `tools/run_cells.py` has finished, of one network, with IOFM and INN at
the last snapshot and the joint model of both. A rerun goes on with the settings that are missing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rayclean.storage.store import Store
from tools.joint_figures import joint_figures
from tools.run_cells import Cell, evaluated, read_costs
from tools.sweep_paths import ONE_PART, studies

RESULTS = Path("docs/results/rounds")
FIRST_START = 500  # starts of other studies have smaller numbers


@dataclass(frozen=True)
class Setting:
    """Of both walks.

    Attributes:
        num: L; 0 for no paths at all.
        steps: H.
        rounds: where rows that are decided stop; none: nowhere.
    """

    num: int
    steps: int = 2
    rounds: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        """Its name in the results."""
        if not self.num:
            return "no paths"
        ends = f" in rounds {', '.join(map(str, self.rounds))}" if self.rounds else ""
        return f"L={self.num} H={self.steps}{ends}"

    def changes(self, start: int) -> list[str]:
        """Fields to replace."""
        if not self.num:
            return ["scores=[loss]"]
        both = {"num": self.num, "steps": self.steps, "rounds": list(self.rounds)}
        fields = [f"{walk}.{name}={value}" for walk in ("iofm", "inn") for name, value in both.items()]
        return ["scores=[iofm_last, inn]", "inn.features=self", *fields, f"blocks.index_rows={ONE_PART + start}"]


SETTINGS = (
    Setting(10, 3),
    Setting(10),
    Setting(4),
    Setting(2),
    Setting(0),
    Setting(10, rounds=(2, 4, 10)),
    Setting(10, rounds=(1, 10)),
    Setting(6),
    Setting(1),
    Setting(10, rounds=(1, 4, 10)),
)


def study(name: str, cell: Cell, folder: Path, file: Path) -> None:
    """Measures the settings that a cell's file does not have yet; the file is written after each."""
    found: dict[str, Any] = {"cell": name, "changes": cell.changes, "settings": {}}
    if file.exists():
        found = json.loads(file.read_text())
    file.parent.mkdir(parents=True, exist_ok=True)
    for index, setting in enumerate(SETTINGS):
        if setting.key not in found["settings"]:
            found["settings"][setting.key] = measure(cell, folder, setting, FIRST_START + index)
            file.write_text(json.dumps(found, indent=1) + "\n")


def measure(cell: Cell, folder: Path, setting: Setting, start: int) -> dict[str, Any]:
    """Starts the run with a setting; returns its AUROC and the forwards of paths a sample and walk."""
    store = Store(str(folder))
    before = read_costs(store)["paths"]["forwards"]
    result = evaluated(cell, folder, [f"run.dir={folder}", *cell.changes, *setting.changes(start)])
    forwards = read_costs(store)["paths"]["forwards"] - before
    joint = joint_figures(folder)
    walks = [name for name in ("iofm_last", "inn") if name in result["scores"]]
    return {
        **asdict(setting),
        "forwards": forwards / result["rows"] / max(len(walks), 1),
        **{name: result["scores"][name]["final"] for name in walks},
        "joint": joint["auroc"],
        "ece": joint["ece"],
        "predicted_right": joint["predicted_right"],
    }


def table(found: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown: a row a setting; of each cell the forwards, and the AUROC of both scores and of the joint model."""
    head = " | ".join(f"{each['cell']}: forwards | iofm_last | inn | joint" for each in found)
    lines = [f"| setting | {head} |", "|---" * (1 + 4 * len(found)) + "|"]
    for setting in SETTINGS:
        columns = []
        for each in found:
            measured = each["settings"].get(setting.key)
            columns.append("| | | " if measured is None else _columns(measured))
        lines.append(f"| {setting.key} | {' | '.join(columns)} |")
    return lines


def _columns(measured: dict[str, Any]) -> str:
    areas = (measured.get(name) for name in ("iofm_last", "inn", "joint"))
    shown = ["" if area is None else f"{area:.4f}".removeprefix("0") for area in areas]
    return " | ".join([f"{measured['forwards']:.1f}", *shown])


def main(arguments: Sequence[str] | None = None) -> None:
    found = studies(arguments, "Measure paths at the last snapshot on cells of the benchmark.", RESULTS, study)
    if found:
        print("\n".join(table(found)))


if __name__ == "__main__":
    main()

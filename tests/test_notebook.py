"""docs/notebook.ipynb: its cells run in order as printed, what they say holds, and its outputs are of these cells."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"
BETWEEN = "--- next cell ---"
FACTS = """
import json
print(json.dumps({
    "found": found, "joint": joint, "curves": {name: [area for _, area in points] for name, points in curves.items()},
    "flagged": int(flagged.sum()), "flagged_wrong": int((flagged & wrong).sum()),
    "given_right": float(np.mean(labels == truth)), "predicted_right": float(np.mean(predicted == truth)),
    "worst_wrong": wrong[[row["row"] for row in worst.to_pylist()]].tolist(),
}))
"""


def _cells() -> list[dict[str, Any]]:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells: list[dict[str, Any]] = notebook["cells"]
    return cells


def _code() -> list[dict[str, Any]]:
    return [cell for cell in _cells() if cell["cell_type"] == "code"]


def _stored(cell: dict[str, Any]) -> str:
    return "".join("".join(each["text"]) for each in cell["outputs"] if each["output_type"] == "stream")


def _without_numbers(text: str) -> str:
    """What does not differ from machine to machine; a number's width may, so runs of spaces are one."""
    return re.sub(r" +", " ", re.sub(r"\d+(\.\d+)?", "#", text))


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What each cell prints when all are run in order, in an empty folder, and last the facts as JSON."""
    script = f"\nprint({BETWEEN!r})\n".join(["".join(cell["source"]) for cell in _code()] + [FACTS])
    folder = tmp_path_factory.mktemp("notebook")
    # Threads that wait for each other crawl on a busy machine; without a screen matplotlib draws into memory.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONPATH": str(NOTEBOOK.parents[1])}
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=500, env=environment, cwd=folder
    )
    assert ended.returncode == 0, ended.stderr
    assert not list(folder.iterdir()), "the notebook leaves files behind"
    return ended.stdout.split(f"{BETWEEN}\n")


def test_what_it_says_of_the_scores_holds(printed: list[str]) -> None:
    facts = json.loads(printed[-1])
    found, curves = facts["found"], facts["curves"]
    assert min(found["ens_loss"], found["aum"], found["iofm"], facts["joint"]) > 0.95
    assert max(found["loss"], found["vote"]) < min(found["ens_loss"], found["aum"], found["iofm"])
    assert max(curves["loss"]) > 0.93
    assert curves["loss"][-1] < max(curves["loss"]) - 0.05
    for name in ("ens_loss", "iofm"):
        assert curves[name][-1] > max(curves[name]) - 0.03
    assert len(curves["loss"]) == 30
    assert len(curves["iofm"]) == 6
    assert facts["flagged_wrong"] > 0.85 * facts["flagged"] > 0
    assert facts["predicted_right"] > facts["given_right"] + 0.05
    assert sum(facts["worst_wrong"]) >= 11
    assert len(facts["worst_wrong"]) == 12


def test_the_stored_outputs_are_those_of_the_cells(printed: list[str]) -> None:
    """Numbers aside, which another machine moves a little."""
    for cell, now in zip(_code(), printed[:-1], strict=True):
        assert _without_numbers(_stored(cell)) == _without_numbers(now), cell["id"]


def test_it_is_a_whole_notebook() -> None:
    """As nbformat 4.5 wants it: unique ids, cells counted in order, no errors; and no path of whoever ran it."""
    text = NOTEBOOK.read_text(encoding="utf-8")
    notebook = json.loads(text)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", each) for each in ids)
    assert [cell["execution_count"] for cell in _code()] == list(range(1, len(_code()) + 1))
    for cell in _cells():
        expected = {"cell_type", "id", "metadata", "source"}
        assert set(cell) == (expected | {"outputs", "execution_count"} if cell["cell_type"] == "code" else expected)
        assert isinstance(cell["source"], list)
    outputs = [output for cell in _code() for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "display_data"}
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert not re.search(r"/(home|tmp|root|Users|work)/", text)
    assert len(text) < 200_000


def test_files_that_it_names_are_there() -> None:
    text = "".join("".join(cell["source"]) for cell in _cells() if cell["cell_type"] == "markdown")
    named = set(re.findall(r"`(docs/[a-z_./]*)`", text))
    assert named
    assert [name for name in named if not (NOTEBOOK.parents[1] / name).exists()] == []

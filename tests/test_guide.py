"""What the guide prints works as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

GUIDE = (Path(__file__).parents[1] / "docs" / "guide.md").read_text(encoding="utf-8")


def test_the_script_for_a_notebook_finds_the_wrong_labels() -> None:
    script = next(block for block in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL) if "LabelScorer" in block)
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads that wait for each other crawl on a busy machine
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=900, env=one_thread)
    assert ended.returncode == 0, ended.stderr
    lines = [line.split() for line in ended.stdout.splitlines()]
    found = {name: float(value) for name, value in lines[:4]}
    assert list(found) == ["loss", "ens_loss", "aum", "iofm"]
    assert min(found["ens_loss"], found["iofm"]) > 0.95
    assert len(lines) == 9
    assert all(given != predicted for _, given, predicted, _ in lines[4:])


def test_the_readme_stays_a_page() -> None:
    assert len((Path(__file__).parents[1] / "README.md").read_bytes()) <= 7000

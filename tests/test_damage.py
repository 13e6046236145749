"""No damaged file of a run changes its table: it is made again, or the run says which file and ends."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rayclean.config import Config
from rayclean.errors import RaycleanError
from rayclean.merge.published import Published
from rayclean.run import Run
from rayclean.storage.store import Store
from tests import damage
from tests.test_garbage import EVERYTHING

MORE = ("neighbors.ivf_rows=1", "neighbors.recall_target=1", "iofm.rounds=[]", "inn.features=self")
FEWER = ("train.roles={}", "scores=[loss, aum, iofm, inn, vote, osm, osd, odd]")


def table(run: Path) -> dict[str, bytes]:
    """The bytes of the published table by the kinds and numbers of its files."""
    published = Published.open(Store(str(run)))
    return {file.path: (run / file.path).read_bytes() for file in published.files}


@pytest.fixture(scope="module")
def whole(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run of all families with one network, IVF lists, verified rows and noise. Only to be read."""
    folder = tmp_path_factory.mktemp("damage") / "run"
    started_s = time.monotonic()
    finish(tiny_config(folder, *EVERYTHING, *MORE, *FEWER))
    print(time.monotonic() - started_s, file=sys.stderr)
    return folder


@pytest.mark.parametrize("how", damage.DAMAGES)
def test_the_table_is_the_unbroken_runs_or_there_is_none(
    how: str, whole: Path, tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    expected = table(whole)
    found: dict[str, str] = {}
    for kind, paths in damage.kinds(whole).items():
        started_s = time.monotonic()
        copy = tmp_path / "run"
        shutil.rmtree(copy, ignore_errors=True)
        damage.copy_until_read(whole, kind, copy)
        damage.damage(copy / paths[-1].relative_to(whole), how)
        try:
            finish(tiny_config(copy, *EVERYTHING, *MORE, *FEWER))
            found[kind] = "same" if table(copy) == expected else "ANOTHER"
        except RaycleanError as e:
            found[kind] = f"said: {e}"
        except Exception as e:
            found[kind] = f"TRACEBACK {e!r}"
        print(how, kind, found[kind][:200], round(time.monotonic() - started_s, 2), file=sys.stderr)
    assert {kind: outcome for kind, outcome in found.items() if outcome != "same"} == {}

"""What is said before anything starts: nothing of the run's folder is made then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rayclean.config import parse_config
from rayclean.errors import ConfigError, InputError, RaycleanError
from rayclean.run.before import look_before
from rayclean.run.pipeline import run
from tests.helpers import png_bytes, sample, tar_bytes, write_tar


def tree(folder: Path, **sections: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"run": {"dir": f"{folder}/run"}, "data": {"shards": f"{folder}/*.tar", "classes": 3}}
    for name, section in sections.items():
        base[name] = {**base.get(name, {}), **section} if isinstance(section, dict) else section
    return base


def pictures(folder: Path) -> None:
    (folder / "0.tar").write_bytes(png_bytes() + bytes(512))


def a_list(folder: Path) -> None:
    (folder / "checked.csv").write_text("name,label\na,1\n")


@pytest.mark.parametrize(
    ("before", "sections", "kind", "text"),
    [
        (pictures, {}, InputError, r"0\.tar: .*tar"),
        (None, {"model": {"name": "resnet51"}}, ConfigError, "unknown name 'resnet51'; did you mean 'resnet50'"),
        (None, {"merge": {"verified": "nowhere.csv"}}, ConfigError, "merge.verified nowhere.csv: cannot be read"),
        (a_list, {"merge": {"verified": "{folder}/checked.csv"}}, ConfigError, "checked.csv.*key"),
    ],
)
def test_it_is_said_before_ray_and_before_the_folder(
    before: Any, sections: dict[str, Any], kind: type[RaycleanError], text: str, tmp_path: Path
) -> None:
    write_tar(tmp_path / "0.tar", sample("k", 1, 1))
    if before is not None:
        before(tmp_path)
    if (path := sections.get("merge", {}).get("verified")) is not None:
        sections = {"merge": {"verified": path.format(folder=tmp_path)}}
    with pytest.raises(kind, match=text):
        run(parse_config(tree(tmp_path, **sections), "test"), None, Console(quiet=True))
    assert not (tmp_path / "run").exists()


def test_a_shard_that_is_cut_or_empty_passes(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(tar_bytes(sample("k", 1, 1))[:700])
    (tmp_path / "1.tar").write_bytes(tar_bytes([]))
    assert look_before(parse_config(tree(tmp_path), "test")).num_rows == 2

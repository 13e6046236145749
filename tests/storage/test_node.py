"""What a node's processes share lies in a folder that only their user can have made."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from rayclean.storage.node import node_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


def test_a_folder_of_the_users_own(temporary: Path) -> None:
    folder = node_folder("images")
    assert folder == node_folder("images") == temporary / f"rayclean-{os.getuid()}" / "images"
    assert folder.parent.stat().st_mode & 0o777 == 0o700


def test_one_that_somebody_else_has_made_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: other)  # the folder that is made is still ours
    with pytest.raises(PermissionError, match="not a folder of this user"):
        node_folder("images")


def test_a_link_in_its_place_is_refused(temporary: Path) -> None:
    (temporary / "elsewhere").mkdir()
    (temporary / f"rayclean-{os.getuid()}").symlink_to(temporary / "elsewhere")
    with pytest.raises(PermissionError, match="not a folder of this user"):
        node_folder("images")

"""The study of rounds: settings that load, and the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayclean.config import load_config
from tools.run_cells import CELLS
from tools.sweep_rounds import SETTINGS, Setting, table

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)
def test_a_setting_is_a_config(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYCLEAN_CIFAR10N", "/shards")
    cell = CELLS["human"]
    config = load_config(ROOT / cell.config, [*cell.changes, *setting.changes(7)])
    assert config.role_names() == ("main",)
    if setting.num:
        assert (config.iofm.num, config.inn.steps) == (setting.num, setting.steps)
        assert tuple(config.iofm.rounds) == tuple(config.inn.rounds) == setting.rounds
    else:
        assert not {"iofm", "iofm_last", "inn"} & set(config.score_names())


def test_settings_have_names_of_their_own() -> None:
    assert len({setting.key for setting in SETTINGS}) == len(SETTINGS)


def test_the_table_has_what_is_measured() -> None:
    measured = {"L=10 H=2": {"forwards": 7.46, "iofm_last": 0.9, "inn": 0.95, "joint": 0.96}}
    lines = table([{"cell": "one", "settings": measured}])
    assert lines[0] == "| setting | one: forwards | iofm_last | inn | joint |"
    assert "| L=10 H=2 | 7.5 | .9000 | .9500 | .9600 |" in lines
    assert len(lines) == 2 + len(SETTINGS)

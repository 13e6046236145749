"""Rows drawn with their truth are what `merge.verified` takes in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml

from rayclean.config import Config, dump_config
from rayclean.decisions.verified import VerifiedFile
from rayclean.evaluate.evaluate import read_truth
from rayclean.run.run import Run
from rayclean.run.saved import CONFIG_FILE
from tools.data.verify_some import main


def test_they_have_their_truth(tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", "scores=[loss]")
    run = finish(config)
    Path(run.store.path, CONFIG_FILE).write_text(yaml.safe_dump(dump_config(config)))
    target = tmp_path / "checked.csv"
    main([str(tmp_path / "run"), str(target), "--num", "12"])
    found = VerifiedFile(str(target), "", run.classes.names).find(run.catalog)
    assert len(found.rows) == 12
    np.testing.assert_array_equal(found.labels, read_truth(run.catalog)[found.rows])

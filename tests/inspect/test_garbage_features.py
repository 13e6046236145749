"""`gc` keeps the folder of features that the run's catalog names, and no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rayclean.config import Config, dump_config
from rayclean.errors import InputError
from rayclean.inspect.garbage import collect
from rayclean.run.run import Run
from rayclean.run.saved import CONFIG_FILE, load_run
from rayclean.storage.store import Store
from tests.feature_runs import clusters, feature_config, write_feature_shards

Start = Callable[..., Run]


@pytest.fixture
def begin(finish: Callable[[Config], Run], tmp_path: Path) -> Start:
    """Does a run and saves its config, as a start does: `begin(features="npy")`."""
    shards = write_feature_shards(tmp_path / "shards", clusters())

    def start(**data: object) -> Run:
        run = finish(feature_config(tmp_path / "run", shards, data=data))
        run.store.publish(CONFIG_FILE, yaml.safe_dump(dump_config(run.config)).encode())
        return run

    return start


def features_of(store: Store) -> set[str]:
    return {name for name in store.list("") if name.startswith("features-")}


def test_features_of_an_earlier_config_go_and_those_of_the_last_one_stay(begin: Start) -> None:
    run = begin()
    kept = features_of(run.store)
    assert len(kept) == 1
    run.store.publish("features-deadbeef/0123456789abcdef0123.safetensors", b"of another network")
    run.store.publish("features-deadbeee/mine.npy", b"somebody's")
    run.store.publish("features-mine/0123456789abcdef0123.safetensors", b"somebody's")
    found = collect(load_run(run.store.root), dry_run=False)
    assert set(found.sizes) == {"features-deadbeef"}
    assert found.kept == ()
    assert features_of(run.store) == {*kept, "features-deadbeee", "features-mine"}


def test_features_of_a_catalog_that_noise_is_made_on_stay(finish: Callable[[Config], Run], tmp_path: Path) -> None:
    shards = write_feature_shards(tmp_path / "shards", clusters())
    noise = {"kind": "symmetric", "rate": 0.2}
    run = finish(feature_config(tmp_path / "run", shards, data={"truth": None}, noise=noise))
    run.store.publish(CONFIG_FILE, yaml.safe_dump(dump_config(run.config)).encode())
    assert collect(load_run(run.store.root), dry_run=True).sizes == {}


def test_a_config_of_other_features_than_the_catalog_stops_it(begin: Start) -> None:
    run = begin()
    other = run.config.model_copy(update={"data": run.config.data.model_copy(update={"features": "emb.npy"})})
    run.store.publish(CONFIG_FILE, yaml.safe_dump(dump_config(other)).encode())
    with pytest.raises(InputError, match="are of two starts"):
        collect(load_run(run.store.root), dry_run=False)

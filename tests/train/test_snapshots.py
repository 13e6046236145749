"""Snapshots: the same network comes back, wherever the weights are from; what cannot be loaded says why."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from rayclean.config import parse_config
from rayclean.errors import ConfigError
from rayclean.storage.store import Store
from rayclean.train.snapshots import (
    find_snapshot,
    load_snapshot,
    publish_weights,
    snapshot_name,
)
from rayclean.train.spec import NetworkSpec, network_spec
from rayclean.train.weights import find_weights, load_weights_from, weights_digest

SPEC = NetworkSpec("small_resnet", 3, 2, None, 8, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "run"))


def used_network(seed: int = 1, spec: NetworkSpec = SPEC) -> torch.nn.Module:
    """A network whose BatchNorm has seen data, in the memory layout of training."""
    network = spec.build(seed).to(memory_format=torch.channels_last).train()
    network(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed)))
    return network


def assert_same(one: torch.nn.Module, other: torch.nn.Module) -> None:
    expected = other.state_dict()
    assert one.state_dict().keys() == expected.keys()
    for name, value in one.state_dict().items():
        assert value.dtype == expected[name].dtype
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("bottleneck", [None, 5])
def test_a_snapshot_is_the_network(bottleneck: int | None, store: Store) -> None:
    spec = NetworkSpec("small_resnet", 3, 2, bottleneck, 8, SPEC.mean, SPEC.std)
    network = used_network(spec=spec)
    publish_weights(store, "x.safetensors", network)
    loaded = load_snapshot(store, "x.safetensors", spec)
    assert_same(loaded, network)
    assert not loaded.training
    # In one memory layout: which kernel a CPU takes for which layout is its own matter, down to the last bits.
    images, layout = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last), torch.channels_last
    assert torch.equal(loaded.to(memory_format=layout)(images), network.eval().to(memory_format=layout)(images))


def test_equal_weights_are_equal_bytes_and_other_weights_another_fingerprint(store: Store) -> None:
    marks = []
    for epoch, seed in ((1, 1), (2, 1), (3, 2)):
        publish_weights(store, f"train/{snapshot_name(epoch)}", used_network(seed))
        marks.append(find_snapshot(store, "train", "main", epoch).fingerprint)
    assert marks[0] == marks[1] != marks[2]
    assert all(len(mark) == 8 for mark in marks)


def test_names_sort_by_epoch() -> None:
    assert sorted(snapshot_name(epoch) for epoch in (10, 2, 100)) == [snapshot_name(e) for e in (2, 10, 100)]


def test_loading_may_not_change_the_file_under_it(store: Store) -> None:
    publish_weights(store, "x.safetensors", used_network())
    before = store.read("x.safetensors")
    network = load_snapshot(store, "x.safetensors", SPEC)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert store.read("x.safetensors") == before


@pytest.mark.parametrize("change", [{"num_classes": 4}, {"width": 3}, {"bottleneck": 5}])
def test_weights_of_another_network_are_refused(change: dict[str, Any], store: Store) -> None:
    publish_weights(store, "x.safetensors", used_network())
    other = NetworkSpec(**{**SPEC.__dict__, **change})
    with pytest.raises(ConfigError, match=r"x\.safetensors does not fit the configured network.*model\.\*"):
        load_snapshot(store, "x.safetensors", other)


def checkpoint(folder: Path, content: Any, name: str = "state.pt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / name)
    return folder / name


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 3, "optimizer": {"state": {}}},
        lambda state: {name: torch.nn.Parameter(v) if v.is_floating_point() else v for name, v in state.items()},
    ],
    ids=["state-dict", "checkpoint", "parameters"],
)
def test_torch_files_are_loaded(wrap: Any, tmp_path: Path) -> None:
    network = used_network()
    path = checkpoint(tmp_path, wrap(network.state_dict()), "x.pt")
    loaded = SPEC.build(9)
    load_weights_from(str(path), loaded)
    assert_same(loaded, network)


def test_a_folder_stands_for_its_last_snapshot(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for epoch in (2, 10):
        publish_weights(store, f"train-main-00/{snapshot_name(epoch)}", used_network(epoch))
    for source in (tmp_path, tmp_path / "train-main-00"):
        assert find_weights(str(source)).name == "epoch-0010.safetensors"
        loaded = SPEC.build(9)
        load_weights_from(str(source), loaded)
        assert_same(loaded, used_network(10))


def test_a_checkpoint_folder_stands_for_its_state(tmp_path: Path) -> None:
    checkpoint(tmp_path / "checkpoints" / "epoch-0003", {"model": used_network().state_dict()})
    loaded = SPEC.build(9)
    load_weights_from(str(tmp_path / "checkpoints" / "epoch-0003"), loaded)
    assert_same(loaded, used_network())


def test_a_url_stands_for_what_it_names(tmp_path: Path) -> None:
    store = Store(f"memory://weights-{tmp_path.name}")
    for epoch in (2, 10):
        publish_weights(store, f"train-main-00/{snapshot_name(epoch)}", used_network(epoch))
    for source, epoch in ((store.root, 10), (f"{store.root}/train-main-00/{snapshot_name(2)}", 2)):
        loaded = SPEC.build(9)
        load_weights_from(source, loaded)
        assert_same(loaded, used_network(epoch))
        assert weights_digest(source) == weights_digest(str(find_weights(source)))
    store.publish("empty/x", b"-")
    with pytest.raises(ConfigError, match="expected a run with snapshots, or a checkpoint folder"):
        find_weights(f"{store.root}/empty")
    for missing in (f"{store.root}/nothing", "nosuch://bucket/run"):
        with pytest.raises(ConfigError, match=r"train\.from .*(no such file or folder|cannot be read)"):
            find_weights(missing)


class Evil:
    """Runs when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Evil(mark), protocol=2))
    checkpoint(tmp_path, {"model": Evil(mark)}, "evil.pt")
    for name in ("plain.pkl", "evil.pt"):
        with pytest.raises(ConfigError, match="cannot be loaded with weights only"):
            load_weights_from(str(tmp_path / name), SPEC.build())
    assert not mark.exists()


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"model": 3}, torch.zeros(2)], ids=str)
def test_what_is_no_state_dict_is_refused(content: Any, tmp_path: Path) -> None:
    path = checkpoint(tmp_path, content, "x.pt")
    with pytest.raises(ConfigError, match=r"train\.from .*x\.pt"):
        load_weights_from(str(path), SPEC.build())


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or folder"):
        find_weights(str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="expected a run with snapshots, or a checkpoint folder"):
        find_weights(str(tmp_path))
    (tmp_path / "cut.safetensors").write_bytes(b"\x08")
    with pytest.raises(ConfigError, match=r"cut\.safetensors"):
        load_weights_from(str(tmp_path / "cut.safetensors"), SPEC.build())


def test_a_digest_follows_the_content(tmp_path: Path) -> None:
    one, two = tmp_path / "one.pt", tmp_path / "two.pt"
    one.write_bytes(b"a")
    two.write_bytes(b"a")
    assert weights_digest(str(one)) == weights_digest(str(two))
    two.write_bytes(b"b")
    assert weights_digest(str(one)) != weights_digest(str(two))
    assert (weights_digest(None), weights_digest("DEFAULT")) == (None, "DEFAULT")


def test_a_config_fills_what_it_leaves_open() -> None:
    tree = {"run": {"dir": "x"}, "data": {"shards": "x", "classes": 3}, "model": {"width": 2}}
    spec = network_spec(parse_config(tree), 3)
    assert (spec.size, spec.width, spec.num_classes) == (32, 2, 3)
    tree["data"] = {"shards": "x", "classes": 3, "size": 8, "mean": [0, 0, 0], "std": [1, 1, 1]}
    assert network_spec(parse_config(tree), 3) == NetworkSpec("small_resnet", 3, 2, None, 8, (0, 0, 0), (1, 1, 1))

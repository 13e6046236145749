"""A tiny run that several files share: four shards of 8-pixel images, known wrong labels, an untrained snapshot.

It holds what is awkward: shards of unequal size, copies under the same and under another label, a label of fewer
samples than there are neighbours to find, one of exact copies only, one of a single sample, and a bad sample.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch
import yaml
from hypothesis import settings
from rich.console import Console
from selenium import webdriver
from threadpoolctl import threadpool_limits

from rayclean.catalog.stage import find_sources
from rayclean.config import Config, load_config
from rayclean.run.pipeline import compute, publish
from rayclean.run.run import Run
from rayclean.run.start import ONE_WORKER, start
from rayclean.storage.damage import mended
from rayclean.storage.executor import Executor, Inline
from rayclean.storage.store import Store
from rayclean.train.models import build_model
from rayclean.train.snapshots import publish_weights
from tests.helpers import Content, image_bytes, write_tar

# Fixtures of whole runs, of a browser and of Ray, and modules that start any of them by themselves.
WHOLE = {"finish", "scored", "trained", "chromium", "window", "logical_cpus", "four_cpus", "object_store", "bucket"}
STARTERS = (
    "tests/e2e/",
    "tests/tools/",
    "tests/review/",
    "tests/cluster/test_",
    "tests/learn/test_command",
    "tests/test_notebook",
    "tests/test_packaging",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as `unit` what needs no browser, no Ray and no whole run."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        starts = any(part in item.nodeid for part in STARTERS) or hasattr(getattr(item, "module", None), "ray")
        if not (fixtures & WHOLE or starts or item.get_closest_marker("slow")):
            item.add_marker("unit")


threadpool_limits(1, "blas")  # threads that wait for each other crawl on a busy machine
settings.register_profile("rayclean", deadline=None)  # machines are shared: no test is a timing
settings.load_profile("rayclean")

Sample = list[Content]

NUM_CLASSES = 6
FEW, COPIES, LONELY = 3, 4, 5  # classes of 3 samples, of 3 exact copies, of 1 sample
TRUE_LABELS = [0] * 18 + [1] * 14 + [2] * 10 + [FEW] * 3 + [LONELY]
WRONG_EVERY = 4  # one in so many of the first three classes carries the next one's label
SHARD_SAMPLES = (13, 1, 21)  # the fourth shard has the rest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


def _image(rng: np.random.Generator, label: int) -> bytes:
    """Noise around a colour of the true class."""
    colour = np.random.default_rng(label).integers(0, 256, 3)
    return image_bytes(((rng.integers(0, 256, (8, 8, 3)) + 2 * colour) // 3).astype(np.uint8))


def _sample(key: str, image: bytes, given: int, truth: int) -> Sample:
    members = {"cls": str(given).encode(), "json": json.dumps({"truth": truth}).encode(), "png": image}
    return [(f"{key}.{extension}", content) for extension, content in members.items()]


@pytest.fixture(scope="session")
def tiny_samples() -> list[Sample]:
    """All samples, in the order of the tiny shards."""
    rng = np.random.default_rng(0)
    images = [_image(rng, label) for label in TRUE_LABELS]
    given = [(label + 1) % 3 if label < 3 and i % WRONG_EVERY == 0 else label for i, label in enumerate(TRUE_LABELS)]
    found = [_sample(f"k{i:02d}", *each) for i, each in enumerate(zip(images, given, TRUE_LABELS, strict=True))]
    found += [_sample(f"same{n}", images[1], given[1], 0) for n in range(2)]
    found += [_sample("other", images[1], 2, 0)]
    found += [_sample(f"copy{n}", _image(np.random.default_rng(9), COPIES), COPIES, COPIES) for n in range(3)]
    found += [[("bad.png", images[0])]]  # no label
    return [found[i] for i in rng.permutation(len(found))]


@pytest.fixture(scope="session")
def write_tiny() -> Callable[[Path, Sequence[Sample], Sequence[int]], str]:
    """Writes samples as shards of these sizes and one of the rest into a folder; returns the shards' pattern."""

    def write(folder: Path, samples: Sequence[Sample], sizes: Sequence[int]) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        edges = [0, *np.cumsum(sizes).tolist(), len(samples)]
        for shard, (first, last) in enumerate(itertools.pairwise(edges)):
            members = [member for sample in samples[first:last] for member in sample]
            write_tar(folder / f"{shard:02d}.tar", members)
        return f"{folder}/*.tar"

    return write


@pytest.fixture(scope="session")
def tiny_shards(
    tiny_samples: list[Sample],
    write_tiny: Callable[[Path, Sequence[Sample], Sequence[int]], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """The pattern of the four tiny shards."""
    return write_tiny(tmp_path_factory.mktemp("tiny") / "shards", tiny_samples, SHARD_SAMPLES)


@pytest.fixture(scope="session")
def tiny_snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained small_resnet of width 4 whose last layer is enlarged, so that its beliefs differ by image."""
    network = build_model("small_resnet", NUM_CLASSES, width=4, seed=3)
    with torch.no_grad():
        network.head.weight.mul_(10)
    folder = tmp_path_factory.mktemp("snapshot")
    publish_weights(Store(str(folder)), "epoch-0000.safetensors", network)
    return folder / "epoch-0000.safetensors"


@pytest.fixture(scope="session")
def tiny_config(tiny_shards: str, tiny_snapshot: Path) -> Callable[..., Config]:
    """Config of a tiny run: `tiny_config(run_dir, "section.field=value", ...)`. It scores the snapshot as it is."""

    def make(run_dir: Path, *overrides: str) -> Config:
        tree = {
            "run": {"dir": str(run_dir)},
            "data": {"shards": tiny_shards, "truth": "json:truth", "classes": NUM_CLASSES, "size": 8},
            "model": {"width": 4},
            "train": {"epochs": 0, "from": str(tiny_snapshot), "batch_size": 16, "precision": "float32"},
            "score": {"precision": "float32", "batch_size": 16},
            "neighbors": {"vote_num": 4},
            "iofm": {"num": 4, "steps": 3},
            "inn": {"num": 10, "steps": 10},
            # Labels are cut, blocks span shards, the table has several parts.
            "blocks": {"rows": 16, "pairs": 20, "index_rows": 9, "table_rows": 32},
        }
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "given.yaml").write_text(yaml.safe_dump(tree))
        return load_config(run_dir / "given.yaml", overrides)

    return make


@pytest.fixture(scope="session")
def finish(one_thread: None) -> Callable[..., Run]:
    """Does a run in this process, without Ray: `finish(config)`, or by another executor: `finish(config, executor)`."""

    def do(config: Config, executor: Executor | None = None) -> Run:
        def once() -> Run:
            run = start(config, Store(config.run.dir), find_sources(config.data), ONE_WORKER)
            compute(run, Inline() if executor is None else executor, Console(quiet=True))
            publish(run)
            return run

        return mended(Store(config.run.dir), once)

    return do


@pytest.fixture
def load_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`datasets.load_dataset` with a cache of its own, which asks no hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    import datasets  # reads these once, so not before

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return partial(datasets.load_dataset, cache_dir=str(tmp_path / "hub"))


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """One thread for torch and FAISS: sums in the same order whatever the machine; training's settings undone."""
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode(mode)


@pytest.fixture(scope="session")
def scored(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """The tiny run, scored with the untrained snapshot. Only to be read."""
    return finish(tiny_config(tmp_path_factory.mktemp("scored")))


@pytest.fixture(scope="session")
def trained(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """The tiny run, trained for 3 epochs with snapshots after the second and the third. Only to be read."""
    overrides = ("train.epochs=3", "train.snapshot_every=2", "train.from=")
    return finish(tiny_config(tmp_path_factory.mktemp("trained"), *overrides))


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """A browser with an empty profile. Without one its tests fail: what people use is then not tested."""
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.fail("no Chromium with chromedriver; install them: sh tools/install_browser.sh", pytrace=False)
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*BROWSER_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.fixture(scope="session")
def window(chromium: webdriver.Chrome) -> Callable[[int, int], webdriver.Chrome]:
    """The browser with pages of a width and a height: `window(1280, 800)`. What other pages have left is gone."""

    def sized(width: int, height: int) -> webdriver.Chrome:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        chromium.get("about:blank")
        chromium.get_log("browser")  # type: ignore[no-untyped-call]
        return chromium

    return sized

"""docs/architecture.md draws the graph of a run as it is, and names every stage and every package."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from rayclean.catalog.stage import find_sources
from rayclean.config import MAIN, Config
from rayclean.config.score_families import FAMILIES
from rayclean.run.grow import grow, stages
from rayclean.run.pipeline import compute
from rayclean.run.start import ONE_WORKER, start
from rayclean.storage.executor import Inline
from rayclean.storage.graph import Graph
from rayclean.storage.store import Store
from tests.feature_runs import clusters, feature_config, write_feature_shards
from tests.test_layers import RANK

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text()
ALL_SCORES = (
    f"scores={[score.name for score in FAMILIES.scores().values() if score.role == MAIN and not score.on_features]}",
    "influence.validation=split",
    "influence.validation_num=2",
    "simulated_loss.kind=empirical",
    "train.epochs=1",
    "train.from=",
)
Edges = set[tuple[str, str]]


def graph_of(config: Config) -> Graph:
    """All jobs of a run whose trainings are done."""
    run = start(config, Store(config.run.dir), find_sources(config.data), ONE_WORKER)
    compute(run, Inline(), Console(quiet=True), "train")
    graph = grow(run)
    assert not graph.unnamed
    return graph


def edges_of(graph: Graph) -> Edges:
    """Which stage reads which; what no other job gives hangs on the training, which hangs on the catalog."""
    read = {(before.stage, job.stage) for job in graph.jobs.values() for before in job.after}
    found = {(before, stage) for before, stage in read if before != stage}
    fed = {stage for _, stage in found} | {"catalog", "train"}
    return (
        found | {("catalog", "train")} | {("train", job.stage) for job in graph.jobs.values() if job.stage not in fed}
    )


def drawn(arrow: str) -> Edges:
    (drawing,) = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)
    found: Edges = set()
    for line in drawing.splitlines():
        if arrow in line:
            before, after = (part.strip().split(" & ") for part in line.split(arrow))
            found |= {(one, other) for one in before for other in after}
    return found


@pytest.fixture(scope="module")
def usual(tiny_config: Callable[..., Config], one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Edges:
    return edges_of(graph_of(tiny_config(tmp_path_factory.mktemp("usual"), *ALL_SCORES)))


@pytest.fixture(scope="module")
def on_features(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Edges:
    folder = tmp_path_factory.mktemp("features")
    shards = write_feature_shards(folder / "shards", clusters())
    scores = {"scores": ["loss", "iofm", "inn", "vote", "osm", "odd"]}
    config = feature_config(folder / "run", shards).model_copy(update=scores)
    return edges_of(graph_of(config))


def test_the_graph_is_drawn_as_it_is(usual: Edges) -> None:
    assert drawn(" --> ") == usual


def test_what_is_read_on_features_alone_is_dotted(usual: Edges, on_features: Edges) -> None:
    assert drawn(" -.-> ") == on_features - usual


def test_every_stage_is_in_the_drawing() -> None:
    assert {stage for edge in drawn(" --> ") for stage in edge} == set(stages())


def test_every_package_has_its_sentence_in_order() -> None:
    packages = {path.parent.name for path in (ROOT / "rayclean").glob("*/__init__.py")}
    named = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert set(named) == packages
    assert [RANK[name] for name in named] == sorted(RANK[name] for name in named)


def test_every_module_at_the_root_is_named() -> None:
    names = {path.name for path in (ROOT / "rayclean").glob("*.py")} - {"__init__.py"}
    assert [name for name in names if f"`{name}`" not in PAGE] == []

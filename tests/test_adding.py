"""docs/adding.md is true: its modules add a score, noise, an export, a way of learning and a layout to convert."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from rayclean.catalog.derive_stage import derived_mark
from rayclean.catalog.noise import NoiseRows, drawn_to_flip, make_labels
from rayclean.catalog.stage import find_sources
from rayclean.config import Config, dump_config, load_config, override_config
from rayclean.config.noise_kinds import IMBALANCES, NOISE_KINDS, NoiseKind
from rayclean.config.registry import Registry, load_plugins
from rayclean.config.score_families import FAMILIES, Family
from rayclean.convert.layouts import LAYOUTS
from rayclean.errors import ConfigError
from rayclean.evaluate.results import evaluate_run
from rayclean.export.command import export
from rayclean.export.kinds import EXPORT_KINDS, ExportKind
from rayclean.export.options import ExportOptions
from rayclean.inspect.garbage import collect
from rayclean.inspect.graph import draw_graph
from rayclean.inspect.show import describe
from rayclean.inspect.status import read_status
from rayclean.learn import command
from rayclean.learn.methods import METHODS
from rayclean.memory.scorer import LabelScorer
from rayclean.report.command import write_report
from rayclean.run.run import Run
from rayclean.run.saved import load_run
from rayclean.run.start import ONE_WORKER, start
from rayclean.schema import Score
from rayclean.storage.executor import Inline
from rayclean.storage.published import PART, Published
from rayclean.storage.store import Store
from rayclean.train.forward import Forward
from rayclean.train.snapshots import load_snapshot
from tests.convert.helpers import convert
from tests.export.runs import QUIET, exported, lines_of
from tests.helpers import png_bytes

ROOT = Path(__file__).parents[1]
REGISTRIES: tuple[Registry[Any], ...] = (FAMILIES, NOISE_KINDS, IMBALANCES, EXPORT_KINDS, METHODS, LAYOUTS)
ADDED: tuple[tuple[str, Registry[Any], str], ...] = (
    ("run", FAMILIES, "mirror"),
    ("run", NOISE_KINDS, "previous_class"),
    ("export", EXPORT_KINDS, "keys"),
    ("learn", METHODS, "longer"),
)
MODULES = ("own_kinds", "own_work", "own_score")
SCORES = "scores=[loss, iofm_last, vote, mirror]"
NOISE = ("data.truth=", "noise.kind=previous_class", "noise.rate=0.5")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the modules of docs/adding.md as an installed package."""
    folder = tmp_path_factory.mktemp("site")
    text = (ROOT / "docs/adding.md").read_text()
    for name, code in re.findall(r"```python\n# (\w+)\.py\n(.*?)```", text, re.DOTALL):
        (folder / f"{name}.py").write_text(code)
    (points,) = re.findall(r"```toml\n\[project\.entry-points\.\"(rayclean\.plugins)\"\]\n(.*?)\n```", text, re.DOTALL)
    facts = folder / "own_kinds-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: own_kinds\nVersion: 1\n")
    (facts / "entry_points.txt").write_text(f"[{points[0]}]\n{points[1].replace(chr(34), '')}\n")
    assert {path.stem for path in folder.glob("*.py")} == set(MODULES)
    return folder


@pytest.fixture(scope="module")
def plugged(package: Path) -> Iterator[None]:
    """The package is installed here; all is as it was afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        for registry in REGISTRIES:
            patch.setattr(registry, "_entries", dict(registry._entries))
        patch.syspath_prepend(package)
        load_plugins.cache_clear()
        yield
        for name in MODULES:
            patch.delitem(sys.modules, name, raising=False)
    load_plugins.cache_clear()


@pytest.fixture(scope="module")
def run(
    plugged: None,
    tiny_config: Callable[..., Config],
    tiny_shards: str,
    finish: Callable[..., Run],
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """A finished run with the added noise and score, that knows test samples."""
    test = (f"learn.test={tiny_shards}", "learn.test_label=json:truth", "learn.train={epochs: 2}")
    return finish(tiny_config(tmp_path_factory.mktemp("added"), *NOISE, *test, SCORES))


def python(code: str, *arguments: object) -> str:
    """What another process of Python prints."""
    call = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, check=True, timeout=120).stdout


def test_a_run_has_the_noise(run: Run) -> None:
    before, seed = run.source, run.config.run.seed
    flips = drawn_to_flip(before.draw_id, 0.5, seed)
    assert 0.2 < flips.mean() < 0.8
    np.testing.assert_array_equal(run.catalog.label, np.where(flips, (before.label - 1) % 6, before.label))


def test_a_run_has_the_score(run: Run) -> None:
    main, catalog = run.network, run.catalog
    forward = Forward(load_snapshot(run.store, main.last.file, main.spec), main.spec, main.forward)
    mirrored = catalog.pixels(8, 1e6).read(np.arange(catalog.num_rows))[:, :, ::-1].copy()
    beliefs = forward.probabilities(forward.normalized(mirrored)).numpy()
    published = Published.open(run.store)
    table = pa.concat_tables([published.read(path) for path in published.of_kind(PART)])
    expected = beliefs[np.arange(catalog.num_rows), catalog.label]
    np.testing.assert_allclose(table["score_mirror"].to_numpy(), expected, atol=1e-5)
    assert b"mirrored picture" in table.schema.field("score_mirror").metadata[b"meaning"]


def test_it_is_looked_at_as_any_score(run: Run, tmp_path: Path) -> None:
    found = evaluate_run(run.config)
    assert list(found.scores) == ["loss", "iofm_last", "vote", "mirror"]
    assert list(found.scores["mirror"].curve) == [run.main.last.epoch]
    assert "mirror" in describe(run.config, "k00")["scores"]
    stages = {stage.stage: stage for stage in read_status(run.config).stages}
    num_blocks = -(-run.catalog.num_rows // run.config.blocks.rows)
    assert (stages["mirror"].done, stages["mirror"].total) == (num_blocks, num_blocks)
    lines, _ = draw_graph(run.config)
    (line,) = [line for line in lines if line.stage == "mirror"]
    assert (line.kind, [lines[place].stage for place in line.reads]) == ("MirrorJob", ["embed"])
    write_report(run.config, str(tmp_path / "report"))
    assert "belief in the label of the mirrored picture" in (tmp_path / "report/index.html").read_text()


def test_arrays_in_memory_get_it(plugged: None, trained: Run) -> None:
    images = trained.catalog.pixels(8, 1e6).read(np.arange(trained.catalog.num_rows))
    scorer = LabelScorer({"width": 4}, ["loss", "mirror"], train={"epochs": 1, "batch_size": 16})
    found = scorer.fit(images, trained.catalog.label, num_classes=6)
    assert 0 < found.score_samples("mirror").min() < found.score_samples("mirror").max() < 1
    assert [epoch for epoch, _ in found.score_epochs("mirror")] == [1]
    assert "score_mirror" in found.labels_.column_names


def test_what_no_config_leads_to_is_garbage(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder,) = [name for name in run.store.list("") if name.startswith("mirror-")]
    without = override_config(run.config, ["scores=[loss, iofm_last, vote]"])
    assert folder not in collect(run.config, dry_run=True).sizes
    assert folder in collect(without, dry_run=True).sizes
    monkeypatch.delitem(FAMILIES._entries, "mirror")  # the package is gone: nobody knows whose it is
    assert folder not in collect(without, dry_run=True).sizes


def test_a_worker_needs_no_registration_of_the_score(run: Run, package: Path, tmp_path: Path) -> None:
    _, apply = run.merge()
    (tmp_path / "sent.pickle").write_bytes(pickle.dumps(apply))
    (tmp_path / "own_score.py").write_text((package / "own_score.py").read_text())
    code = (
        "import pickle, sys; sys.path.append(sys.argv[1])\n"
        "from rayclean.config.score_families import FAMILIES\n"
        "job = pickle.load(open(f'{sys.argv[1]}/sent.pickle', 'rb'))\n"
        "assert 'mirror' not in FAMILIES.names()\n"
        "print(job.open()('part-00000').content.schema)"
    )
    assert "score_mirror" in python(code, tmp_path)


def test_names_that_are_taken_are_refused(plugged: None) -> None:
    taken = Score("vote", "own", "beta", False, "-")
    free = replace(taken, name="own")
    for family, said in (
        (Family("own", "-", "own_score:mirror", scores=(taken,)), "score vote is there already"),
        (Family("own", "-", "own_score:mirror", scores=(free,), stages=("paths",)), "stage paths is there already"),
        (Family("own", "-", "own_score:mirror", scores=(free,), stages=("train",)), "stage train is there already"),
        (Family("vote", "-", "own_score:mirror", scores=(free,)), "vote of own_score is there already"),
        (Family("own", "-", "own_score:mirror", scores=(replace(taken, name="A b"),)), "a name of a-z"),
    ):
        with pytest.raises(ConfigError, match=said):
            FAMILIES.register(family)
    assert "own" not in FAMILIES.scores()


def test_a_worker_needs_the_function_and_no_registration(run: Run, package: Path, tmp_path: Path) -> None:
    kind = run.derivation("rest").kind
    assert kind is not None
    rows = NoiseRows(run.source.label, run.source.draw_id, 6, 0, rate=0.5)
    (tmp_path / "sent.pickle").write_bytes(pickle.dumps((run.derivation("rest"), rows)))
    (tmp_path / "own_work.py").write_text((package / "own_work.py").read_text())
    code = (
        "import json, pickle, sys; sys.path.append(sys.argv[1])\n"
        "from rayclean.catalog.noise import make_labels\n"
        "from rayclean.config.noise_kinds import NOISE_KINDS\n"
        "derivation, rows = pickle.load(open(f'{sys.argv[1]}/sent.pickle', 'rb'))\n"
        "assert derivation.kind.name not in NOISE_KINDS.names()\n"
        "print(json.dumps(make_labels(derivation.kind, rows).tolist()))"
    )
    np.testing.assert_array_equal(json.loads(python(code, tmp_path)), make_labels(kind, rows))


def test_a_function_of_a_notebook_is_sent_along(tmp_path: Path) -> None:
    """As Ray sends the jobs: what `__main__` defines goes whole."""
    defined = (
        "import sys\n"
        "from ray import cloudpickle\n"
        "from rayclean.catalog.derive_stage import Derivation\n"
        "from rayclean.config import NoiseSection\n"
        "from rayclean.config.noise_kinds import NOISE_KINDS, NoiseKind\n"
        "def two(rows): return 2 + 0 * rows.truth\n"
        "NOISE_KINDS.register(NoiseKind('all_two', '-', two))\n"
        "derivation = Derivation(NoiseSection(kind='all_two', rate=0.5), 0, 0, 'rest', 0, 0)\n"
        "open(sys.argv[1], 'wb').write(cloudpickle.dumps(derivation))"
    )
    python(defined, tmp_path / "sent.pickle")
    kind = pickle.loads((tmp_path / "sent.pickle").read_bytes()).kind
    rows = NoiseRows(np.array([0, 1]), np.array([1, 2], np.uint64), 3, 0, rate=0.5)
    assert make_labels(kind, rows).tolist() == [2, 2]
    assert "all_two" not in NOISE_KINDS.names()


def test_an_export_has_the_kind(run: Run, tmp_path: Path) -> None:
    summary = exported(run.config, "keys", tmp_path / "out", cut=0.5)
    expected = [line["key"] for line in lines_of(run.config) if line["label_score"] >= 0.5]
    assert json.loads((tmp_path / "out/keys.json").read_text()) == expected
    assert (summary["to"], summary["exported"], summary["files"]) == ("keys", len(expected), 1)
    assert "keys.json" in (tmp_path / "out/croissant.json").read_text()


def test_learning_has_the_method(run: Run) -> None:
    store = Store(run.config.run.dir)
    begun = start(run.config, store, find_sources(run.config.data), ONE_WORKER, leaves_word=False)
    result = command.learn_by(begun, "longer", Inline(), QUIET)
    assert result.file.startswith("learn/longer-")
    assert list(result.trials[0].accuracy) == [1, 2, 3, 4]  # twice the 2 epochs of learn.train


def test_a_data_set_of_the_layout_becomes_shards(plugged: None, tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(png_bytes(i, 4, 4))
    (tmp_path / "own.csv").write_text("".join(f"{i}.png,{'cat' if i % 2 else 'ape'}\n" for i in range(4)))
    convert("listed", tmp_path, tmp_path / "shards", "--table", "own.csv")
    assert (tmp_path / "shards/classes.txt").read_text().splitlines() == ["ape", "cat"]
    assert len(list((tmp_path / "shards").glob("train-*.tar"))) == 1
    with pytest.raises(ConfigError, match=r"rayclean convert nonsense: no such layout; there are imagefolder.*listed"):
        LAYOUTS.get("nonsense")


@pytest.mark.parametrize(("command_name", "registry", "name"), ADDED)
def test_the_help_lists_it_last(command_name: str, registry: Registry[Any], name: str, package: Path) -> None:
    """By the entry point alone: nothing else in that process knows of the package."""
    code = "import sys; sys.path.append(sys.argv.pop(1)); from rayclean.cli import main; main()"
    shown = python(code, package, command_name, "--help")
    listed = shown.partition(f"─ {registry.field} ")[2].split("╰")[0]
    assert [line.split()[1] for line in listed.splitlines()[1:] if line.strip()][-1] == name


def test_errors_list_it(run: Run, tmp_path: Path) -> None:
    fields = "data: {shards: s, classes: 3}\nrun: {dir: r}\nnoise:\n  rate: 0.5\n  kind: nonsense\n"
    (tmp_path / "wrong.yaml").write_text(fields)
    said = r"wrong\.yaml: line 5: noise\.kind: no such kind of noise; there are symmetric, .*, previous_class \(found"
    with pytest.raises(ConfigError, match=said):
        load_config(tmp_path / "wrong.yaml")
    with pytest.raises(ConfigError, match=r"noise\.imbalance: no such imbalance; there are long_tail, step, two_class"):
        override_config(run.config, ["noise.imbalance=tail"])
    with pytest.raises(ConfigError, match=r"--to nonsense: no such export; there are csv, .*, labelstudio, keys$"):
        export(run.config, "nonsense", str(tmp_path / "out"), ExportOptions(), QUIET)
    with pytest.raises(ConfigError, match=r"--method nonsense: no such method; there are plain, .*, rog, longer$"):
        command.learn(run.config, "nonsense", QUIET)
    assert not (tmp_path / "out").exists()


def test_without_the_package_the_run_is_not_opened(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(run.config.run.dir)
    (folder / "config.yaml").write_text(yaml.safe_dump(dump_config(run.config)))
    assert load_run(str(folder)) == run.config
    monkeypatch.delitem(NOISE_KINDS._entries, "previous_class")
    with pytest.raises(ConfigError, match=r"config\.yaml: .*noise\.kind: no such kind of noise; there are symmetric"):
        load_run(str(folder))


def test_another_version_of_a_noise_is_another_catalog(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    for version in (1, 1, 2):
        kind = NoiseKind("previous_class", "-", "own_work:previous_class", version=version)
        monkeypatch.setitem(NOISE_KINDS._entries, kind.name, kind)
        names.append(derived_mark(run.source, run.derivation("rest")))
    assert names[0] == names[1] != names[2]


def test_another_version_of_a_kind_is_another_export(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    exported(run.config, "keys", tmp_path / "out")
    exported(run.config, "keys", tmp_path / "out")
    monkeypatch.setitem(EXPORT_KINDS._entries, "keys", ExportKind("keys", "-", "own_work:keys", version=2))
    with pytest.raises(ConfigError, match="holds another export"):
        exported(run.config, "keys", tmp_path / "out")


@pytest.mark.parametrize("labels", [np.array([0, 3]), np.array([0, -1]), np.array([0.0, 1.0]), np.array([0])])
def test_what_are_no_labels_is_refused(labels: Any) -> None:
    rows = NoiseRows(np.array([0, 1]), np.array([1, 2], np.uint64), 3, 0, rate=0.5)
    with pytest.raises(ConfigError, match=r"noise\.kind: found bad giving .*, expected whole numbers 0\.\.2 of shape"):
        make_labels(NoiseKind("bad", "-", lambda _: labels), rows)


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.noun)
def test_every_function_is_where_its_entry_says(registry: Registry[Any]) -> None:
    for entry in registry:
        assert callable(entry.load())
        assert entry.meaning


def test_the_docs_name_every_kind() -> None:
    texts = {name: (ROOT / f"docs/{name}.md").read_text() for name in ("methods", "export")}
    named = {NOISE_KINDS: "methods", IMBALANCES: "methods", EXPORT_KINDS: "export"}
    for registry, name in named.items():
        ours = [entry.name for entry in registry if entry.module.startswith("rayclean.")]  # type: ignore[attr-defined]
        assert len(ours) > 2
        assert [each for each in ours if f"`{each}`" not in texts[name]] == []

"""What is exported is read by the tools that it is for: with its labels, and as its description says."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlcroissant
import pytest
from mlcroissant._src.operation_graph.operations import extract

from rayclean.config import Config
from rayclean.decisions.verified import VerifiedFile
from rayclean.export.kinds import EXPORT_KINDS
from rayclean.export.labelstudio import CHOICE, choices
from rayclean.run.run import Run
from rayclean.schema import DROPPED
from tests.export.runs import Facts, exported, lines_of

pytestmark = pytest.mark.usefixtures("without_ray")

PREDICTED = {"cut": 0.4, "labels": "predicted"}
# Of Label Studio's own: what its export to CSV adds to a task's data and the choice.
ANNOTATION = ("annotation_id", "annotator", "created_at", "id", "lead_time", "updated_at")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mlcroissant takes what it has once unpacked for every tar of that name."""
    monkeypatch.setattr(extract, "EXTRACT_PATH", type(extract.EXTRACT_PATH)(tmp_path / "unpacked"))


@pytest.mark.parametrize("kind", EXPORT_KINDS.names())
def test_mlcroissant_takes_every_description(doubtful: Config, kind: str, tmp_path: Path) -> None:
    summary = exported(doubtful, kind, tmp_path / "out", cut=0.4)
    found = mlcroissant.Dataset(jsonld=str(tmp_path / "out/croissant.json"))
    assert not found.metadata.ctx.issues.errors
    sets = [records.id for records in found.metadata.record_sets]
    assert bool(sets) == (kind != "datacomp")
    for name in sets:
        assert len(list(found.records(name))) == summary["exported"], name


def test_mlcroissant_reads_the_labels(doubtful: Config, tmp_path: Path) -> None:
    exported(doubtful, "parquet", tmp_path / "out", **PREDICTED)
    found = mlcroissant.Dataset(jsonld=str(tmp_path / "out/croissant.json")).records("rows")
    expected = {line["row"]: line["given_label"] for line in lines_of(doubtful)}
    assert {each["rows/row"]: each["rows/given_label"] for each in found} == expected


@pytest.mark.parametrize("kind", ["csv", "parquet", "cleanlab"])
def test_datasets_opens_lists_with_their_labels(
    doubtful: Config, kind: str, load_dataset: Callable[..., Any], tmp_path: Path
) -> None:
    exported(doubtful, kind, tmp_path / "out", **PREDICTED)
    found = load_dataset(str(tmp_path / "out"), split="train")
    lines = lines_of(doubtful)
    assert [(each["row"], each["key"], each["given_label"]) for each in found] == [
        (line["row"], line["key"], line["given_label"]) for line in lines
    ]
    if kind == "cleanlab":
        assert found["predicted_label"][:] == [line["predicted_label"] for line in lines]
    else:
        assert found["label"][:] != found["given_label"][:], "some are relabelled"


@pytest.mark.parametrize("by_name", [False, True], ids=["a folder", "webdataset"])
def test_datasets_opens_shards_with_the_labels_to_use(
    doubtful: Config, by_name: bool, load_dataset: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    exported(doubtful, "shards", out, **PREDICTED)
    exported(doubtful, "parquet", tmp_path / "list", **PREDICTED)
    listed = load_dataset(str(tmp_path / "list"), split="train")
    expected = {each["key"]: each["label"] for each in listed if each["kept"]}
    if by_name:
        found = load_dataset("webdataset", data_files=f"{out}/*.tar", split="train")
    else:
        found = load_dataset(str(out), split="train")
    assert {each["__key__"]: each["cls"] for each in found} == expected
    assert all(each["png"].size == (8, 8) for each in found)


@pytest.mark.parametrize(("kind", "limit"), [("fiftyone", 9), ("labelstudio", 9), ("labelstudio", 1)])
def test_datasets_opens_pictures_with_what_is_said_of_them(
    doubtful: Config, kind: str, limit: int, load_dataset: Callable[..., Any], tmp_path: Path
) -> None:
    exported(doubtful, kind, tmp_path / "out", cut=0.4, limit=limit)
    found = load_dataset(str(tmp_path / "out"), split="train")
    lines = {line["row"]: line for line in lines_of(doubtful)}
    assert len(found) == limit
    for each in found:
        line = lines[each["row"]]
        assert each["image"].size == (8, 8)
        assert (each["key"], each["given_label"]) == (line["key"], str(line["given_label"]))
        assert each["label_score"] == line["label_score"]
        assert each["predicted_label"] == str(line["predicted_label"])


def as_label_studio_writes(tasks: list[Facts], decided: dict[int, list[str]], path: Path) -> None:
    """Its export to CSV: a line an annotation, of a task without one a line without a choice."""
    names = sorted({*ANNOTATION, *(tasks[0]["data"]), CHOICE})
    with path.open("w", newline="") as file:
        lines = csv.DictWriter(file, names, quoting=csv.QUOTE_NONNUMERIC, restval="")
        lines.writeheader()
        for number, task in enumerate(tasks):
            for choice in decided.get(number, [""]):
                lines.writerow({**task["data"], "id": number + 1, CHOICE: choice})


def test_what_people_decide_in_label_studio_is_taken_in(doubtful: Config, scored: Run, tmp_path: Path) -> None:
    exported(doubtful, "labelstudio", tmp_path / "out", cut=0.4)
    tasks = json.loads((tmp_path / "out/tasks.json").read_text())
    assert len(tasks) > 4
    decided = {0: ["drop"], 1: ["3"], 3: ["0"]}
    as_label_studio_writes(tasks, decided, tmp_path / "export.csv")
    names = tuple(str(label) for label in range(scored.catalog.num_classes))
    found = VerifiedFile(str(tmp_path / "export.csv"), "", names).find(scored.catalog)
    rows = {tasks[number]["data"]["row"]: label for number, label in ((0, DROPPED), (1, 3), (3, 0))}
    assert dict(zip(found.rows.tolist(), found.labels.tolist(), strict=True)) == rows


def test_a_class_called_drop_is_a_class(scored: Run, doubtful: Config, tmp_path: Path) -> None:
    names = ("drop", *(str(label) for label in range(1, scored.catalog.num_classes)))
    exported(doubtful, "labelstudio", tmp_path / "out", cut=0.4, limit=2)
    tasks = json.loads((tmp_path / "out/tasks.json").read_text())
    as_label_studio_writes(tasks, {0: [choices(names)[-1]], 1: ["drop"]}, tmp_path / "export.csv")
    found = VerifiedFile(str(tmp_path / "export.csv"), "", names).find(scored.catalog)
    said = dict(zip(found.rows.tolist(), found.labels.tolist(), strict=True))
    assert said == {tasks[0]["data"]["row"]: DROPPED, tasks[1]["data"]["row"]: 0}

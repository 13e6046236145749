"""Tools in which people look are given the most doubtful rows, with the pictures as they lie in the shards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from rayclean.config import Config
from rayclean.errors import ShardChangedError
from rayclean.export.labelstudio import choices, labeling_config
from rayclean.run.run import Run
from rayclean.schema import NONE_NAME, NONE_OF_CLASSES
from tests.conftest import Sample
from tests.export.runs import Facts, doubtful_run, edited, exported, lines_of

pytestmark = pytest.mark.usefixtures("without_ray")


@pytest.fixture(scope="module")
def pictures(tiny_samples: list[Sample]) -> dict[str, bytes]:
    """By key."""
    found = {name.partition(".")[0]: data for sample in tiny_samples for name, data in sample if name.endswith(".png")}
    assert len(found) == len(tiny_samples)
    return found


def worst_first(config: Config, cut: float, labels: str, only_removed: bool = False) -> list[Facts]:
    """Lines of the rows that go or have a new label, said once more."""
    found = []
    for line in lines_of(config):
        score, verified = line["label_score"], line["verified_label"]
        taken = labels == "predicted" and verified is None and line["predicted_score"] > max(0.9, score)
        taken &= line["predicted_label"] != line["given_label"]
        if verified is not None:
            goes = verified == -1 or (labels == "given" and verified != line["given_label"])
            changes = not goes and verified != line["given_label"]
        else:
            right = line["predicted_score"] if taken else score
            goes, changes = right < cut, taken and right >= cut
        if goes or (changes and not only_removed):
            found.append(line)
    return sorted(found, key=lambda line: (line["label_score"], line["row"]))


@pytest.mark.parametrize("wishes", [{}, {"labels": "predicted"}, {"labels": "predicted", "removed": True}])
def test_fiftyone_is_given_the_most_doubtful(
    doubtful: Config, pictures: dict[str, bytes], wishes: dict[str, Any], tmp_path: Path
) -> None:
    summary = exported(doubtful, "fiftyone", tmp_path / "out", cut=0.4, limit=9, **wishes)
    expected = worst_first(doubtful, 0.4, wishes.get("labels", "given"), wishes.get("removed", False))
    samples = json.loads((tmp_path / "out/samples.json").read_text())["samples"]
    assert [sample["row"] for sample in samples] == [line["row"] for line in expected[:9]]
    assert (summary["exported"], summary["doubtful"]) == (9, len(expected))
    for sample, line in zip(samples, expected, strict=False):
        assert (tmp_path / "out" / sample["filepath"]).read_bytes() == pictures[line["key"]]
        assert sample["ground_truth"] == {"_cls": "Classification", "label": str(line["given_label"])}
        assert sample["predicted"]["label"] == str(line["predicted_label"])
        assert sample["predicted"]["confidence"] == line["predicted_score"]
        assert ("verified" in sample) == (line["verified_label"] is not None)
        if line["verified_label"] == NONE_OF_CLASSES:
            assert sample["verified"]["label"] == NONE_NAME
        assert {name for name in sample if name.startswith("score_")} == {n for n in line if n.startswith("score_")}
        assert sample["label_score"] == line["label_score"]
    metadata = json.loads((tmp_path / "out/metadata.json").read_text())
    assert "version" not in metadata  # of FiftyOne: with one, it is read as that version's own database
    assert metadata["default_classes"] == [str(label) for label in range(6)]
    assert len(list((tmp_path / "out/data").glob("*.png"))) == 9


def test_label_studio_is_given_tasks_that_fit_its_config(
    doubtful: Config, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    exported(doubtful, "labelstudio", tmp_path / "out", cut=0.4)
    tasks = json.loads((tmp_path / "out/tasks.json").read_text())
    expected = worst_first(doubtful, 0.4, "given")
    assert [task["data"]["row"] for task in tasks] == [line["row"] for line in expected]
    config = ElementTree.fromstring((tmp_path / "out/config.xml").read_text())
    (image,), (choices,) = config.findall("Image"), config.findall("Choices")
    names = {choice.attrib["value"] for choice in choices}
    assert image.attrib["value"] == "$image"
    ids = set()
    for task, line in zip(tasks, expected, strict=True):
        url = task["data"]["image"]
        assert url.startswith("/data/local-files/?d=images/")
        picture = tmp_path / "out" / unquote(url.partition("?d=")[2])
        assert picture.read_bytes() == pictures[line["key"]]
        (prediction,) = task["predictions"]
        (result,) = prediction["result"]
        assert (result["from_name"], result["to_name"]) == (choices.attrib["name"], image.attrib["name"])
        assert result["type"] == "choices"
        assert set(result["value"]["choices"]) == {str(line["predicted_label"])} <= names
        assert prediction["score"] == line["predicted_score"]
        ids.add(result["id"])
    assert len(ids) == len(tasks)


def test_class_names_are_no_markup() -> None:
    names = ["<script>", 'a "b" & c', "é'"]
    root = ElementTree.fromstring(labeling_config(names))
    assert [choice.attrib["value"] for choice in root.iter("Choice")] == [*names, "drop"]


def test_what_is_predicted_to_be_none_of_the_classes_is_proposed_to_be_dropped(
    doubtful: Config, scored: Run, tmp_path: Path
) -> None:
    config = edited(scored, tmp_path / "run", predicted_label=[NONE_OF_CLASSES] * scored.catalog.num_rows)
    exported(config, "labelstudio", tmp_path / "studio", cut=1.0, limit=2)
    for task in json.loads((tmp_path / "studio/tasks.json").read_text()):
        assert task["predictions"][0]["result"][0]["value"]["choices"] == ["drop"]
    exported(config, "fiftyone", tmp_path / "fifty", cut=1.0, limit=2)
    for each in json.loads((tmp_path / "fifty/samples.json").read_text())["samples"]:
        assert each["predicted"]["label"] == NONE_NAME
    metadata = json.loads((tmp_path / "fifty/metadata.json").read_text())
    assert NONE_NAME in metadata["classes"]["predicted"]
    assert choices(["drop", "keep"])[NONE_OF_CLASSES] != "drop"


def test_another_picture_than_the_cataloged_one_is_an_error(
    tiny_config: Callable[..., Config],
    finish: Callable[..., Run],
    write_tiny: Callable[..., str],
    tiny_samples: list[Sample],
    tmp_path: Path,
) -> None:
    shards = write_tiny(tmp_path / "shards", tiny_samples, (13, 1, 21))
    config = doubtful_run(finish(tiny_config(tmp_path / "run", f"data.shards={shards}")), tmp_path / "doubtful")
    write_tiny(tmp_path / "shards", tiny_samples[::-1], (13, 1, 21))
    with pytest.raises(ShardChangedError, match="changed since it was cataloged"):
        exported(config, "fiftyone", tmp_path / "out")

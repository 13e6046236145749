"""A card is a data set card of the Hub, Croissant is Croissant; neither says anything that is not so."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rayclean.config import Config
from rayclean.export.card import escaped, size_category
from rayclean.export.kinds import EXPORT_KINDS
from rayclean.run.run import Run
from tests.export.runs import doubtful_run, exported

pytestmark = pytest.mark.usefixtures("without_ray")

MIXED = [("given", {}), ("predicted", {"labels": "predicted", "budget": 20})]


def head_of(readme: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(readme.split("---\n")[1])
    return found


@pytest.mark.parametrize("kind", EXPORT_KINDS.names())
def test_every_export_has_a_card_and_a_description(doubtful: Config, kind: str, tmp_path: Path) -> None:
    out = tmp_path / "my export!"
    summary = exported(doubtful, kind, out, cut=0.4)
    readme = (out / "README.md").read_text()
    head = head_of(readme)
    assert head["license"] == "unknown"
    assert head["task_categories"] == ["image-classification"]
    assert head["size_categories"] == ["n<1K"]
    assert head["pretty_name"] == "my export!"
    for note in summary["notes"]:
        assert note in readme
    if "configs" in head:
        assert list(out.glob(head["configs"][0]["data_files"]))
    facts = json.loads((out / "croissant.json").read_text())
    assert facts["@type"] == "sc:Dataset"
    assert facts["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", facts["name"])
    _check_distribution(facts, out)
    _check_records(facts)


def _check_distribution(facts: dict[str, Any], out: Path) -> None:
    ids = [each["@id"] for each in facts["distribution"]]
    assert len(set(ids)) == len(ids)
    for each in facts["distribution"]:
        if each["@type"] == "cr:FileObject":
            data = (out / each["contentUrl"]).read_bytes()
            assert each["contentSize"] == f"{len(data)} B"
            assert each["sha256"] == hashlib.sha256(data).hexdigest()
        else:
            assert each["@type"] == "cr:FileSet"
            assert {inside["@id"] for inside in each.get("containedIn", [])} <= set(ids)
            if "containedIn" not in each:
                assert any(list(out.glob(pattern)) for pattern in each["includes"])


def _check_records(facts: dict[str, Any]) -> None:
    sets = {each["@id"] for each in facts["distribution"] if each["@type"] == "cr:FileSet"}
    fields = [field for records in facts["recordSet"] for field in records["field"]]
    assert len({field["@id"] for field in fields}) == len(fields)
    for field in fields:
        assert field["source"]["fileSet"]["@id"] in sets
        assert field["description"]
        assert field["dataType"].startswith("sc:")
    terms = {"cr:field", "cr:recordSet", "cr:source", "cr:extract", "cr:fileSet", "cr:column", "cr:fileProperty"}
    assert terms <= {value for value in facts["@context"].values() if isinstance(value, str)}


def test_a_column_is_a_field_of_its_type(doubtful: Config, tmp_path: Path) -> None:
    exported(doubtful, "parquet", tmp_path / "out")
    facts = json.loads((tmp_path / "out/croissant.json").read_text())
    types = {field["name"]: field["dataType"] for field in facts["recordSet"][0]["field"]}
    assert types["row"] == types["given_label"] == types["label"] == "sc:Integer"
    assert (types["label_score"], types["kept"], types["reason"]) == ("sc:Float", "sc:Boolean", "sc:Text")
    assert types["shard"] == "sc:Text"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (10**6, "1M<n<10M"),
        (10**8, "100M<n<1B"),
        (10**12, "n>1T"),
        (10**11, "100B<n<1T"),
    ],
)
def test_sizes_have_the_hubs_names(rows: int, expected: str) -> None:
    assert size_category(rows) == expected


@given(st.text(max_size=30))
def test_no_name_is_markup(name: str) -> None:
    found = escaped(name)
    assert "\n" not in found
    assert not re.search(r"(?<!\\)(?:\\\\)*[<|`*_\[]", found)
    assert re.sub(r"\\(.)", r"\1", found) == " ".join(name.split())


def test_the_same_export_has_the_same_bytes(scored: Run, tmp_path: Path) -> None:
    found = []
    for place in ("here", "there"):
        config = doubtful_run(scored, tmp_path / place / "run")
        for kind in EXPORT_KINDS.names():
            exported(config, kind, tmp_path / place / kind, cut=0.4)
        files = [path for path in sorted((tmp_path / place).rglob("*")) if path.is_file() and "run/" not in str(path)]
        found.append({str(path.relative_to(tmp_path / place)): path.read_bytes() for path in files})
        assert not [name for name, data in found[-1].items() if str(tmp_path).encode() in data]
    here, there = ({name: data for name, data in each.items() if not name.endswith("_export.json")} for each in found)
    assert here == there

"""`croissant.json` of an export: its files and records as Croissant 1.0 describes data sets (JSON-LD).

What rayclean cannot know (creator, licence, date, address) is left for whoever publishes the data set.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from rayclean.export.card import meaning
from rayclean.export.files import FileFacts

CROISSANT = "croissant.json"
VERSION = "http://mlcommons.org/croissant/1.0"
_TERMS = """citeAs column equivalentProperty extract field fileProperty fileObject fileSet format includes isLiveDataset
jsonPath key md5 parentField path recordSet references regex repeated replace samplingRate separator source subField
transform"""
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{name: f"cr:{name}" for name in _TERMS.split()},
}
_ENCODINGS = {
    "parquet": "application/x-parquet",
    "csv": "text/csv",
    "tar": "application/x-tar",
    "json": "application/json",
    "jsonl": "application/jsonlines",
    "xml": "application/xml",
    "npy": "application/octet-stream",
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
}
_IMAGES = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp"}


def describe(name: str, description: str, files: Sequence[FileFacts], records: Sequence[Records]) -> bytes:
    """The whole description.

    Args:
        name: of the data set.
        description: a sentence.
        files: of it, one by one.
        records: what is in them.
    """
    facts = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-") or "export",
        "description": description,
        "conformsTo": VERSION,
        "distribution": [*map(_file_object, files), *(each.files for each in records)],
        "recordSet": [each.record_set for each in records],
    }
    return (json.dumps(facts, indent=1) + "\n").encode()


def _file_object(file: FileFacts) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": file.name,
        "name": file.name,
        "contentUrl": file.name,
        "contentSize": f"{file.num_bytes} B",
        "encodingFormat": _ENCODINGS.get(file.name.rpartition(".")[2], "application/octet-stream"),
        "sha256": file.sha256,
    }


class Records(NamedTuple):
    """A record set, and the set of files that its fields are read from."""

    files: dict[str, Any]
    record_set: dict[str, Any]


def table_records(includes: str, schema: pa.Schema) -> Records:
    """The rows of lists as records: one field per column.

    Args:
        includes: pattern of the lists' names.
        schema: theirs, with meanings.
    """
    files = _file_set("lists", "All parts of the list.", [_ENCODINGS[includes.rpartition(".")[2]]], [includes])
    record_set = _record_set("rows", "One record per row of the run.", [_column(each) for each in schema])
    return Records(files, record_set | {"key": {"@id": "rows/row"}})


def _column(field: pa.Field) -> dict[str, Any]:
    found = _field("rows", field.name, meaning(field), _data_type(field.type))
    found["source"] = {"fileSet": {"@id": "lists"}, "extract": {"column": field.name}}
    return found


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"


def sample_records(shards: Sequence[FileFacts], extensions: Sequence[str], label: str) -> list[Records]:
    """The samples of shards as records: pictures, and members with labels; those of one key belong together.

    Args:
        shards: the tars.
        extensions: of pictures; none where samples have no image.
        label: extension of the member with the label.
    """
    inside = [{"@id": shard.name} for shard in shards]
    encoding = "application/json" if label == "json" else "text/plain"
    pictures = [picture_records("images", [f"*.{extension}" for extension in extensions])] if extensions else []
    labels = _member_records("labels", "The members that hold the labels.", [encoding], [f"*.{label}"], "sc:Text")
    found = [*pictures, labels]
    for records in found:
        records.files["containedIn"] = inside
    return found


def picture_records(name: str, includes: Sequence[str]) -> Records:
    """Picture files as records.

    Args:
        name: of the record set.
        includes: patterns of the files' names.
    """
    return _member_records(name, "The pictures.", sorted(set(_IMAGES.values())), includes, "sc:ImageObject")


def _member_records(
    name: str, description: str, encodings: Sequence[str], includes: Sequence[str], kind: str
) -> Records:
    files = _file_set(f"{name}-files", description, encodings, includes)
    key = _field(name, "key", "The file's name up to its first dot.", "sc:Text")
    content = _field(name, "content", description, kind)
    for field, extract in ((key, "filename"), (content, "content")):
        field["source"] = {"fileSet": {"@id": files["@id"]}, "extract": {"fileProperty": extract}}
    key["source"]["transform"] = {"regex": r"^([^.]+)\."}
    return Records(files, _record_set(name, description, [key, content]))


def _file_set(name: str, description: str, encodings: Sequence[str], includes: Sequence[str]) -> dict[str, Any]:
    """A set of files of this folder."""
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "description": description,
        "encodingFormat": list(encodings),
        "includes": list(includes),
    }


def _field(record_set: str, name: str, description: str, data_type: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{record_set}/{name}",
        "name": name,
        "description": description,
        "dataType": data_type,
    }


def _record_set(name: str, description: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": description,
        "field": fields,
    }

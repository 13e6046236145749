"""Lists of rows, one file a part of the table: which stay, with which labels, and how likely they are right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from rayclean.export.choose import COLUMNS, REASONS, Decision, Lines, Reason
from rayclean.export.files import FileFacts, publish_file
from rayclean.export.rows import Chosen
from rayclean.schema import SHARD_TYPE, Array
from rayclean.storage.contents import encode
from rayclean.storage.given_tables import ESCAPED, encode_csv
from rayclean.storage.store import Store

FOLDER = "data"


def _field(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
    return pa.field(name, kind, metadata={"meaning": meaning})


_IDENTITY = [
    _field("shard", SHARD_TYPE, "the tar, below the longest folder common to all shards"),
    _field("key", pa.string(), "the sample's WebDataset key"),
    _field("row", pa.int64(), "position in the run's catalog"),
]
_GIVEN = _field("given_label", pa.int32(), "the label that the run was given")
_SCORE = _field("label_score", pa.float32(), "probability that the given label is right; 1 clean, 0 wrong")
_CHOICE_SCHEMA = pa.schema(
    [
        *_IDENTITY,
        _GIVEN,
        _field("label", pa.int32(), "the label to use; of a row that goes, the given one"),
        _SCORE,
        _field("kept", pa.bool_(), "whether the row stays"),
        _field("reason", pa.dictionary(pa.int8(), pa.string()), f"why: {', '.join(REASONS)}"),
    ]
)
SCHEMAS: Mapping[str, pa.Schema] = {
    "csv": _CHOICE_SCHEMA.append(
        _field(ESCAPED, pa.bool_(), "text that begins with = + - @, a tab, a return or ' has one more ' before it")
    ),
    "parquet": _CHOICE_SCHEMA,
    # Datalab's names, and CleanLearning's for the score.
    "cleanlab": pa.schema(
        [
            *_IDENTITY,
            _field("is_label_issue", pa.bool_(), "the row does not stay with its given label"),
            _SCORE,
            _field("label_quality", pa.float32(), "the same as label_score"),
            _GIVEN,
            _field("predicted_label", pa.int32(), "the most likely true class; -1 where it is none of them"),
        ]
    ),
}


class Written(NamedTuple):
    """What lists hold.

    Attributes:
        files: that were written.
        reasons: how many of all rows have each reason.
        listed: rows in the files.
    """

    files: list[FileFacts]
    reasons: dict[str, int]
    listed: int


def write_lists(chosen: Chosen, kind: str, out: Store) -> Written:
    """Writes a file for each part of the table, of all rows, or of those that go where these are asked for.

    One part is in memory at a time.

    Args:
        chosen: which rows stay, with which labels.
        kind: of `SCHEMAS`.
        out: where the files go.
    """
    schema = _CHOICE_SCHEMA if kind == "csv" else SCHEMAS[kind]
    suffix = "csv" if kind == "csv" else "parquet"
    files, tallies, listed = [], np.zeros(len(Reason), np.int64), 0
    columns = [*COLUMNS, "shard", "key"]
    for part in range(len(chosen.table.parts)):
        table = chosen.table.part(part, columns)
        decision = chosen.rule.decide(Lines.of(table))
        tallies += decision.tally()
        lines = _lines(table, decision, schema)
        if chosen.removed:
            lines = lines.filter(pa.array(~decision.kept))
        listed += lines.num_rows
        data = encode_csv(lines) if kind == "csv" else encode("part.parquet", lines, "{}")
        files.append(publish_file(out, f"{FOLDER}/part-{part:05d}.{suffix}", data))
    return Written(files, reasons_of(tallies), listed)


def reasons_of(tallies: Array) -> dict[str, int]:
    """Counts by the reasons' names; those that no row has are left out."""
    return {name: int(count) for name, count in zip(REASONS, tallies, strict=True) if count}


def _lines(table: pa.Table, decision: Decision, schema: pa.Schema) -> pa.Table:
    changed = decision.label != table["given_label"].to_numpy()
    made = {
        "label": pa.array(decision.label, pa.int32()),
        "kept": pa.array(decision.kept),
        "reason": pa.DictionaryArray.from_arrays(pa.array(decision.reason), pa.array(REASONS)),
        "is_label_issue": pa.array(~decision.kept | changed),
        "label_quality": table["label_score"],
    }
    return pa.table(
        [made.get(name, table[name] if name in table.column_names else None) for name in schema.names], schema=schema
    )

"""Lists of rows, one file per part of the table: which stay, with which labels, and how likely they are right."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from rayclean.export.choose import COLUMNS, REASONS, Decision, Lines, Reason, reasons_of
from rayclean.export.croissant import table_records
from rayclean.export.files import publish_file
from rayclean.export.work import Made, Work
from rayclean.schema import SHARD_TYPE
from rayclean.storage.contents import encode
from rayclean.storage.given_tables import ESCAPED, encode_csv

FOLDER = "data"


def field(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
    """A column with what it means."""
    return pa.field(name, kind, metadata={"meaning": meaning})


IDENTITY = [
    field("shard", SHARD_TYPE, "the tar, below the longest folder common to all shards"),
    field("key", pa.string(), "the sample's WebDataset key"),
    field("row", pa.int64(), "position in the run's catalog"),
]
GIVEN = field("given_label", pa.int32(), "the label that the run was given")
SCORE = field("label_score", pa.float32(), "probability that the given label is right; 1 clean, 0 wrong")
CHOICE_SCHEMA = pa.schema(
    [
        *IDENTITY,
        GIVEN,
        field("label", pa.int32(), "the label to use; of a row that goes, the given one"),
        SCORE,
        field("kept", pa.bool_(), "whether the row stays"),
        field("reason", pa.dictionary(pa.int8(), pa.string()), f"why: {', '.join(REASONS)}"),
    ]
)
CSV_SCHEMA = CHOICE_SCHEMA.append(
    field(ESCAPED, pa.bool_(), "text that begins with = + - @, a tab, a return or ' has one more ' before it")
)


def make_csv(work: Work) -> Made:
    """`csv`: one line per row, in text that no spreadsheet takes for a formula."""
    return make_list(work, CHOICE_SCHEMA, "csv", CSV_SCHEMA)


def make_parquet(work: Work) -> Made:
    """`parquet`: the same as Parquet."""
    return make_list(work, CHOICE_SCHEMA)


def make_list(work: Work, schema: pa.Schema, suffix: str = "parquet", described: pa.Schema | None = None) -> Made:
    """A file for each part of the table, of all rows, or of those that go where these are asked for.

    One part is in memory at a time.

    Args:
        work: which rows stay, with which labels, and where the files go.
        schema: of the lines.
        suffix: of the files: `parquet` or `csv`.
        described: the columns of the files, where they have others than the lines.
    """
    chosen, described = work.chosen, described or schema
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
        data = encode_csv(lines) if suffix == "csv" else encode("part.parquet", lines, "{}")
        files.append(publish_file(work.out, f"{FOLDER}/part-{part:05d}.{suffix}", data))
    includes = f"{FOLDER}/*.{suffix}"
    made = Made(listed, reasons_of(tallies), files, columns=described, data_files=includes)
    made.records = [table_records(includes, described)]
    return made


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

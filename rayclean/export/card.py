"""`README.md` of an export: a data set card as the Hugging Face Hub reads it, with the meaning of every column."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import yaml

from rayclean import __version__

README = "README.md"
_SIZES = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M")]
_SIZES += [(10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"), (10**11, "10B<n<100B")]
_SHOWN_CLASSES = 1000


@dataclass(frozen=True)
class Card:
    """What a card says.

    Attributes:
        name: of the data set, for people.
        kind: of the export.
        rows: in it.
        chosen: in words, how its rows were chosen.
        reasons: of all rows of the table, how many have each.
        names: of the classes, by label.
        merge: which table it comes from.
        notes: paragraphs of Markdown: what was left out, how it is opened.
        data_files: pattern of the files that the Hub shows as the data set; None where it cannot.
        columns: of the lists in it; None without.
    """

    name: str
    kind: str
    rows: int
    chosen: str
    reasons: Mapping[str, int]
    names: Sequence[str]
    merge: str
    notes: Sequence[str] = ()
    data_files: str | None = None
    columns: pa.Schema | None = None


def size_category(rows: int) -> str:
    """The Hub's name for a number of rows."""
    return next((name for limit, name in _SIZES if rows < limit), "100B<n<1T" if rows < 10**12 else "n>1T")


def readme(card: Card) -> bytes:
    """The card as Markdown; names and meanings are escaped, so that none of them is markup."""
    head: dict[str, Any] = {
        "pretty_name": card.name,
        "license": "unknown",
        "task_categories": ["image-classification"],
        "size_categories": [size_category(card.rows)],
        "tags": ["label-noise", "data-cleaning", "rayclean"],
    }
    if card.data_files is not None:
        head["configs"] = [{"config_name": "default", "data_files": card.data_files}]
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---",
        f"# {escaped(card.name)}",
        f"{card.rows:,} rows, exported by rayclean {__version__} (`--to {card.kind}`). {card.chosen}",
        "The licence is that of the data set that this was made from; put it in the head of this file in place of "
        "`unknown`.",
        *card.notes,
        "## Why rows stay or go\n\n" + _table(("reason", "rows"), [(n, f"{c:,}") for n, c in card.reasons.items()]),
    ]
    if card.columns is not None:
        lines = [(each.name, str(each.type), meaning(each)) for each in card.columns]
        parts.append("## Columns\n\n" + _table(("column", "type", "meaning"), lines))
    shown = [(str(label), name) for label, name in enumerate(card.names[:_SHOWN_CLASSES])]
    parts.append("## Classes\n\n" + _table(("label", "name"), shown))
    if len(card.names) > _SHOWN_CLASSES:
        parts.append(f"and {len(card.names) - _SHOWN_CLASSES:,} more.")
    parts.append(f"Made from the run's table of `{card.merge}`.")
    return ("\n\n".join(parts) + "\n").encode()


def meaning(column: pa.Field) -> str:
    """What a column means, by its metadata."""
    text: bytes = (column.metadata or {}).get(b"meaning", b"")
    return text.decode()


def escaped(text: str) -> str:
    """A text in which Markdown and HTML find nothing of theirs."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&$-])", r"\\\1", " ".join(text.split()))


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [titles, ["---"] * len(titles), *([escaped(cell) for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)

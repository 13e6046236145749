"""What a catalog's rows are, in a digest: the same for a copy of the shards, a repacked tar and a later scan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

VERSION = 1


class ContentDigest:
    """Takes the rows of one shard after the other.

    Where members lie, which strays are among them and what the truth says is no part of it; what later stages read and
    what the table's summary counts is.

    Args:
        classes: names by label.
        features: what the features of rows depend on, None where they have none.
    """

    def __init__(self, classes: Sequence[str], features: str | None) -> None:
        self._hash = hashlib.sha256()
        self._add([VERSION, list(classes), features])

    def add(self, name: str, rows: pa.Table) -> None:
        """Takes the next shard: its name, its rows as `rows/` has them."""
        self._add([name, rows.num_rows])
        for column in ("index_in_shard", "label"):
            self._hash.update(np.ascontiguousarray(rows[column].to_numpy()).data)
        for column in ("key", "clip"):
            if column in rows.column_names:
                lengths = pc.binary_length(rows[column]).to_numpy()
                self._hash.update(np.ascontiguousarray(lengths, np.int64).data)
                self._hash.update("".join(rows[column].to_pylist()).encode())
        self._hash.update(b"".join(rows["digest"].to_pylist()))

    def finish(self, counts: Mapping[str, Any]) -> str:
        """32 hex digits, `counts` of all samples among what they are of."""
        self._add(counts)
        return self._hash.hexdigest()[:32]

    def _add(self, value: Any) -> None:
        text = json.dumps(value, sort_keys=True).encode()
        self._hash.update(len(text).to_bytes(8, "little") + text)

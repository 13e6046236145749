"""Features that another tool computed: a member of each sample, Parquet files, or a folder of clip-retrieval."""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.lib.format as npy

from rayclean.config.features_text import ClipRetrieval, FileFeatures, MemberFeatures, parse_features
from rayclean.embed.given_names import Names
from rayclean.embed.given_parts import Part, files_of, mark_of, open_parts
from rayclean.errors import ConfigError
from rayclean.schema import NO_ROW, Array
from rayclean.shards.decode import BadSample

__all__ = [
    "ClipRetrieval",
    "FileFeatures",
    "GivenFeatures",
    "MemberFeatures",
    "given_digest",
    "open_given",
    "parse_features",
    "read_member",
    "stacked",
]

LARGEST_MEMBER = 2**26  # bytes of one sample's features: 16 million numbers; what unpacks to more is no sample's


def read_member(content: bytes, extension: str) -> Array:
    """The features of one sample.

    Args:
        content: an array of numbers as `.npy`, or one in a `.npz`; (d,) or (1, d). No pickle is loaded.
        extension: of the member; it ends in `npy` or `npz`.

    Returns:
        (d,) float32, all finite.

    Raises:
        BadSample: `bad_features`: it is no such array, or a number is NaN, infinite or too large for float32.
    """
    try:
        if extension.endswith("npz"):
            content = _only_array(content)
        values = _read_npy(content)
    except MemoryError:
        raise
    except Exception as e:  # hostile bytes make zlib, zipfile and numpy's parser of headers raise nearly anything
        raise BadSample("bad_features", f".{extension}: cannot be read ({str(e)[:200] or type(e).__name__})") from e
    if values.ndim == 2 and len(values) == 1:
        values = values[0]
    if values.ndim != 1 or not len(values):
        raise BadSample("bad_features", f".{extension}: found shape {values.shape}, expected (d,)")
    with np.errstate(over="ignore"):
        found = values.astype(np.float32)
    if not np.isfinite(found).all():
        place = int(np.flatnonzero(~np.isfinite(found))[0])
        raise BadSample("bad_features", f".{extension}: number {place} is {values[place]}, expected finite float32")
    return found


def _read_npy(content: bytes) -> Array:
    """The array of a .npy file. Not by numpy's own reader, which believes the shape and takes the memory for it."""
    file = io.BytesIO(content)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(file)
    if version not in readers:
        raise ValueError(f"version {version} of .npy")
    shape, is_fortran, dtype = readers[version](file)
    if dtype.kind not in "fiu":
        raise ValueError(f"it holds {dtype}, expected numbers")
    count, start = math.prod(shape), file.tell()
    if count * dtype.itemsize != len(content) - start:
        raise ValueError(f"shape {shape} of {dtype} does not fit its {len(content)} bytes")
    values: Array = np.frombuffer(content, dtype, count, start).reshape(shape, order="F" if is_fortran else "C")
    return values


def _only_array(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        if len(names) != 1:
            raise ValueError(f"found {len(names)} arrays, expected one")
        with archive.open(names[0]) as file:
            found = file.read(LARGEST_MEMBER + 1)
    if len(found) > LARGEST_MEMBER:
        raise ValueError(f"it unpacks to more than {LARGEST_MEMBER} bytes")
    return found


def stacked(vectors: Sequence[Array]) -> tuple[Array, Array]:
    """Features of samples as a matrix; d is their commonest length, of equally common ones that which comes first.

    Args:
        vectors: (d,) float32 each, as `read_member` gives them.

    Returns:
        (n, d) float32, and (n,) bool: which have d numbers. Rows of others are NaN.
    """
    lengths = [len(vector) for vector in vectors]
    (dim, _), *_ = Counter(lengths).most_common(1) or [(0, 0)]
    fits = np.array([length == dim for length in lengths], bool)
    values = np.full((len(vectors), dim), np.nan, np.float32)
    for row in np.flatnonzero(fits).tolist():
        values[row] = vectors[row]
    return values, fits


class GivenFeatures:
    """Features of files, opened once and asked by shard.

    Only what names the samples is held, some 50 bytes each; features are read as they are asked for. That is quick
    where those of a shard lie together, as tools write them, in row groups of some 10,000 rows.

    Args:
        parts: the files.
        source: what they are called in errors.

    Attributes:
        dim: d.
        num_rows: features in all files.

    Raises:
        InputError: two rows have the same name.
        ConfigError: no row has features, or some files have a column `shard` and others not.
    """

    def __init__(self, parts: Sequence[Part], source: str) -> None:
        self.source = source
        self._parts = [part for part in parts if part.num_rows]
        widths = (part.width() for part in self._parts)
        dim = next((width for width in widths if width), 0)
        if not dim:
            raise ConfigError(f"{source}: found no features in it")
        self.dim = dim
        self._names = Names([part.names for part in self._parts], source)
        self._starts = np.cumsum([0, *(part.num_rows for part in self._parts)])
        self.num_rows = int(self._starts[-1])

    def of_shard(self, shard_name: str, keys: Sequence[str]) -> tuple[Array, Array]:
        """The features of samples of one shard.

        Args:
            shard_name: as the final table has it; it is looked at where the files have a column `shard`.
            keys: of the samples, in any order.

        Returns:
            (n, d) float32 in the order of the keys, and (n,) bool: for which keys there is a row. A row that cannot
            be used (missing, of another length, not finite or too large for float32) is there and is NaN throughout;
            what is not there is NaN too.

        Raises:
            UnitError: the object store does not answer.
        """
        places = self.places(shard_name, keys)
        return self.read(places), places != NO_ROW

    def places(self, shard_name: str, keys: Sequence[str]) -> Array:
        """(n,) int64 rows of samples of one shard, counted through all files; `NO_ROW` where there is none."""
        return self._names.find(shard_name, keys)

    def read(self, places: Array) -> Array:
        """(n, d) float32 features of `places` (n,), NaN throughout where there is none or it cannot be used.

        Raises:
            UnitError: the object store does not answer.
        """
        values = np.full((len(places), self.dim), np.nan, np.float32)
        for part, start, stop in zip(self._parts, self._starts[:-1], self._starts[1:], strict=True):
            wanted = np.flatnonzero((places >= start) & (places < stop))
            if len(wanted):
                values[wanted] = part.read(places[wanted] - start, self.dim)
        values[~np.isfinite(values).all(axis=1)] = np.nan
        return values


def open_given(source: FileFeatures | ClipRetrieval, field: str = "data.features") -> GivenFeatures:
    """Opens the files of features, and looks at their columns and names.

    Args:
        source: where they lie.
        field: of the config, for errors.

    Raises:
        ConfigError: a file is not there, cannot be read, lacks a column or has another kind of features.
        InputError: names are there twice, or files that belong together have not equally many rows.
    """
    return GivenFeatures(open_parts(source, field), _where(source, field))


def given_digest(source: FileFeatures | ClipRetrieval, field: str = "data.features") -> str:
    """What the files are at this moment, for fingerprints.

    Args:
        source: where they lie.
        field: of the config, for errors.

    Returns:
        SHA-256 in hex over the content of local Parquet files, and over size and time (or etag) of all others.

    Raises:
        ConfigError: a file is not there or cannot be read.
    """
    marks = [mark_of(file, field) for file in files_of(source, field)]
    return hashlib.sha256("\n".join(marks).encode()).hexdigest()


def _where(source: FileFeatures | ClipRetrieval, field: str) -> str:
    return f"{field} {source.pattern if isinstance(source, FileFeatures) else source.folder}"

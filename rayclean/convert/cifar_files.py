"""CIFAR's and CIFAR-N's files: pickles of arrays, of which nothing is called that they name."""

from __future__ import annotations

import _codecs
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from rayclean.errors import InputError

# Files of NumPy 1 name its module numpy.core.
_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
_ARRAY_PARTS: dict[tuple[str, str], Any] = {
    **{(module, "_reconstruct"): _RECONSTRUCT for module in _ARRAY_MODULES},
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _codecs.encode,  # how Python 3 writes bytes for Python 2
}
_INTEGERS = [type(np.dtype(code)) for code in ("int8", "uint8", "int16", "int32", "int64")]


class _ArrayUnpickler(pickle.Unpickler):
    """Loads plain containers, text, numbers and NumPy arrays, and calls nothing else that a pickle may name."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """One of the parts of an array."""
        if (module_name, global_name) not in _ARRAY_PARTS:
            raise pickle.UnpicklingError(f"it names {module_name}.{global_name}, and only arrays may be loaded")
        return _ARRAY_PARTS[module_name, global_name]


def load_arrays(file: Path, wanted: Sequence[str]) -> dict[str, Any]:
    """A pickled dict of arrays and lists.

    Args:
        file: one of CIFAR's.
        wanted: entries that it must have.

    Raises:
        InputError: missing, of another form, or with something else than arrays in it, which is never called.
    """
    try:
        with file.open("rb") as opened:
            found = _ArrayUnpickler(opened).load()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}; unpack CIFAR's Python version there") from error
    except Exception as error:  # a broken pickle raises nearly anything
        raise InputError(f"{file}: not a pickle of CIFAR's: {error}; fetch CIFAR's Python version again") from error
    return _with_entries(file, found, wanted)


def load_human_labels(file: Path, wanted: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """The labels of CIFAR-N: every entry, (N,) int64, by name.

    Args:
        file: written by `torch.save`.
        wanted: entries that it must have.

    Raises:
        InputError: as of `load_arrays`, or an entry that is no list of whole numbers.
    """
    import torch  # here, since the workers import this module too

    parts = [(part, f"{module}.{name}") for (module, name), part in _ARRAY_PARTS.items()]
    try:
        with torch.serialization.safe_globals([*parts, *_INTEGERS]):
            found = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read: {error.strerror}; put CIFAR-N's file there (github.com/UCSC-REAL/cifar-10-100n, "
            "data/), or name it with --labels"
        ) from error
    except Exception as error:
        # Between torch's advice to trust the file and a link: what is wrong.
        cause = ["", type(error).__name__, *[part.strip() for part in str(error).split("\n\n") if part.strip()]][-2]
        raise InputError(f"{file}: not a file of labels alone: {cause[:200]}; fetch it again") from error
    labels = {name: np.asarray(values) for name, values in _with_entries(file, found, wanted).items()}
    for name, values in labels.items():
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise InputError(
                f"{file}: {name} is {values.dtype} of shape {values.shape}, expected one whole number per row"
            )
    return {name: values.astype(np.int64) for name, values in labels.items()}


def _with_entries(file: Path, found: object, wanted: Sequence[str]) -> dict[str, Any]:
    if not isinstance(found, dict) or not set(wanted) <= set(found):
        what = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise InputError(f"{file}: found {what[:200]}, expected {', '.join(wanted)}; fetch the file again")
    return found

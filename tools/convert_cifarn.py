"""CIFAR-10N and CIFAR-100N (Wei et al., ICLR 2022) to shards: CIFAR's images with all the labels people gave them.

    .venv/bin/python tools/convert_cifarn.py /data/cifar shards/cifar10n --set cifar10
    .venv/bin/python tools/convert_cifarn.py /data/cifar shards/cifar100n --set cifar100

ROOT holds CIFAR's Python version unpacked, as torchvision has it (`cifar-10-batches-py/` or `cifar-100-python/`), and
`CIFAR-10_human.pt` or `CIFAR-100_human.pt`; `--labels` names the latter where it lies elsewhere.

| split | JSON |
|---|---|
| `cifar10n-train` | `label` (= `worse_label`), `clean_label`, `aggre_label`, `worse_label`, `random_label1` .. `3` |
| `cifar100n-train` | `label` (= `noisy_label`), `clean_label`, `noisy_label`, and both of the coarse classes |
| `cifar10n-test`, `cifar100n-test` | `label` and, the same, `clean_label` |

A config picks others by `data.label: json:aggre_label`. `index` is the position in torchvision's order, and the key
(`000123`; `t000123` in the test set). The source has pixels, not files, so images are PNG, which loses nothing.
"""

from __future__ import annotations

import _codecs
import hashlib
import io
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rayclean.errors import InputError
from rayclean.shards.write import Sample
from tools.convert import Facts, Split, call, convert, make_parser, read_options

SIDE = 32
PIXELS = 3 * SIDE * SIDE
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


@dataclass(frozen=True)
class CifarSet:
    """Where a set's parts lie.

    Attributes:
        folder: of torchvision's.
        train: its files, in torchvision's order.
        test: its file.
        names: file and entry of the class names.
        label: entry of the true classes.
        human: file of the labels that people gave.
        given: the one of them that becomes `label`.
    """

    folder: str
    train: tuple[str, ...]
    test: str
    names: tuple[str, str]
    label: str
    human: str
    given: str


SETS = {
    "cifar10": CifarSet(
        "cifar-10-batches-py",
        tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test_batch",
        ("batches.meta", "label_names"),
        "labels",
        "CIFAR-10_human.pt",
        "worse_label",
    ),
    "cifar100": CifarSet(
        "cifar-100-python",
        ("train",),
        "test",
        ("meta", "fine_label_names"),
        "fine_labels",
        "CIFAR-100_human.pt",
        "noisy_label",
    ),
}


@dataclass(frozen=True, slots=True)
class PixelItem:
    """An image that is pixels.

    Attributes:
        key: see the module.
        pixels: red, green and blue planes of SIDE x SIDE, one byte a value.
        facts: of the JSON member.
    """

    key: str
    pixels: bytes
    facts: Facts

    def identity(self) -> str:
        """Digest of the pixels, and the facts."""
        return json.dumps([hashlib.sha256(self.pixels).hexdigest(), self.facts])

    def sample(self) -> Sample:
        """As PNG; the same Pillow gives the same bytes."""
        planes = np.frombuffer(self.pixels, np.uint8).reshape(3, SIDE, SIDE)
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0))).save(buffer, "PNG")
        return self.key, {"png": buffer.getvalue(), "json": json.dumps(self.facts).encode()}


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
                f"{file}: {name} is {values.dtype} of shape {values.shape}, expected one whole number a row"
            )
    return {name: values.astype(np.int64) for name, values in labels.items()}


def _with_entries(file: Path, found: object, wanted: Sequence[str]) -> dict[str, Any]:
    if not isinstance(found, dict) or not set(wanted) <= set(found):
        what = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise InputError(f"{file}: found {what[:200]}, expected {', '.join(wanted)}; fetch the file again")
    return found


def list_train(parts: CifarSet, name: str, root: Path, human: Path, num_classes: int) -> Split:
    """The training images with all their labels.

    Raises:
        InputError: a file is missing or broken, or the true labels of both sources differ.
    """
    images = _read_images(parts, root, parts.train)
    labels = load_human_labels(human, ("clean_label", parts.given))
    truth = np.array([label for *_, label in images])
    for entry, values in labels.items():
        if len(values) != len(truth):
            raise InputError(f"{human}: found {len(values)} rows of {entry}, expected {len(truth)}; is it of this set?")
    if wrong := int((truth != labels["clean_label"]).sum()):
        raise InputError(
            f"{human}: found {wrong} clean labels of {len(truth)} that are not CIFAR's, expected none; fetch the file "
            "of this set in torchvision's order"
        )
    if not set(labels[parts.given].tolist()) <= set(range(num_classes)):
        raise InputError(f"{human}: {parts.given} has others than 0..{num_classes - 1}; fetch the file again")
    items = []
    for index, (path, pixels, _) in enumerate(images):
        given = {entry: int(values[index]) for entry, values in labels.items()}
        facts = {"label": given[parts.given], **given, "index": index, "path": path}
        items.append(PixelItem(f"{index:06d}", pixels, facts))
    return Split(f"{name}n-train", items, len(items) * PIXELS)


def list_test(parts: CifarSet, name: str, root: Path) -> Split:
    """The test images, whose labels are true. Raises InputError."""
    items = []
    for index, (path, pixels, label) in enumerate(_read_images(parts, root, [parts.test])):
        facts = {"label": label, "clean_label": label, "index": index, "path": path}
        items.append(PixelItem(f"t{index:06d}", pixels, facts))
    return Split(f"{name}n-test", items, len(items) * PIXELS)


def _read_images(parts: CifarSet, root: Path, files: Sequence[str]) -> list[tuple[str, bytes, int]]:
    """File, pixels and true label of each image."""
    images = []
    for name in files:
        path = f"{parts.folder}/{name}"
        found = load_arrays(root / path, ("data", parts.label))
        data, labels = np.asarray(found["data"]), [int(label) for label in found[parts.label]]
        if data.dtype != np.uint8 or data.shape != (len(labels), PIXELS):
            raise InputError(
                f"{root / path}: found {data.dtype} pixels of shape {data.shape}, expected uint8 of "
                f"({len(labels)}, {PIXELS}); fetch CIFAR's Python version again"
            )
        images += [(path, pixels.tobytes(), label) for pixels, label in zip(data, labels, strict=True)]
    return images


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser("Write CIFAR-10N or CIFAR-100N as shards.")
    parser.add_argument("--set", choices=SETS, default="cifar10", help="(cifar10)")
    parser.add_argument("--labels", type=Path, help="the file of human labels (ROOT/CIFAR-10_human.pt)")
    found = parser.parse_args(arguments)
    parts, root = SETS[found.set], Path(found.root)
    file, entry = parts.names
    classes = [str(name) for name in load_arrays(root / parts.folder / file, [entry])[entry]]
    train = list_train(parts, found.set, root, found.labels or root / parts.human, len(classes))
    convert([train, list_test(parts, found.set, root)], classes, read_options(found))


if __name__ == "__main__":
    call(main)

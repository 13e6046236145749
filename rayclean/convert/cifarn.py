"""CIFAR-10N and CIFAR-100N (Wei et al., ICLR 2022): CIFAR's images with all the labels people gave them.

| split | JSON |
|---|---|
| `cifar10n-train` | `label` (= `worse_label`), `clean_label`, `aggre_label`, `worse_label`, `random_label1` .. `3` |
| `cifar100n-train` | `label` (= `noisy_label`), `clean_label`, `noisy_label`, and both of the coarse classes |
| `cifar10n-test`, `cifar100n-test` | `label` and, the same, `clean_label` |

A config picks others by `data.label: json:aggre_label`. `index` is the position in torchvision's order, and the key
(`000123`; `t000123` in the test set). The source has pixels, not files, so images are PNG, which loses nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from rayclean.convert.cifar_files import load_arrays, load_human_labels
from rayclean.convert.samples import Facts, Found, Source, Split
from rayclean.errors import InputError
from rayclean.shards.write import Sample

SIDE = 32
PIXELS = 3 * SIDE * SIDE


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
        pixels: red, green and blue planes of SIDE x SIDE, one byte per value.
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


def cifarn(source: Source, set: str, labels: str | None) -> Found:
    """The training images with all their labels, the test images with the true ones, and the classes.

    Args:
        source: with torchvision's folder of the set.
        set: of SETS.
        labels: the file of the labels that people gave; None: in the folder, by its own name.

    Raises:
        InputError: a file is missing or broken, or the true labels of both sources differ.
    """
    parts, root = SETS[set], Path(source.root)
    file, entry = parts.names
    classes = [str(name) for name in load_arrays(root / parts.folder / file, [entry])[entry]]
    human = root / parts.human if labels is None else Path(labels)
    train = _list_train(parts, set, root, human, len(classes))
    return Found([train, _list_test(parts, set, root)], classes)


def _list_train(parts: CifarSet, name: str, root: Path, human: Path, num_classes: int) -> Split:
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


def _list_test(parts: CifarSet, name: str, root: Path) -> Split:
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

"""Small images and tars made by hand, so that a test says which bytes it is about."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from rayclean.storage.published import MANIFEST, Published, TableFile
from rayclean.storage.store import Store

Content = tuple[str, bytes]

BLOCK = tarfile.BLOCKSIZE


def random_pixels(seed: int, height: int = 8, width: int = 8) -> npt.NDArray[np.uint8]:
    """(height, width, 3) uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def image_bytes(image: Image.Image | npt.NDArray[np.uint8], kind: str = "PNG", **options: Any) -> bytes:
    """An encoded image."""
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png_bytes(seed: int = 0, height: int = 8, width: int = 8) -> bytes:
    """A PNG of `random_pixels`."""
    return image_bytes(random_pixels(seed, height, width))


def member_bytes(name: str, content: bytes, tar_format: int = tarfile.USTAR_FORMAT, kind: bytes = b"0") -> bytes:
    """One member: header, content, padding; no end-of-archive blocks."""
    info = tarfile.TarInfo(name)
    info.size, info.type = len(content), kind
    header: bytes = info.tobuf(tar_format)  # type: ignore[arg-type]
    return header + content + bytes(-len(content) % BLOCK)


def tar_bytes(members: Iterable[Content], tar_format: int = tarfile.USTAR_FORMAT) -> bytes:
    """A whole tar of these members in this order, names repeated or not."""
    return b"".join(member_bytes(*member, tar_format) for member in members) + bytes(2 * BLOCK)


def write_tar(path: Path, members: Iterable[Content], tar_format: int = tarfile.USTAR_FORMAT) -> str:
    """Writes `tar_bytes`; returns the path as a shard's URL."""
    path.write_bytes(tar_bytes(members, tar_format))
    return str(path)


def sample(key: str, label: object = 0, seed: int = 0) -> list[Content]:
    """Members of a good sample, as WebDataset's writer orders them."""
    return [(f"{key}.cls", str(label).encode()), (f"{key}.png", png_bytes(seed))]


def samples(labels: Sequence[object]) -> list[Content]:
    """Good samples `k0`, `k1`, ... with different images."""
    return [member for i, label in enumerate(labels) for member in sample(f"k{i}", label, seed=i)]


def republish(store: Store, names: Sequence[str] | None = None) -> None:
    """Makes the files of a published table, which a test has changed, and class names those of its manifest."""
    old = Published.open(store)
    files = tuple(TableFile.of(file.path, store.read(file.path)) for file in old.files)
    new = Published(store, old.merge, old.names if names is None else tuple(names), old.lease, files)
    store.publish(MANIFEST, new.encode())

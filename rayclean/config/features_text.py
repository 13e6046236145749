"""What `data.features` may be, where features lie that another tool computed, and what it goes together with."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rayclean.config.sections import DataSection, ModelSection

MEMBERS = ("npy", "npz")
PICKLED = ("pt", "pth", "pkl", "pickle", "bin", "ckpt")
FILE, CLIP_RETRIEVAL = "file", "clip-retrieval"
_EXTENSION = re.compile(r"[A-Za-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*")


@dataclass(frozen=True)
class MemberFeatures:
    """Features in the shards, a member of each sample; `extension` in lower case, such as `npy` or `emb.npy`."""

    extension: str


@dataclass(frozen=True)
class FileFeatures:
    """Features in Parquet files; `pattern` is a path or URL, a glob or a brace range."""

    pattern: str


@dataclass(frozen=True)
class ClipRetrieval:
    """A folder as clip-retrieval writes it: `img_emb/img_emb_0.npy`, ... beside `metadata/metadata_0.parquet`, ..."""

    folder: str


Features = MemberFeatures | FileFeatures | ClipRetrieval


def parse_features(text: str) -> Features:
    """Reads `data.features`.

    Args:
        text: the extension of a member (`npy`, `emb.npy`, `npz`), `file:PATTERN` or `clip-retrieval:FOLDER`.

    Raises:
        ValueError: it is none of these; says what is expected.
    """
    kind, colon, rest = text.strip().partition(":")
    place = rest.strip()
    if colon and kind in (FILE, CLIP_RETRIEVAL):
        if not place or "\0" in place:
            raise ValueError(f"data.features {text!r}: expected a path after {kind}:")
        return FileFeatures(place) if kind == FILE else ClipRetrieval(place)
    extension = kind.lower().removeprefix(".")
    last = extension.rpartition(".")[2]
    if last in PICKLED:
        raise ValueError(f"data.features {text!r}: .{last} holds pickles, which are never loaded; write .npy members")
    if colon or not _EXTENSION.fullmatch(extension) or last not in MEMBERS:
        raise ValueError(
            f"data.features {text!r}: expected a member's extension that ends in {' or '.join(MEMBERS)} (such as "
            f"emb.npy), {FILE}:PATTERN of Parquet files, or {CLIP_RETRIEVAL}:FOLDER"
        )
    return MemberFeatures(extension)


def check_features(data: DataSection, model: ModelSection) -> None:
    """Refuses a config in which nothing says, or two things say, where features come from.

    Raises:
        ValueError: with the fields that do not go together.
    """
    if data.features is not None:
        parse_features(data.features)
        if model.frozen:
            raise ValueError("data.features and model.frozen are both set; features come from one of them")
    elif not data.has_images:
        raise ValueError("data.image is none, so data.features must say where features are, such as npy")
    if model.frozen and model.bottleneck is not None:
        raise ValueError("model.bottleneck is a layer that is trained, but model.frozen is set; leave one out")

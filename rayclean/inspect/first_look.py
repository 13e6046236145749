"""What lies in shards, by the first samples of a few of them: for proposals to people, never for a run."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from rayclean.catalog.labels import FOLDER, LabelField, LabelValue
from rayclean.config.features_text import MEMBERS
from rayclean.errors import ConfigError, InputError
from rayclean.shards.decode import BadSample
from rayclean.shards.formats import format_name
from rayclean.shards.opening import open_shard, read_content
from rayclean.shards.tar import Member, TruncatedTar, group_members, scan_members
from rayclean.shards.urls import expand_shards

LOOKED_SHARDS = 3
LOOKED_SAMPLES = 2000  # of each
ASKED_SAMPLES = 20  # whose members say where labels may be
LARGEST_TEXT = 2**20  # bytes
LONGEST_LABEL = 100  # characters
MOST_OFTEN = 0.9  # the share of the samples in which a label must be
REPEATED = 0.5  # a place with more values than this share of the samples says who a sample is, not what

# What labels are called, from the likeliest on; what else repeats may be a width or a licence.
_NAMES = (
    re.compile(r"cls|label|class"),
    re.compile(r"label_?(id|name|idx)|class_?(id|name|idx)|category(_?(id|name))?|target|(fine|given|noisy)_label"),
    re.compile(r"folder"),
    re.compile(r".*(label|class|categor).*"),
)
_TRUTH = re.compile(r".*(truth|true|clean|verified|gold).*")
_WHOLE = re.compile(r"-?[0-9]{1,9}")


@dataclass(frozen=True)
class Place:
    """Where labels may lie.

    Attributes:
        field: for `data.label`.
        counts: samples by what is written there; numbers as numbers, also where they are text.
    """

    field: str
    counts: Mapping[int | str, int]

    @property
    def rank(self) -> int:
        """How likely labels are called so: 0 is the likeliest; `len(_NAMES)` is anybody's guess."""
        name = self.field.rpartition(":")[2].rpartition(".")[2].lower()
        if _TRUTH.fullmatch(name):
            return len(_NAMES)
        return next((rank for rank, known in enumerate(_NAMES) if known.fullmatch(name)), len(_NAMES))

    @property
    def has_numbers(self) -> bool:
        """Whether all labels are whole numbers."""
        return all(isinstance(value, int) for value in self.counts)

    @property
    def numbers(self) -> list[int]:
        """Those of them that are."""
        return [value for value in self.counts if isinstance(value, int)]


@dataclass
class FirstLook:
    """What was seen.

    Attributes:
        shards: all of the pattern.
        num_samples: that were looked at.
        extensions: samples that have a member of this extension.
        images: those that are images, as `data.image` has them; empty where there are none.
        places: where labels may be, the likeliest first.
    """

    shards: list[str]
    num_samples: int = 0
    extensions: Counter[str] = field(default_factory=Counter)
    images: list[str] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)

    @property
    def features(self) -> str | None:
        """The extension of features that are there, for `data.features`."""
        return next((each for each in sorted(self.extensions) if each.rpartition(".")[2] in MEMBERS), None)

    def place(self, name: str) -> Place | None:
        """What was seen at a place; None where that cannot be labels."""
        return next((place for place in self.places if place.field == name), None)

    @property
    def label(self) -> Place | None:
        """Where labels lie, by their name; None where that would be a guess."""
        return next((place for place in self.places if place.rank < len(_NAMES)), None)


def look_at_shards(patterns: str | Sequence[str]) -> FirstLook:
    """Looks at the first samples of the first shard, of one in the middle and of the last one.

    Raises:
        ConfigError: a pattern that is none.
        InputError: it matches nothing, or what it matches is no tar or has no samples.
    """
    look = FirstLook(expand_shards(patterns))
    step = max(1, (len(look.shards) - 1) // max(LOOKED_SHARDS - 1, 1))
    samples: list[tuple[str, dict[str, bytes]]] = []
    for url in dict.fromkeys([*look.shards[::step][: LOOKED_SHARDS - 1], look.shards[-1]]):
        for members, contents in islice(_samples(url, look.images), LOOKED_SAMPLES):
            look.extensions.update({member.extension for member in members})
            samples.append((members[0].key, contents))
    if not samples:
        raise InputError(
            f"{patterns}: {look.shards[0]} has no samples; each is files with one name, such as 7.png, 7.cls"
        )
    look.num_samples = len(samples)
    fields = dict.fromkeys(name for key, contents in samples[:ASKED_SAMPLES] for name in _fields(key, contents))
    found = [place for name in fields if (place := _place(name, samples)) is not None]
    look.places = sorted(found, key=lambda place: (place.rank, len(place.field)))
    return look


def _samples(url: str, images: list[str]) -> Iterator[tuple[list[Member], dict[str, bytes]]]:
    """Members of each sample, and the contents of those that are texts; notes which extensions are images."""
    with open_shard(url) as file:

        def whole() -> Iterator[Member]:
            try:
                yield from scan_members(file, url)
            except TruncatedTar:
                return

        for members in group_members(whole(), lambda member: (member.key, member.extension)):
            contents = {}
            for member in members:
                if member.link or member.extension in images or member.extension.rpartition(".")[2] in MEMBERS:
                    continue
                head = read_content(file, member.offset, min(member.size, 16), url)
                if _is_image(head):
                    images.append(member.extension)
                elif member.size <= LARGEST_TEXT:
                    contents[member.extension] = read_content(file, member.offset, member.size, url)
            yield members, contents


def _is_image(head: bytes) -> bool:
    """Whether a file that begins so is an image that can be decoded."""
    return format_name(head) in ("PNG", "JPEG", "WebP", "GIF", "BMP", "TIFF")


def _fields(key: str, contents: Mapping[str, bytes]) -> Iterator[str]:
    """Where a label may lie in one sample, as `data.label` says it."""
    for extension, content in contents.items():
        if extension.rpartition(".")[2] != "json":
            yield extension
            continue
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):
            continue
        yield from (f"{extension}:{path}" for path in _paths(value) if path)
    if "/" in key:
        yield FOLDER


def _paths(value: object) -> Iterator[str]:
    """The fields of JSON that hold one number or name."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        for name, inner in value.items():
            if name and "." not in name:
                yield from (f"{name}.{path}" if path else name for path in _paths(inner))
    elif isinstance(value, (int, float, str)):
        yield ""


def _place(name: str, samples: Sequence[tuple[str, Mapping[str, bytes]]]) -> Place | None:
    """A place with what is written there; None where that cannot be labels."""
    try:
        where = LabelField.parse(name)
    except ConfigError:
        return None
    counts: Counter[int | str] = Counter()
    for key, contents in samples:
        try:
            value = _label(where.read(key, contents))
        except BadSample:
            continue
        if value is None:
            return None
        counts[value] += 1
    total = sum(counts.values())
    is_label = total >= MOST_OFTEN * len(samples) and 2 <= len(counts) <= max(REPEATED * total, 2)
    return Place(name, counts) if is_label else None


def _label(value: LabelValue) -> int | str | None:
    """A label, a number where it is one; None for what is none."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, bool) or not isinstance(value, str):
        return None if isinstance(value, bool) else value
    if _WHOLE.fullmatch(value):
        return int(value)
    return value if 0 < len(value) <= LONGEST_LABEL and value.isprintable() else None

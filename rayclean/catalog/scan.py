"""One shard to rows: every sample becomes a row, or is put aside with its reason.

Reads the shard once from start to end and looks at each sample once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from rayclean.catalog.labels import ClassList, LabelField
from rayclean.catalog.looks import Look, PixelLook, Seen
from rayclean.schema import NO_ROW
from rayclean.shards.decode import BadSample
from rayclean.shards.opening import open_shard, read_content
from rayclean.shards.tar import Member, TruncatedTar, group_members, kind_of, scan_members

MAX_TEXT = 300
LARGEST_LABEL = 2**24  # bytes
BYTES_PER_PIXEL = 8  # four channels of 16 bits; no file with its pixels unpacked has more

ROWS_SCHEMA = pa.schema(
    [
        ("index_in_shard", pa.int32()),  # position among the shard's rows
        ("sample", pa.int32()),  # position among all its samples
        ("key", pa.string()),
        ("member", pa.string()),  # name of the image in the tar
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("label", pa.int32()),
        ("digest", pa.binary(16)),
    ]
)
CLIP_FIELD = pa.field("clip", pa.string())  # after these, where the data have clips
FEATURE_FIELD = pa.field("feature", pa.int32())  # position in the shard's file of features, where there are any
TRUTH_SCHEMA = pa.schema([("index_in_shard", pa.int32()), ("label", pa.int32())])
QUARANTINE_SCHEMA = pa.schema(
    [("sample", pa.int32()), ("key", pa.string()), ("reason", pa.string()), ("text", pa.string())]
)


@dataclass(frozen=True)
class ScanSettings:
    """How a sample is read.

    Attributes:
        images: extensions of image members, lower case, best first; none where samples have no image.
        label: where the given label is.
        truth: where the true label is, None without truth.
        verified: where a label that people have verified is, None where it is the given one.
        classes: what labels mean.
        max_pixels: see `decode_image`.
        clip: where a frame says which clip it is of, None where images stand alone.
        max_scans: see `decode_image`.
    """

    images: tuple[str, ...]
    label: LabelField
    truth: LabelField | None
    classes: ClassList
    max_pixels: float
    clip: LabelField | None = None
    max_scans: int = 100
    verified: LabelField | None = None

    @property
    def label_members(self) -> frozenset[str]:
        """Extensions of the members that say what a sample is."""
        fields = (self.label, self.truth, self.clip, self.verified)
        return frozenset[str]().union(*(each.members for each in fields if each))

    def look(self) -> PixelLook:
        """The usual look at a sample."""
        return PixelLook(self.images, self.max_pixels, self.max_scans)


@dataclass(frozen=True)
class ShardScan:
    """What a shard holds: `rows.num_rows + quarantine.num_rows == num_samples`.

    Attributes:
        rows: ROWS_SCHEMA, the clip where the data have clips, the place of the features where there are any.
        truth: TRUTH_SCHEMA, one line per row; `NONE_OF_CLASSES` where the sample is of none of the classes, null where
            the truth is missing, null or unreadable; None without truth.
        verified: the same of verified labels, which always name a class.
        quarantine: QUARANTINE_SCHEMA.
        num_samples: groups of members in the tar of which one at least may say what a sample shows or is.
        truncated: how the tar breaks off, empty for a whole one.
        strays: files that belong to no sample, by kind.
    """

    rows: pa.Table
    truth: pa.Table | None
    verified: pa.Table | None
    quarantine: pa.Table
    num_samples: int
    truncated: str
    strays: Counter[str] = field(default_factory=Counter)


class _Part(NamedTuple):
    member: Member
    content: bytes | None  # None for members that are not needed or too large, and for the one that is cut


class _Row(NamedTuple):
    member: Member
    label: int
    truth: int | None
    verified: int | None
    clip: str | None
    seen: Seen


@dataclass
class _Scan:
    """State of one pass."""

    settings: ScanSettings
    look: Look
    broken: TruncatedTar | None = None
    keys: set[str] = field(default_factory=set)  # of the rows so far
    strays: Counter[str] = field(default_factory=Counter)

    def parts(self, file: BinaryIO, url: str) -> Iterator[_Part]:
        """Members with their content; the cut one, where it is known, comes last."""
        wanted = self.extensions
        try:
            for member in scan_members(file, url, self.strays):
                fits = member.size <= self.max_bytes(member.extension)
                is_wanted = member.extension in wanted and fits and not member.link
                yield _Part(member, read_content(file, member.offset, member.size, url) if is_wanted else None)
        except TruncatedTar as broken:
            self.broken = broken
            if broken.member:
                yield _Part(broken.member, None)

    @property
    def extensions(self) -> frozenset[str]:
        """Members that are read."""
        return self.settings.label_members | self.look.members

    def max_bytes(self, extension: str) -> float:
        """The largest member of an extension that is read, so that a shard's largest does not decide on the memory."""
        is_shown = extension in self.look.shows and extension not in self.settings.label_members
        return LARGEST_LABEL + (self.settings.max_pixels * BYTES_PER_PIXEL if is_shown else 0)

    def judge(self, index: int, sample: list[_Part]) -> _Row:
        """The row of a sample. Raises BadSample.

        What it shows is looked at whatever its label is, so that features do not depend on how labels are read.
        """
        members = {part.member.extension: part.member for part in sample}
        contents = {part.member.extension: part.content for part in sample if part.content is not None}
        self._check_members(members)
        shown = self._shown(members, contents)
        seen = self._seen(index, shown.key, contents)
        value = self.settings.label.read(shown.key, contents)
        if shown.key in self.keys:
            raise BadSample("duplicate_key", "a complete sample of this key came before")
        label = self.settings.classes.index_of(value)
        clip = self._clip(shown.key, contents)
        if isinstance(seen, BadSample):
            raise seen
        self.keys.add(shown.key)
        truth = self._known(self.settings.truth, shown.key, contents, self.settings.classes.truth_of)
        verified = self._known(self.settings.verified, shown.key, contents, self.settings.classes.index_of)
        return _Row(shown, label, truth, verified, clip, seen)

    def _shown(self, members: Mapping[str, Member], contents: Mapping[str, bytes]) -> Member:
        """The member that stands for a sample: its best image, without images any."""
        there = contents if self.look.members & set(self.settings.images) else members
        if not self.settings.images:
            return next(iter(members.values()))
        image = next((members[extension] for extension in self.settings.images if extension in there), None)
        if image is None:
            found = ", ".join(sorted(members)) or "none"
            raise BadSample("missing_image", f"expected {', '.join(self.settings.images)}, found {found}")
        return image

    def _seen(self, index: int, key: str, contents: Mapping[str, bytes]) -> Seen | BadSample:
        try:
            return self.look.see(index, key, contents)
        except BadSample as bad:
            return bad

    def is_sample(self, group: list[_Part]) -> bool:
        """Whether one member at least may say what a sample shows or is."""
        kinds = self.settings.label_members | self.look.shows
        return not self.look.shows or any(part.member.extension in kinds for part in group)

    def _check_members(self, members: Mapping[str, Member]) -> None:
        for extension in sorted((self.settings.label_members | self.look.shows).intersection(members)):
            size, allowed = members[extension].size, self.max_bytes(extension)
            if link := members[extension].link:
                raise BadSample(
                    "link",
                    f".{extension} is a link to {link[:100]!r}, no file before it in the shard; pack it with tar -h",
                )
            if size > allowed:
                raise BadSample("too_large", f".{extension} has {size} bytes, allowed are {allowed:.0f}")

    def _clip(self, key: str, contents: Mapping[str, bytes]) -> str | None:
        if self.settings.clip is None:
            return None
        try:
            return str(self.settings.clip.read(key, contents))
        except BadSample as bad:
            raise BadSample("missing_clip" if bad.reason == "missing_label" else "bad_clip", bad.text) from None

    def _known(
        self, field: LabelField | None, key: str, contents: Mapping[str, bytes], meaning: Callable[[object], int]
    ) -> int | None:
        try:
            return None if field is None else meaning(field.read(key, contents))
        except BadSample:  # a row needs neither truth nor a verified label
            return None


def scan_shard(url: str, settings: ScanSettings, look: Look | None = None) -> ShardScan:
    """Catalogs a shard.

    A sample is a row if its image decodes, its label is a class and no row before has its key. Of a tar that
    breaks off, the sample at the break is put aside: nothing says that it was whole.

    Args:
        url: absolute local path or fsspec URL.
        settings: how a sample is read.
        look: what is made of what it shows; by default the digest of its pixels.

    Raises:
        InputError: missing, no access, not a tar, or compressed.
        ShardChangedError: it became shorter while it was read.
    """
    scan = _Scan(settings, look or settings.look())
    keys: dict[int, str] = {}
    outcomes: dict[int, _Row | BadSample] = {}
    index, last = -1, list[_Part]()
    with open_shard(url) as file:
        groups = group_members(scan.parts(file, url), lambda part: (part.member.key, part.member.extension))
        for index, group in enumerate(groups):
            keys[index], last = group[0].member.key, group
            if not scan.is_sample(group):
                scan.strays.update(kind_of(part.member.name) for part in group)
                continue
            try:
                outcomes[index] = scan.judge(index, group)
            except BadSample as bad:
                outcomes[index] = bad.with_traceback(None)  # its frames would hold the image
    for index, seen in scan.look.finish().items():
        outcome = outcomes[index]
        if isinstance(outcome, _Row):
            outcomes[index] = seen if isinstance(seen, BadSample) else outcome._replace(seen=seen)
    _mark_apart(keys, outcomes)
    if scan.broken and last:
        if index not in outcomes:  # what makes it a sample may have been cut off
            scan.strays -= Counter(kind_of(part.member.name) for part in last)
        outcomes[index] = BadSample("truncated", scan.broken.reason)
    truncated = scan.broken.reason[:MAX_TEXT] if scan.broken else ""
    return _tables(keys, outcomes, settings, truncated, scan.strays)


def _mark_apart(keys: Mapping[int, str], outcomes: dict[int, _Row | BadSample]) -> None:
    """Says of samples that lack what another sample of their key has that their members lie apart."""
    lacking: dict[str, list[int]] = {}
    for index, outcome in outcomes.items():
        if isinstance(outcome, BadSample) and outcome.reason in ("missing_label", "missing_image", "missing_features"):
            lacking.setdefault(keys[index], []).append(index)
    for places in lacking.values():
        for index in places if len(places) > 1 else ():
            bad = outcomes[index]
            if isinstance(bad, BadSample):
                text = f"{bad.text}; members of this key lie apart in the shard: write it with tar --sort=name"
                outcomes[index] = BadSample(bad.reason, text)


def _tables(
    keys: Mapping[int, str],
    outcomes: Mapping[int, _Row | BadSample],
    settings: ScanSettings,
    truncated: str,
    strays: Counter[str],
) -> ShardScan:
    found = [(sample, row) for sample, row in outcomes.items() if isinstance(row, _Row)]
    rows = [
        {
            "index_in_shard": index,
            "sample": sample,
            "key": row.member.key,
            "member": row.member.name,
            "offset": row.member.offset,
            "size": row.member.size,
            "label": row.label,
            "digest": row.seen.digest,
            "clip": row.clip,
            "feature": row.seen.feature,
        }
        for index, (sample, row) in enumerate(found)
    ]
    truth = [{"index_in_shard": index, "label": row.truth} for index, (_, row) in enumerate(found)]
    verified = [{"index_in_shard": index, "label": row.verified} for index, (_, row) in enumerate(found)]
    quarantine = [
        {"sample": sample, "key": keys[sample], "reason": bad.reason, "text": bad.text[:MAX_TEXT]}
        for sample, bad in outcomes.items()
        if isinstance(bad, BadSample)
    ]
    schema = ROWS_SCHEMA if settings.clip is None else ROWS_SCHEMA.append(CLIP_FIELD)
    if any(row["feature"] != NO_ROW for row in rows):
        schema = schema.append(FEATURE_FIELD)
    return ShardScan(
        pa.Table.from_pylist(rows, schema),
        pa.Table.from_pylist(truth, TRUTH_SCHEMA) if settings.truth is not None else None,
        pa.Table.from_pylist(verified, TRUTH_SCHEMA) if settings.verified is not None else None,
        pa.Table.from_pylist(quarantine, QUARANTINE_SCHEMA),
        len(outcomes),
        truncated,
        strays,
    )

"""Bytes to pixels, by an allow-list of formats; whatever is wrong with a sample has a name."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from rayclean.shards.formats import format_name, without_texts

if TYPE_CHECKING:  # PIL is imported where it is used: what is in memory is scored without it
    from PIL import Image

Pixels = npt.NDArray[np.uint8]
Reason = Literal[
    "missing_label",
    "missing_image",
    "missing_clip",
    "missing_features",
    "undecodable",
    "bad_label",
    "bad_clip",
    "bad_features",
    "too_large",
    "too_many_scans",
    "link",
    "duplicate_key",
    "truncated",
]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
INTERPOLATIONS: tuple[str, ...] = get_args(Interpolation)
REASONS: tuple[str, ...] = get_args(Reason)
NAMES = ("PNG", "JPEG", "WebP")
FORMATS = tuple(name.upper() for name in NAMES)

_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xd9"
# After 0xff: an escaped 0xff of the pixels, restarts between them, the image's start, a filler.
_WITHOUT_LENGTH = frozenset([b"\x00", b"\x01", *(bytes([code]) for code in range(0xD0, 0xD9)), b"\xff"])


class BadSample(Exception):
    """A sample that cannot be a row.

    Attributes:
        reason: one of `REASONS`.
        text: for people.
    """

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(f"{reason}: {text}")
        self.reason = reason
        self.text = text

    def __reduce__(self) -> tuple[type[BadSample], tuple[Reason, str]]:
        return BadSample, (self.reason, self.text)


def decode_image(data: bytes, max_pixels: float, max_scans: int | None = None) -> Pixels:
    """Decodes a PNG, JPEG or WebP image; of an animation the first frame.

    Grey, palette and CMYK are converted; an alpha channel is dropped, so that a transparent pixel has the
    colour that is stored for it; of 16 bits the upper 8 are taken; the rotation in EXIF is applied.

    Args:
        data: the file.
        max_pixels: largest width x height, checked against the header before anything is decoded.
        max_scans: scans of a JPEG at most, each of which decodes the whole image anew; None where the catalog has
            counted them.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        BadSample: `too_large`, `too_many_scans`, or `undecodable` (another format, corrupt, cut).
    """
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # PIL's own limit: max_pixels takes its place, higher or lower
    try:
        return _decode(data, max_pixels, max_scans)
    except BadSample as bad:
        # PIL reads texts and profiles up to a size, and takes a larger one for the end of the image.
        if not isinstance(bad.__cause__, ValueError) or format_name(data) != "PNG":
            raise
    return _decode(without_texts(data), max_pixels, max_scans)


def _decode(data: bytes, max_pixels: float, max_scans: int | None) -> Pixels:
    from PIL import Image

    with _undecodable(data):
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
    if width * height > max_pixels:
        raise BadSample("too_large", f"{width} x {height} pixels, allowed are {max_pixels:.0f} (data.max_pixels)")
    if max_scans is not None and image.format == "JPEG":
        _check_scans(data, max_scans)
    with _undecodable(data):
        image.load()
        return _to_rgb(_upright(image))


@contextmanager
def _undecodable(data: bytes) -> Iterator[None]:
    from PIL import UnidentifiedImageError

    try:
        yield
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        found = format_name(data)
        said = "a broken header" if found in NAMES else f"expected {', '.join(NAMES)}"
        raise BadSample("undecodable", f"found {found}: {said}") from error
    except Exception as error:  # hostile bytes make PIL raise nearly anything: struct.error, SyntaxError, ...
        text = f"{format_name(data)}: {type(error).__name__}: {_without_address(error)}"
        raise BadSample("undecodable", text) from error


def _check_scans(data: bytes, max_scans: int) -> None:
    # Few files have so many pairs of bytes that look like a scan's marker.
    if data.count(_START_OF_SCAN) > max_scans and (scans := count_scans(data)) > max_scans:
        raise BadSample("too_many_scans", f"{scans} scans, allowed are {max_scans} (data.max_scans)")


def count_scans(jpeg: bytes) -> int:
    """Scans of a JPEG, read from its markers; what looks like one inside a segment, as in a preview, is none."""
    scans, position = 0, 2
    while (position := jpeg.find(b"\xff", position)) >= 0:
        code = jpeg[position + 1 : position + 2]
        if code in _WITHOUT_LENGTH:
            position += 1 if code == b"\xff" else 2
            continue
        if code in (b"", _END_OF_IMAGE):
            break
        scans += code == _START_OF_SCAN[1:]
        position += 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
    return scans


def _without_address(error: Exception) -> str:
    """PIL names the buffer by its address, which differs from run to run; published files must not."""
    return str(error).partition(" <_io.BytesIO")[0] or "no more is known"


def _upright(image: Image.Image) -> Image.Image:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image) if image.getexif() else image  # it copies what needs no turn
    except Exception:  # broken EXIF says nothing about the pixels, which are decoded by now
        return image


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith("I"):  # 16-bit grey, which PIL would clip instead of scale
        upper = np.clip(np.asarray(image).astype(np.int64), 0, 2**16 - 1) >> 8
        return np.repeat(upper.astype(np.uint8)[:, :, None], 3, axis=2)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def fit_image(pixels: Pixels, size: int, crop: float = 1.0, interpolation: Interpolation = "bilinear") -> Pixels:
    """Resizes the short side to `size / crop` (antialiased) and crops the centre.

    Only the centre square is resampled, from exact fractional bounds: the same picture as resizing first,
    without ever holding a very long strip at its new size.

    Args:
        pixels: (height, width, 3) uint8.
        size: side of the result.
        crop: share of the short side that the centre square has, above 0.
        interpolation: one of `INTERPOLATIONS`.

    Returns:
        (size, size, 3) uint8; the very same array where it already has this shape and all of it is seen.
    """
    height, width = pixels.shape[:2]
    if height == width == size and crop == 1:
        return pixels
    from PIL import Image

    side = min(height, width) * crop
    left, top = (width - side) / 2, (height - side) / 2
    image = Image.fromarray(pixels).resize(
        (size, size), Image.Resampling[interpolation.upper()], box=(left, top, left + side, top + side)
    )
    return np.array(image)

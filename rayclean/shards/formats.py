"""What a file is by its first bytes, and a PNG without what is not its pixels."""

from __future__ import annotations

# Where, which bytes, and what has them. First come, first served.
_SIGNATURES = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (8, b"WEBP", "WebP"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"\0\0\x01\0", "ICO"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftyp", "a video (MP4 or the like)"),
    (0, b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)"),
    (0, b"%PDF", "PDF"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"\x93NUMPY", "a NumPy array"),
)
_MARKUP = ((b"<svg", "SVG"), (b"<!doctype html", "HTML"), (b"<html", "HTML"), (b"<?xml", "XML"), (b"<", "markup"))
_BESIDE_THE_PIXELS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")


def format_name(data: bytes) -> str:
    """What a file is, for people: a format's name, or what its first bytes say otherwise."""
    if not data:
        return "an empty file"
    for at, signature, name in _SIGNATURES:
        if data.startswith(signature, at):
            return name
    head = data[:256]
    if not head.strip(b"\0"):
        return "zeros"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((name for start, name in _MARKUP if text.startswith(start)), "no known format")


def without_texts(png: bytes) -> bytes:
    """A PNG without its texts and its colour profile, of which no pixel depends; up to where it breaks off."""
    kept, position = [png[:8]], 8
    while position + 12 <= len(png):
        stop = position + 12 + int.from_bytes(png[position : position + 4], "big")
        if png[position + 4 : position + 8] not in _BESIDE_THE_PIXELS:
            kept.append(png[position:stop])
        position = stop
    return b"".join(kept)

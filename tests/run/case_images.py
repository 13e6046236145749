"""Images of every kind that people's shards hold under the usual extensions, by key."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.helpers import image_bytes, random_pixels


def picture(side: int = 24) -> Image.Image:
    """Noise of a square."""
    return Image.fromarray(random_pixels(side, side, side))


def encoded(kind: str, mode: str = "RGB", side: int = 24, **options: object) -> bytes:
    """The noise in a format, of a mode."""
    return image_bytes(picture(side).convert(mode), kind, **options)


def frames(kind: str) -> bytes:
    """Two frames."""
    return encoded(kind, "P" if kind == "GIF" else "RGB", 12, save_all=True, append_images=[picture(12).rotate(90)])


def ycck() -> bytes:
    """As Photoshop writes it: of CMYK's four channels the first three are luminance and colour differences."""
    data = encoded("JPEG", "CMYK")
    at = data.index(b"Adobe") + 11
    return data[:at] + b"\x02" + data[at + 1 :]


def big_text() -> bytes:
    """A PNG with a text of 3 MB once it is unpacked, which Pillow alone refuses."""
    texts = PngInfo()
    texts.add_text("comment", "x" * 3_000_000, zip=True)
    return encoded("PNG", pnginfo=texts)


def big_profile() -> bytes:
    """A PNG with a colour profile of 3 MB once it is unpacked."""
    data = encoded("PNG")
    body = b"iCCPicc\x00\x00" + zlib.compress(bytes(3_000_000))
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return data[:33] + chunk + data[33:]


def turned(orientation: int) -> bytes:
    """A JPEG whose EXIF says how it is turned; only 1 to 8 mean anything."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded("JPEG", exif=exif)


def grey16() -> bytes:
    """16 bits a pixel."""
    return image_bytes(Image.fromarray(np.arange(24 * 24, dtype=np.uint16).reshape(24, 24) * 100))


def transparent_palette() -> bytes:
    """A palette of which a colour is transparent."""
    return encoded("PNG", "P", 12, transparency=0)


def header_of(kind: str) -> bytes:
    """The start of a format that Pillow may not be built with."""
    starts = {"AVIF": b"\x00\x00\x00\x1cftypavif", "JP2": b"\x00\x00\x00\x0cjP  \r\n\x87\n"}
    return starts[kind] + bytes(200)


def strip() -> bytes:
    """Much wider than high."""
    return image_bytes(random_pixels(1, 10, 20_000))


def jpeg() -> bytes:
    """A plain one."""
    return encoded("JPEG")


KINDS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "plain_jpg": ("jpg", jpeg),
    "cmyk_jpg": ("jpg", lambda: encoded("JPEG", "CMYK")),
    "ycck_jpg": ("jpg", ycck),
    "png16grey": ("png", grey16),
    "mpo_jpg": ("jpg", lambda: frames("MPO")),
    "gif_in_jpg": ("jpg", lambda: encoded("GIF", "P", 12)),
    "anim_gif": ("gif", lambda: frames("GIF")),
    "anim_webp": ("webp", lambda: frames("WEBP")),
    "apng": ("png", lambda: frames("PNG")),
    "png_in_jpg": ("jpg", lambda: encoded("PNG")),
    "webp_in_jpg": ("jpg", lambda: encoded("WEBP")),
    "bmp_in_jpg": ("jpg", lambda: encoded("BMP")),
    "tiff_in_jpg": ("jpg", lambda: encoded("TIFF")),
    "avif_in_jpg": ("jpg", lambda: header_of("AVIF")),
    "jp2_in_jpg": ("jpg", lambda: header_of("JP2")),
    "png_bigtext": ("png", big_text),
    "png_bigicc": ("png", big_profile),
    "jpg_bigicc": ("jpg", lambda: encoded("JPEG", icc_profile=bytes(2_000_000))),
    "exif6": ("jpg", lambda: turned(6)),
    "exif_bad": ("jpg", lambda: turned(99)),
    "prog_cut": ("jpg", lambda: encoded("JPEG", side=64, progressive=True)[:926]),
    "jpg_cut_last2": ("jpg", lambda: jpeg()[:-2]),
    "jpg_trailing": ("jpg", lambda: jpeg() + bytes(1000)),
    "one_px": ("png", lambda: encoded("PNG", side=1)),
    "strip": ("png", strip),
    "pal_trns": ("png", transparent_palette),
    "la": ("png", lambda: encoded("PNG", "LA", 12)),
    "bw1": ("png", lambda: encoded("PNG", "1", 12)),
    "rgba": ("png", lambda: encoded("PNG", "RGBA", 12)),
    "empty": ("jpg", bytes),
    "html": ("jpg", lambda: b"<html><body>404</body></html>"),
    "upper": ("JPG", jpeg),
    "jpe": ("jpe", jpeg),
    "jfif": ("jfif", jpeg),
    "xmp_jpg": ("jpg", lambda: encoded("JPEG", xmp=b"<x:xmpmeta/>")),
}
# Those that are no row, with what is said of each. A JPEG that only lacks its end marker is taken for a cut one: Pillow
# does not tell them apart.
UNDECODABLE = {
    "gif_in_jpg": "found GIF",
    "anim_gif": "found cls, gif",
    "bmp_in_jpg": "found BMP",
    "tiff_in_jpg": "found TIFF",
    "avif_in_jpg": "found AVIF",
    "jp2_in_jpg": "found JPEG 2000",
    "prog_cut": "truncated",
    "jpg_cut_last2": "truncated",
    "empty": "found an empty file",
    "html": "found HTML",
}

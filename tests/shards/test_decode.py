"""Pixels of every kind of image that is a row, and the names of what is wrong with the rest."""

from __future__ import annotations

import io
import pickle
import re
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rayclean.shards.decode import INTERPOLATIONS, BadSample, count_scans, decode_image, fit_image
from rayclean.shards.formats import without_texts
from rayclean.storage.draws import pixel_digest
from tests.helpers import image_bytes, png_bytes, random_pixels

PIXELS = random_pixels(3, 6, 10)
RGB = Image.fromarray(PIXELS)
GREY = RGB.convert("L")


def bad_reason(data: bytes, max_pixels: float = 1e6) -> str:
    with pytest.raises(BadSample) as caught:
        decode_image(data, max_pixels)
    assert caught.value.text
    return caught.value.reason


def rgba() -> Image.Image:
    image = RGB.convert("RGBA")
    image.putalpha(Image.fromarray(random_pixels(4, 6, 10)[:, :, 0]))
    return image


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (image_bytes(RGB), PIXELS),
        (image_bytes(RGB, "WEBP", lossless=True), PIXELS),
        (image_bytes(rgba()), PIXELS),
        (image_bytes(GREY), np.array(GREY.convert("RGB"))),
        (image_bytes(GREY.convert("LA")), np.array(GREY.convert("RGB"))),
        (image_bytes(RGB.quantize(16)), np.array(RGB.quantize(16).convert("RGB"))),
        (image_bytes(RGB.quantize(16), transparency=2), np.array(RGB.quantize(16).convert("RGB"))),
        (image_bytes(RGB.convert("1")), np.array(RGB.convert("1").convert("RGB"))),
        (image_bytes(Image.new("CMYK", (10, 6), (255, 0, 0, 0)), "JPEG"), np.full((6, 10, 3), (0, 255, 255))),
    ],
    ids=["rgb", "webp", "rgba", "grey", "grey+alpha", "palette", "palette+transparent", "bits", "cmyk"],
)
def test_every_mode_becomes_rgb(data: bytes, expected: np.ndarray) -> None:
    pixels = decode_image(data, 1e6)
    assert pixels.shape == (6, 10, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - expected).max() <= (2 if data[:2] == b"\xff\xd8" else 0)


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    pixels = decode_image(image_bytes(Image.fromarray(values)), 1e6)
    np.testing.assert_array_equal(pixels[0, :, 0], values[0] >> 8)
    assert (pixels == pixels[:, :, :1]).all()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (6, 4)])
def test_16_bit_colour_keeps_the_upper_8(colour: int, channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 2**16, (1, 4, channels)).astype(">u2")
    pixels = decode_image(raw_png(4, 1, 16, colour, b"\0" + values.tobytes()), 1e6)
    np.testing.assert_array_equal(pixels, values[:, :, :3] >> 8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_the_rotation_of_exif_is_applied(kind: str, orientation: int, turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = decode_image(image_bytes(RGB, kind), 1e6)
    turned = decode_image(image_bytes(RGB, kind, exif=exif), 1e6)
    np.testing.assert_array_equal(turned, np.rot90(plain, turns))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_cost_the_image() -> None:
    data = image_bytes(RGB, "JPEG", exif=b"Exif\0\0II*\0garbage")
    np.testing.assert_array_equal(decode_image(data, 1e6), decode_image(image_bytes(RGB, "JPEG"), 1e6))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_cut_image_is_undecodable(kind: str) -> None:
    data = image_bytes(random_pixels(0, 64, 64), kind)
    for share in (0.0, 0.1, 0.5, 0.9):
        assert bad_reason(data[: int(len(data) * share)]) == "undecodable"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (image_bytes(RGB, "GIF"), "found GIF: expected PNG, JPEG, WebP"),
        (image_bytes(RGB, "BMP"), "found BMP: expected"),
        (image_bytes(RGB, "TIFF"), "found TIFF: expected"),
        (image_bytes(RGB, "PPM"), "found no known format: expected"),
        (b"\0\0\0\x20ftypavif\0\0", "found AVIF: expected"),
        (b"\0\0\0\x18ftypheic\0\0", "found HEIC: expected"),
        (b"\xef\xbb\xbf\n<!DOCTYPE HTML>", "found HTML: expected"),
        (b"", "found an empty file: expected"),
        (bytes(5000), "found zeros: expected"),
        (png_bytes()[:12], "found PNG: a broken header|PNG: "),
        (image_bytes(RGB, "JPEG")[:-30], "JPEG: OSError: image file is truncated"),
        (image_bytes(RGB)[:-40], "PNG: "),
    ],
)
def test_the_reason_names_the_format_that_was_found(data: bytes, said: str) -> None:
    with pytest.raises(BadSample, match=f"^undecodable: ({said})"):
        decode_image(data, 1e6)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


LARGE = zlib.compress(b"x" * 2**21)
BESIDE = {
    "zTXt": chunk(b"zTXt", b"a\0\0" + LARGE),
    "iTXt": chunk(b"iTXt", b"a\0\1\0\0\0" + LARGE),
    "iCCP": chunk(b"iCCP", b"a\0\0" + LARGE),
    "many": chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * (2**20 - 1))) * 70,
}


@pytest.mark.parametrize("kind", BESIDE)
@pytest.mark.parametrize("at", [33, -12], ids=["before the pixels", "after them"])
def test_texts_and_profiles_that_are_too_large_are_skipped(kind: str, at: int) -> None:
    data = image_bytes(RGB)
    if kind == "iCCP" and at < 0:
        return  # PIL reads none there
    changed = data[:at] + BESIDE[kind] + data[at:]
    with pytest.raises(ValueError, match=r"too large|Too much"), Image.open(io.BytesIO(changed)) as image:
        image.load()
    np.testing.assert_array_equal(decode_image(changed, 1e6), PIXELS)


@given(st.binary(max_size=80))
def test_a_png_without_texts_ends_whatever_the_bytes(data: bytes) -> None:
    assert len(without_texts(data)) <= len(data)
    assert without_texts(image_bytes(RGB)) == image_bytes(RGB)


def test_a_pickle_is_no_image() -> None:
    assert bad_reason(pickle.dumps({"image": [1]})) == "undecodable"


@given(st.binary(max_size=8), st.integers(0, 150))
def test_damaged_bytes_are_pixels_or_undecodable(damage: bytes, at: int) -> None:
    data = png_bytes()
    try:
        decode_image(data[:at] + damage + data[at + len(damage) :], 1e6)
    except BadSample as bad:
        assert bad.reason in ("undecodable", "too_large")  # noqa: PT017


def test_the_text_does_not_differ_from_run_to_run() -> None:
    with pytest.raises(BadSample) as one:
        decode_image(b"no image", 1e6)
    with pytest.raises(BadSample) as two:
        decode_image(bytes(bytearray(b"no image")), 1e6)
    assert one.value.text == two.value.text
    assert "0x" not in one.value.text


def test_too_many_pixels_are_refused_by_the_header_alone() -> None:
    bomb = raw_png(100_000, 100_000, 8, 2, b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bad_reason(bomb, 50e6) == "too_large"
    assert bad_reason(image_bytes(RGB), 59) == "too_large"
    assert decode_image(image_bytes(RGB), 60).shape == (6, 10, 3)


def test_a_bad_sample_travels_between_processes() -> None:
    bad = pickle.loads(pickle.dumps(BadSample("bad_label", "why")))
    assert (bad.reason, bad.text) == ("bad_label", "why")


def test_an_image_of_the_right_size_is_not_touched() -> None:
    pixels = random_pixels(1, 32, 32)
    assert fit_image(pixels, 32) is pixels


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 24))
def test_fitting_gives_the_size_and_no_new_values(height: int, width: int, size: int) -> None:
    pixels = random_pixels(0, height, width)
    fitted = fit_image(pixels, size)
    assert fitted.shape == (size, size, 3)
    assert fitted.dtype == np.uint8
    assert pixels.min() <= fitted.min()
    assert fitted.max() <= pixels.max()


def test_only_the_centre_square_is_seen() -> None:
    pixels = np.zeros((10, 40, 3), np.uint8)
    pixels[:, 15:25] = 200
    assert (fit_image(pixels, 10) == 200).all()
    assert (fit_image(pixels.swapaxes(0, 1), 10) == 200).all()


def test_shrinking_is_antialiased() -> None:
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    fitted = fit_image(np.repeat(board[:, :, None], 3, 2), 8)
    assert np.abs(fitted.astype(int) - 127).max() < 16


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("shape", [(50, 50), (50, 80), (90, 50)])
def test_a_crop_is_what_resizing_and_then_cutting_gives(shape: tuple[int, int], interpolation: str) -> None:
    pixels = random_pixels(3, *shape) // 2 + 64  # nothing to clip between the two directions, of any order
    factor = 40 / min(shape)
    whole = Image.fromarray(pixels).resize(
        (round(shape[1] * factor), round(shape[0] * factor)), Image.Resampling[interpolation.upper()]
    )
    left, top = ((side - 32) // 2 for side in whole.size)
    expected = np.array(whole.crop((left, top, left + 32, top + 32))).astype(int)
    found = fit_image(pixels, 32, 0.8, interpolation)  # type: ignore[arg-type]
    assert np.abs(found - expected).max() <= 1


def test_a_crop_of_an_image_of_the_right_size_is_enlarged() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[8:24, 8:24] = 200
    assert (fit_image(pixels, 32, 0.5, "nearest") == 200).all()


def test_a_long_strip_costs_no_memory() -> None:
    assert fit_image(np.zeros((1, 1_000_000, 3), np.uint8), 224).shape == (224, 224, 3)


def test_equal_pixels_have_equal_digests_and_others_not() -> None:
    png, webp = image_bytes(RGB), image_bytes(RGB, "WEBP", lossless=True)
    assert pixel_digest(decode_image(png, 1e6)) == pixel_digest(decode_image(webp, 1e6))
    other = PIXELS.copy()
    other[0, 0, 0] ^= 1
    assert len(pixel_digest(PIXELS)) == 16
    assert pixel_digest(other) != pixel_digest(PIXELS)
    assert pixel_digest(PIXELS.reshape(10, 6, 3)) != pixel_digest(PIXELS)
    assert pixel_digest(PIXELS[:, ::-1]) == pixel_digest(PIXELS[:, ::-1].copy())


def scans_of(number: int, preview: int = 0) -> bytes:
    """A progressive JPEG with its last scan repeated, and scans of a preview that is never decoded."""
    data = image_bytes(RGB, "JPEG", progressive=True, quality=90)
    starts = [match.start() for match in re.finditer(b"\xff\xda", data)]
    last = data[starts[-1] : -2]
    comment = b"\xff\xda" * preview
    segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
    return data[:2] + segment + data[2:-2] + last * (number - len(starts)) + data[-2:]


@pytest.mark.parametrize("number", [10, 99, 100, 101, 2000])
@pytest.mark.parametrize("preview", [0, 300])
def test_scans_are_counted_by_their_markers(number: int, preview: int) -> None:
    data = scans_of(number, preview)
    assert count_scans(data) == number
    if number <= 100:
        assert decode_image(data, 1e6, 100).shape == (6, 10, 3)
        return
    with pytest.raises(BadSample, match=rf"too_many_scans: {number} scans, allowed are 100 \(data\.max_scans\)"):
        decode_image(data, 1e6, 100)


@given(st.binary(max_size=60))
def test_counting_scans_ends_whatever_the_bytes(data: bytes) -> None:
    assert 0 <= count_scans(b"\xff\xd8" + data) <= data.count(b"\xda")

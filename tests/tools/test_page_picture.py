"""Pictures of pages: their size and the scheme they are taken in."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from PIL import Image

from tools.cells.page_picture import main, parse_size

PAGE = """<!doctype html><meta name="color-scheme" content="light dark"><title>t</title>
<style>body { margin: 0; background: #ff0000; } @media (prefers-color-scheme: dark) { body { background: #0000ff; } }
</style><p style="height: 3000px"></p><img src="not-there.png" loading="lazy" alt="far below">"""


@pytest.mark.parametrize(("flags", "colour"), [([], (255, 0, 0)), (["--dark"], (0, 0, 255))])
def test_a_page_is_taken_in_its_scheme(
    flags: list[str], colour: tuple[int, int, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page.html").write_text(PAGE)
    out = tmp_path / "folder" / "page.png"
    main([str(tmp_path / "page.html"), str(out), "--size", "320x200", *flags])
    with Image.open(out) as image:
        assert image.size == (320, 200)
        assert image.convert("RGB").getpixel((10, 10)) == colour
    assert str(out) in capsys.readouterr().out


@pytest.mark.parametrize("text", ["1100", "x", "0x9", "-5x7", "1100 x 640", "a x b", "٣x٣"])
def test_a_size_is_a_width_and_a_height(text: str) -> None:
    assert parse_size("1100x640") == (1100, 640)
    with pytest.raises(argparse.ArgumentTypeError, match="1100x640"):
        parse_size(text)

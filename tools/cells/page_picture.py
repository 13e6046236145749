"""A picture of a page in a window of some size, for the documentation and to look at: PNG.

    .venv/bin/rayclean report demo/run
    .venv/bin/python tools/cells/page_picture.py demo/run/report/index.html docs/images/demo.png --size 1100x640
    .venv/bin/python tools/cells/page_picture.py URL look.png --size 400x800 --dark    # what `rayclean review` prints

A page is taken from its top, as it stands when its pictures have come. It needs the browser of the tests
(`sh tools/install_browser.sh`).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

WAIT_S = 30
SETTLED_S = 0.5  # what a page draws by a script once its pictures are there
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
COMPLETE = """
// Those below come when they are scrolled to.
const seen = (each) => each.checkVisibility() && each.getBoundingClientRect().top < window.innerHeight;
return document.readyState === "complete" && [...document.images].filter(seen).every((each) => each.complete);
"""


def picture(url: str, size: tuple[int, int], dark: bool) -> bytes:
    """A page's top as PNG.

    Args:
        url: of the page.
        size: width and height of the window in pixels.
        dark: whether the system prefers dark pages.
    """
    binary, driver = next(filter(None, map(shutil.which, BROWSERS)), None), shutil.which("chromedriver")
    if binary is None or driver is None:
        sys.exit("no Chromium with chromedriver; install them: sh tools/install_browser.sh")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get(url)
        WebDriverWait(browser, WAIT_S).until(lambda it: it.execute_script(COMPLETE))
        time.sleep(SETTLED_S)
        return browser.get_screenshot_as_png()
    finally:
        browser.quit()


def parse_size(text: str) -> tuple[int, int]:
    """`1100x640` as width and height."""
    width, _, height = text.partition("x")
    if not (width.isascii() and width.isdigit() and height.isascii() and height.isdigit() and int(width) * int(height)):
        raise argparse.ArgumentTypeError(f"expected a width and a height like 1100x640, found {text}")
    return int(width), int(height)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", help="a file, or a URL")
    parser.add_argument("out", type=Path, help="the PNG file")
    parser.add_argument("--size", type=parse_size, default=(1400, 900), help="of the window: WIDTHxHEIGHT")
    parser.add_argument("--dark", action="store_true", help="as on a system that prefers dark pages")
    args = parser.parse_args(argv)
    url = args.page if "://" in args.page else Path(args.page).resolve().as_uri()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(picture(url, args.size, args.dark))
    print(f"{args.out}: {args.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Draw docs/images/demo.png: the page of `mome-demo` after it has read a clip in noise.

    python tools/demo_picture.py --model egs/grid/exp/mome/packed --clip s1/bwbn4p.mpg \\
        --output docs/images/demo.png

Needs Chromium and its driver (see docs/demo.md).
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from browser import free_port, open_browser
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

WIDTH = 1000  # pixels
SECONDS = 120  # for the page to read the clip at all rates


def draw(address: str, clip: Path, snr: int, output: Path, profile: Path) -> None:
    """Upload a clip, read it again with noise at an SNR in dB, and keep the whole page."""
    with open_browser(address, profile, (WIDTH, 900)) as page:
        # Gradio puts new elements in the place of old ones while the page is read.
        wait = WebDriverWait(page, SECONDS, ignored_exceptions=[StaleElementReferenceException])

        def find(selector: str) -> WebElement:
            return wait.until(lambda page: page.find_element(By.CSS_SELECTOR, selector))

        find("#file input[type=file]").send_keys(str(clip.resolve()))
        find("#experts .small")
        clean = find("#experts img").get_attribute("src")
        # The slider goes by steps of 5 dB, from 25, which is without noise.
        find("#snr input[type=range]").send_keys(*[Keys.ARROW_LEFT] * ((25 - snr) // 5))
        find("#again").click()
        # The experts are drawn last, and otherwise than without noise.
        wait.until(lambda _: find("#experts img").get_attribute("src") != clean)
        height = page.execute_script("return document.documentElement.scrollHeight")
        page.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        page.save_screenshot(str(output))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a packed model")
    parser.add_argument("--clip", type=Path, required=True, help="a recording to upload")
    parser.add_argument("--snr", type=int, default=-10, help="of the noise in dB, a multiple of 5")
    parser.add_argument("--output", type=Path, required=True, help="PNG")
    options = parser.parse_args()
    command = [sys.executable, "-m", "mome.bin.demo", "--model", str(options.model)]
    command += ["--port", str(free_port())]
    with (
        tempfile.TemporaryDirectory() as profile,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
    ):
        try:
            for line in server.stdout or ():
                if found := re.search(r"the page is at (\S+)", line):
                    draw(found[1], options.clip, options.snr, options.output, Path(profile))
                    break
            else:
                raise SystemExit("demo_picture.py: mome-demo ended before its page was there")
        finally:
            server.terminate()


if __name__ == "__main__":
    main()

"""A headless Chromium for the page of `mome-demo`, for its test and its picture."""

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selenium import webdriver

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def free_port() -> int:
    """A port of this machine at which nobody listens, for a page to be served at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def find_browser() -> tuple[str, str] | None:
    """The programs of a browser and of its driver, or None where one of them is missing."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    return None if browser is None or driver is None else (browser, driver)


@contextmanager
def open_browser(
    address: str, profile: Path, size: tuple[int, int] = (1280, 900)
) -> Iterator["webdriver.Chrome"]:
    """Open a page in Chromium, with an artificial camera and no name that leads elsewhere.

    Args:
        address: of the page, on 127.0.0.1.
        profile: folder for the browser's own files.
        size: width and height of the window in pixels.

    Raises:
        FileNotFoundError: no browser is installed, or no driver of it.
    """
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    if (programs := find_browser()) is None:
        raise FileNotFoundError(
            f"one of {', '.join(BROWSERS)} is needed, and chromedriver: on Debian, "
            "apt-get install chromium chromium-driver"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in (
        *ARGUMENTS,
        f"--window-size={size[0]},{size[1]}",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chromium = webdriver.Chrome(options=options, service=Service(programs[1]))
    try:
        chromium.get(address)
        yield chromium
    finally:
        chromium.quit()

"""The page in a real browser: what it shows, what it asks for, and whether it fits a phone."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser import BROWSERS, find_browser, free_port, open_browser

from mome.bin.demo import main

pytest.importorskip("gradio", reason="the page needs Gradio: pip install '.[demo]'")

ROOT = Path(__file__).parents[2]
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
SECONDS = 120  # for whatever is waited for, on a machine with other work


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    """Where the page puts temporary files."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def address(packed, scratch, tmp_path_factory) -> Iterator[str]:
    """A running page; ended by a signal, it leaves no file."""
    port = free_port()
    log = tmp_path_factory.mktemp("log") / "demo.log"
    command = [sys.executable, "-m", "mome.bin.demo", "--model", str(packed), "--port", str(port)]
    with log.open("w") as output:
        running = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(r"the page is at (\S+)", log.read_text())):
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        assert found[1] == f"http://127.0.0.1:{port}/"
        yield found[1]
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(SECONDS)
    assert "Traceback" not in log.read_text()
    assert list(scratch.glob("mome-demo-*")) == []


@pytest.fixture(scope="module")
def browser(address, tmp_path_factory) -> Iterator:
    """Chromium with the page open."""
    pytest.importorskip("selenium.webdriver", reason="needs selenium")
    if find_browser() is None:
        pytest.skip(f"needs one of {', '.join(BROWSERS)}, and chromedriver")
    with open_browser(address, tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


def wait_for(what: Callable[[], object]) -> object:
    """What a function gives as soon as it gives something."""
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            if found := what():
                return found
        except (NoSuchElementException, StaleElementReferenceException):
            pass
        time.sleep(0.1)
    raise AssertionError(f"nothing after {SECONDS} s")


def texts(browser, selector: str) -> list[str]:
    return [element.text for element in browser.find_elements("css selector", selector)]


def wait_for_status(browser, part: str) -> None:
    """Wait until the page says something of what it was given, or fail with what it says."""
    said: list[str] = []

    def found() -> bool:
        said[:] = texts(browser, "#status p") or [""]
        return part in said[0]

    try:
        wait_for(found)
    except AssertionError as error:
        raise AssertionError(f"{error} of {part!r}; the page says {said}") from None


def upload(browser, path: Path) -> None:
    wait_for(lambda: browser.find_element("css selector", "#file input[type=file]")).send_keys(
        str(path)
    )


def kept_files(scratch: Path) -> list[Path]:
    return [path for path in scratch.rglob("*") if path.is_file() and path.stat().st_size]


def test_a_clip_is_read_with_and_without_noise(browser, clips, scratch):
    from selenium.webdriver.common.keys import Keys

    upload(browser, clips / "both.mp4")
    wait_for(lambda: texts(browser, "#experts .small"))
    assert texts(browser, "#status p")[0].startswith("both.mp4: ")
    assert len(browser.find_elements("css selector", "#lips .stills img")) == 12
    columns = ["reads", "rates", "audio tokens", "video tokens", "seconds", "confidence"]
    assert texts(browser, "#rates th") == [*columns, "transcript"]
    rows = [
        [cell.text for cell in row.find_elements("css selector", "td")]
        for row in browser.find_elements("css selector", "#rates tbody tr")
    ]
    pairs = ["a4_v2", "a4_v5", "a16_v2", "a16_v5", "a4", "a16", "v2", "v5"]
    assert [row[1] for row in rows] == pairs
    assert [row[2:4] for row in rows[4:]] == [
        [rows[0][2], "–"],
        [rows[2][2], "–"],
        ["–", rows[0][3]],
        ["–", rows[1][3]],
    ]
    assert int(rows[0][2]) > int(rows[2][2]) > 0
    assert all(float(row[4]) > 0 for row in rows)
    cards = browser.find_elements("css selector", "#side .card")
    assert [card.get_attribute("data-task") for card in cards] == ["asr", "vsr", "avsr"]
    assert texts(browser, "#side .noise") == ["Without noise:"]
    assert len(browser.find_elements("css selector", "#experts img")) == 3
    pictures = browser.find_elements("css selector", "#experts img, #lips .stills img")
    assert all(picture.get_property("naturalWidth") > 0 for picture in pictures)
    clean = browser.find_element("css selector", "#player audio").get_attribute("src")

    slider = browser.find_element("css selector", "#snr input[type=range]")
    # From 25 dB, without noise, by steps of 5 to -5 dB.
    slider.send_keys(*[Keys.ARROW_LEFT] * 6)
    browser.find_element("css selector", "#again").click()
    wait_for(lambda: texts(browser, "#side .noise") == ["With noise (speech-shaped) at -5 dB:"])
    noisy = browser.find_element("css selector", "#player audio")
    assert noisy.get_attribute("src") != clean
    seconds = browser.execute_async_script(
        "const [audio, done] = arguments; audio.load();"
        "audio.onloadedmetadata = () => done(audio.duration); audio.onerror = () => done(-1);",
        noisy,
    )
    assert 0.5 < seconds <= 2
    assert kept_files(scratch) == []


def test_a_file_that_is_no_recording_is_named(browser, clips, scratch):
    upload(browser, clips / "notes ${1}{{x}}.txt")
    wait_for(lambda: texts(browser, "#status [role=alert]"))
    (text,) = texts(browser, "#status [role=alert]")
    # The name of an upload is not what Gradio's templates are filled in by.
    assert re.match(r"notes .*1.*x.*\.txt cannot be read: corrupt or truncated file", text)
    wait_for(lambda: texts(browser, "#side .message"))
    assert texts(browser, "#side .message") == ["Nothing is there to be read: upload a recording."]
    assert browser.find_elements("css selector", "#rates table, #lips img, #side .card") == []
    assert "Traceback" not in browser.find_element("css selector", "body").text
    assert kept_files(scratch) == []


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("faceless.mp4", "asr", "no face was found: sound alone"),
        ("silent.mp4", "vsr", "no sound: lips alone"),
    ],
)
def test_what_is_lacking_is_said_and_the_rest_is_read(browser, clips, name, task, message):
    upload(browser, clips / name)
    wait_for_status(browser, name)
    wait_for(lambda: len(browser.find_elements("css selector", "#side .card")) == 1)
    (card,) = browser.find_elements("css selector", "#side .card")
    assert card.get_attribute("data-task") == task
    assert message in texts(browser, "#status p")[0]


def test_a_recording_by_the_camera_is_read(browser, scratch):
    """The artificial camera shows a turning disc, and its microphone hears beeps."""

    def press(label: str) -> None:
        def found():
            buttons = browser.find_elements("css selector", "#camera button, button[role=tab]")
            return next((button for button in buttons if button.text == label), None)

        wait_for(found).click()

    press("Camera")
    press("Click to Access Webcam")
    press("Record")
    time.sleep(4)  # for several beeps: what is slow to begin is lost
    press("Stop")
    wait_for_status(browser, "no face was found: sound alone")
    assert not texts(browser, "#status p")[0].startswith("faceless")
    wait_for(lambda: len(browser.find_elements("css selector", "#side .card")) == 1)
    assert kept_files(scratch) == []


def test_the_page_fits_a_phone(browser, address, clips):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    browser.get(address)
    upload(browser, clips / "both.mp4")
    wait_for(lambda: len(browser.find_elements("css selector", "#experts img")) == 3)
    width, screen = browser.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert width <= screen == PHONE["width"]
    # The transcript is below what it costs, and inside the screen.
    boxes = [
        cell.rect for cell in browser.find_elements("css selector", "#rates tr:first-child td")
    ]
    assert boxes[-1]["y"] > boxes[0]["y"]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"] for box in boxes)


def test_nothing_is_asked_of_other_machines_and_no_error_is_logged(browser):
    """The last test of this file: it looks at what all before it did."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        urlsplit(message["params"]["request"]["url"])
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    hosts = {url.hostname for url in asked if url.scheme in ("http", "https", "ws", "wss")}
    assert hosts == {"127.0.0.1"}
    log = browser.get_log("browser")
    assert [entry for entry in log if entry["level"] == "SEVERE"] == []


def ends_with(options: list[str], message: str) -> None:
    before = signal.getsignal(signal.SIGTERM), dict(os.environ)
    try:
        with pytest.raises(SystemExit, match=message):
            main([*options, "--port", str(free_port())] if "--port" not in options else options)
    finally:
        signal.signal(signal.SIGTERM, before[0])
        os.environ.clear()
        os.environ.update(before[1])


def test_what_is_missing_at_the_start_is_named():
    ends_with(["--model", "nowhere"], r"mome-demo: nowhere does not exist; name a packed model")
    noise = r"mome-demo: nowhere is no recording of noise"
    ends_with(["--model", "x", "--noise", "nowhere"], noise)


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        message = rf"mome-demo: 127.0.0.1, port {port}: .* in use.*; see --host and --port"
        ends_with(["--model", "x", "--port", str(port)], message)

"""Reading ahead: order, bounds, errors, and an end whenever it is left."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from mome.transcribe.ahead import Ahead

ROOT = Path(__file__).parents[2]
SECONDS = 60  # for whatever is waited for, on a machine with other work


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("ahead")]


def test_items_are_fetched_in_order_beside_and_in_bounds():
    fetched: list[int] = []
    more = threading.Event()

    def items():
        for number in range(20):
            fetched.append(number)
            more.set()
            yield number

    with Ahead(3) as ahead:
        taken = []
        for number in ahead(items()):
            # The next ones are fetched while this one is held, and no more than three.
            while len(fetched) < min(20, number + 4):
                more.clear()
                assert more.wait(SECONDS)
            assert len(fetched) <= number + 4
            taken.append(number)
    assert taken == fetched == list(range(20))
    assert threads() == []


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        yield 2
        raise ValueError("the third is broken")

    taken = []

    def take():
        with Ahead(8) as ahead:
            for item in ahead(items()):
                taken.append(item)

    with pytest.raises(ValueError, match="the third is broken"):
        take()
    assert taken == [1, 2]
    assert threads() == []


def test_what_takes_long_ends_when_it_is_left():
    started, ended = threading.Event(), []

    def items(check):
        yield 1
        started.set()
        try:
            while True:  # such as a pause of an hour
                check()
                time.sleep(0.001)
        except CancelledError as error:
            ended.append(error)
            raise

    def interrupted():
        with Ahead(2) as ahead:
            for _ in ahead(items(ahead.check)):
                assert started.wait(SECONDS)
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(ended) == 1
    assert threads() == []


# A shell that starts tests in the background has them ignore interrupts.
ENDLESS = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from mome.transcribe.ahead import Ahead

def items(check):
    yield 0
    while True:
        check()
        time.sleep(0.001)

with Ahead(2) as ahead:
    for item in ahead(items(ahead.check)):
        print(item, flush=True)
"""


def test_an_interrupt_ends_a_process_that_reads():
    running = subprocess.Popen(
        [sys.executable, "-c", ENDLESS],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == "0\n"
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=SECONDS)
    finally:
        running.kill()
    assert running.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors

"""How far a run is, and how long it will take from there."""

import contextlib
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from mome.common.progress import (
    LATER,
    PART,
    SECONDS,
    TERMINAL,
    Bar,
    Pace,
    in_words,
    product_milliseconds,
)

ROOT = Path(__file__).parents[2]


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_was_expected_gives_way_to_what_is_measured():
    clock = Clock()
    pace = Pace(clock, {PART: "stage 4 of 6, training", SECONDS: "600", LATER: "300"})
    # Nothing is measured yet: 600 s of this part and 300 s of those after it.
    assert pace.left(0.0) == "about 15 min left in all"
    # A quarter took 300 s, so that the whole would take 1200: the mean with what was expected is
    # 0.25 x 1200 + 0.75 x 600 = 750, of which three quarters are left.
    clock.now = 300
    assert pace.left(0.25) == f"about {round((0.75 * 750 + 300) / 60)} min left in all"
    clock.now = 1200
    assert pace.left(1.0) == "about 5 min left in all"
    assert pace.line("step 4 of 4", 1.0) == (
        "stage 4 of 6, training: step 4 of 4, about 5 min left in all"
    )


def test_without_times_the_work_at_hand_alone_is_told():
    clock = Clock()
    pace = Pace(clock, {PART: "stage 2 of 6, lips", SECONDS: "", LATER: ""})
    assert pace.line("0 of 10", 0.0) == "stage 2 of 6, lips: 0 of 10"
    clock.now = 60
    assert pace.line("5 of 10", 0.5) == "stage 2 of 6, lips: 5 of 10, about 1 min left of it"
    assert pace.line("10 of 10", 1.0) == "stage 2 of 6, lips: 10 of 10"


def test_work_that_goes_on_is_measured_from_there():
    clock = Clock()
    pace = Pace(clock, {})
    clock.now = 1000  # loading
    pace.begin(0.5)
    clock.now = 1100
    # A quarter took 100 s.
    assert pace.left(0.75) == "about 2 min left of it"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "5 s"), (42, "40 s"), (58, "1 min"), (5000, "83 min"), (7500, "2 h 05 min")],
)
def test_times_are_said_as_a_person_does(seconds, words):
    assert in_words(seconds) == words


PROGRAM = """
import time
from mome.common.progress import Bar
for _ in Bar(range(5), desc="clips"):
    time.sleep(0.15)
"""
TOLD = {PART: "stage 2 of 6, lips", SECONDS: "100", LATER: "200"}


def test_a_file_gets_lines_without_carriage_returns():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, **TOLD},
    )
    assert done.stderr == "stage 2 of 6, lips: clips 5 of 5, about 3 min left in all\n"


def all_of(terminal: int) -> str:
    """What a terminal was sent; the system reports its end as an error."""
    pieces = []
    with contextlib.suppress(OSError):
        while piece := os.read(terminal, 1 << 16):
            pieces.append(piece)
    return b"".join(pieces).decode()


@pytest.mark.parametrize("piped", [False, True])
def test_a_terminal_has_one_line_that_is_rewritten(piped):
    """Also by a program whose output goes through another one to the terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    environment = {**os.environ, **TOLD} | ({TERMINAL: "true"} if piped else {})
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stderr=subprocess.PIPE if piped else theirs,
        cwd=ROOT,
        env=environment,
    ) as process:
        os.close(theirs)
        if piped:
            shown = process.stderr.read().decode()
        else:
            process.wait()
            shown = all_of(ours)
    os.close(ours)
    assert shown.count("\r") >= 5
    assert shown.rstrip("\r\n").count("\n") == 0
    last = shown.rstrip("\r\n").rpartition("\r")[2]
    assert "clips: 100%" in last
    assert "about 3 min left in all" in last


def test_nothing_to_do_shows_nothing(capsys):
    with Bar(total=0, disable=True) as bar:
        bar.clear()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("fast", "milliseconds"), [(True, 60), (False, 100)])
def test_a_machine_is_told_by_the_types_that_parts_compute_in(monkeypatch, fast, milliseconds):
    """Where bfloat16 is fast, frozen parts take it, and a run less time than float32 promises."""
    seconds = {"float32": 0.1, "torch.float32": 0.1, "torch.bfloat16": 0.02}

    def repeat(product, **_):
        took = seconds[str(product().dtype)]
        return [3 * took, took]

    monkeypatch.setattr("timeit.repeat", repeat)
    monkeypatch.setattr("mome.common.precision.has_fast_bfloat16", lambda _: fast)
    assert product_milliseconds() == milliseconds

"""How programs end."""

import os
import signal
import subprocess
import sys

import pytest

from mome.common.command import in_one_line
from mome.common.yaml_files import read_yaml


def end_of(call, *further):
    with in_one_line("mome-x", *further):
        call()


def fail(error):
    raise error


def test_what_the_user_can_mend_is_one_line(tmp_path):
    (tmp_path / "a.yaml").write_text("words")
    with pytest.raises(SystemExit, match=r"^mome-x: error: .*a\.yaml is no configuration"):
        end_of(lambda: read_yaml(tmp_path / "a.yaml"))
    with pytest.raises(SystemExit, match=r"^mome-x: error: .*No such file .*nothing"):
        end_of((tmp_path / "nothing").read_text)


@pytest.mark.parametrize("error", [ValueError("of a library"), OSError("of a library"), KeyError()])
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)):
        end_of(lambda: fail(error))
    with pytest.raises(type(error)):  # not of this package, whatever its type
        end_of(lambda: fail(error), KeyError)


BROKEN = 128 + signal.SIGPIPE


@pytest.mark.parametrize(
    ("says", "status", "message"),
    [
        ("print('a line')", BROKEN, b""),
        ("print('a line', flush=True)", BROKEN, b""),
        ("for _ in range(100_000): print('a line')", BROKEN, b""),
        ("argparse.ArgumentParser().parse_args(['--help'])", 0, b""),
        ("print('a'); raise SystemExit('stopped')", 1, b"stopped\n"),
        ("print('a'); open('/no')", 1, b"mome-x: error: [Errno 2] No such file"),
    ],
)
def test_a_program_whose_output_nobody_reads_ends_without_a_traceback(says, status, message):
    """As with ``| head``, which may end while more is written, or before the little there is."""
    program = (
        "import argparse, sys\n"
        "from mome.common.command import in_one_line\n"
        "with in_one_line('mome-x'):\n"
        "    sys.stdin.read()\n"
        f"    {says}\n"
    )
    pipe = subprocess.PIPE
    running = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        env=os.environ | {"PYTHONUNBUFFERED": ""},
    )
    running.stdout.close()
    running.stdin.close()
    said = running.stderr.read()
    running.stderr.close()
    assert running.wait(60) == status
    assert said.startswith(message)
    assert len(said.splitlines()) == (1 if message else 0)


def test_a_program_without_an_output_ends_like_others():
    program = "from mome.common.command import in_one_line\nwith in_one_line('x'): print('a')"
    command = ["bash", "-c", 'exec "$@" >&-', "-", sys.executable, "-c", program]
    done = subprocess.run(command, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_pipe_that_is_not_the_output_is_an_error_like_others():
    with pytest.raises(BrokenPipeError):
        end_of(lambda: fail(BrokenPipeError("of another process")))

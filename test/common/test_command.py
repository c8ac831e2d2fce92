"""How programs end."""

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


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_program_whose_output_nobody_reads_ends_without_a_word(lines):
    """As with ``| head``, which may end while more is written, or before the little there is."""
    program = (
        "import sys\n"
        "from mome.common.command import in_one_line\n"
        "with in_one_line('mome-x'):\n"
        "    sys.stdin.read()\n"
        f"    for _ in range({lines}): print('a line')\n"
    )
    pipe = subprocess.PIPE
    running = subprocess.Popen(
        [sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe
    )
    running.stdout.close()
    running.stdin.close()
    said = running.stderr.read()
    running.stderr.close()
    assert (running.wait(60), said) == (128 + signal.SIGPIPE, b"")


def test_a_pipe_that_is_not_the_output_is_an_error_like_others():
    with pytest.raises(BrokenPipeError):
        end_of(lambda: fail(BrokenPipeError("of another process")))

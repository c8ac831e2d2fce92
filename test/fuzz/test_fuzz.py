"""Damaged files end in an error that names them, never in a crash; see fuzz.py."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fuzz import fuzz, judge, readers
from mutations import CHANGES, mutate

FOUND = Path(__file__).parent / "found"
COUNT = 150  # of each reader; by hand: test/fuzz/fuzz.py --count 10000


def test_readers_refuse_what_they_cannot_read(tmp_path):
    assert list(fuzz(list(readers()), 0, COUNT, 0, tmp_path)) == []


@pytest.mark.parametrize("name", [path.name for path in sorted(FOUND.iterdir())])
def test_what_was_found_is_refused_with_the_name_of_the_file(tmp_path, name):
    """Files that ended in another way once: <number>_<what the reader's file is called>."""
    path = tmp_path / name.partition("_")[2]
    path.write_bytes((FOUND / name).read_bytes())
    with pytest.raises((ValueError, OSError)) as raised:
        readers()[path.name].read(path)
    assert judge(raised.value, path) is None


def test_every_change_changes_something_and_follows_its_seed():
    whole = bytes(range(256)) * 4
    for change in CHANGES:
        changed = 0
        for seed in range(20):
            first, second = bytearray(whole), bytearray(whole)
            change(first, np.random.default_rng(seed))
            change(second, np.random.default_rng(seed))
            assert first == second
            changed += first != whole
        assert changed > 10, change
    results = {mutate(whole, np.random.default_rng(seed)) for seed in range(100)}
    assert len(results) > 90
    assert mutate(b"", np.random.default_rng(0)) == b""


def test_errors_are_judged(tmp_path):
    path = tmp_path / "a.wav"
    assert judge(ValueError(f"{path} is damaged"), path) is None
    assert judge(ValueError("is damaged"), path) == "the file is not named: ValueError: is damaged"
    assert judge(KeyError(str(path)), path) is not None
    assert judge(MemoryError(), path) == "MemoryError: "


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "the process ended by SIGSEGV"),
        ("raise KeyError(path)", "KeyError"),
        ("bytearray(1 << 33)", "MemoryError"),
        ("while True: pass", "took 1 s or more"),
        ("os.system('true')", "os.system"),
        ("subprocess.run(['true'], check=False)", "subprocess.Popen"),
        ("open(path.parent.parent / 'elsewhere', 'w')", "open('"),
        ("path.parent.rename(path.parent.parent / 'elsewhere')", "os.rename"),
    ],
)
def test_what_a_reader_must_not_do_is_found(tmp_path, line, what):
    """The program itself, with a reader that misbehaves at its second file."""
    source = (Path(__file__).parent / "fuzz.py").read_text()
    source = source.replace("SECONDS = 20", "SECONDS = 1")
    reader = f"""
def readers():
    calls = []
    def read(path):
        calls.append(path)
        if len(calls) == 3:
            {line}
    return {{"text": Reader("text", read, lambda path: path.write_text("a b"))}}
"""
    source = source.replace("def judge(", reader + "\n\ndef judge(", 1)
    program = tmp_path / "fuzz.py"
    program.write_text(source)
    shutil.copy(Path(__file__).parent / "mutations.py", tmp_path)
    command = [sys.executable, program, "--count", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("text ")]
    assert done.returncode == len(found) >= 1, done.stdout + done.stderr
    assert found[0].startswith("text 1: ")
    assert what in found[0]

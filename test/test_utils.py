"""utils/: shell helpers."""

import os
import subprocess
from pathlib import Path

import pytest

UTILS = Path(__file__).resolve().parents[1] / "utils"
SCRIPT = f"""
set -euo pipefail
nj=2
stage=0
tasks="avsr asr"
skip_train=false
empty=
help_message="usage: recipe [--nj N]"
. {UTILS}/parse_options.sh
echo "nj=$nj stage=$stage tasks=$tasks skip_train=$skip_train empty=$empty rest=$*"
"""


def parse(*arguments, script=SCRIPT, env=None):
    command = ["bash", "-c", script, "recipe", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


DEFAULTS = {"nj": "2", "stage": "0", "tasks": "avsr asr", "skip_train": "false", "empty": ""}


@pytest.mark.parametrize(
    ("arguments", "changed", "rest"),
    [
        ([], {}, ""),
        (["--nj", "4", "a", "b"], {"nj": "4"}, "a b"),
        (["--tasks", "vsr  x"], {"tasks": "vsr  x"}, ""),
        (["--skip-train", "true"], {"skip_train": "true"}, ""),
        (["--skip_train=true", "--empty=a=b"], {"skip_train": "true", "empty": "a=b"}, ""),
        (["--stage", "-5", "--", "--nj", "9"], {"stage": "-5"}, "--nj 9"),
        (["a", "--nj", "9"], {}, "a --nj 9"),
        (["--tasks", "", "--nj", "$(echo 3)"], {"tasks": "", "nj": "$(echo 3)"}, ""),
    ],
)
def test_options_set_variables(arguments, changed, rest):
    result = parse(*arguments)
    assert result.returncode == 0, result.stderr
    values = " ".join(f"{name}={value}" for name, value in {**DEFAULTS, **changed}.items())
    assert result.stdout == f"{values} rest={rest}\n"
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--njobs", "4"], "unknown option --njobs"),
        (["--PATH", "/tmp"], "unknown option --PATH"),
        (["--nj;ls", "4"], "unknown option --nj;ls"),
        (["--nj"], "option --nj needs a value"),
        (["--skip_train", "yes"], "option --skip_train must be true or false, not 'yes'"),
        (["--config", "/nowhere/conf"], "--config: cannot read '/nowhere/conf'"),
    ],
)
def test_bad_options_are_errors_and_show_the_help(arguments, message):
    result = parse(*arguments)
    assert result.returncode == 1
    assert result.stdout == ""
    assert f"recipe: {message}\n" in result.stderr
    assert "usage: recipe [--nj N]" in result.stderr


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help(option):
    result = parse("--nj", "3", option)
    assert (result.returncode, result.stdout) == (0, "usage: recipe [--nj N]\n")


def test_config_file_yields_to_options(tmp_path):
    (tmp_path / "conf").write_text("nj=7\nstage=3\n")
    result = parse("--nj", "4", "--config", str(tmp_path / "conf"))
    assert result.stdout.startswith("nj=4 stage=3 "), result.stderr


def test_caller_keeps_its_names():
    """The helper leaves no variable or function of its own behind."""
    names = "compgen -v | grep -vx 'BASH.*\\|_\\|PIPESTATUS' | sort"
    script = "\n".join(
        [
            f"nj=1 before= after=; before=$({names})",
            f". {UTILS}/parse_options.sh",
            f"after=$({names})",
            '[ "$before" = "$after" ] && echo same',
            "compgen -A function || echo none",
        ]
    )
    assert parse("--nj", "1", script=script).stdout == "same\nnone\n"


def test_spk2utt():
    utt2spk = "b_1 b\na_2 a\na_1 a\n"
    command = [UTILS / "utt2spk_to_spk2utt.sh"]
    result = subprocess.run(command, input=utt2spk, capture_output=True, text=True, check=True)
    assert result.stdout == "a a_1 a_2\nb b_1\n"
    bad = subprocess.run(command, input="a_1\n", capture_output=True, text=True, check=False)
    assert bad.returncode != 0
    assert 'line "a_1"' in bad.stderr


def test_validation_from_the_shell(tmp_path):
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "text").write_text("b_1 red\na_1 blue\n")
    (folder / "utt2spk").write_text("b_1 b\na_1 a\n")
    (folder / "wav.scp").write_text("a_1 x.wav\nb_1 y.wav\nc_1 z.wav\n")

    def call(name):
        command = [UTILS / name, folder]
        env = {**os.environ, "LC_ALL": "C.UTF-8"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=env)

    result = call("validate_data_dir.sh")
    assert result.returncode == 1
    for problem in ("spk2utt is missing", "out of order", "unknown 1 utterances: c_1"):
        assert problem in result.stdout
    result = call("fix_data_dir.sh")
    assert result.returncode == 0, result.stdout + result.stderr
    assert (folder / "spk2utt").read_text() == "a a_1\nb b_1\n"
    assert call("validate_data_dir.sh").returncode == 0

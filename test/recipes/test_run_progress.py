"""What a recipe says of how far it is and how long it will take."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from recipe_options import EGS, recipe_options

from mome.common.progress import LATER, PART, SECONDS

ROOT = Path(__file__).parents[2]
TIMES = "# of a test\nproduct 100\n0 50\n2 100\n4_units 200\n4_model 300\n5 1000\n"
# As avsr.sh, but for the machine, which is told by $PRODUCT.
DRIVER = f"""
set -euo pipefail
stage=2 stop_stage=4 times=$1 expdir=exp template={ROOT}/egs/TEMPLATE/avsr1
log() {{ echo "$*" >&2; }}
wants() {{ [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }}
python() {{ echo "$PRODUCT"; }}
tell() {{ echo "${{{PART}}}|${{{SECONDS}}}|${{{LATER}}}"; }}
. "$template/progress.sh"
if [ -n "$times" ]; then read_times; set_pace; fi
say_plan
"""


def run(script: str, tmp_path: Path, times: str = TIMES, product: int = 100) -> tuple[str, str]:
    """What a driver prints to its output and to its log."""
    table = tmp_path / "times"
    table.write_text(times)
    done = subprocess.run(
        ["bash", "-c", DRIVER + script, "driver", str(table) if times else ""],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PRODUCT": str(product)},
    )
    return done.stdout, done.stderr


def test_the_plan_has_the_stages_asked_for_and_their_times_on_this_machine(tmp_path):
    _, said = run("", tmp_path, product=300)  # three times as slow
    stages = re.findall(r"^  stage (\d) .*?(?:, (about .*|less .*))?$", said, re.MULTILINE)
    assert stages == [("2", "about 5 min"), ("3", ""), ("4", "about 25 min")]
    assert "about 30 min in all" in said


def test_programs_are_told_the_part_and_the_time_left(tmp_path):
    script = """
        begin 2 "lips and audio"; tell; end_part
        begin 4_units "units"; tell
        begin 4_model "training of mome"; tell
    """
    told, _ = run(script, tmp_path, product=200)
    # What comes after a part ends with the last stage asked for.
    assert told.splitlines() == [
        "stage 2 of 4, lips and audio|200|1000",
        "stage 4 of 4, units|400|600",
        "stage 4 of 4, training of mome|600|0",
    ]


def test_finished_parts_tell_the_machine_better_than_a_product(tmp_path):
    script = """
        begin 2 "lips"; part_begun=$((SECONDS - 300)); end_part   # three times what the table says
        begin 4_units "units"; tell; end_part                     # done before: it teaches nothing
        begin 4_model "model"; tell
    """
    told, _ = run(script, tmp_path)
    assert [line.split("|")[1:] for line in told.splitlines()] == [["600", "900"], ["900", "0"]]


def test_what_the_table_does_not_know_has_no_time(tmp_path):
    told, _ = run('begin 3 "noise"; tell', tmp_path)
    assert told == "stage 3 of 4, noise||\n"
    told, said = run('begin 4_model "training"; tell', tmp_path, times="")
    assert told == "stage 4 of 4, training||\n"
    assert "about" not in said


def test_a_run_leaves_a_table_for_others(tmp_path):
    (tmp_path / "exp").mkdir()
    run(
        'begin 2 "lips"; part_begun=$((SECONDS - 7)); begin 4_model x; end_part; write_times',
        tmp_path,
    )
    table = dict(line.split() for line in (tmp_path / "exp/times").read_text().splitlines())
    assert table == {"product": "100", "2": "7", "4_model": "0"}


@pytest.mark.parametrize("preset", ["full", "quick"])
def test_the_tables_name_parts_of_the_driver(preset):
    given = recipe_options("mini_av", "--preset", preset)
    lines = (EGS / "mini_av" / given["times"]).read_text().splitlines()
    parts = [line.split()[0] for line in lines if not line.startswith("#")]
    driver = (EGS / "TEMPLATE/avsr1/avsr.sh").read_text()
    begun = re.findall(r"^ *begin (\w+) ", driver, re.MULTILINE)
    assert parts == ["product", *begun]

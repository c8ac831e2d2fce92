"""utils/: shell helpers."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from recipe_options import recipe_options

from mome.data.kaldi import validate_data_dir

UTILS = Path(__file__).resolve().parents[2] / "utils"
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


@pytest.mark.parametrize("named", [["--config", "conf"], ["--config=conf"]])
def test_config_file_yields_to_options(tmp_path, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    text = 'ROOT=/a\nnj=7; stage=3\nif true; then tasks="${ROOT}/b  c"; fi\nempty=\n'
    Path("conf").write_text(text)
    # Neither the value of an option nor what is no option names a file.
    result = parse("--nj", "4", "--empty", "--config", *named, "rest", "--config", "nowhere")
    values = "nj=4 stage=3 tasks=/a/b  c skip_train=false empty=--config"
    assert result.stdout == f"{values} rest=rest --config nowhere\n", result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("njobs=4", "unknown option --njobs"),
        ("skip_train=yes", "option --skip_train must be true or false, not 'yes'"),
        ("nj=${nowhere}", "nowhere: unbound variable"),
        ("false", "--config: what 'conf' says cannot be done"),
        ("nj=4; exit", "--config: what 'conf' says cannot be done"),
    ],
)
def test_a_wrong_config_file_is_an_error(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    Path("conf").write_text(f"{text}\n")
    result = parse("--config", "conf")
    assert (result.returncode, result.stdout) == (1, "")
    assert message in result.stderr


def test_command_line_before_config_file_before_recipe(tmp_path, monkeypatch):
    """And all of these before the defaults of avsr.sh; FILE is relative to where one is."""
    monkeypatch.chdir(tmp_path)
    Path("conf").write_text('preset=quick\nbeam=2\nsnrs="-5 20"\nnj=3\n')
    given = recipe_options("mini_av", "--nj", "4", "--config", "conf")
    assert (given["nj"], given["beam"], given["snrs"]) == ("4", "2", "-5 20")
    assert given["expdir"] == "quick/exp"
    assert "--config" not in given
    assert recipe_options("mini_av", "--config=conf", "--preset", "full")["times"] == "times/full"
    Path("conf").write_text("subset=30h\ntrain_opts='--max_epoch 3'\nmax_new_tokens=9\n")
    given = recipe_options("lrs3", "--config", "conf")
    assert (given["train_set"], given["max_new_tokens"]) == ("train_30h", "9")
    assert given["train_opts"].endswith("total_steps=3400 --max_epoch 3")
    given = recipe_options("lrs3", "--config", "conf", "--subset", "433h", "--train_opts", "x")
    assert (given["train_set"], given["train_opts"].strip()) == ("train_433h", "x")


def test_a_config_file_that_a_recipe_cannot_read_is_an_error():
    script = UTILS.parent / "egs/mini_av/run.sh"
    done = subprocess.run([script, "--config", "nowhere"], capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith(b"run.sh: --config: cannot read 'nowhere'\n")


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
    assert parse("--nj", "1", "--config", "/dev/null", script=script).stdout == "same\nnone\n"


def test_options_are_listed_with_their_comments(tmp_path):
    script = tmp_path / "script"
    lines = [
        "# not an option",
        "other=1 # nor this",
        "",
        "## Folders",
        "data=data   # where data are,",
    ]
    lines += [" " * 20 + "# or will be", 'snrs="-5 0" # in dB; "" is none', "tag=  # a name", ""]
    script.write_text("\n".join([*lines, "later=2 # no", ""]))
    command = [UTILS / "list_options.sh", script]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [" ".join(line.split()) for line in result.stdout.split("\n")] == [
        "",
        "Folders",
        "--data data where data are,",
        "or will be",
        '--snrs "-5 0" in dB; "" is none',
        '--tag "" a name',
        "",
    ]


@pytest.mark.parametrize("recipe", ["grid", "lrs2", "lrs3", "mini_av"])
def test_a_recipe_explains_itself_wherever_it_is_called(recipe):
    """By a relative path as well, though it goes into its own folder."""
    root = UTILS.parent
    for folder, script in ((root, f"egs/{recipe}/run.sh"), (root / "egs" / recipe, "./run.sh")):
        result = subprocess.run(
            [script, "--help"], cwd=folder, capture_output=True, text=True, check=False
        )
        assert (result.returncode, result.stderr) == (0, "")
        assert "stage 5" in result.stdout
        assert "overrides the file, the file the recipe's run.sh" in result.stdout
        head = result.stdout.partition("# The one driver")[0]
        assert "./run.sh " in head


OWN = f"""
# Head of the recipe.
set -euo pipefail
lrs3= subset=433h own_options="lrs3 subset"
. {UTILS}/own_options.sh
printf '%s|' "lrs3=$lrs3" "subset=$subset" "$@"
corpus_folder lrs3 "$lrs3" "$@"
"""


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["--lrs3", "/"], "lrs3=/|subset=433h|/\n"),
        (["--nj", "2", "--lrs3=/", "--subset=30h", "--x=y"], "lrs3=/|subset=30h|--nj|2|--x=y|/\n"),
        (["--opts", "--lrs3 a", "--lrs3", "/"], "lrs3=/|subset=433h|--opts|--lrs3 a|/\n"),
        (["--dry_run", "true"], "lrs3=|subset=433h|--dry_run|true|"),
        (["--dry_run=true"], "lrs3=|subset=433h|--dry_run=true|"),
    ],
)
def test_a_recipe_takes_its_own_options_and_leaves_the_others(arguments, printed):
    result = parse(*arguments, script=OWN)
    assert result.stdout == printed, result.stderr
    assert result.returncode == 0


def test_wrong_own_options_are_errors():
    assert "option --lrs3 needs a value" in parse("--lrs3", script=OWN).stderr
    assert "--lrs3 <folder of the corpus> is missing" in parse("--nj", "2", script=OWN).stderr
    result = parse("--lrs3=/nowhere", script=OWN)
    assert result.returncode != 0
    assert "/nowhere" in result.stderr


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


def launch(name, *arguments, tmp_path, **env):
    path = f"{UTILS.parent / 'test/slurm'}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "SBATCH_LOG": str(tmp_path / "sbatch"), **env}
    command = [UTILS / name, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


@pytest.mark.parametrize("name", ["run.pl", "slurm.pl"])
def test_launchers_run_arrays_and_single_jobs(name, tmp_path):
    say = ["bash", "-c", 'echo "it\'s $1 of $0"; test "$1" != 2', "a JOB"]
    log = tmp_path / "log/say.JOB.log"
    result = launch(name, "JOB=1:3", log, *say, "JOB", tmp_path=tmp_path)
    assert result.returncode == 1
    assert f"{name}: job 2 failed; the end of {tmp_path}/log/say.2.log:" in result.stderr
    assert "job 1" not in result.stderr
    assert "it's 3 of a 3\n# Ended (code 0)\n" in (tmp_path / "log/say.3.log").read_text()
    assert launch(name, tmp_path / "one.log", *say, "1", tmp_path=tmp_path).returncode == 0
    assert "it's 1 of a JOB\n" in (tmp_path / "one.log").read_text()
    assert launch(name, tmp_path / "one.log", tmp_path=tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("run.pl", ["--max-jobs-run", "2", "JOB=1:2"], "run.pl: unknown option --max-jobs-run"),
        ("run.pl", ["-p", "gpu"], "run.pl: unknown option -p"),
        ("run.pl", ["--gpu", "all"], "run.pl: --gpu 'all' is no number"),
        ("slurm.pl", ["--num_nodes="], "slurm.pl: --num_nodes '' is no number"),
    ],
)
def test_launchers_refuse_what_they_do_not_know(name, arguments, said, tmp_path):
    result = launch(name, *arguments, tmp_path / "JOB.log", "true", tmp_path=tmp_path)
    assert result.returncode == 2
    assert said in result.stderr


def test_run_pl_waits_for_stopped_jobs_and_ends_with_them(tmp_path):
    """A job that is stopped for a while has not failed; an interrupt reaches what jobs started."""
    command = [UTILS / "run.pl", "JOB=1:2", tmp_path / "JOB.log", "bash", "-c", "sleep 30; true"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        jobs: list[int] = []
        deadline = time.monotonic() + 30
        while len(jobs) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
            jobs = [p.pid for p in psutil.Process(run.pid).children() if p.name() == "bash"]
        for signal_ in (signal.SIGSTOP, signal.SIGCONT):
            for job in jobs:
                os.killpg(job, signal_)
            time.sleep(0.2)
        assert run.poll() is None
        started = [p for job in jobs for p in psutil.Process(job).children(recursive=True)]
        assert {"sleep"} <= {p.name() for p in started}
    finally:
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=30)
    assert run.returncode == 130
    assert psutil.wait_procs(started, timeout=10)[1] == []


def test_run_pl_spreads_jobs_over_gpus(tmp_path):
    command = ["bash", "-c", "echo gpu=$CUDA_VISIBLE_DEVICES"]
    arguments = ["--gpu", "1", "JOB=1:3", tmp_path / "JOB.log", *command]
    launch("run.pl", *arguments, tmp_path=tmp_path, CUDA_VISIBLE_DEVICES="4,7")
    seen = [(tmp_path / f"{job}.log").read_text().split("\n")[1] for job in (1, 2, 3)]
    assert seen == ["gpu=4", "gpu=7", "gpu=4"]


@pytest.mark.parametrize(
    ("options", "env", "threads"),
    [
        (["JOB=1:2"], {}, len(os.sched_getaffinity(0)) // 2 or 1),
        (["JOB=1:99"], {}, 1),
        (["JOB=1:2"], {"OMP_NUM_THREADS": "7"}, 7),
        (["--gpu", "1", "JOB=1:2"], {"CUDA_VISIBLE_DEVICES": "0"}, ""),
        ([], {}, ""),
    ],
)
def test_run_pl_shares_the_cores_among_jobs(tmp_path, monkeypatch, options, env, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    command = [*options, tmp_path / "JOB.log", "bash", "-c", "echo threads=$OMP_NUM_THREADS"]
    assert launch("run.pl", *command, tmp_path=tmp_path, **env).returncode == 0
    log = tmp_path / ("1.log" if len(options) else "JOB.log")
    assert f"\nthreads={threads}\n" in log.read_text()


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ({}, "1000,"),
        ({"GOMP_SPINCOUNT": "30"}, "30,"),
        # A number of spins would override the policy.
        ({"OMP_WAIT_POLICY": "PASSIVE"}, ",PASSIVE"),
        ({"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}, ",PASSIVE"),  # of a call before
    ],
)
def test_threads_spin_shortly_before_they_sleep(given, used):
    variables = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    env = {name: value for name, value in os.environ.items() if name not in variables} | given
    script = f". {UTILS.parent / 'egs/TEMPLATE/avsr1/path.sh'}; "
    script += 'echo "${GOMP_SPINCOUNT:-},${OMP_WAIT_POLICY:-}"'
    assert parse(script=script, env=env).stdout == f"{used}\n"


def test_slurm_pl_asks_for_resources(tmp_path):
    # ESPnet's launcher adds its own options, of which --num_threads is one for each GPU.
    arguments = ["--partition", "gpu", "--num_threads", "10", "--gpu=2", "--num_threads", "2"]
    arguments += ["--num_nodes", "3", tmp_path / "train.log"]
    say = 'echo "srun: $SRUN_CPUS_PER_TASK CPUs, kill $SLURM_KILL_BAD_EXIT"'
    result = launch("slurm.pl", *arguments, "bash", "-c", say, tmp_path=tmp_path)
    assert result.returncode == 0, result.stderr
    asked = set((tmp_path / "sbatch").read_text().split("\n"))
    expected = ["job-name=train", "cpus-per-task=10", "gres=gpu:2", "nodes=3"]
    expected += ["ntasks-per-node=1", "partition=gpu"]
    assert {f"--{option}" for option in expected} <= asked
    assert f"--output={tmp_path}/train.log" in asked
    assert "\nsrun: 10 CPUs, kill 1\n" in (tmp_path / "train.log").read_text()


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ("--partition=gpu --time 1:00", "--cpus-per-task=1 --partition=gpu --time=1:00"),
        ("--exclusive --partition gpu", "--cpus-per-task=1 --exclusive --partition=gpu"),
        ("-p gpu -C a100 -N2 -H", "--cpus-per-task=1 -p gpu -C a100 -N2 -H"),
        ("--nice=-5 --hold", "--cpus-per-task=1 --nice=-5 --hold"),
        ("--cpus-per-gpu 5", "--cpus-per-gpu=5"),
        ("-c 5", "-c 5"),
    ],
)
def test_slurm_pl_gives_options_to_sbatch_in_any_spelling(options, asked, tmp_path):
    command = [*options.split(), "JOB=1:1", tmp_path / "JOB.log", "true"]
    result = launch("slurm.pl", *command, tmp_path=tmp_path)
    assert result.returncode == 0, result.stderr
    given = (tmp_path / "sbatch").read_text().split("\n")
    own = ("--parsable", "--job-name", "--array", "--output", str(tmp_path))
    assert " ".join(word for word in given if not word.startswith(own)).strip() == asked


def test_an_interrupt_ends_the_job_of_slurm_and_two_do_not_write_one_log(tmp_path):
    log = tmp_path / "train.log"
    script = ["bash", "-c", "echo $$; sleep 60; true"]
    env = {**os.environ, "SBATCH_LOG": str(tmp_path / "sbatch")}
    env["PATH"] = f"{UTILS.parent / 'test/slurm'}:{env['PATH']}"
    first = subprocess.Popen([UTILS / "slurm.pl", log, *script], env=env)
    try:
        deadline = time.monotonic() + 30
        while not log.exists() or len(log.read_text().split("\n")) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        number = (tmp_path / "train.log.job").read_text().strip()
        job = psutil.Process(int(log.read_text().split("\n")[1]))
        began = log.read_text()
        second = launch("slurm.pl", log, "true", tmp_path=tmp_path)
        assert second.returncode == 2
        assert f"job {number} of an earlier call still runs and writes {log}" in second.stderr
        assert f"scancel {number}" in second.stderr
        assert log.read_text() == began
    finally:
        first.send_signal(signal.SIGINT)
        first.wait(timeout=30)
    assert first.returncode == 130
    assert psutil.wait_procs([job], timeout=10)[1] == []
    assert launch("slurm.pl", log, "true", tmp_path=tmp_path).returncode == 0
    assert "# Ended (code 0)" in log.read_text()


def test_a_new_recipe_prepares_the_layout_that_its_skeleton_reads(tmp_path):
    root = tmp_path / "checkout"
    for folder in ("utils", "egs/TEMPLATE", "egs/mini_av/conf"):
        shutil.copytree(UTILS.parent / folder, root / folder, symlinks=True)
    command = [root / "utils/new_recipe.sh", "my_corpus"]
    subprocess.run(command, check=True)
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1
    recipe = root / "egs/my_corpus"
    assert "CORPUS" not in (recipe / "local/data.py").read_text()
    assert (recipe / "conf/train.yaml").is_file()
    sets = {"train": ["s1", "s10", "s2"], "valid": ["John Smith"], "test": ["d"]}
    for name, speakers in sets.items():
        for speaker in speakers:
            clip = (
                tmp_path / "corpus" / name / speaker / ("1.mp4" if name == "train" else "a b.MP4")
            )
            clip.parent.mkdir(parents=True)
            clip.touch()
            clip.with_suffix(".txt").write_text("Good  morning\n")
    command = [sys.executable, recipe / "local/data.py", "prepare"]
    command += ["--corpus", tmp_path / "corpus", "--out", tmp_path / "data", "--nj", "2"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(UTILS.parent)})
    assert (tmp_path / "data/train/text").read_text().split("\n") == [
        *("s1-1 Good morning", "s10-1 Good morning", "s2-1 Good morning", "")
    ]
    assert (tmp_path / "data/valid/utt2spk").read_text() == "John_Smith-a_b John_Smith\n"
    for name in ("train", "valid", "test"):
        assert validate_data_dir(tmp_path / "data" / name) == []
        assert (tmp_path / "data" / name / "excluded").read_text() == ""
    # By the recipe, from another folder than its own.
    stage_1 = [recipe / "run.sh", "--corpus", "corpus", "--stage", "1", "--stop_stage", "1"]
    environment = {**os.environ, "PYTHONPATH": str(UTILS.parent)}
    subprocess.run(stage_1, check=True, cwd=tmp_path, env=environment, capture_output=True)
    written = (recipe / "data/train/video.scp").read_text().split()[1]
    assert Path(written) == tmp_path / "corpus/train/s1/1.mp4"
    # What cannot be used is left out by its name, and of a test set only if that is allowed.
    folder = tmp_path / "corpus/test/d"
    for clip in ("a_b.mp4", "empty.mp4", "mute.mp4"):
        (folder / clip).touch()
    for text, words in (("a_b.txt", "Good evening"), ("empty.txt", " \n"), ("alone.txt", "Hm")):
        (folder / text).write_text(words)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "test: 4 of 5 utterances are excluded, more than --test_max_excluded 0" in done.stderr
    allowed = [*command, "--test_max_excluded", "0.8"]
    subprocess.run(allowed, check=True, capture_output=True, env=environment)
    assert (tmp_path / "data/test/text").read_text() == "d-a_b Good morning\n"
    assert (tmp_path / "data/test/excluded").read_text().splitlines() == [
        f"alone {folder}/alone.txt: no video beside it",
        f"d-a_b {folder}/a_b.mp4: its id is that of {folder}/a b.MP4; rename one of them",
        f"d-empty {folder}/empty.txt: no words",
        f"d-mute {folder}/mute.txt does not exist",
    ]

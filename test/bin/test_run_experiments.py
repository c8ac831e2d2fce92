"""The runner of experiments: failures, signals, GPUs; with a recipe that only leaves marks."""

import argparse
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from mome.analysis.experiment_options import command_line, pairs_of, settings_of
from mome.bin import run_experiments
from mome.bin.run_experiments import environments

# Trains and decodes by leaving the files that say so; "bad" fails, "slow" takes long.
RECIPE = """#!/usr/bin/env bash
set -euo pipefail
echo "$*" >> said
while [ $# -gt 0 ]; do
    case $1 in --stage) stage=$2 ;; --expdir) exp=$2 ;; --tag) tag=$2 ;; esac
    shift 2
done
echo "$$ ${stage} ${tag} ${OMP_NUM_THREADS:-}" >> begun
case ${stage}${tag} in
    4*/bad/*) exit 3 ;;
    4*/slow*/*) touch "${exp}/${tag}/config.yaml"; exec sleep 100 ;;
    4*) echo 'num_iters_per_epoch: 5' > "${exp}/${tag}/config.yaml"
        echo '[x] (trainer:1) INFO: 1epoch results: [valid] loss_avsr_a4_v2=1.0, acc=0.5' \
            > "${exp}/${tag}/log"
        echo '{"state": "done", "settings": {}}' > "${exp}/${tag}/.done" ;;
    5*) echo '{}' > "${exp}/${tag}/scores.json" ;;
esac
"""


def write_recipe(folder, *names: str) -> list[str]:
    """A recipe and a list of experiments of these names; the runner's options for them."""
    (folder / "run.sh").write_text(RECIPE)
    (folder / "run.sh").chmod(0o755)
    rates = {"audio_rates": [4], "video_rates": [2]}
    (folder / "train.yaml").write_text(yaml.safe_dump({"model_conf": rates}))
    listed = {"baseline": names[0], "task": "avsr", "learning_rates": [0.1], "seeds": [0, 1]}
    listed |= {"common": None, "experiments": dict.fromkeys(names)}
    (folder / "list.yaml").write_text(yaml.safe_dump(listed, sort_keys=False))
    options = ["--recipe", folder, "--list", folder / "list.yaml", "--expdir", folder / "exp"]
    return [*map(str, options), "--train_config", str(folder / "train.yaml")]


def begun(folder) -> list[str]:
    """Stage and experiment of what was begun, in its order."""
    lines = (folder / "begun").read_text().splitlines()
    return [f"{stage} {tag.split('/')[1]}" for _, stage, tag, *_ in map(str.split, lines)]


@pytest.mark.parametrize("jobs", [1, 3])
def test_an_experiment_that_fails_holds_up_no_other(tmp_path, monkeypatch, jobs):
    options = write_recipe(tmp_path, "bad", "good", "better")
    monkeypatch.setattr(run_experiments, "write_report", lambda *_: tmp_path / "list.yaml")
    for tried in (1, 2):
        with pytest.raises(SystemExit, match=r"bad/lr0.1_seed\d failed .*run\.log$"):
            run_experiments.main([*options, "--jobs", str(jobs)])
        known = begun(tmp_path)
        assert known.count("4 bad") == tried
        assert sorted(known) == sorted(
            ["4 bad"] * tried + [f"{n} {name}" for n in "4545" for name in ("good", "better")]
        )


def test_a_report_that_fails_meanwhile_stops_no_training(tmp_path, monkeypatch, capsys):
    options = write_recipe(tmp_path, "good", "better")
    monkeypatch.setattr(run_experiments, "REPORT_SECONDS", -1.0)

    def write_report(listed, chosen, args):
        if len(begun(tmp_path)) < 8:  # two experiments, two seeds, training and decoding
            raise RuntimeError("no table yet")
        return tmp_path / "list.yaml"

    monkeypatch.setattr(run_experiments, "write_report", write_report)
    run_experiments.main(options)
    assert len(begun(tmp_path)) == 8
    assert "the report is not written now: RuntimeError('no table yet')" in capsys.readouterr().out


def test_seeds_can_be_asked_for(tmp_path, monkeypatch):
    options = write_recipe(tmp_path, "good", "better")
    monkeypatch.setattr(run_experiments, "write_report", lambda *_: tmp_path / "list.yaml")
    run_experiments.main([*options, "--seeds", "1"])
    lines = (tmp_path / "begun").read_text().splitlines()
    assert sorted(line.split()[2].rpartition("/")[2] for line in lines) == ["lr0.1_seed1"] * 4
    run_experiments.main(options)
    lines = (tmp_path / "begun").read_text().splitlines()[4:]
    assert sorted(line.split()[2].rpartition("/")[2] for line in lines) == ["lr0.1_seed0"] * 4
    with pytest.raises(SystemExit, match="no seed 2 is listed; there are 0, 1"):
        run_experiments.main([*options, "--seeds", "2"])


def test_a_recipe_of_which_nothing_works_is_left_after_two_experiments(tmp_path, monkeypatch):
    options = write_recipe(tmp_path, "bad", "worse", "good")
    text = RECIPE.replace("4*/bad/*) exit 3", "4*) exit 3")
    (tmp_path / "run.sh").write_text(text)
    monkeypatch.setattr(run_experiments, "write_report", lambda *_: tmp_path / "list.yaml")
    with pytest.raises(SystemExit, match=r"bad/.* failed[^\n]*\n.*worse/.* failed"):
        run_experiments.main(options)
    assert begun(tmp_path) == ["4 bad", "4 worse"]


def lines_of(path) -> list[str]:
    """Of a file that may not be there yet."""
    return path.read_text().splitlines() if path.is_file() else []


def alive(pid: str) -> bool:
    """Whether a process runs, and has not just ended without anyone having asked how."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_whoever_stops_the_runner_stops_what_it_has_begun(tmp_path, number):
    options = write_recipe(tmp_path, "slow1", "slow2", "slow3")
    command = [sys.executable, "-m", "mome.bin.run_experiments", *options, "--jobs", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as runner:
        # As soon as the last one is announced: it may not have been begun yet.
        for line in runner.stdout:
            if b"slow3" in line:
                break
        started = time.monotonic()
        runner.send_signal(number)
        assert runner.wait(timeout=60) != 0
    assert time.monotonic() - started < 15
    pids = [line.split()[0] for line in (tmp_path / "begun").read_text().splitlines()]
    assert pids
    assert not any(map(alive, pids))


def test_a_signal_that_interrupts_no_wait_is_noticed_all_the_same(tmp_path):
    """As one that comes just before the main thread waits, or that another thread takes."""
    options = write_recipe(tmp_path, "slow1", "slow2")
    command = [sys.executable, "-m", "mome.bin.run_experiments", *options, "--jobs", "2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as runner:
        ends = time.monotonic() + 60
        while len(lines_of(tmp_path / "begun")) < 2 and time.monotonic() < ends:
            time.sleep(0.1)
        time.sleep(0.5)  # until the main thread waits for both
        threads = set(map(int, os.listdir(f"/proc/{runner.pid}/task"))) - {runner.pid}
        started = time.monotonic()
        for thread in threads:  # Linux gives a signal to the thread that it names, if it can
            os.kill(thread, signal.SIGINT)
        assert runner.wait(timeout=60) != 0
    assert time.monotonic() - started < 15
    assert not any(alive(line.split()[0]) for line in lines_of(tmp_path / "begun"))


def test_jobs_share_gpus_and_cores(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(run_experiments, "default_jobs", lambda: 16)

    def gpus(jobs, ngpu):
        return [each["CUDA_VISIBLE_DEVICES"] for each in environments(jobs, ngpu)]

    assert gpus(4, 1) == ["2", "5", "7", "2"]
    assert gpus(2, 2) == ["2,5", "7,2"]
    assert gpus(4, 0) == ["2,5,7"] * 4
    assert gpus(1, 2) == ["2,5,7"]
    assert environments(4, 1)[0]["OMP_NUM_THREADS"] == "4"
    assert "OMP_NUM_THREADS" not in environments(1, 1)[0]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert environments(4, 1)[0]["OMP_NUM_THREADS"] == "3"
    with pytest.raises(ValueError, match="--ngpu 4: this machine has 3 GPUs"):
        environments(2, 4)


def test_options_of_training_are_given_beside_the_runners_own(tmp_path, monkeypatch):
    options = write_recipe(tmp_path, "good")
    values = yaml.safe_load((tmp_path / "list.yaml").read_text())
    values["experiments"]["good"] = {"run_opts": ["--train_opts", "--max_epoch 2"]}
    (tmp_path / "list.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setattr(run_experiments, "write_report", lambda *_: tmp_path / "list.yaml")
    sparing = "--decoder_conf gradient_checkpointing=true --num_workers=1"
    run_experiments.main([*options, "--", "--train_opts", sparing, "--nj=2"])
    said = (tmp_path / "said").read_text().splitlines()
    assert len(said) == 4
    for seed in (0, 1):
        whole = f"--train_opts --max_epoch 2 {sparing} --seed {seed} --nj 2"
        assert sum(line.endswith(whole) for line in said) == 2
    # What changes no result may be left out again, and what changes one may not.
    run_experiments.main(options)
    assert len((tmp_path / "said").read_text().splitlines()) == 4
    other = [*options, "--", "--train_opts", "--batch_bins 5"]
    with pytest.raises(SystemExit, match=r"other .*\n  --batch_bins: was not given, is 5"):
        run_experiments.main(other)
    run_experiments.main([*options, "--report_only", "true"])
    for mine, wrong in (
        ("--seed", "--seed 3"),
        ("--seed", "--max_epoch 2 --seed=3"),
        ("--optim_conf lr", "--optim_conf lr=0.1"),
        ("--model_conf video_rates", "--model_conf=video_rates=[1]"),
    ):
        with pytest.raises(SystemExit, match=rf'--train_opts "{mine}" cannot be given: the list'):
            run_experiments.main([*options, "--", "--train_opts", wrong])


def test_options_of_the_data_make_no_other_training():
    words = ["--prepare_opts", "--split overlapped", "--snrs", "-5", "--beam=2", "--nj", "3"]
    assert dict(pairs_of(words)) == {
        "prepare_opts": "--split overlapped",
        "snrs": "-5",
        "beam": "2",
        "nj": "3",
    }
    training = argparse.Namespace(experiment=argparse.Namespace(run_opts=[]), conf={"seed": 1})
    args = argparse.Namespace(run_opts=words, task="avsr", dumpdir="dump")
    assert settings_of(training, args)["run_opts"] == "--snrs -5 --beam 2"


@pytest.mark.parametrize("name", ["expdir", "stage", "config"])
def test_options_that_the_runner_gives_or_cannot_see_are_refused(tmp_path, name):
    experiment = argparse.Namespace(run_opts=["--beam", "2"])
    training = argparse.Namespace(experiment=experiment, name="mome/lr0.1_seed0", seed=0)
    args = argparse.Namespace(run_opts=["--nj=2"], task="avsr")
    args.dumpdir = args.expdir = args.folder = tmp_path
    given = command_line(training, args)
    assert (given["beam"], given["nj"], given["train_opts"]) == ("2", "2", "--seed 0")
    args.run_opts.append(f"--{name}=x")
    with pytest.raises(ValueError, match=f"--{name} cannot be given to run.sh by experiments"):
        command_line(training, args)

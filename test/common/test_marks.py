"""mome.common.marks and mome.bin.run_once: work that knows what it was made with."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from mome.bin.run_once import main as run_once
from mome.common.marks import differences, fingerprint, read_mark, write_mark
from mome.tasks.config import command_settings

ROOT = Path(__file__).parents[2]
ELSEWHERE = "--expdir or --tag"


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Run a command that counts its runs; returns how many there have been."""
    monkeypatch.chdir(tmp_path)

    def run(*command, options=()):
        shell = ["sh", "-c", "echo ran; echo x >> runs", "work", *command]
        run_once(["--mark", "out/.done", f"--elsewhere={ELSEWHERE}", *options, "--", *shell])
        return len(Path("runs").read_text().split())

    return run


def test_the_same_command_runs_once_and_another_is_refused(work, caplog, capfdbinary):
    caplog.set_level("INFO")
    assert work("--seed", "0", "--nj", "2") == 1
    assert Path("out/log").read_text() == "ran\n"
    assert capfdbinary.readouterr().out == b"ran\n"
    assert work("--seed", "0", "--nj", "8", "--parallel", "dask.yaml") == 1
    assert work("--seed=0") == 1
    assert "done already: out/.done" in caplog.text
    with pytest.raises(SystemExit) as error:
        work("--seed", "1", "--lm", "llama")
    message = str(error.value)
    assert "out/.done was made with other settings" in message
    assert "  --lm: was not given, is llama\n  --seed: was 0, is 1\n" in message
    assert f"another {ELSEWHERE}, or redo it with --force true" in message
    assert work("--seed", "1", options=["--force", "true"]) == 2
    assert work("--seed", "1") == 2
    assert Path("out/log").read_text() == "ran\nran\n"
    assert work("--seed", "1", options=["--force", "true"]) == 3
    Path("out/parts").touch()
    assert work("--seed", "1", options=["--forget", "out/parts"]) == 3
    assert Path("out/parts").exists()
    assert work("--seed", "1", options=["--forget", "out/parts", "--force", "true"]) == 4
    assert not Path("out/parts").exists()


def test_what_failed_or_cannot_be_read_is_done_again(work, caplog):
    command = ["--mark", "out/.done", "--", "sh", "-c", "test -e good && touch made", "x", "--seed"]
    with pytest.raises(SystemExit):
        run_once([*command, "0"])
    assert "see out/log; the same command goes on from there" in caplog.text
    Path("good").touch()
    run_once([*command, "1"])  # nothing is there that it could go on from
    assert Path("made").exists()
    for content in ("", "{", "[]", '{"state": "done"}'):
        Path("out/.done").write_text(content)
        caplog.clear()
        Path("made").unlink()
        run_once([*command, "1"])
        assert "out/.done cannot be read as a mark: it counts as not done" in caplog.text
        assert Path("made").exists()


def test_what_a_command_has_started_ends_with_it(tmp_path, monkeypatch):
    """Whoever ends a training by SIGTERM, as batch systems do, ends its processes on all GPUs."""
    monkeypatch.chdir(tmp_path)
    inner = "sleep 60 & echo $! > inner; wait"
    outer = ["sh", "-c", 'sh -c "$1" & sleep 60 & echo $! > outer; wait', "x", inner]
    start = [sys.executable, "-m", "mome.bin.run_once", "--mark", "exp/.done", "--", *outer]
    process = subprocess.Popen(start, env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 120
    names = ("inner", "outer")
    while not all(Path(name).exists() and Path(name).read_text().strip() for name in names):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    started = [psutil.Process(int(Path(name).read_text())) for name in names]
    while not all(each.name() == "sleep" for each in started):  # until then copies of the shell
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 1
    gone, alive = psutil.wait_procs(started, 30)
    assert not alive
    assert len(gone) == 2
    assert read_mark("exp/.done")["state"] == "started"


def test_names_and_sizes_stand_for_a_folder(tmp_path):
    corpus = tmp_path / "corpus"
    (corpus / "s1").mkdir(parents=True)
    (corpus / "s1/a.mp4").write_text("abc")
    (corpus / "s1/again").symlink_to(corpus)  # no end without a look at where it leads
    (corpus / "lost").symlink_to(tmp_path / "nowhere")
    first = fingerprint(corpus)
    assert first.startswith("1 files of 3 bytes, ")
    (corpus / ".cache").mkdir()
    (corpus / ".cache/x").touch()
    (corpus / "s1/a.mp4").write_text("xyz")
    assert fingerprint(corpus) == first
    (corpus / "s1/a.mp4").rename(corpus / "s1/b.mp4")
    other = fingerprint(corpus)
    (corpus / "s1/b.mp4").write_text("abcd")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.mp4").touch()
    (corpus / "s2").symlink_to(tmp_path / "elsewhere")
    assert fingerprint(corpus).startswith("2 files of 4 bytes, ")
    assert len({first, other, fingerprint(corpus)}) == 3


def test_a_killed_training_goes_on_with_the_same_command_only(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    options = ["--mark", "exp/.done", "--checkpoint", "exp/checkpoint"]
    training = [
        "sh",
        "-c",
        "test -e exp/checkpoint && exit; touch exp/checkpoint; exec sleep 60",
        "x",
    ]

    def command(lr):
        return [*options, "--", *training, "--optim_conf", f"lr={lr}"]

    start = [sys.executable, "-m", "mome.bin.run_once", *command(1)]
    process = subprocess.Popen(start, env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 30
    while not Path("exp/checkpoint").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 1
    assert read_mark("exp/.done")["state"] == "started"
    with pytest.raises(SystemExit, match=r"--optim_conf lr: was 1, is 2"):
        run_once(command(2))
    run_once(command(1))
    assert read_mark("exp/.done")["state"] == "done"
    training[2] = "test ! -e exp/checkpoint && touch exp/checkpoint"  # what is forced starts anew
    for lr in (2, 2):  # of other settings and of equal ones
        run_once(["--force", "true", *command(lr)])
        assert read_mark("exp/.done")["settings"]["--optim_conf lr"] == "2"
    assert not Path("exp/checkpoint.unfinished").exists()
    write_mark("exp/.done", read_mark("exp/.done")["settings"], "started")
    Path("exp/checkpoint").write_text("of a week")
    run_once(["--force", "true", *command(2)])
    assert "Its checkpoint is kept as exp/checkpoint.unfinished" in caplog.text
    assert Path("exp/checkpoint.unfinished").read_text() == "of a week"


def test_validation_decides_whether_work_is_done(tmp_path, monkeypatch, caplog, capfd):
    monkeypatch.chdir(tmp_path)
    line = "echo x >> runs; mkdir -p data; cp source/* data"
    command = ["--mark", ".done", "--valid", "data", "--", "sh", "-c", line]
    then = ["--mark", "next.done", "--needs", ".done", "--", "touch", "next"]
    Path("source").mkdir()
    tables = {"utt2spk": "a a\n", "spk2utt": "a a\n", "wav.scp": "a a.wav\n", "text": "b red\n"}
    for name, content in tables.items():
        Path("source", name).write_text(content)
    with pytest.raises(SystemExit, match=r"what \.done marks is not valid, see above: fix"):
        run_once(command)
    assert "data: " in capfd.readouterr().out
    with pytest.raises(SystemExit, match=r"^\.done: that work was begun and is not finished"):
        run_once(then)
    Path("source/text").write_text("a red\n")
    run_once(command)  # not valid, hence made again
    run_once(then)
    assert Path("runs").read_text() == "x\nx\n"
    Path("data/text").write_text("b red\n")
    with pytest.raises(SystemExit, match="is not valid"):
        run_once(command)
    assert Path("runs").read_text() == "x\nx\n"
    Path("data/text").write_text("a blue\n")  # repaired by hand, which is kept
    run_once(command)
    assert read_mark(".done")["state"] == "done"
    assert Path("runs").read_text() == "x\nx\n"


def test_contents_of_configurations_and_inputs_count(work):
    Path("base.yaml").write_text("optim: adam\noptim_conf: {lr: 0.1, eps: 1}\nlog_interval: 5\n")
    Path("train.yaml").write_text("base: base.yaml\noptim_conf: {lr: 0.2}\n")
    write_mark("data/.done", {"--seed": "0"})
    needs = ["--needs", "data/.done", "weights"]
    assert work("--config", "train.yaml", options=needs) == 1
    Path("base.yaml").write_text("optim: adam\noptim_conf: {lr: 0.3, eps: 1}\nlog_interval: 9\n")
    Path("train.yaml").rename("renamed.yaml")
    assert work("--config", "renamed.yaml", options=needs) == 1
    Path("base.yaml").write_text("optim: adam\noptim_conf: {eps: 2}\n")
    with pytest.raises(SystemExit, match=r"configuration optim_conf\.eps: was 1, is 2\nKeep"):
        work("--config", "renamed.yaml", options=needs)
    Path("base.yaml").write_text("optim: adam\noptim_conf: {eps: 1}\n")
    write_mark("data/.done", {"--seed": "1"})
    Path("weights").write_text("1")
    with pytest.raises(SystemExit) as error:
        work("--config", "renamed.yaml", options=needs)
    assert "input data/.done: was" in str(error.value)
    assert "input weights: was absent, is" in str(error.value)
    with pytest.raises(SystemExit, match=r"nowhere\.yaml does not exist"):
        work("--config", "nowhere.yaml")


def test_a_mark_stands_for_its_settings_not_for_its_time(tmp_path):
    path = tmp_path / ".done"
    write_mark(path, {"b": 1, "a": (2, 3)}, "started")
    first = fingerprint(path)
    write_mark(path, {"a": [2, 3], "b": 1})
    assert fingerprint(path) == first != fingerprint(tmp_path / "none")
    assert json.loads(path.read_text())["state"] == "done"
    assert differences({"a": (2, 3)}, {"a": [2, 3]}) == []


def test_a_program_counts_by_its_code(tmp_path):
    program = tmp_path / "data.py"
    code = "def double(x):\n    if x:\n        return 2 * x\n    return 0\n"

    def fingerprint_of(text):
        program.write_text(text)
        return fingerprint(program)

    first = fingerprint_of(code)
    same = "# Doubles.\n\ndef double(x):  # a number\n  if x:\n\n    return 2*x\n  return 0\n"
    assert fingerprint_of(same) == fingerprint_of(code.replace("\n", "\r\n")) == first
    others = [
        code.replace("2 * x", "3 * x"),
        code.replace("double", "triple"),
        code.replace("    return 0", "        return 0"),
        code.replace("0", "'0'"),
        code.replace("0", "f'{x} {x}'"),
        code.replace("0", "f'{x}  {x}'"),
        code.replace("0", "f'{x}{x}'"),
        "",
    ]
    broken = ["def double(:\n    'text\n", "def double(:\n    'other\n"]
    found = [first, *map(fingerprint_of, others + broken)]
    assert len(set(found)) == len(found)


def test_spelling_of_paths_and_launchers_do_not_count(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = ["python", "-m", "x", "--data", "dump/train", "--decoder_conf", "lm=downloads/lm"]
    spelled = ["python", "-m", "x", "--data", f"{tmp_path}/dump/train"]
    spelled += ["--decoder_conf", f"lm={tmp_path}/downloads/lm", "--ngpu", "4"]
    launched = ["python", "-m", "launch", "--cmd", "slurm.pl", "--", *plain]
    assert command_settings(plain) == command_settings(spelled) == command_settings(launched)
    assert command_settings(plain)["--decoder_conf lm"] == "downloads/lm"
    with pytest.raises(SystemExit):
        run_once(["--mark", "x/.done"])


def test_what_memory_asks_for_changes_no_result(work):
    """Neither on the command line nor in a configuration; marks of before name these keys."""
    Path("train.yaml").write_text("optim: adam\nnum_workers: 4\nvalid_batch_size: 8\n")
    Path("more.yaml").write_text("base: train.yaml\ndecoder_conf: {gradient_checkpointing: false}")
    assert work("--config", "more.yaml") == 1
    mark = read_mark("out/.done")
    mark["settings"] |= {
        "configuration decoder_conf.gradient_checkpointing": False,
        "configuration num_workers": 4,
        "configuration valid_batch_size": 8,
        "--decoder_conf gradient_checkpointing": "false",
        "--push_to": "me/x",
    }
    write_mark("out/.done", mark["settings"])
    before = Path("out/.done").read_bytes()
    remedies = ["--decoder_conf", "gradient_checkpointing=true", "--num_workers", "1"]
    assert work("--config", "more.yaml", *remedies, "--valid_batch_size", "2") == 1
    Path("more.yaml").write_text("base: train.yaml\ndecoder_conf: {gradient_checkpointing: true}")
    assert work("--config", "more.yaml", "--push_to", "me/y", "--valid_batch_bins", "9") == 1
    assert Path("out/.done").read_bytes() == before  # what depends on it holds as well
    with pytest.raises(SystemExit) as error:
        work("--config", "more.yaml", *remedies, "--batch_size", "2")
    assert str(error.value).count(": was ") == 1


def test_modules_count_by_what_they_hold(work):
    """Every one that is imported, also by a configuration; marks of before name none, and hold."""
    Path("my_gate.py").write_text("raise RuntimeError('nobody runs it')")
    Path("parts").mkdir()
    Path("parts/__init__.py").touch()
    Path("parts/routers.py").write_text("one = 1")
    Path("train.yaml").write_text("imports: [parts]")
    words = ["--import", "my_gate", "--import=other", "--config", "train.yaml"]
    assert work(*words) == 1
    assert work(*words) == 1
    made = read_mark("out/.done")["settings"]
    assert set(made["modules"]) == {"my_gate", "other", "parts"}
    for path in ("my_gate.py", "parts/routers.py", "other.py"):
        was = Path(path).read_text() if Path(path).exists() else None
        Path(path).write_text("two = 2")
        with pytest.raises(SystemExit, match=r"other settings:\n  modules: was .*\nKeep it"):
            work(*words)
        Path(path).unlink() if was is None else Path(path).write_text(was)
    with pytest.raises(SystemExit, match="modules: was"):
        work(*words[2:])
    write_mark("out/.done", {k: v for k, v in made.items() if k != "modules"})
    Path("my_gate.py").write_text("two = 2")
    assert work(*words) == 1


def test_modules_of_another_configuration_count(work):
    """As of a model that is packed, whose configuration the command does not name."""
    Path("config.yaml").write_text("imports: [my_gate]")
    Path("my_gate.py").write_text("one = 1")
    options = ["--modules_of", "config.yaml"]
    assert work(options=options) == 1
    assert work(options=options) == 1
    Path("my_gate.py").write_text("two = 2")
    with pytest.raises(SystemExit, match="modules: was"):
        work(options=options)

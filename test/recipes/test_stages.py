"""avsr.sh's data stages, on small clips in the layout that the template's local/data.py reads."""

import argparse
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from media import write_clip

from mome.common.marks import read_mark, write_mark
from mome.data.kaldi import read_scp, validate_data_dir, write_scp
from mome.data.video import write_lips

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "egs/TEMPLATE"


def run(folder: Path, *options, check: bool = True) -> str:
    """Call avsr.sh in a recipe's folder; returns what it says."""
    command = [TEMPLATE / "avsr1/avsr.sh", "--corpus", folder / "corpus", "--nj", "1", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert (done.returncode == 0) == check, (done.stdout + done.stderr)[-4000:]
    return done.stdout + done.stderr


@pytest.fixture
def recipe(tmp_path) -> Path:
    """A recipe of three sets of sound, two clips of 0.6 and 1.2 s in each."""
    shutil.copytree(TEMPLATE / "recipe/local", tmp_path / "local")
    for name in ("train", "valid", "test"):
        for number in (1, 2):
            path = tmp_path / "corpus" / name / "anna" / f"{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_clip(path, num_frames=0, audio_seconds=0.6 * number)
            path.with_suffix(".txt").write_text("PLACE RED\n")
    return tmp_path


STAGE_1 = ["--stage", "1", "--stop_stage", "1"]
STAGES = ["--stage", "1", "--stop_stage", "2", "--streams", "audio"]


def test_utterances_are_left_out_on_demand(recipe):
    listed = recipe / "unwanted"
    for suffix in (".mp4", ".txt"):  # a clip of one of the sets alone
        path = recipe / "corpus/valid/anna/2"
        shutil.copy(path.with_suffix(suffix), path.with_name(f"3{suffix}"))
    listed.write_text("anna-2 mumbled\nanna-3\nanna-5\n")
    options = [*STAGES, "--exclude", listed]
    said = run(recipe, *options, check=False)
    assert f"--exclude {listed}: 1 of 3 utterances are in no set of data: anna-5. Correct" in said
    listed.write_text("anna-2 mumbled\nanna-3\n")
    said = run(recipe, *options)
    for name in ("train", "valid", "test"):
        assert list(read_scp(recipe / "dump" / name / "text")) == ["anna-1"]
        reasons = {"anna-2": f"{listed}: mumbled"}
        reasons |= {"anna-3": f"{listed}: listed"} if name == "valid" else {}
        assert read_scp(recipe / "dump" / name / "excluded") == reasons
    assert "  excluded 1: mumbled\n" in said
    # What the file says counts, as do the options.
    listed.write_text("anna-1\n")
    said = run(recipe, *options, check=False)
    assert f"input {listed.name}: was " in said.replace(f"{recipe}/", "")
    run(recipe, *options, "--force", "true")
    assert read_scp(recipe / "dump/test/excluded") == {"anna-1": f"{listed}: listed"}
    said = run(recipe, *options, "--train_max_seconds", "1", check=False)
    assert "--max_seconds: was not given, is 1" in said
    options = [*STAGES, "--force", "true", "--train_max_seconds"]
    run(recipe, *options, "1")
    assert list(read_scp(recipe / "dump/test/text")) == ["anna-1", "anna-2"]
    assert list(read_scp(recipe / "dump/train/text")) == ["anna-1"]
    (reason,) = read_scp(recipe / "dump/train/excluded").values()
    assert reason.endswith("anna/2.mp4: longer than --max_seconds 1")
    for none in ("0.1", "0", "nan"):
        said = run(recipe, *options, none, check=False)
        assert "dump/train: no utterance is left; see dump/train/excluded" in said
    said = run(recipe, *STAGES, "--force", "true", "--exclude", "nowhere", check=False)
    assert "--exclude: " in said
    assert "nowhere" in said


def test_a_text_that_cannot_be_read_is_excluded_by_the_template(tmp_path):
    """As one on a disk that fails; reading this one is an error of input and output."""
    read_words = runpy.run_path(str(TEMPLATE / "recipe/local/data.py"))["read_words"]
    (tmp_path / "a.txt").symlink_to("/proc/self/mem")
    words, reason = read_words(tmp_path / "a.mp4")
    assert words == ""
    assert re.fullmatch(rf"{tmp_path}/a\.txt: \[Errno 5\] Input/output error.*", reason)


def test_names_that_would_break_the_order_of_the_templates_ids(tmp_path):
    """A hyphen, or what sorts before it, within the name of a speaker."""
    names = [
        "anna/z",
        "anna/dots",
        "anna maria/2",
        "anna-maria/1",
        "anna+/3",
        "anna10/a b",
        "anna1/c",
    ]
    for name in names:
        path = tmp_path / "corpus/train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".mp4").touch()
        path.with_suffix(".txt").write_text("..." if path.stem == "dots" else "PLACE RED")
    for name in ("valid", "test"):
        shutil.copytree(tmp_path / "corpus/train/anna1", tmp_path / "corpus" / name / "anna1")
    prepare = runpy.run_path(str(TEMPLATE / "recipe/local/data.py"))["prepare"]
    for suffix in (b".mp4", b".txt"):  # of a system that writes Latin-1
        path = tmp_path / "corpus/train/anna" / os.fsdecode(b"caf\xe9" + suffix)
        path.write_text("PLACE RED")
    limits = {"max_excluded": 0.5, "test_max_excluded": 0.5}
    corpus, out = tmp_path / "corpus", tmp_path / "data"
    prepare(argparse.Namespace(corpus=corpus, out=out, nj=1, **limits))
    assert validate_data_dir(out / "train") == []
    kept = ["anna-z", "anna1-c", "anna10-a_b", "anna_-3", "anna_maria-2"]
    assert list(read_scp(out / "train/text")) == kept
    excluded = read_scp(out / "train/excluded")
    assert excluded.pop("anna-dots") == f"{corpus}/train/anna/dots.txt: no words"
    reason = excluded.pop("anna-caf\\udce9")
    assert reason == f"{corpus}/train/anna/caf\\udce9.mp4: its name is not UTF-8; rename it"
    assert list(excluded) == ["anna_maria-1"]
    assert excluded["anna_maria-1"].endswith(f"as that of {corpus}/train/anna maria; rename one")


def test_names_in_capitals_are_read_by_the_template(tmp_path):
    """As old cameras give them."""
    files = ("2.MP4", "2.TXT", "3.mp4", "3.txt")
    for name in ("train", "valid", "test"):
        for file in (*files, "ALONE.TXT") if name == "train" else files:
            path = tmp_path / "corpus" / name / "anna" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("PLACE RED")
    prepare = runpy.run_path(str(TEMPLATE / "recipe/local/data.py"))["prepare"]
    limits = {"max_excluded": 0.7, "test_max_excluded": 0.0}
    corpus, out = tmp_path / "corpus", tmp_path / "data"
    prepare(argparse.Namespace(corpus=corpus, out=out, nj=1, **limits))
    for name in ("train", "valid", "test"):
        assert validate_data_dir(out / name) == []
        assert list(read_scp(out / name / "text")) == ["anna-2", "anna-3"]
    excluded = read_scp(out / "train/excluded")
    assert {name: reason.rpartition(": ")[2] for name, reason in excluded.items()} == {
        "ALONE": "no video beside it"
    }


def test_changed_data_are_seen(recipe):
    """A list of stage 1 that names another file: stage 2 is another one, and its result too."""
    run(recipe, *STAGES)
    assert read_scp(recipe / "dump/test/utt2num_frames")["anna-2"] == "30"
    shutil.copy(recipe / "corpus/train/anna/1.mp4", recipe / "other.mp4")
    videos = read_scp(recipe / "data/test/video.scp")
    write_scp(recipe / "data/test/video.scp", videos | {"anna-2": recipe / "other.mp4"})
    assert "data/test/video.scp: was " in run(recipe, *STAGES, check=False)
    run(recipe, *STAGES, "--stage", "2", "--force", "true")  # stage 1 anew would undo it
    assert read_scp(recipe / "dump/test/utt2num_frames")["anna-2"] == "15"
    assert "done already: dump/test/.done" in run(recipe, *STAGES)


def test_another_corpus_is_seen(recipe):
    """Files that are added to a corpus, as by fetching further speakers, are other data."""
    run(recipe, *STAGES)
    (recipe / "corpus/.DS_Store").touch()
    assert "done already: data/.done" in run(recipe, *STAGES)
    for kind in ("mp4", "txt"):
        shutil.copy(recipe / f"corpus/test/anna/1.{kind}", recipe / f"corpus/test/anna/3.{kind}")
    said = run(recipe, *STAGES, check=False)
    assert re.search(r"source corpus: was 12 files of \d+ bytes, .*, is 14 files of", said)
    assert "another --datadir, or redo it with --force true" in said
    # What an earlier version has marked does not say what the corpus was, and holds.
    mark = read_mark(recipe / "data/.done")
    settings = {k: v for k, v in mark["settings"].items() if not k.startswith("source ")}
    assert len(settings) == len(mark["settings"]) - 2
    write_mark(recipe / "data/.done", settings)
    assert "done already: data/.done" in run(recipe, *STAGES)
    # Done anew with the lists of before, it leaves standing what was made from these.
    for kind in ("mp4", "txt"):
        (recipe / f"corpus/test/anna/3.{kind}").unlink()
    (recipe / "corpus/notes").touch()
    run(recipe, *STAGE_1, "--force", "true")
    assert "done already: dump/test/.done" in run(recipe, *STAGES)
    # A corpus that is not there now, as on a disk that is not mounted, is no other one.
    (recipe / "corpus").rename(recipe / "elsewhere")
    said = run(recipe, *STAGES)
    assert "done already: data/.done" in said
    assert "done already: dump/test/.done" in said
    assert "none of the recordings is there now" in said


def test_another_program_of_the_recipe_is_seen(recipe):
    """One that has been edited, and whose lists are the same: later stages hold."""
    run(recipe, *STAGES)
    program = recipe / "local/data.py"
    program.write_text(program.read_text() + "# a comment changes nothing\n")
    assert "done already: data/.done" in run(recipe, *STAGE_1)
    program.write_text(program.read_text() + "EDITED = True\n")
    said = run(recipe, *STAGE_1, check=False)
    assert "source local/data.py: was " in said
    run(recipe, *STAGE_1, "--force", "true")
    assert "done already: dump/test/.done" in run(recipe, *STAGES)


def test_recordings_that_are_replaced_are_seen(recipe):
    """Under names that stay, in lists that stay."""
    run(recipe, *STAGES)
    path = recipe / "corpus/test/anna/2.mp4"
    shutil.copy(recipe / "corpus/test/anna/1.mp4", path)
    os.utime(path, (1e9, 1e9))
    stage_2 = [*STAGES, "--stage", "2"]
    said = run(recipe, *stage_2, check=False)
    assert "dump/test: 1 of 2 clips were made from other files than there are now, such as " in said
    assert f"anna-2: was {path} " in said
    assert "source dump/test/sources.sha256: was " in said
    assert read_scp(recipe / "dump/test/utt2num_frames")["anna-2"] == "30"
    # What an earlier version has marked does not say it, and holds.
    mark = read_mark(recipe / "dump/test/.done")
    settings = {k: v for k, v in mark["settings"].items() if not k.startswith("source ")}
    write_mark(recipe / "dump/test/.done", settings)
    assert "done already: dump/test/.done" in run(recipe, *stage_2)
    # Without the mark, the clips of the other files are kept.
    kept = recipe / "dump/test/audio/anna/anna-1.flac"
    before = kept.stat().st_mtime_ns
    (recipe / "dump/test/.done").unlink()
    run(recipe, *stage_2)
    assert read_scp(recipe / "dump/test/utt2num_frames")["anna-2"] == "15"
    assert kept.stat().st_mtime_ns == before
    assert "done already: dump/test/.done" in run(recipe, *stage_2)


def test_a_training_knows_the_clips_that_it_was_made_from(recipe):
    """Clips that are replaced under their names; what an earlier version has marked still holds."""
    options = ["--streams", "video", "--tasks", "vsr", "--train_config", "train.yaml"]
    stage_4 = [*options, "--stage", "4", "--stop_stage", "4"]
    (recipe / "train.yaml").write_text("max_epoch: 1\n")
    exp = recipe / "exp/mome"
    for name in ("train", "valid"):
        folder = recipe / "dump" / name
        write_mark(folder / ".done", {"x": "1"})
        write_scp(folder / "sources", {"anna-1": "a.mp4 1 1"})
    said = run(recipe, *stage_4, check=False)  # the configuration is none
    assert "mome.bin.train" in said
    begun = read_mark(exp / ".done")["settings"]
    read = {name for name in begun if name.startswith("input ")}
    assert read == {f"input dump/{n}/{f}" for n in ("train", "valid") for f in (".done", "sources")}
    write_mark(exp / ".done", begun)
    assert "done already: exp/mome/.done" in run(recipe, *stage_4)
    write_scp(recipe / "dump/valid/sources", {"anna-1": "a.mp4 1 2"})
    assert "input dump/valid/sources: was " in run(recipe, *stage_4, check=False)
    write_mark(exp / ".done", {k: v for k, v in begun.items() if not k.endswith("sources")})
    assert "done already: exp/mome/.done" in run(recipe, *stage_4)


@pytest.mark.parametrize(("given", "cpus"), [("", 8), ("--max_epoch 1 --num_workers 1", 4)])
def test_a_training_on_a_cluster_asks_for_the_cpus_that_read_its_clips(
    recipe, monkeypatch, given, cpus
):
    monkeypatch.setenv("PATH", f"{ROOT / 'test/slurm'}:{os.environ['PATH']}")
    monkeypatch.setenv("SBATCH_LOG", str(recipe / "sbatch"))
    for name in ("train", "valid"):
        write_mark(recipe / "dump" / name / ".done", {"x": "1"})
    (recipe / "train.yaml").write_text("base: base.yaml\n")
    (recipe / "base.yaml").write_text("num_workers: 3\n")
    options = ["--stage", "4", "--stop_stage", "4", "--tasks", "vsr", "--streams", "video"]
    options += ["--train_config", "train.yaml", "--train_opts", given, "--ngpu", "2"]
    options += ["--train_cmd", "slurm.pl --exclusive -p gpu"]
    run(recipe, *options, check=False)  # there are no clips
    asked = set((recipe / "sbatch").read_text().split("\n"))
    assert {f"--cpus-per-task={cpus}", "--gres=gpu:2", "--exclusive", "-p", "gpu"} <= asked


@pytest.mark.parametrize(
    ("tasks", "warm"), [("vsr", "vsr"), ("asr", "asr"), ("asr vsr", "avsr"), ("vsr asr", "avsr")]
)
def test_a_model_starts_from_the_warm_start_of_what_it_reads(recipe, tasks, warm):
    """Its projectors must be among those of the warm start, which is named by their streams."""
    for name in ("train", "projectors"):
        (recipe / f"{name}.yaml").write_text("max_epoch: 1\n")
    options = ["--stage", "4", "--stop_stage", "4", "--tasks", tasks, "--tag", "x"]
    options += ["--train_config", "train.yaml", "--projector_config", "projectors.yaml"]
    options += ["--video_weights", "encoder.safetensors"]
    for name in ("train", "valid", "noise"):
        write_mark(recipe / "dump" / name / ".done", {"x": "1"})
    run(recipe, *options, check=False)  # there is nothing to train on
    mark = recipe / f"exp/projectors_{warm}/.done"
    begun = read_mark(mark)["settings"]
    assert begun["--tasks"] == warm
    write_mark(mark, begun)
    assert f"done already: exp/projectors_{warm}/.done" in run(recipe, *options, check=False)
    started = read_mark(recipe / "exp/x/.done")["settings"]
    assert started["--tasks"] == tasks
    assert started["--init_param"] == f"exp/projectors_{warm}/valid.loss.best.pth"
    assert f"input exp/projectors_{warm}/.done" in started
    assert {path.name for path in (recipe / "exp").iterdir()} == {f"projectors_{warm}", "x"}
    # A tag puts another model beside this one, and no other warm start.
    write_mark(recipe / "exp/x/.done", started)
    said = run(recipe, *options, "--train_opts", "--seed 1", check=False)
    assert "give another --expdir or --tag, or redo it" in said
    (recipe / "projectors.yaml").write_text("max_epoch: 2\n")
    assert "give another --expdir, or redo it" in run(recipe, *options, check=False)


def test_a_model_of_another_training_set_is_not_decoded(recipe):
    config = recipe / "exp/mome/config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("train_data_path_and_name_and_type: [[dump/other/text, text, text]]\n")
    said = run(recipe, "--stage", "5", "--stop_stage", "5", check=False)
    assert "exp/mome/config.yaml: trained on other, not on train; give that set" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--expdir", "/x/a:b"], "--expdir '/x/a:b': to ESPnet the name of a file to start from"),
        (["--tag", "a b"], "--tag 'a b': folders are named by it; no blank and no comma"),
        (["--decode_tag", "a,b"], "--decode_tag 'a,b': folders are named by it"),
        (["--decode_tag", "a/b"], "--decode_tag 'a/b': files are named by it; no slash"),
        (["--train_set", "train other"], "--train_set 'train other': folders are named by it"),
        (["--valid_set", "\tvalid"], "--valid_set '\tvalid': folders are named by it"),
    ],
)
def test_names_that_folders_cannot_have_are_refused(tmp_path, options, message):
    assert message in run(tmp_path, "--stage", "9", *options, check=False)


def test_a_word_of_no_option_is_refused(tmp_path):
    """All that follows it would be ignored."""
    said = run(tmp_path, "--stage", "9", "--snrs", "-5", "0", "--seed", "1", check=False)
    assert "'0' belongs to no option: a value of several words needs quotes" in said


def test_a_tag_may_name_a_folder_within_another(tmp_path):
    run(tmp_path, "--stage", "9", "--tag", "experiments/mome/lr0.002_seed0", "--decode_tag", "x-1")


def test_corrupted_lips_are_left_out_where_none_are_read(recipe):
    for number in (3, 4):  # babble takes two for training and two for tests
        for kind in ("mp4", "txt"):
            folder = recipe / "corpus/train/anna"
            shutil.copy(folder / f"1.{kind}", folder / f"{number}.{kind}")
    options = ["--tasks", "asr", "--corruptions", "blur", "--snrs", ""]
    options += ["--noise_opts", "--num_train 1 --num_test 1 --seconds 1 --test_share 0.5"]
    said = run(recipe, "--stage", "1", "--stop_stage", "3", *options)
    assert "no --corruptions, as --tasks asr reads no lips" in said
    assert not list((recipe / "dump").glob("test_blur*"))
    command = [sys.executable, "-m", "mome.bin.corrupt_lips", "--dump", recipe / "dump"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stderr.startswith(f"{recipe}/dump/test/lip.scp does not exist: there are no lips")


def test_numbers_of_jobs_and_clusters_reach_the_programs(recipe):
    said = run(recipe, *STAGE_1, "--nj", "0", check=False)
    assert "nj=0: at least one job is needed" in said
    run(recipe, *STAGE_1, "--nj", "2")
    folder = recipe / "dump/test"
    write_lips(folder / "a.mp4", np.full((12, 96, 96), 128, np.uint8))
    for file, value in (("lip.scp", folder / "a.mp4"), ("utt2num_frames", 12), ("text", "red")):
        write_scp(folder / file, {"anna-1": value})
    for file, value in (("utt2spk", "anna"), ("utt2dur", 0.48)):
        write_scp(folder / file, {"anna-1": value})
    options = ["--stage", "3", "--stop_stage", "3", "--streams", "video", "--corruptions", "drop"]
    said = run(recipe, *options, "--parallel", "nowhere.yaml", check=False)
    assert "nowhere.yaml" in said
    run(recipe, *options)
    assert list(read_scp(recipe / "dump/test_drop1/lip.scp")) == ["anna-1"]


def test_what_a_packed_model_was_made_with_is_known(recipe):
    """Uploads are nothing of that, modules are; what is measured stays, whatever is added."""
    exp, mark = recipe / "exp/mome", recipe / "exp/mome/.packed.done"
    options = ["--stage", "6", "--stop_stage", "6", "--tasks", "vsr", "--streams", "video"]
    exp.mkdir(parents=True)
    (exp / "config.yaml").write_text("imports: [my_gate]\n")
    (recipe / "my_gate.py").write_text("one = 1\n")
    said = run(recipe, *options, "--pack_opts", "--push_to me/x --beam 2", check=False)
    assert "exp/mome/valid.acc.best.pth does not exist; train the model first" in said
    made = read_mark(mark)["settings"]
    assert (made["--max_clips"], made["--beam"]) == ("40", "2")
    assert "--push_to" not in made

    def again(*more: str) -> str:
        write_mark(mark, made)
        return run(recipe, *options, "--pack_opts", "--beam 2", *more, check=False)

    assert "done already: exp/mome/.packed.done" in again()
    assert "--max_clips: was 40, is 8" in again("--pack_clips", "8")
    (recipe / "my_gate.py").write_text("two = 2\n")
    assert "modules: was " in again()
    # An earlier version knew no modules, and with options measured on as many clips as mome-pack.
    del made["modules"], made["--max_clips"]
    assert "done already: exp/mome/.packed.done" in again()


def test_what_a_training_needs_is_looked_for_before_the_data_are_prepared(recipe, tiny_lm):
    (recipe / "train.yaml").write_text("decoder: mome_llm\nvideo_encoder: avhubert\n")
    options = ["--stage", "1", "--train_config", "train.yaml", "--lm", tiny_lm]
    lips = recipe / "avhubert-large/model.safetensors"
    options += ["--video_weights", lips]
    said = run(recipe, *options, check=False)
    assert f"{lips}: no converted AV-HuBERT weights. Get a checkpoint from its authors" in said
    assert f"mome-convert-avhubert --checkpoint large_vox_iter5.pt --output {lips.parent}" in said
    said = run(recipe, *options, "--lm", "nowhere/of/mine", check=False)
    assert "nowhere/of/mine is no folder; name the folder of a Transformers model" in said
    assert not (recipe / "data").exists()
    run(recipe, *options, "--stop_stage", "1")  # which trains nothing
    lips.parent.mkdir()
    for path in (lips, lips.with_name("config.json")):
        path.touch()
    assert "no converted" not in run(recipe, *options, "--lip_opts", "--x", check=False)

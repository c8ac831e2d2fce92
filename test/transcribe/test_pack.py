"""mome-pack on prepared sets: what it measures, for models that read one stream too."""

import json

import pytest
import torch
import yaml

from mome.bin import pack as command
from mome.tasks.avsr import load_model
from mome.tasks.build import build_model
from mome.tasks.packed import load_packed, namespace

TASKS = {"vsr": ["v2", "v5"], "asr": ["a4", "a16"]}


@pytest.mark.parametrize("task", list(TASKS))
def test_a_model_of_one_stream_is_measured_on_that_stream_alone(training, dump, tmp_path, task):
    values = yaml.safe_load((training / "config.yaml").read_text())
    values["model_conf"]["tasks"] = [task]
    if task == "asr":
        values |= {"video_encoder": None, "video_encoder_conf": {}}
    expdir = tmp_path / "exp" / "one"
    expdir.mkdir(parents=True)
    (expdir / "config.yaml").write_text(yaml.safe_dump(values))
    model = build_model(namespace(values))
    torch.save(model.state_dict(), expdir / "valid.acc.best.pth")
    for name in ("train", "valid"):  # stage 2 prepares what the tasks read
        (dump / name / ("wav.scp" if task == "vsr" else "lip.scp")).unlink()
    options = ["--expdir", expdir, "--dump", dump, "--trained_on", "noise", "--beam", "1"]
    command.main([str(word) for word in (*options, "--output", tmp_path / "packed.zip")])
    lips = training.parent / "lips"  # beside another training than the one that is packed
    packed, _, info = load_packed(tmp_path / "packed.zip", downloads=[lips])
    assert list(packed.pairs) == [task]
    assert [row["rates"] for row in info["rates"]] == TASKS[task]
    assert info["max_seconds"] == 1.08
    assert json.loads(json.dumps(info["calibration"]))["line"]["weights"]


def test_clips_are_taken_evenly(dump, training):
    model, _ = load_model(training / "config.yaml", training / "model.pth")
    clips, texts = command.read_clips(dump / "valid", 2, model)
    assert [round(clip.end, 2) for clip in clips] == [1.0, 1.04]
    assert len(texts) == 2
    (dump / "valid" / "text").write_text("")
    with pytest.raises(ValueError, match="has no utterances"):
        command.read_clips(dump / "valid", 2, model)


def test_what_is_in_the_way_is_said_before_anything_is_measured(training, dump, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    options = ["--expdir", training, "--weights", "model.pth", "--dump", dump]
    options += ["--trained_on", "noise", "--output", tmp_path / "mine"]
    with pytest.raises(SystemExit, match="mine holds other files"):
        command.main([str(word) for word in options])

"""Programs that run a packed model say in a line where memory does not suffice and what helps."""

import numpy as np
import pytest
import soundfile
import torch

from mome.analysis import expert_figure
from mome.bin import measure_cascade, measure_delays, pack, plot_experts, plot_tokens, transcribe
from mome.models.avsr import AVSRModel
from mome.tasks import packed as packing

INFO = {"trained_on": "noise", "max_seconds": 6.0, "crops": {"elsewhere": True}}


def lacks(*args, **kwargs):
    return torch.empty(2**55)  # PyTorch's own error


@pytest.fixture
def packed(training, tmp_path):
    return packing.pack(
        training / "config.yaml", training / "model.pth", tmp_path / "packed.zip", INFO, ""
    )


@pytest.mark.parametrize(
    ("program", "options", "remedy"),
    [
        (measure_cascade, ["--test_sets", "valid", "--output", "found.json"], "lower --beam"),
        (measure_delays, ["--set", "valid"], "leave longer clips out"),
        (plot_experts, ["--set", "valid", "--output", "figures"], "leave longer clips out"),
        (plot_tokens, ["--set", "valid", "--output", "figures"], "name a shorter --utt"),
    ],
)
def test_programs_name_the_clips_and_what_helps(
    packed, dump, tmp_path, monkeypatch, program, options, remedy
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(AVSRModel, "encode", lacks)
    name = program.__name__.removeprefix("mome.bin.").replace("_", "-")
    said = (
        f"^mome-{name}: (error: )?out of memory with the utterances u0.*: {remedy}.*can't allocate"
    )
    with pytest.raises(SystemExit, match=said):
        program.main(["--model", str(packed), "--dump", str(dump), *options])


@pytest.mark.parametrize(
    ("program", "module", "name"),
    [(plot_experts, expert_figure, "expert_shares"), (plot_tokens, plot_tokens, "tokens_of")],
)
def test_what_is_done_with_features_names_the_clips_too(
    packed, dump, tmp_path, monkeypatch, program, module, name
):
    monkeypatch.setattr(module, name, lacks)
    options = ["--model", packed, "--dump", dump, "--set", "valid", "--output", tmp_path]
    with pytest.raises(SystemExit, match=r"error: out of memory with the utterances u0.*leave"):
        program.main(list(map(str, options)))


def test_packing_names_the_clips_and_what_helps(training, dump, tmp_path, monkeypatch):
    expdir = tmp_path / "exp"
    expdir.mkdir()
    for name in ("config.yaml", "model.pth"):
        (expdir / name).write_bytes((training / name).read_bytes())
    monkeypatch.setattr(AVSRModel, "encode", lacks)
    options = ["--expdir", expdir, "--weights", "model.pth", "--dump", dump, "--trained_on", "x"]
    with pytest.raises(
        SystemExit, match=r"^mome-pack: (error: )?out of memory with the .* u0: .*--beam"
    ):
        pack.main([str(word) for word in (*options, "--output", tmp_path / "p.zip")])


def test_a_model_that_does_not_fit_into_the_memory_is_not_taken_for_a_damaged_one(
    packed, dump, tmp_path, monkeypatch
):
    monkeypatch.setattr(AVSRModel, "load_state_dict", lacks)
    with pytest.raises(SystemExit, match=r"out of memory while .*packed\.zip was loaded: end what"):
        measure_delays.main(["--model", str(packed), "--dump", str(dump)])


def test_a_recording_names_its_parts_and_the_others_are_read(packed, tmp_path, monkeypatch, capsys):
    noise = np.random.default_rng(0).normal(0, 0.1, 48000)
    for name, samples in (("long.wav", noise), ("short.wav", noise[:16000])):
        soundfile.write(tmp_path / name, samples, 16000)
    encode = AVSRModel.encode

    def for_short_ones(self, speech=None, **batch):
        return lacks() if speech.shape[1] > 20000 else encode(self, speech=speech, **batch)

    monkeypatch.setattr(AVSRModel, "encode", for_short_ones)
    names = [str(tmp_path / name) for name in ("long.wav", "short.wav")]
    with pytest.raises(SystemExit) as stop:
        transcribe.main([*names, "--model", str(packed), "--beam", "1", "--format", "txt"])
    assert stop.value.code == 1
    said = capsys.readouterr().err
    parts = "out of memory with the utterances 0.00 to 3.00 s: lower --batch_size, --beam or --max"
    assert f"  {names[0]}: {parts}" in said
    assert "1 of 2 recordings transcribed" in said


def test_what_is_no_lack_of_memory_is_left_alone(packed, dump, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("something else")

    monkeypatch.setattr(AVSRModel, "encode", broken)
    with pytest.raises(RuntimeError, match=r"^something else$"):
        measure_delays.main(["--model", str(packed), "--dump", str(dump), "--set", "valid"])

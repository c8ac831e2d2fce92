"""Training options that name data folders, and the check of a warm start."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from mome.tasks.config import parse
from mome.tasks.data_folders import check_trained_on
from mome.tasks.warm_start import check_warm_start

FILES = {"speech": ("wav.scp", "sound"), "lips": ("lip.scp", "lips"), "text": ("text", "text")}


@pytest.fixture
def dump(tmp_path) -> Path:
    """Data folders without content."""
    for phase in ("train", "valid"):
        (tmp_path / phase).mkdir()
        for name in ("wav.scp", "lip.scp", "text", "utt2num_frames"):
            (tmp_path / phase / name).touch()
        (tmp_path / f"{phase}.units").touch()
    return tmp_path


def arguments(dump: Path, *options: str) -> list[str]:
    return ["--train_data", f"{dump}/train", "--valid_data", f"{dump}/valid", *options]


def test_a_model_of_another_training_set_is_refused(tmp_path):
    config = tmp_path / "config.yaml"
    sources = [[f"dump/29h/train_29h/{file}", name, kind] for name, (file, kind) in FILES.items()]
    sources.append(["exp/units/train_29h.units", "units", "text_int"])
    config.write_text(yaml.safe_dump({"train_data_path_and_name_and_type": sources}))
    check_trained_on(config, "train_29h")
    with pytest.raises(ValueError, match=r"config\.yaml: trained on train_29h, not on train_224h"):
        check_trained_on(config, "train_224h")


@pytest.mark.parametrize(
    ("tasks", "streams"),
    [
        ("avsr", "text speech lips"),
        ("asr", "text speech"),
        ("vsr", "text lips"),
        ("asr vsr", "text speech lips"),
    ],
)
def test_streams_follow_from_the_tasks(dump, tasks, streams):
    args = parse(arguments(dump, "--tasks", tasks))
    for phase in ("train", "valid"):
        wanted = [(f"{dump}/{phase}/{FILES[n][0]}", n, FILES[n][1]) for n in streams.split()]
        assert getattr(args, f"{phase}_data_path_and_name_and_type") == wanted
        assert getattr(args, f"{phase}_shape_file") == [f"{dump}/{phase}/utt2num_frames"]
    assert args.model_conf["tasks"] == tasks.split()
    assert not {"train_data", "valid_data", "tasks", "units"} & vars(args).keys()


def test_a_video_encoder_is_pretrained_on_lips_and_units(dump):
    args = parse(arguments(dump, "--model", "video_units", "--units", str(dump)))
    assert [name for _, name, _ in args.train_data_path_and_name_and_type] == ["lips", "units"]
    assert args.valid_data_path_and_name_and_type[1][0] == f"{dump}/valid.units"
    assert args.model_conf == {}


@pytest.mark.parametrize(
    ("options", "missing", "message"),
    [
        ([], "valid/lip.scp", "valid/lip.scp does not exist: stage 2 makes it"),
        ([], "train/utt2num_frames", "train/utt2num_frames does not exist: stage 2 makes it"),
        (["--model", "video_units", "--units", "."], "train.units", "does not exist: stage 4"),
        (
            ["--preprocessor_conf", "noise_scp=noise/train.scp"],
            "train.units",
            "noise/train.scp does not exist: stage 3 makes it",
        ),
        (
            ["--tasks", "lipreading"],
            "train.units",
            "task 'lipreading' must be one of avsr, asr, vsr",
        ),
        (
            ["--train_data_path_and_name_and_type", "x,speech,sound"],
            "train.units",
            "--train_data or --train_data_path_and_name_and_type, not both",
        ),
    ],
)
def test_what_is_wrong_is_named(dump, monkeypatch, capsys, options, missing, message):
    monkeypatch.chdir(dump)
    (dump / missing).unlink()
    with pytest.raises(SystemExit):
        parse(arguments(dump, *options))
    assert message in capsys.readouterr().err


class Model(nn.Module):
    """Projectors of two rates."""

    def __init__(self, *names: str):
        super().__init__()
        self.projectors = nn.ModuleDict({name: nn.Linear(2, 3) for name in names})
        self.other = nn.Linear(2, 2)


def test_a_warm_start_has_every_projector_of_the_model(tmp_path):
    path = str(tmp_path / "warm.pth")
    torch.save(Model("audio_4", "video_2").state_dict(), path)
    check_warm_start(Model("audio_4"), [path])
    check_warm_start(Model("audio_4", "audio_16"), [])
    with pytest.raises(ValueError, match=r"warm\.pth lacks projectors .*: audio_16, video_5;"):
        check_warm_start(Model("audio_4", "audio_16", "video_5"), [path])
    other = Model("audio_4")
    other.projectors["audio_4"] = nn.Linear(4, 3)
    with pytest.raises(ValueError, match="another shape: audio_4"):
        check_warm_start(other, [path])
    torch.save({"other.weight": torch.zeros(2, 2)}, path)  # a lip encoder, say
    check_warm_start(Model("audio_4"), [path])

"""A packed model against the training that it was made of, and what may be wrong with one."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from tiny_avsr import collate, utterances

from mome.tasks.avsr import load_model
from mome.tasks.packed import PackedModelError, find_part, load_packed, pack

INFO = {"trained_on": "noise", "max_seconds": 4.0}


@pytest.fixture
def packed(training, tmp_path) -> Path:
    return pack(training / "config.yaml", training / "model.pth", tmp_path / "p", INFO, "card")


def loss_of(model) -> torch.Tensor:
    return model(**collate(utterances(2)))[0]


@torch.no_grad()
@pytest.mark.parametrize("name", ["model", "model.zip"])
def test_it_computes_what_the_training_computes(training, tmp_path, name):
    trained, _ = load_model(training / "config.yaml", training / "model.pth")
    output = pack(training / "config.yaml", training / "model.pth", tmp_path / name, INFO, "card")
    moved = tmp_path / "elsewhere" / name
    moved.parent.mkdir()
    shutil.move(output, moved)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    model, args, info = load_packed(moved)
    torch.testing.assert_close(loss_of(model), loss_of(trained))
    assert not model.training
    assert info["trained_on"] == "noise"
    assert args.preprocessor_conf == {"crop_size": 64}  # noise is for training


def test_a_folder_of_something_else_is_not_replaced(training, packed, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    for output in (tmp_path / "mine", packed):
        arguments = (training / "config.yaml", training / "model.pth", output, INFO, "again")
        if output == packed:
            pack(*arguments)
            assert (packed / "README.md").read_text() == "again"
        else:
            with pytest.raises(FileExistsError, match="mine holds other files"):
                pack(*arguments)
            assert (output / "thesis.txt").read_text() == "x"


def test_it_holds_no_more_than_it_says(packed, tiny_lm):
    assert sorted(path.name for path in packed.iterdir()) == [
        *("README.md", "config.yaml", "model.safetensors", "mome.json", "video_encoder.safetensors")
    ]
    values = yaml.safe_load((packed / "config.yaml").read_text())
    assert "max_epoch" not in values
    info = json.loads((packed / "mome.json").read_text())
    assert info["frozen"]["decoder_conf.lm"]["name"] == tiny_lm
    assert list(info["frozen"]["decoder_conf.lm"]["sha256"]) == ["model.safetensors"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml", "video_encoder.safetensors"])
def test_a_changed_or_missing_file_is_named(packed, name):
    content = (packed / name).read_bytes()
    (packed / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(PackedModelError, match=f"{name} is not what was packed"):
        load_packed(packed)
    (packed / name).unlink()
    with pytest.raises(PackedModelError, match=f"{name} is missing"):
        load_packed(packed)


def test_other_files_are_refused_with_a_remedy(packed, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing does not exist; name a packed model"):
        load_packed(tmp_path / "nothing")
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(PackedModelError, match=r"text\.zip is no packed model"):
        load_packed(tmp_path / "text.zip")
    (tmp_path / "no.zip").write_bytes(b"PK\x05\x06" + bytes(10))
    with pytest.raises(PackedModelError, match="is no packed model"):
        load_packed(tmp_path / "no.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("../../outside.txt", "x")
    with pytest.raises(PackedModelError, match=r"has no mome\.json"):
        load_packed(tmp_path / "other.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PackedModelError, match="mome-pack makes one"):
        load_packed(tmp_path / "empty")
    info = json.loads((packed / "mome.json").read_text())
    (packed / "mome.json").write_text(json.dumps(info | {"format": 2}))
    with pytest.raises(PackedModelError, match="packed by a newer version"):
        load_packed(packed)
    (packed / "mome.json").write_text("{")
    with pytest.raises(PackedModelError, match=r"mome\.json cannot be read"):
        load_packed(packed)


def test_frozen_parts_are_found_by_name_and_checked(training, tiny_lm, tmp_path, monkeypatch):
    lm = shutil.copytree(tiny_lm, tmp_path / "first" / "my-lm")
    values = yaml.safe_load((training / "config.yaml").read_text())
    values["decoder_conf"]["lm"] = str(lm)
    (tmp_path / "exp").mkdir()
    config = tmp_path / "exp" / "config.yaml"
    config.write_text(yaml.safe_dump(values))
    packed = pack(config, training / "model.pth", tmp_path / "packed", INFO, "")
    shutil.move(tmp_path / "first", tmp_path / "second")
    with pytest.raises(PackedModelError, match=r"packed needs my-lm, which is in none of"):
        load_packed(packed)
    monkeypatch.setenv("MOME_DOWNLOADS", str(tmp_path / "second"))
    load_packed(packed)
    weights = tmp_path / "second" / "my-lm" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(PackedModelError, match=r"trained with another my-lm than .*second"):
        load_packed(packed)
    shutil.copytree(tiny_lm, tmp_path / "third" / "my-lm")
    shutil.copytree(tmp_path / "second", tmp_path / "first")  # of another version, where it was
    monkeypatch.setenv("MOME_DOWNLOADS", str(tmp_path / "third"))
    load_packed(packed)


def test_weights_that_came_from_elsewhere_are_not_given_away(training, tmp_path):
    project = tmp_path / "project"
    (project / "downloads").mkdir(parents=True)
    shutil.copytree(training, project / "model")
    values = yaml.safe_load((training / "config.yaml").read_text())
    licensed = project / "downloads" / "avhubert.safetensors"
    shutil.copy(values["video_encoder_conf"]["weights"], licensed)
    values["video_encoder_conf"]["weights"] = str(licensed)
    config = project / "model" / "config.yaml"
    config.write_text(yaml.safe_dump(values))
    packed = pack(config, training / "model.pth", tmp_path / "p", INFO, "")
    assert not (packed / "video_encoder.safetensors").exists()
    named = json.loads((packed / "mome.json").read_text())["frozen"]["video_encoder_conf.weights"]
    assert list(named["sha256"]) == ["avhubert.safetensors"]
    load_packed(packed)


def test_a_packed_model_imports_nothing_unasked(training, tmp_path, monkeypatch):
    values = yaml.safe_load((training / "config.yaml").read_text()) | {"imports": ["their_module"]}
    shutil.copytree(training.parent, tmp_path / "exp")
    config = tmp_path / "exp" / "mome" / "config.yaml"
    config.write_text(yaml.safe_dump(values))
    packed = pack(config, training / "model.pth", tmp_path / "p", INFO, "")
    (tmp_path / "their_module.py").write_text("raise RuntimeError('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PackedModelError, match="modules that its author wrote: their_module"):
        load_packed(packed)
    with pytest.raises(RuntimeError, match="it ran"):
        load_packed(packed, imports=["their_module"])


def test_a_name_of_the_hub_is_left_to_the_hub(tmp_path):
    part = {"name": "someone/some-lm", "sha256": {}}
    assert find_part(part, tmp_path) == "someone/some-lm"

"""A packed model against the training that it was made of, and what may be wrong with one."""

import json
import re
import shutil
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml
from tiny_avsr import collate, utterances

from mome.tasks.avsr import load_model
from mome.tasks.frozen_parts import PackedModelError, find_part, folders_of
from mome.tasks.packed import load_packed, pack, renew

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
    assert info["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert info["frozen"]["decoder_conf.lm"]["name"] == Path(tiny_lm).name
    files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert list(info["frozen"]["decoder_conf.lm"]["sha256"]) == files


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
    # Whatever else a newer format changes, the number is looked at first.
    (packed / "mome.json").write_text(json.dumps({"format": 3, "files": {}, "parts": []}))
    with pytest.raises(
        PackedModelError, match=r"newer version of mome .format 3, this one reads 2"
    ):
        load_packed(packed)
    with pytest.raises(PackedModelError, match="newer version of mome"):
        renew(packed, lambda info: "a new card")
    (packed / "mome.json").write_text("{")
    with pytest.raises(PackedModelError, match=r"mome\.json cannot be read"):
        load_packed(packed)


def test_frozen_parts_are_found_by_name_and_checked(
    training, tiny_lm, tiny_whisper, tmp_path, monkeypatch
):
    lm = shutil.copytree(tiny_lm, tmp_path / "first" / "my-lm")
    values = yaml.safe_load((training / "config.yaml").read_text())
    values["decoder_conf"]["lm"] = str(lm)
    (tmp_path / "exp").mkdir()
    config = tmp_path / "exp" / "config.yaml"
    config.write_text(yaml.safe_dump(values))
    packed = pack(config, training / "model.pth", tmp_path / "packed", INFO, "")
    shutil.move(tmp_path / "first", tmp_path / "second")
    lips = training.parent / "lips" / "video.safetensors"  # beside another training than this one
    for part in (Path(tiny_whisper), lips):
        (tmp_path / "second" / part.name).symlink_to(part)
    missing = r"packed needs my-lm, and there is no .*/my-lm.* put it .*mome-fetch-models"
    with pytest.raises(PackedModelError, match=missing):
        load_packed(packed, downloads=[tmp_path, lips.parent])
    load_packed(packed, downloads=[tmp_path / "second"])
    monkeypatch.setenv("MOME_DOWNLOADS", str(tmp_path / "second"))
    load_packed(packed)
    weights = tmp_path / "second" / "my-lm" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    another = r"trained with another my-lm than .*second/my-lm .model\.safetensors.:"
    with pytest.raises(PackedModelError, match=another):
        load_packed(packed)
    shutil.copytree(tiny_lm, tmp_path / "third" / "my-lm")
    # The first folder has another one of this name, the second the right one.
    monkeypatch.setenv("MOME_DOWNLOADS", str(tmp_path / "third"))
    load_packed(packed, downloads=[tmp_path / "second"])


def test_the_lip_encoder_of_avhubert_is_not_said_to_be_fetched(tmp_path):
    part = {"name": "avhubert-large", "file": "model.safetensors", "sha256": {}}
    with pytest.raises(PackedModelError, match="packed needs avhubert-large") as raised:
        find_part(part, Path("packed"), [tmp_path])
    assert "mome-fetch-models" not in str(raised.value)
    assert "https://facebookresearch.github.io/av_hubert" in str(raised.value)
    converts = r"mome-convert-avhubert --checkpoint \S+ --output downloads/avhubert-large\)"
    assert re.search(converts, str(raised.value))


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
    load_packed(packed, downloads=[licensed.parent])


def test_weights_are_known_by_their_folder_if_their_file_is_called_as_in_any(training, tmp_path):
    """As AV-HuBERT's, which the recipes of LRS2 and LRS3 name by the file."""
    values = yaml.safe_load((training / "config.yaml").read_text())
    lips = tmp_path / "downloads" / "avhubert-large"
    lips.mkdir(parents=True)
    shutil.copy(values["video_encoder_conf"]["weights"], lips / "model.safetensors")
    (lips / "config.json").write_text("{}")
    values["video_encoder_conf"]["weights"] = str(lips / "model.safetensors")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    packed = pack(tmp_path / "config.yaml", training / "model.pth", tmp_path / "p", INFO, "")
    info = json.loads((packed / "mome.json").read_text())
    named = info["frozen"]["video_encoder_conf.weights"]
    assert (named["name"], named["file"]) == ("avhubert-large", "model.safetensors")
    assert set(named["sha256"]) == {"model.safetensors", "config.json"}
    assert lips.parent in folders_of(tmp_path / "config.yaml")
    load_packed(packed, downloads=[lips.parent])
    (lips / "config.json").write_text('{"size": "base"}')
    with pytest.raises(PackedModelError, match=r"another avhubert-large than .*\(config\.json\)"):
        load_packed(packed, downloads=[tmp_path / "downloads"])
    named["file"] = "../model.safetensors"
    (packed / "mome.json").write_text(json.dumps(info))
    with pytest.raises(PackedModelError, match="is no name of a file"):
        load_packed(packed, downloads=[tmp_path / "downloads"])


def test_the_lip_encoder_of_trainings_that_are_compared_is_packed(training, tmp_path):
    """They lie deeper than the model of a recipe, two folders below the lip encoder's."""
    shutil.copytree(training.parent, tmp_path / "exp")
    values = yaml.safe_load((training / "config.yaml").read_text())
    values["video_encoder_conf"]["weights"] = str(tmp_path / "exp/lips/video.safetensors")
    deeper = tmp_path / "exp/experiments/one/lr0.002_seed0"
    deeper.parent.mkdir(parents=True)
    (tmp_path / "exp" / training.name).rename(deeper)
    (deeper / "config.yaml").write_text(yaml.safe_dump(values))
    pack(deeper / "config.yaml", deeper / "model.pth", tmp_path / "packed", {}, "")
    assert (tmp_path / "packed/video_encoder.safetensors").is_file()
    (tmp_path / "exp").rename(tmp_path / "gone")
    load_packed(tmp_path / "packed")


def test_a_packed_model_imports_nothing_unasked(training, tmp_path, monkeypatch):
    values = yaml.safe_load((training / "config.yaml").read_text()) | {"imports": ["their_module"]}
    shutil.copytree(training.parent, tmp_path / "exp")
    config = tmp_path / "exp" / "mome" / "config.yaml"
    config.write_text(yaml.safe_dump(values))
    packed = pack(config, training / "model.pth", tmp_path / "p", INFO, "")
    (tmp_path / "their_module.py").write_text("raise RuntimeError('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    lips = [training.parent / "lips"]
    with pytest.raises(PackedModelError, match="modules that its author wrote: their_module"):
        load_packed(packed, downloads=lips)
    with pytest.raises(RuntimeError, match="it ran"):
        load_packed(packed, imports=["their_module"], downloads=lips)


def test_of_a_part_tokenizer_and_configuration_are_checked_too(
    training, tiny_lm, tiny_whisper, tmp_path, monkeypatch
):
    lm = Path(shutil.copytree(tiny_lm, tmp_path / "parts" / Path(tiny_lm).name))
    packed = pack(training / "config.yaml", training / "model.pth", tmp_path / "p", INFO, "")
    (lm.parent / Path(tiny_whisper).name).symlink_to(tiny_whisper)
    monkeypatch.setenv("MOME_DOWNLOADS", str(lm.parent))
    (lm / "README.md").write_text("whatever it says")
    config = json.loads((lm / "config.json").read_text())
    for name, values in [
        # Who converted a part, and how its file is laid out, changes nothing that it computes.
        ("config.json", config | {"transformers_version": "1.0", "_name_or_path": "x"}),
        ("tokenizer_config.json", json.loads((lm / "tokenizer_config.json").read_text())),
    ]:
        (lm / name).write_text(json.dumps(values, indent=7))
    load_packed(packed)
    for name, content in [
        ("config.json", json.dumps(config | {"rms_norm_eps": 0.5})),
        ("tokenizer.json", (lm / "tokenizer.json").read_text() + " "),
    ]:
        before = (lm / name).read_text()
        (lm / name).write_text(content)
        with pytest.raises(PackedModelError, match=rf"parts/.* \({name}\): the files in brackets"):
            load_packed(packed)
        (lm / name).unlink()
        with pytest.raises(PackedModelError, match=rf"parts/.* \({name}\)"):
            load_packed(packed)
        (lm / name).write_text(before)
    load_packed(packed)


def test_models_of_the_first_format_are_still_read(packed, caplog):
    """It had SHA-256 of weights in folders alone, and neither revisions nor who cut lips."""
    info = json.loads((packed / "mome.json").read_text())
    for part in info["frozen"].values():
        kept = {file: d for file, d in part["sha256"].items() if file.endswith(".safetensors")}
        part["sha256"] = kept
    (packed / "mome.json").write_text(json.dumps(info | {"format": 1}))
    load_packed(packed)
    part = {"name": "someone/some-lm", "sha256": {}}
    assert find_part(part, packed) == "someone/some-lm"
    assert "does not say which revision of someone/some-lm it was packed with" in caplog.text


def test_no_path_of_the_machine_that_packed_it_is_given_away(training, tiny_lm, tmp_path):
    values = yaml.safe_load((training / "config.yaml").read_text())
    values["token_list"] = tiny_lm
    values["audio_encoder_conf"]["of_their_own"] = [{"file": str(tmp_path / "theirs.bin")}]
    (tmp_path / "theirs.bin").write_bytes(b"x")
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(values))
    packed = pack(config, training / "model.pth", tmp_path / "p", INFO, "")
    written = b"".join(path.read_bytes() for path in packed.iterdir())
    assert str(tmp_path.parent).encode() not in written
    assert Path(tiny_lm).parent.as_posix().encode() not in written
    info = json.loads((packed / "mome.json").read_text())
    assert set(info["frozen"]) == {
        *("decoder_conf.lm", "audio_encoder_conf.model", "token_list"),
        "audio_encoder_conf.of_their_own.0.file",
    }
    with pytest.raises(PackedModelError, match=r"p needs theirs\.bin"):
        load_packed(packed)
    # What is found is put where the configuration named it; Whisper has no such option.
    old = rf"version of mome cannot build it .*of_their.*\(.*torch {re.escape(version('torch'))}"
    with pytest.raises(PackedModelError, match=old):
        load_packed(packed, downloads=[tmp_path])
    assert (packed / "model.safetensors").stat().st_mode & 0o777 == (
        (packed / "config.yaml").stat().st_mode & 0o777
    )


def test_frozen_parts_of_a_place_that_there_is_not_are_refused(packed):
    info = json.loads((packed / "mome.json").read_text())
    for frozen, message in [
        ({"optim_conf.lr": {"name": "a", "sha256": {}}}, r"config\.yaml has no optim_conf\.lr"),
        ({"decoder_conf.lm": {"name": "a"}}, r"mome\.json cannot be read"),
        ({"decoder_conf.lm": "a"}, r"mome\.json cannot be read"),
        (
            {"decoder_conf.lm": {"name": "a/b", "revision": "c", "sha256": {"../x": ""}}},
            r"mome\.json cannot be read .*'\.\./x' is no name of a file",
        ),
    ]:
        (packed / "mome.json").write_text(json.dumps(info | {"frozen": frozen}))
        with pytest.raises(PackedModelError, match=message):
            load_packed(packed)


def test_an_archive_that_would_fill_the_disk_is_not_unpacked(packed, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("mome.json", "config.yaml"):
            archive.write(packed / name, name)
        archive.writestr("model.safetensors", bytes(2**25))
    with pytest.raises(PackedModelError, match=r"bomb\.zip would unpack to 33\d+ bytes"):
        load_packed(tmp_path / "bomb.zip")
    assert not list(tmp_path.glob("mome-*"))


def test_an_archive_that_says_less_than_it_holds_is_not_unpacked(packed, tmp_path):
    with zipfile.ZipFile(tmp_path / "liar.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mome.json", bytes(2**22))
    content = (tmp_path / "liar.zip").read_bytes()
    size = (2**22).to_bytes(4, "little")
    assert content.count(size) == 2  # before the content and in the list at the end
    (tmp_path / "liar.zip").write_bytes(content.replace(size, (99).to_bytes(4, "little")))
    with pytest.raises(PackedModelError, match=r"liar\.zip is no packed model"):
        load_packed(tmp_path / "liar.zip")


def test_archives_by_other_hands_are_read(packed, tmp_path):
    """Compressed, and with files beside that are none of a packed model."""
    with zipfile.ZipFile(tmp_path / "theirs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in packed.iterdir():
            archive.write(path, path.name)
        archive.writestr("../../outside.txt", "x")
        archive.writestr("/outside.txt", "x")
    load_packed(tmp_path / "theirs.zip")
    assert not (tmp_path.parent / "outside.txt").exists()
    whole = (tmp_path / "theirs.zip").read_bytes()
    middle = len(whole) // 2
    place = whole.rfind(b"PK\5\6") + 16  # where the list of files begins, which moves the files
    offset = int.from_bytes(whole[place : place + 4], "little") + 100
    for content in (
        whole[:middle] + bytes(64) + whole[middle + 64 :],
        whole[:place] + offset.to_bytes(4, "little") + whole[place + 4 :],
    ):
        (tmp_path / "damaged.zip").write_bytes(content)
        with pytest.raises(PackedModelError, match=r"damaged\.zip is no packed .* copy it again"):
            load_packed(tmp_path / "damaged.zip")


def test_a_file_that_is_no_checkpoint_is_not_packed(training, tmp_path):
    whole = (training / "model.pth").read_bytes()
    order = whole.replace(b"little", b"ZZZZZZ")
    for content in (b"", b"no checkpoint", whole[: len(whole) // 2], order):
        (tmp_path / "cut.pth").write_bytes(content)
        with pytest.raises(ValueError, match=r"cut\.pth is no checkpoint"):
            pack(training / "config.yaml", tmp_path / "cut.pth", tmp_path / "p", INFO, "")
    assert not (tmp_path / "p").exists()

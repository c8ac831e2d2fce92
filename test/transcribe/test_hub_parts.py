"""Frozen parts that are named on the hub: their revision and files, from its cache and from it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from local_hub import LocalHub, running_hub
from tiny import make_lm
from tiny_avsr import collate, utterances

from mome.tasks.frozen_parts import PackedModelError
from mome.tasks.packed import load_packed, pack

ROOT = Path(__file__).parents[2]
LM = "me/tiny-lm"
REVISION, LATER = "a1" * 20, "b2" * 20
INFO = {"trained_on": "noise", "max_seconds": 4.0}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub, and no way to any hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def keep(cache: Path, revision: str, lm: str | Path, name: str = LM) -> Path:
    """Put a revision of the LM into the cache, as the one that ``main`` names now."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs/main").write_text(revision)
    return Path(shutil.copytree(lm, repository / "snapshots" / revision))


@pytest.fixture
def packed(training, tiny_lm, cache, tmp_path) -> Path:
    """The tiny model, whose LM is named as on the hub and was in the cache when it was packed."""
    return pack_with(LM, training, tiny_lm, cache, tmp_path)


def pack_with(name: str, training: Path, lm: str, cache: Path, folder: Path) -> Path:
    """Pack the tiny model with an LM of this name."""
    keep(cache, REVISION, lm, name)
    values = yaml.safe_load((training / "config.yaml").read_text())
    values["decoder_conf"]["lm"] = name
    shutil.copytree(training.parent, folder / "exp")
    config = folder / "exp" / training.name / "config.yaml"
    config.write_text(yaml.safe_dump(values))
    return pack(config, training / "model.pth", folder / "p", INFO, "")


@pytest.fixture
def lips(training) -> list[Path]:
    """Where the lip encoder lies, which is not beside the configuration that is packed."""
    return [training.parent / "lips"]


@pytest.fixture
def hub(monkeypatch):
    """A hub of this machine that this process may ask."""
    with running_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        url = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        yield hub


def content(folder: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@torch.no_grad()
def loss_of(packed: Path, lips: list[Path]) -> torch.Tensor:
    return load_packed(packed, downloads=lips)[0](**collate(utterances(2)))[0]


def test_revision_and_files_of_the_cache_are_recorded(packed, tiny_lm):
    part = json.loads((packed / "mome.json").read_text())["frozen"]["decoder_conf.lm"]
    assert (part["name"], part["revision"]) == (LM, REVISION)
    assert set(part["sha256"]) >= {"config.json", "model.safetensors", "tokenizer.json"}
    for file in ("model.safetensors", "tokenizer.json"):
        digest = hashlib.sha256(Path(tiny_lm, file).read_bytes()).hexdigest()
        assert part["sha256"][file] == digest


def test_an_lm_without_an_owner_is_one_of_the_hub_too(training, tiny_lm, cache, lips, tmp_path):
    packed = pack_with("gpt2", training, tiny_lm, cache, tmp_path)
    part = json.loads((packed / "mome.json").read_text())["frozen"]["decoder_conf.lm"]
    assert (part["name"], part["revision"]) == ("gpt2", REVISION)
    assert loss_of(packed, lips).isfinite()
    shutil.rmtree(cache)
    with pytest.raises(OSError, match=f"needs revision {REVISION} of it: .*gpt2"):
        load_packed(packed, downloads=lips)


def test_the_revision_is_taken_whatever_the_hub_has_now(packed, cache, lips, tmp_path):
    before = loss_of(packed, lips)
    torch.manual_seed(1)
    other = make_lm(tmp_path / "later")
    keep(cache, LATER, other)
    torch.testing.assert_close(loss_of(packed, lips), before, rtol=0, atol=0)
    # A folder of that name with other weights is not taken either.
    shutil.copytree(other, tmp_path / "parts" / "tiny-lm")
    found = loss_of(packed, [*lips, tmp_path / "parts"])
    torch.testing.assert_close(found, before, rtol=0, atol=0)


@pytest.mark.parametrize("file", ["tokenizer.json", "model.safetensors"])
def test_a_changed_file_of_the_cache_is_refused(packed, cache, lips, file):
    path = cache / "models--me--tiny-lm/snapshots" / REVISION / file
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(
        PackedModelError, match=rf"another me/tiny-lm than .*: {file} differ; delete .*tiny-lm,"
    ):
        load_packed(packed, downloads=lips)


def test_without_cache_and_hub_the_remedy_is_said(packed, cache, lips):
    shutil.rmtree(cache)
    with pytest.raises(ConnectionError, match=rf"p needs revision {REVISION} of it: me/tiny-lm is"):
        load_packed(packed, downloads=lips)


def test_the_revision_is_downloaded_and_checked(
    packed, cache, lips, tiny_lm, tmp_path, hub: LocalHub
):
    before = loss_of(packed, lips)
    shutil.rmtree(cache)
    files = content(tiny_lm)
    hub.revisions[LM, REVISION] = files | {"pytorch_model.bin": b"a pickle"}
    hub.revisions[LM, LATER] = {}
    torch.testing.assert_close(loss_of(packed, lips), before, rtol=0, atol=0)
    recorded = json.loads((packed / "mome.json").read_text())["frozen"]["decoder_conf.lm"]["sha256"]
    assert sorted(Path(path).name for path in hub.sent) == sorted(recorded)
    shutil.rmtree(cache)
    hub.revisions[LM, REVISION] = files | {"tokenizer.json": files["tokenizer.json"] + b" "}
    with pytest.raises(PackedModelError, match=r"tokenizer\.json differ"):
        load_packed(packed, downloads=lips)
    shutil.rmtree(cache)
    del hub.revisions[LM, REVISION]
    with pytest.raises(
        PackedModelError, match=r"which the hub has no longer: .* ./downloads/tiny-lm"
    ):
        load_packed(packed, downloads=lips)
    # A folder of that name with the same files will do.
    shutil.copytree(tiny_lm, tmp_path / "parts" / "tiny-lm")
    load_packed(packed, downloads=[*lips, tmp_path / "parts"])


def test_the_command_records_what_it_loads_from_the_cache(packed, cache, training, dump, tmp_path):
    """By Transformers' own way into the cache, without a network."""
    config = tmp_path / "exp" / training.name
    words = ["--expdir", config, "--weights", "model.pth", "--dump", dump, "--beam", "1"]
    words += ["--trained_on", "noise", "--output", tmp_path / "by_command"]
    command = [sys.executable, "-m", "mome.bin.pack", *map(str, words)]
    client = {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    env = {**os.environ, **client}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = (
        json.loads((folder / "mome.json").read_text())["frozen"]
        for folder in (packed, tmp_path / "by_command")
    )
    assert first == second
    told = (tmp_path / "by_command" / "README.md").read_text()
    digest = first["decoder_conf.lm"]["sha256"]["model.safetensors"][:12]
    assert f"- {LM}, revision {REVISION}, model.safetensors SHA-256 {digest}" in told


def test_what_was_not_at_hand_is_said_not_to_be_checked(packed, cache, training, tmp_path):
    shutil.rmtree(cache)
    config = tmp_path / "exp" / training.name / "config.yaml"
    again = pack(config, training / "model.pth", tmp_path / "again", INFO, "")
    part = json.loads((again / "mome.json").read_text())["frozen"]["decoder_conf.lm"]
    assert part == {"name": LM, "sha256": {}}

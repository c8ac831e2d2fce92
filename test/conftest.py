"""Fixtures that several test files share."""

import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "egs/mini_av/local"))

from tiny import make_lm, make_whisper

LIPS = {"width": 4, "output_size": 16, "layers": 1, "heads": 2}


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory) -> str:
    """Folder of a tiny random Llama with its tokenizer."""
    return str(make_lm(tmp_path_factory.mktemp("lm")))


@pytest.fixture(scope="session")
def tiny_whisper(tmp_path_factory) -> str:
    """Folder of a tiny random Whisper."""
    return str(make_whisper(tmp_path_factory.mktemp("whisper")))


@pytest.fixture(scope="session")
def training(tmp_path_factory, tiny_lm, tiny_whisper):
    """What stage 4 leaves: a configuration and a checkpoint, and beside them a lip encoder."""
    from mome.encoders.visual import VisualEncoder
    from mome.tasks.build import build_model
    from mome.tasks.packed import namespace

    root = tmp_path_factory.mktemp("training")
    torch.manual_seed(0)
    lips = root / "exp" / "lips" / "video.safetensors"
    lips.parent.mkdir(parents=True)
    state = VisualEncoder(**LIPS).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, lips)
    (lips.parent / ".exported.done").write_text("{}")
    values = {
        "max_epoch": 3,
        "model": "avsr",
        "model_conf": {"tasks": ["avsr", "asr", "vsr"], "readout_conf": {}},
        "audio_encoder": "whisper",
        "audio_encoder_conf": {"model": tiny_whisper},
        "video_encoder": "visual",
        "video_encoder_conf": {**LIPS, "weights": str(lips)},
        "decoder": "mome_llm",
        "decoder_conf": {"lm": tiny_lm, "adapter_conf": {"num_routed": 5, "bottleneck": 3}},
        "preprocessor": "avsr",
        "preprocessor_conf": {"noise_snrs": [0, None], "crop_size": 64},
        "token_list": None,
        "freeze_video_encoder": True,
    }
    model = build_model(namespace(values))
    for layer in model.decoder.adapter.layers:
        torch.nn.init.normal_(layer.up.weight, std=0.3)
    (root / "exp" / "mome").mkdir()
    torch.save(model.state_dict(), root / "exp" / "mome" / "model.pth")
    (root / "exp" / "mome" / "config.yaml").write_text(yaml.safe_dump(values))
    return root / "exp" / "mome"


@pytest.fixture(scope="session")
def tiny_downloads(tmp_path_factory, tiny_lm, tiny_whisper) -> Path:
    """A folder with the frozen parts of the tiny model, as $MOME_DOWNLOADS names one."""
    folder = tmp_path_factory.mktemp("downloads")
    for part in map(Path, (tiny_lm, tiny_whisper)):
        (folder / part.name).symlink_to(part)
    return folder

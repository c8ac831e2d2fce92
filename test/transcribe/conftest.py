"""A tiny trained model and its packed form."""

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from mome.data.audio import write_flac
from mome.data.kaldi import write_scp
from mome.data.video import write_lips
from mome.encoders.visual import VisualEncoder
from mome.tasks.avsr import AVSRTask
from mome.tasks.packed import namespace

LIPS = {"width": 4, "output_size": 16, "layers": 1, "heads": 2}


@pytest.fixture(scope="session")
def training(tmp_path_factory, tiny_lm, tiny_whisper):
    """What stage 4 leaves: a configuration and a checkpoint, and beside them a lip encoder."""
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
    model = AVSRTask.build_model(namespace(values))
    for layer in model.decoder.adapter.layers:
        torch.nn.init.normal_(layer.up.weight, std=0.3)
    (root / "exp" / "mome").mkdir()
    torch.save(model.state_dict(), root / "exp" / "mome" / "model.pth")
    (root / "exp" / "mome" / "config.yaml").write_text(yaml.safe_dump(values))
    return root / "exp" / "mome"


@pytest.fixture
def dump(tmp_path):
    """Sets of stage 2 with three clips of a second or more."""
    rng = np.random.default_rng(0)
    for name in ("train", "valid"):
        folder = tmp_path / "dump" / name
        ids = [f"u{number}" for number in range(3)]
        for number, utterance in enumerate(ids):
            frames = rng.integers(0, 255, (25 + number, 96, 96), dtype=np.uint8)
            write_lips(folder / f"{utterance}.mp4", frames)
            samples = rng.normal(0, 0.1, len(frames) * 640).astype(np.float32)
            write_flac(folder / f"{utterance}.flac", samples)
        write_scp(folder / "text", dict.fromkeys(ids, "place red now"))
        write_scp(folder / "utt2dur", {u: f"{1 + 0.04 * n:.2f}" for n, u in enumerate(ids)})
        write_scp(folder / "lip.scp", {u: str(folder / f"{u}.mp4") for u in ids})
        write_scp(folder / "wav.scp", {u: str(folder / f"{u}.flac") for u in ids})
    return tmp_path / "dump"

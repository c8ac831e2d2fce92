"""What stage 4 leaves of a tiny random model, which several test folders pack."""

from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

from mome.encoders.visual import VisualEncoder
from mome.tasks.build import build_model
from mome.tasks.config import namespace

LIPS = {"width": 4, "output_size": 16, "layers": 1, "heads": 2}


def make_training(root: Path, lm: str, whisper: str, **model_conf: object) -> Path:
    """A configuration and a checkpoint, and beside them a lip encoder; gives their folder.

    ``model_conf`` changes the section of this name.
    """
    torch.manual_seed(0)
    lips = root / "exp" / "lips" / "video.safetensors"
    lips.parent.mkdir(parents=True)
    state = VisualEncoder(**LIPS).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, lips)
    (lips.parent / ".exported.done").write_text("{}")
    values = {
        "max_epoch": 3,
        "model": "avsr",
        "model_conf": {"tasks": ["avsr", "asr", "vsr"], "readout_conf": {}, **model_conf},
        "audio_encoder": "whisper",
        "audio_encoder_conf": {"model": whisper},
        "video_encoder": "visual",
        "video_encoder_conf": {**LIPS, "weights": str(lips)},
        "decoder": "mome_llm",
        "decoder_conf": {"lm": lm, "adapter_conf": {"num_routed": 5, "bottleneck": 3}},
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

"""AV-HuBERT (Shi et al., ICLR 2022) through ESPnet's own implementation, reading lips only."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import nn

from mome.common.extras import extra
from mome.common.json_files import read_json
from mome.common.precision import compute_dtype, in_type, without_autocast
from mome.common.weights import load_weights
from mome.encoders.base import Encoder, register_video_encoder
from mome.encoders.fairseq_parts import fairseq_parts
from mome.pretrained.places import avhubert_remedy

if TYPE_CHECKING:
    from espnet2.asr.encoder.avhubert_encoder import AVHubertModel

# Published sizes. All published models, Base too, have their layer norms first (layer_norm_first).
SIZES = {
    "base": {
        "encoder_embed_dim": 768,
        "encoder_layers": 12,
        "encoder_ffn_embed_dim": 3072,
        "encoder_attention_heads": 12,
        "layer_norm_first": True,
    },
    "large": {
        "encoder_embed_dim": 1024,
        "encoder_layers": 24,
        "encoder_ffn_embed_dim": 4096,
        "encoder_attention_heads": 16,
        "layer_norm_first": True,
    },
}
LARGEST = 1 << 16  # of the numbers that are sizes
WEIGHTS, CONFIG = "model.safetensors", "config.json"


def build(sizes: dict[str, Any]) -> "AVHubertModel":
    """ESPnet's AV-HuBERT of these sizes (see ``SIZES``), without what only audio needs.

    Raises:
        ModuleNotFoundError: if ESPnet is not installed.
    """
    with extra():
        from espnet2.asr.encoder.avhubert_encoder import FairseqAVHubertEncoder
    with fairseq_parts():
        model = FairseqAVHubertEncoder(
            pretrain=False,
            dropout=0.0,
            attention_dropout=0.0,
            dropout_input=0.0,
            dropout_features=0.0,
            encoder_layerdrop=0.0,
            **sizes,
        ).encoders
    model.feature_extractor_audio = None
    model.mask_emb = None
    return model


def read_weights(weights: Path, size: str | None) -> tuple[dict[str, Any], Path]:
    """Sizes and safetensors file of converted weights, given as the folder or as the file.

    Raises:
        FileNotFoundError: if either file is missing.
        ValueError: if they are of another size than the one asked for, or config.json is damaged.
    """
    file = weights / WEIGHTS if weights.is_dir() else weights
    config = file.with_name(CONFIG)
    for path in (file, config):
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no converted AV-HuBERT weights. {avhubert_remedy(file.parent)}"
            )
    found = read_json(config)
    known, sizes = found.get("size"), found.get("geometry")
    if known not in (*SIZES, "other") or not is_geometry(sizes):
        raise ValueError(f"{config} does not say which sizes the model has; convert it again")
    if size not in (None, known):
        raise ValueError(f"{file} is AV-HuBERT {known}, but the configuration says {size}")
    return sizes, file


def is_geometry(sizes: object) -> TypeGuard[dict[str, Any]]:
    """Whether these can be sizes of a model, as of ``SIZES``."""
    expected = SIZES["large"]
    return (
        isinstance(sizes, dict)
        and sizes.keys() == expected.keys()
        and all(type(sizes[name]) is type(value) for name, value in expected.items())
        and all(0 <= value <= LARGEST for value in sizes.values())
    )


class PositionEmbedding(nn.Sequential):
    """The position embedding's parts, of which the first is a convolution with a normalised weight.

    On a CPU it computes in the type of its weights, whatever autocast says. With AMX, oneDNN 3.12
    gives wrong numbers for convolutions in bfloat16 whose groups have few channels and whose kernel
    is even, as this one's is. That of the published sizes comes out right, and costs little in
    float32.
    """

    def __init__(self, *parts: nn.Module):
        super().__init__(*parts)
        self._forget_graph()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, D, T) -> (B, D, T)."""
        if hidden.device.type != "cpu":
            embedded = super().forward(hidden)
        else:
            with without_autocast(hidden.device):
                embedded = super().forward(hidden.to(next(self.parameters()).dtype))
        self._forget_graph()
        return embedded

    def _forget_graph(self) -> None:
        # weight_norm computes the weight anew at each call, and leaves it there with its graph,
        # with which it could not be copied by copy.deepcopy.
        convolution: Any = self[0]
        convolution.weight = convolution.weight.detach()


@register_video_encoder("avhubert")
class AVHubertEncoder(Encoder):
    """ESPnet's AV-HuBERT on mouth crops: 25 frames a second in and out.

    As in the published code, the audio half of the fused features is zero when only lips are read.

    Args:
        size: ``base`` or ``large``; None takes the size of the weights, or large without weights.
        weights: folder (or the safetensors file in it) that ``mome.bin.convert_avhubert`` wrote,
            or None for random weights.
        dtype: that convolutions and matrices are multiplied in (the weights stay float32):
            ``float32``, ``bfloat16``, ``float16`` or ``auto``, the fastest one here.

    Raises:
        ValueError: for an unknown size or type, or one that the weights do not have.
        FileNotFoundError: if ``weights`` names nothing.
        ModuleNotFoundError: if ESPnet is not installed.
    """

    frames_per_second = 25

    def __init__(
        self,
        size: str | None = None,
        weights: str | None = None,
        dtype: str = "float32",
    ):
        super().__init__()
        self.dtype = compute_dtype(dtype)
        if size not in (None, *SIZES):
            raise ValueError(f"AV-HuBERT size {size!r} must be one of {', '.join(SIZES)}")
        if weights is None:
            self.encoder = build(SIZES[size or "large"])
        else:
            sizes, file = read_weights(Path(weights), size)
            self.encoder = build(sizes)
            load_weights(self.encoder, file)
        transformer = self.encoder.encoder
        transformer.pos_conv = PositionEmbedding(*transformer.pos_conv)

    def output_size(self) -> int:
        """Width of a frame."""
        return self.encoder.encoder_embed_dim

    def forward(
        self, xs_pad: torch.Tensor, ilens: torch.Tensor, prev_states: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """(B, T, 88, 88) crops and (B,) frames -> (B, T, D) frames, (B,) frames, None."""
        padding = torch.arange(xs_pad.shape[1], device=ilens.device) >= ilens[:, None]
        source = {"video": xs_pad[:, None], "audio": None}
        with in_type(xs_pad.device, self.dtype):
            frames, _ = self.encoder.extract_finetune(source, padding_mask=padding)
        return frames, ilens, None

    def dry_run(self, batch: int, seconds: float) -> None:
        """As :class:`Encoder` says; all in the type that autocast computes in."""
        time = round(seconds * self.frames_per_second)
        crops = torch.empty(batch, 1, time, 88, 88, device="meta", dtype=self.dtype)
        self.to(self.dtype).encoder.extract_finetune({"video": crops, "audio": None})

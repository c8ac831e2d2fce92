"""Lip encoder on AV-HuBERT's plan, narrow enough to train on a CPU.

3-D convolution stem -> ResNet trunk on each frame -> linear -> transformer with a convolutional
position embedding, as AV-HuBERT (Shi et al., ICLR 2022) and before it Stafylakis & Tzimiropoulos
(Interspeech 2017). AV-HuBERT's trunk at full width costs about 1.2 GFLOP a frame; at width 16 it is
some 40 times less.
"""

import torch
import torch.nn.functional as F
from torch import nn

from mome.common.precision import compute_dtype, in_type
from mome.common.weights import load_weights
from mome.encoders.base import Encoder, register_video_encoder

STEM_FRAMES = 5


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation and a shortcut (ResNet's basic block)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        return F.relu(self.layers(images) + self.shortcut(images))


@register_video_encoder("visual")
class VisualEncoder(Encoder):
    """Narrow lip encoder: 25 frames a second in, 25 frames a second out.

    Args:
        shrink: average the crops over squares of so many pixels first; 2 makes all up to the
            transformer 4 times as cheap.
        width: channels of the stem and of the first stage; each later stage doubles them.
        blocks: residual blocks of each of the four stages (AV-HuBERT's ResNet-18: 2, 2, 2, 2).
        output_size: width D of the transformer and of the output.
        layers, heads: of the transformer; its feed-forward is 4 D wide.
        dropout: in the transformer.
        dtype: that convolutions and matrices are multiplied in (the weights stay float32):
            ``float32``, ``bfloat16``, ``float16`` or ``auto``, the fastest one here.
        weights: safetensors file to start from, or None.

    Raises:
        FileNotFoundError: if ``weights`` names no file.
    """

    frames_per_second = 25

    def __init__(
        self,
        shrink: int = 2,
        width: int = 16,
        blocks: tuple[int, ...] | list[int] = (1, 1, 1, 1),
        output_size: int = 192,
        layers: int = 3,
        heads: int = 4,
        dropout: float = 0.1,
        dtype: str = "float32",
        weights: str | None = None,
    ):
        super().__init__()
        self.shrink = shrink
        self.dtype = compute_dtype(dtype)
        # A 3-D convolution of one channel over 5 frames is a 2-D one whose channels are the frames.
        self.stem = nn.Sequential(
            nn.Conv2d(STEM_FRAMES, width, 7, 2, 3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        trunk, inputs = [], width
        for stage, count in enumerate(blocks):
            outputs = width * 2**stage
            for index in range(count):
                stride = 2 if stage and not index else 1
                trunk.append(ResidualBlock(inputs, outputs, stride))
                inputs = outputs
        self.trunk = nn.Sequential(*trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        # Channels last: 1.5 times as fast on a CPU.
        for part in (self.stem, self.trunk):
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.linear = nn.Linear(inputs, output_size)
        self.position = nn.Conv1d(output_size, output_size, 15, padding=7, groups=output_size)
        layer = nn.TransformerEncoderLayer(
            output_size,
            heads,
            4 * output_size,
            dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.transformer = nn.TransformerEncoder(
            layer, layers, nn.LayerNorm(output_size), enable_nested_tensor=False
        )
        if weights is not None:
            try:
                load_weights(self, weights)
            except FileNotFoundError as error:
                raise FileNotFoundError(
                    f"{weights}: no weights for the video encoder; train them first (stage 4 does)"
                ) from error

    def output_size(self) -> int:
        """Width of a frame."""
        return self.linear.out_features

    def forward(
        self, xs_pad: torch.Tensor, ilens: torch.Tensor, prev_states: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """(B, T, 88, 88) crops, zero beyond (B,) frames -> (B, T, D) frames, (B,) frames, None."""
        with in_type(xs_pad.device, self.dtype):
            return self.run(xs_pad, ilens)

    def run(
        self, xs_pad: torch.Tensor, ilens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """As :meth:`forward`, in the type that the caller has set."""
        batch, time = xs_pad.shape[:2]
        valid = torch.arange(time, device=xs_pad.device) < ilens[:, None]
        if self.shrink > 1:
            xs_pad = F.avg_pool2d(xs_pad, self.shrink)
        around = F.pad(xs_pad, (0, 0, 0, 0, STEM_FRAMES // 2, STEM_FRAMES // 2))
        windows = torch.stack([around[:, i : i + time] for i in range(STEM_FRAMES)], dim=-1)
        # Only real frames go through the convolutions: padding costs nothing and leaves no trace in
        # the statistics of the batch normalisation.
        images = windows[valid].permute(0, 3, 1, 2)  # (N, 5, H, W), channels last in memory
        frames = self.each_frame(images)
        hidden = frames.new_zeros(batch, time, frames.shape[-1])
        hidden[valid] = frames
        return self.in_context(hidden, ~valid), ilens, None

    def each_frame(self, images: torch.Tensor) -> torch.Tensor:
        """Frames by themselves: (N, 5, H, W) images with their neighbours in time -> (N, D)."""
        return self.linear(self.trunk(self.stem(images)))

    def in_context(self, hidden: torch.Tensor, padding: torch.Tensor | None) -> torch.Tensor:
        """Frames in context: (B, T, D) and (B, T) True for padding -> (B, T, D)."""
        position = F.gelu(self.position(hidden.transpose(1, 2))).transpose(1, 2)
        return self.transformer(hidden + position, src_key_padding_mask=padding)

    def dry_run(self, batch: int, seconds: float) -> None:
        """As :class:`Encoder` says; all in the type that autocast computes in."""
        time, side = round(seconds * self.frames_per_second), 88 // self.shrink
        images = torch.empty(batch * time, STEM_FRAMES, side, side, device="meta")
        images = images.to(self.dtype, memory_format=torch.channels_last)
        with torch.autocast("cpu", self.dtype, enabled=False):
            hidden = self.to(self.dtype).each_frame(images).unflatten(0, (batch, time))
            self.in_context(hidden, None)

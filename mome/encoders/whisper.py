"""Frozen Whisper encoder as an ESPnet encoder, through Hugging Face transformers."""

from typing import Any

import torch
import torch.nn.functional as F
from transformers import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder as HFWhisperEncoder
from transformers.models.whisper.modeling_whisper import WhisperModel

from mome.common.frozen import Frozen
from mome.common.precision import compute_dtype, without_autocast
from mome.encoders.base import Encoder, register_audio_encoder
from mome.pretrained.hub import load, load_config

SAMPLES_PER_FRAME = 320  # an encoder frame is 20 ms at 16 kHz
TAIL = 10  # silent encoder frames computed after every utterance ...
ATTENDED_TAIL = 5  # ... and attended to; the convolutions see the end of the batch in the rest


@register_audio_encoder("whisper")
class WhisperEncoder(Encoder):
    """Whisper's encoder on waveforms: 50 frames a second.

    Whisper was trained on windows of 30 s. With ``pad_to_30s`` off, a batch is as long as its
    longest utterance: frames beyond an utterance are silence for the convolutions and masked for
    the attention, so that an utterance gives the same frames alone and in any batch. What is longer
    than 30 s is read in windows of 30 s, each by itself.

    Args:
        model: hub name (``openai/whisper-small``) or folder of a Transformers Whisper model.
        pad_to_30s: give Whisper its 30 s window, as trained; costs 30 s of computation a clip.
        dtype: of the weights: ``float32``, ``bfloat16``, ``float16`` or ``auto``, the
            fastest one here.
        load_pretrained: False builds the architecture with random weights (tests, dry runs).

    Raises:
        OSError: if the model cannot be had; see :func:`mome.pretrained.hub.load`.
    """

    frames_per_second = 50

    def __init__(
        self,
        model: str = "openai/whisper-small",
        pad_to_30s: bool = False,
        dtype: str = "float32",
        load_pretrained: bool = True,
    ):
        super().__init__()
        precision = compute_dtype(dtype)
        if load_pretrained:
            encoder = load(WhisperModel, model, dtype=precision).get_encoder()
        else:
            # Transformers' annotations hide what its decorators return.
            kind: Any = HFWhisperEncoder
            encoder = kind(load_config(model)).to(precision)
        self.encoder = Frozen(encoder)
        self.pad_to_30s = pad_to_30s
        self.max_frames = encoder.config.max_source_positions
        extractor = WhisperFeatureExtractor(feature_size=encoder.config.num_mel_bins)
        filters = torch.from_numpy(extractor.mel_filters).float()  # (n_fft / 2 + 1, mels)
        self.register_buffer("mel_filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(400), persistent=False)

    def output_size(self) -> int:
        """Width of an encoder frame."""
        return self.encoder.inner.config.d_model

    def log_mel(self, speech: torch.Tensor, lengths: torch.Tensor, frames: int) -> torch.Tensor:
        """Whisper's log-mel spectrogram, computed as if silence followed every utterance.

        Args:
            speech: (B, N) waveform at 16 kHz.
            lengths: (B,) samples.
            frames: mel frames (10 ms) to return.

        Returns:
            (B, mels, frames), normalised per utterance as Whisper's feature extractor does.
        """
        samples = torch.arange(speech.shape[1], device=speech.device)
        speech = speech.float() * (samples < lengths[:, None])
        # `frames` of signal and one window of silence, so that no frame sees the reflected end.
        speech = F.pad(speech, (0, max(0, frames * 160 + 400 - speech.shape[1])))
        spectrum = torch.stft(speech, 400, 160, window=self.window, return_complex=True)
        power = spectrum[..., :frames].abs().square()  # (B, 201, frames)
        # Powers overflow in float16, in which autocast would multiply.
        with without_autocast(power.device):
            mel = self.mel_filters.T @ power
        log = mel.clamp(min=1e-10).log10()
        log = torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8.0)
        return (log + 4.0) / 4.0

    @torch.no_grad()
    def forward(
        self, xs_pad: torch.Tensor, ilens: torch.Tensor, prev_states: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """(B, N) waveforms and (B,) samples -> (B, T, D) frames of 20 ms, (B,) frames, None."""
        if xs_pad.dim() == 3:  # (B, N, 1), as ESPnet gives it without a frontend
            xs_pad = xs_pad.squeeze(-1)
        longest = int(frames_of(ilens).max())
        if longest <= self.max_frames:
            return self.read_window(xs_pad, ilens), frames_of(ilens), None
        count = -(-longest // self.max_frames)
        width = self.max_frames * SAMPLES_PER_FRAME
        begins = torch.arange(count, device=ilens.device) * width
        samples = (ilens[:, None] - begins).clamp(0, width)
        padded = F.pad(xs_pad, (0, max(0, count * width - xs_pad.shape[1])))[:, : count * width]
        spoken = samples.flatten() > 0  # short utterances beside long ones have no more windows
        read = self.read_window(padded.reshape(-1, width)[spoken], samples.flatten()[spoken])
        frames = read.new_zeros(len(spoken), self.max_frames, read.shape[2])
        frames[spoken] = read
        return frames.reshape(len(xs_pad), -1, read.shape[2])[:, :longest], frames_of(ilens), None

    def read_window(self, speech: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(B, N) waveforms of up to 30 s and (B,) samples -> frames (B, T, D)."""
        dtype = self.encoder.inner.conv1.weight.dtype
        olens = frames_of(lengths)
        longest = int(olens.max())
        time = self.max_frames if self.pad_to_30s else min(longest + TAIL, self.max_frames)
        mel = self.log_mel(speech, lengths, 2 * time).to(dtype)
        mask = None
        if not self.pad_to_30s:
            valid = torch.arange(time, device=mel.device) < olens[:, None] + ATTENDED_TAIL
            mask = torch.zeros(valid.shape, dtype=dtype, device=mel.device)
            mask = mask.masked_fill(~valid, torch.finfo(dtype).min)[:, None, None, :]
        return self.encode(mel, mask)[:, :longest]

    def encode(self, mel: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Whisper's convolutions and transformer: (B, mels, 2 T) and a mask added to the attention
        scores (B, 1, 1, T) -> (B, T, D)."""
        encoder = self.encoder.inner
        hidden = F.gelu(encoder.conv1(mel))
        hidden = F.gelu(encoder.conv2(hidden)).transpose(1, 2)
        hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
        for layer in encoder.layers:
            output = layer(hidden, attention_mask=mask)
            hidden = output[0] if isinstance(output, tuple) else output
        return encoder.layer_norm(hidden)

    def dry_run(self, batch: int, seconds: float) -> None:
        """As :class:`Encoder` says; the spectrogram, which costs next to nothing, is left out."""
        time = self.max_frames
        frames = round(seconds * self.frames_per_second)
        if frames > self.max_frames:
            batch *= -(-frames // self.max_frames)
        elif not self.pad_to_30s:
            time = min(frames + TAIL, self.max_frames)
        config, dtype = self.encoder.inner.config, self.encoder.inner.dtype
        mel = torch.empty(batch, config.num_mel_bins, 2 * time, dtype=dtype, device="meta")
        self.encode(mel, None)


def frames_of(samples: torch.Tensor) -> torch.Tensor:
    """Encoder frames of so many samples; the last may be incomplete."""
    return (samples + SAMPLES_PER_FRAME - 1).div(SAMPLES_PER_FRAME, rounding_mode="floor")

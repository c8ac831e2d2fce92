"""Audio and video encoders with ESPnet's encoder interface, chosen by name."""

from mome.encoders.avhubert import AVHubertEncoder
from mome.encoders.base import (
    AUDIO_ENCODERS,
    VIDEO_ENCODERS,
    Encoder,
    register_audio_encoder,
    register_video_encoder,
)
from mome.encoders.visual import VisualEncoder
from mome.encoders.whisper import WhisperEncoder

__all__ = [
    "AUDIO_ENCODERS",
    "VIDEO_ENCODERS",
    "AVHubertEncoder",
    "Encoder",
    "VisualEncoder",
    "WhisperEncoder",
    "register_audio_encoder",
    "register_video_encoder",
]

"""MoME: mixture of Matryoshka experts for audio-visual speech recognition with LLMs.

The names of this package are imported when they are first used, so that ``import mome`` waits for
nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mome.adapters import (
        Adapter,
        MoME,
        attach,
        register_adapter,
        register_gate,
        register_router,
    )
    from mome.encoders import Encoder, register_audio_encoder, register_video_encoder
    from mome.models.avsr import AVSRModel
    from mome.tasks.avsr import load_model
    from mome.transcribe.transcriber import Transcriber

__all__ = [
    "AVSRModel",
    "Adapter",
    "Encoder",
    "MoME",
    "Transcriber",
    "__version__",
    "attach",
    "load_model",
    "register_adapter",
    "register_audio_encoder",
    "register_gate",
    "register_router",
    "register_video_encoder",
]

_MODULES = {
    "mome.adapters": (
        "Adapter",
        "MoME",
        "attach",
        "register_adapter",
        "register_gate",
        "register_router",
    ),
    "mome.encoders": ("Encoder", "register_audio_encoder", "register_video_encoder"),
    "mome.models.avsr": ("AVSRModel",),
    "mome.tasks.avsr": ("load_model",),
    "mome.transcribe.transcriber": ("Transcriber",),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mome")
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'mome' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

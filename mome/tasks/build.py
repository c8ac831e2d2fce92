"""A model from its configuration: which parts a configuration may name, and how they are joined.

ESPnet's trainer is not needed to build a model, and loads far slower than PyTorch, so it is left to
:mod:`mome.tasks.avsr`, which makes its options of what is listed here; transcription does without.
"""

import argparse
from collections.abc import Mapping
from typing import Any

from mome.common.frozen import Frozen
from mome.common.registry import Registry
from mome.encoders import AUDIO_ENCODERS, VIDEO_ENCODERS
from mome.llm.decoder import MoMELLMDecoder
from mome.models.avsr import AVSRModel
from mome.models.projector_ctc import ProjectorCTCModel
from mome.models.video_units import VideoUnitsModel
from mome.tasks.extensions import import_modules

DECODERS = {"mome_llm": MoMELLMDecoder}
MODELS = {
    "avsr": AVSRModel,
    "projector_ctc": ProjectorCTCModel,
    "video_units": VideoUnitsModel,
}


def find_class(part: str, classes: Mapping[str, type], name: str) -> type:
    """The class that a configuration names for a part of the model.

    Raises:
        ValueError: for an unknown name, with those that are known.
    """
    if isinstance(classes, Registry):
        return classes.find(name)  # also says how to add to it
    if name not in classes:
        raise ValueError(f"{part} {name!r} is unknown; there are {', '.join(classes)}")
    return classes[name]


def build_model(args: argparse.Namespace) -> Any:
    """Build the model that a configuration describes.

    Args:
        args: ESPnet's configuration; see :func:`mome.tasks.config.namespace`.

    Returns:
        an :class:`AVSRModel` or another of ``MODELS``, with random weights where no file or
        hub name gives them.

    Raises:
        ValueError: if the configuration leaves out a part that the model needs, or names one
            that is not registered.
        ModuleNotFoundError: if a module that ``imports`` names does not exist.
    """
    import_modules(getattr(args, "imports", []))

    def build(part: str, classes: Mapping[str, type]) -> Any:
        name = getattr(args, part)
        if name is None:
            return None
        return find_class(part, classes, name)(**(getattr(args, f"{part}_conf") or {}))

    video_encoder = build("video_encoder", VIDEO_ENCODERS)
    model_class = find_class("model", MODELS, args.model)
    if model_class is VideoUnitsModel:
        return model_class(video_encoder=video_encoder, **args.model_conf)
    if video_encoder is not None and args.freeze_video_encoder:
        video_encoder = Frozen(video_encoder)
    decoder = build("decoder", DECODERS)
    if decoder is None:
        raise ValueError("the avsr model needs `decoder: mome_llm` in its configuration")
    return model_class(
        decoder=decoder,
        tokenizer=args.token_list,
        audio_encoder=build("audio_encoder", AUDIO_ENCODERS),
        video_encoder=video_encoder,
        **args.model_conf,
    )

"""A model from its configuration: which parts a configuration may name, and how they are joined.

Parts are chosen by name through ESPnet's ``ClassChoices``, as its trainer's options are made of
these. The trainer itself is not needed to build a model, and loads far slower than PyTorch, so it
is left to :mod:`mome.tasks.avsr`; transcription does without.
"""

import argparse
from typing import Any

from espnet2.asr.decoder.abs_decoder import AbsDecoder
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.train.abs_espnet_model import AbsESPnetModel
from espnet2.train.class_choices import ClassChoices

from mome.common.frozen import Frozen
from mome.common.registry import Registry
from mome.encoders import AUDIO_ENCODERS, VIDEO_ENCODERS
from mome.llm.decoder import MoMELLMDecoder
from mome.models.avsr import AVSRModel
from mome.models.projector_ctc import ProjectorCTCModel
from mome.models.video_units import VideoUnitsModel
from mome.tasks.extensions import import_modules

audio_encoder_choices = ClassChoices(
    "audio_encoder",
    classes=AUDIO_ENCODERS,
    type_check=AbsEncoder,
    default=None,
    optional=True,
)
video_encoder_choices = ClassChoices(
    "video_encoder",
    classes=VIDEO_ENCODERS,
    type_check=AbsEncoder,
    default=None,
    optional=True,
)
# ClassChoices copies what it is given; encoders may be registered later.
audio_encoder_choices.classes = AUDIO_ENCODERS
video_encoder_choices.classes = VIDEO_ENCODERS
decoder_choices = ClassChoices(
    "decoder",
    classes={"mome_llm": MoMELLMDecoder},
    type_check=AbsDecoder,
    default=None,
    optional=True,
)
model_choices = ClassChoices(
    "model",
    classes={
        "avsr": AVSRModel,
        "projector_ctc": ProjectorCTCModel,
        "video_units": VideoUnitsModel,
    },
    type_check=AbsESPnetModel,
    default="avsr",
)


def build_model(args: argparse.Namespace) -> Any:
    """Build the model that a configuration describes.

    Args:
        args: ESPnet's configuration; see :func:`mome.tasks.packed.namespace`.

    Returns:
        an :class:`AVSRModel` or another of ``model_choices``, with random weights where no file or
        hub name gives them.

    Raises:
        ValueError: if the configuration leaves out a part that the model needs, or names one
            that is not registered.
        ModuleNotFoundError: if a module that ``imports`` names does not exist.
    """
    import_modules(getattr(args, "imports", []))

    def build(choices: ClassChoices):
        name = getattr(args, choices.name)
        conf = getattr(args, f"{choices.name}_conf") or {}
        if name is None:
            return None
        if isinstance(choices.classes, Registry):
            choices.classes.find(name)  # says what there is and how to add to it
        return choices.get_class(name)(**conf)

    video_encoder = build(video_encoder_choices)
    model_class = model_choices.get_class(args.model)
    if model_class is VideoUnitsModel:
        return model_class(video_encoder=video_encoder, **args.model_conf)
    if video_encoder is not None and args.freeze_video_encoder:
        video_encoder = Frozen(video_encoder)
    decoder = build(decoder_choices)
    if decoder is None:
        raise ValueError("the avsr model needs `decoder: mome_llm` in its configuration")
    return model_class(
        decoder=decoder,
        tokenizer=args.token_list,
        audio_encoder=build(audio_encoder_choices),
        video_encoder=video_encoder,
        **args.model_conf,
    )

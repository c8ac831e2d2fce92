"""``AVSRTask``: ESPnet's trainer, launchers and YAML configurations for the AVSR model.

The model itself is built by :mod:`mome.tasks.build`. Importing this module also enters the type
``lips`` in ESPnet's data types.
"""

import argparse
import re
from collections.abc import Callable, Collection
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mome.common.command import in_one_line
from mome.common.distributed import leave_processes
from mome.common.extras import extra
from mome.common.memory import WHERE_LOADED, naming_work
from mome.common.precision import built_for
from mome.data.collate import collate
from mome.data.preprocessor import AVSRPreprocessor, LipsReader
from mome.encoders import AUDIO_ENCODERS, VIDEO_ENCODERS
from mome.models.avsr import AVSRModel
from mome.tasks.build import DECODERS, MODELS, build_model
from mome.tasks.checkpoint import check_trained
from mome.tasks.warm_start import check_warm_start

with extra():
    from espnet2.asr.decoder.abs_decoder import AbsDecoder
    from espnet2.asr.encoder.abs_encoder import AbsEncoder
    from espnet2.fileio.read_text import read_2columns_text
    from espnet2.iterators.abs_iter_factory import AbsIterFactory
    from espnet2.optimizers.optim_groups import add_optimizer_hooks
    from espnet2.tasks.abs_task import AbsTask, IteratorOptions, optim_classes, scheduler_classes
    from espnet2.train import dataset
    from espnet2.train.abs_espnet_model import AbsESPnetModel
    from espnet2.train.class_choices import ClassChoices
    from espnet2.train.preprocessor import AbsPreprocessor
    from espnet2.utils.types import str2bool, str_or_none

    from mome.tasks.batches import RandomTies
    from mome.tasks.schedule import WarmupCosineLR
    from mome.tasks.trainer import AVSRTrainer

dataset.DATA_TYPES["lips"] = {
    "func": LipsReader,
    "kwargs": [],
    "help": "Mouth crops as grey video.\n\n   utterance_a a.mp4\n   utterance_b b.mp4\n   ...",
}
scheduler_classes["warmup_cosine"] = WarmupCosineLR
AbsPreprocessor.register(AVSRPreprocessor)

# What ESPnet says of a batch that its processes cannot share.
TOO_FEW = re.compile(r"batch-size must be equal or more than world_size: (\d+) < (\d+)")

model_choices = ClassChoices("model", MODELS, type_check=AbsESPnetModel, default="avsr")
audio_encoder_choices = ClassChoices(
    "audio_encoder", AUDIO_ENCODERS, type_check=AbsEncoder, optional=True
)
video_encoder_choices = ClassChoices(
    "video_encoder", VIDEO_ENCODERS, type_check=AbsEncoder, optional=True
)
# ClassChoices copies what it is given; encoders may be registered later.
audio_encoder_choices.classes = AUDIO_ENCODERS
video_encoder_choices.classes = VIDEO_ENCODERS
decoder_choices = ClassChoices("decoder", DECODERS, type_check=AbsDecoder, optional=True)
preprocessor_choices = ClassChoices(
    "preprocessor",
    classes={"avsr": AVSRPreprocessor},
    type_check=AbsPreprocessor,
    default="avsr",
)


class AVSRTask(AbsTask):
    """Audio-visual speech recognition; ASR, VSR and the pretraining of a video encoder."""

    num_optimizers = 1
    class_choices_list = [  # noqa: RUF012 - ESPnet's own interface
        model_choices,
        audio_encoder_choices,
        video_encoder_choices,
        decoder_choices,
        preprocessor_choices,
    ]
    trainer = AVSRTrainer

    @classmethod
    def main_worker(cls, args: argparse.Namespace) -> None:
        """As in ESPnet; a process that it has started for a GPU tells an error in one line.

        Of an error in such a process the one that has started it gets no more than the status.
        """
        alone = not (args.distributed and args.multiprocessing_distributed)
        with nullcontext() if alone else in_one_line("mome-train"):
            super().main_worker(args)
            leave_processes()

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Options of this task, beside ESPnet's own."""
        group = parser.add_argument_group("Task related")
        group.add_argument(
            "--token_list",
            type=str_or_none,
            default=None,
            help="Hub name or folder of the LM's tokenizer; the decoder's lm when not given",
        )
        group.add_argument(
            "--freeze_video_encoder",
            type=str2bool,
            default=True,
            help="Keep the video encoder as it is, out of optimiser and checkpoint",
        )
        group.add_argument(
            "--projector_lr_scale",
            type=float,
            default=1.0,
            help="Learning rate of the projectors, as a multiple of the adapter's; below 1 where "
            "they have been trained before (model projector_ctc)",
        )
        group.add_argument(
            "--use_preprocessor", type=str2bool, default=True, help="Apply the preprocessor"
        )
        group.add_argument(
            "--import",
            dest="imports",
            action="append",
            default=[],
            metavar="MODULE",
            help="Module that registers adapters, gates, routers or encoders; may be repeated "
            "(key `imports` of a configuration)",
        )
        for choices in cls.class_choices_list:
            choices.add_arguments(group)

    @classmethod
    def build_collate_fn(
        cls, args: argparse.Namespace, train: bool
    ) -> Callable[
        [Collection[tuple[str, dict[str, np.ndarray]]]], tuple[list[str], dict[str, torch.Tensor]]
    ]:
        """Pad speech and crops by 0 (silence, mean grey) and text by -1."""
        return collate

    @classmethod
    def build_preprocess_fn(
        cls, args: argparse.Namespace, train: bool
    ) -> Callable[[str, dict[str, np.ndarray]], dict[str, np.ndarray]] | None:
        """Tokenisation, crops and, in training, noise and masking."""
        if not args.use_preprocessor:
            return None
        preprocessor = preprocessor_choices.get_class(args.preprocessor)
        return preprocessor(train=train, tokenizer=cls.tokenizer(args), **args.preprocessor_conf)

    @classmethod
    def build_sequence_iter_factory(
        cls, args: argparse.Namespace, iter_options: IteratorOptions, mode: str
    ) -> AbsIterFactory:
        """As in ESPnet; training draws the batches of equally long utterances anew each epoch.

        Raises:
            ValueError: if several processes cannot share a batch, as it has too few utterances.
        """
        try:
            factory = super().build_sequence_iter_factory(args, iter_options, mode)
        except RuntimeError as error:
            if (found := TOO_FEW.search(str(error))) is None:
                raise
            option = "batch_size" if iter_options.train else "valid_batch_size"
            raise ValueError(
                f"{iter_options.shape_files[0]}: a batch of {found[1]} utterances cannot be shared"
                f" by {found[2]} processes, one for each GPU of all machines: train on fewer GPUs"
                f" (--ngpu, --num_nodes), or, if the set has more utterances, raise {option} in the"
                f" configuration"
            ) from None
        if iter_options.train:
            shapes = read_2columns_text(iter_options.shape_files[0])
            lengths = {name: int(shape.split(",")[0]) for name, shape in shapes.items()}
            factory.sampler = RandomTies(list(factory.sampler), lengths)
        return factory

    @classmethod
    def tokenizer(cls, args: argparse.Namespace) -> str | None:
        """The tokenizer's name: ``--token_list``, else the decoder's LM."""
        return args.token_list or (args.decoder_conf or {}).get("lm")

    @classmethod
    def required_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        """Nothing in general: which streams are needed depends on the model and its tasks."""
        return ()

    @classmethod
    def optional_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        """Streams that a model of this task may read."""
        return ("speech", "lips", "text", "units")

    @classmethod
    def build_optimizers(
        cls, args: argparse.Namespace, model: torch.nn.Module
    ) -> list[torch.optim.Optimizer]:
        """One optimiser.

        Projectors have their own learning rate by ``projector_lr_scale``; norms and biases, also
        theirs, are not decayed when ``exclude_weight_decay`` is set.

        Raises:
            ValueError: if ``--init_param`` gives some projectors of the model but not all, or if
                projectors have another learning rate than one that is not given, or if gradients
                would pass through float16 without a scaled loss.
        """
        # ESPnet calls no other step of a task in training alone, before it initialises the model.
        check_warm_start(model, args.init_param)
        check_float16(model, args.use_amp)
        if args.exclude_weight_decay:
            add_optimizer_hooks(model, **args.exclude_weight_decay_conf)
        groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                # ESPnet's hooks mark what is not decayed by this attribute.
                kind = name.startswith("projectors."), hasattr(parameter, "_optim")
                groups.setdefault(kind, []).append(parameter)
        options: list[dict[str, Any]] = []
        for projects, undecayed in sorted(groups):
            group: dict[str, Any] = {"params": groups[projects, undecayed]}
            if projects and args.projector_lr_scale != 1:
                if "lr" not in args.optim_conf:
                    raise ValueError(
                        f"projector_lr_scale {args.projector_lr_scale:g} is a multiple of"
                        f" optim_conf.lr, which is not given"
                    )
                group["lr"] = args.optim_conf["lr"] * args.projector_lr_scale
            if undecayed:
                group["weight_decay"] = 0.0
            options.append(group)
        return [optim_classes[args.optim](options, **args.optim_conf)]

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> AbsESPnetModel:
        """The model of a configuration; see :func:`mome.tasks.build.build_model`."""
        with built_for("cuda" if getattr(args, "ngpu", 0) else "cpu"):
            return build_model(args)


def check_float16(model: torch.nn.Module, use_amp: bool) -> None:
    """See that the loss is scaled where gradients pass through float16, in which they vanish.

    Raises:
        ValueError: if it is not.
    """
    # A frozen encoder, which has no such attribute, gets no gradients.
    encoder = getattr(model, "video_encoder", None)
    types = {"video_encoder_conf.dtype": getattr(encoder, "dtype", None)}
    if isinstance(model, AVSRModel):
        types["decoder_conf.lm_dtype"] = model.decoder.lm.inner.dtype
    if not use_amp and (halves := [key for key, dtype in types.items() if dtype == torch.float16]):
        raise ValueError(
            f"{' and '.join(halves)}: gradients through float16, which auto takes on GPUs without"
            f" bfloat16, vanish unless the loss is scaled: train with --use_amp true, or in float32"
        )


def load_model(config: str | Path, weights: str | Path, device: str = "cpu") -> tuple:
    """Rebuild a trained model: frozen parts from their sources, trained tensors from a checkpoint.

    Returns:
        the model in evaluation mode and its configuration.

    Raises:
        FileNotFoundError: if either file is missing.
        ModuleNotFoundError: on import, if ESPnet is not installed.
        OutOfMemory: if that of the GPU or the machine does not suffice.
    """
    check_trained(config, weights)
    with naming_work(lambda: f"{weights} was loaded", WHERE_LOADED):
        with built_for(device):
            model, args = AVSRTask.build_model_from_file(str(config), str(weights), device)
        if args.model == "avsr" and model.decoder.adapter is not None:
            model.decoder.adapter.for_inference(model.decoder.lm.inner.dtype)
    return model.eval(), args

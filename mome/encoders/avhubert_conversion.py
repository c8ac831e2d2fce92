"""AV-HuBERT's fairseq checkpoints as safetensors, without fairseq and without running their pickle.

A fairseq checkpoint is a pickle of the ``model`` tensors and of the training's whole state:
``argparse.Namespace``, omegaconf nodes, fairseq's dictionaries, enumerations, meters. Unpickling
imports and calls whatever the file names, so a stranger's file could run any program.

Here torch's ``weights_only`` unpickler reads it, which calls only what is on its list: tensors and
a few containers. The other names in the file, found by a scan that executes nothing, are entered in
that list as :class:`Placeholder`, a class of ours that keeps what it is given and does nothing. The
real classes are never imported. Names in ``os``, ``sys`` and their like torch refuses altogether.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mome.common.atomic_files import replacing
from mome.common.memory import lacks_memory_for
from mome.encoders.avhubert import CONFIG, SIZES, WEIGHTS, build

# Where the encoder's tensors lie: pretrained, fine-tuned sequence-to-sequence, fine-tuned CTC.
PREFIXES = ("", "encoder.w2v_model.", "w2v_encoder.w2v_model.")
STEM = "feature_extractor_video.resnet.frontend3D.0.weight"
POSITIONS = "encoder.pos_conv.0.weight_v"
UNUSED = ("label_embs_concat", "final_proj", "target_glu", "mask_emb", "feature_extractor_audio")


class Placeholder:
    """Stands for any object of a pickle that is not a tensor: keeps its state, does nothing."""

    def __init__(self, *args: Any, **kwargs: Any):
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def plain_dict(*args: Any) -> dict:
    """Stands for ``collections.defaultdict``, into which an unpickler puts items."""
    return {}


def read_checkpoint(path: Path) -> tuple[dict[str, Any], list[str]]:
    """A fairseq checkpoint without executing anything that it names.

    Returns:
        the checkpoint, with :class:`Placeholder` for every object of a foreign class, and the names
        of these classes.

    Raises:
        ValueError: if the file is not a checkpoint in torch's zip format, is damaged, or names what
            torch refuses.
    """
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        stand_ins: list[Callable | tuple[Callable, str]] = [
            (plain_dict if name == "collections.defaultdict" else Placeholder, name)
            for name in names
        ]
        with torch.serialization.safe_globals(stand_ins):
            # Mapped, because the optimiser's state, twice the size of the model, is not needed.
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # of a damaged file PyTorch raises almost anything
        if lacks_memory_for(error, path):
            raise
        raise ValueError(
            f"{path} cannot be read safely as a PyTorch checkpoint, and nothing in it was run; get "
            f"it again from its authors. PyTorch says: {str(error).partition(chr(10))[0]}"
        ) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("model"), dict):
        raise ValueError(f"{path} is no fairseq checkpoint: it has no `model`")
    return checkpoint, names


def plain(value: Any) -> Any:
    """What a dict, an ``argparse.Namespace`` or an omegaconf node holds, the latter not loaded."""
    while isinstance(value, Placeholder):
        value = value.state
        if isinstance(value, dict):
            value = value.get("_content", value.get("_val", value))
    return value


def setting(checkpoint: dict[str, Any], name: str) -> Any:
    """A setting of the encoder wherever fairseq's versions keep it, or None."""
    for root in ((plain(checkpoint.get("cfg")) or {}).get("model"), checkpoint.get("args")):
        outer = plain(root) or {}
        inner = plain(outer.get("w2v_args")) or {}  # of a fine-tuned model: its encoder's
        for place in (plain(inner.get("model")) or {}, inner, outer):
            if name in place:
                return plain(place[name])
    return None


def encoder_tensors(model: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], Counter]:
    """The video encoder's tensors under ESPnet's names, and how many others there were of a kind.

    Raises:
        ValueError: if the checkpoint has no AV-HuBERT video encoder.
    """
    prefix = next((p for p in PREFIXES if p + STEM in model), None)
    if prefix is None:
        raise ValueError(
            f"no AV-HuBERT video encoder: none of the checkpoint's {len(model)} tensors is called "
            f"{' or '.join(p + STEM for p in PREFIXES)}"
        )
    tensors: dict[str, torch.Tensor] = {}
    unused: Counter[str] = Counter()
    for name, tensor in model.items():
        short = name.removeprefix(prefix)
        if name.startswith(prefix) and not short.startswith(UNUSED):
            tensors[short] = tensor.contiguous()
        else:
            unused[short.split(".")[0] if name.startswith(prefix) else name.split(".")[0]] += 1
    return tensors, unused


def infer_sizes(
    tensors: dict[str, torch.Tensor], checkpoint: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Sizes from the tensors, the rest from the checkpoint's settings.

    Returns:
        arguments of :func:`mome.encoders.avhubert.build`, and the names of those that neither
        tensors nor settings told, for which the published value is taken.

    Raises:
        ValueError: for a plan that ESPnet's class does not have.
    """
    try:
        kernel = tensors[POSITIONS].shape
        dim, ffn = tensors["encoder.layers.0.fc1.weight"].shape[::-1]
        fused = tensors["layer_norm.weight"].shape[0]
    except KeyError as error:
        raise ValueError(f"the checkpoint lacks the tensor {error}") from error
    if kernel != (dim, dim // 16, 128) or fused != 2 * dim:
        raise ValueError(
            f"positions by a convolution of shape {tuple(kernel)} and fused features of width "
            f"{fused} are not AV-HuBERT's: kernel 128, 16 groups, audio and video concatenated"
        )
    layers = {name.split(".")[2] for name in tensors if name.startswith("encoder.layers.")}
    sizes = {
        "encoder_embed_dim": dim,
        "encoder_layers": len(layers),
        "encoder_ffn_embed_dim": ffn,
    }
    assumed = []
    for name, published in (("encoder_attention_heads", dim // 64), ("layer_norm_first", True)):
        known = setting(checkpoint, name)
        if known is None:
            assumed.append(name)
        sizes[name] = published if known is None else known
    return sizes, assumed


def convert(checkpoint_path: Path, output: Path) -> dict[str, Any]:
    """Write the video encoder of a fairseq checkpoint as safetensors with a config.json.

    Returns:
        what config.json holds: size, all sizes (``geometry``), which of them were assumed, the
        source file and its SHA-256, the number of tensors kept, those unused by kind, and the
        classes not loaded.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if it cannot be read safely, or lacks tensors of AV-HuBERT's video encoder.
    """
    if not checkpoint_path.is_file():
        raise FileNotFoundError(
            f"{checkpoint_path} does not exist; https://facebookresearch.github.io/av_hubert has "
            f"the checkpoints, after its licence is accepted"
        )
    checkpoint, classes = read_checkpoint(checkpoint_path)
    tensors, unused = encoder_tensors(checkpoint["model"])
    sizes, assumed = infer_sizes(tensors, checkpoint)
    with torch.device("meta"):
        expected = build(sizes).state_dict()
    problems = [f"{name} is missing" for name in expected if name not in tensors]
    problems += [f"{name} is unknown" for name in tensors if name not in expected]
    problems += [
        f"{name} is {tuple(tensors[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if problems:
        raise ValueError(f"{checkpoint_path} is not AV-HuBERT: {'; '.join(problems[:10])}")
    with checkpoint_path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    config = {
        "size": next((size for size, known in SIZES.items() if known == sizes), "other"),
        "geometry": sizes,
        "assumed": assumed,
        "source": checkpoint_path.name,
        "source_sha256": digest,
        "dtype": str(tensors[POSITIONS].dtype).removeprefix("torch."),
        "tensors": len(tensors),
        "unused_tensors": dict(sorted(unused.items())),
        "classes_not_loaded": classes,
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / CONFIG).unlink(missing_ok=True)  # comes last: its presence says that all is there
    with replacing(output / WEIGHTS) as partial:
        save_file(tensors, partial)
    (output / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    return config

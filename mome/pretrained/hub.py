"""Load models by hub name or folder, with errors that say how to get what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from mome.pretrained.places import is_hub_name

# Whoever only looks whether a model is there waits neither for PyTorch nor for the models of
# Transformers: functions that load them import them.
if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


def load(loader: Any, name: str, **options: Any) -> Any:
    """``loader.from_pretrained(name, **options)`` of a Transformers class.

    Args:
        loader: such as ``AutoModelForCausalLM``.
        name: hub name (``meta-llama/Llama-3.2-1B``) or local folder.

    Raises:
        FileNotFoundError: if there is no such folder or hub model, or the folder holds no model.
        PermissionError: if the model is gated and access was not granted to this user.
        ConnectionError: if the hub cannot be reached and the model is not in its cache.
        ValueError: if Transformers cannot read it, such as a kind that it does not know.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"{name} has no config.json, so it is not a Transformers model. Original Llama or "
                f"Whisper checkpoints need the hub's version: hf download <hub name> --local-dir "
                f"{name}"
            )
        name = str(folder)
    elif not is_hub_name(name) or folder.is_file():
        raise FileNotFoundError(f"{name} is no folder; name the folder of a Transformers model")
    try:
        return loader.from_pretrained(name, **options)
    except Exception as error:
        if explained := explain(name, error):
            raise explained from error
        if isinstance(error, (OSError, ValueError)):
            raise ValueError(f"{name} cannot be loaded: {' '.join(str(error).split())}") from error
        raise


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that caused it, from the last to the first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def explain(name: str, error: Exception) -> OSError | None:
    """What to do about an error of the hub, or None for an error of another kind."""
    elsewhere = (
        f"or, where it can be downloaded, run `hf download {name} --local-dir <folder>`, bring the "
        f"folder here and give its path in place of {name}"
    )
    for cause in causes(error):
        if isinstance(cause, GatedRepoError):  # a kind of RepositoryNotFoundError
            return PermissionError(
                f"{name} is gated: accept its licence at https://huggingface.co/{name}, wait for "
                f"access, then `hf auth login` or set HF_TOKEN; {elsewhere}"
            )
        if isinstance(cause, (RepositoryNotFoundError, HFValidationError)):
            return FileNotFoundError(
                f"the hub has no model called {name!r} (or it is private and you are not logged "
                f"in: `hf auth login`), and there is no such folder; check the spelling"
            )
    offline = any(isinstance(cause, OfflineModeIsEnabled) for cause in causes(error))
    unreachable = any(isinstance(cause, LocalEntryNotFoundError) for cause in causes(error))
    if offline or (unreachable and constants.HF_HUB_OFFLINE):
        return ConnectionError(
            f"{name} is not in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids to "
            f"download it: unset it, {elsewhere}"
        )
    if unreachable:
        return ConnectionError(
            f"{name} is not in the cache {constants.HF_HUB_CACHE}, and {constants.ENDPOINT} cannot "
            f"be reached: check the network and proxy, {elsewhere}"
        )
    return None


def load_lm(name: str, dtype: torch.dtype) -> Any:
    """A causal LM in this type; a quantised one if the package of its weights is installed.

    Raises:
        ValueError: for a quantised LM whose package is not, or that is quantised in a way that
            Transformers does not know and would leave out of account.
        OSError: as :func:`load`.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.quantizers import AutoHfQuantizer

    config = load(AutoConfig, name)
    quantised = getattr(config, "quantization_config", None) or {}
    method = dict(quantised).get("quant_method", "without `quant_method`")
    remedy = "or name the LM as it was before"
    if quantised and not AutoHfQuantizer.supports_quant_method({"quant_method": "", **quantised}):
        raise ValueError(
            f"{name} is quantised ({method}) in a way that this version of Transformers does not"
            f" know: install a newer one, {remedy}"
        )
    try:
        return load(AutoModelForCausalLM, name, dtype=dtype)
    except ImportError as error:
        if not quantised:
            raise
        raise ValueError(
            f"{name} is quantised ({method}), and what reads such weights is not installed"
            f" ({' '.join(str(error).split())}): install it, {remedy}"
        ) from error


def load_config(name: str) -> PretrainedConfig:
    """A model's configuration from its folder, the hub's cache, the published sizes or the hub."""
    from transformers import AutoConfig

    from mome.pretrained.model_sizes import published

    config = None if Path(name).is_dir() else published(name)
    if config is None:
        return load(AutoConfig, name)
    try:
        return load(AutoConfig, name, local_files_only=True)
    except OSError:
        return config


def load_tokenizer_or_words(name: str) -> PreTrainedTokenizerBase:
    """A tokenizer for a dry run, found as by :func:`load_config`, else a word-level one."""
    from transformers import AutoTokenizer

    from mome.pretrained.model_sizes import published, words_tokenizer

    if Path(name).is_dir() or published(name) is None:
        return load(AutoTokenizer, name)
    try:
        return load(AutoTokenizer, name, local_files_only=True)
    except OSError:
        return words_tokenizer()

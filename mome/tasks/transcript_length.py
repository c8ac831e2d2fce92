"""How many tokens a transcript may have where nothing else is said, and whether that sufficed."""

import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mome.data.kaldi import read_scp
from mome.data.text import lowered
from mome.pretrained.hub import load

LEAST = 32  # tokens, the paper's limit
LONGER = 1.25  # than in training, transcripts may be
UNFINISHED = 0.01  # share of transcripts without an end above which there is a warning


def longest_allowed(texts: Iterable[str], tokenizer: Any) -> int:
    """A quarter more tokens than the longest of training's transcripts has, EOS included.

    Args:
        texts: the transcripts, tokenised as training does.
        tokenizer: the LM's.

    Returns:
        that many tokens, and at least 32.
    """
    spoken = [" " + lowered(text) for text in texts]
    ids = tokenizer(spoken, add_special_tokens=False)["input_ids"] if spoken else []
    longest = max(map(len, ids), default=0)
    return max(LEAST, math.ceil(LONGER * (longest + 1)))


def are_cut(unfinished: int, count: int) -> bool:
    """Whether so many of a set's transcripts are without an end that it must be said."""
    return unfinished > UNFINISHED * count


def warn_if_cut(condition: str, unfinished: int, count: int, limit: int) -> None:
    """Say that the limit of tokens has cut off transcripts, if these are many.

    Args:
        condition: set, task and rate pair.
        unfinished: how many of ``count`` transcripts have no end.
        limit: ``--max_new_tokens`` of decoding.
    """
    if are_cut(unfinished, count):
        logging.warning(
            "%s: %d of %d transcripts do not end within --max_new_tokens %d",
            *(condition, unfinished, count, limit),
        )


def default_max_new_tokens(config: Mapping[str, Any]) -> int:
    """The limit of a model's transcripts, by its training's configuration.

    Args:
        config: config.yaml of the training, which names its transcripts and its tokenizer.
    """
    from transformers import AutoTokenizer

    files = config.get("train_data_path_and_name_and_type") or []
    paths = [Path(path) for path, name, _ in files if name == "text"]
    if not paths or not paths[0].is_file():
        logging.warning(
            "%s, the training's transcripts, are not there: no transcript will have more than %d"
            " tokens; --max_new_tokens sets another limit",
            *(paths[0] if paths else "text", LEAST),
        )
        return LEAST
    name = config.get("token_list") or config["decoder_conf"]["lm"]
    return longest_allowed(read_scp(paths[0]).values(), load(AutoTokenizer, name))

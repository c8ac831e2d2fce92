"""Read a Whisper model in CTranslate2's binary format and save it as a Transformers folder.

A CTranslate2 model.bin (version 6) holds: version u32; specification name; revision u32; number of
variables u32; per variable its name, rank u8, dimensions u32 each, type u8, size in bytes u32 and
the data; then aliases. Strings are a u16 length that counts a closing zero. All little-endian.
"""

import math
import struct
from pathlib import Path

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from mome.common.atomic_files import replacing
from mome.common.json_files import read_json

TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
VERSION = 6
MOST_DIMENSIONS = 8  # more than any variable has; NumPy takes 64


def read_model(path: Path) -> dict[str, np.ndarray]:
    """All variables of a model.bin by name, aliases included.

    Raises:
        ValueError: if the file has another version, is truncated or damaged, or holds an unknown
            type.
    """
    data = memoryview(path.read_bytes())
    place = 0

    def take(count: int) -> memoryview:
        nonlocal place
        if place + count > len(data):
            raise ValueError(f"{path} is truncated at byte {len(data)}; fetch it again")
        place += count
        return data[place - count : place]

    def number(code: str) -> int:
        return struct.unpack(f"<{code}", take(struct.calcsize(code)))[0]

    def string() -> str:
        try:
            return bytes(take(number("H")))[:-1].decode()
        except UnicodeDecodeError:
            raise ValueError(f"{path}: no name before byte {place}; fetch it again") from None

    version = number("I")
    if version != VERSION:
        raise ValueError(f"{path}: CTranslate2 version {version}; this reader knows {VERSION}")
    string()  # name of the specification
    number("I")  # its revision
    variables = {}
    for _ in range(number("I")):
        name = string()
        shape = [number("I") for _ in range(number("B"))]
        kind = number("B")
        if kind not in TYPES:
            raise ValueError(f"{path}: variable {name} has unknown type {kind}")
        size = number("I")
        expected = math.prod(shape) * np.dtype(TYPES[kind]).itemsize
        if size != expected or len(shape) > MOST_DIMENSIONS:
            raise ValueError(f"{path}: {name} of shape {shape} has {size} bytes; fetch it again")
        variables[name] = np.frombuffer(take(size), dtype=TYPES[kind]).reshape(shape)
    for _ in range(number("I")):
        alias, name = string(), string()
        if name not in variables:
            raise ValueError(f"{path}: {alias} stands for {name!r}, which it lacks; fetch it again")
        variables[alias] = variables[name]
    return variables


def whisper_states(variables: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Transformers' names for the variables of a WhisperSpec, in float32."""
    states = {}

    def put(name: str, source: str) -> None:
        array = variables[source]
        if array.dtype == np.int8:
            raise ValueError(f"{source} is quantised to int8; a float16 model is needed")
        states[f"model.{name}"] = torch.from_numpy(array.astype(np.float32))

    def put_linear(name: str, source: str) -> None:
        put(f"{name}.weight", f"{source}/weight")
        put(f"{name}.bias", f"{source}/bias")

    def put_norm(name: str, source: str) -> None:
        put(f"{name}.weight", f"{source}/gamma")
        put(f"{name}.bias", f"{source}/beta")

    def put_split(names: list[str], source: str) -> None:
        """One fused projection to several; the keys' zero bias is not stored by Transformers."""
        for part, values in (("weight", "weight"), ("bias", "bias")):
            pieces = np.split(variables[f"{source}/{values}"], len(names))
            for name, piece in zip(names, pieces, strict=True):
                if part == "weight" or not name.endswith("k_proj"):
                    states[f"model.{name}.{part}"] = torch.from_numpy(piece.astype(np.float32))

    for side in ("encoder", "decoder"):
        layers = {n.split("/")[1] for n in variables if n.startswith(f"{side}/layer_")}
        count = len([layer for layer in layers if layer.removeprefix("layer_").isdigit()])
        for index in range(count):
            to, source = f"{side}.layers.{index}", f"{side}/layer_{index}"
            qkv = [f"{to}.self_attn.{x}_proj" for x in "qkv"]
            put_split(qkv, f"{source}/self_attention/linear_0")
            put_linear(f"{to}.self_attn.out_proj", f"{source}/self_attention/linear_1")
            put_norm(f"{to}.self_attn_layer_norm", f"{source}/self_attention/layer_norm")
            if side == "decoder":
                put_linear(f"{to}.encoder_attn.q_proj", f"{source}/attention/linear_0")
                kv = [f"{to}.encoder_attn.{x}_proj" for x in "kv"]
                put_split(kv, f"{source}/attention/linear_1")
                put_linear(f"{to}.encoder_attn.out_proj", f"{source}/attention/linear_2")
                put_norm(f"{to}.encoder_attn_layer_norm", f"{source}/attention/layer_norm")
            put_linear(f"{to}.fc1", f"{source}/ffn/linear_0")
            put_linear(f"{to}.fc2", f"{source}/ffn/linear_1")
            put_norm(f"{to}.final_layer_norm", f"{source}/ffn/layer_norm")
        put_norm(f"{side}.layer_norm", f"{side}/layer_norm")
        put(f"{side}.embed_positions.weight", f"{side}/position_encodings/encodings")
    for conv in ("conv1", "conv2"):
        put_linear(f"encoder.{conv}", f"encoder/{conv}")
    put("decoder.embed_tokens.weight", "decoder/embeddings/weight")
    states["proj_out.weight"] = states["model.decoder.embed_tokens.weight"]
    return states


def read_suppressed(path: Path) -> tuple[list[int], list[int]]:
    """The tokens that a model's config.json forbids, anywhere and at the beginning.

    Raises:
        ValueError: if it cannot be read, or does not say it; names it.
    """
    options = read_json(path)

    def tokens(name: str) -> list[int]:
        found = options.get(name)
        if not isinstance(found, list) or not all(type(token) is int for token in found):
            raise ValueError(f"{path} has no list of tokens {name}; fetch it again")
        return found

    return tokens("suppress_ids"), tokens("suppress_ids_begin")


def convert_whisper(folder: Path, output: Path) -> None:
    """Convert a CTranslate2 Whisper folder (model.bin, config.json, tokenizer.json).

    Sizes come from the tensors. An English-only model (51,864 tokens) is assumed to have the token
    ids of OpenAI's English models.
    """
    variables = read_model(folder / "model.bin")
    states = whisper_states(variables)
    vocab, dim = variables["decoder/embeddings/weight"].shape
    if vocab != 51864:
        raise ValueError(f"{folder}: {vocab} tokens; only English-only Whisper is converted here")
    layers = 1 + max(
        int(n.split("/")[1][6:]) for n in variables if n.startswith("encoder/layer_") and "ffn" in n
    )
    heads = int(variables["encoder/num_heads"])
    never, never_first = read_suppressed(folder / "config.json")
    end = 50256
    config = WhisperConfig(
        vocab_size=vocab,
        d_model=dim,
        num_mel_bins=variables["encoder/conv1/weight"].shape[1],
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * dim,
        decoder_ffn_dim=4 * dim,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=50257,
    )
    model = WhisperForConditionalGeneration(config)
    missing, unexpected = model.load_state_dict(states, strict=False)
    if missing or unexpected:
        raise ValueError(f"{folder}: missing {missing}, unexpected {unexpected}")
    model.generation_config = GenerationConfig(
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=50257,
        suppress_tokens=never,
        begin_suppress_tokens=never_first,
        forced_decoder_ids=[[1, 50362]],  # <|notimestamps|>
        is_multilingual=False,
        no_timestamps_token_id=50362,
        return_timestamps=False,
        max_length=448,
    )
    tokenizer = WhisperTokenizer(tokenizer_file=str(folder / "tokenizer.json"))
    with replacing(output) as partial:
        for part in (model.half(), WhisperFeatureExtractor(), tokenizer):
            part.save_pretrained(partial)

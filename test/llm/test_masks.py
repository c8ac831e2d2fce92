"""Masks by layers against slow loops, and LMs that take none."""

import pytest
import torch
from tiny import SIZES
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

from mome.llm.masks import FULL, SLIDING, TreeMasks, windows_of

SHORT = {"sliding_window": 3}


def small_lm(config):
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    ("config_class", "changes", "expected"),
    [
        (LlamaConfig, {}, None),
        (LlamaConfig, SHORT, None),  # a configuration keeps what its LM knows nothing of
        (MistralConfig, SHORT, 3),
        (MistralConfig, {"sliding_window": None}, None),
        (Qwen2Config, SHORT, None),
        (Qwen2Config, {**SHORT, "use_sliding_window": True, "max_window_layers": 3}, None),
        (
            Qwen2Config,
            {**SHORT, "use_sliding_window": True, "max_window_layers": 1},
            {FULL: None, SLIDING: 3},
        ),
        (Gemma2Config, SHORT, {FULL: None, SLIDING: 3}),
        (Gemma3TextConfig, SHORT, {SLIDING: 3}),
    ],
)
def test_windows_are_those_of_the_configuration(config_class, changes, expected):
    assert windows_of(small_lm(config_class(**SIZES, **changes))) == expected


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_layers_with_a_window_see_its_positions_and_others_all(attention, added):
    config = Gemma3TextConfig(**SIZES, **SHORT, layer_types=[FULL, SLIDING, FULL])
    config._attn_implementation = attention
    sees = torch.rand(2, 1, 4, 6, generator=torch.Generator().manual_seed(0)) < 0.7
    positions = torch.tensor([[2, 3, 9, 9], [0, 1, 5, 2]])
    columns = torch.tensor([[0, 1, 2, 7, 8, 9], [0, 1, 2, 3, 4, 5]])
    masks = TreeMasks(small_lm(config), added)(sees, positions, columns)
    assert set(masks) == {FULL, SLIDING}
    for kind, window in ((FULL, 100), (SLIDING, 3)):
        mask = masks[kind]
        assert (mask.dtype == torch.bool) == (attention == "sdpa" and not added)
        for row in range(2):
            for i in range(4):
                for j in range(6):
                    near = positions[row, i] - columns[row, j] < window
                    expected = bool(sees[row, 0, i, j]) and bool(near)
                    value = mask[row, 0, i, j].item()
                    assert value in (
                        (True, False) if mask.dtype == torch.bool else (0.0, -torch.inf)
                    )
                    assert (value if mask.dtype == torch.bool else value == 0.0) == expected


def test_without_windows_the_mask_is_handed_on_as_it_is():
    sees = torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
    masks = TreeMasks(small_lm(LlamaConfig(**SIZES)))
    assert masks(sees, torch.arange(3)[None]) is sees


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("qwen3_next", {}, "linear_attention"),
        ("mamba", {}, "linear_attention"),
        ("llama4_text", {"num_local_experts": 2}, "chunked_attention"),
        (
            "gpt_neo",
            {"attention_types": [[["global", "local"], 1]], "num_hidden_layers": 2},
            "local",
        ),
        ("falcon", {"alibi": True, "head_dim": None}, "ALiBi"),
        # The trial's few tokens fit into these windows.
        ("modernbert-decoder", {"cls_token_id": 0, "sep_token_id": 1, "pad_token_id": 1}, "window"),
        ("doge", {}, "keep_window_size tokens"),
    ],
)
def test_layers_that_no_mask_describes_are_refused(name, changes, reason):
    sizes = {key: value for key, value in (SIZES | changes).items() if value is not None}
    with torch.device("meta"):
        lm = small_lm(AutoConfig.for_model(name, **sizes))
    with pytest.raises(ValueError, match=f"{type(lm).__name__} .*{reason}.*docs/llms.md"):
        TreeMasks(lm)

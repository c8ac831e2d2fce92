"""The optimiser's groups: learning rates of projectors, and what is not decayed."""

from argparse import Namespace

import pytest
import torch
from tiny_avsr import build

from mome.tasks.avsr import AVSRTask

LR = 0.01


def optimizer_of(model, **changes):
    values = {"optim": "adamw", "optim_conf": {"lr": LR, "weight_decay": 0.1}, "init_param": []}
    values |= {"use_amp": False, "projector_lr_scale": 1.0}
    values |= {"exclude_weight_decay": False, "exclude_weight_decay_conf": {}}
    (optimizer,) = AVSRTask.build_optimizers(Namespace(**{**values, **changes}), model)
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(groups) == len(trained) == sum(len(g["params"]) for g in optimizer.param_groups)
    return {name: groups[id(parameter)] for name, parameter in trained.items()}


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("exclude", [False, True])
def test_projectors_have_their_rate_whether_biases_are_decayed_or_not(
    tiny_lm, tiny_whisper, scale, exclude
):
    model = build(tiny_lm, tiny_whisper)
    found = optimizer_of(model, projector_lr_scale=scale, exclude_weight_decay=exclude)
    assert any(name.startswith("projectors.") and name.endswith("bias") for name in found)
    for name, group in found.items():
        rate = LR * scale if name.startswith("projectors.") else LR
        assert group["lr"] == pytest.approx(rate), name
        module = model.get_submodule(name.rpartition(".")[0])
        undecayed = exclude and (name.endswith("bias") or isinstance(module, torch.nn.LayerNorm))
        assert group["weight_decay"] == (0 if undecayed else 0.1), name


def test_gradients_do_not_vanish_in_float16(tiny_lm, tiny_whisper):
    half = build(tiny_lm, tiny_whisper, lm_dtype="float16")
    with pytest.raises(ValueError, match=r"decoder_conf\.lm_dtype: gradients through float16"):
        optimizer_of(half)
    optimizer_of(half, use_amp=True)
    # What is frozen gets none.
    optimizer_of(build(tiny_lm, tiny_whisper, video_dtype="float16"))
    with pytest.raises(ValueError, match=r"video_encoder_conf\.dtype: gradients"):
        optimizer_of(build(tiny_lm, tiny_whisper, freeze_video=False, video_dtype="float16"))


def test_a_multiple_of_no_rate_is_refused(tiny_lm, tiny_whisper):
    model = build(tiny_lm, tiny_whisper)
    with pytest.raises(
        ValueError, match=r"projector_lr_scale 0\.5 is a multiple of optim_conf\.lr"
    ):
        optimizer_of(model, projector_lr_scale=0.5, optim_conf={})
    optimizer_of(model, projector_lr_scale=1.0, optim_conf={})

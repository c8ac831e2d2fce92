"""The table of parameters against sums over the model's tensors."""

import pytest
from tiny_avsr import build

from mome.analysis.parameters import table


@pytest.mark.parametrize("adapter", ["mome", "lora"])
@pytest.mark.parametrize("freeze_video", [True, False])
def test_parts_sum_to_what_is_there(tiny_lm, tiny_whisper, adapter, freeze_video):
    model = build(
        tiny_lm, tiny_whisper, adapter=adapter, freeze_video=freeze_video, readout_conf={}
    )
    rows = {name: values for name, *values in table(model)}
    trained = {id(p): p.numel() for p in model.parameters() if p.requires_grad}
    frozen = [model.decoder.lm.inner, model.audio_encoder.encoder.inner]
    everything = trained | {id(p): p.numel() for part in frozen for p in part.parameters()}
    if freeze_video:
        everything |= {id(p): p.numel() for p in model.video_encoder.inner.parameters()}
    assert rows["sum"][0] == sum(trained.values())
    assert rows["sum"][2] == sum(everything.values())
    assert rows["readout"] == [32, 32, 32]
    assert all(active <= trained for trained, active, _ in rows.values())
    if adapter == "mome":  # two layers: router 5 x 32, 2 of 5 routed experts and the shared one
        expert = 2 * 3 * 32 + 3 + 32
        assert rows["adapter"][1] == 2 * (5 * 32 + 5 + 3 * expert)

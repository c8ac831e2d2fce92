"""A tiny AVSR model and a batch for it, which several test files share."""

import torch

from mome.common.frozen import Frozen
from mome.encoders.visual import VisualEncoder
from mome.encoders.whisper import WhisperEncoder
from mome.llm.decoder import MoMELLMDecoder
from mome.models.avsr import AVSRModel


def build(
    lm,
    whisper,
    seed=0,
    freeze_video=True,
    adapter="mome",
    lm_dtype="float32",
    video_dtype="float32",
    **options,
) -> AVSRModel:
    torch.manual_seed(seed)
    conf = {"num_routed": 5, "top_k": 2, "bottleneck": 3} if adapter == "mome" else {"rank": 2}
    shape = {"width": 4, "output_size": 16, "layers": 1, "heads": 2}
    video = VisualEncoder(**shape, dropout=0.0, dtype=video_dtype)
    model = AVSRModel(
        decoder=MoMELLMDecoder(lm=lm, lm_dtype=lm_dtype, adapter=adapter, adapter_conf=conf),
        tokenizer=lm,
        audio_encoder=WhisperEncoder(model=whisper),
        video_encoder=Frozen(video) if freeze_video else video,
        **options,
    )
    for layer in getattr(model.decoder.adapter, "layers", []):
        up = layer.up.weight
        # LoRA by rate pair has matrices alone; MoME's biases, which follow them, stay zero.
        torch.nn.init.normal_(up if adapter != "mome" else up[:, : layer.width], std=0.3)
    return model


def utterances(count: int, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    result = []
    for index in range(count):
        frames = 12 + 7 * index
        result.append(
            {
                "speech": 0.1 * torch.randn(frames * 640, generator=generator)
                + 0.3 * torch.sin(torch.arange(frames * 640) * 0.1 * (index + 1)),
                "lips": torch.randn(frames, 88, 88, generator=generator) + 2 * index,
                "text": torch.randint(5, 60, (3 + index,), generator=generator),
            }
        )
    return result


def collate(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    batch = {}
    for key in items[0]:
        values = [item[key] for item in items]
        padding = -1 if key == "text" else 0
        batch[key] = torch.nn.utils.rnn.pad_sequence(values, True, padding)
        batch[f"{key}_lengths"] = torch.tensor([len(value) for value in values])
    return batch

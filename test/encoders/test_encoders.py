"""Encoders: equal to their references, and blind to padding."""

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor, WhisperModel

from mome.common.frozen import Frozen
from mome.encoders.avhubert import AVHubertEncoder
from mome.encoders.visual import VisualEncoder
from mome.encoders.whisper import WhisperEncoder


def speech(seconds: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(int(16000 * seconds), generator=generator)


def test_whisper_with_its_window_equals_transformers(tiny_whisper):
    encoder = WhisperEncoder(model=tiny_whisper, pad_to_30s=True)
    wave = speech(1.7, 0)
    frames, lengths, _ = encoder(wave[None], torch.tensor([len(wave)]))
    extractor = WhisperFeatureExtractor()
    mel = extractor(wave.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    with torch.no_grad():
        expected = WhisperModel.from_pretrained(tiny_whisper).get_encoder()(mel)[0]
    assert lengths.tolist() == [85]
    assert torch.allclose(frames[0], expected[0, :85], atol=1e-3)


@pytest.mark.parametrize("pad_to_30s", [False, True])
def test_whisper_frames_do_not_depend_on_the_batch(tiny_whisper, pad_to_30s):
    encoder = WhisperEncoder(model=tiny_whisper, pad_to_30s=pad_to_30s)
    waves = [speech(1.3, 1), speech(0.61, 2), speech(2.0, 3)]
    lengths = torch.tensor([len(wave) for wave in waves])
    batch = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True, padding_value=7.0)
    frames, olens, _ = encoder(batch, lengths)
    for row, wave in enumerate(waves):
        alone, alone_lens, _ = encoder(wave[None], lengths[row : row + 1])
        assert olens[row] == alone_lens[0]
        assert torch.allclose(frames[row, : olens[row]], alone[0], atol=1e-4)


@pytest.mark.parametrize("seconds", [30.0, 30.01, 61.3])
def test_whisper_reads_long_speech_in_windows(tiny_whisper, seconds):
    encoder = WhisperEncoder(model=tiny_whisper, pad_to_30s=True)
    wave = speech(seconds, 4)
    short = speech(2.0, 5)
    lengths = torch.tensor([len(wave), len(short)])
    batch = torch.nn.utils.rnn.pad_sequence([wave, short], batch_first=True, padding_value=7.0)
    frames, olens, _ = encoder(batch, lengths)
    assert olens.tolist() == [-(-len(wave) // 320), 100]
    extractor = WhisperFeatureExtractor()
    reference = WhisperModel.from_pretrained(tiny_whisper).get_encoder()
    expected = []
    for window in wave.split(30 * 16000):
        mel = extractor(window.numpy(), sampling_rate=16000, return_tensors="pt").input_features
        with torch.no_grad():
            expected.append(reference(mel)[0][0, : -(-len(window) // 320)])
    assert torch.allclose(frames[0], torch.cat(expected), atol=1e-3)
    alone = encoder(short[None], lengths[1:])[0]
    assert torch.allclose(frames[1, :100], alone[0], atol=1e-4)


def test_unpadded_windows_do_not_depend_on_the_batch(tiny_whisper):
    encoder = WhisperEncoder(model=tiny_whisper)
    waves = [speech(31.2, 6), speech(0.61, 7)]
    lengths = torch.tensor([len(wave) for wave in waves])
    batch = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True, padding_value=7.0)
    frames, olens, _ = encoder(batch, lengths)
    for row, wave in enumerate(waves):
        alone = encoder(wave[None], lengths[row : row + 1])[0]
        assert torch.allclose(frames[row, : olens[row]], alone[0], atol=1e-4)


def lips(frames: int, seed: int) -> torch.Tensor:
    return torch.randn(frames, 88, 88, generator=torch.Generator().manual_seed(seed))


def test_visual_encoder_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    encoder = VisualEncoder(width=4, output_size=16, layers=2, heads=2).eval()
    clips = [lips(9, 1), lips(14, 2)]
    lengths = torch.tensor([9, 14])
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    frames, olens, _ = encoder(batch, lengths)
    for row, clip in enumerate(clips):
        alone, _, _ = encoder(clip[None], lengths[row : row + 1])
        assert torch.allclose(frames[row, : olens[row]], alone[0], atol=1e-4)


def test_the_stem_is_a_3d_convolution():
    torch.manual_seed(0)
    encoder = VisualEncoder(width=4, output_size=16, layers=1, heads=2, shrink=1).eval()
    seen = []
    encoder.stem[0].register_forward_hook(lambda _, args, output: seen.append(output))
    clip = lips(9, 1)
    encoder(clip[None], torch.tensor([9]))
    weight = encoder.stem[0].weight[:, None]  # (C, 1, 5, 7, 7)
    expected = torch.nn.functional.conv3d(clip[None, None], weight, None, (1, 2, 2), (2, 3, 3))
    assert torch.allclose(seen[0], expected[0].transpose(0, 1), atol=1e-4)


def test_padding_leaves_no_trace_in_the_batch_statistics():
    statistics = []
    for padding in (0, 6):
        torch.manual_seed(0)
        encoder = VisualEncoder(width=4, output_size=16, layers=1, heads=2).train()
        clip = torch.nn.functional.pad(lips(9, 1), (0, 0, 0, 0, 0, padding))
        encoder(clip[None], torch.tensor([9]))
        norms = [m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        statistics.append(torch.cat([norm.running_mean for norm in norms]))
    assert torch.allclose(*statistics, atol=1e-6)


def test_avhubert_base_reads_lips_alone():
    torch.manual_seed(0)
    encoder = AVHubertEncoder(size="base").eval()
    with torch.no_grad():
        frames, olens, _ = encoder(lips(6, 1)[None], torch.tensor([6]))
    assert frames.shape == (1, 6, 768)
    assert olens.tolist() == [6]
    assert torch.isfinite(frames).all()


def test_missing_weights_are_named(tmp_path):
    for encoder in (VisualEncoder, AVHubertEncoder):
        with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors"):
            encoder(weights=str(tmp_path / "nothing.safetensors"))
    with pytest.raises(ValueError, match="size"):
        AVHubertEncoder(size="huge")


def test_a_frozen_module_is_out_of_reach():
    inner = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5)).to(torch.bfloat16)
    holder = torch.nn.ModuleDict({"frozen": Frozen(inner)}).train().to(torch.float32)
    assert not list(holder.parameters())
    assert not holder.state_dict()
    assert not inner.training
    assert inner[0].weight.dtype == torch.bfloat16
    assert holder["frozen"].num_parameters() == 12
    holder.to("meta")
    assert inner[0].weight.is_meta
    np.testing.assert_equal(inner[0].weight.requires_grad, False)


def test_whisper_s_spectrogram_is_computed_exactly_under_autocast(tiny_whisper):
    encoder = WhisperEncoder(model=tiny_whisper)
    speech = torch.sin(0.3 * torch.arange(8000))[None]  # full scale: powers exceed float16's range
    exact = encoder.log_mel(speech, torch.tensor([8000]), 50)
    with torch.autocast("cpu", torch.float16):
        assert torch.equal(encoder.log_mel(speech, torch.tensor([8000]), 50), exact)

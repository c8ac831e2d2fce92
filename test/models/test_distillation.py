"""Self-distillation between rates, against a loop over tokens in plain Python."""

import math

import pytest
import torch
from tiny_avsr import build, collate, utterances

from mome.analysis.dry_run import llm_flops, step_peak
from mome.models.distillation import fine_to_coarse
from mome.models.rates import RatePair, TaskPair, rate_pairs


def slow_divergence(teacher: list[float], student: list[float]) -> float:
    """KL of two lists of logits, term by term."""
    p = [math.exp(each) / sum(map(math.exp, teacher)) for each in teacher]
    q = [math.exp(each) / sum(map(math.exp, student)) for each in student]
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_divergence_is_that_of_a_loop_over_tokens_and_pairs():
    generator = torch.Generator().manual_seed(0)
    pairs = [TaskPair("avsr", pair) for pair in rate_pairs("avsr", (16, 4), (2, 5))]
    pairs += [TaskPair("vsr", pair) for pair in rate_pairs("vsr", (), (5, 2))]
    pairs += [TaskPair("asr", RatePair(4, None))]  # has nobody to learn from
    logits = [torch.randn(2, 3, 7, generator=generator) for _ in pairs]
    counted = torch.tensor([[True, True, True], [True, False, False]])
    by_pair = {str(each): rows for each, rows in zip(pairs, logits, strict=True)}
    expected = []
    for coarse, fine in (
        *((f"avsr {name}", "avsr a4_v2") for name in ("a4_v5", "a16_v2", "a16_v5")),
        ("vsr v5", "vsr v2"),
    ):
        tokens = zip(
            by_pair[fine][counted].tolist(), by_pair[coarse][counted].tolist(), strict=True
        )
        divergences = [slow_divergence(*each) for each in tokens]
        expected.append(sum(divergences) / 4)
    found = float(fine_to_coarse(logits, pairs, counted))
    assert found == pytest.approx(sum(expected) / len(expected), abs=1e-5)


def test_the_finest_pair_teaches_and_does_not_learn():
    pairs = [TaskPair("avsr", pair) for pair in rate_pairs("avsr", (4, 16), (2,))]
    logits = [torch.randn(1, 2, 5, requires_grad=True) for _ in pairs]
    fine_to_coarse(logits, pairs, torch.ones(1, 2, dtype=torch.bool)).backward()
    assert logits[0].grad is None
    # The gradient of a divergence to the student's logits is the difference of the distributions.
    expected = (logits[1].softmax(-1) - logits[0].softmax(-1)).detach() / 2
    assert torch.allclose(logits[1].grad, expected, atol=1e-6)


def test_the_loss_holds_the_divergence_by_its_weight(tiny_lm, tiny_whisper):
    batch = collate(utterances(2))
    plain = build(tiny_lm, tiny_whisper).eval()
    taught = build(tiny_lm, tiny_whisper, distillation_weight=0.5).eval()
    without, stats = float(plain(**batch)[0].detach()), taught(**batch)[1]
    assert float(stats["distillation"]) > 0
    assert "distillation" not in plain(**batch)[1]
    expected = without + 0.5 * float(stats["distillation"])
    assert float(stats["loss"]) == pytest.approx(expected, abs=1e-5)


def test_a_dry_run_counts_it(tiny_lm, tiny_whisper):
    """Without values, of a pair alone and of a step of all."""
    plain = build(tiny_lm, tiny_whisper)
    taught = build(tiny_lm, tiny_whisper, distillation_weight=1.0)
    pair = taught.task_pairs[-1]
    assert llm_flops(taught.to("meta"), pair, 2.0) == llm_flops(plain.to("meta"), pair, 2.0)
    assert sum(step_peak(taught, 2, 2.0).values()) >= sum(step_peak(plain, 2, 2.0).values())


def test_weights_that_mean_nothing_are_refused(tiny_lm, tiny_whisper):
    with pytest.raises(ValueError, match=r"distillation_weight -1\.0"):
        build(tiny_lm, tiny_whisper, distillation_weight=-1.0)
    with pytest.raises(ValueError, match="needs pairs_per_step above 1"):  # one has no teacher
        build(tiny_lm, tiny_whisper, distillation_weight=1.0, pairs_per_step=1)
    with pytest.raises(ValueError, match="no task has two rate pairs"):
        build(tiny_lm, tiny_whisper, distillation_weight=1.0, audio_rates=(4,), video_rates=(2,))

"""The warm start of the projectors: its loss, what it trains, what it hands over."""

import jiwer
import pytest
import torch
import torch.nn.functional as F
from espnet2.torch_utils.load_pretrained_model import load_pretrained_model
from tiny_avsr import build as build_avsr
from tiny_avsr import collate, utterances

from mome.common.frozen import Frozen
from mome.encoders.visual import VisualEncoder
from mome.encoders.whisper import WhisperEncoder
from mome.llm.decoder import MoMELLMDecoder
from mome.models.projector_ctc import (
    Heard,
    ProjectorCTCModel,
    ctc_loss,
    hear,
    misplaced,
    token_error_rate,
)


def build(lm, whisper, freeze_video=True, **options) -> ProjectorCTCModel:
    torch.manual_seed(0)
    video = VisualEncoder(width=4, output_size=16, layers=1, heads=2, dropout=0.0)
    return ProjectorCTCModel(
        decoder=MoMELLMDecoder(lm=lm, adapter="none"),
        tokenizer=lm,
        audio_encoder=WhisperEncoder(model=whisper),
        video_encoder=Frozen(video) if freeze_video else video,
        readout_conf={"scale": 20.0},
        **options,
    )


def slow_ctc(log_probs: torch.Tensor, labels: list[int]) -> float:
    """Minus log-probability of ``labels``, by the forward algorithm, state by state."""
    states = [0]
    for label in labels:
        states += [label, 0]
    alpha = [float(log_probs[0, s]) if i < 2 else -torch.inf for i, s in enumerate(states)]
    for frame in log_probs[1:]:
        before = torch.tensor(alpha)
        for i, state in enumerate(states):
            ways = [before[i]] + [before[i - 1]] * (i >= 1)
            if i >= 2 and state != 0 and state != states[i - 2]:
                ways.append(before[i - 2])
            alpha[i] = float(torch.logsumexp(torch.stack(ways), 0) + frame[state])
    return -float(torch.logsumexp(torch.tensor(alpha[-2:]), 0))


def test_loss_equals_the_forward_algorithm_utterance_by_utterance(tiny_lm, tiny_whisper):
    model = build(tiny_lm, tiny_whisper).eval()
    items = utterances(3)
    items[2]["text"] = torch.tensor([7, 7, 9])  # a repeated token needs a blank between
    _, stats, _ = model(**collate(items))
    table = torch.cat([model.readout.blank, model.decoder.embeddings.weight])
    for kind, rate in (("audio", 4), ("audio", 16), ("video", 2), ("video", 5)):
        losses, short = [], []
        for item in items:
            batch = collate([item])
            features = model.encode(*[batch[k] for k in batch if "text" not in k])
            tokens, lengths = model.project(features, kind, rate)
            log_probs = (20 * tokens[0] @ table.T).log_softmax(-1).detach()
            loss = slow_ctc(log_probs, (item["text"] + 1).tolist())
            repeats = int((item["text"][1:] == item["text"][:-1]).sum())
            short.append(int(lengths) < len(item["text"]) + repeats)
            assert short[-1] == (loss == torch.inf)
            losses.append(0.0 if short[-1] else loss / len(item["text"]))
        name = f"{kind[0]}{rate}"
        assert float(stats[f"loss_{name}"]) == pytest.approx(sum(losses) / 3, rel=1e-3)
        assert float(stats[f"short_{name}"]) == pytest.approx(sum(short) / 3)


def test_in_silence_a_token_costs_the_penalty_in_training_alone(tiny_lm, tiny_whisper):
    model = build(tiny_lm, tiny_whisper, negatives=0, silence_penalty=3.0).train()
    model.norms.eval()
    items = utterances(3)
    generator = torch.Generator().manual_seed(0)
    plain = collate(items)
    batch = plain | {
        "activity": torch.randint(2, (3, 12), generator=generator),
        "activity_lengths": torch.tensor([12, 12, 12]),
    }
    _, stats, _ = model(**batch)
    ids = plain["text"][plain["text"] >= 0].unique()
    table = torch.cat([model.readout.blank, model.decoder.embeddings.weight[ids]])
    for kind, rate, span in (("audio", 4, 2.0), ("video", 2, 2.0), ("video", 5, 5.0)):
        total = 0.0
        for item, active in zip(items, batch["activity"], strict=True):
            one = collate([item])
            features = model.encode(*[one[k] for k in one if "text" not in k])
            tokens, _ = model.project(features, kind, rate)
            log_probs = (20 * tokens[0] @ table.T).log_softmax(-1).detach()
            for window in range(len(log_probs)):
                if not active[int(window * span) : int((window + 1) * span)].any():
                    log_probs[window, 1:] -= 3.0
            labels = (torch.searchsorted(ids, item["text"]) + 1).tolist()
            loss = slow_ctc(log_probs, labels)
            total += 0.0 if loss == torch.inf else loss / len(labels)
        assert float(stats[f"loss_{kind[0]}{rate}"]) == pytest.approx(total / 3, rel=1e-3)
    model.eval()
    with torch.no_grad():
        assert float(model(**batch)[0]) == pytest.approx(float(model(**plain)[0]))


def test_the_audio_is_heard_where_its_posteriors_are_and_believed_if_they_are_high():
    path = [0, 2, 0, 0, 3, 3, 0, 2]
    log_probs = torch.full((3, 8, 5), 0.05)
    log_probs[:2, range(8), path] = 0.8
    log_probs[1, 4:6] = torch.tensor([0.96, 0.01, 0.01, 0.01, 0.01])  # not sure of one label
    labels = torch.tensor([[2, 3, 2], [2, 3, 2], [2, 3, 2]])
    heard = hear(
        log_probs.log(), torch.tensor([8, 8, 2]), labels, torch.tensor([3, 3, 3]), seconds=0.08
    )
    assert heard.start[0].div(0.08).round().tolist() == [1, 4, 7]
    assert heard.end[0].div(0.08).round().tolist() == [2, 6, 8]
    assert heard.sure.tolist() == [True, False, False]  # the last has too few windows


def test_labels_are_misplaced_where_the_audio_does_not_say_them():
    generator = torch.Generator().manual_seed(0)
    start = 2 * torch.rand(4, 3, generator=generator)
    heard = Heard(start, start + 0.1, torch.tensor([True, True, False, True]))
    labels = torch.tensor([[1, 3, 0], [2, 4, 2], [1, 2, 3], [5, 5, 5]])
    lengths = torch.tensor([2, 3, 3, 3])
    found = misplaced(heard, labels, lengths, windows=12, seconds=0.2, size=7)
    expected = torch.zeros_like(found)
    for row in range(4):
        for window in range(12):
            for label in set(labels[row, : lengths[row]].tolist()) if heard.sure[row] else ():
                expected[row, window, label] = not any(
                    labels[row, place] == label
                    and 0.2 * window < start[row, place] + 0.1 + 0.2
                    and 0.2 * (window + 1) > start[row, place] - 0.2
                    for place in range(lengths[row])
                )
    assert torch.equal(found, expected)
    assert 0 < found.float().mean() < 1


def test_a_misplaced_token_costs_the_lips_the_penalty_in_training(tiny_lm, tiny_whisper):
    model = build(tiny_lm, tiny_whisper, negatives=0, misplaced_penalty=3.0, text_weight=1.0)
    plain = build(tiny_lm, tiny_whisper, negatives=0, text_weight=1.0)
    batch = collate(utterances(3))
    with torch.no_grad():
        for rate in ("audio_4", "audio_16"):  # sure of what it hears: the transcripts' own tokens
            for each in (model, plain):
                each.projectors[rate].layers[-1].weight.zero_()
        sure = plain.train()(**batch)[1]
        assert torch.equal(model.train()(**batch)[1]["loss_v2"], sure["loss_v2"])  # it is not sure
    placed: list[Heard] = []
    model.placed = lambda scores, heard, *_: (placed.append(heard), scores - 1.0)[1]
    with torch.no_grad():
        wanted = model(**batch)[1]
    assert len(placed) == 3  # two rates of the lips and their own softmax
    assert float(wanted["loss_v2"]) > float(sure["loss_v2"])
    assert float(wanted["loss_a4"]) == pytest.approx(float(sure["loss_a4"]))
    model.eval()
    with torch.no_grad():
        model(**batch)
    assert len(placed) == 3


def test_ctc_of_any_scores_has_the_gradient_of_its_loss():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 7, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    penalty = 5.0 * (torch.rand(3, 7, 1, generator=generator) < 0.5).double()
    labels = torch.tensor([[1, 2, 0], [3, 3, 4], [1, 1, 1]])
    sizes = torch.tensor([2, 3, 3])
    lengths = torch.tensor([7, 6, 4])  # the last one's labels need five windows

    def loss(values: torch.Tensor) -> torch.Tensor:
        scores = values.log_softmax(-1) - F.pad(penalty.expand(-1, -1, 4), (1, 0))
        return ctc_loss(scores, lengths, labels, sizes)

    slow = 0.0
    scores = logits.log_softmax(-1) - F.pad(penalty.expand(-1, -1, 4), (1, 0))
    for item in range(2):
        row = scores[item, : lengths[item]].detach()
        slow += slow_ctc(row, labels[item, : sizes[item]].tolist()) / int(sizes[item])
    assert float(loss(logits)) == pytest.approx(slow / 3)
    assert torch.autograd.gradcheck(loss, (logits,))


def test_the_sampled_softmax_holds_the_batch_and_bounds_the_full_one(tiny_lm, tiny_whisper):
    model = build(tiny_lm, tiny_whisper, negatives=20)
    batch = collate(utterances(3))
    ids = model.train().candidates(batch["text"])
    assert set(batch["text"][batch["text"] >= 0].tolist()) <= set(ids.tolist())
    assert ids.tolist() == sorted(set(ids.tolist()))
    assert len(ids) < model.decoder.vocab_size
    for norm in model.norms.values():
        norm.batches = 0
    sampled = model.train()(**batch)[0]
    assert float(sampled) < float(model.eval()(**batch)[0])
    assert len(model.candidates(batch["text"])) == model.decoder.vocab_size


@pytest.mark.parametrize("freeze_video", [True, False])
def test_what_is_learned_is_taken_over(tiny_lm, tiny_whisper, tmp_path, freeze_video):
    model = build(tiny_lm, tiny_whisper, freeze_video, negatives=50).train()
    batch = collate(utterances(3))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    first = float(model.eval()(**batch)[0])
    for _ in range(150):
        optimizer.zero_grad()
        model.train()(**batch)[0].backward()
        optimizer.step()
    parts = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
    assert parts == {"projectors", "readout"} | (set() if freeze_video else {"video_encoder"})
    assert all(p.grad is not None for p in trained)
    stats = model.eval()(**batch)[1]
    assert float(stats["loss"]) < 0.5 * first
    assert float(stats["ter_v2"]) < 50
    torch.save(model.state_dict(), tmp_path / "projectors.pth")
    for tasks in (("avsr",), ("asr",)):
        avsr = build_avsr(tiny_lm, tiny_whisper, seed=3, tasks=tasks, readout_conf={})
        load_pretrained_model(str(tmp_path / "projectors.pth"), avsr, True)
        taken = avsr.state_dict()
        for name in taken:
            if name.split(".")[0] in ("projectors", "readout", "norms"):
                assert torch.equal(taken[name], model.state_dict()[name]), name


def test_units_are_further_targets_of_the_lip_encoder(tiny_lm, tiny_whisper):
    batch = collate(utterances(3))
    lengths = batch["lips_lengths"]
    units = torch.randint(0, 7, (3, int(lengths.max()) + 1))
    given = {"units": units, "units_lengths": lengths + torch.tensor([1, 0, -2])}
    with_units = build(tiny_lm, tiny_whisper, False, units_weight=0.5, num_units=7).eval()
    without = build(tiny_lm, tiny_whisper, False).eval()
    with_units.load_state_dict(without.state_dict(), strict=False)
    loss, stats, _ = with_units(**batch, **given)
    features = with_units.encode(*[batch[k] for k in batch if "text" not in k])
    logits = with_units.units_head(features["video"][0])
    log_probs = logits.log_softmax(-1)
    total = smoothed = right = count = 0
    for row, (frames, known) in enumerate(zip(lengths, given["units_lengths"], strict=True)):
        for t in range(min(int(frames), int(known))):
            row_probs = log_probs[row, t].detach()
            total -= float(row_probs[units[row, t]])
            # Label smoothing of 0.1 spreads a tenth over all units.
            smoothed -= 0.9 * float(row_probs[units[row, t]]) + 0.1 * float(row_probs.mean())
            right += int(row_probs.argmax() == units[row, t])
            count += 1
    assert float(stats["loss_units"]) == pytest.approx(total / count, rel=1e-4)
    assert float(stats["acc_units"]) == pytest.approx(right / count)
    plain = float(without(**batch)[0])
    assert float(loss) == pytest.approx(plain + 0.5 * total / count, rel=1e-4)
    with_units.training = True  # of this module alone: no dropout
    assert float(with_units(**batch, **given)[1]["loss_units"]) == pytest.approx(
        smoothed / count, rel=1e-4
    )
    with pytest.raises(ValueError, match="units_weight needs the units"):
        with_units(**batch)


def test_the_lip_encoder_s_own_softmax_is_plain_ctc_over_the_batch_s_tokens(tiny_lm, tiny_whisper):
    batch = collate(utterances(3))
    model = build(tiny_lm, tiny_whisper, False, text_weight=0.5).eval()
    without = build(tiny_lm, tiny_whisper, False).eval()
    without.load_state_dict(model.state_dict(), strict=False)
    loss, stats, _ = model(**batch)
    frames, lengths = model.encode(*[batch[k] for k in batch if "text" not in k])["video"]
    logits = model.text_head(frames)
    never = torch.ones(logits.shape[-1], dtype=torch.bool)
    never[0] = never[batch["text"][batch["text"] >= 0] + 1] = False
    expected = F.ctc_loss(
        logits.masked_fill(never, -torch.inf).log_softmax(-1).transpose(0, 1),
        batch["text"].clamp(min=0) + 1,
        lengths,
        batch["text_lengths"],
    )
    assert float(stats["loss_text"]) == pytest.approx(float(expected), rel=1e-5)
    assert float(loss) == pytest.approx(float(without(**batch)[0] + 0.5 * expected), rel=1e-5)
    loss.backward()
    assert model.text_head.weight.grad.abs().sum() > 0
    assert next(model.video_encoder.parameters()).grad.abs().sum() > 0


def test_without_a_readout_there_is_nothing_to_train(tiny_lm, tiny_whisper):
    with pytest.raises(ValueError, match="set readout_conf"):
        ProjectorCTCModel(
            decoder=MoMELLMDecoder(lm=tiny_lm, adapter="none"),
            tokenizer=tiny_lm,
            audio_encoder=WhisperEncoder(model=tiny_whisper),
            video_encoder=None,
            tasks=("asr",),
        )


def test_token_error_rate_is_that_of_collapsed_paths():
    paths = torch.tensor([[-1, 5, 5, -1, 5, 6, 9], [4, 4, 4, 4, 4, 4, 4]])
    text = torch.tensor([[5, 5, 6], [4, 8, -1]])
    rate = token_error_rate(paths, torch.tensor([6, 3]), text)
    assert float(rate) == pytest.approx(100 * jiwer.wer(["5 5 6", "4 8"], ["5 5 6", "4"]))
    assert float(rate) == pytest.approx(20.0)

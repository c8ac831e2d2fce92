"""Warm start of the projectors: CTC against the LLM's own token embeddings.

Before a frozen LLM is asked to read speech, each projector is trained by itself to give the
transcript's tokens in order: CTC (Graves et al., ICML 2006) whose output layer is the frozen
embedding table and one embedding for blank. The LLM is not run, so a step costs little more than
the encoders, and each modality and rate is learned alone: video cannot hide what audio should
learn. The LLM then reads these posteriors through
:class:`mome.models.projector.EmbeddingReadout`, and what is left for the adapter is to weigh two
streams and to write down what they say.

The softmax runs over the batch's tokens and a sample of the others, as in Jean et al. (ACL 2015).

CTC begins by spreading the tokens evenly over a clip, and Whisper's frames know of the words before
and behind them. Where a clip begins or ends in silence, a word may so be learned from frames in
which it is not spoken, and stay there: on GRID the training of a projector ended, by the seed, at a
token error rate of 0 or 30 %. Two things keep words where they are heard: a penalty on tokens in
silence (``silence_penalty``), and small tokens at the start (``norm_gain`` of the projectors),
since random tokens of full size prefer some words to others in every frame before anything is
learned.

Lips have the same disease, and there it hides among words: a letter may be learned where the lips
say the digit behind it, which a context of a second tells no better than chance. Sound is learned
sooner and better, so it can show the lips where to look (``misplaced_penalty``), as the teachers of
lip readers do (Afouras et al., "ASR is all you need", ICASSP 2020).
"""

from typing import Any, NamedTuple

import jiwer
import torch
import torch.nn.functional as F
from torch import nn

from mome.common.espnet import force_gatherable
from mome.common.frozen import unwrap
from mome.data.video import LIP_RATE
from mome.models.avsr import AVSRModel
from mome.models.ctc_alignment import align
from mome.models.projector import EmbeddingReadout
from mome.models.video_units import unit_loss

TOLERANCE = 0.2  # seconds by which lips may say a token before or after the sound


class Heard(NamedTuple):
    """Where the audio says the tokens of transcripts.

    Attributes:
        start, end: (B, L) in seconds.
        sure: (B,) where the audio is sure enough to be believed.
    """

    start: torch.Tensor
    end: torch.Tensor
    sure: torch.Tensor


class ProjectorCTCModel(AVSRModel):
    """The front half of :class:`AVSRModel`, trained by CTC at every rate of every modality.

    A video encoder that is not frozen learns too. CTC alone does not teach it: on real lips the
    loss stays where all frames are blank, even from an encoder that was pretrained on units. With
    the units of every frame as further targets it learns within some hundred steps. Nor does CTC
    against fixed embeddings teach it well what tokens with similar embeddings look like, such as
    the letters; CTC with output weights of its own does (``text_weight``). Both heads are left
    behind. The checkpoint initialises an AVSRModel by ESPnet's ``--init_param``.

    Args:
        text_weight: weight of a CTC loss of the video frames, uncompressed, with a softmax layer of
            its own over the tokens; 0 leaves it out.
        units_weight: weight of the cross-entropy of the video frames' acoustic units; 0 leaves it
            out, and the data need no units then.
        num_units: number of units.
        label_smoothing: of the units' cross-entropy in training.
        silence_penalty: what a token costs, in nats, in a window that holds no speech, in training
            and where the batch says which do (``activity`` of the preprocessor); blank costs
            nothing. It is no prohibition: at coarse rates there may be more tokens than windows
            with speech.
        misplaced_penalty: what a token costs the lips, in nats, further than a fifth of a second
            from where the audio says it; in training, and where the audio at its finest rate gives
            the transcript's tokens a mean posterior (geometric) of one half or more.
        negatives: tokens sampled from the vocabulary beside those of the batch, in training;
            validation takes the whole vocabulary.
        **parts: as for AVSRModel; ``readout_conf`` is needed.
    """

    readout: EmbeddingReadout

    def __init__(
        self,
        *,
        negatives: int = 1000,
        text_weight: float = 0.0,
        units_weight: float = 0.0,
        num_units: int = 100,
        label_smoothing: float = 0.1,
        silence_penalty: float = 5.0,
        misplaced_penalty: float = 0.0,
        **parts: Any,
    ):
        super().__init__(**parts)
        self.units_weight = units_weight
        self.label_smoothing = label_smoothing
        self.text_weight = text_weight
        self.silence_penalty = silence_penalty
        self.misplaced_penalty = misplaced_penalty
        self.units_head: nn.Linear | None = None
        self.text_head: nn.Linear | None = None
        if self.video_encoder is not None:
            encoder: Any = unwrap(self.video_encoder)
            width = encoder.output_size()
            if units_weight:
                self.units_head = nn.Linear(width, num_units)
            if text_weight:
                self.text_head = nn.Linear(width, 1 + self.decoder.vocab_size)  # blank comes first
        if self.readout is None:
            raise ValueError("projector_ctc trains what the readout reads: set readout_conf")
        self.negatives = negatives
        self.decoder.markers.requires_grad_(False)

    def candidates(self, text: torch.Tensor) -> torch.Tensor:
        """Sorted token ids (K,) of the softmax: all, or in training those of ``text`` and more."""
        vocabulary = self.decoder.vocab_size
        if not self.training:
            return torch.arange(vocabulary, device=text.device)
        sampled = torch.randint(vocabulary, (self.negatives,), device=text.device)
        return torch.cat([text[text >= 0], sampled]).unique()

    def text_loss(
        self,
        frames: torch.Tensor,
        lengths: torch.Tensor,
        text: torch.Tensor,
        text_lengths: torch.Tensor,
        heard: Heard | None = None,
    ) -> torch.Tensor:
        """CTC of the lip encoder's own softmax layer: frames (B, T, D), text (B, L), lengths (B,).

        It runs over the batch's tokens alone. With others beside them CTC is so large at first that
        it undoes what the encoder knows, and tokens that never occur are not learned either way.
        """
        assert self.text_head is not None
        ids = text[text >= 0].unique()
        rows = F.pad(ids + 1, (1, 0))
        logits = F.linear(frames, self.text_head.weight[rows], self.text_head.bias[rows])
        labels = torch.searchsorted(ids, text.clamp(min=int(ids[0]))) + 1
        scores = logits.log_softmax(-1)
        if heard is not None:
            scores = self.placed(
                scores, heard, labels, text_lengths, self.window_seconds("video", 1)
            )
        return ctc_loss(scores, lengths, labels, text_lengths)

    def placed(
        self,
        scores: torch.Tensor,
        heard: Heard,
        labels: torch.Tensor,
        label_lengths: torch.Tensor,
        seconds: float,
    ) -> torch.Tensor:
        """Scores (B, T, 1 + K) less ``misplaced_penalty`` where the audio does not say a label."""
        wrong = misplaced(heard, labels, label_lengths, scores.shape[1], seconds, scores.shape[2])
        return scores - self.misplaced_penalty * wrong

    def forward(
        self,
        text: torch.Tensor,
        text_lengths: torch.Tensor,
        speech: torch.Tensor | None = None,
        speech_lengths: torch.Tensor | None = None,
        lips: torch.Tensor | None = None,
        lips_lengths: torch.Tensor | None = None,
        units: torch.Tensor | None = None,
        units_lengths: torch.Tensor | None = None,
        activity: torch.Tensor | None = None,
        activity_lengths: torch.Tensor | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """Mean CTC loss per transcript token over modalities and rates, plus those of the heads.

        Utterances with fewer tokens than the transcript needs give no loss; their share is in the
        statistics as ``short_<rate>``. In validation ``ter_<rate>`` is the token error rate (in
        percent) of the best path.

        Args:
            text: (B, L) token ids, padded by -1, with (B,) lengths; the rest as in AVSRModel.
            units: (B, T) acoustic unit of each video frame, with (B,) lengths, for units_weight.
            activity: (B, F) 1 where each 25th of a second holds speech, else 0, with (B,) lengths;
                for silence_penalty, in training.
        """
        features = self.encode(speech, speech_lengths, lips, lips_lengths)
        ids = self.candidates(text)
        embeddings = self.decoder.embed(ids)
        labels = torch.searchsorted(ids, text.clamp(min=0)) + 1
        needed = windows_needed(text, text_lengths)
        losses, stats = [], {}
        heard: Heard | None = None
        for kind, rates in sorted(self.rates.items()):  # audio first
            for rate in sorted(rates):
                name = f"{kind[0]}{rate}"
                tokens, lengths = self.project(features, kind, rate)
                log_probs = self.readout.log_probs(tokens, embeddings)
                scores, seconds = log_probs, self.window_seconds(kind, rate)
                if self.training and activity is not None:
                    spoken = speaks(activity, tokens.shape[1], seconds)
                    penalty = self.silence_penalty * (~spoken)[..., None]
                    scores = torch.cat([log_probs[..., :1], log_probs[..., 1:] - penalty], -1)
                if self.training and self.misplaced_penalty:
                    if kind == "audio" and heard is None:
                        heard = hear(log_probs.detach(), lengths, labels, text_lengths, seconds)
                    elif kind == "video" and heard is not None:
                        scores = self.placed(scores, heard, labels, text_lengths, seconds)
                loss = ctc_loss(scores, lengths, labels, text_lengths)
                losses.append(loss)
                stats[f"loss_{name}"] = loss.detach()
                stats[f"short_{name}"] = (lengths < needed).float().mean()
                if not self.training:
                    best = log_probs.argmax(-1)
                    paths = ids[(best - 1).clamp(min=0)].masked_fill(best == 0, -1)
                    stats[f"ter_{name}"] = token_error_rate(paths, lengths, text)
        loss = torch.stack(losses).mean()
        if self.text_head is not None:
            of_text = self.text_loss(*features["video"], text, text_lengths, heard)
            stats["loss_text"] = of_text.detach()
            loss = loss + self.text_weight * of_text
        if self.units_head is not None:
            if units is None or units_lengths is None:
                raise ValueError("units_weight needs the units of the clips: give --units <folder>")
            frames, lengths = features["video"]
            of_units, stats["acc_units"] = unit_loss(
                self.units_head(frames),
                lengths,
                units,
                units_lengths,
                label_smoothing=self.label_smoothing if self.training else 0.0,
            )
            stats["loss_units"] = of_units.detach()
            loss = loss + self.units_weight * of_units
        stats["loss"] = loss.detach()
        return force_gatherable((loss, stats, len(text)), loss.device)


def ctc_loss(
    scores: torch.Tensor,
    lengths: torch.Tensor,
    labels: torch.Tensor,
    label_lengths: torch.Tensor,
) -> torch.Tensor:
    """CTC of scores that need not be normalised: mean over utterances of the loss a label.

    PyTorch's gradient holds for the outputs of a log_softmax alone. What a window's scores sum to
    is therefore taken out before and put back after.

    Args:
        scores: (B, T, 1 + K), blank first, with (B,) lengths.
        labels: (B, L) from 1, with (B,) lengths.
        label_lengths: as above.

    Returns:
        scalar; utterances whose labels do not fit give 0.
    """
    sums = scores.logsumexp(-1)
    normal = scores - sums[..., None]
    losses = F.ctc_loss(
        normal.transpose(0, 1),
        labels,
        lengths,
        label_lengths,
        reduction="none",
        zero_infinity=True,
    )
    valid = torch.arange(scores.shape[1], device=scores.device) < lengths[:, None]
    fits = lengths >= windows_needed(labels, label_lengths)
    losses = losses - fits * (sums * valid).sum(1)
    return (losses / label_lengths.clamp(min=1)).mean()


def hear(
    log_probs: torch.Tensor,
    lengths: torch.Tensor,
    labels: torch.Tensor,
    label_lengths: torch.Tensor,
    seconds: float,
) -> Heard:
    """Where the audio says the labels (B, L), by log-posteriors (B, T, 1 + K) of its windows."""
    start, end = torch.zeros(2, *labels.shape, device=labels.device)
    sure = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
    for row, (windows, count) in enumerate(
        zip(lengths.tolist(), label_lengths.tolist(), strict=True)
    ):
        aligned = align(log_probs[row, :windows].float(), labels[row, :count].tolist(), seconds)
        if aligned:
            begins, ends, posteriors = torch.tensor(aligned, device=labels.device).unbind(1)
            start[row, :count], end[row, :count] = begins, ends
            sure[row] = posteriors.mean().exp() >= 0.5
    return Heard(start, end, sure)


def misplaced(
    heard: Heard,
    labels: torch.Tensor,
    label_lengths: torch.Tensor,
    windows: int,
    seconds: float,
    size: int,
) -> torch.Tensor:
    """Which labels of a transcript are not said in a window, by an audio that is sure.

    Args:
        heard: where the audio says them.
        labels: (B, L) from 1, with (B,) lengths.
        label_lengths: as above.
        windows: T of the lips, the first beginning at 0.
        seconds: length of one.
        size: 1 + K columns, blank first.

    Returns:
        bool (B, T, 1 + K); False for what the transcript does not hold.
    """
    begin = torch.arange(windows, device=labels.device) * seconds  # (T,)
    near = (begin < heard.end[..., None] + TOLERANCE) & (
        begin + seconds > heard.start[..., None] - TOLERANCE
    )  # (B, L, T)
    said = torch.zeros(len(labels), size, windows, dtype=torch.bool, device=labels.device)
    asked = torch.zeros(len(labels), size, 1, dtype=torch.bool, device=labels.device)
    for place in range(labels.shape[1]):  # a token may be said twice
        rows = (heard.sure & (label_lengths > place)).nonzero()[:, 0]
        columns = labels[rows, place]
        said[rows, columns] |= near[rows, place]
        asked[rows, columns] = True
    return (asked & ~said).transpose(1, 2)


def windows_needed(labels: torch.Tensor, label_lengths: torch.Tensor) -> torch.Tensor:
    """(B,) windows that CTC needs for labels (B, L): one each, and a blank between equal ones."""
    inside = torch.arange(1, labels.shape[1], device=labels.device) < label_lengths[:, None]
    return label_lengths + ((labels[:, 1:] == labels[:, :-1]) & inside).sum(1)


def speaks(activity: torch.Tensor, windows: int, seconds: float) -> torch.Tensor:
    """Which windows hold speech, if only in part.

    Args:
        activity: (B, F) values of :func:`mome.data.activity.speech_activity`, padded by -1.
        windows: number T of windows, the first beginning at 0.
        seconds: length of one.

    Returns:
        bool (B, T).
    """
    counted = F.pad((activity > 0).long().cumsum(1), (1, 0))
    edges = torch.arange(windows + 1, device=activity.device, dtype=torch.float64)
    edges = edges * seconds * LIP_RATE
    # A window may end between two values; rounding errors must not add a value to it.
    first = (edges[:-1] + 1e-6).floor().long().clamp(max=activity.shape[1])
    last = (edges[1:] - 1e-6).ceil().long().clamp(max=activity.shape[1])
    return counted[:, last] > counted[:, first]


def token_error_rate(
    paths: torch.Tensor, lengths: torch.Tensor, text: torch.Tensor
) -> torch.Tensor:
    """Token error rate in percent of CTC paths.

    Args:
        paths: (B, T) token ids with -1 for blank.
        lengths: (B,) valid places.
        text: (B, L) references padded by -1.
    """
    references, hypotheses = [], []
    for path, length, reference in zip(paths, lengths, text, strict=True):
        collapsed = path[:length].unique_consecutive()
        hypotheses.append(" ".join(map(str, collapsed[collapsed >= 0].tolist())))
        references.append(" ".join(map(str, reference[reference >= 0].tolist())))
    return torch.tensor(100 * jiwer.wer(references, hypotheses))

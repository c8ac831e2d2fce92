"""The AVSR model: encoders, compression at every rate, projectors and the adapted LLM."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoTokenizer

from mome.common.distributed import of_first_process
from mome.common.espnet import AbsEncoder, AbsESPnetModel, force_gatherable
from mome.common.frozen import Frozen, unwrap
from mome.llm.decoder import IGNORE, MoMELLMDecoder
from mome.llm.prompt_tree import Node
from mome.models.distillation import fine_to_coarse
from mome.models.matryoshka import check_compression, compress
from mome.models.projector import EmbeddingReadout, FeatureNorm, Projector
from mome.models.rates import AUDIO_RATES, READS, TASKS, VIDEO_RATES, TaskPair, rate_pairs
from mome.pretrained.hub import load

PROMPTS = {
    "asr": "Transcribe speech to text.",
    "vsr": "Transcribe video to text.",
    "avsr": "Transcribe speech and video to text.",
}

PROJECTORS = ("per_rate", "shared")

Features = dict[str, tuple[torch.Tensor, torch.Tensor]]
type Encoder = AbsEncoder | Frozen


class AVSRModel(AbsESPnetModel):
    """Matryoshka audio-visual speech recognition with a frozen, adapted LLM.

    One class serves AVSR, ASR and VSR: ``tasks`` names what one model learns, from
    ``(avsr,)`` for the paper's AVSR model to all three, which then share all weights.

    Args:
        decoder: the adapted LLM.
        tokenizer: hub name or folder of a tokenizer for the prompts; None takes the decoder's.
        audio_encoder: encoder of waveforms (frozen inside), or None for VSR.
        video_encoder: encoder of mouth crops, or None for ASR; wrapped by :class:`Frozen` if it is
            not to be trained.
        tasks: any of avsr, asr, vsr.
        audio_rates: compression rates of audio that are trained.
        video_rates: those of video.
        compression: ``average`` or ``stack``.
        last_window: ``keep`` a last window of fewer frames than the rate, or ``drop`` it.
        projector: ``per_rate`` (one for each rate, as in the predecessors) or ``shared``.
        projector_conf: arguments of :class:`Projector`.
        readout_conf: arguments of :class:`mome.models.projector.EmbeddingReadout`, through which
            the LLM reads the projectors; None gives it their output as it is, as in the paper.
        balance_weight: weight of the load-balancing loss (0.01 in the paper).
        pair_weights: weight c_ij of a rate pair in the loss, by name (``a4_v2``); 1 if not named.
        pairs_per_step: draw so many (task, rate pair) of all for each training batch; None takes
            all, as the paper does. The expected gradient is the same but for distillation's, a
            step is cheaper, and for the same time more utterances are seen. Validation takes all.
        distillation_weight: weight of the divergence of a task's coarser rate pairs from its finest
            (:mod:`mome.models.distillation`), of those that are drawn; 0, as in the paper, is none.

    Attributes:
        pairs: rate pairs of each task.
        rates: compression rates of each modality that is read.

    Raises:
        ValueError: for options that contradict each other, or a task without its encoder.
    """

    def __init__(
        self,
        decoder: MoMELLMDecoder,
        tokenizer: str | None,
        audio_encoder: Encoder | None,
        video_encoder: Encoder | None,
        tasks: Sequence[str] = ("avsr",),
        audio_rates: Sequence[int] = AUDIO_RATES,
        video_rates: Sequence[int] = VIDEO_RATES,
        compression: str = "average",
        last_window: str = "keep",
        projector: str = "per_rate",
        projector_conf: Mapping[str, Any] | None = None,
        readout_conf: Mapping[str, Any] | None = None,
        balance_weight: float = 0.01,
        pair_weights: Mapping[str, float] | None = None,
        pairs_per_step: int | None = None,
        distillation_weight: float = 0.0,
    ):
        super().__init__()
        self.tasks = list(tasks)
        self.pairs = {task: rate_pairs(task, audio_rates, video_rates) for task in self.tasks}
        self.compression = compression
        self.last_window = last_window
        self.per_rate = projector == "per_rate"
        self.balance_weight = balance_weight
        self.pair_weights = dict(pair_weights or {})
        self.pairs_per_step = pairs_per_step
        self.distillation_weight = distillation_weight
        self._check_options(projector)

        self.decoder = decoder
        self._check_adapter_pairs()
        self.tokenizer = load(AutoTokenizer, tokenizer) if tokenizer else decoder.tokenizer
        self.prompt_ids = {
            task: self.tokenizer.encode(PROMPTS[task], add_special_tokens=False)
            for task in self.tasks
        }
        self.audio_encoder = self._needed("audio", audio_encoder)
        self.video_encoder = self._needed("video", video_encoder)
        self.rates: dict[str, list[int]] = {}
        self.norms, self.projectors = nn.ModuleDict(), nn.ModuleDict()
        if self.audio_encoder is not None:
            self._add_modality("audio", self.audio_encoder, audio_rates, projector_conf or {})
        if self.video_encoder is not None:
            self._add_modality("video", self.video_encoder, video_rates, projector_conf or {})
        self.readout = (
            None if readout_conf is None else EmbeddingReadout(decoder.dim, **readout_conf)
        )

    @property
    def task_pairs(self) -> list[TaskPair]:
        """Every task at every rate pair that it is trained at."""
        return [TaskPair(task, pair) for task, pairs in self.pairs.items() for pair in pairs]

    @property
    def main_task(self) -> str:
        """The task that reads the most streams: AVSR, if the model knows it."""
        return max(self.pairs, key=lambda task: len(self.pairs[task][0].rates))

    def _check_options(self, projector: str) -> None:
        """Refuse options that name nothing or contradict each other."""
        task_pairs = self.task_pairs
        if not task_pairs:
            raise ValueError(f"tasks must name at least one of {', '.join(TASKS)}")
        if projector not in PROJECTORS:
            raise ValueError(f"projector {projector!r} must be {' or '.join(PROJECTORS)}")
        if projector == "shared" and self.compression == "stack":
            raise ValueError("stacked tokens differ in width: use projector: per_rate")
        known = {str(pair) for _, pair in task_pairs}
        if not set(self.pair_weights) <= known:
            raise ValueError(f"pair_weights {sorted(self.pair_weights)} must be among {known}")
        check_compression(self.compression, self.last_window)
        drawn = self.pairs_per_step
        if drawn is not None and not 1 <= drawn <= len(task_pairs):
            raise ValueError(f"pairs_per_step {drawn} must lie between 1 and {len(task_pairs)}")
        if self.distillation_weight < 0:
            raise ValueError(f"distillation_weight {self.distillation_weight} must be 0 or more")
        if self.distillation_weight and max(map(len, self.pairs.values())) < 2:
            raise ValueError("distillation_weight: no task has two rate pairs to teach each other")
        if self.distillation_weight and drawn == 1:
            raise ValueError("distillation_weight needs pairs_per_step above 1, or null")

    def _check_adapter_pairs(self) -> None:
        """Refuse an adapter that differs by rate pair and lacks one that is trained."""
        adapter = self.decoder.adapter
        if adapter is None or not adapter.pairs:
            return
        trained = [str(pair) for _, pair in self.task_pairs]
        if missing := [pair for pair in dict.fromkeys(trained) if pair not in adapter.pairs]:
            raise ValueError(
                f"adapter_conf names the rate pairs {', '.join(adapter.pairs)}, but not "
                f"{', '.join(missing)}, which the tasks {', '.join(self.tasks)} train"
            )

    def _needed(self, kind: str, encoder: Encoder | None) -> Encoder | None:
        """The encoder of a modality; None, whatever was given, if no task reads it."""
        if not any(kind in READS[task] for task in self.tasks):
            return None
        if encoder is None:
            raise ValueError(f"tasks {self.tasks} need a {kind} encoder")
        return encoder

    def _add_modality(
        self, kind: str, encoder: Encoder, rates: Sequence[int], conf: Mapping[str, Any]
    ) -> None:
        """Rates, feature normalisation and projectors of ``audio`` or ``video``."""
        inner: Any = unwrap(encoder)  # an AbsEncoder
        width = inner.output_size()
        self.rates[kind] = list(rates)
        self.norms[kind] = FeatureNorm(width)
        for rate in rates if self.per_rate else [1]:
            size = width * rate if self.compression == "stack" else width
            name = f"{kind}_{rate}" if self.per_rate else kind
            self.projectors[name] = Projector(size, self.decoder.dim, **conf)

    def encode(
        self,
        speech: torch.Tensor | None = None,
        speech_lengths: torch.Tensor | None = None,
        lips: torch.Tensor | None = None,
        lips_lengths: torch.Tensor | None = None,
    ) -> Features:
        """Run the encoders once; every rate pair reuses what they give.

        Args:
            speech: (B, N) waveforms at 16 kHz, with (B,) samples.
            lips: (B, T, 88, 88) normalised crops at 25 fps, zero beyond (B,) frames.

        Returns:
            per modality (``audio``, ``video``) standardised frames (B, T, D), float32, and their
            lengths (B,).
        """
        features = {}
        if self.audio_encoder is not None and speech is not None:
            frames, lengths, _ = self.audio_encoder(speech, speech_lengths)
            features["audio"] = self.norms["audio"](frames, lengths), lengths
        if self.video_encoder is not None and lips is not None:
            frozen = isinstance(self.video_encoder, Frozen)
            with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
                frames, lengths, _ = self.video_encoder(lips, lips_lengths)
            features["video"] = self.norms["video"](frames, lengths), lengths
        return features

    def project(
        self, features: Features, kind: str, rate: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compress a modality's frames and project them: (B, T', D) LLM tokens, (B,) lengths.

        Raises:
            ValueError: for a rate that was not trained or a modality that was not given.
        """
        if rate not in self.rates.get(kind, []):
            raise ValueError(
                f"{kind} rate {rate} was not trained; this model knows {self.rates.get(kind, [])}"
            )
        if kind not in features:
            raise ValueError(f"this task reads {kind}, but the batch has none")
        frames, lengths = features[kind]
        tokens, lengths = compress(frames, lengths, rate, self.compression, self.last_window)
        return self.projectors[f"{kind}_{rate}" if self.per_rate else kind](tokens), lengths

    def window_seconds(self, kind: str, rate: int) -> float:
        """Length of the speech that a modality's token stands for at a rate."""
        encoder: Any = unwrap(getattr(self, f"{kind}_encoder"))
        return rate / encoder.frames_per_second

    def llm_tokens(
        self, features: Features, kind: str, rate: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the LLM reads of a modality at a rate: tokens (B, T', D), (B,) lengths.

        They are those of :meth:`project`, which a readout says in the LLM's own embeddings.
        """
        tokens, lengths = self.project(features, kind, rate)
        if self.readout is not None:
            tokens = self.readout(tokens, self.decoder.embeddings)
        return tokens, lengths

    def modality_tree(
        self, features: Features, task_pairs: Sequence[TaskPair]
    ) -> tuple[list[Node], list[int]]:
        """The tree of what is read before the text prompts.

        Args:
            features: of B utterances, see :meth:`encode`.
            task_pairs: tasks at rate pairs; those whose prompts begin alike share these nodes,
                unless the adapter differs by pair.

        Returns:
            nodes, parents before children, and for each of ``task_pairs`` its last node.
        """
        batch = len(next(iter(features.values()))[0])
        by_pair = self.decoder.adapter is not None and self.decoder.adapter.by_pair
        nodes: list[Node] = []
        last: list[int] = []
        place: dict[tuple[int, str, int], int] = {}
        # Video follows audio of every rate: its tokens are the same each time.
        tokens: dict[tuple[str, int], tuple[torch.Tensor, torch.Tensor]] = {}
        for _, pair in task_pairs:
            if by_pair or not nodes:
                nodes.append(self.decoder.root(batch))
                nodes[-1].pair = str(pair) if by_pair else None
            parent = len(nodes) - 1 if by_pair else 0
            for kind, rate in pair.rates.items():
                key = (parent, kind, rate)
                if key not in place:
                    place[key] = len(nodes)
                    if (kind, rate) not in tokens:
                        tokens[kind, rate] = self.llm_tokens(features, kind, rate)
                    nodes.append(self.decoder.marked(kind, *tokens[kind, rate], parent))
                parent = place[key]
            last.append(parent)
        return nodes, last

    def prompts(
        self, features: Features, task_pairs: Sequence[TaskPair]
    ) -> tuple[list[Node], list[int]]:
        """The prompts of tasks at rate pairs, for decoding: their tree and its leaves.

        Raises:
            ValueError: for a task or rate pair that was not trained or a modality not given.
        """
        for task, pair in task_pairs:
            if pair not in self.pairs.get(task, []):
                trained = {t: [str(p) for p in pairs] for t, pairs in self.pairs.items()}
                raise ValueError(
                    f"task {task} at {pair} was not trained; this model knows {trained}"
                )
        nodes, parents = self.modality_tree(features, task_pairs)
        batch = len(nodes[0].embeds)
        leaves = range(len(nodes), len(nodes) + len(parents))
        for (task, _), parent in zip(task_pairs, parents, strict=True):
            nodes.append(self.decoder.text_node(self.prompt_ids[task], batch, parent))
        return nodes, list(leaves)

    def draw(self) -> list[TaskPair]:
        """The (task, rate pair) of this batch: all, or in training ``pairs_per_step`` at random.

        All processes of a training draw the same, as they average the losses of each.
        """
        task_pairs = self.task_pairs
        if not self.training or self.pairs_per_step is None:
            return task_pairs
        order = of_first_process(torch.randperm(len(task_pairs)), self.decoder.markers.device)
        return [task_pairs[index] for index in sorted(order[: self.pairs_per_step].tolist())]

    def forward(
        self,
        text: torch.Tensor,
        text_lengths: torch.Tensor,
        speech: torch.Tensor | None = None,
        speech_lengths: torch.Tensor | None = None,
        lips: torch.Tensor | None = None,
        lips_lengths: torch.Tensor | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """Loss over all tasks and rates of a batch.

        Args:
            text: (B, L) token ids of the transcripts without special tokens, padded by -1.
            text_lengths: (B,).

        Returns:
            loss, statistics per task and rate pair, and their weight for ESPnet's trainer. All are
            means over the batch's target tokens, so their number is the weight: processes of a
            distributed training then get the gradient of the whole batch.
        """
        task_pairs = self.draw()
        if not any(pair.audio for _, pair in task_pairs):
            speech = None
        if not any(pair.video for _, pair in task_pairs):
            lips = None
        features = self.encode(speech, speech_lengths, lips, lips_lengths)
        loss, stats = self.loss(features, text, text_lengths, task_pairs)
        # The transcripts' tokens and an end of sentence each.
        weight = (text_lengths + 1).sum()
        return force_gatherable((loss, stats, weight), loss.device)

    def loss(
        self,
        features: Features,
        text: torch.Tensor,
        text_lengths: torch.Tensor,
        task_pairs: Sequence[TaskPair],
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Weighted mean of the tasks' cross-entropies, plus the balance loss and distillation.

        Args:
            features: of B utterances, see :meth:`encode`.
            text: (B, L) token ids, padded by -1, with (B,) lengths.
            task_pairs: tasks at rate pairs.

        Returns:
            loss and statistics per task and rate pair.
        """
        batch, length = text.shape
        valid = torch.arange(length, device=text.device) < text_lengths[:, None]
        transcript = self.decoder.embed(text.clamp(min=0))
        target = F.pad(text.masked_fill(~valid, IGNORE), (0, 1), value=IGNORE)
        target[torch.arange(batch, device=text.device), text_lengths] = self.decoder.eos_id

        nodes, parents = self.modality_tree(features, task_pairs)
        columns: list[tuple[int, int, int]] = []
        for (task, _), parent in zip(task_pairs, parents, strict=True):
            prompt = self.decoder.text_node(self.prompt_ids[task], batch, parent)
            start = prompt.mask.shape[1] - 1  # this column predicts the transcript's first token
            columns.append((len(nodes), start, start + length + 1))
            embeds = torch.cat([prompt.embeds, transcript], dim=1)
            nodes.append(Node(embeds, torch.cat([prompt.mask, valid], dim=1), parent))

        all_logits, balance = self.decoder.forward_tree(nodes, columns)
        stats: dict[str, torch.Tensor] = {}
        losses, weights = [], []
        for (task, pair), logits in zip(task_pairs, all_logits, strict=True):
            loss = F.cross_entropy(logits.float().transpose(1, 2), target, ignore_index=IGNORE)
            right = (logits.argmax(-1) == target).sum() / (target != IGNORE).sum()
            stats[f"loss_{task}_{pair}"] = loss.detach()
            stats[f"acc_{task}_{pair}"] = right
            losses.append(loss)
            weights.append(self.pair_weights.get(str(pair), 1.0))
        stacked = torch.stack(losses)
        loss = (stacked * stacked.new_tensor(weights)).mean()
        stats["loss_balance"] = balance.detach()
        stats["acc"] = torch.stack([v for k, v in stats.items() if k.startswith("acc_")]).mean()
        loss = loss + self.balance_weight * balance
        if self.distillation_weight:
            divergence = fine_to_coarse(all_logits, task_pairs, target != IGNORE)
            stats["distillation"] = divergence.detach()
            loss = loss + self.distillation_weight * divergence
        stats["loss"] = loss.detach()
        return loss, stats

    def collect_feats(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Nothing to collect: normalisation is fixed by the pretrained encoders."""
        return {}

"""From encoder frames to LLM tokens: standardise the frames, then project what is compressed."""

import torch
import torch.nn.functional as F
from torch import nn

from mome.common.distributed import sum_over_processes


class FeatureNorm(nn.Module):
    """Standardise each channel of an encoder's frames: zero mean, unit variance.

    The channels of Whisper differ tenfold in scale and have means of several standard deviations.
    A projector learns from such input slowly: most of its gradient points along the means. The
    statistics are those of the valid frames of the first training batches and then stay.

    Args:
        size: channels D.
        batches: training batches that the statistics are taken from.
    """

    seen: torch.Tensor
    frames: torch.Tensor
    mean: torch.Tensor
    square: torch.Tensor

    def __init__(self, size: int, batches: int = 50):
        super().__init__()
        self.batches = batches
        self.register_buffer("seen", torch.tensor(0))
        self.register_buffer("frames", torch.tensor(0.0, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("square", torch.ones(size, dtype=torch.float64))

    @torch.no_grad()
    def update(self, frames: torch.Tensor, valid: torch.Tensor) -> None:
        """Take in a batch, of all processes: frames (B, T, D), valid (B, T)."""
        values = frames[valid].double()
        sums = torch.stack([torch.ones_like(values).sum(0), values.sum(0), values.square().sum(0)])
        count, total, squares = sum_over_processes(sums)
        self.seen += 1
        self.frames += count[0]
        share = count / self.frames
        self.mean += share * (total / count - self.mean)
        self.square += share * (squares / count - self.square)

    def forward(self, frames: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(B, T, D) frames of any floating dtype and (B,) lengths -> (B, T, D) float32."""
        if self.training and self.seen < self.batches:
            valid = torch.arange(frames.shape[1], device=frames.device) < lengths[:, None]
            self.update(frames.detach(), valid)
        variance = (self.square - self.mean.square()).clamp(min=1e-6)
        return (frames.float() - self.mean.float()) * variance.rsqrt().float()


class Projector(nn.Module):
    """Linear -> ReLU -> Linear -> LayerNorm, as in Llama-AVSR.

    Args:
        input_size: width of a compressed token (D, or rate * D when frames are stacked).
        output_size: width of the LLM's embeddings.
        hidden_size: width between the two layers; ``output_size`` when None.
        norm_gain: initial gain of the LayerNorm. LLM embeddings are small (about 0.1 a unit for
            SmolLM2); tokens of unit variance would drown the text prompt at the start.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        hidden_size: int | None = None,
        norm_gain: float = 0.1,
    ):
        super().__init__()
        hidden_size = hidden_size or output_size
        norm = nn.LayerNorm(output_size)
        nn.init.constant_(norm.weight, norm_gain)
        self.layers = nn.Sequential(
            nn.Linear(input_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, output_size), norm
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, T, input_size) -> (B, T, output_size), float32."""
        return self.layers(tokens.float())


WINDOWS = 128  # whose products with all embeddings are held at once


class EmbeddingReadout(nn.Module):
    """Say what a projector gives in the LLM's own embeddings, the only tokens a frozen LLM knows.

    A projected token is compared with every input embedding of the LLM and with one for *blank*
    (nothing is said here); what the LLM reads is the mean of these embeddings, weighted by the
    posteriors. This is LegoSLM's bridge from a CTC encoder to an LLM (Ma et al., 2025). A small LLM
    then copies from its input after some fifty steps of training; where free vectors are projected,
    it first has to learn a code that it has never seen.

    Args:
        dim: width of the LLM's embeddings.
        scale: inverse temperature of the products of tokens and embeddings.
        top: likeliest embeddings that the mean is taken of; the rest has no weight worth its cost.
    """

    def __init__(self, dim: int, scale: float = 20.0, top: int = 32):
        super().__init__()
        self.scale = scale
        self.top = top
        self.blank = nn.Parameter(0.1 * torch.randn(1, dim))

    def log_probs(self, tokens: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Log-posteriors (..., 1 + K) of blank and of embeddings (K, D), by tokens (..., D)."""
        return self._products(tokens, embeddings).log_softmax(-1)

    def _products(self, tokens: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Logits (..., 1 + K) of what `log_probs` gives the log-posteriors of."""
        scaled = self.scale * tokens
        # A table of K rows is much larger than its products with the tokens: it is not copied.
        products = F.linear(scaled, self.blank), F.linear(scaled, embeddings.float())
        return torch.cat(products, dim=-1)

    def log_total(self, tokens: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Log of what `log_probs` divides by, (N, 1), for tokens (N, D) and embeddings (K, D).

        A table of 16 bits is neither copied nor multiplied in float32: only the largest terms of
        the sum are. What the others add, which are many and small, is rounded. Some windows at a
        time, as all products of a batch take much memory.
        """
        totals = []
        for scaled in (self.scale * tokens).split(WINDOWS):
            products = F.linear(scaled.to(embeddings.dtype), embeddings)
            near = products.topk(min(self.top, len(embeddings)), dim=-1).indices
            large = (embeddings[near].float() @ scaled[..., None])[..., 0]
            # No term is larger than those, which float16 may not hold.
            bound = large.amax(-1, keepdim=True)
            small = products.scatter_(-1, near, -torch.inf).float().clamp(max=bound)
            small = small.logsumexp(-1, keepdim=True)
            terms = torch.cat([F.linear(scaled, self.blank), large, small], dim=-1)
            totals.append(terms.logsumexp(-1, keepdim=True))
        return torch.cat(totals)

    def log_probs_of(
        self, tokens: torch.Tensor, embeddings: torch.Tensor, total: torch.Tensor
    ) -> torch.Tensor:
        """What `log_probs` gives for blank and some embeddings (L, D) alone: (N, 1 + L).

        Args:
            tokens: (N, D).
            embeddings: (L, D), those that are asked for.
            total: (N, 1) of `log_total` for these tokens and all embeddings.
        """
        return self._products(tokens, embeddings) - total

    def forward(self, tokens: torch.Tensor, embeddings: nn.Embedding) -> torch.Tensor:
        """Read out tokens (B, T, D) through the LLM's embeddings (V, D): (B, T, D).

        The module is asked for what the LLM reads, as some LLMs scale the rows of their table
        there; which rows are nearest does not depend on a scale.
        """
        table = embeddings.weight
        with torch.no_grad():
            near = F.linear(tokens.to(table.dtype), table).topk(min(self.top, len(table)), dim=-1)
        candidates = F.pad(embeddings(near.indices).to(tokens.dtype), (0, 0, 1, 0))
        candidates[..., 0, :] = self.blank
        weights = (candidates @ (self.scale * tokens)[..., None]).softmax(-2)
        return (weights * candidates).sum(-2)

"""How alike the tokens are that the LLM reads of a sentence, across rates and modalities."""

from pathlib import Path

import torch
import torch.nn.functional as F

from mome.analysis.figures import headless_pyplot, save
from mome.models.avsr import AVSRModel, Features

Tokens = dict[str, tuple[torch.Tensor, float]]  # a4, a16, v2, v5 -> tokens (T, D), seconds of each


@torch.inference_mode()
def tokens_of(model: AVSRModel, features: Features) -> Tokens:
    """The tokens of one utterance at every rate of every modality, finest first.

    Args:
        model: the trained model.
        features: of one utterance, see :meth:`AVSRModel.encode`.
    """
    found: Tokens = {}
    for kind, rates in model.rates.items():
        for rate in sorted(rates):
            tokens, lengths = model.llm_tokens(features, kind, rate)
            seconds = model.window_seconds(kind, rate)
            found[f"{kind[0]}{rate}"] = tokens[0, : int(lengths[0])].float().cpu(), seconds
    return found


def similarity(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of each two tokens: (T, D) and (U, D) -> (T, U)."""
    return F.normalize(one, dim=-1) @ F.normalize(other, dim=-1).T


def draw(tokens: Tokens, title: str, output: Path) -> None:
    """A panel for each two streams, over time in seconds: tokens.png and tokens.svg in a folder."""
    names = list(tokens)
    figure, panels = headless_pyplot().subplots(
        len(names),
        len(names),
        figsize=(1.6 * len(names) + 1, 1.6 * len(names)),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    for row, upright in zip(panels, names, strict=True):
        for panel, across in zip(row, names, strict=True):
            (one, height), (other, width) = tokens[upright], tokens[across]
            image = panel.imshow(
                similarity(one, other).numpy(),
                cmap="gray",
                vmin=0,
                vmax=1,
                origin="lower",
                aspect="auto",
                interpolation="nearest",
                extent=(0, len(other) * width, 0, len(one) * height),
            )
            panel.tick_params(labelsize=7)
    for panel, name in zip(panels[-1], names, strict=True):
        panel.set_xlabel(f"{name} (s)", fontsize=8)
    for row, name in zip(panels, names, strict=True):
        row[0].set_ylabel(f"{name} (s)", fontsize=8)
    bar = figure.colorbar(image, ax=panels, shrink=0.5)
    bar.set_label("cosine similarity", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=9)
    save(figure, output / "tokens.png", output / "tokens.svg")

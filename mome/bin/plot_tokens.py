"""Show how alike the tokens are that the LLM reads of a sentence, across rates and modalities.

  mome-plot-tokens --model exp/mome/packed --dump dump --set test --output exp/mome/figures

Writes tokens.png and tokens.svg: a panel for each two streams, such as audio at rate 4 against
video at rate 5, with the cosine similarity of each two of their tokens, over the time of both.
Where rates say the same at the same time, panels have a bright diagonal. The tokens are those that
the LLM gets: after compression, projector and, where the model has one, the readout.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F

from mome.analysis.figures import headless_pyplot, save
from mome.bin.transcribe import add_crop_arguments, open_for_crops
from mome.common.extras import demand_installed
from mome.models.avsr import AVSRModel, Features
from mome.transcribe.measurement import read_clips
from mome.transcribe.transcriber import Transcriber

Tokens = dict[str, tuple[torch.Tensor, float]]  # a4, a16, v2, v5 -> tokens (T, D), seconds of each


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_crop_arguments(parser)
    parser.add_argument("--set", default="test")
    parser.add_argument("--utterance", help="its id; default: the first of the set")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    return parser.parse_args(argv)


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
    """A panel for each two streams, over time in seconds."""
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
    print(output / "tokens.png")


def show(transcribe: Transcriber, data: Path, utterance: str | None, output: Path) -> None:
    """Read a sentence and draw.

    Args:
        transcribe: the model.
        data: folder of the set.
        utterance: its id; None takes the first of the set.
        output: folder of the figure.

    Raises:
        OSError, ValueError: as :func:`mome.transcribe.measurement.read_clips`.
    """
    model = transcribe.model
    clips, texts = read_clips(data, 1, model, [utterance] if utterance else None)
    draw(tokens_of(model, transcribe.encode(clips, model.main_task)), texts[0], output)


def main(argv: list[str] | None = None) -> None:
    """Open the model and show what it reads."""
    args = parse(argv)
    demand_installed("mome-plot-tokens", "matplotlib")
    try:
        show(open_for_crops(args), args.dump / args.set, args.utterance, args.output)
    except (OSError, ValueError) as error:
        raise SystemExit(f"mome-plot-tokens: {error}") from None


if __name__ == "__main__":
    main()

"""Write a page about a trained model that opens from disk: tables, figures and clips to play.

  mome-report --expdir exp/mome --dump dump --output exp/mome/report

Reads what stages 4 to 6 left: the training's log, scores.json and transcripts, the packed model.
Writes <output>/report.html, with everything that it shows inside it, and the figures beside it, as
.png and .svg: WER against tokens and against noise, training curves, the share of each expert in a
layer, and how alike tokens are across rates and modalities. A figure that cannot be drawn is named
in the page and on the screen, with the reason.
"""

import argparse
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from mome.analysis import expert_figure, token_figure
from mome.analysis.conditions import describe_copies, describe_search
from mome.analysis.curves import draw_curves
from mome.analysis.decoded import Scores, decode_folder, rate_order, read_how, scores_by_condition
from mome.analysis.report import Figure, page, read_clips, sets_to_show
from mome.analysis.result_figures import draw_by_rate, draw_by_snr
from mome.analysis.wer import rate_name
from mome.common.command import in_one_line, parser_for
from mome.common.extras import demand_installed
from mome.common.memory import naming_batch
from mome.common.yaml_files import read_yaml
from mome.data import test_sets
from mome.data.kaldi import write_text
from mome.models.rates import TASKS
from mome.tasks.frozen_parts import folders_of
from mome.tasks.packed import opened, read_info
from mome.transcribe.prepared import encoded, open_for_crops


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--expdir", type=Path, required=True, help="folder of the model")
    parser.add_argument("--dump", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--decode_tag", default="", help="of a further decoding of the model")
    parser.add_argument("--test_set", default="test", help="clean set, also of the noisy copies")
    parser.add_argument("--clips", type=int, default=6, help="of the set, in the page")
    parser.add_argument("--max_clips", type=int, default=16, help="whose experts are counted")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--output", type=Path, help="folder; default: <expdir>/report")
    return parser.parse_args(argv)


def draw_figures(args: argparse.Namespace, scores: Scores) -> tuple[list[Figure], list[str]]:
    """Draw what can be drawn; the reasons for the rest, a line each."""
    task = next(task for task in TASKS if any(task == each for each, _, _ in scores))
    pairs = sorted({pair for each, _, pair in scores if each == task}, key=rate_order)
    losses = [f"valid loss_{task}_{pair}" for pair in pairs]
    shown = map(test_sets.parse, sets_to_show(scores, args.test_set))
    noises = [each.noise for each in shown if each.noise]
    data, output = args.dump / args.test_set, args.output
    model = cache(lambda: open_for_crops(of_training(args)))

    def draw_results() -> None:
        draw_by_rate(scores, args.test_set, output)

    def draw_noise() -> None:
        draw_by_snr(scores, args.test_set, noises[0], output)

    def draw_training() -> None:
        draw_curves([args.expdir], [args.expdir.name], losses, output / "training.png")

    def draw_experts() -> None:
        clips = encoded(model(), data, task, args.max_clips)
        expert_figure.show(model().model, clips, task, args.test_set, output)

    def draw_tokens() -> None:
        trained = model().model
        utterances, features, (text,) = next(encoded(model(), data, trained.main_task, 1))
        with naming_batch(utterances):
            tokens = token_figure.tokens_of(trained, features)
        token_figure.draw(tokens, text, output)

    rate = rate_name(scores.values())
    by_tokens = Figure(
        f"{rate} against tokens",
        "Clean test set; the LLM reads fewer tokens at coarser rates.",
        output / "wer_by_rate.png",
    )
    by_noise = Figure(
        f"{rate} against noise",
        "At the finest rates, and at the coarsest.",
        output / "wer_by_snr.png",
    )
    training = Figure(
        "Training",
        f"Loss on the validation set by steps, {task.upper()}, one panel for each rate pair.",
        output / "training.png",
    )
    experts = Figure(
        "Experts",
        "Share of each routed expert in the assignments of a layer, by rate pair and kind of "
        f"token, over {args.max_clips} clips.",
        output / "experts.png",
    )
    tokens = Figure(
        "Tokens",
        "Cosine similarity of the tokens that the LLM reads of one sentence, across rates and "
        "modalities: a for audio, v for video, and the rate.",
        output / "tokens.png",
    )
    figures, missing = [], []
    for program, draw, figure in (
        ("mome-plot-results", draw_results, by_tokens),
        *([("mome-plot-results", draw_noise, by_noise)] if noises else []),
        ("mome-plot-training", draw_training, training),
        ("mome-plot-experts", draw_experts, experts),
        ("mome-plot-tokens", draw_tokens, tokens),
    ):
        try:
            draw()
        except (OSError, ValueError, MemoryError) as error:
            missing.append(f"Not drawn: {figure.title}. {program}: {error}")
        else:
            figures.append(figure)
            print(figure.path)
    for line in missing:
        print(line)
    return figures, missing


def packed_of(args: argparse.Namespace) -> Path:
    """Where the model is packed."""
    return args.expdir / (f"packed_{args.decode_tag}" if args.decode_tag else "packed")


def of_training(args: argparse.Namespace) -> argparse.Namespace:
    """Options of :func:`open_for_crops` for the packed model of a training on this machine.

    It does not tell where its frozen parts are, and may import nothing unasked; the training's
    files say both.
    """
    config = args.expdir / "config.yaml"
    return argparse.Namespace(
        model=packed_of(args),
        device=args.device,
        imports=read_yaml(config).get("imports") or [],
        downloads=folders_of(config),
    )


def describe_decoding(decode: Path, dump: Path, names: Iterable[str]) -> str:
    """How the transcripts were made, from the settings beside the first of them, and of what noise.

    Args:
        decode: folder of the transcripts.
        dump: folder of the test sets.
        names: of the test sets that were decoded.
    """
    path = min(decode.glob("*/*/*/decode.json"))
    settings = read_how(path.parent)["settings"]
    decoded = f"{describe_search(settings)}. Weights: SHA-256 {settings['weights'][:12]}."
    copies = [line.removeprefix("- ").replace("`", "") for line in describe_copies(dump, names)]
    return " ".join([decoded, *copies])


@in_one_line("mome-report")
def main(argv: list[str] | None = None) -> None:
    """Draw the figures, collect clips, write the page."""
    args = parse(argv)
    demand_installed("mome-report", "matplotlib")
    args.output = args.output or args.expdir / "report"
    packed = packed_of(args)
    scores = scores_by_condition(args.expdir, args.decode_tag)
    if not any(name == args.test_set for _, name, _ in scores):
        sets = ", ".join(sorted({name for _, name, _ in scores})) or "nothing"
        raise ValueError(f"{args.test_set} is not decoded, but {sets}; stage 5 does it")
    decode = decode_folder(args.expdir, args.decode_tag)
    clips = read_clips(decode, args.dump, scores, args.test_set, args.clips)
    decoded = describe_decoding(decode, args.dump, [name for _, name, _ in scores])
    about = "The model is not packed; stage 6 does it."
    if packed.exists():
        with opened(packed) as folder:
            about = f"Trained on {read_info(folder, packed)['trained_on']}."
    figures, missing = draw_figures(args, scores)
    html = page(args.expdir.resolve().name, about, decoded, scores, figures, missing, clips)
    write_text(args.output / "report.html", html)
    print(args.output / "report.html")


if __name__ == "__main__":
    main()

"""Write a page about a trained model that opens from disk: tables, figures and clips to play.

  mome-report --expdir exp/mome --dump dump --output exp/mome/report

Reads what stages 4 to 6 left: the training's log, scores.json and transcripts, the packed model.
Writes <output>/report.html, with everything that it shows inside it, and the figures beside it, as
.png and .svg: WER against tokens and against noise, training curves, the share of each expert in a
layer, and how alike tokens are across rates and modalities. A figure that cannot be drawn is named
in the page and on the screen, with the reason.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mome.analysis.conditions import describe_copies
from mome.analysis.decoded import decode_folder, rate_order
from mome.analysis.report import Figure, Scores, page, read_clips, sets_to_show
from mome.bin import plot_experts, plot_results, plot_tokens, plot_training
from mome.common.extras import demand_installed
from mome.common.yaml_files import read_yaml
from mome.data import test_sets
from mome.data.kaldi import write_text
from mome.models.rates import TASKS
from mome.tasks.packed import folders_of, opened, read_info


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    tag = f"_{args.decode_tag}" if args.decode_tag else ""
    packed: list[object] = [
        "--model",
        args.expdir / f"packed{tag}",
        "--dump",
        args.dump,
        "--set",
        args.test_set,
    ]
    # A packed model does not tell where its frozen parts are; the training's files do.
    for folder in folders_of(args.expdir / "config.yaml"):
        packed += ["--downloads", folder]
    for module in read_yaml(args.expdir / "config.yaml").get("imports") or []:
        packed += ["--import", module]
    task = next(task for task in TASKS if any(task == each for each, _, _ in scores))
    pairs = sorted({pair for each, _, pair in scores if each == task}, key=rate_order)
    losses = [f"valid loss_{task}_{pair}" for pair in pairs]
    results: list[object] = ["--expdir", args.expdir, "--decode_tag", args.decode_tag]
    results += ["--test_set", args.test_set]
    wanted: list[tuple[str, str, str, Callable, Sequence[object]]] = [
        (
            "WER against tokens",
            "Clean test set; the LLM reads fewer tokens at coarser rates.",
            "wer_by_rate.png",
            plot_results.main,
            results,
        ),
        (
            "Training",
            f"Loss on the validation set by steps, {task.upper()}, one panel for each rate pair.",
            "training.png",
            plot_training.main,
            ["--expdirs", args.expdir, "--statistics", *losses],
        ),
        (
            "Experts",
            "Share of each routed expert in the assignments of a layer, by rate pair and kind of "
            f"token, over {args.max_clips} clips.",
            "experts.png",
            plot_experts.main,
            [*packed, "--max_clips", args.max_clips, "--task", task, "--device", args.device],
        ),
        (
            "Tokens",
            "Cosine similarity of the tokens that the LLM reads of one sentence, across rates and "
            "modalities: a for audio, v for video, and the rate.",
            "tokens.png",
            plot_tokens.main,
            [*packed, "--device", args.device],
        ),
    ]
    noisy = [test_sets.parse(name).noise for name in sets_to_show(scores, args.test_set)[1:]]
    if noisy:
        title = "WER against noise"
        caption = "At the finest rates, and at the coarsest."
        options = [*results, "--noise", *noisy]
        wanted.insert(1, (title, caption, "wer_by_snr.png", plot_results.main, options))
    figures, missing = [], []
    for title, caption, file, draw, given in wanted:
        # Only plot_training is given the file itself.
        output = args.output / file if draw is plot_training.main else args.output
        try:
            draw([str(option) for option in [*given, "--output", output]])
        except SystemExit as error:
            missing.append(f"Not drawn: {title}. {error}")
            print(missing[-1])
        else:
            figures.append(Figure(title, caption, args.output / file))
    return figures, missing


def describe_decoding(decode: Path, dump: Path, names: Iterable[str]) -> str:
    """How the transcripts were made, from the settings beside the first of them, and of what noise.

    Args:
        decode: folder of the transcripts.
        dump: folder of the test sets.
        names: of the test sets that were decoded.
    """
    path = min(decode.glob("*/*/*/decode.json"))
    settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
    decoded = f"Beam {settings['beam']}. Weights: SHA-256 {settings['weights'][:12]}."
    copies = [line.removeprefix("- ").replace("`", "") for line in describe_copies(dump, names)]
    return " ".join([decoded, *copies])


def main(argv: list[str] | None = None) -> None:
    """Draw the figures, collect clips, write the page."""
    args = parse(argv)
    demand_installed("mome-report", "matplotlib")
    args.output = args.output or args.expdir / "report"
    packed = args.expdir / (f"packed_{args.decode_tag}" if args.decode_tag else "packed")
    try:
        scores = plot_results.read_scores(args.expdir, args.decode_tag)
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
    except (OSError, ValueError) as error:
        raise SystemExit(f"mome-report: {error}") from None
    figures, missing = draw_figures(args, scores)
    html = page(args.expdir.resolve().name, about, decoded, scores, figures, missing, clips)
    write_text(args.output / "report.html", html)
    print(args.output / "report.html")


if __name__ == "__main__":
    main()

"""Show how alike the tokens are that the LLM reads of a sentence, across rates and modalities.

  mome-plot-tokens --model exp/mome/packed --dump dump --set test --output exp/mome/figures

Writes tokens.png and tokens.svg: a panel for each two streams, such as audio at rate 4 against
video at rate 5, with the cosine similarity of each two of their tokens, over the time of both.
Where rates say the same at the same time, panels have a bright diagonal. The tokens are those that
the LLM gets: after compression, projector and, where the model has one, the readout.
"""

import argparse
from pathlib import Path

from mome.analysis.token_figure import draw, tokens_of
from mome.common.command import in_one_line, parser_for
from mome.common.extras import demand_installed
from mome.common.memory import naming_batch
from mome.transcribe.prepared import add_crop_arguments, encoded, open_for_crops


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for(__doc__)
    add_crop_arguments(parser)
    parser.add_argument("--set", default="test", help="default: test")
    parser.add_argument("--utterance", help="its id; default: the first of the set")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    return parser.parse_args(argv)


@in_one_line("mome-plot-tokens")
def main(argv: list[str] | None = None) -> None:
    """Open the model and show what it reads."""
    args = parse(argv)
    demand_installed("mome-plot-tokens", "matplotlib")
    wanted = [args.utterance] if args.utterance else None
    transcribe = open_for_crops(args)
    model = transcribe.model
    remedy = "name a shorter --utterance"
    clips = encoded(transcribe, args.dump / args.set, model.main_task, 1, wanted, remedy)
    utterances, features, (text,) = next(clips)
    with naming_batch(utterances, remedy):
        tokens = tokens_of(model, features)
    draw(tokens, text, args.output)
    print(args.output / "tokens.png")


if __name__ == "__main__":
    main()

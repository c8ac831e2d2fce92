"""Plot a model's word error rates against noise and against compression, from its saved scores.

  mome-plot-results --expdir exp/mome --noise babble --output exp/mome/figures

Reads <expdir>/scores.json and writes wer_by_snr and wer_by_rate, as .png and .svg, with the 95 %
confidence intervals that are in the scores. Without noisy test sets there is no wer_by_snr.
"""

from pathlib import Path

from mome.analysis.decoded import scores_by_condition
from mome.analysis.result_figures import draw_by_rate, draw_by_snr
from mome.common.command import in_one_line, parser_for
from mome.common.extras import demand_installed


@in_one_line("mome-plot-results")
def main(argv: list[str] | None = None) -> None:
    """Draw what the scores allow."""
    parser = parser_for(__doc__)
    parser.add_argument("--expdir", type=Path, required=True, help="folder of the model")
    parser.add_argument("--decode_tag", default="", help="of a further decoding of the model")
    parser.add_argument("--test_set", default="test", help="clean set, also of the noisy copies")
    parser.add_argument("--noise", help="kind of noise; default: no figure by SNR")
    parser.add_argument("--output", type=Path, help="folder; default: <expdir>/figures")
    args = parser.parse_args(argv)
    demand_installed("mome-plot-results", "matplotlib")
    output = args.output or args.expdir / "figures"
    scores = scores_by_condition(args.expdir, args.decode_tag)
    draw_by_rate(scores, args.test_set, output)
    print(output / "wer_by_rate.png")
    if args.noise:
        draw_by_snr(scores, args.test_set, args.noise, output)
        print(output / "wer_by_snr.png")


if __name__ == "__main__":
    main()

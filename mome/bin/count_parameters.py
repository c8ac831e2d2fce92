"""Print trained, active and total parameters of a model by part.

Trained: what the optimiser updates. Active: trained parameters that one token uses at one rate
pair, so of the routed experts only the top-k, and one projector for each modality. Total:
everything that is in memory, frozen parts included.
"""

from pathlib import Path

from mome.analysis import dry_run
from mome.analysis.parameters import in_markdown
from mome.common.command import in_one_line, parser_for
from mome.common.yaml_files import read_yaml
from mome.tasks.checkpoint import check_trained
from mome.tasks.config import namespace


@in_one_line("mome-count-parameters")
def main(argv: list[str] | None = None) -> None:
    """Build the model of a configuration and print its table."""
    parser = parser_for(__doc__)
    parser.add_argument("--config", type=Path, required=True, help="config.yaml of a training")
    args = parser.parse_args(argv)
    check_trained(args.config)
    # Sizes need no values: nothing is read but configurations.
    print("\n".join(in_markdown(dry_run.build(namespace(read_yaml(args.config))))))


if __name__ == "__main__":
    main()

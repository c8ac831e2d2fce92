"""Print trained, active and total parameters of a model by part.

Trained: what the optimiser updates. Active: trained parameters that one token uses at one rate
pair, so of the routed experts only the top-k, and one projector for each modality. Total:
everything that is in memory, frozen parts included.
"""

import argparse
from pathlib import Path

from mome.analysis import dry_run
from mome.analysis.parameters import in_markdown
from mome.common.yaml_files import read_yaml
from mome.tasks.packed import namespace


def main(argv: list[str] | None = None) -> None:
    """Build the model of a configuration and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="config.yaml of a training")
    args = parser.parse_args(argv)
    if not args.config.exists():
        parser.error(f"{args.config} does not exist; train the model first (stage 4)")
    try:
        config = read_yaml(args.config)
    except ValueError as error:
        parser.error(str(error))
    # Sizes need no values: nothing is read but configurations.
    print("\n".join(in_markdown(dry_run.build(namespace(config)))))


if __name__ == "__main__":
    main()

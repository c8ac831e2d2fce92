"""The set that a benchmark reads: its folder, how many utterances, and how many at once."""

import argparse
from pathlib import Path


def add_set_arguments(parser: argparse.ArgumentParser, utterances: int) -> None:
    """Add ``--data``, ``--utterances``, so many by default, and ``--batch_size`` to a parser."""
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("dump/test"),
        help="folder of a set of stage 2; default: %(default)s",
    )
    parser.add_argument(
        "--utterances",
        type=int,
        default=utterances,
        help="of the set, from its first on; default: %(default)s",
    )
    parser.add_argument(
        "--batch_size", type=int, default=16, help="utterances at once; default: %(default)s"
    )

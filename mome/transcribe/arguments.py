"""Options on the command line of programs that load a packed model."""

import argparse
from pathlib import Path

from mome.lips.detectors import DETECTORS


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of programs that read recordings: what finds faces, and the parts of the model."""
    parser.add_argument(
        "--detector",
        choices=DETECTORS,
        help="finds faces, alone; default: the one that cut the lips of the model's training, by "
        "the same landmark model, and where that finds no face, the other, if its model is there. "
        "If another than that of the training is named, transcripts note it",
    )
    add_part_arguments(parser)


def add_part_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of programs that load a packed model: where its parts are, and what it may import."""
    parser.add_argument(
        "--downloads",
        type=Path,
        action="append",
        default=[],
        help="folder with the model's frozen parts and the models that find faces; may be repeated "
        "and is searched before $MOME_DOWNLOADS and ./downloads",
    )
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="module of the model's author that it may import; may be repeated",
    )

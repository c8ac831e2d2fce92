"""The set that a benchmark reads: its folder, how many utterances, and how many at once."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from espnet2.train.dataset import ESPnetDataset

from mome.data.kaldi import read_scp
from mome.tasks.avsr import AVSRTask
from mome.tasks.data_folders import STREAMS


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


def open_set(
    args: argparse.Namespace,
    training: argparse.Namespace,
    streams: Iterable[str] = STREAMS,
    train: bool = False,
) -> tuple[ESPnetDataset, list[str]]:
    """The set as a model takes it, and the first ``--utterances`` of it.

    Args:
        args: of `add_set_arguments`.
        training: the model's configuration.
        streams: what is read.
        train: with the noise and masks of training.
    """
    sources = [(str(args.data / STREAMS[name][0]), name, STREAMS[name][1]) for name in streams]
    dataset = ESPnetDataset(sources, AVSRTask.build_preprocess_fn(training, train=train))
    return dataset, list(read_scp(args.data / "text"))[: args.utterances]

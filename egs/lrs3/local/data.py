#!/usr/bin/env python3
"""LRS3-TED (Afouras et al., 2018) as distributed, to Kaldi data folders.

The corpus is licensed: https://www.robots.ox.ac.uk/~vgg/data/lip_reading/lrs3.html. Its folder
holds pretrain/, trainval/ and test/, each <video id>/<number>.{mp4,txt}. Writes

  train_433h  pretrain/, cut at word boundaries, and trainval/ without valid
  train_30h   trainval/ without valid, the low-resource condition
  valid       clips of trainval/, 1,200 as in AV-HuBERT (Auto-AVSR validates on the test set)
  test        test/
"""

import argparse
import random
from pathlib import Path

from mome.common.command import in_one_line
from mome.common.text_files import read_text
from mome.corpora.lrs import Part, drop_duplicates, find_clips, make_parser, prepare_part, write_set

TEST_CLIPS = 1321  # as published


def hold_out(trainval: Part, args: argparse.Namespace) -> Part:
    """Move the validation clips out of ``trainval``."""
    valid = Part()
    if args.valid_list:
        wanted = set(read_text(args.valid_list).split())
        known = {utterance.clip.name for utterance in trainval.utterances}
        absent = "in --valid_list, but not among the usable clips"
        valid.excluded = [(name, absent) for name in sorted(wanted - known)]
    else:
        names = [utterance.clip.name for utterance in trainval.utterances]
        if args.num_valid >= len(names):
            raise SystemExit(f"--num_valid {args.num_valid}: trainval/ has {len(names)} clips")
        wanted = set(random.Random(args.seed).sample(sorted(names), args.num_valid))
    valid.utterances = [u for u in trainval.utterances if u.clip.name in wanted]
    trainval.utterances = [u for u in trainval.utterances if u.clip.name not in wanted]
    return valid


def prepare(args: argparse.Namespace) -> None:
    """Write all sets."""
    parts = {}
    for name in ("test", "trainval", "pretrain"):
        clips, alone = find_clips(args.corpus, name)
        parts[name] = prepare_part(clips, args, cut=name == "pretrain")
        parts[name].excluded += alone
    drop_duplicates(parts.values())
    valid = hold_out(parts["trainval"], args)
    write_set(args.out / "test", [parts["test"]], args, test_clips=TEST_CLIPS)
    write_set(args.out / "valid", [valid], args)
    write_set(args.out / "train_30h", [parts["trainval"]], args)
    write_set(args.out / "train_433h", [parts["trainval"], parts["pretrain"]], args)


@in_one_line("local/data.py")
def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser, command = make_parser(__doc__, "LRS3")
    command.add_argument("--num_valid", type=int, default=1200, help="clips drawn by --seed")
    command.add_argument(
        "--valid_list",
        type=Path,
        help="or the clips named here, such as trainval/UGtFXtnWME4/50021: the format of"
        " AV-HuBERT's lrs3-valid.id",
    )
    command.add_argument(
        "--seed",
        type=int,
        default=0,
        help="draws the validation clips where --valid_list names none; default: %(default)s",
    )
    prepare(parser.parse_args(argv))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""LRS2-BBC (Afouras et al., 2018) as distributed, to Kaldi data folders.

The corpus is licensed: https://www.robots.ox.ac.uk/~vgg/data/lip_reading/lrs2.html. Its folder
holds mvlrs_v1/main/ and mvlrs_v1/pretrain/, each <programme id>/<number>.{mp4,txt}, and the lists
train.txt, val.txt, test.txt and pretrain.txt, here or in mvlrs_v1/. Writes

  train_224h  pretrain.txt, cut at word boundaries, and train.txt
  train_29h   train.txt alone
  valid       val.txt
  test        test.txt
"""

import argparse
from pathlib import Path

from mome.common.command import in_one_line
from mome.common.text_files import read_text
from mome.corpora.lrs import (
    Clip,
    Part,
    drop_duplicates,
    find_clips,
    make_parser,
    prepare_part,
    write_set,
)

TEST_CLIPS = 1243  # as published
LISTS = {"test": "main", "val": "main", "train": "main", "pretrain": "pretrain"}


def find_list(corpus: Path, name: str) -> Path:
    """A list of the corpus, beside mvlrs_v1/ or in it.

    Raises:
        FileNotFoundError: if it is at neither place.
    """
    places = [corpus / f"{name}.txt", corpus / "mvlrs_v1" / f"{name}.txt"]
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(f"neither {places[0]} nor {places[1]} exists; --lrs2 names the folder")


def select(
    path: Path, clips: dict[str, Clip], alone: dict[str, str]
) -> tuple[list[Clip], list[tuple[str, str]]]:
    """The clips of a list, and its entries that cannot be used with the reason.

    A line names a clip below main/ or pretrain/; marks that follow (NF, MV in test.txt) are
    ignored. ``alone`` says what is wrong with files that lack their counterpart.
    """
    chosen: dict[str, Clip] = {}
    excluded = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        name = line.split()[0]
        entry = f"{path.name}:{number}:{name}"
        if name in chosen:
            excluded.append((entry, "duplicate id (in the list)"))
        elif name not in clips:
            excluded.append((entry, alone.get(name, "list entry without file")))
        else:
            chosen[name] = clips[name]
    return list(chosen.values()), excluded


def prepare(args: argparse.Namespace) -> None:
    """Write all sets."""
    root = args.corpus / "mvlrs_v1"
    root = root if root.is_dir() else args.corpus
    clips, alone = {}, {}
    for folder in ("main", "pretrain"):
        found, odd = find_clips(root, folder)
        clips[folder] = {f"{clip.speaker}/{clip.number}": clip for clip in found}
        alone[folder] = {name.partition("/")[2]: reason for name, reason in odd}
    parts: dict[str, Part] = {}
    listed = set()
    for name, folder in LISTS.items():
        chosen, excluded = select(find_list(args.corpus, name), clips[folder], alone[folder])
        listed |= {clip.name for clip in chosen}
        parts[name] = prepare_part(chosen, args, cut=name == "pretrain")
        parts[name].excluded += excluded
    everything = {clip.name for folder in clips.values() for clip in folder.values()}
    print(f"{root}: {len(everything - listed)} clips are in no list and therefore left out")
    drop_duplicates(parts.values())
    write_set(args.out / "test", [parts["test"]], args, test_clips=TEST_CLIPS)
    write_set(args.out / "valid", [parts["val"]], args)
    write_set(args.out / "train_29h", [parts["train"]], args)
    write_set(args.out / "train_224h", [parts["train"], parts["pretrain"]], args)


@in_one_line("local/data.py")
def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser, _ = make_parser(__doc__, "LRS2")
    prepare(parser.parse_args(argv))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""CORPUS: what it is, where it comes from, its licence, how its files are laid out."""

import argparse
import re
from pathlib import Path

from mome.common.processes import map_items
from mome.common.text_files import read_text
from mome.data.kaldi import spk2utt_of, write_scp

SETS = ("train", "valid", "test")


def words_of(video: Path) -> str:
    """What is said in a clip."""
    return " ".join(read_text(video.with_suffix(".txt")).split())


def utterances(corpus: Path, name: str, nj: int) -> dict[str, tuple[str, Path, str]]:
    """The utterances of a set: id -> speaker, video, words.

    This reads <corpus>/<set>/<speaker>/<clip>.mp4 with the words in <clip>.txt; write here what
    your corpus needs. Ids begin with the speaker. A hyphen after it sorts before letters and
    digits, so that s1 comes before s10 with and without it, as Kaldi's tables demand.
    """
    found = {}
    clips = sorted((corpus / name).glob("*/*"))
    videos = [path for path in clips if path.suffix.lower() == ".mp4"]
    for video, words in zip(videos, map_items(words_of, videos, nj, name), strict=True):
        speaker, clip = (re.sub(r"\s+", "_", part) for part in (video.parent.name, video.stem))
        found[f"{speaker}-{clip}"] = (speaker, video, words)
    return found


def prepare(corpus: Path, out: Path, nj: int) -> None:
    """Write the data folders."""
    for name in SETS:
        table = utterances(corpus, name, nj)
        if not table:
            raise SystemExit(f"{corpus / name}: no clips")
        speakers = {utterance: speaker for utterance, (speaker, _, _) in table.items()}
        write_scp(out / name / "video.scp", {u: video for u, (_, video, _) in table.items()})
        write_scp(out / name / "text", {u: words for u, (_, _, words) in table.items()})
        write_scp(out / name / "utt2spk", speakers)
        write_scp(out / name / "spk2utt", spk2utt_of(speakers))
        print(f"{out / name}: {len(table)} utterances, {len(set(speakers.values()))} speakers")


def main() -> None:
    """Command line; see egs/TEMPLATE/README.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("prepare", help="write Kaldi data folders")
    command.add_argument("--corpus", type=Path, required=True)
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--nj", type=int, default=1, help="processes")
    args = parser.parse_args()
    prepare(args.corpus, args.out, args.nj)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""CORPUS: what it is, where it comes from, its licence, how its files are laid out."""

import argparse
import re
from pathlib import Path

from mome.common.command import in_one_line
from mome.common.processes import map_items
from mome.common.text_files import read_text
from mome.data.exclusions import leave_out
from mome.data.kaldi import flaw_of_name, spk2utt_of, write_scp
from mome.data.text import normalise

SETS = ("train", "valid", "test")


def read_words(video: Path) -> tuple[str, str]:
    """What is said in a clip, and why it cannot be used; one of them is empty."""
    named = [video.with_suffix(suffix) for suffix in (".txt", ".TXT")]
    texts = [path for path in named if path.is_file()]
    if not texts:
        return "", f"{named[0]} does not exist"
    text = texts[0]
    # Where names differ in more than their case, these are one file.
    if len(texts) > 1 and not texts[0].samefile(texts[1]):
        return "", f"{text}: its text is there twice; remove one of them"
    try:
        words = " ".join(read_text(text).split())
    except (OSError, ValueError) as error:
        return "", f"{text}: {error}" if isinstance(error, OSError) else str(error)
    # Of punctuation alone, as "...", scoring would keep nothing.
    return words, "" if normalise(words) else f"{text}: no words"


def utterances(
    corpus: Path, name: str, nj: int
) -> tuple[dict[str, tuple[str, Path, str]], list[tuple[str, str]]]:
    """The utterances of a set, id -> speaker, video, words; others with the reason.

    This reads <corpus>/<set>/<speaker>/<clip>.mp4 with the words in <clip>.txt; write here what
    your corpus needs. Ids begin with the speaker. A hyphen after it sorts before all that speakers
    are called here, so that s1 comes before s10 with and without it, as Kaldi's tables demand;
    hyphens, blanks and other signs that sort before it become _ in the name of a speaker.
    """
    found: dict[str, tuple[str, Path, str]] = {}
    excluded = []
    folders: dict[str, Path] = {}
    files = sorted((corpus / name).glob("*/*"))
    videos = [path for path in files if path.suffix.lower() == ".mp4"]
    for video, (words, reason) in zip(videos, map_items(read_words, videos, nj, name), strict=True):
        speaker = re.sub(r"[\s!-\-]+", "_", video.parent.name)
        utterance = f"{speaker}-{re.sub(r'\s+', '_', video.stem)}"
        folder = folders.setdefault(speaker, video.parent)
        if flaw := flaw_of_name(str(video)):
            reason = f"{video}: its name {flaw}; rename it"
        elif not reason and folder != video.parent:
            reason = f"{video}: its speaker is called {speaker}, as that of {folder}; rename one"
        elif not reason and utterance in found:
            reason = f"{video}: its id is that of {found[utterance][1]}; rename one of them"
        if reason:
            excluded.append((utterance, reason))
        else:
            found[utterance] = (speaker, video, words)
    stems = {video.with_suffix("") for video in videos}
    texts = [path for path in files if path.suffix.lower() == ".txt"]
    alone = [path for path in texts if path.with_suffix("") not in stems]
    excluded += [(path.stem.replace(" ", "_"), f"{path}: no video beside it") for path in alone]
    return found, excluded


def prepare(args: argparse.Namespace) -> None:
    """Write the data folders."""
    for name in SETS:
        folder = args.out / name
        table, excluded = utterances(args.corpus, name, args.nj)
        if not table and not excluded:
            raise SystemExit(
                f"{args.corpus / name}: no clips; the folder that --corpus names has them as"
                f" {name}/<speaker>/<clip>.mp4, with <clip>.txt beside them"
            )
        limit = args.test_max_excluded if name == "test" else args.max_excluded
        leave_out(folder, excluded, len(table), limit, test=name == "test")
        speakers = {utterance: speaker for utterance, (speaker, _, _) in table.items()}
        write_scp(folder / "video.scp", {u: video for u, (_, video, _) in table.items()})
        write_scp(folder / "text", {u: words for u, (_, _, words) in table.items()})
        write_scp(folder / "utt2spk", speakers)
        write_scp(folder / "spk2utt", spk2utt_of(speakers))


@in_one_line("local/data.py")
def main() -> None:
    """Command line; see egs/TEMPLATE/README.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("prepare", help="write Kaldi data folders")
    command.add_argument(
        "--corpus", type=Path, required=True, help="folder of the corpus, as --corpus of run.sh"
    )
    command.add_argument("--out", type=Path, required=True, help="folder for train, valid and test")
    command.add_argument("--nj", type=int, default=1, help="processes")
    command.add_argument("--max_excluded", type=float, default=0.1, help="share of a set")
    command.add_argument(
        "--test_max_excluded", type=float, default=0.0, help="the same of the test set"
    )
    prepare(parser.parse_args())


if __name__ == "__main__":
    main()

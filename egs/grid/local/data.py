#!/usr/bin/env python3
"""GRID, an audio-visual corpus of simple sentences (M. Cooke, J. Barker, S. Cunningham, X. Shao,
JASA 120, 2006): https://zenodo.org/records/3625687, CC BY 4.0.

34 speakers say 1,000 sentences each, such as "bin blue at f two now"; of s21 there is no video.
A clip is <corpus>/s<N>/<code>.mpg: 3 s, 25 frames/s, 360x288, with its sound. The code spells the
sentence, one character a word. It is read in place of Zenodo's word alignments, many of which lie
in the folder of another speaker, and the clip's own sound in place of audio_25k.zip, which is cut
to the speech and so not synchronous with the video.
"""

import argparse
import json
import random
import re
import urllib.request
import zipfile
from functools import partial
from pathlib import Path

from mome.common.atomic_files import replacing
from mome.common.command import in_one_line
from mome.common.download import download as download_file
from mome.common.processes import map_items
from mome.data.exclusions import leave_out
from mome.data.kaldi import spk2utt_of, write_scp

RECORD = "https://zenodo.org/api/records/3625687"
SPEAKERS = [number for number in range(1, 35) if number != 21]
SENTENCES = 1000  # of each speaker
SETS = ("train", "valid", "test")
UNSEEN = (1, 2, 20, 22)  # tested by LipNet (Assael et al., 2016) and its successors
OVERLAPPED = 255  # sentences of each speaker that LipNet tests where speakers are known
WORDS = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"},
    dict(
        zip("z123456789", "zero one two three four five six seven eight nine".split(), strict=True)
    ),
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)


def sentence(code: str) -> str:
    """The words that a clip's name spells: ``bbaf2n`` is "bin blue at f two now".

    Raises:
        ValueError: for a name that spells no sentence.
    """
    if len(code) != len(WORDS) or any(c not in words for c, words in zip(code, WORDS, strict=True)):
        raise ValueError(f"{code!r} spells no sentence of GRID")
    return " ".join(words[c] for c, words in zip(code, WORDS, strict=True))


def fetch_speaker(file: dict, out: Path) -> int:
    """Download and unpack the clips of a speaker unless they are there; returns their number.

    Args:
        file: an entry of the record: key, size, checksum and links.
        out: the corpus.
    """
    folder = out / file["key"].removesuffix(".zip")
    if not folder.is_dir():
        archive = out / file["key"]
        download_file([file["links"]["self"]], archive, file["checksum"], file["size"])
        with replacing(folder) as partial, zipfile.ZipFile(archive) as contents:
            partial.mkdir()
            for name in contents.namelist():
                # Besides, there are __MACOSX/ and the like.
                if re.fullmatch(rf"{folder.name}/\w+\.mpg", name):
                    (partial / Path(name).name).write_bytes(contents.read(name))
        archive.unlink()
    return sum(1 for _ in folder.glob("*.mpg"))


def download(args: argparse.Namespace) -> None:
    """Fetch the speakers that are not there, by what Zenodo's record says of their files."""
    if all((args.out / f"s{number}").is_dir() for number in args.speakers):
        return
    args.out.mkdir(parents=True, exist_ok=True)
    with urllib.request.urlopen(args.record, timeout=60) as response:
        files = {file["key"]: file for file in json.load(response)["files"]}
    wanted = [f"s{number}.zip" for number in args.speakers]
    if missing := [name for name in wanted if name not in files]:
        raise SystemExit(f"{args.record} has no {', '.join(missing)}; it has {', '.join(files)}")
    fetch = partial(fetch_speaker, out=args.out)
    # Zenodo slows down who asks for much at once.
    counts = map_items(fetch, [files[name] for name in wanted], min(args.nj, 4), "download")
    print(f"{args.out}: {sum(counts)} clips of {len(counts)} speakers")


def split_of(codes: list[str], speaker: int, args: argparse.Namespace) -> dict[str, str]:
    """The set of each clip of a speaker: code -> train, valid or test."""
    if args.split == "unseen" and speaker in UNSEEN:
        return dict.fromkeys(codes, "test")
    shuffled = random.Random(f"{args.seed} {speaker}").sample(codes, len(codes))
    num_test = args.num_test if args.split == "overlapped" else 0
    if num_test + args.num_valid >= len(codes):
        raise SystemExit(f"{args.corpus}/s{speaker}: {len(codes)} clips leave none for training")
    names = ["test"] * num_test + ["valid"] * args.num_valid
    return dict(zip(shuffled, names + ["train"] * (len(codes) - len(names)), strict=True))


def find_speakers(args: argparse.Namespace) -> tuple[list[int], list[int]]:
    """Numbers of the speakers whose clips are there, and of those whose folder is missing.

    Raises:
        SystemExit: if one is missing that was asked for by name.
    """
    wanted = sorted(set(args.speakers or SPEAKERS))
    found = [number for number in wanted if (args.corpus / f"s{number}").is_dir()]
    missing = [number for number in wanted if number not in found]
    names = ", ".join(f"s{number}" for number in missing)
    if missing and args.speakers:
        raise SystemExit(f"{args.corpus} has no {names}: --speakers of stage 0 fetches them")
    if missing:
        print(f"{args.corpus}: {len(missing)} speakers are not there: {names}")
    return found, missing


def prepare(args: argparse.Namespace) -> None:
    """Write the data folders train, valid and test."""
    tables: dict[str, dict[str, dict[str, str]]] = {}
    excluded: dict[str, list[tuple[str, str]]] = {name: [] for name in SETS}
    found, missing = find_speakers(args)
    if args.split == "unseen":
        # A test set without one of its speakers is another one: its clips are listed as left out.
        for number in set(missing) & set(UNSEEN):
            reason = f"{args.corpus}/s{number}: is not there; fetch it, or choose by --speakers"
            names = (f"s{number:02d}_{clip:04d}" for clip in range(1, SENTENCES + 1))
            excluded["test"] += [(name, reason) for name in names]
    for number in found:
        folder = args.corpus / f"s{number}"
        speaker = f"s{number:02d}"  # equally long, so that speakers and utterances sort alike
        words: dict[str, str] = {}
        clips: dict[str, Path] = {}
        # Copies by other systems have names in capitals.
        for path in sorted(path for path in folder.glob("*") if path.suffix.lower() == ".mpg"):
            code = path.stem.lower()
            try:
                if code in clips:
                    raise ValueError(
                        f"two files for one ({clips[code]}); remove or rename one of them"
                    )
                words[code] = sentence(code)
                clips[code] = path
            except ValueError as error:
                tested = args.split == "unseen" and number in UNSEEN
                name = f"{speaker}_{path.stem}".replace(" ", "_")
                excluded["test" if tested else "train"].append((name, f"{path}: {error}"))
        for code, name in split_of(sorted(words), number, args).items():
            row = {
                "video.scp": str(clips[code]),
                "text": words[code],
                "utt2spk": speaker,
            }
            for file, value in row.items():
                tables.setdefault(name, {}).setdefault(file, {})[f"{speaker}_{code}"] = value
    for name in SETS:
        if name not in tables:
            raise SystemExit(f"{args.corpus}: no clips for {name}; run stage 0 to fetch speakers")
        limit = args.test_max_excluded if name == "test" else 1.0
        count = len(tables[name]["text"])
        leave_out(args.out / name, excluded[name], count, limit, test=name == "test")
        for file, table in tables[name].items():
            write_scp(args.out / name / file, table)
        write_scp(args.out / name / "spk2utt", spk2utt_of(tables[name]["utt2spk"]))


@in_one_line("local/data.py")
def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("download", help="fetch the corpus")
    first.add_argument("--out", type=Path, required=True, help="folder of the corpus")
    first.add_argument("--record", default=RECORD, help="URL of Zenodo's record, as JSON")
    first.add_argument(
        "--speakers",
        type=int,
        nargs="+",
        choices=SPEAKERS,
        default=SPEAKERS,
        help="numbers of those that are fetched; default: all",
    )
    first.add_argument("--nj", type=int, default=1, help="files at a time")
    second = commands.add_parser("prepare", help="write Kaldi data folders")
    second.add_argument("--corpus", type=Path, required=True, help="folder with s1/*.mpg and so on")
    second.add_argument("--out", type=Path, required=True, help="folder for train, valid and test")
    second.add_argument(
        "--speakers",
        type=int,
        nargs="+",
        choices=SPEAKERS,
        help="numbers of those that are prepared, whoever else is there; default: all",
    )
    second.add_argument(
        "--split",
        choices=("unseen", "overlapped"),
        default="unseen",
        help="unseen: four speakers are tested whom training does not have; overlapped: other "
        "sentences of every speaker; default: %(default)s",
    )
    second.add_argument("--num_test", type=int, default=OVERLAPPED, help="a speaker, if overlapped")
    second.add_argument("--num_valid", type=int, default=20, help="a speaker of training")
    second.add_argument(
        "--seed",
        type=int,
        default=0,
        help="draws the sets of a speaker's clips; default: %(default)s",
    )
    second.add_argument(
        "--test_max_excluded", type=float, default=0.0, help="share of the test set left out"
    )
    second.add_argument(
        "--nj", type=int, default=1, help="as of every recipe; names are read in one process"
    )
    args = parser.parse_args(argv)
    {"download": download, "prepare": prepare}[args.command](args)


if __name__ == "__main__":
    main()

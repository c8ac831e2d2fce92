"""What LRS2 and LRS3 have in common: text files, segments at word boundaries, Kaldi data folders.

Both corpora hold ``<part>/<speaker>/<number>.mp4`` with ``<number>.txt`` beside it::

    Text:  SO {NS} WHAT IS IT
    Conf:  4

    WORD START END ASDSCORE
    SO 0.11 0.28 6.3
    ...

The timings, in seconds, are there in pretrain/ at least; LRS3 has lines ``Ref:`` and
``FRAME X Y W H`` besides. A clip of pretrain/ may last minutes and is cut into segments; all others
are sentences and stay whole. Where Auto-AVSR (Ma et al., 2023), whose preparation the MoME paper
uses, and AV-HuBERT (Shi et al., 2022) differ, an option says which way is taken.
"""

import argparse
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

from mome.common.processes import default_jobs, map_items
from mome.common.text_files import read_text as read_plain
from mome.data.exclusions import OFFICIAL_SIZE, leave_out
from mome.data.kaldi import flaw_of_name, spk2utt_of, without_blanks, write_scp, write_text
from mome.data.text import lowered, normalise
from mome.data.video import LIP_RATE, reason_of, video_info

TIMINGS = "WORD START END ASDSCORE"
PAUSE = 0.4  # s between words, at which AV-HuBERT cuts
WHOLE = 15.0  # s: it does not cut a recording whose last word ends before
TOLERANCE = 0.2  # s that words may lie beyond the end of their recording
MARK = re.compile(r"\{[^{}]*\}|\[[^\[\]]*\]|<[^<>]*>")
BRACKETS = str.maketrans("", "", "{}[]<>")


@dataclass(frozen=True)
class Word:
    """A word of a text file, with its times in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Chunk:
    """Consecutive words, and where they are cut from the recording, in seconds."""

    words: tuple[Word, ...]
    start: float
    end: float


@dataclass(frozen=True)
class Clip:
    """A video, ``<root>/<part>/<speaker>/<number>``, and its text file, if it is not ``.txt``."""

    part: str
    speaker: str
    number: str
    video: Path
    text: Path | None = None

    @property
    def name(self) -> str:
        """As the corpora's lists name it, below the corpus."""
        return f"{self.part}/{self.speaker}/{self.number}"


@dataclass(frozen=True)
class Utterance:
    """A row of a data folder. ``start`` and ``end`` are in seconds; a whole clip has no end."""

    id: str
    clip: Clip
    text: str
    start: float
    end: float
    whole: bool


@dataclass
class Part:
    """Utterances of a part of the corpus, excluded clips with their reasons, and notes."""

    utterances: list[Utterance] = field(default_factory=list)
    excluded: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def normalise_text(text: str, marks: str = "drop") -> str:
    """Lower-case words, apostrophes kept, separated by single blanks.

    Args:
        text: transcript of the corpora, in upper case, without punctuation.
        marks: what becomes of ``{NS}``, ``{LG}`` (noise, laughter) and other words in brackets:
            ``drop`` them; ``keep`` the word without its brackets.
    """
    text = MARK.sub(" ", text) if marks == "drop" else text
    return " ".join(lowered(text.translate(BRACKETS)).replace("’", "'").split())


def read_text(path: Path) -> str:
    """The transcript after ``Text:``.

    Raises:
        ValueError: for an empty file or one without such a line.
    """
    lines = _read_lines(path)
    for line in lines:
        if line.startswith("Text:"):
            return line.removeprefix("Text:").strip()
    raise ValueError(f"{path}: {'no line Text:' if lines else 'empty txt'}")


def read_words(path: Path) -> list[Word]:
    """The word timings of a file; empty if it has none.

    Raises:
        ValueError: for a line that is not a word with its times, or times that go backwards.
    """
    lines = _read_lines(path)
    headers = [number for number, line in enumerate(lines) if line.split() == TIMINGS.split()]
    words: list[Word] = []
    earliest = Word("", 0.0, 0.0)
    for number in range(headers[0] + 1 if headers else len(lines), len(lines)):
        if not lines[number].strip():
            break
        try:
            text, start, end, *_ = lines[number].split()
            word = Word(text, float(start), float(end))
        except ValueError:
            raise ValueError(f"{path}: no word with its times (line {number + 1})") from None
        if not (earliest.start <= word.start <= word.end and earliest.end <= word.end):
            raise ValueError(f"{path}: word times go backwards (line {number + 1})")
        words.append(word)
        earliest = word
    return words


def _read_lines(path: Path) -> list[str]:
    return read_plain(path, otherwise="latin-1").splitlines()


def segment_words(
    words: Sequence[Word], duration: float, max_seconds: float, split: str = "length"
) -> list[Chunk]:
    """Cut a recording at word boundaries, with the places of segments that crops are named by.

    Args:
        words: in order, one at least.
        duration: of the recording, in seconds.
        max_seconds: length of a segment that ``length`` fills.
        split: ``length``: as many words to a segment as fit, from the first word's start to the
            last one's end, the first segment from the recording's start (Auto-AVSR). ``pause``: in
            the middle of each pause of more than 0.4 s, unless the last word ends before 15 s, and
            nowhere else (AV-HuBERT).

    Returns:
        segments, of which some may be longer than ``max_seconds``: of a word that is, or without a
        pause. One without words has a number and nothing else.
    """
    if split == "pause":
        return _split_at_pauses(words, duration)
    groups: list[list[Word]] = [[]]
    begin = 0.0
    for word in words:
        if word.end >= begin + max_seconds:
            groups.append([])
            begin = word.start
        groups[-1].append(word)
    if len(groups) == 1:
        return [Chunk(tuple(words), 0.0, min(duration, max_seconds))]
    starts = [0.0, *(group[0].start for group in groups[1:])]
    ends = [group[-1].end if group else 0.0 for group in groups]
    return [Chunk(tuple(g), a, b) for g, a, b in zip(groups, starts, ends, strict=True)]


def _split_at_pauses(words: Sequence[Word], duration: float) -> list[Chunk]:
    groups: list[list[Word]] = [[words[0]]]
    for previous, word in pairwise(words):
        if words[-1].end >= WHOLE and word.start - previous.end > PAUSE:
            groups.append([])
        groups[-1].append(word)
    # AV-HuBERT hands these times on in thousandths of a second.
    cuts = [round((a[-1].end + b[0].start) / 2, 3) for a, b in pairwise(groups)]
    bounds = pairwise([0.0, *cuts, duration])
    return [Chunk(tuple(g), a, b) for g, (a, b) in zip(groups, bounds, strict=True)]


def frames_of(chunk: Chunk, num_frames: int) -> tuple[int, int]:
    """First frame of a segment and the one after its last, in a recording of ``num_frames``.

    Times are cut off, not rounded, as both predecessors do: where a product is a little below a
    whole number, their crops begin a frame earlier, too.
    """
    to_the_end = chunk.end >= num_frames / LIP_RATE
    return int(chunk.start * LIP_RATE), num_frames if to_the_end else int(chunk.end * LIP_RATE)


def find_clips(root: Path, part: str) -> tuple[list[Clip], list[tuple[str, str]]]:
    """All clips of ``<root>/<part>/<speaker>/``, and those that cannot be used with the reason.

    Suffixes may be in capitals, as copies by other systems have them. Clips are left out whose
    counterpart is missing, whose name cannot be written into a data folder, or of which there are
    two files that differ in the case of the suffix.

    Raises:
        FileNotFoundError: if the folder does not exist or has no video.
    """
    found: dict[tuple[str, str], dict[str, list[Path]]] = {}
    for path in sorted((root / part).glob("*/*")):
        if (suffix := path.suffix.lower()) in (".mp4", ".txt"):
            files = found.setdefault((path.parent.name, path.stem), {".mp4": [], ".txt": []})
            files[suffix].append(path)
    if not any(files[".mp4"] for files in found.values()):
        raise FileNotFoundError(f"{root / part} holds no <speaker>/<number>.mp4")
    clips, odd = [], []
    for (speaker, number), files in sorted(found.items()):
        videos, texts = files.values()
        flaw = flaw_of_name(str((videos or texts)[0]))
        if len(videos) == len(texts) == 1 and not flaw:
            clips.append(Clip(part, speaker, number, videos[0], texts[0]))
            continue
        if several := next((paths for paths in (videos, texts) if len(paths) > 1), None):
            names = " and ".join(map(str, several))
            reason = f"{names}: two files for one; remove or rename one of them"
        elif videos and texts:
            reason = f"its name {flaw}; rename it"
        else:
            reason = "mp4 without txt" if videos else "txt without mp4"
        odd.append((f"{part}/{speaker}/{number}", reason))
    return clips, odd


def make_utterances(clip: Clip, cut: bool, max_seconds: float, split: str, marks: str) -> Part:
    """Utterances of one clip: the whole, or its segments."""
    path = clip.text or clip.video.with_suffix(".txt")
    try:
        return _make_utterances(clip, path, cut, max_seconds, split, marks)
    except Exception as error:
        # Whatever is wrong with one clip of a corpus, the others are prepared.
        reason = reason_of(error).removeprefix(f"{path.with_suffix('')}.")
        return Part(excluded=[(clip.name, reason)])


def _make_utterances(
    clip: Clip, path: Path, cut: bool, max_seconds: float, split: str, marks: str
) -> Part:
    """`make_utterances` of a clip and its text file, of which anything may be raised."""
    result = Part()
    text, words = read_text(path), read_words(path) if cut else []
    frames = round(video_info(clip.video).seconds * LIP_RATE)
    name = f"{without_blanks(clip.speaker)}_{without_blanks(clip.number)}"
    duration = frames / LIP_RATE
    if not cut:
        text = normalise_text(text, marks)
        if normalise(text):
            result.utterances.append(Utterance(name, clip, text, 0.0, duration, True))
            if duration > max_seconds:
                result.notes.append(f"whole, though longer than {max_seconds:g} s")
        else:
            result.excluded.append((clip.name, "no words"))
        return result
    if not words:
        result.excluded.append((clip.name, f"no words after '{TIMINGS}'"))
        return result
    if normalise_text(" ".join(word.text for word in words)) != normalise_text(text):
        result.notes.append("text and word timings disagree; the timed words are taken")
    for number, chunk in enumerate(segment_words(words, duration, max_seconds, split)):
        if not chunk.words:
            continue
        # What is left out keeps its number, so that the others have those of their crops.
        segment = f"{number:02d}" if split == "length" else str(number)
        spoken = normalise_text(" ".join(word.text for word in chunk.words), marks)
        # Words may end at any time, also never, and then have no frames.
        beyond = chunk.words[-1].end > duration + TOLERANCE
        first, last = (0, 0) if beyond else frames_of(chunk, frames)
        if not normalise(spoken):
            reason = "no words"
        elif beyond:
            reason = "words beyond the end of the recording"
        elif last <= first:
            reason = "shorter than a frame"
        elif last - first > max_seconds * LIP_RATE:
            reason = f"longer than {max_seconds:g} s"
        else:
            times = first / LIP_RATE, last / LIP_RATE
            utterance = Utterance(f"{name}_{segment}", clip, spoken, *times, False)
            result.utterances.append(utterance)
            continue
        result.excluded.append((f"{clip.name}_{segment}", reason))
    return result


def exclude(clip: Clip, reason: str) -> Part:
    """What becomes of a clip that ended the process which read it."""
    return Part(excluded=[(clip.name, f"mp4: {reason}")])


def prepare_part(clips: Iterable[Clip], args: argparse.Namespace, cut: bool = False) -> Part:
    """Utterances of clips, cut into segments or whole, with the options of `make_parser`.

    Ids are ``<speaker>_<number>`` and for segments ``<speaker>_<number>_<NN>``, the names that
    Auto-AVSR gives its mouth crops, or at pauses ``<speaker>_<number>_<N>``, as AV-HuBERT does.
    """
    options = {"max_seconds": args.max_seconds, "split": args.split, "marks": args.marks}
    make = partial(make_utterances, cut=cut, **options)
    clips = list(clips)
    merged = Part()
    name = f"texts of {clips[0].part}" if clips else ""
    for result in map_items(make, clips, args.nj, name, crashed=exclude):
        merged.utterances += result.utterances
        merged.excluded += result.excluded
        merged.notes += result.notes
    return merged


def drop_duplicates(parts: Iterable[Part]) -> None:
    """Exclude utterances whose id is that of an earlier one, in this part or in a previous one."""
    seen: dict[str, str] = {}
    for part in parts:
        kept = []
        for utterance in part.utterances:
            if utterance.id in seen:
                reason = f"duplicate id (of {seen[utterance.id]})"
                part.excluded.append((utterance.clip.name, reason))
            else:
                seen[utterance.id] = utterance.clip.name
                kept.append(utterance)
        part.utterances = kept


def write_set(
    folder: Path, parts: Sequence[Part], args: argparse.Namespace, test_clips: int = 0
) -> None:
    """Write a data folder with a file ``excluded``, which lists what is left out and why.

    wav.scp and video.scp list recordings if there are segments, otherwise utterances.

    Args:
        folder: the data folder.
        parts: what it holds.
        args: options of `make_parser`.
        test_clips: how many the corpus has in its test set, if this is that one, which has a limit
            of its own. With more or less it is another one: a warning says so, and a file
            `official_size`, for RESULTS.md.

    Raises:
        SystemExit: if nothing is left, or more than the limit allows is excluded.
    """
    utterances = [utterance for part in parts for utterance in part.utterances]
    excluded = [pair for part in parts for pair in part.excluded]
    for note, count in Counter(note for part in parts for note in part.notes).most_common():
        print(f"{folder}: note on {count}: {note}")
    limit = args.test_max_excluded if test_clips else args.max_excluded
    hours = sum(u.end - u.start for u in utterances) / 3600
    leave_out(folder, excluded, len(utterances), limit, bool(test_clips), hours)
    if test_clips:
        write_text(folder / OFFICIAL_SIZE, f"{test_clips}\n")
        if (count := len(utterances) + len(excluded)) != test_clips:
            print(f"{folder}: warning: {count} clips, where the corpus' test set has {test_clips}")
    segmented = not all(utterance.whole for utterance in utterances)
    videos, segments = {}, {}
    for u in utterances:
        # In LRS2 a clip of main/ and one of pretrain/ may have the same number.
        number = f"{without_blanks(u.clip.speaker)}_{without_blanks(u.clip.number)}"
        recording = u.id if u.whole else f"{u.clip.part}_{number}"
        videos[recording] = str(u.clip.video)
        segments[u.id] = f"{recording} {u.start:.2f} {u.end:.2f}"
    utt2spk = {u.id: without_blanks(u.clip.speaker) for u in utterances}
    tables: dict[str, Mapping[str, str]] = {
        "video.scp": videos,
        "wav.scp": videos,
        "text": {u.id: u.text for u in utterances},
        "utt2spk": utt2spk,
        "spk2utt": spk2utt_of(utt2spk),
        "utt2dur": {u.id: f"{u.end - u.start:.2f}" for u in utterances},
    }
    (folder / "segments").unlink(missing_ok=True)
    for name, table in (tables | ({"segments": segments} if segmented else {})).items():
        write_scp(folder / name, table)


def make_parser(
    description: str, corpus: str
) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """The command line of a corpus, and its command ``prepare`` for options of its own."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command = parser.add_subparsers(required=True).add_parser(
        "prepare", help="write Kaldi data folders"
    )
    command.add_argument("--corpus", type=Path, required=True, help=f"folder of {corpus}")
    command.add_argument("--out", type=Path, required=True, help="folder of the data folders")
    command.add_argument(
        "--max_seconds",
        type=float,
        default=16.0,
        help="longest segment of pretrain/, 16 in Auto-AVSR; what --split pause"
        " leaves longer is excluded",
    )
    command.add_argument(
        "--split",
        choices=("length", "pause"),
        default="length",
        help="cut pretrain/ wherever a segment is full, as Auto-AVSR does, or at"
        " pauses, as AV-HuBERT does; crops of theirs (--lip_dir) need the same",
    )
    command.add_argument(
        "--marks",
        choices=("drop", "keep"),
        default="drop",
        help="of words in brackets such as {NS}, drop all, as ESPnet does, or the brackets only, as"
        " Auto-AVSR does",
    )
    command.add_argument("--max_excluded", type=float, default=0.1, help="share of a set")
    command.add_argument(
        "--test_max_excluded", type=float, default=0.0, help="the same of the test set"
    )
    command.add_argument("--nj", type=int, default=default_jobs(), help="processes")
    return parser, command

"""Kaldi data folders: read, write and validate their files.

A line holds an utterance id, one space and a value. Files are sorted by the bytes of the id, as
``LC_ALL=C sort`` does; speaker ids are prefixes of utterance ids so that both orders agree. With a
file ``segments`` utterances are parts of recordings, and wav.scp and video.scp list recordings.
"""

import json
import math
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mome.common.atomic_files import write_bytes
from mome.common.processes import AllCrash, map_items
from mome.common.text_files import BYTE_ORDER_MARK, read_text

REQUIRED = ("text", "utt2spk", "spk2utt")
MEDIA = ("wav.scp", "video.scp", "lip.scp")
OPTIONAL = ("wav.scp", "video.scp", "lip.scp", "segments", "utt2dur", "utt2num_frames")
BY_RECORDING = ("wav.scp", "video.scp")  # in a folder with segments


@dataclass(frozen=True)
class Segment:
    """Where an utterance lies in a recording, in seconds."""

    recording: str
    start: float
    end: float


def read_scp(path: str | Path) -> dict[str, str]:
    """Read a file of ``id value`` lines, in file order.

    Returns:
        id -> value without surrounding blanks; the value may be empty.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: for an empty line or an id given twice; the message names the file and the line.
            For a file that is not in UTF-8.
    """
    path = Path(path)
    mapping: dict[str, str] = {}
    lines = read_text(path).split("\n")
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        key, value = split_line(line)
        if not key:
            raise ValueError(f"{path}:{number}: empty line; remove it")
        if key in mapping:
            raise ValueError(f"{path}:{number}: {key} is given twice; keep one line of it")
        mapping[key] = value
    return mapping


def split_line(line: str) -> tuple[str, str]:
    """Id and value of a line; either may be empty.

    Spaces and tabs part them, as in Kaldi. Other blanks of Unicode, such as the no-break space, are
    characters like any other.
    """
    key, *rest = re.split("[ \t]+", line.strip(" \t\r"), maxsplit=1)
    return key, rest[0] if rest else ""


def read_segments(path: str | Path) -> dict[str, Segment]:
    """Read Kaldi's ``segments``: ``utterance recording start end`` lines, times in seconds.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: for a line of another form; the message names the file and the utterance.
    """
    return {
        utterance: parse_segment(f"{path}: {utterance}", value)
        for utterance, value in read_scp(path).items()
    }


def parse_segment(where: str, value: str) -> Segment:
    """A line of ``segments`` without its utterance; ``where`` names it in errors."""
    try:
        recording, start, end = value.split()
        segment = Segment(recording, float(start), float(end))
    except ValueError:
        raise ValueError(f"{where} has {value!r}, not a recording, a start and an end") from None
    if not 0 <= segment.start < segment.end < math.inf:
        raise ValueError(f"{where} does not end after its start: {start} to {end} s")
    return segment


def write_scp(path: str | Path, mapping: Mapping[str, object]) -> None:
    """Write ``id value`` lines sorted in the C locale, atomically.

    Raises:
        ValueError: for an id with blanks, or what else cannot be read again as it is.
    """
    path = Path(path)
    lines = []
    for key in c_sorted(mapping):
        value = str(mapping[key]).replace(BYTE_ORDER_MARK, "")
        if not key or len(key.split()) != 1:
            raise ValueError(f"{path}: id {key!r} is empty or has blanks")
        for what, text in (("id", key), ("the value of", value)):
            if flaw := flaw_of_name(text):
                raise ValueError(f"{path}: {what} {key!r} {flaw}")
        lines.append(f"{key} {value}".rstrip(" \t") + "\n")
    write_text(path, "".join(lines))


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    write_bytes(path, text.encode("utf-8"))


def copy_data_dir(
    source: str | Path, target: str | Path, replaced: Mapping[str, Mapping[str, object]]
) -> None:
    """Copy the files of a data folder, except those that are given as tables: file name -> table.

    The source's version of a replaced file is not copied first, so that a killed call cannot leave
    it in the target.
    """
    for name, table in replaced.items():
        write_scp(Path(target) / name, table)
    for name in (*REQUIRED, *OPTIONAL):
        if name not in replaced and (Path(source) / name).is_file():
            write_text(Path(target) / name, (Path(source) / name).read_text(encoding="utf-8"))


def same_settings(folder: str | Path, settings: Mapping[str, object]) -> bool:
    """Whether the outputs of a folder were made with these settings, by its ``settings.json``.

    A program keeps outputs of an earlier run only then. It deletes others before it records its own
    settings (`record_settings`): in the other order, what is left of them when it is killed would
    count as made with these.
    """
    path = Path(folder) / "settings.json"
    return path.is_file() and path.read_text(encoding="utf-8") == _as_record(settings)


def record_settings(folder: str | Path, settings: Mapping[str, object]) -> None:
    """Record what the outputs of a folder are made with; see `same_settings`."""
    write_text(Path(folder) / "settings.json", _as_record(settings))


def _as_record(settings: Mapping[str, object]) -> str:
    return json.dumps(settings, indent=1, sort_keys=True) + "\n"


def keep_only_same(
    folder: Path, settings: Mapping[str, object], outputs: Iterable[Path], force: bool = False
) -> None:
    """Delete outputs of a folder unless they were made with these settings, which are recorded.

    Args:
        folder: with ``settings.json``, see `same_settings`.
        settings: of the outputs that will be made.
        outputs: files and folders.
        force: delete them in any case.
    """
    if same_settings(folder, settings) and not force:
        return
    # Without a record, a call that is killed from here on has to be made again as a whole.
    (folder / "settings.json").unlink(missing_ok=True)
    for path in outputs:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    record_settings(folder, settings)


def without_blanks(name: str) -> str:
    """A name of a folder or file as an id, or a part of one, in which blanks are not allowed."""
    return "_".join(name.split())


def flaw_of_name(name: str) -> str:
    """Why the name of a file or folder cannot be written into a data folder; empty if it can."""
    if "\n" in name or "\r" in name:
        return "has a line break"
    if BYTE_ORDER_MARK in name:
        return "has a byte order mark"
    # What is no UTF-8 on the disk, as names of other systems, Python reads as surrogates.
    return "is not UTF-8" if re.search("[\ud800-\udfff]", name) else ""


def c_sorted(keys: Iterable[str]) -> list[str]:
    """Sort as ``LC_ALL=C sort`` does: by bytes."""
    return sorted(keys, key=lambda key: key.encode(errors="surrogateescape"))


def spk2utt_of(utt2spk: Mapping[str, str]) -> dict[str, str]:
    """Invert utt2spk: speaker -> its utterances, sorted and joined by blanks."""
    result: dict[str, list[str]] = {}
    for utterance in c_sorted(utt2spk):
        result.setdefault(utt2spk[utterance], []).append(utterance)
    return {speaker: " ".join(result[speaker]) for speaker in c_sorted(result)}


def fix_data_dir(path: str | Path) -> int:
    """Keep the utterances that every file of the folder has, sort all files, rebuild spk2utt.

    Returns:
        The number of utterances kept.

    Raises:
        ValueError: if none is left.
    """
    path = Path(path)
    names = [name for name in ("text", "utt2spk", *OPTIONAL) if (path / name).is_file()]
    tables = {name: read_scp(path / name) for name in names}
    if "utt2spk" not in tables:
        raise ValueError(f"{path}/utt2spk is missing")
    by_recording = [name for name in BY_RECORDING if "segments" in tables and name in tables]
    keep = set(tables["utt2spk"]).intersection(
        *(table for name, table in tables.items() if name not in by_recording)
    )
    if "text" in tables:
        keep = {utterance for utterance in keep if tables["text"][utterance]}
    recordings: set[str] = set()
    if "segments" in tables:
        # The recording is the first word of a line; lines without one are dropped.
        used = {u: (tables["segments"][u].split() or [""])[0] for u in keep}
        known = set(used.values()).intersection(*(tables[name] for name in by_recording))
        keep = {utterance for utterance in keep if used[utterance] in known}
        recordings = {used[utterance] for utterance in keep}
    if not keep:
        raise ValueError(f"{path}: no utterance is in all of {', '.join(names)}")
    for name, table in tables.items():
        keys = recordings if name in by_recording else keep
        write_scp(path / name, {key: value for key, value in table.items() if key in keys})
    utt2spk = {key: value for key, value in tables["utt2spk"].items() if key in keep}
    write_scp(path / "spk2utt", spk2utt_of(utt2spk))
    return len(keep)


def findings(folder: Path, problems: Sequence[str]) -> str:
    """What is said of a folder with these problems, in lines."""
    count = f"{len(problems)} problems" if problems else "valid"
    return "\n".join([*problems, f"{folder}: {count}"])


def validate_data_dir(
    path: str | Path,
    check_media: bool = False,
    frame_rate: float = 25.0,
    tolerance: float = 0.2,
    nj: int = 1,
) -> list[str]:
    """Check a data folder as Kaldi's validate_data_dir.sh does, and its video as well.

    Args:
        path: the data folder.
        check_media: open every recording: streams, frame rate, lengths.
        frame_rate: frames per second expected of video.scp and lip.scp.
        tolerance: largest difference between the lengths of audio and video, in seconds.
        nj: processes for ``check_media``.

    Returns:
        Problems found, each naming file, line or utterance; empty for a valid folder.
    """
    path = Path(path)
    if not path.is_dir():
        return [f"{path} is not a folder"]
    problems = [f"{path / name} is missing" for name in REQUIRED if not (path / name).is_file()]
    if not any((path / name).is_file() for name in MEDIA):
        problems.append(f"{path} has none of {', '.join(MEDIA)}")
    tables = {}
    for name in (*REQUIRED, *OPTIONAL):
        if (path / name).is_file():
            tables[name], found = _check_table(path / name)
            problems += found
    utterances = set(tables.get("utt2spk", tables.get("text", {})))
    segments, found = _check_segments(path, tables.get("segments", {}))
    problems += found
    recordings = {segment.recording for segment in segments.values()}
    for name, table in tables.items():
        if "segments" in tables and name in BY_RECORDING:
            problems += _compare_keys(path / name, set(table), recordings, "recordings")
        elif name != "spk2utt":
            problems += _compare_keys(path / name, set(table), utterances)
    problems += _check_speakers(path, tables.get("utt2spk", {}), tables.get("spk2utt"))
    problems += _check_numbers(path, tables)
    if check_media:
        ends: dict[str, float] = {}
        for segment in segments.values():
            ends[segment.recording] = max(segment.end, ends.get(segment.recording, 0.0))
        problems += _check_media(tables, ends, frame_rate, tolerance, nj)
    return problems


def _check_table(path: Path) -> tuple[dict[str, str], list[str]]:
    """Read a file without raising errors: its valid entries, and each problem with its line."""
    table: dict[str, str] = {}
    problems: list[str] = []
    previous = b""
    try:
        lines = path.read_bytes().decode().split("\n")
    except UnicodeDecodeError as error:
        return {}, [f"{path} is not UTF-8: {error}"]
    if lines == [""]:
        return {}, [f"{path} is empty"]
    if lines[-1]:
        problems.append(f"{path}: the last line does not end; the file may be cut")
    else:
        lines.pop()
    unsorted = False
    for number, line in enumerate(lines, start=1):
        where = f"{path}:{number}"
        if "\r" in line:
            problems.append(f"{where}: carriage return; convert the file to Unix line ends")
        if BYTE_ORDER_MARK in line:
            problems.append(f"{where}: byte order mark; save the file without it")
            line = line.replace(BYTE_ORDER_MARK, "")
        key, value = split_line(line)
        if not key:
            problems.append(f"{where}: empty line")
            continue
        if not line.startswith(key):
            problems.append(f"{where}: {key} stands behind a blank")
        if len(key.split()) != 1:
            problems.append(f"{where}: {key!r} has a blank, where other programs end an id")
        if key in table:
            problems.append(f"{where}: {key} is given twice")
        elif not unsorted and key.encode() < previous:
            unsorted = True
            problems.append(f"{where}: {key} is out of order; sort with LC_ALL=C sort")
        if not value:
            kind = "has no words" if path.name == "text" else "has no value"
            problems.append(f"{where}: {key} {kind}")
        previous = max(previous, key.encode())
        table.setdefault(key, value)
    return table, problems


def _check_segments(path: Path, table: Mapping[str, str]) -> tuple[dict[str, Segment], list[str]]:
    """Parse the valid lines, and report the others."""
    segments, problems = {}, []
    for utterance, value in table.items():
        if value:  # an empty value has been reported already
            try:
                segments[utterance] = parse_segment(f"{path / 'segments'}: {utterance}", value)
            except ValueError as error:
                problems.append(str(error))
    return segments, problems


def _compare_keys(
    path: Path, keys: set[str], expected: set[str], what: str = "utterances"
) -> list[str]:
    problems = []
    for verb, odd in (("lacks", expected - keys), ("has the unknown", keys - expected)):
        if odd:
            shown = ", ".join(c_sorted(odd)[:3]) + (", ..." if len(odd) > 3 else "")
            problems.append(f"{path} {verb} {len(odd)} {what}: {shown}")
    return problems


def _check_speakers(
    path: Path, utt2spk: Mapping[str, str], spk2utt: Mapping[str, str] | None
) -> list[str]:
    problems = []
    for utterance, speaker in utt2spk.items():
        if len(speaker.split()) > 1:
            problems.append(f"{path / 'utt2spk'}: {utterance} has several speakers: {speaker}")
        if not utterance.startswith(speaker):
            problems.append(
                f"{path / 'utt2spk'}: speaker {speaker} is not a prefix of utterance {utterance}"
            )
    by_speaker = sorted(utt2spk, key=lambda utterance: (utt2spk[utterance].encode(), utterance))
    if by_speaker != c_sorted(utt2spk) and not problems:
        problems.append(
            f"{path / 'utt2spk'}: sorted by speaker and by utterance differs, as speaker ids are"
            " prefixes of each other; make them equally long, or let a hyphen follow them"
        )
    if spk2utt is not None and utt2spk:
        inverted = spk2utt_of(utt2spk)
        for speaker in c_sorted(inverted.keys() | spk2utt.keys()):
            if sorted(inverted.get(speaker, "").split()) != sorted(
                spk2utt.get(speaker, "").split()
            ):
                problems.append(
                    f"{path / 'spk2utt'}: the utterances of {speaker} do not match utt2spk"
                )
    return problems


def _check_numbers(path: Path, tables: Mapping[str, Mapping[str, str]]) -> list[str]:
    problems = []
    for name in ("utt2dur", "utt2num_frames"):
        for utterance, value in tables.get(name, {}).items():
            try:
                number = float(value)
            except ValueError:
                number = math.nan
            if not 0 < number < math.inf:
                problems.append(f"{path / name}: {utterance} has {value!r}, not a positive number")
    return problems


def _check_media(
    tables: Mapping[str, Mapping[str, str]],
    ends: Mapping[str, float],
    frame_rate: float,
    tolerance: float,
    nj: int,
) -> list[str]:
    """Open the recordings of every utterance; ``ends`` is where the last segment of each ends."""
    keys = set().union(*(tables[name] for name in MEDIA if name in tables))
    items = [
        (key, {name: tables[name].get(key) for name in MEDIA if name in tables}, ends.get(key, 0.0))
        for key in c_sorted(keys)
    ]
    check = partial(_check_recordings, frame_rate=frame_rate, tolerance=tolerance)
    try:
        found = map_items(check, items, nj, "check media", crashed=_not_readable)
    except AllCrash as error:
        return [str(error)]
    return [problem for problems in found for problem in problems]


def _not_readable(item: tuple[str, dict[str, str | None], float], reason: str) -> list[str]:
    """The problem with recordings that ended the process which opened them."""
    key, paths, _ = item
    return [f"{key}: {', '.join(filter(None, paths.values()))}: {reason}"]


def _check_recordings(
    item: tuple[str, dict[str, str | None], float], frame_rate: float, tolerance: float
) -> list[str]:
    from mome.data.audio import audio_seconds  # media libraries load only where they are used
    from mome.data.video import reason_of, video_info

    utterance, paths, end = item
    problems = []
    lengths = {}
    for name, recording in paths.items():
        if not recording:
            continue
        try:
            if name == "wav.scp":
                lengths[name] = audio_seconds(recording)
                continue
            info = video_info(recording)
            lengths[name] = info.seconds
            if abs(info.fps - frame_rate) > 0.01:
                problems.append(
                    f"{utterance}: {recording} has {info.fps:g} frames/s, not {frame_rate:g}"
                )
            if name == "video.scp" and not info.has_audio and not paths.get("wav.scp"):
                problems.append(f"{utterance}: {recording} has no audio stream")
            elif name == "video.scp" and info.has_audio:
                lengths["audio of video.scp"] = info.audio_seconds
        except Exception as error:
            problems.append(f"{utterance}: {reason_of(error)}")
    if len(lengths) > 1 and max(lengths.values()) - min(lengths.values()) > tolerance:
        shown = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in lengths.items())
        problems.append(f"{utterance}: audio and video differ in length: {shown}")
    if lengths and end > (shortest := min(lengths.values())) + tolerance:
        problems.append(f"{utterance}: {shortest:.2f} s long, but a segment ends at {end:.2f} s")
    return problems

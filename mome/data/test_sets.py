"""Test sets and their copies: what they are called, what they are for, and which there are.

A copy has mismatched streams, noisy audio or corrupted lips, in this order in
its name: ``test_swapvideo``, ``test_babble_snr-5``, ``test_drop2``, ``test_babble_snr-5_drop2``.
Stage 3 lists the copies, with the settings that they were made with, in ``<dump>/test_sets.json``;
stage 5 decodes and scores what is listed there.
"""

import argparse
import fcntl
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mome.common.atomic_files import write_bytes
from mome.common.json_files import read_json
from mome.common.marks import Settings, demand_same, fingerprint
from mome.data.corrupt import CORRUPTIONS, STRENGTHS
from mome.data.corrupt import describe as describe_corruption
from mome.data.noise import KINDS

STREAMS = ("audio", "video")
CONTENT = ("text", "utt2num_frames", "sources")  # of a prepared set
NAME = re.compile(
    rf"(?P<base>.+?)(_swap(?P<swap>{'|'.join(STREAMS)}))?"
    r"(_(?P<noise>[a-z]+)_snr(?P<snr>-?\d+(\.\d+)?))?"
    rf"(_(?P<corruption>{'|'.join(CORRUPTIONS)})(?P<strength>[{STRENGTHS[0]}-{STRENGTHS[-1]}]))?"
)


@dataclass(frozen=True)
class TestSet:
    """A test set or a copy of one.

    Attributes:
        base: the set itself.
        swap: the stream that is of another utterance, audio or video.
        noise: kind of noise in the audio.
        snr: in dB, with ``noise``.
        corruption: of the lips.
        strength: of the corruption, 1 to 3.
    """

    base: str
    swap: str | None = None
    noise: str | None = None
    snr: float | None = None
    corruption: str | None = None
    strength: int | None = None

    __test__ = False  # to pytest, a class of this name would be a test

    @property
    def name(self) -> str:
        """Its folder's name in the dump folder."""
        name = self.base
        if self.swap:
            name += f"_swap{self.swap}"
        if self.noise:
            name += f"_{self.noise}_snr{self.snr:g}"
        if self.corruption:
            name += f"_{self.corruption}{self.strength}"
        return name

    @property
    def source(self) -> str:
        """Name of the set that it is a copy of."""
        return replace(self, corruption=None, strength=None).name if self.corruption else self.base

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that the copy asks anything of: mismatched streams are a question for AVSR, noise
        is not one for VSR, nor are lips one for ASR."""
        tasks = ("avsr",) if self.swap else ("avsr", "asr", "vsr")
        unread = {"vsr": self.noise, "asr": self.corruption}
        return tuple(task for task in tasks if unread.get(task) is None)

    @property
    def order(self) -> tuple:
        """Key of the order in tables: clean, mismatched, from little noise to much, lips."""
        words = (self.base, self.corruption or "", self.noise or "", self.swap or "")
        return (*words, -(self.snr or 0), self.strength or 0)

    def describe(self) -> str:
        """In words, for tables."""
        words = [self.base]
        if self.swap:
            words.append(f"{self.swap} of another utterance")
        if self.noise:
            words.append(f"{self.noise} at {self.snr:g} dB")
        if self.corruption and self.strength:
            words.append(describe_corruption(self.corruption, self.strength))
        return ", ".join(words if len(words) > 1 else [*words, "clean"])


def parse(name: str) -> TestSet:
    """The set that a folder's name stands for; inverse of ``TestSet.name``.

    Raises:
        ValueError: for a name that no set is given, such as ``test_babble_snr5.0``.
    """
    found = NAME.fullmatch(name)
    values = found.groupdict() if found else {"base": name}
    snr, strength = values.pop("snr", None), values.pop("strength", None)
    result = TestSet(
        **values,
        snr=None if snr is None else float(snr),
        strength=None if strength is None else int(strength),
    )
    if result.name != name:
        raise ValueError(f"the test set {name!r} is called {result.name!r}")
    return result


def snr(text: str) -> float:
    """An SNR in dB on a command line."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not an SNR in dB, such as -5")
    return value


def swapped(base: str, stream: str) -> TestSet:
    """The copy of a set in which a stream is of another utterance."""
    return TestSet(_plain(base), swap=stream)


def noisy(base: str, noise: str, snr: float) -> TestSet:
    """The copy of a set with a kind of noise at an SNR in dB."""
    return TestSet(_plain(base), noise=noise, snr=snr)


def _plain(base: str) -> str:
    if parse(base) != TestSet(base):
        raise ValueError(
            f"{base!r} is the name of a copy ({parse(base).describe()}): rename the set"
        )
    return base


def corrupted(name: str, corruption: str, strength: int) -> TestSet:
    """The copy of a set, or of a noisy copy, with corrupted lips.

    Raises:
        ValueError: if its lips are corrupted already.
    """
    source = parse(name)
    if source.corruption:
        raise ValueError(f"the lips of {name} are corrupted already")
    return replace(source, corruption=corruption, strength=strength)


def list_path(dump: Path) -> Path:
    """Where the copies of a dump folder are listed."""
    return dump / "test_sets.json"


def read_list(dump: Path) -> dict[str, dict[str, object]]:
    """The copies that were made: name -> settings; empty before stage 3.

    Raises:
        ValueError: if the list cannot be read.
    """
    path = list_path(dump)
    remedy = "remove it and run stage 3 again, which keeps what is finished"
    return read_json(path, remedy) if path.is_file() else {}


def settings_of(dump: Path, name: str) -> dict[str, object]:
    """What a set was made with: a copy's settings, or those of a prepared set and what it holds."""
    copies = read_list(dump)
    return copies.get(name) or {
        "prepared": fingerprint(dump / name / ".done"),
        **content_of(dump / name),
    }


def content_of(folder: Path) -> dict[str, str]:
    """A digest of a prepared set's transcripts, lengths and sources; nothing without ``sources``.

    Sets that were prepared before there was this list do not say what they were made from; what was
    decoded of them, or made from them, holds.
    """
    if not (folder / "sources").is_file():
        return {}
    digests = " ".join(fingerprint(folder / file) for file in CONTENT)
    return {"content": hashlib.sha256(digests.encode()).hexdigest()}


def source_of(dump: Path, name: str) -> str:
    """A digest of what a set was made with, for the settings of its copies."""
    text = json.dumps(settings_of(dump, name), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def claim(dump: Path, wanted: Mapping[TestSet, Settings], force: bool = False) -> None:
    """Make sure that copies may be made: none is listed with other settings.

    Args:
        dump: the dump folder.
        wanted: copies with their settings.
        force: take the copies off the list instead, so that they are made anew.

    Raises:
        mome.common.marks.OtherSettings: if a copy is listed with other settings.
    """
    made = read_list(dump)
    old = [each for each in wanted if each.name in made]
    if not force:
        for each in old:
            demand_same(dump / each.name, made[each.name], wanted[each], "--dumpdir")
    elif old:
        _update_list(dump, dict.fromkeys(old))


def add_to_list(dump: Path, made: Mapping[TestSet, Settings]) -> None:
    """List copies that are finished, beside those that are listed."""
    _update_list(dump, made)


def _update_list(dump: Path, changes: Mapping[TestSet, Settings | None]) -> None:
    """Replace entries, or remove those that are None; one writer after the other."""
    path = list_path(dump)
    with open(path.with_name(f".{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        merged = read_list(dump) | {each.name: value for each, value in changes.items()}
        kept = {name: dict(value) for name, value in merged.items() if value is not None}
        ordered = {name: kept[name] for name in sorted(kept, key=lambda name: parse(name).order)}
        write_bytes(path, (json.dumps(ordered, indent=1) + "\n").encode())


def add_selection_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say which sets are wanted; for :func:`select`."""
    parser.add_argument("--dump", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--test_sets", nargs="+", default=["test"], help="clean, with their copies")
    parser.add_argument("--snrs", type=snr, nargs="*", default=[], help="dB, of noisy copies")
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, help="of noise; default: babble and all that was made"
    )
    parser.add_argument(
        "--corruptions",
        nargs="*",
        choices=list(CORRUPTIONS),
        default=[],
        help="of lips, at every strength; default: none",
    )
    parser.add_argument("--corrupt_sets", nargs="+", help="sets for these; default: --test_sets")


def select(args: argparse.Namespace, tasks: Iterable[str]) -> list[TestSet]:
    """The sets that are wanted and ask something of any of the tasks, in the order of tables.

    Args:
        args: options of :func:`add_selection_arguments`.
        tasks: tasks of a model.

    Raises:
        ValueError: for a set that was asked for and not made; says what makes it. For a copy of a
            set that was made anew since.
    """
    listed = read_list(args.dump)
    made = {name: parse(name) for name in listed}
    result = []
    for base in args.test_sets:
        if not (args.dump / base / "utt2num_frames").is_file():
            raise ValueError(
                f"{args.dump / base} is not prepared: stage 2 does it, --test_sets {base}"
            )
        copies = [each for each in made.values() if each.base == base and not each.corruption]
        result += [TestSet(base), *(each for each in copies if each.swap and not each.noise)]
        known = [kind for kind in KINDS if any(each.noise == kind for each in copies)]
        for kind in args.kinds or dict.fromkeys(["babble", *known]):
            result += [noisy(base, kind, snr) for snr in args.snrs]
    for name in args.corrupt_sets or args.test_sets:
        for kind in args.corruptions:
            result += [corrupted(name, kind, strength) for strength in STRENGTHS]
    wanted = [each for each in dict.fromkeys(result) if set(each.tasks) & set(tasks)]
    for each in wanted:
        if each == TestSet(each.base):
            continue
        if each.name not in made:
            raise ValueError(
                f"{each.name} is not in {list_path(args.dump)}: stage 3 makes it, with"
                f" {_options_for(each)}"
            )
        if listed[each.name].get("source") != source_of(args.dump, each.source):
            raise ValueError(
                f"{args.dump / each.name} is a copy of another {each.source} than there is now: run"
                " stage 3 again with --force true"
            )
    return sorted(wanted, key=lambda each: each.order)


def option_for(kind: str) -> str:
    """The option that names recordings of a kind of noise, other than babble."""
    return "--noisex <file or folder>" if kind == "noisex" else "--musan <folder>"


def _options_for(wanted: TestSet) -> str:
    options = []
    if wanted.noise:
        options.append(f"--snrs {wanted.snr:g}")
        options.append(f"--test_noise {wanted.noise}")
        if wanted.noise != "babble":
            options.append(option_for(wanted.noise))
    if wanted.corruption:
        options += [f"--corruptions {wanted.corruption}", f"--corrupt_sets {wanted.source}"]
    return " ".join(options)

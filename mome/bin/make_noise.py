"""Make noise and noisy test sets.

Babble is mixed from the utterances of training speakers, 30 of them (--speakers) at once. If there
is one speaker, all voices are that one's, which is harder to hear through than the voices of
others; --babble_from names another data folder whose speakers talk instead. A fifth of the
utterances (--test_share) is kept for the babble of tests; with --test_babble_from that has the
voices of another data folder, such as the validation set's, and is the same whatever is trained on.
With --musan the recordings of its folders noise/, speech/ and music/ are added, with --noisex those
of NOISEX-92, such as its babble.wav, of which training has the beginning and tests have the end.
Training and test noise have no recording, no utterance and no moment in common. Recordings of
--musan that cannot be read or are silent are left out, counted and listed in <dump>/noise/excluded.
Writes

  <dump>/noise/train.scp, test.scp     noise id -> audio file, all kinds
  <dump>/noise/{train,test}_<kind>.scp the same by kind
  <dump>/noise/babble/*.flac           the babble
  <dump>/<set>_<kind>_snr<N>/          for each test set, kind and SNR: a data folder with noisy
                                       audio

SNR is 10 log10 of the mean power of the speech over that of the noise, over the whole utterance. An
utterance has the same noise at every SNR, drawn by --seed and its id. A mixture that would be
clipped is scaled down as a whole, one of which 16 bits keep too little is scaled up. Finished
outputs are kept when the command is run again with the same settings, and further SNRs, kinds and
sets are added; other settings are an error. With --force true what is asked for is made anew.
The noisy sets are listed in <dump>/test_sets.json.
"""

import argparse
import logging
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from mome.common.command import in_one_line, parser_for, start_log
from mome.common.extras import demand_installed
from mome.common.marks import (
    differences,
    fingerprint,
    is_done,
    read_mark,
    stamp_of,
    write_mark,
)
from mome.common.processes import map_items
from mome.data import test_sets
from mome.data.audio import audio_seconds, file_of, write_flac
from mome.data.exclusions import FILE, print_reasons, write_excluded
from mome.data.kaldi import copy_data_dir, keep_only_same, read_scp, spk2utt_of, write_scp
from mome.data.mixtures import Mixture, make_mixture
from mome.data.noise import (
    KINDS,
    SPLITS,
    Babble,
    flaw_of,
    mix_babble,
    noisex_recordings,
    plan_babble,
    split_musan,
    split_noisex,
    split_utterances,
)
from mome.data.video import MediaError

BABBLE_FILES = ("utt2spk", "wav.scp", "utt2dur")


def make_babble(babble: Babble, folder: Path) -> str:
    """Mix a babble recording unless it is finished; returns its path."""
    path = folder / f"{babble.name}.flac"
    try:
        finished = path.is_file() and abs(audio_seconds(path) - babble.seconds) < 1e-3
    except MediaError:
        finished = False
    if not finished:
        write_flac(path, mix_babble(babble))
    return str(path)


@dataclass(frozen=True)
class Voices:
    """Utterances that babble is mixed from: those of each speaker, their audio and seconds."""

    folder: Path
    spk2utt: Mapping[str, Sequence[str]]
    wavs: Mapping[str, str]
    durations: Mapping[str, float]


def babble_folder(args: argparse.Namespace) -> Path:
    """The data folder whose speakers make the babble."""
    return prepared(args.babble_from or args.dump / args.train_set)


def prepared(folder: Path) -> Path:
    """A data folder that babble can be mixed from.

    Raises:
        SystemExit: if it is none; names what is missing.
    """
    for file in BABBLE_FILES:
        if not (folder / file).is_file():
            raise SystemExit(f"{folder / file} does not exist: babble needs a folder of stage 2")
    return folder


def others_settings(folder: Path) -> dict[str, object]:
    """What babble of another data folder depends on, whether stage 2 has made it or not."""
    content = b"".join((folder / file).read_bytes() for file in BABBLE_FILES)
    return {"babble_from": str(folder), "content": zlib.crc32(content)}


def content_settings(folder: Path) -> dict[str, object]:
    """What babble depends on of a data folder that stage 2 has made."""
    return {
        "prepared": fingerprint(folder / ".done"),
        **test_sets.content_of(folder),
        "recordings": zlib.crc32("\n".join(read_scp(folder / "wav.scp")).encode()),
    }


def babble_settings(args: argparse.Namespace) -> dict[str, object]:
    """What babble depends on."""
    names = ("seed", "speakers", "seconds", "test_share", "num_train", "num_test", "train_set")
    train = babble_folder(args)
    of_tests: dict[str, object] = {}
    if args.test_babble_from:
        content = content_settings(prepared(args.test_babble_from))
        of_tests = {f"test_{name}": value for name, value in content.items()}
        of_tests["test_babble_from"] = args.test_babble_from.name
    return {
        **(others_settings(train) if args.babble_from else {}),
        **{name: getattr(args, name) for name in names},
        **content_settings(train),
        **of_tests,
    }


def recordings_of(musan: Mapping[str, Mapping[str, Mapping[str, str]]]) -> dict[str, str]:
    """All recordings of kind -> split -> id -> path: id -> path."""
    lists = (noises for splits in musan.values() for noises in splits.values())
    return {name: path for noises in lists for name, path in noises.items()}


def musan_settings(
    args: argparse.Namespace, musan: Mapping[str, Mapping[str, Mapping[str, str]]]
) -> dict[str, object]:
    """What the other kinds of noise depend on: ``musan`` is kind -> split -> id -> path.

    Names and sizes stand for its recordings; marks of before do not say them, and hold.
    """
    settings: dict[str, object] = {"seed": args.seed, "test_share": args.test_share}
    settings["musan"] = str(args.musan or "")
    mark = read_mark(args.dump / "noise" / ".done")
    said = mark is None or "musan_recordings" in mark["settings"]
    if args.musan and (said or args.force == "true"):
        paths = recordings_of(musan)
        lines = (f"{name} {Path(paths[name]).stat().st_size}\n" for name in sorted(paths))
        settings["musan_recordings"] = zlib.crc32("".join(lines).encode())
    return settings


def without(left_out: Collection[str]) -> dict[str, object]:
    """What noise depends on besides if recordings cannot serve; marks of before still hold."""
    return {"left_out": sorted(left_out)} if left_out else {}


def leave_out_flawed(
    musan: dict[str, dict[str, dict[str, str]]], folder: Path, args: argparse.Namespace
) -> dict[str, set[str]]:
    """Take recordings out that cannot be read or are silent, list them with the reason, say it.

    Sound ones are written down in ``<folder>/checked`` and not read again, unless they change.

    Args:
        musan: kind -> split -> id -> path, in which they are deleted.
        folder: of the lists of noise.
        args: command line.

    Returns:
        kind -> the ids that are left out.

    Raises:
        SystemExit: if a split of a kind has no recording left.
    """
    paths = recordings_of(musan)
    record = folder / "checked"
    known = read_scp(record) if record.is_file() else {}
    stamps = {name: stamp_of(path) for name, path in paths.items()}
    unknown = [name for name in paths if known.get(name) != stamps[name]]
    flaws = map_items(
        flaw_of,
        [paths[name] for name in unknown],
        args.nj,
        "recordings of noise",
        args.parallel,
        crashed="{}: {}".format,
        control=lambda: next((paths[name] for name in paths if name not in unknown), None),
    )
    flawed = {name: flaw for name, flaw in zip(unknown, flaws, strict=True) if flaw}
    write_scp(record, {name: stamp for name, stamp in stamps.items() if name not in flawed})
    write_excluded(folder, flawed.items())
    if flawed:
        print(f"{args.musan}: {len(flawed)} of {len(paths)} recordings are left out")
        print_reasons(flawed.items())
    result: dict[str, set[str]] = {kind: set() for kind in musan}
    for kind, splits in musan.items():
        for noises in splits.values():
            left_out = noises.keys() & flawed.keys()
            result[kind] |= left_out
            for name in left_out:
                del noises[name]
        if not all(splits.values()):
            raise SystemExit(
                f"{args.musan / kind}: no recording that can be read is left of one side of the"
                f" split; see {folder / FILE}, and fix or replace some, or remove {kind}/"
            )
    return result


def noisex_settings(args: argparse.Namespace, files: list[Path]) -> dict[str, object]:
    """What noise of NOISEX depends on; nothing without it, so that older marks still hold."""
    if not files:
        return {}
    sums = {file.name: zlib.crc32(file.read_bytes()) for file in files}
    return {"seed": args.seed, "test_share": args.test_share, "noisex": sums}


def prepare_noisex(
    files: list[Path], args: argparse.Namespace, settings: dict[str, object], folder: Path
) -> dict[str, dict[str, str]]:
    """Cut NOISEX's recordings in two: split -> id -> path."""
    keep_only_same(folder, settings, folder.glob("*/noisex-*.flac"), args.force == "true")
    return split_noisex(files, args.test_share, folder)


def found_from(folder: Path, path: str) -> str:
    """A file that a data folder names, relative to a folder above the data folder or to this one.

    Stage 2 names files relative to the recipe's folder, in which another recipe does not run. The
    folders above come first: a file of the same name here is another corpus's. They are those of
    the name that was given, and then those of what it links to.
    """
    for place in (*folder.absolute().parents, *folder.resolve().parents, Path()):
        if (place / file_of(path)).is_file():
            return str(place / path)
    raise SystemExit(f"{folder / 'wav.scp'} names {path}, which is not there")


def read_voices(folder: Path, own: bool) -> Voices:
    """All utterances of a data folder; ``own`` if it is of this recipe, whose paths hold here."""
    utt2spk = read_scp(folder / "utt2spk")
    wavs = read_scp(folder / "wav.scp")
    if not own:
        wavs = {utterance: found_from(folder, path) for utterance, path in wavs.items()}
    return Voices(
        folder,
        {speaker: value.split() for speaker, value in spk2utt_of(utt2spk).items()},
        wavs,
        {u: float(value) for u, value in read_scp(folder / "utt2dur").items()},
    )


def voices_by_split(args: argparse.Namespace) -> dict[str, Voices]:
    """Whose utterances make the babble of training and of tests; none makes both.

    Raises:
        SystemExit: for two data folders that have utterances in common.
    """
    voices = read_voices(babble_folder(args), own=not args.babble_from)
    if not args.test_babble_from:
        rng = np.random.default_rng([args.seed, 0])
        split = split_utterances(voices.spk2utt, args.test_share, rng)
        return {name: replace(voices, spk2utt=split[name]) for name in SPLITS}
    of_tests = read_voices(args.test_babble_from, own=False)
    if common := sorted(voices.wavs.keys() & of_tests.wavs.keys()):
        raise SystemExit(
            f"--test_babble_from {of_tests.folder} and {voices.folder} have {len(common)}"
            f" utterances in common, such as {common[0]}: tests must not have the babble of"
            " training; name another set"
        )
    return {"train": voices, "test": of_tests}


def prepare_babble(args: argparse.Namespace, folder: Path) -> dict[str, dict[str, str]]:
    """Mix the babble of both splits: split -> id -> path."""
    voices = voices_by_split(args)
    plans = []
    for number, (name, count) in enumerate(
        zip(SPLITS, (args.num_train, args.num_test), strict=True)
    ):
        of_split = voices[name]
        source, spk2utt = of_split.folder, of_split.spk2utt
        speakers = len(spk2utt)
        utterances = sum(len(of_speaker) for of_speaker in spk2utt.values())
        if utterances < 2:
            raise SystemExit(
                f"{source}: {utterances} utterances for {name} babble, where two are needed; "
                f"give other speakers by --babble_from or more of them by --test_share"
            )
        if speakers == 1:
            (speaker,) = spk2utt
            logging.warning(
                "%s has one speaker, %s: all voices of %s babble are that speaker's, which is "
                "harder to hear through than others; name other speakers by "
                "--babble_from <data folder>",
                source,
                speaker,
                name,
            )
        elif speakers < args.speakers:
            logging.warning(
                "%s has %d speakers: %s babble mixes all of them, fewer than --speakers %d",
                source,
                speakers,
                name,
                args.speakers,
            )
        rng = np.random.default_rng([args.seed, 1 + number])
        plans += [
            plan_babble(
                f"babble-{name}-{i:04d}",
                spk2utt,
                of_split.wavs,
                of_split.durations,
                args.speakers,
                args.seconds,
                rng,
            )
            for i in range(count)
        ]
    made = folder.glob("babble-*.flac")
    keep_only_same(folder, babble_settings(args), made, args.force == "true")
    paths = map_items(partial(make_babble, folder=folder), plans, args.nj, "babble", args.parallel)
    result: dict[str, dict[str, str]] = {name: {} for name in SPLITS}
    for plan, path in zip(plans, paths, strict=True):
        result[plan.name.split("-")[1]][plan.name] = path
    return result


def make_noisy_sets(
    test: Path,
    wanted: dict[test_sets.TestSet, dict[str, object]],
    noises: dict[str, str],
    args: argparse.Namespace,
) -> None:
    """Write the noisy copies of a test set with one kind of noise, at every SNR."""
    wavs = read_scp(test / "wav.scp")
    speakers = read_scp(test / "utt2spk")
    kind = next(iter(wanted)).noise
    folders = {each.snr: args.dump / each.name for each in wanted if each.snr is not None}
    names = {u: f"audio/{speakers[u]}/{u}.flac" for u in wavs}
    for each, settings in wanted.items():
        of_set = args.dump / each.name
        keep_only_same(of_set, settings, [of_set / "audio"], args.force == "true")
    mixtures = [
        Mixture(u, wav, tuple((snr, str(folder / names[u])) for snr, folder in folders.items()))
        for u, wav in wavs.items()
    ]
    ordered = tuple(noises[name] for name in sorted(noises))
    mix = partial(make_mixture, noises=ordered, seed=args.seed)
    measured = map_items(mix, mixtures, args.nj, f"{test.name} with {kind}", args.parallel)
    for folder in folders.values():
        copy_data_dir(test, folder, {"wav.scp": {u: str(folder / names[u]) for u in wavs}})
    test_sets.add_to_list(args.dump, wanted)
    count = sum(len(found) for found in measured)
    print(f"{test.name} with {kind}: {len(wavs)} utterances at {len(folders)} SNRs, {count} new")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--dump", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--train_set", default="train", help="its speakers make the babble")
    parser.add_argument("--test_sets", nargs="*", default=["test"], help="sets to make noisy")
    parser.add_argument(
        "--snrs", type=test_sets.snr, nargs="*", default=[-5.0, 0.0, 5.0, 10.0, 15.0], help="dB"
    )
    parser.add_argument(
        "--test_kinds", nargs="+", choices=KINDS, help="of the noisy sets; default: all there are"
    )
    parser.add_argument("--speakers", type=int, default=30, help="voices in babble")
    parser.add_argument(
        "--babble_from",
        type=Path,
        help="folder of stage 2 whose speakers make the babble instead of the training set's",
    )
    parser.add_argument(
        "--test_babble_from",
        type=Path,
        help="folder of stage 2 whose speakers make the babble of tests, such as dump/valid: the"
        " same babble for every training set",
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="length of a babble recording")
    parser.add_argument("--num_train", type=int, default=20, help="babble recordings, training")
    parser.add_argument("--num_test", type=int, default=5, help="babble recordings, test")
    parser.add_argument("--test_share", type=float, default=0.2, help="of utterances and files")
    parser.add_argument("--musan", type=Path, help="folder with noise/, speech/, music/")
    parser.add_argument(
        "--noisex",
        type=Path,
        help="recording of NOISEX-92 (babble.wav), or a folder of them",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="draws recordings, voices and the noise of an utterance; default: %(default)s",
    )
    parser.add_argument(
        "--force",
        choices=("true", "false"),
        default="false",
        help="true makes anew what is asked for, also of other settings; default: %(default)s",
    )
    parser.add_argument("--nj", type=int, default=1, help="processes")
    parser.add_argument("--parallel", help="YAML of a Dask cluster, in the place of --nj")
    return parser.parse_args(argv)


@in_one_line("mome-make-noise")
def main(argv: list[str] | None = None) -> None:
    """Make noise, then the noisy test sets."""
    args = parse(argv)
    if args.parallel:
        demand_installed("mome-make-noise", "espnet3")
    start_log()
    folder = args.dump / "noise"
    force = args.force == "true"
    musan: dict[str, dict[str, dict[str, str]]] = {}
    if args.musan:
        musan = split_musan(args.musan, args.test_share, np.random.default_rng([args.seed, 3]))
    of_musan = musan_settings(args, musan)
    left_out = leave_out_flawed(musan, folder, args) if musan else {}
    noisex = noisex_recordings(args.noisex) if args.noisex else []
    kinds = ["babble", *musan, *(["noisex"] if noisex else [])]
    if missing := set(args.test_kinds or []) - set(kinds):
        options = " and ".join(sorted({test_sets.option_for(kind) for kind in missing}))
        raise SystemExit(f"no recordings of {', '.join(sorted(missing))}; give {options}")
    settings = {
        "babble": babble_settings(args),
        **{kind: {**of_musan, **without(left_out[kind])} for kind in musan},
        "noisex": noisex_settings(args, noisex),
    }
    wanted: dict[tuple[str, str], dict[test_sets.TestSet, dict[str, object]]] = {}
    claimed: dict[test_sets.TestSet, dict[str, object]] = {}
    listed = [test_sets.parse(name) for name in test_sets.read_list(args.dump)]
    for name, kind in product(args.test_sets, args.test_kinds or kinds):
        made_with = {**settings[kind], "source": test_sets.source_of(args.dump, name)}
        copies = [test_sets.noisy(name, kind, snr) for snr in args.snrs]
        wanted[name, kind] = dict.fromkeys(copies, made_with)
        claimed |= dict.fromkeys(copies, made_with)
    # Copies that are not asked for this time must not stay with another noise.
    for each in listed:
        if each.noise and not each.corruption and each not in claimed:
            source = test_sets.source_of(args.dump, each.base)
            made_with = {**settings.get(each.noise, {}), "source": source}
            if not force or differences(test_sets.settings_of(args.dump, each.name), made_with):
                claimed[each] = made_with
    # The lists of noise are those of training: without --musan they would lose its kinds.
    of_lists = {**of_musan, **without(set().union(*left_out.values()))}
    noise_settings = {**settings["babble"], **of_lists, **settings["noisex"]}
    is_done(folder / ".done", noise_settings, "--dumpdir", force)
    test_sets.claim(args.dump, claimed, force)
    noises_of = {"babble": prepare_babble(args, folder / "babble"), **musan}
    if noisex:
        noises_of["noisex"] = prepare_noisex(noisex, args, settings["noisex"], folder / "noisex")
    for split in SPLITS:
        for kind in set(KINDS) - set(noises_of):
            (folder / f"{split}_{kind}.scp").unlink(missing_ok=True)
        for kind, noises in noises_of.items():
            write_scp(folder / f"{split}_{kind}.scp", noises[split])
        everything = {
            name: path for noises in noises_of.values() for name, path in noises[split].items()
        }
        write_scp(folder / f"{split}.scp", everything)
        print(f"{folder / f'{split}.scp'}: {len(everything)} noises")
    write_mark(folder / ".done", noise_settings)
    for (name, kind), made in wanted.items():
        if made:
            make_noisy_sets(args.dump / name, made, noises_of[kind]["test"], args)


if __name__ == "__main__":
    main()

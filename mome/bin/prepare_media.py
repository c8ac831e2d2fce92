"""Cut lips and store audio: from data/<set> to dump/<set>.

For each utterance of video.scp, writes lips/<speaker>/<utterance>.mp4 (96x96, grey, 25 frames a
second) and audio/<speaker>/<utterance>.flac (16 kHz, one channel, 640 samples a frame); besides
lip.scp, wav.scp, text, utt2spk, spk2utt, utt2dur and utt2num_frames. What cannot be used is listed
with its reason in `excluded`; `excluded_stage1` is the list of the data folder. Finished clips are
kept when the command is run again; a clip is made anew if its sources are others than `sources`
lists, with their sizes and times of change. --look_only true makes nothing: it writes a checksum of
what `sources` would say now to `sources.sha256`, and says which clips it would say it of.

--streams says what is asked for. With video alone, clips need no sound, and wav.scp is not written;
with audio alone, they need neither video nor face, and lip.scp is not written.

A clip in which the detector loses the face, or does in more than a tenth of the frames, is tried
with the other one, if --other_landmarks names its model, and the crop of which fewer frames are
interpolated is taken; the utterances whose crops the other one found are listed in `detectors`, and
the crops say it.
`crops.json` says what the crops were made with: detectors, SHA-256 of landmark models, geometry.

--exclude leaves out what a file lists, and --max_seconds what is longer; both are listed with what
cannot be used, but are no part of the share that --max_excluded limits. One list may serve all sets
of a corpus: an utterance that it names must be in --data or in a data folder beside it.

With a file `segments`, video.scp and wav.scp list recordings, and utterances are cut from them at
the nearest frames; a face is looked for in these frames alone. A recording is read once.

With --lip_dir the crops exist already, for instance from Auto-AVSR or AV-HuBERT, as
<lip_dir>/<speaker>/<number>.mp4, <lip_dir>/<split>/<speaker>/<number>.mp4 or
<lip_dir>/<utterance>.mp4; they are read to check them and used in place. For the segment NN of a
recording <number> they are <number>_NN.mp4 there, as Auto-AVSR names them; for a segment N (such as
0, not 00), as AV-HuBERT does, <lip_dir>/short-<split>/<speaker>/<number>_N.mp4, or <number>.mp4 for
a recording in one piece. Those of segments must have as many frames, or one more or less.
"""

import argparse
import shutil
from collections import Counter
from collections.abc import Collection
from functools import partial
from pathlib import Path

from mome.common.atomic_files import remove_partial
from mome.common.command import in_one_line, parser_for
from mome.common.extras import demand_installed
from mome.common.processes import AllCrash, map_items
from mome.common.text_files import read_text
from mome.data.exclusions import (
    FILE,
    OF_STAGE_1,
    OFFICIAL_SIZE,
    WHOLE_PICTURE,
    check_excluded,
    print_reasons,
    write_excluded,
)
from mome.data.kaldi import (
    c_sorted,
    read_scp,
    record_settings,
    same_settings,
    spk2utt_of,
    split_line,
    write_scp,
    write_text,
)
from mome.data.video import LIP_RATE
from mome.lips import provenance
from mome.lips.clips import AUDIO, STREAMS, Clip, list_clips
from mome.lips.detectors import DETECTORS
from mome.lips.preparation import (
    Outcome,
    Settings,
    exclude,
    made_before,
    prepare_recording,
    trackers_of,
)
from mome.lips.sources import drop_changed, look

SHOWN = 5  # utterances that an error names


def write_dump(data: Path, dump: Path, kept: dict[Clip, Outcome]) -> None:
    """Write the files of dump/<set> for the clips that are kept."""
    clips = {clip.utterance: clip for clip in kept}
    frames = {clip.utterance: outcome.num_frames for clip, outcome in kept.items()}
    utt2spk, text = read_scp(data / "utt2spk"), read_scp(data / "text")
    utt2spk = {utterance: utt2spk[utterance] for utterance in clips}
    found = {c.utterance: outcome.detector for c, outcome in kept.items() if outcome.detector}
    streams = {
        "lip.scp": {u: c.crop or c.lips_output for u, c in clips.items() if c.lips_output},
        "wav.scp": {u: c.audio_output for u, c in clips.items() if c.audio_output},
        "detectors": found,
    }
    for name, table in streams.items():
        if table:
            write_scp(dump / name, table)
        else:
            (dump / name).unlink(missing_ok=True)
    write_scp(dump / "text", {utterance: text[utterance] for utterance in clips})
    write_scp(dump / "utt2spk", utt2spk)
    write_scp(dump / "spk2utt", spk2utt_of(utt2spk))
    write_scp(dump / "utt2dur", {u: f"{n / LIP_RATE:.2f}" for u, n in frames.items()})
    write_scp(dump / "utt2num_frames", frames)


def read_unwanted(path: Path | None) -> dict[str, str]:
    """The utterances that a file asks to leave out, with their reasons; none without a file.

    Raises:
        SystemExit: if it does not exist or is no list of ids.
    """
    if path is None:
        return {}
    try:
        listed = read_scp(path)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"--exclude: {error}") from None
    return {utterance: f"{path}: {reason or 'listed'}" for utterance, reason in listed.items()}


def utterances_of(data: Path) -> set[str]:
    """The utterances of a data folder, and what stage 1 left out of it; none of another folder."""
    tables = ["utt2spk", FILE]
    # With segments, the other tables name recordings.
    tables += ["segments"] if (data / "segments").is_file() else ["video.scp", "wav.scp"]
    found = set()
    for table in tables:
        if (data / table).is_file():
            lines = read_text(data / table, otherwise="latin-1").split("\n")
            found |= {split_line(line)[0] for line in lines}
    return found | clips_left_out(found)


def clips_left_out(names: Collection[str]) -> set[str]:
    """By the ids of utterances, the clips that LRS' stage 1 lists as <part>/<speaker>/<number>."""
    return {"_".join(name.split("/")[1:]) for name in names if "/" in name}


def check_unwanted(path: Path, unwanted: Collection[str], data: Path) -> None:
    """See that every utterance of a list is in one of the corpus' sets.

    Args:
        path: of the list.
        unwanted: its utterances.
        data: one of the sets; those beside it may hold the others.

    Raises:
        SystemExit: with the utterances that are in none and the remedy.
    """
    unknown = set(unwanted) - utterances_of(data)
    for folder in data.absolute().parent.iterdir() if unknown else ():
        if folder.is_dir():
            found = utterances_of(folder)
            # Of a recording that LRS' stage 1 left out whole nobody knows the parts.
            whole = clips_left_out(found)
            parts = {name for name in unknown if name.rpartition("_")[0] in whole}
            unknown -= found | parts
    if unknown:
        first = ", ".join(c_sorted(unknown)[:SHOWN]) + (", ..." if len(unknown) > SHOWN else "")
        raise SystemExit(
            f"--exclude {path}: {len(unknown)} of {len(unwanted)} utterances are in no set of"
            f" {data.parent}: {first}. Correct or delete their lines; {data / 'utt2spk'}, for"
            " example, lists utterances"
        )


def hand_on(data: Path, dump: Path) -> None:
    """Copy what stage 1 says of the set's size, so that a table can say how complete the set is."""
    for file, name in ((FILE, OF_STAGE_1), (OFFICIAL_SIZE, OFFICIAL_SIZE)):
        if (data / file).is_file():
            write_text(dump / name, (data / file).read_text(encoding="utf-8"))
        else:
            (dump / name).unlink(missing_ok=True)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="e.g. data/train")
    parser.add_argument("--dump", type=Path, required=True, help="e.g. dump/train")
    parser.add_argument(
        "--landmarks", default="", help="shape_predictor_68_face_landmarks.dat; folder of mediapipe"
    )
    parser.add_argument(
        "--detector",
        choices=DETECTORS,
        default="dlib",
        help="finds faces, before the other one is tried; default: %(default)s",
    )
    parser.add_argument(
        "--other_landmarks", default="", help="the same of the other detector, which is tried then"
    )
    parser.add_argument(
        "--streams", nargs="+", choices=STREAMS, default=list(STREAMS), help="what is prepared"
    )
    parser.add_argument("--lip_dir", type=Path, help="crops that exist; nothing is detected then")
    parser.add_argument("--nj", type=int, default=1, help="processes")
    parser.add_argument("--parallel", help="YAML of a Dask cluster, in the place of --nj")
    parser.add_argument(
        "--audio_format",
        choices=AUDIO,
        default=AUDIO[0],
        help="of the sound that is written; default: %(default)s",
    )
    parser.add_argument(
        "--look_only", choices=("true", "false"), default="false", help="only look at the sources"
    )
    parser.add_argument("--detect_every", type=int, default=12, help="frames with landmarks")
    parser.add_argument("--detect_side", type=int, default=480, help="pixels; larger is reduced")
    parser.add_argument(
        "--landmark_every", type=int, default=3, help="frames; interpolated between"
    )
    parser.add_argument("--window", type=int, default=12, help="frames of landmark smoothing")
    parser.add_argument(
        "--fallback",
        choices=("true", "false"),
        default="false",
        help="true: of clips in which no detector finds the face, the whole picture is read in the"
        " place of the lips, as AV-HuBERT does, and `detectors` lists them as whole_picture",
    )
    parser.add_argument("--max_lost", type=float, default=0.5, help="share of frames without face")
    parser.add_argument(
        "--tolerance", type=float, default=0.2, help="s that audio and video may differ in length"
    )
    parser.add_argument("--max_excluded", type=float, default=0.1, help="share of utterances")
    parser.add_argument(
        "--exclude",
        type=Path,
        help="utterances left out, an id a line, and after it a reason; not part of that share",
    )
    parser.add_argument(
        "--max_seconds", type=float, help="longer clips are left out; not part of that share either"
    )
    return parser.parse_args(argv)


@in_one_line("mome-prepare-media")
def main(argv: list[str] | None = None) -> None:
    """Prepare one set."""
    args = parse(argv)
    streams = (args.lip_dir, args.audio_format, args.streams)
    if args.look_only == "true":
        look(args.dump, list_clips(args.data, args.dump, *streams)[0])
        return
    if args.parallel:
        demand_installed("mome-prepare-media", "espnet3")
    unwanted = read_unwanted(args.exclude)
    if args.exclude is not None:
        check_unwanted(args.exclude, unwanted, args.data)
    settings = Settings(
        args.landmarks,
        args.other_landmarks,
        args.detector,
        args.detect_every,
        args.detect_side,
        args.landmark_every,
        args.window,
        args.max_lost,
        args.tolerance,
        args.fallback == "true",
    )
    crops: dict[str, object] = {}
    sight = "video" in args.streams
    if args.lip_dir is not None:
        if not args.lip_dir.is_dir():
            raise SystemExit(f"--lip_dir {args.lip_dir} is not a folder")
        crops = provenance.elsewhere() if sight else {}
    elif sight:
        # Before anything is deleted for another model: it may be missing, or be none.
        trackers = trackers_of(settings)
        for tracker in trackers.values():
            tracker.read()
        crops = provenance.describe(args.detector, trackers, args.landmark_every, args.window)
    clips, excluded = list_clips(args.data, args.dump, *streams)
    # Where models are changes nothing; which of them found a crop is said in the crop, and what
    # they are in the record of the crops.
    choices = {name: value for name, value in vars(settings).items() if "landmarks" not in name}
    choices["lip_dir"] = str(args.lip_dir or "")
    if not settings.fallback:
        del choices["fallback"]  # as before there was this option
    asked = {u: unwanted[u] for u in {c.utterance for c in clips} | set(excluded) if u in unwanted}
    clips = [clip for clip in clips if clip.utterance not in asked]
    excluded = {u: reason for u, reason in excluded.items() if u not in asked}
    earlier = provenance.read_crops(args.dump)
    same = same_settings(args.dump, choices) and not provenance.outdated(earlier, crops)
    drop_changed(args.dump, clips, same)
    record_settings(args.dump, choices)
    earlier = earlier if same else {}
    # Of crops that a run for sound alone leaves there, the record stays, for a run that takes them.
    if sight or not same:
        provenance.write_crops(args.dump, provenance.joined(earlier, crops))
    remove_partial(args.dump)
    recordings: dict[tuple[str, ...], tuple[Clip, ...]] = {}
    for clip in clips:
        key = (clip.video, clip.audio) if clip.span else (clip.utterance,)
        recordings[key] = (*recordings.get(key, ()), clip)
    again = args.dump / ".again"
    try:
        outcomes = map_items(
            partial(prepare_recording, settings=settings),
            recordings.values(),
            args.nj,
            f"lips of {args.data.name}",
            args.parallel,
            crashed=exclude,
            control=partial(made_before, recordings.values(), again),
        )
    except AllCrash as error:
        raise SystemExit(f"{error}. If it is these clips, leave them out by --exclude") from None
    finally:
        shutil.rmtree(again, ignore_errors=True)
    results = {
        clip: outcome
        for of_recording, found in zip(recordings.values(), outcomes, strict=True)
        for clip, outcome in zip(of_recording, found, strict=True)
    }
    excluded |= {clip.utterance: o.reason for clip, o in results.items() if o.reason}
    kept = {clip: outcome for clip, outcome in results.items() if not outcome.reason}
    if args.max_seconds is not None:
        limit = args.max_seconds * LIP_RATE
        long = [clip for clip, outcome in kept.items() if not outcome.num_frames <= limit]
        reason = f"longer than --max_seconds {args.max_seconds:g}"
        asked |= {clip.utterance: f"{clip.audio or clip.video}: {reason}" for clip in long}
        kept = {clip: outcome for clip, outcome in kept.items() if clip.utterance not in asked}
    left_out = (excluded | asked).items()
    write_excluded(args.dump, left_out)
    hand_on(args.data, args.dump)
    print(
        f"{args.dump}: {len(kept)} utterances, {len(left_out)} excluded,"
        f" {sum(o.num_frames for o in kept.values()) / LIP_RATE / 3600:.2f} h;"
        f" {sum(o.lost for o in kept.values())} frames without a face were interpolated"
    )
    found_by = Counter(outcome.detector for outcome in kept.values() if outcome.detector)
    where = f"see {args.dump / 'detectors'}"
    if whole := found_by.pop(WHOLE_PICTURE, 0):
        print(f"  {whole} of them without a face: the whole picture stands for it; {where}")
    if others := found_by.total():
        print(f"  {others} of them by the other detector; {where}")
    print_reasons(left_out)
    option, limit = "--max_excluded", args.max_excluded
    of_recipe = (
        "--test_max_excluded <share> of a recipe's test sets,"
        f' --lip_opts "{option} <share>" of the others'
    )
    check_excluded(args.dump, len(excluded), len(kept), limit, option, of_recipe)
    write_dump(args.data, args.dump, kept)
    if "detector" in crops:
        found = Counter(outcome.detector or args.detector for outcome in kept.values())
        crops["clips"] = dict(sorted(found.items()))
    if sight:
        provenance.write_crops(args.dump, provenance.joined(earlier, crops))


if __name__ == "__main__":
    main()

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
cannot be used, but are no part of the share that --max_excluded limits.

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
import errno
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mome.common.atomic_files import remove_partial
from mome.common.extras import demand_installed
from mome.common.marks import digest_of, stamp_of
from mome.common.processes import map_items
from mome.data.audio import (
    FULL_SCALE,
    RATE,
    audio_seconds,
    file_of,
    fit_length,
    limit_peak,
    read_audio,
    write_flac,
)
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
    read_scp,
    read_segments,
    record_settings,
    same_settings,
    spk2utt_of,
    write_scp,
    write_text,
)
from mome.data.text import normalise
from mome.data.video import LIP_RATE, MediaError, read_lips, reason_of, video_info, write_lips
from mome.lips import provenance
from mome.lips.detectors import DETECTORS, load_tracker
from mome.lips.extract import (
    MIN_VISIBLE,
    FaceLost,
    Lips,
    crop_lips,
    lit_box,
    read_frames,
    read_spans,
    whole_picture,
)
from mome.lips.landmarks import FaceTracker, WrongModel

SAMPLES_PER_FRAME = RATE // LIP_RATE
STREAMS = ("audio", "video")
AUDIO = ("flac", "wav")  # formats
ROOT = Path(__file__).resolve().parents[2]
# Share of the frames of a crop made elsewhere that may be black, as where a scene fades.
MAX_DARK = 0.1


@dataclass(frozen=True)
class Clip:
    """One utterance: where its streams are and where they go.

    ``crop`` is a crop that exists; ``span`` is the first frame of a segment and the one after its
    last, at 25 a second. What is not asked for has no output: ``lips_output`` or ``audio_output``
    is empty.
    """

    utterance: str
    video: str
    audio: str
    lips_output: str
    audio_output: str
    crop: str | None
    span: tuple[int, int] | None = None

    @property
    def sources(self) -> list[str]:
        """The files that are read."""
        video = [self.crop or self.video] if self.lips_output else []
        return video + ([file_of(self.audio)] if self.audio_output else [])

    @property
    def outputs(self) -> list[str]:
        """The files that are written."""
        return [path for path in (self.audio_output, self.lips_output and self.new_crop) if path]

    @property
    def made_from(self) -> str:
        """Its sources with size and time of change, and the frames of a segment."""
        words = [stamp_of(path) for path in dict.fromkeys(self.sources)]
        if self.span:
            words.append("frames {} to {}".format(*self.span))
        return ", ".join(words)

    @property
    def new_crop(self) -> str:
        """Where the crop goes, unless it exists."""
        return "" if self.crop else self.lips_output


@dataclass(frozen=True)
class Outcome:
    """What became of a clip: its length in frames, how many had no face, or why it is excluded.

    ``detector`` is named if it is not the one that was asked for.
    """

    num_frames: int = 0
    lost: int = 0
    reason: str = ""
    detector: str = ""


@dataclass(frozen=True)
class Settings:
    """How crops are made; see the options of the same names."""

    landmarks: str
    other_landmarks: str
    detector: str
    detect_every: int
    detect_side: int
    landmark_every: int
    window: int
    max_lost: float
    tolerance: float
    fallback: bool


@dataclass(frozen=True)
class Made:
    """What a clip becomes: its length, samples (N,), the crop, and who found it if another did."""

    num_frames: int
    audio: np.ndarray | None
    lips: Lips | None
    detector: str


def prepare_recording(clips: tuple[Clip, ...], settings: Settings) -> list[Outcome]:
    """Make the lips and the audio of the clips of one recording, unless they are finished.

    An exception that a clip raises, whatever it is, excludes that clip, as a crash of the process
    does (:func:`exclude`). One that concerns all clips, such as a full disk or a model that is
    missing or is none, is raised.
    """
    outcomes = {clip: finished(clip) for clip in clips}
    todo = [clip for clip, outcome in outcomes.items() if not outcome.num_frames]
    trackers = trackers_of(settings) if any(clip.new_crop for clip in todo) else {}
    sound = read_once()
    for clip, frames in frames_of(todo):
        try:
            made = make_clip(clip, frames, sound, trackers, settings)
        except WrongModel:
            raise
        except Exception as error:
            outcomes[clip] = Outcome(reason=explain(error, clip))
            continue
        try:
            outcomes[clip] = write_clip(clip, made)
        except Exception as error:
            if isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG:
                raise
            outcomes[clip] = Outcome(reason=explain(error, clip))
    return [outcomes[clip] for clip in clips]


def explain(error: Exception, clip: Clip) -> str:
    """The reason for which a clip is excluded; it names the file."""
    reason = reason_of(error)
    named = isinstance(error, MediaError | FileNotFoundError)
    return reason if named else f"{clip.video or clip.audio}: {reason}"


def write_clip(clip: Clip, made: Made) -> Outcome:
    """Write the outputs of a clip; errors as of `write_flac` and `write_lips`."""
    if made.audio is not None:
        write_flac(clip.audio_output, made.audio)
    if made.lips is not None:
        write_lips(clip.lips_output, made.lips.frames, comment=made.detector)
    lost = made.lips.lost if made.lips else 0
    return Outcome(made.num_frames, lost, detector=made.detector)


def exclude(clips: tuple[Clip, ...], reason: str) -> list[Outcome]:
    """The outcomes of clips of a recording that ended the process; finished ones are kept."""
    outcomes = ((clip, finished(clip)) for clip in clips)
    return [
        outcome if outcome.num_frames else Outcome(reason=f"{clip.video or clip.audio}: {reason}")
        for clip, outcome in outcomes
    ]


def read_once() -> Callable[[str], np.ndarray]:
    """`read_audio` that keeps what it has read, or why that failed."""
    kept: dict[str, np.ndarray | Exception] = {}

    def read(path: str) -> np.ndarray:
        if path not in kept:
            try:
                kept[path] = read_audio(path)
            except Exception as error:
                kept[path] = error
        found = kept[path]
        if isinstance(found, Exception):
            raise found
        return found

    return read


def frames_of(clips: list[Clip]) -> Iterator[tuple[Clip, list[np.ndarray] | Exception]]:
    """The clips of one recording, each with its frames, or with why they cannot be read.

    There are none for clips that need no new crop.
    """
    segments = [clip for clip in clips if clip.new_crop and clip.span]
    for clip in clips:
        if clip in segments:
            continue
        frames: list[np.ndarray] | Exception = []
        if clip.new_crop:
            try:
                frames = read_frames(clip.video)
            except Exception as error:
                frames = error
        yield clip, frames
    if segments:
        spans = [clip.span for clip in segments if clip.span]
        for place, part in read_spans(segments[0].video, spans):
            yield segments[place], part


def make_clip(
    clip: Clip,
    frames: list[np.ndarray] | Exception,
    sound: Callable[[str], np.ndarray],
    trackers: Mapping[str, FaceTracker],
    settings: Settings,
) -> Made:
    """Crop the lips of a clip and cut its audio to the same length.

    Raises:
        MediaError: with the reason why the clip cannot be used; reading may raise anything.
    """
    lips, detector, num_frames = None, "", 0
    if isinstance(frames, Exception):
        raise frames
    if clip.new_crop:
        lips, detector = find_lips(frames, clip.video, trackers, settings)
        num_frames = len(lips.frames)
    elif clip.crop:
        crop = read_lips(clip.crop)
        num_frames = len(crop)
        check_lit(crop, clip.crop)
    wanted = clip.span[1] - clip.span[0] if clip.span else num_frames
    # A crop of another segment may be about as long: only what has its very frames is this one's.
    allowed = 1 if clip.crop else settings.tolerance * LIP_RATE
    if clip.lips_output and abs(num_frames - wanted) > allowed:
        counts = f"{num_frames} frames for a segment of {wanted}"
        raise MediaError(clip.crop or clip.video, counts)
    audio = None
    if clip.audio_output:
        audio = sound(clip.audio)
        if clip.span:
            audio = audio[slice(*(SAMPLES_PER_FRAME * frame for frame in clip.span))]
        if not clip.lips_output:
            num_frames = wanted or max(1, round(len(audio) / SAMPLES_PER_FRAME))
        audio = fit_audio(audio, num_frames, clip, settings.tolerance)
    return Made(num_frames, audio, lips, detector)


def check_lit(crop: np.ndarray, path: str) -> None:
    """See that few frames of a crop (T, H, W) made elsewhere are mostly black, as beside a picture.

    Raises:
        MediaError: if more are; says how many.
    """
    boxes = [lit_box([frame]) or (0, 0, 0, 0) for frame in crop]
    shares = [(right - left) * (bottom - top) / crop[0].size for left, top, right, bottom in boxes]
    dark = sum(share < MIN_VISIBLE for share in shares)
    if dark > MAX_DARK * len(crop):
        what = f"{dark} of {len(crop)} frames of the crop are mostly black"
        raise MediaError(path, f"{what}; crop it again, or drop the utterance")


def fit_audio(audio: np.ndarray, num_frames: int, clip: Clip, tolerance: float) -> np.ndarray:
    """Cut or fill samples (N,) to a length in frames, and see that there is something to hear.

    Raises:
        MediaError: if the lengths differ by more than the tolerance, or 16 bits keep nothing.
    """
    length = num_frames * SAMPLES_PER_FRAME
    if abs(len(audio) - length) > tolerance * RATE:
        seconds = f"{len(audio) / RATE:.2f} s and {num_frames / LIP_RATE:.2f} s"
        if not clip.lips_output:
            raise MediaError(clip.audio, f"sound and segment differ in length: {seconds}")
        rate = "; see its frame rate" if clip.crop else ""
        raise MediaError(
            clip.crop or clip.audio, f"audio and video differ in length: {seconds}{rate}"
        )
    audio = limit_peak(fit_length(audio, length))
    if np.abs(audio).max() < (1 - FULL_SCALE) / 2:
        raise MediaError(
            clip.audio, "the audio is silent; its channels may cancel each other: use one of them"
        )
    return audio


def find_lips(
    frames: list[np.ndarray], path: str, trackers: Mapping[str, FaceTracker], settings: Settings
) -> tuple[Lips, str]:
    """The mouth crop, and the detector that found it if it is not the first one.

    Where a detector loses the face often, the next one is asked too, and the crop with fewer lost
    frames is taken.

    Raises:
        FaceLost: with what the first detector says, if all of them lose the face and the whole
            picture is not to stand for it.
    """
    first: FaceLost | None = None
    best: Lips | None = None
    found_by = ""
    for name, tracker in trackers.items():
        try:
            lips = crop_lips(
                frames,
                path,
                tracker,
                settings.landmark_every,
                settings.window,
                settings.max_lost,
            )
        except FaceLost as lost:
            first = first or lost
            continue
        if best is None or lips.lost < best.lost:
            best, found_by = lips, name
        if not best.often_lost:
            break
    if best is not None:
        return best, found_by if found_by != settings.detector else ""
    assert first is not None, "there is at least one tracker"
    if not settings.fallback:
        raise first
    return Lips(whole_picture(frames), seen=0, lost=0), WHOLE_PICTURE


def trackers_of(settings: Settings) -> dict[str, FaceTracker]:
    """The trackers that find the faces: the one asked for and, if its model is there, the other."""
    models = {settings.detector: settings.landmarks}
    if settings.other_landmarks:
        (other,) = (name for name in DETECTORS if name != settings.detector)
        models[other] = settings.other_landmarks
    return {
        name: load_tracker(model, settings.detect_every, settings.detect_side, name)
        for name, model in models.items()
    }


def finished(clip: Clip) -> Outcome:
    """The outcome if all outputs exist and agree, else an empty one.

    What was made from other sources has been deleted by `drop_changed`. How many frames had no face
    is not known. Whatever cannot be read is not finished; making it again says why.
    """
    try:
        if not all(Path(path).is_file() for path in (*clip.sources, *clip.outputs)):
            return Outcome()
        detector, num_frames = "", 0
        if clip.lips_output:
            info = video_info(clip.crop or clip.lips_output)
            num_frames, detector = info.num_frames, info.comment if clip.new_crop else ""
        if clip.audio_output:
            length = audio_seconds(clip.audio_output) * LIP_RATE
            num_frames = num_frames or round(length)
            if abs(length - num_frames) > 1e-3:
                return Outcome()
        elif clip.crop:
            num_frames = 0  # nothing was written that says it has been read
    except Exception:
        return Outcome()
    return Outcome(num_frames, detector=detector)


def made_of(clip: Clip, dump: Path) -> list[Path]:
    """The files that were made of a clip, also by runs that were asked for other streams."""
    made = [Path(path) for path in clip.outputs]
    known = Path(clip.audio_output or clip.lips_output).relative_to(dump)  # audio/<speaker>/<file>
    if not clip.lips_output:
        made.append(dump / "lips" / known.parent.name / f"{clip.utterance}.mp4")
    if not clip.audio_output:
        made += [dump / "audio" / known.parent.name / f"{clip.utterance}.{f}" for f in AUDIO]
    return [path for path in made if path.is_file()]


def drop_changed(dump: Path, clips: list[Clip], same: bool) -> None:
    """Delete the outputs of clips that were made from other sources, and record those of now.

    The record comes before the work, so that a killed run keeps what it has finished. What it says
    holds for streams that are not asked for now, too, as a later run may take what is left of them.

    Args:
        dump: folder of the record, ``sources``.
        clips: all clips of the set.
        same: whether the settings are those of before; otherwise all outputs are deleted.
    """
    record = dump / "sources"
    known = read_scp(record) if same and record.is_file() else {}
    sources = {clip.utterance: clip.made_from for clip in clips}
    for clip in clips:
        if known.get(clip.utterance) != sources[clip.utterance]:
            for path in made_of(clip, dump):
                path.unlink()
    write_scp(record, sources)


def look(dump: Path, clips: list[Clip]) -> None:
    """Write a checksum of what clips would be made from now, and say what has changed.

    Without any of the sources, as where a disk is not mounted, the checksum of before stays. Moving
    the repository changes nothing.
    """
    now = {clip.utterance: clip.made_from for clip in clips}
    record = dump / "sources.sha256"
    if record.is_file() and all(each.endswith(" absent") for each in now.values()):
        print(f"{dump}: none of the recordings is there now; they are taken to be as they were")
        return
    made = read_scp(dump / "sources") if (dump / "sources").is_file() else {}
    changed = sorted(name for name in now.keys() & made.keys() if now[name] != made[name])
    if changed:
        first = changed[0]
        print(
            f"{dump}: {len(changed)} of {len(made)} clips were made from other files than there"
            f" are now, such as {first}: was {made[first]}, is {now[first]}. To make only these"
            f" anew, delete {dump / '.done'}"
        )
    from_root = {name: made_from.replace(f"{ROOT}/", "") for name, made_from in now.items()}
    write_text(record, f"{digest_of(from_root)}\n")


def find_crop(
    lip_dir: Path, utterance: str, speaker: str, video: str, segmented: bool = False
) -> str:
    """An existing crop of an utterance; if there is none, the first path looked at."""
    number = utterance.removeprefix(speaker).lstrip("_-")
    folders, whole = Path(video).parts[-3:-1], Path(video).stem
    candidates = [
        lip_dir / speaker / f"{number}.mp4",
        *(
            lip_dir.joinpath(*folders[-depth:], f"{number if segmented else whole}.mp4")
            for depth in (2, 1)
            if video
        ),
        lip_dir / speaker / f"{utterance}.mp4",
        lip_dir / f"{utterance}.mp4",
    ]
    if segmented and len(folders) == 2:
        short = lip_dir / f"short-{folders[0]}" / folders[1]
        candidates.append(short / f"{number}.mp4")
        if number == f"{whole}_0":
            candidates.append(short / f"{whole}.mp4")
    return str(next((path for path in candidates if path.is_file()), candidates[0]))


def list_clips(
    data: Path,
    dump: Path,
    lip_dir: Path | None,
    audio_format: str,
    streams: Collection[str] = STREAMS,
) -> tuple[list[Clip], dict[str, str]]:
    """The clips of a data folder, and utterances excluded for what the folder lacks."""
    sound, sight = (stream in streams for stream in STREAMS)
    utt2spk, text = read_scp(data / "utt2spk"), read_scp(data / "text")
    videos = read_scp(data / "video.scp") if (data / "video.scp").is_file() else {}
    audios = read_scp(data / "wav.scp") if (data / "wav.scp").is_file() else {}
    if sight and not videos and lip_dir is None:
        raise FileNotFoundError(
            f"{data / 'video.scp'} does not exist; run stage 1, or give --lip_dir"
        )
    segments = read_segments(data / "segments") if (data / "segments").is_file() else {}
    clips, excluded = [], {}
    for utterance in sorted({*utt2spk, *(segments or videos or audios)}):
        speaker = utt2spk.get(utterance)
        segment = segments.get(utterance)
        recording = segment.recording if segment else utterance
        video = videos.get(recording, "")
        audio = audios.get(recording, video)
        span = None
        if segment:
            span = round(segment.start * LIP_RATE), round(segment.end * LIP_RATE)
        if not speaker:
            excluded[utterance] = f"{data / 'utt2spk'}: no speaker"
        elif not normalise(
            text.get(utterance, "")
        ):  # of "..." or "{NS}" scoring would keep nothing
            excluded[utterance] = f"{data / 'text'}: no words"
        elif segments and not segment:
            excluded[utterance] = f"{data / 'segments'}: no segment"
        elif span and span[0] == span[1]:
            excluded[utterance] = f"{data / 'segments'}: shorter than a frame"
        elif sound and not audio:
            excluded[utterance] = f"{data}: no audio"
        elif sight and not (video or lip_dir):
            excluded[utterance] = f"{data}: no video"
        else:
            name = f"{speaker}/{utterance}"
            crop = None
            if lip_dir and sight:
                crop = find_crop(lip_dir, utterance, speaker, video, bool(segment))
            clips.append(
                Clip(
                    utterance,
                    video,
                    audio,
                    str(dump / "lips" / f"{name}.mp4") if sight else "",
                    str(dump / "audio" / f"{name}.{audio_format}") if sound else "",
                    crop,
                    span,
                )
            )
    return clips, excluded


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


def hand_on(data: Path, dump: Path) -> None:
    """Copy what stage 1 says of the set's size, so that a table can say how complete the set is."""
    for file, name in ((FILE, OF_STAGE_1), (OFFICIAL_SIZE, OFFICIAL_SIZE)):
        if (data / file).is_file():
            write_text(dump / name, (data / file).read_text(encoding="utf-8"))
        else:
            (dump / name).unlink(missing_ok=True)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="e.g. data/train")
    parser.add_argument("--dump", type=Path, required=True, help="e.g. dump/train")
    parser.add_argument(
        "--landmarks", default="", help="shape_predictor_68_face_landmarks.dat; folder of mediapipe"
    )
    parser.add_argument("--detector", choices=DETECTORS, default="dlib")
    parser.add_argument(
        "--other_landmarks", default="", help="the same of the other detector, which is tried then"
    )
    parser.add_argument(
        "--streams", nargs="+", choices=STREAMS, default=list(STREAMS), help="what is prepared"
    )
    parser.add_argument("--lip_dir", type=Path, help="crops that exist; nothing is detected then")
    parser.add_argument("--nj", type=int, default=1, help="processes")
    parser.add_argument("--parallel", help="YAML of a Dask cluster, in the place of --nj")
    parser.add_argument("--audio_format", choices=AUDIO, default=AUDIO[0])
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


def main(argv: list[str] | None = None) -> None:
    """Prepare one set."""
    args = parse(argv)
    streams = (args.lip_dir, args.audio_format, args.streams)
    if args.look_only == "true":
        try:
            look(args.dump, list_clips(args.data, args.dump, *streams)[0])
        except (FileNotFoundError, ValueError) as error:
            raise SystemExit(str(error)) from None
        return
    if args.parallel:
        demand_installed("mome-prepare-media", "espnet3")
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
        trackers = trackers_of(settings)  # fails early if models are missing
        crops = provenance.describe(args.detector, trackers, args.landmark_every, args.window)
    clips, excluded = list_clips(args.data, args.dump, *streams)
    # Where models are changes nothing; which of them found a crop is said in the crop, and what
    # they are in the record of the crops.
    choices = {name: value for name, value in vars(settings).items() if "landmarks" not in name}
    choices["lip_dir"] = str(args.lip_dir or "")
    if not settings.fallback:
        del choices["fallback"]  # as before there was this option
    unwanted = read_unwanted(args.exclude)
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
    outcomes = map_items(
        partial(prepare_recording, settings=settings),
        recordings.values(),
        args.nj,
        f"lips of {args.data.name}",
        args.parallel,
        crashed=exclude,
    )
    results = {
        clip: outcome
        for of_recording, found in zip(recordings.values(), outcomes, strict=True)
        for clip, outcome in zip(of_recording, found, strict=True)
    }
    excluded |= {clip.utterance: o.reason for clip, o in results.items() if o.reason}
    kept = {clip: outcome for clip, outcome in results.items() if not outcome.reason}
    if args.max_seconds:
        limit = args.max_seconds * LIP_RATE
        long = [clip for clip, outcome in kept.items() if outcome.num_frames > limit]
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

"""Cut lips and store audio: from data/<set> to dump/<set>.

For each utterance of video.scp, writes lips/<speaker>/<utterance>.mp4 (96x96, grey, 25 frames a
second) and audio/<speaker>/<utterance>.flac (16 kHz, one channel, 640 samples a frame); besides
lip.scp, wav.scp, text, utt2spk, spk2utt, utt2dur and utt2num_frames. What cannot be used is listed
with its reason in `excluded`. Finished clips are kept when the command is run again.

With a file `segments`, video.scp and wav.scp list recordings, and utterances are cut from them at
the nearest frames; a face is looked for in these frames alone.

With --lip_dir the crops exist already, for instance from Auto-AVSR or AV-HuBERT, as
<lip_dir>/<speaker>/<number>.mp4, <lip_dir>/<split>/<speaker>/<number>.mp4 or
<lip_dir>/<utterance>.mp4; they are read to check them and used in place. For the segment NN of a
recording <number> they are <number>_NN.mp4 there, as Auto-AVSR names them, or, as AV-HuBERT does,
<lip_dir>/short-<split>/<speaker>/<number>_N.mp4 (<number>.mp4 for a recording in one piece).
"""

import argparse
import re
import sys
import zlib
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mome.common.atomic_files import remove_partial
from mome.common.processes import map_items
from mome.data.audio import (
    RATE,
    audio_seconds,
    file_of,
    fit_length,
    limit_peak,
    read_audio,
    write_flac,
)
from mome.data.kaldi import read_scp, read_segments, same_settings, spk2utt_of, write_scp
from mome.data.video import LIP_RATE, MediaError, read_lips, video_info, write_lips
from mome.lips.detectors import load_tracker
from mome.lips.extract import extract_lips
from mome.lips.landmarks import FaceTracker

SAMPLES_PER_FRAME = RATE // LIP_RATE


@dataclass(frozen=True)
class Clip:
    """One utterance: where its streams are and where they go.

    ``crop`` is a crop that exists; ``span`` is the first frame of a segment and the one after its
    last, at 25 a second.
    """

    utterance: str
    video: str
    audio: str
    lips_output: str
    audio_output: str
    crop: str | None
    span: tuple[int, int] | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a clip: its length in frames, how many had no face, or why it is excluded."""

    num_frames: int = 0
    lost: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Settings:
    """How crops are made; see the options of the same names."""

    landmarks: str
    detector: str
    detect_every: int
    detect_side: int
    landmark_every: int
    window: int
    max_lost: float
    tolerance: float


def prepare_clip(clip: Clip, settings: Settings) -> Outcome:
    """Make the lips and the audio of one clip, unless both are finished."""
    try:
        finished = finished_frames(clip)
        if finished:
            return Outcome(finished)
        lost = 0
        if clip.crop:
            num_frames = len(read_lips(clip.crop))
        else:
            tracker = tracker_of(settings)
            lips = extract_lips(
                clip.video,
                tracker,
                settings.landmark_every,
                settings.window,
                settings.max_lost,
                clip.span,
            )
            num_frames, lost = len(lips.frames), lips.lost
        length = num_frames * SAMPLES_PER_FRAME
        audio = read_audio(clip.audio)
        if clip.span:
            first, last = clip.span
            if abs(num_frames - (last - first)) > settings.tolerance * LIP_RATE:
                counts = f"{num_frames} frames for a segment of {last - first}"
                return Outcome(reason=f"{clip.crop or clip.video}: {counts}")
            audio = audio[first * SAMPLES_PER_FRAME : last * SAMPLES_PER_FRAME]
        if abs(len(audio) - length) > settings.tolerance * RATE:
            seconds = f"{len(audio) / RATE:.2f} s and {num_frames / LIP_RATE:.2f} s"
            rate = f"; see the frame rate of {clip.crop}" if clip.crop else ""
            return Outcome(
                reason=f"{clip.audio}: audio and video differ in length: {seconds}{rate}"
            )
        write_flac(clip.audio_output, limit_peak(fit_length(audio, length)))
        if not clip.crop:
            write_lips(clip.lips_output, lips.frames)
        return Outcome(num_frames, lost)
    except (MediaError, FileNotFoundError) as error:
        return Outcome(reason=str(error))


def tracker_of(settings: Settings) -> FaceTracker:
    """The tracker that finds the faces."""
    return load_tracker(
        settings.landmarks, settings.detect_every, settings.detect_side, settings.detector
    )


def finished_frames(clip: Clip) -> int:
    """Number of frames if both outputs exist, agree and are newer than their sources; else 0."""
    sources = [clip.crop or clip.video, file_of(clip.audio)]
    outputs = [clip.audio_output] if clip.crop else [clip.audio_output, clip.lips_output]
    if not all(Path(path).is_file() for path in (*sources, *outputs)):
        return 0
    if max(Path(path).stat().st_mtime for path in sources) > min(
        Path(path).stat().st_mtime for path in outputs
    ):
        return 0
    try:
        num_frames = video_info(clip.crop or clip.lips_output).num_frames
        length = audio_seconds(clip.audio_output) * LIP_RATE
    except MediaError:
        return 0
    return num_frames if abs(length - num_frames) < 1e-3 else 0


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
        part = number.rpartition("_")[2].lstrip("0") or "0"
        short = lip_dir / f"short-{folders[0]}" / folders[1]
        candidates += [short / f"{whole}_{part}.mp4"] + [short / f"{whole}.mp4"] * (part == "0")
    return str(next((path for path in candidates if path.is_file()), candidates[0]))


def list_clips(
    data: Path, dump: Path, lip_dir: Path | None, audio_format: str
) -> tuple[list[Clip], dict[str, str]]:
    """The clips of a data folder, and utterances excluded for what the folder lacks."""
    utt2spk, text = read_scp(data / "utt2spk"), read_scp(data / "text")
    videos = read_scp(data / "video.scp") if (data / "video.scp").is_file() else {}
    audios = read_scp(data / "wav.scp") if (data / "wav.scp").is_file() else {}
    if not videos and lip_dir is None:
        raise FileNotFoundError(
            f"{data / 'video.scp'} does not exist; run stage 1, or give --lip_dir"
        )
    segments = read_segments(data / "segments") if (data / "segments").is_file() else {}
    clips, excluded = [], {}
    for utterance in sorted({*utt2spk, *(segments or videos)}):
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
        elif not text.get(utterance):
            excluded[utterance] = f"{data / 'text'}: no words"
        elif segments and not segment:
            excluded[utterance] = f"{data / 'segments'}: no segment"
        elif span and span[0] == span[1]:
            excluded[utterance] = f"{data / 'segments'}: shorter than a frame"
        elif not audio or not (video or lip_dir):
            excluded[utterance] = f"{data}: no {'video' if audio else 'audio'}"
        else:
            name = f"{speaker}/{utterance}"
            crop = None
            if lip_dir:
                crop = find_crop(lip_dir, utterance, speaker, video, bool(segment))
            clips.append(
                Clip(
                    utterance,
                    video,
                    audio,
                    str(dump / "lips" / f"{name}.mp4"),
                    str(dump / "audio" / f"{name}.{audio_format}"),
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
    write_scp(dump / "lip.scp", {u: c.crop or c.lips_output for u, c in clips.items()})
    write_scp(dump / "wav.scp", {u: c.audio_output for u, c in clips.items()})
    write_scp(dump / "text", {utterance: text[utterance] for utterance in clips})
    write_scp(dump / "utt2spk", utt2spk)
    write_scp(dump / "spk2utt", spk2utt_of(utt2spk))
    write_scp(dump / "utt2dur", {u: f"{n / LIP_RATE:.2f}" for u, n in frames.items()})
    write_scp(dump / "utt2num_frames", frames)


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
    parser.add_argument("--detector", choices=("dlib", "mediapipe"), default="dlib")
    parser.add_argument("--lip_dir", type=Path, help="crops that exist; nothing is detected then")
    parser.add_argument("--nj", type=int, default=1, help="processes")
    parser.add_argument("--parallel", help="YAML of a Dask cluster, in the place of --nj")
    parser.add_argument("--audio_format", choices=("flac", "wav"), default="flac")
    parser.add_argument("--detect_every", type=int, default=12, help="frames with landmarks")
    parser.add_argument("--detect_side", type=int, default=480, help="pixels; larger is reduced")
    parser.add_argument(
        "--landmark_every", type=int, default=3, help="frames; interpolated between"
    )
    parser.add_argument("--window", type=int, default=12, help="frames of landmark smoothing")
    parser.add_argument("--max_lost", type=float, default=0.5, help="share of frames without face")
    parser.add_argument(
        "--tolerance", type=float, default=0.2, help="s that audio and video may differ in length"
    )
    parser.add_argument("--max_excluded", type=float, default=0.1, help="share of utterances")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Prepare one set."""
    args = parse(argv)
    settings = Settings(
        args.landmarks,
        args.detector,
        args.detect_every,
        args.detect_side,
        args.landmark_every,
        args.window,
        args.max_lost,
        args.tolerance,
    )
    if args.lip_dir is None:
        tracker_of(settings)  # fails early
    elif not args.lip_dir.is_dir():
        raise SystemExit(f"--lip_dir {args.lip_dir} is not a folder")
    clips, excluded = list_clips(args.data, args.dump, args.lip_dir, args.audio_format)
    choices = {name: value for name, value in vars(settings).items() if name != "landmarks"}
    choices["lip_dir"] = str(args.lip_dir or "")
    if any(clip.span for clip in clips):
        choices["segments"] = zlib.crc32((args.data / "segments").read_bytes())
    if not same_settings(args.dump, choices):
        for clip in clips:
            Path(clip.audio_output).unlink(missing_ok=True)
    remove_partial(args.dump)
    outcomes = map_items(
        partial(prepare_clip, settings=settings),
        clips,
        args.nj,
        f"lips of {args.data.name}",
        args.parallel,
    )
    results = dict(zip(clips, outcomes, strict=True))
    excluded |= {clip.utterance: o.reason for clip, o in results.items() if o.reason}
    kept = {clip: outcome for clip, outcome in results.items() if not outcome.reason}
    log = args.dump / "excluded"
    write_scp(log, excluded)
    total = len(kept) + len(excluded)
    print(
        f"{args.dump}: {len(kept)} utterances, {len(excluded)} excluded,"
        f" {sum(o.num_frames for o in kept.values()) / LIP_RATE / 3600:.2f} h;"
        f" {sum(o.lost for o in kept.values())} frames without a face were interpolated"
    )
    # Reasons that differ in numbers only are counted together.
    reasons = Counter(re.sub(r"[\d.]+", "N", r.partition(": ")[2]) for r in excluded.values())
    for reason, count in reasons.most_common(10):
        print(f"  excluded {count}: {reason}")
    if not kept or len(excluded) > args.max_excluded * total:
        sys.exit(
            f"{len(excluded)} of {total} utterances are excluded, more than --max_excluded"
            f" {args.max_excluded:g} allows; see {log}"
        )
    write_dump(args.data, args.dump, kept)


if __name__ == "__main__":
    main()

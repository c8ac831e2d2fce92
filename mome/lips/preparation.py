"""Make the mouth crop and the audio of clips, of one recording at a time."""

import errno
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mome.data.audio import (
    FULL_SCALE,
    RATE,
    audio_seconds,
    fit_length,
    limit_peak,
    read_audio,
    write_flac,
)
from mome.data.exclusions import WHOLE_PICTURE
from mome.data.video import (
    LIP_RATE,
    MediaError,
    iter_video,
    read_lips,
    reason_of,
    video_info,
    write_lips,
)
from mome.lips.clips import Clip
from mome.lips.detectors import DETECTORS, load_tracker
from mome.lips.extract import (
    BLACK,
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
# Share of the frames of a crop made elsewhere that may be black, as where a scene fades.
MAX_DARK = 0.1


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
class Outcome:
    """What became of a clip: its length in frames, how many had no face, or why it is excluded.

    ``detector`` is named if it is not the one that was asked for.
    """

    num_frames: int = 0
    lost: int = 0
    reason: str = ""
    detector: str = ""


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
    does (:func:`exclude`) with which another clip can be made. One that concerns all clips, such as
    a full disk or a model that is missing or is none, is raised.
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


def made_before(recordings: Iterable[tuple[Clip, ...]], folder: Path) -> tuple[Clip, ...] | None:
    """A finished clip, to be made once more in a new folder; None if none is finished."""
    shutil.rmtree(folder, ignore_errors=True)
    for clip in (clip for clips in recordings for clip in clips):
        if finished(clip).num_frames:
            lips, audio = (
                path and str(folder / Path(path).name)
                for path in (clip.lips_output, clip.audio_output)
            )
            return (replace(clip, lips_output=lips, audio_output=audio),)
    return None


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
    if clip.crop and not clip.span and not clip.audio_output:
        check_length(num_frames, clip, settings.tolerance)  # with sound, that tells
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


def check_length(num_frames: int, clip: Clip, tolerance: float) -> None:
    """See that a crop made elsewhere is as long as its video, if that is there and can be read.

    Raises:
        MediaError: if they differ by more than the tolerance.
    """
    length = num_frames / LIP_RATE
    try:
        seconds = video_info(clip.video).seconds or length
    except (MediaError, OSError):
        return
    if abs(length - seconds) > tolerance:
        with suppress(MediaError):  # the header may be wrong, as in an AVI that was stopped early
            seconds = sum(1 for _ in iter_video(clip.video, True, LIP_RATE)) / LIP_RATE
    if abs(length - seconds) > tolerance:
        counts = f"{num_frames} frames for a video of {seconds:.2f} s; see its frame rate"
        raise MediaError(clip.crop or clip.video, counts)


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
            picture is not to stand for it, or is black throughout.
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
    if not settings.fallback or all(frame.max() < BLACK for frame in frames):
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

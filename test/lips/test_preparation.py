"""mome.lips.preparation: lengths, silence and darkness of clips, and whose fault an error is."""

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mome.data.audio import write_flac
from mome.data.video import MediaError, write_lips
from mome.lips import preparation
from mome.lips.clips import Clip
from mome.lips.extract import Lips
from mome.lips.landmarks import WrongModel
from mome.lips.preparation import (
    Made,
    Outcome,
    Settings,
    check_length,
    check_lit,
    exclude,
    explain,
    finished,
    fit_audio,
    frames_of,
    made_before,
    make_clip,
    prepare_recording,
    read_once,
    trackers_of,
)

SETTINGS = Settings("model", "", "dlib", 12, 480, 3, 12, 0.5, 0.2, False)
BOTH = Clip("a_1", "a.mp4", "a.wav", "lips.mp4", "a.flac", None)
CUT = replace(BOTH, crop="crop.mp4")
HEARD = replace(BOTH, lips_output="")
SEEN = replace(BOTH, audio_output="")


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, count).astype(np.float32)


@pytest.mark.parametrize(
    ("count", "kept"), [(12799, False), (12800, True), (19200, True), (19201, False)]
)
def test_sound_may_differ_from_the_picture_by_the_tolerance(count, kept):
    """A second of 25 frames is 16000 samples, a fifth of one 3200."""
    sound = noise(count)
    if kept:
        fitted = fit_audio(sound, 25, BOTH, 0.2)
        assert len(fitted) == 16000
        assert np.array_equal(fitted[:count], sound[:16000])
        assert not fitted[count:].any()
        return
    lengths = rf"{count / 16000:.2f} s and 1\.00 s"
    for clip, said in (
        (BOTH, rf"a\.wav: audio and video differ in length: {lengths}$"),
        (CUT, rf"crop\.mp4: audio and video differ in length: {lengths}; see its frame rate$"),
        (HEARD, rf"a\.wav: sound and segment differ in length: {lengths}$"),
    ):
        with pytest.raises(MediaError, match=said):
            fit_audio(sound, 25, clip, 0.2)


def test_sound_above_full_scale_is_scaled():
    assert np.abs(fit_audio(3 * noise(16000), 25, BOTH, 0.2)).max() == pytest.approx(32767 / 32768)


@pytest.mark.parametrize(("peak", "kept"), [(0.49, False), (0.51, True)])
def test_sound_of_less_than_half_a_step_of_16_bits_is_silent(tmp_path, peak, kept):
    """Of either sign, as nothing is left of it in the file."""
    sound = np.zeros(16000, np.float32)
    sound[100] = -peak / 32768
    write_flac(tmp_path / "a.flac", sound)
    assert preparation.read_audio(tmp_path / "a.flac").any() == kept
    if kept:
        assert np.array_equal(fit_audio(sound, 25, BOTH, 0.2), sound)
    else:
        with pytest.raises(MediaError, match=r"a\.wav: the audio is silent"):
            fit_audio(sound, 25, BOTH, 0.2)


@pytest.mark.parametrize(("columns", "rows", "dark"), [(48, 96, 0), (47, 96, 10), (72, 62, 10)])
def test_a_crop_made_elsewhere_is_lit_by_half(columns, rows, dark):
    """Wherever in it; a tenth of its frames may be darker, as where a scene fades."""
    check_lit(np.full((1, 96, 96), 24, np.uint8), "crop.mp4")
    crop = np.full((100, 96, 96), 24, np.uint8)
    for frame in range(20, 30):
        crop[frame, :, : 96 - columns] = 23
        crop[frame, : 96 - rows] = 23
    check_lit(crop, "crop.mp4")
    crop[50] = 23
    if dark:
        said = "11 of 100 frames of the crop are mostly black; crop it again, or drop the utterance"
        with pytest.raises(MediaError, match=rf"crop\.mp4: {said}"):
            check_lit(crop, "crop.mp4")
    else:
        check_lit(crop, "crop.mp4")


@pytest.fixture
def seconds(monkeypatch) -> list[float]:
    """What the header of a video says, and how long it is in truth."""
    lengths = [1.0, 1.0]

    def info(path):
        if path == "none.mp4":
            raise FileNotFoundError(path)
        return type("Info", (), {"seconds": lengths[0]})

    def frames(path, grey, rate):
        return iter(range(round(lengths[1] * rate)))

    monkeypatch.setattr(preparation, "video_info", info)
    monkeypatch.setattr(preparation, "iter_video", frames)
    return lengths


@pytest.mark.parametrize(("count", "kept"), [(19, False), (20, True), (30, True), (31, False)])
def test_a_crop_may_differ_from_its_video_by_the_tolerance(seconds, count, kept):
    """By a fifth of a second, five frames; the header is not believed where it differs."""
    lengths = [(1.0, 1.0), (9.0, 1.0)]
    for seconds[:] in lengths:
        if kept:
            check_length(count, CUT, 0.2)
        else:
            said = rf"crop\.mp4: {count} frames for a video of 1\.00 s; see its frame rate"
            with pytest.raises(MediaError, match=said):
                check_length(count, CUT, 0.2)
    check_length(15, CUT, 0.4)  # which is just what 0.6 and 1 differ by
    seconds[:] = 0.0, 1.0  # a header that says nothing
    check_length(count, CUT, 0.2)
    seconds[:] = 9.0, 9.0
    check_length(count, replace(CUT, video="none.mp4"), 0.2)


@pytest.fixture
def crop(monkeypatch) -> list[int]:
    """How many frames the crop has that is read, and their level; of one made, 2 lack the face."""
    count = [25, 128]

    def read(path):
        return np.full((count[0], 96, 96), count[1], np.uint8)

    monkeypatch.setattr(preparation, "read_lips", read)

    def find(given, path, trackers, settings):
        return Lips(np.zeros((len(given), 96, 96), np.uint8), seen=9, lost=2), "mediapipe"

    monkeypatch.setattr(preparation, "find_lips", find)
    return count


def make(clip: Clip, count: int = 0, samples: int = 16000) -> Made:
    frames = [np.zeros((9, 9), np.uint8)] * count
    return make_clip(clip, frames, lambda path: noise(samples), {}, SETTINGS)


def test_the_length_of_a_clip_is_that_of_its_crop(crop, seconds):
    made = make(BOTH, 24)
    assert (made.num_frames, len(made.audio), len(made.lips.frames)) == (24, 24 * 640, 24)
    assert made.detector == "mediapipe"
    made = make(SEEN, 24)
    assert (made.num_frames, made.audio, made.lips.lost) == (24, None, 2)
    made = make(CUT)
    assert (made.num_frames, len(made.audio), made.lips, made.detector) == (25, 16000, None, "")
    # Without sound, the video tells; with it, that does.
    seconds[:] = 2.0, 2.0
    assert make(CUT).num_frames == 25
    with pytest.raises(MediaError, match=r"25 frames for a video of 2\.00 s"):
        make(replace(CUT, audio_output=""))
    span = replace(CUT, audio_output="", span=(50, 75))
    assert make(span).num_frames == 25
    crop[1] = 0
    with pytest.raises(
        MediaError, match=r"crop\.mp4: 25 of 25 frames of the crop are mostly black"
    ):
        make(CUT)


@pytest.mark.parametrize(("samples", "frames"), [(16000, 25), (16319, 25), (16321, 26), (100, 1)])
def test_the_length_of_sound_alone_is_its_own(samples, frames):
    """Rounded to frames of 640 samples, one at least."""
    made = make(HEARD, samples=samples)
    assert (made.num_frames, len(made.audio), made.lips) == (frames, 640 * frames, None)


def test_the_length_of_a_segment_is_what_it_was_cut_to(crop):
    """Sound and picture may be shorter by the tolerance, a crop made elsewhere by one frame."""
    sound = noise(64000)

    def cut(clip, count=0):
        frames = [np.zeros((9, 9), np.uint8)] * count
        clip = replace(clip, span=(50, 75))
        return make_clip(clip, frames, lambda path: sound, {}, SETTINGS)

    assert np.array_equal(cut(HEARD).audio, sound[32000:48000])
    for count in (20, 30):
        made = cut(BOTH, count)
        assert made.num_frames == count
        assert np.array_equal(made.audio[:12800], sound[32000:44800])
    for count in (19, 31):
        with pytest.raises(MediaError, match=rf"a\.mp4: {count} frames for a segment of 25"):
            cut(BOTH, count)
    for crop[0], kept in ((23, False), (24, True), (26, True), (27, False)):
        if kept:
            assert cut(CUT).num_frames == crop[0]
        else:
            with pytest.raises(MediaError, match=rf"crop\.mp4: {crop[0]} frames for a segment of"):
                cut(CUT)


def test_frames_are_read_of_clips_that_need_a_crop(monkeypatch):
    """Of a recording in segments once, each when it is there."""
    asked = []

    def read(path):
        asked.append(path)
        if path == "bad.mp4":
            raise RuntimeError("bad")
        return [path]

    def spans(path, places):
        asked.append((path, places))
        yield 1, ["second"]
        yield 0, ["first"]

    monkeypatch.setattr(preparation, "read_frames", read)
    monkeypatch.setattr(preparation, "read_spans", spans)
    bad = replace(BOTH, video="bad.mp4")
    one, two = replace(BOTH, span=(0, 5)), replace(BOTH, span=(5, 9))
    found = list(frames_of([one, BOTH, HEARD, two, CUT, bad, replace(CUT, span=(0, 5))]))
    assert [clip for clip, _ in found[:-2]] == [BOTH, HEARD, CUT, bad, replace(CUT, span=(0, 5))]
    assert [frames for _, frames in found[:3]] == [["a.mp4"], [], []]
    assert str(found[3][1]) == "bad"
    assert found[4][1] == []
    assert found[5:] == [(two, ["second"]), (one, ["first"])]
    assert asked == ["a.mp4", "bad.mp4", ("a.mp4", [(0, 5), (5, 9)])]
    monkeypatch.setattr(preparation, "read_spans", lambda path, places: [(0, ["only"])])
    assert list(frames_of([two])) == [(two, ["only"])]


def test_sound_is_read_once_also_if_it_cannot_be_read(monkeypatch):
    asked = []

    def read(path):
        asked.append(path)
        if path == "bad.wav":
            raise RuntimeError("bad")
        return noise(5)

    monkeypatch.setattr(preparation, "read_audio", read)
    sound = read_once()
    assert sound("a.wav") is sound("a.wav")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="bad"):
            sound("bad.wav")
    assert asked == ["a.wav", "bad.wav"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MediaError("b.wav", "truncated"), "b.wav: truncated"),
        (FileNotFoundError("b.wav does not exist"), "b.wav does not exist"),
        (RuntimeError("of a\nkind"), "a.mp4: RuntimeError: of a kind"),
    ],
)
def test_a_reason_names_the_file(error, reason):
    assert explain(error, BOTH) == reason
    assert explain(error, replace(BOTH, video="")) == reason.replace("a.mp4", "a.wav")


def write(folder: Path, lips: int = 0, samples: int = 0, comment: str = "") -> Clip:
    """A clip whose sources are there, and of which these have been made."""
    for name in ("a.mp4", "a.wav"):
        (folder / name).touch()
    names = (folder / name for name in ("a.mp4", "a.wav", "lips.mp4", "a.flac"))
    clip = Clip("a_1", *map(str, names), None)
    if lips:
        write_lips(clip.lips_output, np.full((lips, 96, 96), 128, np.uint8), comment=comment)
    if samples:
        write_flac(clip.audio_output, noise(samples))
    return clip


def test_what_is_finished_is_known(tmp_path):
    """All outputs are there, are of one length, and nothing that they are made from lacks."""
    clip = write(tmp_path, 12, 12 * 640, "mediapipe")
    found = Outcome(12, detector="mediapipe")
    assert finished(clip) == found
    assert exclude((clip,), "crashed") == [found]
    assert finished(replace(clip, audio_output="")) == found
    assert finished(replace(clip, lips_output="")) == Outcome(12)
    # Of a crop made elsewhere the sound tells that it has been read.
    crop = replace(clip, crop=clip.lips_output)
    assert finished(crop) == Outcome(12)
    assert finished(replace(crop, audio_output="")) == Outcome()
    assert finished(replace(clip, audio="none.wav")) == Outcome()
    for lips, samples in ((12, 12 * 640 + 1), (13, 12 * 640), (0, 100)):
        clip = write(tmp_path, lips, samples)
        clip = clip if lips else replace(clip, lips_output="")
        assert finished(clip) == Outcome()
    assert exclude((clip,), "crashed") == [Outcome(reason=f"{tmp_path / 'a.mp4'}: crashed")]
    heard = replace(clip, video="")
    assert exclude((heard,), "crashed") == [Outcome(reason=f"{tmp_path / 'a.wav'}: crashed")]
    Path(clip.audio_output).write_bytes(b"fLaC")
    assert finished(clip) == Outcome()


def test_a_finished_clip_is_made_again_beside_what_is_there(tmp_path):
    (tmp_path / "again").mkdir()
    (tmp_path / "again/old").touch()
    clip = write(tmp_path, 12, 12 * 640)
    lacking = replace(clip, audio_output=str(tmp_path / "none.flac"))
    assert made_before([(lacking,)], tmp_path / "again") is None
    assert not (tmp_path / "again").exists()
    (again,) = made_before([(lacking,), (lacking, clip)], tmp_path / "again")
    assert again.lips_output == str(tmp_path / "again/lips.mp4")
    assert again.audio_output == str(tmp_path / "again/a.flac")
    assert again.sources == clip.sources
    (again,) = made_before([(replace(clip, lips_output=""),)], tmp_path / "again")
    assert again.lips_output == ""


@pytest.fixture
def stage(tmp_path, monkeypatch) -> tuple[Clip, Clip]:
    """One finished clip and one that is to be made; no detector is loaded."""
    monkeypatch.setattr(preparation, "trackers_of", lambda settings: {})
    monkeypatch.setattr(preparation, "read_frames", lambda path: [])
    monkeypatch.setattr(preparation, "read_audio", lambda path: noise(12 * 640))
    done = write(tmp_path, 12, 12 * 640)
    names = {name: str(tmp_path / f"new{name}") for name in (".mp4", ".flac")}
    return done, replace(done, lips_output=names[".mp4"], audio_output=names[".flac"])


def test_what_is_made_is_written_and_told(stage, monkeypatch):
    done, new = stage
    lips = Lips(np.full((12, 96, 96), 128, np.uint8), seen=5, lost=2)

    def find(frames, path, trackers, settings):
        assert (frames, path, trackers) == ([], new.video, {})
        return lips, "mediapipe"

    monkeypatch.setattr(preparation, "find_lips", find)
    before = Path(done.lips_output).stat().st_mtime_ns
    assert prepare_recording((done, new), SETTINGS) == [
        Outcome(12),
        Outcome(12, lost=2, detector="mediapipe"),
    ]
    assert Path(done.lips_output).stat().st_mtime_ns == before
    assert finished(new) == Outcome(12, detector="mediapipe")
    heard = replace(new, lips_output="", audio_output=f"{new.audio_output}.flac")
    assert prepare_recording((heard,), SETTINGS) == [Outcome(12)]
    monkeypatch.setattr(preparation, "trackers_of", None)  # where no crop is made
    heard = replace(heard, audio_output=f"{new.audio_output}.wav")
    assert prepare_recording((done, heard), SETTINGS) == [Outcome(12)] * 2


@pytest.mark.parametrize("step", ["make_clip", "write_clip"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENAMETOOLONG, None])
def test_an_error_is_the_clips_unless_it_concerns_all(stage, monkeypatch, step, number):
    """A full disk does, where something is written; too long a name does not."""
    done, new = stage
    error = OSError(number, "reason") if number else RuntimeError("reason")

    def fail(*_):
        raise error

    monkeypatch.setattr(preparation, "make_clip", lambda *_: Made(12, None, None, ""))
    monkeypatch.setattr(preparation, step, fail)
    if step == "write_clip" and number == errno.ENOSPC:
        with pytest.raises(OSError, match="reason"):
            prepare_recording((done, new), SETTINGS)
    else:
        kept, failed = prepare_recording((done, new), SETTINGS)
        assert kept == Outcome(12)
        assert failed.num_frames == 0
        assert failed.reason.startswith(f"{new.video}: ")
    error = WrongModel("reason")
    if step == "make_clip":
        with pytest.raises(WrongModel):
            prepare_recording((done, new), SETTINGS)


def test_the_other_detector_is_asked_if_its_model_is_there(monkeypatch):
    monkeypatch.setattr(preparation, "load_tracker", lambda *args: args)
    assert trackers_of(SETTINGS) == {"dlib": ("model", 12, 480, "dlib")}
    for first, second in (("dlib", "mediapipe"), ("mediapipe", "dlib")):
        found = trackers_of(replace(SETTINGS, detector=first, other_landmarks="other"))
        assert list(found.items()) == [
            (first, ("model", 12, 480, first)),
            (second, ("other", 12, 480, second)),
        ]

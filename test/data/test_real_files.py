"""Recordings as cameras, phones and browsers write them, and damaged ones."""

from fractions import Fraction

import numpy as np
import pytest
import soundfile
from media import patch_avi, write_clip

from mome.data import audio
from mome.data.audio import audio_seconds, iter_audio, read_audio
from mome.data.video import MediaError, iter_video, read_video, video_info


def tone(seconds: float, rate: int = 16000, hertz: float = 440.0) -> np.ndarray:
    return 0.4 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def flashes(num_frames: int, *bright: int) -> np.ndarray:
    """Black frames (T, 64, 64, 3), white at these numbers."""
    frames = np.zeros((num_frames, 64, 64, 3), np.uint8)
    frames[list(bright)] = 255
    return frames


def clicks(num_samples: int, *places: int) -> np.ndarray:
    samples = np.zeros(num_samples, np.float32)
    for place in places:
        samples[place : place + 160] = 0.9
    return samples


CAMERAS = [
    ("mov", "libx264", "pcm_s16le"),
    ("mov", "libx264", "pcm_s24le"),
    ("mov", "mjpeg", "pcm_s16be"),
    ("mp4", "libx264", "pcm_s16le"),
    ("avi", "mjpeg", "pcm_s16le"),
    ("avi", "mpeg4", "pcm_u8"),
    ("avi", "mpeg4", "pcm_alaw"),
    ("avi", "mpeg4", "libmp3lame"),
    ("mkv", "libx264", "pcm_f32le"),
    ("mkv", "ffv1", "flac"),
]


@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize(("container", "video", "audio"), CAMERAS)
def test_what_cameras_write_is_read_whole(tmp_path, container, video, audio, layout):
    path = tmp_path / f"a.{container}"
    rate, sound = 48000, tone(1.0, 48000)
    write_clip(path, num_frames=25, samples=sound, codecs=(video, audio), rate=rate, layout=layout)
    assert len(read_video(path, grey=True, rate=25)) == pytest.approx(25, abs=1)
    heard = read_audio(path, rate)
    assert len(heard) / rate == pytest.approx(1, abs=0.06)
    assert np.abs(np.fft.rfft(heard[: rate // 2])).argmax() * 2 == 440
    assert np.std(heard[4800:43200]) == pytest.approx(np.std(sound), rel=0.06)
    if audio.startswith("pcm_s"):
        assert np.abs(heard - sound).max() < 2e-4
    if audio == "pcm_u8":
        assert np.abs(heard - sound).max() < 0.51 / 128


CUT = [each for each in CAMERAS if each[0] != "mkv"] + [("flv", "libx264", "aac")]


@pytest.mark.parametrize("share", [0.3, 0.7, 0.85])
@pytest.mark.parametrize(("container", "video", "audio"), [*CUT, ("mkv", "ffv1", "flac")])
def test_what_is_cut_off_is_noticed(tmp_path, container, video, audio, share):
    path = tmp_path / f"a.{container}"
    sound = np.random.default_rng(0).normal(0, 0.1, 48000 * 2)
    write_clip(path, num_frames=50, samples=sound, codecs=(video, audio), rate=48000)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    for read in (read_audio, read_video):
        with pytest.raises(MediaError, match="truncated"):
            read(path)


def test_a_video_that_ends_before_its_sound_is_not_truncated(tmp_path):
    """Matroska announces the length of the recording alone, which here is that of the sound."""
    path = tmp_path / "a.mkv"
    write_clip(path, num_frames=25, audio_seconds=4)
    assert len(read_video(path)) == 25


@pytest.mark.parametrize("codecs", [("mjpeg", "pcm_s16le"), ("mpeg4", "libmp3lame")])
def test_an_avi_whose_header_says_too_much_is_whole(tmp_path, codecs):
    """As a recorder that was stopped early leaves it; what is really cut off is still told."""
    path = tmp_path / "a.avi"
    write_clip(path, num_frames=50, codecs=codecs)
    frames, sound = read_video(path, rate=25), read_audio(path)
    for kind in (b"vids", b"auds"):
        patch_avi(path, kind, 32, 5.0)
    assert video_info(path).seconds == pytest.approx(7, abs=0.1)
    assert np.array_equal(read_video(path, rate=25), frames)
    assert np.array_equal(read_audio(path), sound)
    path.write_bytes(path.read_bytes()[:-8000])
    for read in (read_audio, read_video):
        with pytest.raises(MediaError, match="truncated"):
            read(path)


@pytest.mark.parametrize("codecs", [("mjpeg", "pcm_s16le"), ("mpeg4", "libmp3lame")])
def test_sound_that_an_avi_lets_begin_late_is_heard_when_it_is_seen(tmp_path, codecs):
    path = tmp_path / "a.avi"
    samples = clicks(24000, 16000)
    write_clip(path, num_frames=50, samples=samples, codecs=codecs)
    before = np.abs(read_audio(path)).argmax() / 16000
    patch_avi(path, b"auds", 28, 0.5)
    heard = read_audio(path)
    assert np.abs(heard).argmax() / 16000 == pytest.approx(before + 0.5, abs=0.04)
    assert len(heard) / 16000 == pytest.approx(2, abs=0.1)
    assert len(read_video(path, rate=25)) == pytest.approx(50, abs=2)


def join(tmp_path, parts, starts, seconds=2.0):
    """MPEG-TS of several clips, joined by their bytes as they are when broadcast.

    ``parts`` are rates, layouts and samples; each clip begins at its start in seconds.
    """
    joined = b""
    for (rate, layout, samples), start in zip(parts, starts, strict=True):
        path = tmp_path / "part.ts"
        frames = round(seconds * 25)
        write_clip(
            path,
            num_frames=frames,
            times=start + np.arange(frames) / 25,
            samples=samples,
            audio_start=start,
            rate=rate,
            layout=layout,
        )
        joined += path.read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(joined)
    return path


@pytest.mark.parametrize("order", [1, -1])
def test_rate_and_channels_may_change_within_a_file(tmp_path, order):
    """As when a broadcast goes from a film to a speaker."""
    forms = [(16000, "mono"), (48000, "stereo")][::order]
    parts = [(*form, tone(2.0, form[0], 400 * (n + 1))) for n, form in enumerate(forms)]
    heard = read_audio(join(tmp_path, parts, (0.0, 2.0)))
    assert len(heard) / 16000 == pytest.approx(4, abs=0.15)
    for number in (0, 1):
        second = heard[16000 * 2 * number + 6400 :][:16000]
        assert np.abs(np.fft.rfft(second)).argmax() == 400 * (number + 1)
        assert np.std(second) == pytest.approx(0.4 / np.sqrt(2), rel=0.05)


def test_sound_with_a_gap_stays_with_the_video(tmp_path):
    """The recorder lost 0.512 s of sound: what comes after is heard when it is seen."""
    path = tmp_path / "a.mkv"
    blocks = np.arange(40)
    starts = (blocks + 8 * (blocks >= 16)) * 0.064
    samples = clicks(40 * 1024, 30 * 1024)  # in block 30, at 38 * 0.064 = 2.432 s
    frames = flashes(78, 61)  # at 2.44 s
    write_clip(path, frames, samples=samples, audio_times=starts, codecs=("libx264", "pcm_s16le"))
    heard = read_audio(path)
    assert np.abs(heard).argmax() / 16000 == pytest.approx(2.432, abs=0.002)
    assert len(heard) == pytest.approx(48 * 1024, abs=16)
    seen = [frame.mean() for frame in iter_video(path, grey=True, rate=25)]
    assert np.argmax(seen) == 61


def test_sound_that_is_there_twice_is_heard_once(tmp_path):
    """The second part begins 0.3 s before the first one ends, and its click comes at 2.7 s."""
    parts = [(16000, "mono", clicks(32000)), (16000, "mono", clicks(32000, 16000))]
    heard = read_audio(join(tmp_path, parts, (0.0, 1.7)))
    # AAC begins 64 ms late by its encoder's delay, of which MPEG-TS says nothing.
    assert np.abs(heard).argmax() / 16000 == pytest.approx(2.7, abs=0.075)
    assert len(heard) / 16000 == pytest.approx(3.7, abs=0.15)


def test_rounded_timestamps_move_no_sample(tmp_path):
    """Matroska's clock ticks in milliseconds, which no 1024 samples at 44.1 kHz are."""
    path = tmp_path / "a.mkv"
    samples = np.round(tone(3.0, 44100) * 32767) / 32768
    write_clip(path, num_frames=75, samples=samples, rate=44100, codecs=("libx264", "flac"))
    assert np.array_equal(read_audio(path, 44100), samples.astype(np.float32))


@pytest.mark.parametrize("moved", [0.036, 0.044, -0.036, -0.044])
def test_timestamps_within_40_ms_are_only_rounded(tmp_path, moved):
    """Of what comes from block 10 on, a click in block 15 tells whether it was moved."""
    path = tmp_path / "a.mkv"
    starts = np.arange(20) * 0.064 + moved * (np.arange(20) >= 10)
    samples = clicks(20 * 1024, 15 * 1024)
    codecs = ("libx264", "pcm_s16le")
    write_clip(path, num_frames=33, samples=samples, audio_times=starts, codecs=codecs)
    heard = np.flatnonzero(np.abs(read_audio(path)) > 0.5)[0] / 16000
    kept = moved if abs(moved) > 0.04 else 0
    assert heard == pytest.approx(15 * 0.064 + kept, abs=0.0015)


def test_sound_that_begins_a_little_late_is_heard_when_it_is_seen(tmp_path, monkeypatch):
    """A frame's length counts before the first sample, where nothing is only rounded."""
    path = tmp_path / "a.mkv"
    codecs = ("libx264", "pcm_s16le")
    samples = clicks(16000, 8000)
    write_clip(path, num_frames=26, samples=samples, audio_start=0.03, codecs=codecs)
    heard = np.flatnonzero(np.abs(read_audio(path)) > 0.5)[0] / 16000
    assert heard == pytest.approx(0.53, abs=0.0015)
    # Matroska announces the length of the whole, for which nothing is decoded.
    monkeypatch.setattr(audio, "decode", None)
    assert audio_seconds(path) == pytest.approx(1.04, abs=0.02)


def test_a_recording_begins_where_its_clock_does(tmp_path):
    """As parts of broadcasts do, whose clock goes on for days: here at 5 s."""
    path = join(tmp_path, [(16000, "mono", clicks(32000, 16000))], (5.0,))
    heard = read_audio(path)
    assert len(heard) / 16000 == pytest.approx(2, abs=0.15)
    assert np.abs(heard).argmax() / 16000 == pytest.approx(1, abs=0.075)


def test_sound_without_timestamps_is_heard_as_it_comes(tmp_path, monkeypatch):
    path = tmp_path / "a.mkv"
    write_clip(path, samples=tone(1.0), codecs=("libx264", "pcm_s16le"))
    expected, real = read_audio(path), audio.decode

    def decode(*args):
        for frame in real(*args):
            frame.pts = None
            yield frame

    monkeypatch.setattr(audio, "decode", decode)
    assert np.array_equal(read_audio(path), expected)


def test_damaged_sound_is_named_block_by_block(tmp_path):
    """By what hands it on as it comes, too."""
    path = tmp_path / "a.mkv"
    samples = np.where(np.arange(16000) == 9000, np.nan, 0.1)
    write_clip(path, samples=samples, codecs=("libx264", "pcm_f32le"))
    with pytest.raises(MediaError, match=r"a\.mkv: the audio has samples that are not finite"):
        list(iter_audio(path))
    write_clip(path, samples=tone(1.0), codecs=("libx264", "pcm_s16le"))
    old, new = (b"\xb5\x88" + np.array(hz, ">f8").tobytes() for hz in (16000, 3))
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(MediaError, match="sound at 3 samples a second"):
        list(iter_audio(path))


def test_a_moment_an_hour_later_takes_no_memory(tmp_path):
    """A wrong timestamp is no reason to fill an hour with copies of a picture or with silence."""
    late = tmp_path / "late.mkv"
    write_clip(late, num_frames=26, times=[*np.arange(25) / 25, 3600.0], audio_seconds=1)
    with pytest.raises(MediaError, match=r"late\.mkv: timestamps jump by 3599\.0 s"):
        read_video(late, grey=True, rate=25)
    sound = tmp_path / "sound.mkv"
    starts = [*np.arange(15) * 0.064, 3600.0]
    write_clip(sound, num_frames=25, samples=tone(1.024), audio_times=starts)
    with pytest.raises(MediaError, match=r"sound\.mkv: timestamps jump by 3599"):
        read_audio(sound)


# Columns of the matrix in the header of a track, by what the player does to the stored picture.
SHOWN = {
    "as it is": ((1, 0), (0, 1)),
    "mirrored": ((-1, 0), (0, 1)),
    "upside down": ((1, 0), (0, -1)),
    "turned by 180": ((-1, 0), (0, -1)),
    "turned to the right": ((0, 1), (-1, 0)),
    "turned to the left": ((0, -1), (1, 0)),
    "mirrored and turned to the right": ((0, 1), (1, 0)),
    "mirrored and turned to the left": ((0, -1), (-1, 0)),
}


@pytest.mark.parametrize("shown", SHOWN)
def test_pictures_are_shown_as_a_player_shows_them(tmp_path, shown):
    """QuickTime's matrix (a, b; c, d) shows the pixel (x, y) at (a x + c y, b x + d y)."""
    path = tmp_path / "a.mp4"
    stored = np.zeros((3, 96, 64, 3), np.uint8)
    stored[:, :16, :16] = 255  # a white mark in the upper left corner
    stored[:, -16:, :16] = 128  # a grey one in the lower left
    write_clip(path, stored)
    (a, b), (c, d) = SHOWN[shown]
    content = path.read_bytes()
    place = content.index(b"tkhd") + 4 + 40
    matrix = np.array([a, b, 0, c, d, 0, 0, 0, 0], ">i4") * 65536
    matrix[8] = 1 << 30
    path.write_bytes(content[:place] + matrix.astype(">i4").tobytes() + content[place + 36 :])
    picture = read_video(path, grey=True)[0].astype(int)
    height, width = (96, 64) if a else (64, 96)
    assert picture.shape == (height, width)
    expected = np.zeros((height, width), int)
    for y in range(96):
        for x in range(64):
            to_x, to_y = a * x + c * y, b * x + d * y
            expected[to_y % height, to_x % width] = stored[0, y, x, 0]  # -1 is the last one
    if a < 0 or c < 0:
        expected = np.roll(expected, -1, axis=1)  # -x from 0 to 1 - width is x from the right
    if b < 0 or d < 0:
        expected = np.roll(expected, -1, axis=0)
    assert np.abs(picture - expected).mean() < 3


def test_unknown_codecs_are_named(tmp_path):
    path = tmp_path / "a.mkv"
    write_clip(path, num_frames=10)
    content = path.read_bytes()
    for code, reads in ((b"V_MPEG4", (read_video, video_info)), (b"A_AAC", (read_audio,))):
        assert code in content
        path.write_bytes(content.replace(code, code[:-2] + b"XX"))
        for read in reads:
            with pytest.raises(MediaError, match="codec that FFmpeg does not know"):
                read(path)
    with pytest.raises(MediaError, match="codec that FFmpeg does not know"):
        audio_seconds(path)
    assert len(read_video(path)) == 10


def test_headers_that_would_fill_the_memory_are_refused(tmp_path):
    """Sound of 3 Hz would become five thousand times as long, a wide picture wider still."""
    for path in (tmp_path / "a.wav", tmp_path / "a.mkv"):
        if path.suffix == ".wav":
            soundfile.write(path, tone(1.0), 3)
        else:
            write_clip(path, samples=tone(1.0), rate=16000, codecs=("libx264", "pcm_s16le"))
            old, new = (b"\xb5\x88" + np.array(hz, ">f8").tobytes() for hz in (16000, 3))
            assert old in path.read_bytes()
            path.write_bytes(path.read_bytes().replace(old, new))
        with pytest.raises(MediaError, match="sound at 3 samples a second"):
            read_audio(path)
    write_clip(tmp_path / "wide.mp4", aspect=Fraction(20, 1))
    with pytest.raises(MediaError, match="pixels of an aspect of 20"):
        read_video(tmp_path / "wide.mp4")

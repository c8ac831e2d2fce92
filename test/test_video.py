"""mome.data.video."""

import pickle

import cv2
import numpy as np
import pytest
from media import write_clip

from mome.data.video import MediaError, iter_video, read_lips, read_video, video_info, write_lips


def textured(num_frames=12, size=96):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (num_frames, size, size), dtype=np.uint8)
    smooth = np.stack([cv2.GaussianBlur(frame, (0, 0), 4) for frame in noise]).astype(float)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min()) * 255
    return smooth.astype(np.uint8)


def numbered(num_frames, size=64):
    """Frames whose grey level tells their number: 5, 15, 25, ..."""
    return np.stack([np.full((size, size, 3), 5 + 10 * i, np.uint8) for i in range(num_frames)])


def numbers(frames):
    return [round((frame.mean() - 5) / 10) for frame in frames]


def test_lips_survive_writing(tmp_path):
    frames = textured()
    write_lips(tmp_path / "a.mp4", frames)
    read = read_lips(tmp_path / "a.mp4")
    assert read.dtype == np.uint8
    assert read.shape == frames.shape
    error = np.abs(read.astype(int) - frames)
    assert error.mean() < 2.5
    # The full range is kept: neither squeezed to 16..235 nor stretched beyond it.
    assert read.min() < 12
    assert read.max() > 243
    assert np.polyfit(frames.ravel(), read.ravel(), 1)[0] == pytest.approx(1, abs=0.02)
    info = video_info(tmp_path / "a.mp4")
    assert (info.fps, info.num_frames, info.width, info.has_audio) == (25, 12, 96, False)


def test_lips_are_written_to_the_same_bytes(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        write_lips(tmp_path / name, textured())
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_grey_is_the_grey_of_the_colours(tmp_path):
    rng = np.random.default_rng(1)
    frames = rng.integers(60, 200, (5, 8, 8, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    write_clip(tmp_path / "a.mp4", frames)
    grey, colour = read_video(tmp_path / "a.mp4", grey=True), read_video(tmp_path / "a.mp4")
    assert colour.shape == (5, 128, 128, 3)
    assert grey.shape == (5, 128, 128)
    expected = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in colour])
    assert np.abs(grey.astype(int) - expected).mean() < 2  # both are rounded to 8 bits
    assert np.abs(colour.astype(int) - frames).mean() < 8  # chroma is stored at half resolution


@pytest.mark.parametrize("fps", [10, 15, 25, 30, 50])
def test_frames_at_another_rate_are_the_nearest_in_time(tmp_path, fps):
    write_clip(tmp_path / "a.mp4", numbered(24), fps=fps)
    got = numbers(iter_video(tmp_path / "a.mp4", grey=True, rate=25))
    assert len(got) == pytest.approx(24 / fps * 25, abs=1)
    for i, number in enumerate(got):
        assert abs(number / fps - i / 25) <= 0.5 / fps + 1e-6 or number == 23
    assert numbers(read_video(tmp_path / "a.mp4", grey=True)) == list(range(24))


def test_info(tmp_path):
    write_clip(tmp_path / "a.mp4", num_frames=20, audio_seconds=1.2)
    info = video_info(tmp_path / "a.mp4")
    assert (info.fps, info.num_frames, info.width, info.height) == (25, 20, 64, 64)
    assert (info.has_audio, info.audio_rate, info.audio_channels) == (True, 16000, 1)
    assert info.seconds == 0.8
    assert info.audio_seconds == pytest.approx(1.2, abs=0.07)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.8, 0.95])
def test_truncated_file_is_noticed(tmp_path, share):
    write_clip(tmp_path / "a.mp4", num_frames=40)
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[: int(share * len(data))])
    with pytest.raises(MediaError, match=r"a\.mp4: .*truncated"):
        read_video(tmp_path / "a.mp4")


def test_damaged_header_and_missing_streams(tmp_path):
    (tmp_path / "text.mp4").write_text("this is not a video")
    with pytest.raises(MediaError, match="corrupt"):
        video_info(tmp_path / "text.mp4")
    write_clip(tmp_path / "sound.mp4", num_frames=0)
    for read in (video_info, read_video, read_lips):
        with pytest.raises(MediaError, match=r"sound\.mp4: no video stream"):
            read(tmp_path / "sound.mp4")
        with pytest.raises(FileNotFoundError, match=r"none\.mp4"):
            read(tmp_path / "none.mp4")


def test_wrong_frames(tmp_path):
    write_clip(tmp_path / "a.mp4", size=64)
    with pytest.raises(MediaError, match="64x64 pixels, not a crop of 96x96"):
        read_lips(tmp_path / "a.mp4")
    for frames in (textured().astype(float), textured()[0], textured()[:0], textured()[:, :95]):
        with pytest.raises(ValueError, match=r"b\.mp4: (frames|H\.264 needs even)"):
            write_lips(tmp_path / "b.mp4", frames)
    assert not (tmp_path / "b.mp4").exists()


def test_error_crosses_processes():
    error = pickle.loads(pickle.dumps(MediaError("a.mp4", "no video stream")))
    assert str(error) == "a.mp4: no video stream"

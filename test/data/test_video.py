"""mome.data.video."""

import pickle
import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from media import write_clip

from mome.data.audio import audio_seconds, read_audio
from mome.data.video import (
    MediaError,
    iter_video,
    open_media,
    read_lips,
    read_video,
    video_info,
    write_lips,
)
from mome.transcribe.recording import probe


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


VARIABLE = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.09, 24))
AVERAGE_25 = np.cumsum(np.tile([0.01, 0.07], 12))


@pytest.mark.parametrize(
    "times",
    [
        np.arange(24) / 30,
        np.arange(24) * 1001 / 30000,
        np.arange(24) / 50,
        VARIABLE - VARIABLE[0],
        AVERAGE_25 - AVERAGE_25[0],
    ],
    ids=["30", "29.97", "50", "variable", "variable, 25 on average"],
)
def test_timestamps_say_what_is_shown_when(tmp_path, times):
    """The frame of each output time is the nearest one, and sound and lips are equally long."""
    end = times[-1] + (times[-1] - times[-2])
    write_clip(tmp_path / "a.mp4", numbered(24), times=times, audio_seconds=end)
    got = numbers(iter_video(tmp_path / "a.mp4", grey=True, rate=25))
    assert got == [int(np.abs(times - i / 25).argmin()) for i in range(len(got))]
    # AAC pads to whole packets of 64 ms.
    seconds = len(read_audio(tmp_path / "a.mp4")) / 16000
    assert -0.04 <= seconds - len(got) / 25 <= 0.064 + 0.04


def test_a_late_stream_keeps_its_distance(tmp_path):
    """A flash and a click that come together do so after reading, whichever stream starts late."""
    frames = np.zeros((25, 64, 64, 3), np.uint8)
    frames[15] = 255
    steps = np.arange(25) / 25
    for video_start, audio_start in ((0.0, 0.32), (0.32, 0.0)):
        samples = np.zeros(16000, np.float32)
        click = round(16000 * (15 / 25 + video_start - audio_start))
        samples[click : click + 160] = 0.9
        path = tmp_path / f"{video_start}.mp4"
        write_clip(
            path, frames, times=steps + video_start, samples=samples, audio_start=audio_start
        )
        seen = np.argmax([f.mean() for f in iter_video(path, grey=True, rate=25)]) / 25
        heard = np.abs(read_audio(path)).argmax() / 16000
        assert seen == pytest.approx(15 / 25 + video_start)
        assert heard == pytest.approx(seen, abs=0.01)


@pytest.mark.parametrize("grey", [True, False])
def test_a_lying_picture_is_put_upright(tmp_path, grey):
    upright = np.zeros((3, 96, 64, 3), np.uint8)
    upright[:, :20, :20] = 255  # a mark in the upper left corner
    stored = np.rot90(upright, 1, axes=(1, 2))  # turned to the left by the camera
    path = tmp_path / "a.mp4"
    write_clip(path, stored, rotation=-90)
    got = read_video(path, grey=grey)
    assert got.shape[:3] == (3, 96, 64)
    assert np.abs(got.astype(int) - (upright[..., 0] if grey else upright)).mean() < 3
    # The turn is what QuickTime's track header means by the matrix (0, 1, -1, 0): x to the right
    # becomes y down.
    header = path.read_bytes().partition(b"tkhd")[2]
    matrix = np.frombuffer(header[40:76], ">i4")
    assert list(matrix[[0, 1, 3, 4]] / 65536) == [0, 1, -1, 0]


def test_pixels_become_square(tmp_path):
    frames = np.zeros((3, 96, 64, 3), np.uint8)
    frames[:, 16:80, 16:48] = 255
    write_clip(tmp_path / "a.mp4", frames, aspect=Fraction(2, 1))
    got = read_video(tmp_path / "a.mp4", grey=True)
    assert got.shape == (3, 96, 128)
    assert np.abs(got - frames[..., 0].repeat(2, axis=2).astype(int)).mean() < 4


def write_changing(path, sizes) -> None:
    """Pictures of these (height, width), as a call's recording holds them: a ramp from the left."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25, options={"qmin": "1", "qmax": "2"})
        stream.height, stream.width = sizes[0]
        stream.pix_fmt = "yuvj420p"
        for number, (height, width) in enumerate(sizes):
            codec = av.CodecContext.create("mjpeg", "w")
            codec.height, codec.width, codec.pix_fmt = height, width, "yuvj420p"
            codec.options = {"qmin": "1", "qmax": "2"}
            codec.time_base = Fraction(1, 25)
            ramp = np.linspace(0, 240, width, dtype=np.uint8)
            image = np.broadcast_to(ramp[None, :, None], (height, width, 3))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            for packet in [*codec.encode(frame), *codec.encode(None)]:
                packet.stream = stream
                packet.pts = packet.dts = number
                packet.time_base = Fraction(1, 25)
                container.mux(packet)


@pytest.mark.parametrize("rate", [None, 25])
@pytest.mark.parametrize("grey", [False, True])
def test_a_picture_that_changes_its_size_is_shown_at_the_first_one(tmp_path, grey, rate):
    path = tmp_path / "a.mkv"
    write_changing(path, [(96, 128), (96, 128), (48, 64), (192, 256), (98, 128)])
    frames = read_video(path, grey=grey, rate=rate)
    assert frames.shape[:3] == (5, 96, 128)
    for frame in frames[1:]:
        assert np.abs(frame.astype(int) - frames[0]).max() < 8


def test_a_picture_that_changes_its_shape_is_refused(tmp_path):
    path = tmp_path / "a.mkv"
    write_changing(path, [(96, 128), (128, 96)])
    with pytest.raises(MediaError, match=r"a.mkv: the picture changes from 128x96 to 96x128; cut"):
        read_video(path)


def test_info(tmp_path):
    write_clip(tmp_path / "a.mp4", num_frames=20, audio_seconds=1.2)
    info = video_info(tmp_path / "a.mp4")
    assert (info.fps, info.num_frames, info.width, info.height) == (25, 20, 64, 64)
    assert (info.has_audio, info.audio_rate, info.audio_channels) == (True, 16000, 1)
    assert info.seconds == 0.8
    assert info.audio_seconds == pytest.approx(1.2, abs=0.07)


def begin_later(path, seconds):
    """Let players skip the beginning of both tracks, as programs do that trim without encoding.

    The edit list of a track says how long it lasts, in the clock of the file, and from which moment
    of its media, in the clock of the track.
    """
    data = bytearray(path.read_bytes())

    def number(place, change=0):
        value = int.from_bytes(data[place : place + 4], "big") + change
        data[place : place + 4] = value.to_bytes(4, "big")
        return value

    clock = number(data.index(b"mvhd") + 16)
    place = -1
    for _ in range(2):
        place = data.index(b"elst", place + 1)
        assert number(place + 8) == 1  # edits
        number(place + 12, -round(seconds * clock))
        number(place + 16, round(seconds * number(data.index(b"mdhd", place) + 16)))
    path.write_bytes(data)


def test_what_an_edit_list_leaves_out_at_the_beginning_is_not_read(tmp_path):
    frames = np.repeat(np.arange(20, 220, 4), 64 * 64).reshape(50, 64, 64)
    frames = np.stack([frames] * 3, axis=-1).astype(np.uint8)
    loud = np.where(np.arange(32000) < 12800, 0.05, 0.5) * np.sin(np.arange(32000) * 0.3)
    path = tmp_path / "a.mp4"
    write_clip(path, frames, samples=loud)
    assert video_info(path).num_frames == 50
    begin_later(path, 0.8)
    info = video_info(path)
    assert (info.num_frames, info.seconds) == (30, pytest.approx(1.2))
    read = read_video(path, grey=True, rate=25)
    assert len(read) == 30
    assert np.abs(read.astype(int) - frames[20:, ..., 0]).max() < 3
    heard = read_audio(path)
    assert abs(len(heard) - 19200) <= 1024
    assert np.corrcoef(heard[1000:18000], loud[13800:30800])[0, 1] > 0.99


def test_frames_of_a_video_in_fragments_are_counted(tmp_path):
    """Its header has none of them, or those of the first fragment."""
    write_clip(tmp_path / "whole.mp4", num_frames=60)
    with av.open(str(tmp_path / "whole.mp4")) as source:
        options = {"movflags": "frag_every_frame+default_base_moof"}
        with av.open(str(tmp_path / "a.mp4"), "w", options=options) as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
    assert video_info(tmp_path / "a.mp4").num_frames == 60
    assert len(read_video(tmp_path / "a.mp4", rate=25)) == 60


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.8, 0.95])
def test_truncated_file_is_noticed(tmp_path, share):
    write_clip(tmp_path / "a.mp4", num_frames=40)
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[: int(share * len(data))])
    with pytest.raises(MediaError, match=r"a\.mp4: .*truncated"):
        read_video(tmp_path / "a.mp4")


@pytest.mark.parametrize("seconds", [2, 8])
@pytest.mark.parametrize("writer", ["FFmpeg", "mkvmerge"])
def test_a_clock_that_does_not_begin_with_zero(tmp_path, writer, seconds):
    """Of some seconds from 5 s, FFmpeg announces the end, and mkvmerge the length."""
    path = tmp_path / "a.mkv"
    write_clip(
        path, num_frames=25 * seconds, times=5 + np.arange(25 * seconds) / 25, audio_start=5.0
    )
    with open_media(path) as container:
        assert container.start_time / av.time_base == pytest.approx(5, abs=0.1)
        assert container.duration / av.time_base == pytest.approx(5 + seconds, abs=0.1)
    if writer == "mkvmerge":
        data = bytearray(path.read_bytes())
        place = data.index(b"\x44\x89\x88") + 3  # Duration, of eight bytes
        data[place : place + 8] = struct.pack(">d", 1000 * seconds + 80)
        data = data.replace(b"Lavf", b"libe")
        path.write_bytes(data)
    assert len(read_video(path, rate=25)) in range(
        25 * seconds, 25 * seconds + 3
    )  # as the sound may begin before
    assert len(read_audio(path)) / 16000 == pytest.approx(seconds, abs=0.13)
    info = video_info(path)
    assert (info.seconds, info.audio_seconds) == (pytest.approx(seconds, abs=0.1),) * 2
    assert audio_seconds(path) == pytest.approx(seconds, abs=0.1)
    assert probe(path).seconds == pytest.approx(seconds, abs=0.1)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    for read in (read_video, read_audio):
        with pytest.raises(
            MediaError, match=rf"a\.mkv: truncated file: \d\.\d\d of {seconds}\.\d\d s"
        ):
            read(path)


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


def test_a_playlist_reads_no_other_file(tmp_path):
    """It would make a program that is given a file read others, here or in the network."""
    with av.open(str(tmp_path / "private.ts"), "w", format="mpegts") as container:
        stream = container.add_stream("mp2", rate=16000)
        sound = np.zeros((1, 16000), dtype=np.int16)
        frame = av.AudioFrame.from_ndarray(sound, format="s16", layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    assert open_media(tmp_path / "private.ts").streams.audio
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:2", "#EXTINF:1.0,", "private.ts", "#EXT-X-ENDLIST"]
    (tmp_path / "talk.m3u8").write_text("\n".join(lines))
    with av.open(str(tmp_path / "talk.m3u8")) as container:
        assert container.format.name == "hls"  # as FFmpeg takes it
    with pytest.raises(MediaError, match=r"talk\.m3u8"):
        open_media(tmp_path / "talk.m3u8")


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

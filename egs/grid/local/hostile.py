#!/usr/bin/env python3
"""What becomes of a transcript when the recording is not like a corpus's.

Makes copies of real clips as people record them: rotated, mirrored, at a variable frame rate,
without sound, with late sound, without a face, beside somebody who is silent, small in a large
picture, and all in one long recording with pauses. Transcribes them by a packed model and prints
the error rate of each kind, which streams were read, and the mean confidence.

  local/hostile.py --data data/test --model exp/mome/packed --out hostile
"""

import argparse
import logging
import os
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from mome.analysis.parameters import markdown
from mome.analysis.wer import score
from mome.data.audio import RATE, read_audio
from mome.data.kaldi import read_scp
from mome.data.video import LIP_RATE, read_video
from mome.lips.detectors import load_tracker
from mome.transcribe.options import Options
from mome.transcribe.transcriber import Transcriber

CLOCK = Fraction(1, 90000)
LATE = 0.3  # seconds
PAUSE = 1.0

Clip = tuple[np.ndarray, np.ndarray]  # RGB frames (T, H, W, 3) at 25 a second, samples at 16 kHz


def write(path: Path, clip: Clip, times: np.ndarray | None = None, rotation: int = 0) -> None:
    """Write an mp4; frames are shown at ``times`` in seconds, or at 25 a second.

    Without frames, or without samples, the file has no such stream.
    """
    frames, samples = clip
    with av.open(str(path), "w") as container:
        video = sound = None
        if len(frames):
            video = container.add_stream("libx264", rate=LIP_RATE, options={"crf": "18"})
            video.height, video.width = frames.shape[1:3]
            video.pix_fmt = "yuv420p"
            video.codec_context.time_base = CLOCK
            if rotation:
                video.set_display_rotation(rotation)
        if len(samples):
            sound = container.add_stream("aac", rate=RATE, layout="mono")
        times = np.arange(len(frames)) / LIP_RATE if times is None else times
        for image, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = round(float(time) / CLOCK), CLOCK
            container.mux(video.encode(frame))
        if video is not None:
            container.mux(video.encode(None))
        for start in range(0, len(samples), 1024):
            block = samples[None, start : start + 1024].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            frame.rate, frame.pts = RATE, start
            container.mux(sound.encode(frame))
        if sound is not None:
            container.mux(sound.encode(None))


def variable_rate(path: Path, clip: Clip, rng: np.random.Generator) -> None:
    """Every frame is kept with three chances in four, and shown when it was taken."""
    kept = np.flatnonzero(rng.random(len(clip[0])) < 0.75)
    write(path, (clip[0][kept], clip[1]), kept / LIP_RATE)


def two_people(path: Path, clip: Clip, other: np.ndarray, rng: np.random.Generator) -> None:
    """Beside the speaker, on either side, somebody keeps still."""
    still = np.broadcast_to(cv2.resize(other, clip[0].shape[2:0:-1]), clip[0].shape)
    pair = [clip[0], still]
    rng.shuffle(pair)
    write(path, (np.concatenate(pair, axis=2), clip[1]))


def small(path: Path, clip: Clip, rng: np.random.Generator) -> None:
    """The clip as a small part of a grey picture of 1280x720."""
    count, height, width = clip[0].shape[:3]
    top, left = int(rng.integers(0, 720 - height)), int(rng.integers(0, 1280 - width))
    large = np.full((count, 720, 1280, 3), 90, dtype=np.uint8)
    large[:, top : top + height, left : left + width] = clip[0]
    write(path, (large, clip[1]))


def makers(other: np.ndarray, rng: np.random.Generator) -> dict[str, Callable[[Path, Clip], None]]:
    """Kind -> what writes a clip of it."""
    silence = np.zeros(round(LATE * RATE), dtype=np.float32)
    return {
        "MP4 of the same": write,
        "rotated by the camera": lambda p, c: write(
            p, (np.rot90(c[0], 1, (1, 2)), c[1]), None, -90
        ),
        "mirrored": lambda p, c: write(p, (c[0][:, :, ::-1], c[1])),
        "variable frame rate": lambda p, c: variable_rate(p, c, rng),
        "no sound": lambda p, c: write(p, (c[0], c[1][:0])),
        "no video": lambda p, c: write(p, (c[0][:0], c[1])),
        "no face": lambda p, c: write(p, (np.full_like(c[0], 60), c[1])),
        "sound 0.3 s late": lambda p, c: write(p, (c[0], np.concatenate([silence, c[1]]))),
        "two people": lambda p, c: two_people(p, c, other, rng),
        "small in 1280x720": lambda p, c: small(p, c, rng),
    }


def joined(path: Path, clips: list[Clip]) -> None:
    """All clips in one recording, with pauses in which the picture stands still."""
    frames, samples = [], []
    for pictures, sound in clips:
        still = np.repeat(pictures[-1:], round(PAUSE * LIP_RATE), axis=0)
        frames += [pictures, still]
        length = (len(pictures) + len(still)) * RATE // LIP_RATE
        samples.append(np.pad(sound[:length], (0, max(0, length - len(sound)))))
    write(path, (np.concatenate(frames), np.concatenate(samples)))


def main(argv: list[str] | None = None) -> None:
    """Make the copies, transcribe them, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="data folder with video.scp, text")
    parser.add_argument("--model", type=Path, required=True, help="packed model")
    parser.add_argument("--out", type=Path, required=True, help="folder for the copies")
    parser.add_argument("--count", type=int, default=20, help="clips, of equal distance in the set")
    parser.add_argument("--other", type=Path, help="clip of somebody else, who keeps still")
    parser.add_argument("--rates", help="such as a4_v2; default: finest")
    parser.add_argument("--beam", type=int, default=1)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    downloads = Path(os.environ.get("MOME_DOWNLOADS", "../../downloads"))
    landmarks = downloads / "dlib/shape_predictor_68_face_landmarks.dat"
    transcribe = Transcriber.load(args.model, tracker=load_tracker(str(landmarks)))
    options = Options(beam=args.beam, rates=args.rates)

    videos, texts = (read_scp(args.data / name) for name in ("video.scp", "text"))
    utterances = list(videos)[:: max(1, len(videos) // args.count)][: args.count]
    rng = np.random.default_rng(0)
    other = read_video(args.other or videos[list(videos)[-1]], rate=LIP_RATE)[0]
    clips = {u: (read_video(videos[u], rate=LIP_RATE), read_audio(videos[u])) for u in utterances}
    rows = []

    def add(kind: str, paths: dict[str, Path], references: dict[str, str]) -> None:
        found = {u: transcribe(path, options) for u, path in paths.items()}
        segments = [segment for transcript in found.values() for segment in transcript.segments]
        heard = {u: transcript.text.replace("\n", " ") for u, transcript in found.items()}
        tasks = Counter(segment.task or "nothing" for segment in segments)
        read = ", ".join(f"{task} {count}" for task, count in tasks.most_common())
        sure = np.mean([segment.confidence for segment in segments]) if segments else 0.0
        result = score({u: references[u] for u in paths}, heard)
        interval = f"{result.wer:.1f} [{result.low:.1f}, {result.high:.1f}]"
        rows.append([kind, interval, read, f"{sure:.2f}"])
        print(" | ".join(rows[-1]), flush=True)

    add("as it is", {u: Path(videos[u]) for u in utterances}, texts)
    for kind, make in makers(other, rng).items():
        folder = args.out / kind.replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        for utterance, clip in clips.items():
            make(folder / f"{utterance}.mp4", clip)
        add(kind, {u: folder / f"{u}.mp4" for u in utterances}, texts)
    joined(args.out / "joined.mp4", list(clips.values()))
    said = " ".join(texts[u] for u in utterances)
    add(f"{len(clips)} in one recording", {"joined": args.out / "joined.mp4"}, {"joined": said})
    print("\n".join(markdown(["recording", "WER", "read as", "confidence"], rows)))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""How sure a model is of what it cannot know: words that it has never seen, and no speech.

Synthesises sentences (eSpeak NG) and sounds that are no speech, transcribes them by a packed model,
and prints what came out, the confidence, and the share of words and of parts that are said to be
doubtful. With --faces, clips of people who speak lend their pictures, played backwards, so that the
lips say nothing that the model knows.

  local/foreign.py --model exp/mome/packed --out foreign
"""

import argparse
import os
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "mini_av/local"))

from espeak import RATE, Voice, speak

from mome.common.markdown import markdown_table
from mome.data.video import LIP_RATE, read_video
from mome.transcribe.confidence import LOW
from mome.transcribe.options import Options
from mome.transcribe.transcriber import Transcriber

SENTENCES = (
    "the weather will be cloudy tomorrow morning",
    "she opened the old wooden door and looked outside",
    "our train was delayed for almost an hour",
    "please remember to buy some bread and milk",
    "the committee could not agree on a date",
    "he has been working in the garden all day",
    "nobody knows where the children went",
    "this is the best book I have read in years",
    "they moved to another city last summer",
    "can you tell me how to get to the station",
)
SECONDS = 3.0  # of what is no speech
OTHER, NOISE, MUSIC = "other sentences", "white noise", "music"


def chord(root: float, rng: np.random.Generator) -> np.ndarray:
    """Three tones and their overtones, struck twice a second: float32 (N,)."""
    time = np.arange(round(SECONDS * RATE)) / RATE
    tones = [
        np.sin(2 * np.pi * root * ratio * overtone * time + rng.uniform(0, 6)) / overtone
        for ratio in (1, 5 / 4, 3 / 2)
        for overtone in range(1, 6)
    ]
    return (np.sum(tones, axis=0) * np.exp(-4 * (time % 0.5)) / 20).astype(np.float32)


def sounds(downloads: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """What is heard: its kind, what it is, and float32 (N,) at 16 kHz."""
    for sentence in SENTENCES:
        speech, _ = speak(downloads / "espeak", sentence, Voice("en-us", 170, 50, 50))
        yield OTHER, sentence, (0.3 * speech).astype(np.float32)
    rng = np.random.default_rng(0)
    for level in np.linspace(-40, -13, len(SENTENCES)):
        noise = rng.normal(0, 10 ** (level / 20), round(SECONDS * RATE)).astype(np.float32)
        yield NOISE, f"{level:.0f} dB", noise
    for root in np.geomspace(110, 440, len(SENTENCES)):
        yield MUSIC, f"chord on {root:.0f} Hz", chord(root, rng)


def main(argv: list[str] | None = None) -> None:
    """Speak, transcribe, count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="packed model")
    parser.add_argument("--out", type=Path, required=True, help="folder for the recordings")
    parser.add_argument("--faces", type=Path, nargs="+", help="clips of people; without, no video")
    parser.add_argument("--rates", help="such as a4_v2; default: finest")
    parser.add_argument(
        "--beam",
        type=int,
        default=1,
        help="hypotheses of the search, 1 is greedy; default: %(default)s",
    )
    args = parser.parse_args(argv)
    downloads = Path(os.environ.get("MOME_DOWNLOADS", "../../downloads"))
    transcribe = Transcriber.load(args.model, downloads=[downloads])
    args.out.mkdir(parents=True, exist_ok=True)
    write = runpy.run_path(str(Path(__file__).with_name("hostile.py")))["write"]
    faces = [read_video(path, rate=LIP_RATE)[::-1] for path in args.faces or []]
    words: dict[str, list[float]] = {}
    parts: dict[str, list[float]] = {}
    for number, (kind, what, sound) in enumerate(sounds(downloads)):
        path = args.out / f"{number:02}.mp4"
        frames = np.zeros((0, 2, 2, 3), dtype=np.uint8)
        if faces:
            frames = faces[number % len(faces)]
            count = round(len(sound) / RATE * LIP_RATE)
            frames = frames[np.arange(count) % len(frames)]
        write(path, (frames, sound))
        segments = transcribe(path, Options(beam=args.beam, rates=args.rates)).segments
        for segment in segments:
            print(f"{what} | {segment.text} | {segment.confidence:.2f}", flush=True)
            words.setdefault(kind, []).extend(word.confidence for word in segment.words)
            parts.setdefault(kind, []).append(segment.confidence)
        if not segments:
            print(f"{what} | nothing", flush=True)
    rows = []
    for kind, sure in parts.items():
        of_words = np.array(words[kind] or [0.0])
        low = sum(confidence < LOW for confidence in sure)
        rows.append(
            [
                *(kind, f"{low} of {len(sure)}", f"{np.mean(of_words < LOW):.0%}"),
                *(f"{np.mean(of_words):.2f}", f"{max(sure):.2f}"),
            ]
        )
    header = ["recordings", "said to be doubtful", f"words below {LOW:g}", "mean", "highest"]
    print("\n".join(markdown_table(header, rows)))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""How sure a model is of what it cannot know: sentences whose words it has never seen.

Synthesises sentences (eSpeak NG), transcribes them by a packed model, and prints what came out, the
confidence, and the share of words and of parts that are said to be doubtful.

  local/foreign.py --model exp/mome/packed --out foreign
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parents[2] / "mini_av/local"))

from espeak import RATE, Voice, speak

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


def main(argv: list[str] | None = None) -> None:
    """Speak, transcribe, count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="packed model")
    parser.add_argument("--out", type=Path, required=True, help="folder for the sentences")
    parser.add_argument("--beam", type=int, default=1)
    args = parser.parse_args(argv)
    downloads = Path(os.environ.get("MOME_DOWNLOADS", "../../downloads"))
    transcribe = Transcriber.load(args.model)
    args.out.mkdir(parents=True, exist_ok=True)
    words, parts = [], []
    for number, sentence in enumerate(SENTENCES):
        speech, _ = speak(downloads / "espeak", sentence, Voice("en-us", 170, 50, 50))
        path = args.out / f"{number}.wav"
        soundfile.write(path, 0.3 * speech, RATE)
        for segment in transcribe(path, Options(beam=args.beam)).segments:
            print(f"{sentence} | {segment.text} | {segment.confidence:.2f}", flush=True)
            words += [word.confidence for word in segment.words]
            parts.append(segment.confidence)
    print(
        f"{np.mean(np.array(words) < LOW):.0%} of {len(words)} words and "
        f"{np.mean(np.array(parts) < LOW):.0%} of {len(parts)} parts below {LOW}; mean "
        f"{np.mean(words):.2f}"
    )


if __name__ == "__main__":
    main()

"""Make a test set in which every utterance has the video, or the audio, of another one.

A model that reads a stream must be misled by it: WER on such a set rises towards guessing. Streams
are exchanged between utterances of similar length and different text.
"""

import argparse
import shutil
from pathlib import Path

from mome.data.kaldi import read_scp, write_scp

FILES = {"video": "lip.scp", "audio": "wav.scp"}


def partners(durations: dict[str, str], texts: dict[str, str]) -> dict[str, str]:
    """Give each utterance another one: its next longer neighbour that says something else.

    Raises:
        ValueError: if some utterance has no partner with another text.
    """
    ordered = sorted(durations, key=lambda utterance: (float(durations[utterance]), utterance))
    result = {}
    for place, utterance in enumerate(ordered):
        others = ordered[place + 1 :] + ordered[:place]
        for other in others:
            if texts[other] != texts[utterance]:
                result[utterance] = other
                break
        else:
            raise ValueError(f"{utterance}: no utterance of the set has another text")
    return result


def main(argv: list[str] | None = None) -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="e.g. dump/test")
    parser.add_argument("--stream", choices=sorted(FILES), required=True)
    parser.add_argument("--output", type=Path, required=True, help="e.g. dump/test_swapvideo")
    args = parser.parse_args(argv)
    other = partners(read_scp(args.data / "utt2dur"), read_scp(args.data / "text"))
    args.output.mkdir(parents=True, exist_ok=True)
    for path in args.data.iterdir():
        if path.is_file() and not path.name.startswith(".") and path.suffix != ".log":
            shutil.copyfile(path, args.output / path.name)
    name = FILES[args.stream]
    paths = read_scp(args.data / name)
    write_scp(args.output / name, {utterance: paths[other[utterance]] for utterance in other})
    print(f"{args.output}: {len(other)} utterances with the {args.stream} of another one")


if __name__ == "__main__":
    main()

"""Make a test set in which every utterance has the video, or the audio, of another one.

A model that reads a stream must be misled by it: WER on such a set rises towards guessing. Streams
are exchanged between utterances of similar length and different text.
"""

import argparse
from pathlib import Path

from mome.data.kaldi import copy_data_dir, read_scp

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
    name = FILES[args.stream]
    paths = read_scp(args.data / name)
    exchanged = {utterance: paths[other[utterance]] for utterance in other}
    copy_data_dir(args.data, args.output, {name: exchanged})
    print(f"{args.output}: {len(other)} utterances with the {args.stream} of another one")


if __name__ == "__main__":
    main()

"""Make copies of test sets in which every utterance has the video, or the audio, of another one.

A model that reads a stream must be misled by it: WER on such a set rises towards chance. Streams
are exchanged between utterances of similar length and different text. Writes data folders
<dump>/<set>_swapvideo and <dump>/<set>_swapaudio, which are listed in <dump>/test_sets.json. Of a
set with one stream, or with one text, there is nothing to exchange, and no copy is made.
"""

from pathlib import Path

from mome.common.command import in_one_line, parser_for
from mome.data import test_sets
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


def swap_streams(data: Path, dump: Path) -> None:
    """Write both copies of a set."""
    if missing := [name for name in FILES.values() if not (data / name).is_file()]:
        print(f"{data}: no streams to exchange without {', '.join(missing)}")
        return
    texts = read_scp(data / "text")
    if len(set(texts.values())) < 2:
        print(f"{data}: no streams to exchange between utterances of the same text")
        return
    other = partners(read_scp(data / "utt2dur"), texts)
    settings = {"source": test_sets.source_of(dump, data.name)}
    for stream, name in FILES.items():
        copy = test_sets.swapped(data.name, stream)
        paths = read_scp(data / name)
        exchanged = {utterance: paths[other[utterance]] for utterance in other}
        copy_data_dir(data, dump / copy.name, {name: exchanged})
        test_sets.add_to_list(dump, {copy: settings})
        print(f"{dump / copy.name}: {len(other)} utterances with the {stream} of another one")


@in_one_line("mome-swap-stream")
def main(argv: list[str] | None = None) -> None:
    """Write the folders of all sets."""
    parser = parser_for(__doc__)
    parser.add_argument("--dump", type=Path, required=True, help="folder of the sets")
    parser.add_argument(
        "--sets", nargs="+", default=["test"], help="whose streams are exchanged; default: test"
    )
    args = parser.parse_args(argv)
    for name in args.sets:
        swap_streams(args.dump / name, args.dump)


if __name__ == "__main__":
    main()

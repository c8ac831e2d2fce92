"""When each rate of each modality says the words of a set, beside its finest audio.

  mome-measure-delays --model exp/mome/packed --dump dump --set test

Transcripts are aligned with the CTC posteriors of the projectors. Printed is, by place in sentences
of the usual number of words, how long after the audio at its finest rate a word is said (median in
seconds, and the interquartile range), and its posterior there (median). Lips move some tenths of a
second before and after the sound; a word that comes much later or earlier, always by the same time,
was learned where it cannot be seen or heard, and its posterior is that of chance.
"""

import argparse
from collections import Counter
from collections.abc import Mapping
from itertools import batched
from pathlib import Path

import numpy as np

from mome.common.command import in_one_line, parser_for
from mome.common.markdown import markdown_table
from mome.common.memory import naming_batch
from mome.data.text import lowered
from mome.transcribe.prepared import add_crop_arguments, open_for_crops, read_clips
from mome.transcribe.transcriber import Transcriber

BATCH = 8
# Rate, such as v2 -> (N, W): when each word of N sentences is said, in seconds, and its posterior.
Said = dict[str, tuple[np.ndarray, np.ndarray]]


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for(__doc__)
    add_crop_arguments(parser)
    parser.add_argument("--set", default="test", help="the set that is read; default: test")
    parser.add_argument("--max_clips", type=int, default=100, help="of the set")
    return parser.parse_args(argv)


def measure(transcribe: Transcriber, data: Path, max_clips: int) -> Said:
    """When words are said, in the sentences of the usual number of words that all rates can say.

    Raises:
        ValueError: for a model without a readout, or if there is no such sentence.
        OutOfMemory: if that of the GPU or the machine does not suffice; names the clips.
    """
    from mome.transcribe.alignment import align_rate

    model = transcribe.model
    if model.readout is None:
        raise ValueError("the model has no readout, whose posteriors say when words are said")
    clips, texts = read_clips(data, max_clips, model, remedy="lower --max_clips")
    sentences = [lowered(text).split() for text in texts]
    usual = Counter(map(len, sentences)).most_common(1)[0][0]
    kept = [
        (clip, words) for clip, words in zip(clips, sentences, strict=True) if len(words) == usual
    ]
    rows: dict[str, list[list[tuple[float, float]]]] = {}
    for group in batched(kept, BATCH):
        # A word is said when its first token is.
        pieces = [
            [model.tokenizer.encode(f" {word}", add_special_tokens=False) for word in words]
            for _, words in group
        ]
        wanted = [[token for word in words for token in word] for words in pieces]
        of_group = [clip for clip, _ in group]
        with naming_batch([clip.name for clip in of_group]):
            features = transcribe.encode(of_group, model.main_task)
            found = {
                f"{kind[0]}{rate}": align_rate(model, features, kind, rate, wanted)
                for kind, rates in model.rates.items()
                for rate in rates
            }
        for place, words in enumerate(pieces):
            firsts = np.cumsum([0, *map(len, words[:-1])])
            aligned = {name: each[place] for name, each in found.items()}
            said = {
                name: [(tokens[i].start + tokens[i].end, tokens[i].log_prob) for i in firsts]
                for name, tokens in aligned.items()
                if tokens
            }
            if len(said) == len(found):
                for name, of_clip in said.items():
                    rows.setdefault(name, []).append(of_clip)
    if not rows:
        raise ValueError(f"{data}: no sentence has the windows that its tokens need at all rates")
    tables = {name: np.array(found) for name, found in rows.items()}
    return {name: (table[..., 0] / 2, np.exp(table[..., 1])) for name, table in tables.items()}


def table(said: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> list[str]:
    """The lines of the table; the first rate is that which the others are compared with."""
    reference = next(iter(said))
    count = said[reference][0].shape[1]
    lines = []
    for name, (times, posteriors) in said.items():
        late = times - said[reference][0]
        quarters = np.quantile(late, [0.25, 0.5, 0.75], axis=0)
        cells = [
            f"{quarters[1, place]:+.2f} ({quarters[2, place] - quarters[0, place]:.2f}), "
            f"{np.median(posteriors[:, place]):.2f}"
            for place in range(count)
        ]
        lines.append([name, *cells])
    return markdown_table(["rate", *(f"word {place + 1}" for place in range(count))], lines)


@in_one_line("mome-measure-delays")
def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    args = parse(argv)
    transcribe = open_for_crops(args)
    said = measure(transcribe, args.dump / args.set, args.max_clips)
    count = len(next(iter(said.values()))[0])
    print(f"{count} sentences of {args.set}: s after {next(iter(said))} (IQR), posterior\n")
    print("\n".join(table(said)))


if __name__ == "__main__":
    main()

"""Write a picture of utterances with what was said and what was recognised.

A row of mouth crops for each utterance, at equal steps in time from left to right; below it the
reference and the transcript of each condition, a task at a rate pair such as "vsr v2". Wrong and
inserted words are red, deleted ones red and struck through; words are aligned and normalised as for
the word error rates. Reads <expdir>/decode/<task>/<set>/<rate pair>/text and
<dump>/<set>/{text,lip.scp}. The picture has 300 kB at most: if it takes fewer or smaller crops for
that, the program says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mome.analysis.confusions import Step, align
from mome.analysis.decoded import add_arguments, decode_folder, read_prepared, read_transcripts
from mome.analysis.wer import normalised_pairs
from mome.common.atomic_files import write_bytes
from mome.common.command import in_one_line, parser_for
from mome.data.pictures import BLACK, caption, encode_png, filmstrip, put_text, text_width
from mome.data.text import normalise
from mome.data.video import read_lips
from mome.models.rates import TASKS, TaskPair, parse_rate_pair

LIMIT = 300_000  # bytes: pictures of this size may be kept in a repository
FEWEST_COLUMNS = 4
SCALES = (1.0, 0.75, 0.5)
TEXT_WIDTH = 640  # pixels; a picture is not narrower, however few the crops, so that lines fit
MARGIN = 8
LINE_HEIGHT = 20
FONT = 0.5
BASE_LINE = 15  # pixels below the top of a line
TITLE_FONT = 0.65
TITLE_HEIGHT = 28
GAP = 8  # pixels between words, and between a label and its words
RED = (0, 0, 208)
LEGEND = "red: wrong or inserted; struck through: deleted"


@dataclass(frozen=True)
class Shown:
    """An utterance in the picture.

    Attributes:
        utterance: its id.
        frames: uint8 (T, H, W).
        reference: as it is scored.
        transcripts: condition -> reference and hypothesis words, aligned.
    """

    utterance: str
    frames: np.ndarray
    reference: str
    transcripts: Mapping[str, Sequence[Step]]


def draw_sentence(label: str, steps: Sequence[Step], indent: int, width: int) -> np.ndarray:
    """A label and aligned words, with errors in red; long sentences go on in further lines.

    Args:
        label: what the words are.
        steps: reference and hypothesis words.
        indent: x of the first word of each line, in pixels.
        width: of the picture; words end before it.

    Returns:
        uint8 (lines * LINE_HEIGHT, width, 3).
    """
    picture = np.full((LINE_HEIGHT, width, 3), 255, np.uint8)
    put_text(picture, label, (0, BASE_LINE), FONT)
    x, y = indent, BASE_LINE
    for given, said in steps:
        word = str(given if said is None else said)
        length = text_width(word, FONT)
        if x > indent and x + length > width:
            picture = np.pad(
                picture, ((0, LINE_HEIGHT), (0, 0), (0, 0)), "constant", constant_values=255
            )
            x, y = indent, y + LINE_HEIGHT
        put_text(picture, word, (x, y), FONT, BLACK if given == said else RED)
        if said is None:
            cv2.line(picture, (x, y - 4), (x + length, y - 4), RED, 1)
        x += length + GAP
    return picture


def draw(shown: Sequence[Shown], columns: int, scale: float = 1.0, title: str = "") -> np.ndarray:
    """The picture: title, legend, and for each utterance its id, crops, reference, transcripts.

    Args:
        shown: utterances, with the same conditions each.
        columns: crops of each.
        scale: of the crops, as a factor.
        title: above all; may be empty.

    Returns:
        uint8 (H, W, 3) in OpenCV's order of colours.
    """
    strips = [filmstrip(each.frames, columns, scale) for each in shown]
    width = max(TEXT_WIDTH, *(strip.shape[1] for strip in strips))
    labels = ["reference:", *(f"{condition}:" for each in shown for condition in each.transcripts)]
    indent = max(text_width(label, FONT) for label in labels) + GAP
    gap = np.full((MARGIN, width, 3), 255, np.uint8)
    parts = []
    if title:
        band = np.full((TITLE_HEIGHT, width, 3), 255, np.uint8)
        put_text(band, title, (0, TITLE_HEIGHT - 10), TITLE_FONT)
        parts.append(band)
    legend = np.full((LINE_HEIGHT, width, 3), 255, np.uint8)
    put_text(legend, LEGEND, (0, BASE_LINE), FONT)
    parts += [legend, gap]
    for each, strip in zip(shown, strips, strict=True):
        padded = np.pad(strip, ((0, 0), (0, width - strip.shape[1])), constant_values=255)
        grey = np.concatenate([caption(each.utterance, width), padded])
        parts.append(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
        words = [(word, word) for word in each.reference.split()]
        parts.append(draw_sentence("reference:", words, indent, width))
        for condition, steps in each.transcripts.items():
            parts.append(draw_sentence(f"{condition}:", steps, indent, width))
        parts.append(gap)
    picture = np.concatenate(parts)
    sides = ((MARGIN, 0), (MARGIN, MARGIN), (0, 0))
    return np.pad(picture, sides, "constant", constant_values=255)


def draw_within(
    shown: Sequence[Shown], columns: int, title: str = "", limit: int = LIMIT
) -> tuple[bytes, int, float]:
    """The largest picture within a limit: first with fewer crops, then with smaller ones.

    Returns:
        The PNG, its columns and the scale of its crops.

    Raises:
        ValueError: if it is too large with the fewest and smallest crops.
    """
    for scale in SCALES:
        for count in range(columns, min(columns, FEWEST_COLUMNS) - 1, -1):
            data = encode_png(draw(shown, count, scale, title))
            if len(data) <= limit:
                return data, count, scale
    raise ValueError(
        f"{len(shown)} utterances take {len(data) / 1000:.0f} kB even with {count} crops each at"
        f" {scale:.0%} of their size, of {limit / 1000:.0f} kB at most: show fewer utterances"
    )


def parse_condition(text: str) -> TaskPair:
    """A task and a rate pair, ``vsr v2``; inverse of ``str(TaskPair)``.

    Raises:
        ValueError: for a text of another form.
    """
    task, _, pair = text.partition(" ")
    if task not in TASKS:
        raise ValueError(f'the condition {text!r} must look like "vsr v2" or "avsr a16_v5"')
    return TaskPair(task, parse_rate_pair(pair))


def choose(lips: Mapping[str, str], wanted: Sequence[str], rows: int, seed: int) -> dict[str, str]:
    """The crops of the wanted utterances, or else of ``rows`` drawn at random, sorted.

    Raises:
        ValueError: for a wanted utterance without crops.
    """
    if unknown := [utterance for utterance in wanted if utterance not in lips]:
        raise ValueError(f"{', '.join(unknown)}: not in lip.scp of the set")
    drawn = np.random.default_rng(seed).choice(list(lips), min(rows, len(lips)), replace=False)
    return {str(utterance): lips[utterance] for utterance in wanted or sorted(drawn)}


def collect(
    decode: Path, dump: Path, name: str, conditions: Sequence[TaskPair], lips: Mapping[str, str]
) -> list[Shown]:
    """Read and align what is shown of some utterances of a set.

    Args:
        decode: folder of the transcripts.
        dump: the dump folder.
        name: of the set.
        conditions: tasks at rate pairs.
        lips: utterance -> video of its crops, of those that are shown.

    Raises:
        FileNotFoundError: if a file is missing; names it.
        ValueError: if references or transcripts lack an utterance, or a video is unreadable.
    """
    texts = read_prepared(dump, name, "text")
    if missing := [utterance for utterance in lips if utterance not in texts]:
        raise ValueError(f"{', '.join(missing)}: not in {dump / name / 'text'}")
    references = {utterance: texts[utterance] for utterance in lips}
    steps: dict[str, dict[str, list[Step]]] = {utterance: {} for utterance in lips}
    for condition in conditions:
        pair = str(condition.pair)
        said = read_transcripts(decode, condition.task, name, [pair])[pair]
        hypotheses = {utterance: said[utterance] for utterance in lips if utterance in said}
        try:
            pairs = normalised_pairs(references, hypotheses)
        except ValueError as error:
            raise ValueError(f"{condition}, {name}: {error}") from error
        for utterance, (reference, hypothesis) in pairs.items():
            steps[utterance][str(condition)] = align(reference, hypothesis)
    return [
        Shown(utterance, read_lips(path), normalise(references[utterance]), steps[utterance])
        for utterance, path in lips.items()
    ]


@in_one_line("mome-show-transcripts")
def main(argv: list[str] | None = None) -> None:
    """Draw the picture, write it, and say what it shows."""
    parser = parser_for(__doc__)
    add_arguments(parser)
    parser.add_argument("--set", default="test", help="a test set or a copy of one")
    parser.add_argument("--conditions", nargs="+", required=True, help='e.g. "vsr v2" "avsr a4_v2"')
    parser.add_argument("--output", type=Path, required=True, help="e.g. transcripts.png")
    parser.add_argument("--title", default="", help="a line above all")
    parser.add_argument("--utterances", nargs="+", default=[], help="default: drawn at random")
    parser.add_argument("--rows", type=int, default=4, help="utterances drawn")
    parser.add_argument("--columns", type=int, default=8, help="crops of each")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    args = parser.parse_args(argv)
    conditions = [parse_condition(text) for text in args.conditions]
    if min(args.rows, args.columns) < 1:
        raise ValueError("--rows and --columns are at least 1")
    lips = read_prepared(args.dump, args.set, "lip.scp")
    chosen = choose(lips, args.utterances, args.rows, args.seed)
    decode = decode_folder(args.expdir, args.decode_tag)
    shown = collect(decode, args.dump, args.set, conditions, chosen)
    data, columns, scale = draw_within(shown, args.columns, args.title)
    write_bytes(args.output, data)
    print(f"{args.output}, {len(data) / 1000:.0f} kB: " + " ".join(chosen))
    if (columns, scale) != (args.columns, 1):
        print(
            f"{columns} of {args.columns} crops each at {scale:.0%} of their size, because a"
            f" picture has {LIMIT / 1000:.0f} kB at most; fewer utterances leave more for each"
        )


if __name__ == "__main__":
    main()

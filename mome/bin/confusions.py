"""Say which words are taken for which and where in the sentence errors are, as Markdown.

Reads <expdir>/decode/<task>/<set>/<rate pair>/text and the references <dump>/<set>/text; words are
aligned and normalised as for the word error rates. With --decode_tag X the folder is decode_X. A
section for each rate pair has the errors by place in sentences of the usual length, the pairs of
words that are confused, and, if references have words of one letter, what is recognised for these.
"""

from collections.abc import Mapping
from pathlib import Path

from mome.analysis.confusions import Confusions, confusions
from mome.analysis.decoded import add_arguments, decode_folder, read_prepared, read_transcripts
from mome.analysis.wer import NORMALISATION, RATES, score
from mome.common.command import in_one_line, parser_for
from mome.common.markdown import markdown_table
from mome.data import test_sets
from mome.data.kaldi import write_text
from mome.models.rates import TASKS

EXAMPLES = 4  # words that say what stands at a place


def place_table(found: Confusions) -> list[str]:
    """Errors by place, as lines of Markdown."""
    usual = len(found.places)
    rows = []
    for number, place in enumerate(found.places, start=1):
        frequent = sorted(place.words, key=lambda word: (-place.words[word], word))
        shown = " ".join(frequent[:EXAMPLES]) + " ..." * (len(frequent) > EXAMPLES)
        rate = f"{place.error_rate:.1f}"
        rows.append((number, shown, rate, place.substitutions, place.deletions))
    return [
        f"By place, over the {found.usual_utterances} of {found.utterances} sentences whose usual"
        f" length is {usual} words; {found.inserted_usual} words are inserted in these:",
        "",
        *markdown_table(["place", "words there", "errors in %", "sub", "del"], rows, "><>"),
    ]


def pair_table(found: Confusions, top: int) -> list[str]:
    """The ``top`` most frequent confusions, as lines of Markdown."""
    ranked = found.ranked_pairs()
    if not ranked:
        return ["No word is taken for another."]
    shown = "" if len(ranked) <= top else f" (the {top} most frequent of {len(ranked)})"
    rows = [(word, said, count, f"{share:.1f}") for word, said, count, share in ranked[:top]]
    return [
        f"Words taken for others{shown}; the share is that of the reference word's occurrences:",
        "",
        *markdown_table(["reference", "hypothesis", "count", "share in %"], rows, "<<>"),
    ]


def letter_table(found: Confusions) -> list[str]:
    """What is recognised for words of one letter, as lines of Markdown; none without such words."""
    letters = sorted(word for word in found.words if len(word) == 1 and word.isalpha())
    if not letters:
        return []
    rows = []
    for letter in letters:
        wrong = found.taken_for(letter)
        count = found.words[letter]
        right = 100 * (count - sum(n for _, n in wrong)) / count
        others = ", ".join(f"{said or '(deleted)'} {n}" for said, n in wrong)
        rows.append((letter, count, f"{right:.1f}", others))
    header = ["letter", "occurrences", "right in %", "taken for"]
    return ["", "Single letters:", "", *markdown_table(header, rows, "<>><")]


def markdown(
    task: str,
    name: str,
    references: Mapping[str, str],
    transcripts: Mapping[str, Mapping[str, str]],
    top: int,
) -> str:
    """The tables: a section for each rate pair of ``transcripts``.

    Raises:
        ValueError: with the rate pair, if hypotheses and references do not fit.
    """
    lines = [f"# Confusions: {task.upper()}, {test_sets.parse(name).describe()}", ""]
    lines += [f"Compared text: {NORMALISATION}.", ""]
    for pair, hypotheses in transcripts.items():
        try:
            found = confusions(references, hypotheses)
        except ValueError as error:
            raise ValueError(f"{task} {pair}: {error}; decode again by stage 5") from error
        rate = score(references, hypotheses)
        lines += [
            f"## {pair}",
            "",
            f"{RATES[rate.unit]} {rate.wer:.1f} % [{rate.low:.1f}, {rate.high:.1f}]"
            f" of {rate.words} {rate.unit}s:"
            f" {rate.substitutions} substitutions, {rate.deletions} deletions,"
            f" {rate.insertions} insertions.",
            "",
            *place_table(found),
            "",
            *pair_table(found, top),
            *letter_table(found),
            "",
        ]
    return "\n".join(lines)


@in_one_line("mome-confusions")
def main(argv: list[str] | None = None) -> None:
    """Print the tables or write them to a file."""
    parser = parser_for(__doc__)
    add_arguments(parser)
    parser.add_argument(
        "--task", choices=TASKS, required=True, help="the task whose transcripts are looked at"
    )
    parser.add_argument("--set", default="test", help="a test set or a copy of one")
    parser.add_argument("--rates", nargs="+", default=[], help="rate pairs; default: all decoded")
    parser.add_argument("--top", type=int, default=30, help="confusions shown of each rate pair")
    parser.add_argument("--output", type=Path, help="a file; default: print")
    args = parser.parse_args(argv)
    references = read_prepared(args.dump, args.set, "text")
    decode = decode_folder(args.expdir, args.decode_tag)
    transcripts = read_transcripts(decode, args.task, args.set, args.rates)
    table = markdown(args.task, args.set, references, transcripts, args.top)
    if args.output is None:
        print(table)
    else:
        write_text(args.output, table)
        print(f"{args.output}: {args.task} {', '.join(transcripts)} of {args.set}")


if __name__ == "__main__":
    main()

"""Score all that is decoded in a folder and write RESULTS.md and scores.json beside it.

Reads <expdir>/decode/<task>/<set>/<rate pair>/{text,decode.json} and the references
<dump>/<set>/text. All must be decoded with the same settings, from the sets that there are now.
With --decode_tag X the folder is decode_X, and the files are RESULTS_X.md and scores_X.json.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from mome.analysis.conditions import demand_alike, describe_copies, describe_search
from mome.analysis.decoded import add_arguments, decode_folder, rate_order, settings_digest
from mome.analysis.repetition import LONGEST, TIMES, count_loops
from mome.analysis.wer import NORMALISATION, Score, guess, rate_name, score
from mome.common.command import in_one_line, parser_for
from mome.common.json_files import read_json
from mome.common.markdown import markdown_table
from mome.data import test_sets
from mome.data.exclusions import FILE, OF_STAGE_1, OFFICIAL_SIZE, WHOLE_PICTURE, count_excluded
from mome.data.kaldi import read_scp, write_text
from mome.models.rates import TASKS

Key = tuple[str, str, str]  # task, set, rate pair
DETAILS = (
    *("task", "test set", "rates", "WER", "CER", "sub", "del", "ins", "words", "utterances"),
    *("cut off", "loops"),
)


def collect(decode: Path, dump: Path) -> tuple[dict[Key, Score], dict[Key, dict]]:
    """Scores of every decoded condition, and how it was decoded.

    Raises:
        FileNotFoundError: if nothing is decoded.
        ValueError: with the file's name, if hypotheses and references do not fit.
        OtherSettings: if conditions differ in settings, or a set was made anew since; see
            :func:`mome.analysis.conditions.demand_alike`.
    """
    scores: dict[Key, Score] = {}
    how: dict[Key, dict] = {}
    paths = sorted(decode.glob("*/*/*/text"))
    if not paths:
        raise FileNotFoundError(f"{decode} holds no transcripts; run stage 5")
    decoded = {path: read_json(path.parent / "decode.json", "run stage 5 again") for path in paths}
    demand_alike({path.parent: each.get("settings", {}) for path, each in decoded.items()}, dump)
    for path, found in decoded.items():
        task, name, pair = path.parts[-4:-1]
        references, hypotheses = read_scp(dump / name / "text"), read_scp(path)
        try:
            scores[task, name, pair] = score(references, hypotheses)
        except ValueError as error:
            raise ValueError(f"{path}: {error}; remove its folder and decode again") from error
        how[task, name, pair] = found | {"loops": count_loops(references, hypotheses)}
    return scores, how


def completeness(dump: Path, names: Iterable[str]) -> list[str]:
    """For each test set that is decoded, itself or as a copy: how much of it there is."""
    lines = []
    for base in sorted({test_sets.parse(name).base for name in names}):
        text = dump / base / "text"
        if not text.is_file():
            continue  # a copy was scored, and the set itself is no longer there
        kept = total = len(read_scp(text))
        said = []
        for stage, file in ((1, OF_STAGE_1), (2, FILE)):
            count = count_excluded(dump / base / file)
            total += count or 0
            if count:
                said.append(f"stage {stage} excludes {count}, see {dump / base / file}")
            elif stage == 1 and count is None:
                said.append("what stage 1 excludes is not listed")
        official = dump / base / OFFICIAL_SIZE
        if official.is_file() and (size := int(official.read_text())) != total:
            said.append(f"the corpus has {size} in this set")
        detectors = dump / base / "detectors"
        found = list(read_scp(detectors).values()) if detectors.is_file() else []
        if whole := found.count(WHOLE_PICTURE):
            said.append(f"in {whole} no face is found and the whole picture read, see {detectors}")
        lines.append(
            f"- Set `{base}`: {kept} of {total} utterances{''.join(f'; {s}' for s in said)}."
        )
    return lines


def markdown(
    scores: dict[Key, Score], guesses: dict[str, Score], how: dict[Key, dict], sets: Sequence[str]
) -> str:
    """The tables; ``sets`` are the lines about test sets and what their copies were made with."""
    units = {score.unit for score in scores.values()}
    rate = rate_name(each.as_dict() for each in scores.values())
    lines = ["# Character error rates" if units == {"character"} else "# Word error rates", ""]
    settings = next(iter(how.values()))["settings"]
    files = sorted({Path(each["weights"]).name for each in how.values() if "weights" in each})
    weights = "".join(f"`{file}`, " for file in files)
    lines += [
        f"{rate} in %, with the 95 % confidence interval of a bootstrap over utterances. "
        f"{describe_search(settings)}. Weights: {weights}SHA-256 {settings['weights'][:12]}. "
        f"Scored text: {NORMALISATION}.",
        "",
        *sets,
        "",
    ]
    if "character" in units:
        lines += [
            "CER: in sets of a script without blanks between words each character counts as a word,"
            " also where it says WER or words below; blanks count nothing.",
            "",
        ]
    for task in TASKS:
        rows = sorted({name for t, name, _ in scores if t == task}, key=order)
        pairs = sorted({pair for t, _, pair in scores if t == task}, key=rate_order)
        if not rows:
            continue
        cells = []
        for name in rows:
            of_characters = any(s.unit != "word" for (_, n, _), s in scores.items() if n == name)
            row = [test_sets.parse(name).describe() + " (CER)" * of_characters]
            for pair in pairs:
                found = scores.get((task, name, pair))
                row.append(interval(found) if found else "")
            cells.append(row)
        for name, value in guesses.items():
            cells.append([f"chance: {name}", *[interval(value)] * len(pairs)])
        lines += [f"## {task.upper()}", "", *markdown_table(["test set", *pairs], cells, "<")]
        lines.append("")
    details = []
    for task, name, pair in sorted(
        scores, key=lambda k: (TASKS.index(k[0]), order(k[1]), rate_order(k[2]))
    ):
        s, of_condition = scores[task, name, pair], how[task, name, pair]
        details.append(
            [
                *(task, name, pair, f"{s.wer:.2f}", f"{s.cer:.2f}"),
                *(s.substitutions, s.deletions, s.insertions, s.words, s.utterances),
                # Decodings of earlier versions did not count.
                *(of_condition.get("unfinished", "?"), of_condition["loops"]),
            ]
        )
    lines += ["## Details", "", *markdown_table(DETAILS, details, "<<<>")]
    lines += [
        "",
        "Cut off: transcripts without an end within the limit of new tokens. Loops: transcripts",
        f"that say up to {LONGEST} words {TIMES} times in a row or more, where the reference does",
        "not; `--decode_tag no_loops --no_repeat_ngram_size 6` forbids most.",
        "",
    ]
    lines += ["## Commands", "", "```"]
    lines += sorted({each["command"] for each in how.values()})
    return "\n".join([*lines, "```", ""])


def interval(value: Score) -> str:
    """An error rate with its confidence interval."""
    return f"{value.wer:.1f} [{value.low:.1f}, {value.high:.1f}]"


def order(name: str) -> tuple:
    """Sort sets as tables list them."""
    return test_sets.parse(name).order


@in_one_line("mome-score")
def main(argv: list[str] | None = None) -> None:
    """Write the tables."""
    parser = parser_for(__doc__)
    add_arguments(parser)
    parser.add_argument("--train_text", type=Path, help="training transcripts, to score chance")
    args = parser.parse_args(argv)
    tag = f"_{args.decode_tag}" if args.decode_tag else ""
    scores, how = collect(decode_folder(args.expdir, args.decode_tag), args.dump)
    guesses = {}
    if args.train_text is not None:
        name = min((name for _, name, _ in scores), key=order)
        train = list(read_scp(args.train_text).values())
        guesses = guess(train, read_scp(args.dump / name / "text"))
    names = [name for _, name, _ in scores]
    sets = completeness(args.dump, names) + describe_copies(args.dump, names)
    table = markdown(scores, guesses, how, sets)
    write_text(args.expdir / f"RESULTS{tag}.md", table)
    values: dict[str, dict] = {
        "/".join(key): value.as_dict() | {"settings": settings_digest(how[key])}
        for key, value in scores.items()
    }
    values |= {f"guess/{key}": value.as_dict() for key, value in guesses.items()}
    write_text(args.expdir / f"scores{tag}.json", json.dumps(values, indent=2) + "\n")
    print(table.split("## Details")[0])


if __name__ == "__main__":
    main()

"""Score all that is decoded in <expdir>/decode and write RESULTS.md and scores.json there.

Reads <expdir>/decode/<task>/<set>/<rate pair>/{text,decode.json} and the references
<dump>/<set>/text.
"""

import argparse
import json
import re
from pathlib import Path

from mome.analysis.wer import NORMALISATION, Score, guess, score
from mome.data.corrupt import CORRUPTIONS
from mome.data.corrupt import describe as describe_corruption
from mome.data.kaldi import read_scp
from mome.models.matryoshka import TASKS, parse_rate_pair

Key = tuple[str, str, str]  # task, set, rate pair

# A set's name, as stage 3 makes it.
CONDITION = re.compile(
    r"(?P<set>.+?)(_swap(?P<swap>video|audio))?"
    r"(_(?P<noise>[a-z]+)_snr(?P<snr>-?[\d.]+))?"
    rf"(_(?P<corruption>{'|'.join(CORRUPTIONS)})(?P<strength>[123]))?"
)


def collect(expdir: Path, dump: Path) -> tuple[dict[Key, Score], dict[Key, dict]]:
    """Scores and settings of every decoded condition.

    Raises:
        FileNotFoundError: if nothing is decoded.
        ValueError: with the file's name, if hypotheses and references do not fit.
    """
    scores, settings = {}, {}
    for path in sorted(expdir.glob("decode/*/*/*/text")):
        task, name, pair = path.parts[-4:-1]
        references = read_scp(dump / name / "text")
        try:
            scores[task, name, pair] = score(references, read_scp(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}; remove its folder and decode again") from error
        settings[task, name, pair] = json.loads((path.parent / "decode.json").read_text())
    if not scores:
        raise FileNotFoundError(f"{expdir / 'decode'} holds no transcripts; run stage 5")
    return scores, settings


def set_order(name: str) -> tuple:
    """Clean first, then exchanged streams, then noise from little to much, then corrupted lips."""
    condition = CONDITION.fullmatch(name)
    return (
        condition["set"],
        condition["corruption"] or "",
        condition["noise"] or "",
        condition["swap"] or "",
        -float(condition["snr"] or 0),
        condition["strength"] or "",
    )


def describe(name: str) -> str:
    """A set's name in words."""
    condition = CONDITION.fullmatch(name)
    words = [condition["set"]]
    if condition["swap"]:
        words.append(f"{condition['swap']} of another utterance")
    if condition["noise"]:
        words.append(f"{condition['noise']} at {condition['snr']} dB")
    if condition["corruption"]:
        words.append(describe_corruption(condition["corruption"], int(condition["strength"])))
    return ", ".join(words if len(words) > 1 else [*words, "clean"])


def markdown(scores: dict[Key, Score], guesses: dict[str, Score], settings: dict[Key, dict]) -> str:
    """The tables."""
    lines = ["# Word error rates", ""]
    first = next(iter(settings.values()))
    lines += [
        f"WER in %, with the 95 % confidence interval of a bootstrap over utterances. Beam "
        f"{first['beam']}, at most {first['max_new_tokens']} new tokens. Scored text: "
        f"{NORMALISATION}.",
        "",
    ]
    for task in TASKS:
        rows = sorted({name for t, name, _ in scores if t == task}, key=set_order)
        pairs = sorted({pair for t, _, pair in scores if t == task}, key=parse_pair)
        if not rows:
            continue
        lines += [f"## {task.upper()}", "", "| test set | " + " | ".join(pairs) + " |"]
        lines.append("| --- |" + " --- |" * len(pairs))
        for name in rows:
            cells = []
            for pair in pairs:
                cell = scores.get((task, name, pair))
                cells.append(f"{cell.wer:.1f} [{cell.low:.1f}, {cell.high:.1f}]" if cell else "")
            lines.append(f"| {describe(name)} | " + " | ".join(cells) + " |")
        for name, value in guesses.items():
            cell = f"{value.wer:.1f} [{value.low:.1f}, {value.high:.1f}]"
            lines.append(f"| guessing: {name} |" + f" {cell} |" * len(pairs))
        lines.append("")
    lines += [
        "## Details",
        "",
        "| task | test set | rates | WER | sub | del | ins | words | utterances |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for task, name, pair in sorted(
        scores, key=lambda k: (TASKS.index(k[0]), set_order(k[1]), parse_pair(k[2]))
    ):
        s = scores[task, name, pair]
        lines.append(
            f"| {task} | {name} | {pair} | {s.wer:.2f} | {s.substitutions} | {s.deletions} | "
            f"{s.insertions} | {s.words} | {s.utterances} |"
        )
    lines += ["", "## Commands", "", "```"]
    lines += sorted({s["command"] for s in settings.values()})
    return "\n".join([*lines, "```", ""])


def parse_pair(name: str) -> tuple[int, int]:
    """Sort rate pairs by audio rate, then video rate."""
    pair = parse_rate_pair(name)
    return pair.audio or 0, pair.video or 0


def main(argv: list[str] | None = None) -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--expdir", type=Path, required=True, help="folder of the model")
    parser.add_argument("--dump", type=Path, required=True)
    parser.add_argument("--train_text", type=Path, help="training transcripts, to score guessing")
    args = parser.parse_args(argv)
    scores, settings = collect(args.expdir, args.dump)
    guesses = {}
    if args.train_text is not None:
        name = min((name for _, name, _ in scores), key=set_order)
        train = list(read_scp(args.train_text).values())
        guesses = guess(train, read_scp(args.dump / name / "text"))
    table = markdown(scores, guesses, settings)
    (args.expdir / "RESULTS.md").write_text(table, encoding="utf-8")
    values = {"/".join(key): value.as_dict() for key, value in scores.items()}
    values |= {f"guess/{key}": value.as_dict() for key, value in guesses.items()}
    (args.expdir / "scores.json").write_text(json.dumps(values, indent=2) + "\n")
    print(table.split("## Details")[0])


if __name__ == "__main__":
    main()

"""The model card of a packed model, in the format of the Hugging Face hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from mome.analysis.wer import rate_name
from mome.common.markdown import markdown_table
from mome.data import test_sets
from mome.models.rates import TASKS, fineness, parse_rate_pair
from mome.pretrained.places import CONVERTED_FROM, HUB_NAMES, lies_on_hub
from mome.transcribe.confidence import BINS, FOLDS, UNKNOWN

# Of the table of rates, after the error rates: what mome.json calls them, and the card.
COLUMNS = {
    "word_ece": "ECE, words",
    "utterance_ece": "ECE, utterances",
    "seconds_per_second": "seconds",
    "tflops_per_second": "TFLOPs",
}
WEIGHTS = (".safetensors", ".bin")
TAGS = ["audio-visual-speech-recognition", "lip-reading", "mixture-of-experts"]

TEMPLATE = """---
{metadata}
---

# {name}

MoME: a frozen LLM reads speech and lips at compression rates chosen at inference.

**Trained on:** {trained_on} ({hours:g} h). {unknown}{lips}

```sh
mome-transcribe video.mp4 --model <this folder>
```

## Error rates, and what rates cost

Validation was measured on {measured}, when the model was packed; that set also served to choose the
checkpoint and to calibrate the confidence. {tested} {rate} in %; seconds and TFLOPs that encoders
and search take for a second of speech of the validation clips. Reading the file and finding faces
come on top.{characters}

{rates}
{copies}
Confidence was calibrated on the validation clips (at all rates {utterances} transcripts of {words}
words, {right:.1%} right) and on the same played backwards, of which no word can be right. ECE is
its expected calibration error in {bins} bins, of words and of utterances; an utterance has the mean
confidence of its words, held against the share of them that is right. Each clip was measured with
lines that were fitted to other clips, in up to {folds} folds: {word_ece} for words and
{utterance_ece} for utterances in all, and {raw_word_ece} and {raw_utterance_ece} without
calibration. Played backwards, {unknown_doubtful:.0%} of {unknown_parts} parts are said to be
doubtful.

## Frozen parts

They are not in this model and have licences of their own. Their weights, tokenizers and
configurations are checked when the model is opened.

{parts}
"""

CHARACTERS = """ CER: where the script leaves no blanks between words, each character counts as a
word, here and in what is said of the confidence."""


def lips_of(crops: Mapping[str, Any]) -> str:
    """In words, what cut the lips that a model was trained on; see `mome.lips.provenance`."""
    if crops.get("elsewhere"):
        return "**Lips:** not cut by mome; what cut them is not known."
    if not crops:
        return "**Lips:** what cut them is not known."
    counts = crops.get("clips", {})
    parts = []
    for name, digests in crops.get("landmarks", {crops["detector"]: {}}).items():
        models = "; ".join(f"{file}, SHA-256 {digest[:12]}" for file, digest in digests.items())
        number = f", {counts.get(name, 0)} of {sum(counts.values())} clips" if counts else ""
        parts.append(f"{name}{f' ({models})' if models else ''}{number}")
    return f"**Lips:** cut by {', and by '.join(parts)}."


def part_of(part: Mapping[str, Any]) -> str:
    """In words, a frozen part: its name, the hub's revision, the SHA-256 of its weights, and if
    these are not the hub's, what they were converted from."""
    words = [part["name"] if "revision" in part else Path(part["name"]).name]
    if "revision" in part:
        words.append(f"revision {part['revision']}")
    weights = {file: d for file, d in part["sha256"].items() if file.endswith(WEIGHTS)}
    words += [f"{file} SHA-256 {digest[:12]}" for file, digest in weights.items()]
    words += [CONVERTED_FROM[digest] for digest in weights.values() if digest in CONVERTED_FROM]
    return ", ".join(words if part["sha256"] else [*words, "which was not at hand to be checked"])


def is_copy(name: str) -> bool:
    """Whether a test set is a noisy, mismatched or corrupted copy of another one."""
    return test_sets.parse(name).base != name


def metadata(name: str, info: Mapping[str, Any], frozen: Mapping[str, Any], license_: str) -> str:
    """The YAML at the top of a card, by which the hub finds, links and ranks a model.

    The index of results has the error rates of test sets as they are: no copies, and not the
    validation set, which chose the checkpoint.
    """
    on_hub = [
        HUB_NAMES.get(part["name"], part["name"])
        for part in frozen.values()
        if part["name"] in HUB_NAMES or lies_on_hub(part)
    ]
    datasets = list(info.get("datasets", []))
    tests = [row for row in info.get("tests", []) if not is_copy(row["set"])]
    results = [
        EvalResult(
            task_type="automatic-speech-recognition",
            dataset_type=datasets[0] if datasets else "unknown",
            dataset_name=datasets[0] if datasets else "unknown",
            dataset_split=row["set"],
            metric_type=rate_name([row]).lower(),
            metric_value=round(row["wer"], 2),
            metric_name=f"{rate_name([row])}, {row['task']} at {row['rates']}",
        )
        for row in tests
    ]
    base_models = list(dict.fromkeys([*on_hub, *info.get("base_models", [])]))
    card_data = ModelCardData(
        language=info.get("language") or None,
        license=license_,
        library_name="mome",
        pipeline_tag="automatic-speech-recognition",
        tags=TAGS,
        datasets=datasets or None,
        base_model=base_models or None,
        base_model_relation="adapter" if base_models else None,
        metrics=sorted({rate_name([row]).lower() for row in [*info["rates"], *tests]}),
        model_name=name if results else None,
        eval_results=results or None,
    )
    return card_data.to_yaml()


def interval(row: Mapping[str, Any]) -> str:
    """An error rate with its confidence interval."""
    return f"{row['wer']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"


def rates_table(info: Mapping[str, Any]) -> list[str]:
    """A row for each task at each rate pair: error rates of validation and test sets, and costs."""
    tests = [row for row in info.get("tests", []) if not is_copy(row["set"])]
    sets = list(dict.fromkeys(row["set"] for row in tests))
    tested = {(row["task"], row["rates"], row["set"]): interval(row) for row in tests}
    header = ["task", "rates", f"{rate_name(info['rates'])}, validation"]
    header += [f"{rate_name(row for row in tests if row['set'] == name)}, {name}" for name in sets]
    rows = [
        [
            *(row["task"], row["rates"], str(row["wer"])),
            *(tested.get((row["task"], row["rates"], name), "") for name in sets),
            *(str(row.get(key, "")) for key in COLUMNS),
        ]
        for row in info["rates"]
    ]
    return markdown_table([*header, *COLUMNS.values()], rows)


def copies_table(info: Mapping[str, Any]) -> list[str]:
    """A row for each noisy or otherwise changed copy of a test set, at each task's finest rates."""
    tests = [row for row in info.get("tests", []) if is_copy(row["set"])]
    tasks = [task for task in TASKS if any(row["task"] == task for row in tests)]
    finest = {
        task: min(
            (row["rates"] for row in tests if row["task"] == task),
            key=lambda rates: fineness(parse_rate_pair(rates)),
        )
        for task in tasks
    }
    cells = {(row["set"], row["task"], row["rates"]): interval(row) for row in tests}
    names_of = {row["set"]: rate_name([row]) for row in tests}
    names = sorted(names_of, key=lambda name: test_sets.parse(name).order)
    rows = [
        [
            test_sets.parse(name).describe() + " (CER)" * (names_of[name] == "CER"),
            *(cells.get((name, task, finest[task]), "") for task in tasks),
        ]
        for name in names
    ]
    return markdown_table(["test set", *(f"{task} at {finest[task]}" for task in tasks)], rows)


def card(name: str, info: Mapping[str, Any], frozen: Mapping[str, Any], license_: str) -> str:
    """Text of the card of a model ``name``, from what its mome.json says."""
    tested = "No test set was decoded with these weights."
    if "tests" in info:
        tested = (
            f"Test sets were decoded with {info['tested']}; the brackets are the 95 % confidence "
            f"interval of a bootstrap over utterances."
        )
    rows = [*info["rates"], *info.get("tests", [])]
    copies = copies_table(info) if any(is_copy(row["set"]) for row in info.get("tests", [])) else []
    return TEMPLATE.format(
        metadata=metadata(name, info, frozen, license_),
        name=name,
        trained_on=info["trained_on"],
        hours=info["training_hours"],
        unknown=UNKNOWN,
        lips=f"\n\n{lips_of(info['crops'])}" if "crops" in info else "",
        measured=info["measured"],
        tested=tested,
        rate=rate_name(rows),
        characters=CHARACTERS if "CER" in rate_name(rows) else "",
        rates="\n".join(rates_table(info)),
        copies="\n".join(["", *copies, ""]) if copies else "",
        parts="\n".join(f"- {part_of(part)}" for part in frozen.values()),
        bins=BINS,
        folds=FOLDS,
        **{key: value for key, value in info["calibration"].items() if key != "lines"},
    )

"""The model card of a packed model, in the format of the Hugging Face hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mome.analysis.parameters import markdown
from mome.transcribe.confidence import UNKNOWN

WEIGHTS = (".safetensors", ".bin")

TEMPLATE = """---
license: {license}
library_name: mome
pipeline_tag: automatic-speech-recognition
tags: [audio-visual-speech-recognition, lip-reading, mixture-of-experts]
---

# {name}

MoME: a frozen LLM reads speech and lips at compression rates chosen at inference.

**Trained on:** {trained_on} ({hours:g} h). {unknown}{lips}

```sh
mome-transcribe video.mp4 --model <this folder>
```

## What its rates cost

Measured on {measured}. WER in %; seconds and TFLOPs that encoders and search take for a second of
speech. Reading the file and finding faces come on top.

{rates}

Confidence was calibrated on the same clips ({words} words, {right:.1%} right) and on the same
played backwards, of which no word can be right. Its expected calibration error on the clips is
{error_after}, and was {error_before} before. Played backwards, {unknown_doubtful:.0%} of
{unknown_parts} parts are said to be doubtful.

## Frozen parts

They are not in this model and have licences of their own. Their weights, tokenizers and
configurations are checked when the model is opened.

{parts}
"""


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
    """In words, a frozen part: its name, the hub's revision, and the SHA-256 of its weights."""
    words = [part["name"] if "revision" in part else Path(part["name"]).name]
    if "revision" in part:
        words.append(f"revision {part['revision']}")
    weights = {file: d for file, d in part["sha256"].items() if file.endswith(WEIGHTS)}
    words += [f"{file} SHA-256 {digest[:12]}" for file, digest in weights.items()]
    return ", ".join(words if part["sha256"] else [*words, "which was not at hand to be checked"])


def card(name: str, info: Mapping[str, Any], frozen: Mapping[str, Any], license_: str) -> str:
    """Text of the card of a model ``name``, from what its mome.json says."""
    header = ["task", "rates", "WER", "seconds", "TFLOPs"]
    keys = ("task", "rates", "wer", "seconds_per_second", "tflops_per_second")
    rows = [[str(row.get(key, "")) for key in keys] for row in info["rates"]]
    parts = [f"- {part_of(part)}" for part in frozen.values()]
    return TEMPLATE.format(
        license=license_,
        name=name,
        trained_on=info["trained_on"],
        hours=info["training_hours"],
        unknown=UNKNOWN,
        lips=f"\n\n{lips_of(info['crops'])}" if "crops" in info else "",
        measured=info["measured"],
        rates="\n".join(markdown(header, rows)),
        parts="\n".join(parts),
        **{
            key: info["calibration"][key]
            for key in (
                *("words", "right", "error_before", "error_after"),
                *("unknown_parts", "unknown_doubtful"),
            )
        },
    )

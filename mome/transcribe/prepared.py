"""Sets that stage 2 has prepared, as a packed model reads them: lips are cut already."""

import argparse
from collections.abc import Iterator, Sequence
from itertools import batched
from pathlib import Path

from mome.common.memory import naming_batch, naming_work
from mome.data.audio import RATE, read_audio
from mome.data.kaldi import read_scp
from mome.data.video import LIP_RATE, read_lips
from mome.models.avsr import AVSRModel, Features
from mome.tasks.packed import load_packed
from mome.transcribe.arguments import add_part_arguments
from mome.transcribe.clips import Clip
from mome.transcribe.transcriber import Transcriber, check_device

BATCH = 8


def add_crop_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of programs that read clips of stage 2 by a packed model; see `open_for_crops`."""
    parser.add_argument("--model", type=Path, required=True, help="packed model")
    parser.add_argument("--dump", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    add_part_arguments(parser)


def open_for_crops(args: argparse.Namespace) -> Transcriber:
    """The packed model of a program that reads lips which are cut already: no face is to be found.

    Args:
        args: the options of `add_crop_arguments`.

    Raises:
        FileNotFoundError, PackedModelError, ValueError: as `Transcriber.load`.
    """
    check_device(args.device)
    return Transcriber(*load_packed(args.model, args.device, args.imports, args.downloads))


def read_clips(
    data: Path,
    count: int | None,
    model: AVSRModel,
    wanted: Sequence[str] | None = None,
    remedy: str = "take a set of fewer",
) -> tuple[list[Clip], list[str]]:
    """Clips of a set that stage 2 has made, and their transcripts.

    Args:
        data: folder of the set.
        count: of the clips, evenly spaced; None takes all.
        model: which streams are read.
        wanted: ids of the clips, in the place of ``count``.
        remedy: what helps where memory does not suffice.

    Raises:
        ValueError: for a set without clips, without a stream that the model reads, or without a
            clip that is wanted.
        OutOfMemory: if the memory does not hold them.
    """
    read = {"audio": ("speech", "wav.scp", read_audio), "video": ("lips", "lip.scp", read_lips)}
    texts = read_scp(data / "text")
    files = {kind: read_scp(data / read[kind][1]) for kind in model.rates}
    chosen = wanted or list(texts)[:: max(1, len(texts) // count) if count else 1][:count]
    if unknown := [utterance for utterance in chosen if utterance not in texts]:
        raise ValueError(f"{data / 'text'} has no utterance {', '.join(unknown)}")
    if not chosen:
        raise ValueError(f"{data / 'text'} has no utterances to measure the model on")
    clips: list[Clip] = []
    with naming_work(lambda: f"clip {len(clips) + 1} of {data} was read", remedy):
        for utterance in chosen:
            streams = {read[kind][0]: read[kind][2](of[utterance]) for kind, of in files.items()}
            if "lips" in streams:
                seconds = len(streams["lips"]) / LIP_RATE
            else:
                seconds = len(streams["speech"]) / RATE
            clips.append(Clip(0.0, seconds, streams, [], utterance=utterance))
    return clips, [texts[utterance] for utterance in chosen]


def encoded(
    transcribe: Transcriber,
    data: Path,
    task: str,
    count: int | None,
    wanted: Sequence[str] | None = None,
    remedy: str = "",
) -> Iterator[tuple[list[str], Features, list[str]]]:
    """Ids of clips of a set, what the encoders make of them, and transcripts, batch by batch.

    Args:
        transcribe: the model.
        task: whose streams are encoded.
        data, count, wanted: see :func:`read_clips`, as for errors.
        remedy: what helps first where memory does not suffice.

    Raises:
        OutOfMemory: if that of the GPU or the machine does not suffice; names the clips.
    """
    fewer = remedy or "lower --max_clips"
    clips, texts = read_clips(data, count, transcribe.model, wanted, fewer)
    for group in batched(zip(clips, texts, strict=True), BATCH):
        of_group = [clip for clip, _ in group]
        utterances = [clip.name for clip in of_group]
        with naming_batch(utterances, remedy):
            features = transcribe.encode(of_group, task)
        yield utterances, features, [text for _, text in group]

"""What a model's transcripts of a validation set are worth: error rates, times, confidence."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mome.analysis import dry_run
from mome.analysis.wer import RATES, score, spell, unit_of
from mome.common.memory import naming_batch
from mome.common.yaml_files import read_yaml
from mome.data.text import normalise
from mome.models.rates import TaskPair
from mome.tasks.config import namespace
from mome.transcribe.clips import Clip
from mome.transcribe.confidence import (
    LOW,
    Calibration,
    Scores,
    calibration_errors,
    fit,
    held_out,
    words_right,
)
from mome.transcribe.options import Options
from mome.transcribe.transcriber import Transcriber
from mome.transcribe.transcript import Segment


def backwards(clip: Clip) -> Clip:
    """A clip played from its end: speech and lips of no language."""
    streams = {name: np.ascontiguousarray(values[::-1]) for name, values in clip.streams.items()}
    return replace(clip, streams=streams)


@dataclass(frozen=True)
class Reading:
    """The words that were read in a clip by a task at a rate pair.

    Attributes:
        row: number of the task and the rate pair.
        clip: its number.
        scores: raw scores of each word, or each character, see :func:`judge`.
        right: whether each is right; none is of a clip played backwards.
    """

    row: int
    clip: int
    scores: list[Scores]
    right: list[bool]


@dataclass(frozen=True)
class Measured:
    """What every task at every rate pair made of validation clips.

    Attributes:
        rows: one each: task, rates, error rate, its unit, and the seconds that encoders and search
            take for a second of speech, and the encoders alone.
        readings: of all clips in all rows.
        unknown: the same of the clips played backwards.
    """

    rows: list[dict[str, Any]]
    readings: list[Reading]
    unknown: list[Reading]


def judge(text: str, segment: Segment, spelled: bool) -> tuple[list[Scores], list[bool]]:
    """Of each word that was read, its raw scores, and whether it is right, as it is scored.

    Args:
        text: the transcript of the set; empty if no word can be right.
        segment: what was read.
        spelled: whether the set's script leaves no blanks between words, so that a "word" may be
            all that was said: then characters are scored, each with the scores of its word.
    """
    scores: list[Scores] = []
    heard = []
    for word in segment.words:
        # By itself, so that none is lost or becomes two. What scoring leaves nothing of is wrong.
        scored = normalise(word.text).replace(" ", "") or word.text
        units = spell(scored).split() if spelled else [scored]
        heard += units
        scores += [word.scores] * len(units)
    said = normalise(text)
    return scores, words_right(spell(said) if spelled else said, " ".join(heard))


def measure(transcribe: Transcriber, clips: list[Clip], texts: list[str], beam: int) -> Measured:
    """Read validation clips by every task at every rate pair.

    Raises:
        OutOfMemory: if that of the GPU or the machine does not suffice; names the clips.
    """
    total = sum(clip.end - clip.start for clip in clips)
    measured = Measured([], [], [])
    reversed_clips = [backwards(clip) for clip in clips]
    spelled = unit_of(texts) == "character"

    def read(clips: list[Clip], chosen: TaskPair) -> tuple[list[Segment], float]:
        """What is read, and the seconds that the encoders took."""
        options = Options(task=chosen.task, rates=str(chosen.pair), beam=beam)
        found, seconds = [], 0.0
        for group in batched(clips, options.batch_size):
            with naming_batch([clip.name for clip in group], "lower --beam"):
                started = time.perf_counter()
                features = transcribe.encode(group, chosen.task)
                if transcribe.device.type == "cuda":
                    torch.cuda.synchronize()
                seconds += time.perf_counter() - started
                found += transcribe.search(group, features, chosen, options)
        return found, seconds

    # What is compiled or read at the first use does not count.
    for chosen in {each.task: each for each in transcribe.model.task_pairs}.values():
        read(clips[:1], chosen)
    for number, chosen in enumerate(transcribe.model.task_pairs):
        started = time.perf_counter()
        found, encoders = read(clips, chosen)
        seconds = time.perf_counter() - started
        heard = {str(clip): segment.text for clip, segment in enumerate(found)}
        rate = score({str(clip): text for clip, text in enumerate(texts)}, heard)
        for clip, (text, segment) in enumerate(zip(texts, found, strict=True)):
            scores, right = judge(text, segment, spelled)
            measured.readings.append(Reading(number, clip, scores, right))
        for clip, segment in enumerate(read(reversed_clips, chosen)[0]):
            scores, wrong = judge("", segment, spelled)
            measured.unknown.append(Reading(number, clip, scores, wrong))
        row = {"task": chosen.task, "rates": str(chosen.pair), "wer": round(rate.wer, 1)}
        row["unit"] = rate.unit
        row["seconds_per_second"] = round(seconds / total, 3)
        row["encoder_seconds_per_second"] = round(encoders / total, 3)
        measured.rows.append(row)
        logging.info(
            "%s: %s %.1f %%, %.2f s a second",
            *(chosen, RATES[rate.unit], rate.wer, seconds / total),
        )
    return measured


def calibrate(measured: Measured) -> dict[str, Any]:
    """Fit the confidence to what was measured, for mome.json, and measure how well that does.

    The lines are fitted to all clips. Their errors are measured on clips that they were not fitted
    to, see :func:`mome.transcribe.confidence.held_out`. Adds to each row the expected calibration
    errors of words and utterances, ``word_ece`` and ``utterance_ece``, if words were read.

    Returns:
        ``lines``; ``words`` and ``utterances`` with words that were read in the validation set, and
        the share of words that is ``right``; the errors over all rows, and without calibration
        (``raw_word_ece``, ``raw_utterance_ece``); and of the parts played backwards in which words
        were found (``unknown_parts``), the share that is ``unknown_doubtful``.

    Raises:
        ValueError: for a single clip.
    """
    readings = [*measured.readings, *measured.unknown]
    scores, right = [each.scores for each in readings], [each.right for each in readings]
    confidences = held_out(scores, right, [each.clip for each in readings])
    known = len(measured.readings)

    def errors(places: Sequence[int], of: Sequence[Sequence[float]]) -> list[float]:
        found = calibration_errors([of[i] for i in places], [right[i] for i in places])
        return [round(error, 3) for error in found]

    for number, row in enumerate(measured.rows):
        places = [i for i in range(known) if readings[i].row == number]
        if any(right[i] for i in places):
            row["word_ece"], row["utterance_ece"] = errors(places, confidences)
    words = [hit for hits in right[:known] for hit in hits]
    word_ece, utterance_ece = errors(range(known), confidences)
    raw = errors(range(known), [Calibration()(each) for each in scores[:known]])
    parts = [float(np.mean(values)) for values in confidences[known:] if values]
    return {
        "lines": fit(scores, right).to_json(),
        "words": len(words),
        "utterances": sum(bool(hits) for hits in right[:known]),
        "right": round(sum(words) / max(1, len(words)), 3),
        "word_ece": word_ece,
        "utterance_ece": utterance_ece,
        "raw_word_ece": raw[0],
        "raw_utterance_ece": raw[1],
        "unknown_parts": len(parts),
        "unknown_doubtful": round(sum(part < LOW for part in parts) / max(1, len(parts)), 3),
    }


def add_flops(rows: list[dict[str, Any]], config: Path, seconds: float) -> None:
    """Add the TFLOPs for a second of speech to each row, from clips of a usual length.

    Those of the encoders alone stand beside them, as a cascade of rates runs them once.
    """
    model = dry_run.build(namespace(read_yaml(config)))
    encoders = {kind: dry_run.encoder_flops(model, kind, seconds) for kind in model.rates}
    pairs = {(each.task, str(each.pair)): each for each in model.task_pairs}
    for row in rows:
        chosen: TaskPair = pairs[row["task"], row["rates"]]
        of_encoders = sum(encoders[kind] for kind in chosen.pair.rates)
        flops = of_encoders + dry_run.llm_flops(model, chosen, seconds)
        row["tflops_per_second"] = float(f"{flops / seconds / 1e12:.3g}")
        row["encoder_tflops_per_second"] = float(f"{of_encoders / seconds / 1e12:.3g}")

"""Transcribe recordings by a packed model."""

from __future__ import annotations

import argparse
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from mome.analysis.repetition import repeats_itself
from mome.common.memory import naming_utterances, release_free_memory
from mome.data.collate import collate
from mome.data.preprocessor import AVSRPreprocessor
from mome.data.video import MediaError
from mome.lips.landmarks import FaceTracker
from mome.models.rates import READS, TaskPair
from mome.tasks.data_folders import streams_of
from mome.tasks.packed import load_packed
from mome.transcribe.ahead import Ahead
from mome.transcribe.arrays import Arrays
from mome.transcribe.choice import choose, coarsest, limits, task_of, usable, why
from mome.transcribe.clips import Clip, MouthCropper
from mome.transcribe.confidence import LOW, Calibration, word_scores, word_tokens
from mome.transcribe.faces import crops_of, other_tracker, own_tracker
from mome.transcribe.opening import Progress, Recording, clips_of, open_recording
from mome.transcribe.options import Options
from mome.transcribe.transcript import DOUBTFUL, Segment, Transcript, Word

if TYPE_CHECKING:
    from mome.llm.beam import Hypothesis
    from mome.models.avsr import AVSRModel, Features
    from mome.transcribe.alignment import Aligned

MAX_NEW_TOKENS = 64  # of a segment's transcript, or more where training had longer ones
FEWER = "lower --batch_size, --beam or --max_seconds, or use another --device"


def select(features: Features, rows: Sequence[int]) -> Features:
    """Some rows of a batch, without the padding of the others."""
    selected = {}
    for kind, (frames, lengths) in features.items():
        chosen = lengths[list(rows)]
        selected[kind] = frames[list(rows), : int(chosen.max())], chosen
    return selected


def check_device(device: str) -> None:
    """See that PyTorch can compute there.

    Raises:
        ValueError: for another device than ``cpu`` and ``cuda``, or one that is not there.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {device!r}: this machine has no GPU that PyTorch can use")
    if device != "cpu" and not device.startswith("cuda"):
        raise ValueError(f"device {device!r} is neither cpu nor cuda")


class Transcriber:
    """A trained model that transcribes recordings.

    Args:
        model: the trained model, in evaluation mode.
        conf: its configuration.
        info: what the packed model says of itself.
        tracker: finds faces; None where no video will be read.
        other: finds them where ``tracker`` finds none.
    """

    def __init__(
        self,
        model: AVSRModel,
        conf: argparse.Namespace,
        info: dict[str, Any],
        tracker: FaceTracker | None = None,
        other: FaceTracker | None = None,
    ):
        self.model = model
        self.conf = conf
        self.preprocess = AVSRPreprocessor(train=False, **(conf.preprocessor_conf or {}))
        self.info = info
        self.tracker = tracker
        self.other = other
        self.crops = crops_of(info, Path("the model"))
        self.device = model.decoder.markers.device
        calibration = info.get("calibration", {})
        if calibration and "lines" not in calibration:
            logging.warning(
                "the model was packed by an older version, whose calibration is not known here: "
                "confidences are the LLM's probabilities. Pack it again"
            )
        self.calibration = Calibration.from_json(calibration.get("lines", {}))
        # Transcripts are chosen as they were when the model was measured.
        self.length_penalty = float(info.get("length_penalty", 0.0))
        self.no_repeat_ngram_size = int(info.get("no_repeat_ngram_size", 0))
        # Models packed by older versions do not say how long transcripts of the training were.
        self.max_new_tokens = max(MAX_NEW_TOKENS, int(info.get("max_new_tokens", 0)))

    @classmethod
    def load(
        cls,
        model: str | Path,
        device: str = "cpu",
        tracker: FaceTracker | None = None,
        imports: Collection[str] = (),
        downloads: Collection[str | Path] = (),
    ) -> Self:
        """Open a packed model.

        Args:
            model: folder or file that ``mome-pack`` made.
            device: ``cpu`` or ``cuda``.
            tracker: finds faces; by default the detector that cut the lips of the training, or
                dlib's, whose models are looked for as frozen parts are; and where that one finds
                no face, the other, if its models are there. One that is given is alone, and
                transcripts note how its crops differ from those of the training.
            imports: modules that the model may import.
            downloads: folders with frozen parts and with the models that find faces; after these
                $MOME_DOWNLOADS and ./downloads are searched.

        Raises:
            FileNotFoundError, PackedModelError: see :func:`mome.tasks.packed.load_packed` and
                :func:`mome.transcribe.faces.own_tracker`.
            ValueError: for a device that is not there.
        """
        check_device(device)
        built, conf, info = load_packed(model, device, imports, downloads)
        crops = crops_of(info, Path(model))
        other = None
        if tracker is None and "video" in built.rates:
            tracker = own_tracker(crops, Path(model), downloads)
            other = other_tracker(crops, downloads) if tracker else None
        release_free_memory()
        return cls(built, conf, info, tracker, other)

    def open(
        self,
        source: str | Path | Arrays,
        options: Options | None = None,
        progress: Progress | None = None,
        check: Callable[[], None] | None = None,
    ) -> Recording:
        """Find the segments of a recording and prepare to read them.

        The arguments and errors are those of :func:`mome.transcribe.opening.open_recording`.
        """
        cropper = MouthCropper(self.crops, self.tracker, self.other, self.said)
        return open_recording(
            source, options or Options(), self.model.pairs, self.info, cropper, progress, check
        )

    def __call__(
        self,
        source: str | Path | Arrays,
        options: Options | None = None,
        progress: Progress | None = None,
    ) -> Transcript:
        """Transcribe a recording.

        Args:
            source: any file that FFmpeg reads, or :class:`mome.transcribe.arrays.Arrays`.
            options: how.
            progress: is called with what is being done (``listening``, where there is sound, then
                ``reading``), the seconds that are done and those of all, 0 if they are not known.

        Returns:
            the transcript, of a damaged file that of what could be read.

        Raises:
            FileNotFoundError, MediaError: for a file of which nothing can be read.
            ValueError: for options that do not fit the model or the recording.
        """
        options = options or Options()
        segments: list[Segment] = []
        with Ahead(options.batch_size) as ahead:
            recording = self.open(source, options, progress, ahead.check)
            for group in batched(ahead(recording.clips), options.batch_size):
                segments += self.transcribe(group, options)
                release_free_memory()
                if progress:
                    progress("reading", group[-1].end, recording.spans[-1][1])
        transcript = self.conclude(recording, segments, options)
        if not transcript.complete and not transcript.segments:
            raise MediaError(recording.name, transcript.notes[-1])
        return transcript

    def many(
        self, sources: Iterable[str | Path | Arrays], options: Options | None = None
    ) -> Iterator[Transcript]:
        """Transcribe recordings whose segments share batches: a short one alone fills none.

        Args:
            sources: files that FFmpeg reads, and arrays; taken by the thread that reads ahead.
            options: how.

        Yields:
            the transcripts in order, each when it is done. One of a recording of which nothing can
            be read has no segments, is not complete, and its note says why.

        Raises:
            ValueError: for options that do not fit the model.
        """
        options = options or Options()
        usable(options, self.model.pairs, self.info)
        opened: list[Recording] = []
        segments: defaultdict[int, list[Segment]] = defaultdict(list)
        given = 0
        with Ahead(options.batch_size) as ahead:
            clips = clips_of(
                sources, opened, lambda source: self.open(source, options, check=ahead.check)
            )
            for group in batched(ahead(clips), options.batch_size):
                found = self.transcribe([clip for _, clip in group], options)
                release_free_memory()
                for (place, _), segment in zip(group, found, strict=True):
                    segments[place].append(segment)
                # Of the recording of the last clip there may be more.
                for place in range(given, group[-1][0]):
                    yield self.conclude(opened[place], segments[place], options)
                given = group[-1][0]
        for place in range(given, len(opened)):
            yield self.conclude(opened[place], segments[place], options)

    def conclude(
        self, recording: Recording, segments: list[Segment], options: Options
    ) -> Transcript:
        """The transcript of a recording whose segments were all read.

        Where there was something of which nothing could be read, it has no segments, is not
        complete, and its last note says why; as the last note of a damaged one says where.
        """
        notes = list(recording.notes)
        for task in dict.fromkeys(segment.task for segment in segments if segment.task):
            notes += why(task, options, self.model.pairs, self.info)
        wrong = list(recording.damage.values())
        if not any(segment.task for segment in segments):
            wrong += dict.fromkeys(note for segment in segments for note in segment.notes)
            segments = []
        if wrong:
            notes.append("; ".join(wrong))
        trained_on = str(self.info.get("trained_on", ""))
        return Transcript(Path(recording.name).name, segments, notes, trained_on, not wrong)

    def said(
        self, candidates: Sequence[np.ndarray], speech: np.ndarray | None
    ) -> list[float] | None:
        """How well each of several mouths says what is heard; None if the model cannot tell."""
        # This loads Transformers, as building the model did; importing this module need not.
        from mome.transcribe.alignment import lips_say

        if speech is None or len(self.model.rates) < 2:
            return None
        heard = self.encode([Clip(0, 0, {"speech": speech}, [])], "asr")
        seen = self.encode([Clip(0, 0, {"lips": lips}, []) for lips in candidates], "vsr")
        return lips_say(self.model, heard, seen)

    def transcribe(self, clips: Sequence[Clip], options: Options | None = None) -> list[Segment]:
        """Transcribe segments, in order.

        Raises:
            ValueError: for a task or rates that were not trained.
            OutOfMemory: if that of the GPU or the machine does not suffice; names segments.
        """
        options = options or Options()
        tasks = usable(options, self.model.pairs, self.info)
        result: dict[int, Segment] = {}
        by_task: dict[str, list[int]] = {}
        for place, clip in enumerate(clips):
            task = task_of(clip.streams, tasks)
            if task is None:
                notes = [*clip.notes, f"not read: {limits(tasks, self.model.pairs)}"]
                result[place] = Segment(clip.start, clip.end, "", 0.0, [], "", "", notes)
            else:
                by_task.setdefault(task, []).append(place)
        for task, places in by_task.items():
            found = self.search_cascade([clips[place] for place in places], task, options)
            result |= dict(zip(places, found, strict=True))
        return [result[place] for place in range(len(clips))]

    @torch.inference_mode()
    def search_cascade(self, clips: Sequence[Clip], task: str, options: Options) -> list[Segment]:
        """Transcribe segments at the rates chosen, or what is doubtful at coarser ones.

        The encoders run once, whatever is read again.
        """
        chosen = choose(task, options, self.model.pairs, self.info)
        with naming_utterances(lambda: [clip.name for clip in clips], FEWER):
            features = self.encode(clips, task)
            if options.cascade is None:
                return self.search(clips, features, chosen, options)
            coarse = coarsest(task, self.model.pairs)
            found = self.search(clips, features, coarse, options)
            doubtful = [i for i, each in enumerate(found) if each.confidence < options.cascade]
            if doubtful and coarse != chosen:
                again = self.search(
                    [clips[i] for i in doubtful], select(features, doubtful), chosen, options
                )
                for place, segment in zip(doubtful, again, strict=True):
                    found[place] = replace(segment, notes=[*segment.notes, "read again"])
            return found

    @torch.inference_mode()
    def encode(self, clips: Sequence[Clip], task: str) -> Features:
        """What the encoders make of the streams that a task reads; see `AVSRModel.encode`."""
        names = streams_of([task])
        items = [
            (str(number), self.preprocess("", {name: clip.streams[name] for name in names}))
            for number, clip in enumerate(clips)
        ]
        batch = {key: value.to(self.device) for key, value in collate(items)[1].items()}
        return self.model.encode(**batch)

    @torch.inference_mode()
    def search(
        self, clips: Sequence[Clip], features: Features, chosen: TaskPair, options: Options
    ) -> list[Segment]:
        """Transcribe segments by what the encoders have made of them, see :meth:`encode`.

        Raises:
            FloatingPointError: for segments of whose words the LLM has no probability.
        """
        # These load Transformers, as building the model did; importing this module need not.
        from mome.llm.beam import UndefinedScores, beam_search
        from mome.transcribe.alignment import align_tokens

        try:
            best = beam_search(
                self.model.decoder.lm.inner,
                *self.model.prompts(features, [chosen]),
                beam=options.beam,
                max_new_tokens=options.max_new_tokens or self.max_new_tokens,
                eos_id=self.model.decoder.eos_id,
                length_penalty=self.length_penalty,
                no_repeat_ngram_size=self.no_repeat_ngram_size,
                adapter=self.model.decoder.adapter,
            )[0]
        except UndefinedScores as error:
            raise error.naming([clip.name for clip in clips]) from None
        aligned = align_tokens(self.model, features, chosen.pair, [b[0].tokens for b in best])
        return [
            self.segment(clip, hypotheses[0], chosen, of_tokens)
            for clip, hypotheses, of_tokens in zip(clips, best, aligned, strict=True)
        ]

    def segment(
        self,
        clip: Clip,
        hypothesis: Hypothesis,
        chosen: TaskPair,
        aligned: list[Aligned] | None,
    ) -> Segment:
        """A hypothesis as words with confidences and times."""
        found = word_tokens(self.model.tokenizer, hypothesis.tokens)
        spans: list[tuple[float | None, float | None]] = []
        scores: list[tuple[float, ...]] = []
        for (_, places), score in zip(found, word_scores(hypothesis.log_probs, found), strict=True):
            if aligned is None:
                spans.append((None, None))
                scores.append((score,))
            else:
                start = round(clip.start + aligned[places[0]].start, 2)
                end = round(min(clip.start + aligned[places[-1]].end, clip.end), 2)
                spans.append((start, end))
                posterior = math.exp(min(aligned[place].log_prob for place in places))
                scores.append((score, posterior))
        words = [
            Word(text, round(confidence, 3), *span, of_word)
            for (text, _), confidence, span, of_word in zip(
                found, self.calibration(scores), spans, scores, strict=True
            )
        ]
        mean = float(np.mean([word.confidence for word in words])) if words else 0.0
        notes = list(clip.notes)
        if words and mean < LOW:
            notes.append(DOUBTFUL)
        if not hypothesis.finished:
            notes.append("cut off at the limit of tokens")
        if repeats_itself(" ".join(word.text for word in words)):
            notes.append("repeats itself")
        return Segment(
            round(clip.start, 2),
            round(clip.end, 2),
            " ".join(word.text for word in words),
            round(mean, 3),
            words,
            chosen.task,
            str(chosen.pair),
            notes,
            clip.detector if "video" in READS[chosen.task] else "",
        )

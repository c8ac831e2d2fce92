"""Transcribe recordings by a packed model."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from mome.analysis.repetition import repeats_itself
from mome.analysis.wer import rate_name
from mome.common.memory import naming_utterances, naming_work, release_free_memory
from mome.data.collate import collate
from mome.data.preprocessor import AVSRPreprocessor
from mome.data.video import LIP_RATE, MediaError, reason_of
from mome.lips.extract import FaceLost, Lips, crop_face, seen_frames
from mome.lips.landmarks import FaceTracker
from mome.models.rates import READS, RatePair, TaskPair, fineness, parse_rate_pair
from mome.tasks.data_folders import streams_of
from mome.tasks.packed import load_packed
from mome.transcribe.ahead import Ahead
from mome.transcribe.arrays import Arrays
from mome.transcribe.confidence import LOW, Calibration, word_scores, word_tokens
from mome.transcribe.faces import crops_of, differences, missing, other_tracker, own_tracker
from mome.transcribe.options import Options, best_within
from mome.transcribe.recording import (
    SHORTEST,
    Damage,
    Piece,
    Streams,
    probe,
    read_pieces,
    speech_levels,
    video_seconds,
)
from mome.transcribe.segments import FRAME, even_segments, find_segments
from mome.transcribe.speaker import who_speaks
from mome.transcribe.transcript import DOUBTFUL, Segment, Transcript, Word

if TYPE_CHECKING:
    from mome.llm.beam import Hypothesis
    from mome.models.avsr import AVSRModel, Features
    from mome.transcribe.alignment import Aligned

LONGER = 1.25  # than in training, segments may be
MAX_NEW_TOKENS = 64  # of a segment's transcript, or more where training had longer ones
REPEATED = 0.2  # seconds that the last picture may stand without being noted
PEOPLE = 3  # faces that are followed, to find out who speaks
FEWER = "lower --batch_size, --beam or --max_seconds, or use another --device"

Progress = Callable[[str, float, float], None]


@dataclass(frozen=True)
class Clip:
    """A segment as the model reads it.

    Attributes:
        start, end: in seconds.
        streams: ``speech`` float32 (N,) at 16 kHz and ``lips`` uint8 (T, 96, 96), those there are.
        notes: what was unusual.
        detector: which found the face of the lips, if there are any.
        utterance: its id, if it is one of a set.
    """

    start: float
    end: float
    streams: dict[str, np.ndarray]
    notes: list[str]
    detector: str = ""
    utterance: str = ""

    @property
    def name(self) -> str:
        """What errors call it."""
        return self.utterance or f"{self.start:.2f} to {self.end:.2f} s"


@dataclass(frozen=True)
class Recording:
    """A recording cut into segments, which are read one after the other.

    Attributes:
        name: path of the file, or name of the arrays.
        tasks: those whose streams it has and whose rates may be used.
        spans: of the segments, in seconds. Where a stream ends in one, two clips are made of it.
        clips: the segments, prepared as they are asked for.
        notes: what holds for all of it.
        damage: stream -> up to where it could be read, and why not further; known when all clips
            were taken.
    """

    name: str
    tasks: list[str]
    spans: list[tuple[float, float]]
    clips: Iterator[Clip]
    notes: list[str]
    damage: Damage


def select(features: Features, rows: Sequence[int]) -> Features:
    """Some rows of a batch, without the padding of the others."""
    selected = {}
    for kind, (frames, lengths) in features.items():
        chosen = lengths[list(rows)]
        selected[kind] = frames[list(rows), : int(chosen.max())], chosen
    return selected


def lost_in(mouths: Sequence[Lips]) -> float:
    """Mean number of frames in which mouths were not seen; without any, more than all."""
    return float(np.mean([lips.lost for lips in mouths])) if mouths else math.inf


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
        if tracker is None and any("video" in READS[task] for task in built.pairs):
            tracker = own_tracker(crops, Path(model), downloads)
            other = other_tracker(crops, downloads) if tracker else None
        release_free_memory()
        return cls(built, conf, info, tracker, other)

    def choose(self, task: str, options: Options) -> TaskPair:
        """The task at the rates asked for, the best within the budget, or the finest.

        Raises:
            ValueError: for what the model was not trained for, or a budget that nothing meets.
        """
        pairs = self.model.pairs.get(task)
        if pairs is None:
            raise ValueError(f"this model knows {', '.join(self.model.pairs)}, not {task}")
        rates = options.rates
        if rates is None and options.budget is not None:
            return TaskPair(task, parse_rate_pair(self.within(task, options)["rates"]))
        if rates is None:
            return TaskPair(task, min(pairs, key=fineness))
        wanted = parse_rate_pair(rates)
        # a4_v2 asks for audio at 4 where there is no video.
        wanted = RatePair(
            wanted.audio if "audio" in READS[task] else None,
            wanted.video if "video" in READS[task] else None,
        )
        if wanted not in pairs:
            raise ValueError(
                f"{task} was not trained at {rates}; this model knows "
                f"{', '.join(str(pair) for pair in pairs)}"
            )
        return TaskPair(task, wanted)

    def within(self, task: str, options: Options) -> Mapping[str, Any]:
        """The row of a task's rates that its budget buys; see `best_within`.

        Raises:
            ValueError: if there is none, or nothing was measured.
        """
        assert options.budget is not None, "there is a budget where this is called"
        rows = [row for row in self.info.get("rates", []) if row["task"] == task]
        try:
            return best_within(rows, options.budget, options.cascade is not None)
        except ValueError as error:
            raise ValueError(f"{task}: {error}") from None

    def usable(self, options: Options) -> list[str]:
        """The tasks that may be used, by the options and by what was trained.

        Raises:
            ValueError: if there is none; says why.
        """
        tasks = list(self.model.pairs) if options.task == "auto" else [options.task]
        usable, errors = [], []
        for task in tasks:
            try:
                self.choose(task, options)
                usable.append(task)
            except ValueError as error:
                errors.append(error)
        if not usable:
            raise errors[0]
        return usable

    def limits(self, tasks: Sequence[str]) -> str:
        """Why nothing but these tasks is done, in words."""
        if len(tasks) < len(self.model.pairs):
            return f"the options allow {' and '.join(tasks)} alone"
        return f"the model was trained for {' and '.join(tasks)} alone"

    def possible(self, source: Path | Arrays, options: Options) -> tuple[Streams, list[str]]:
        """The streams of a recording, and the tasks that may be used and read them.

        Raises:
            FileNotFoundError, MediaError: for a file that cannot be opened, or has nothing that
                the model reads.
            ValueError: for options that do not fit the model; also if pictures would be read, and
                the models that find faces are not there.
        """
        streams = probe(source)
        tasks = self.usable(options)
        there = {kind for kind in ("audio", "video") if getattr(streams, kind)}
        possible = [task for task in tasks if there.issuperset(READS[task])]
        if not possible:
            name = source.name if isinstance(source, Arrays) else source
            lacking = " and no ".join(sorted({"audio", "video"} - there))
            who = f"{' and '.join(tasks)} {'reads' if len(tasks) == 1 else 'read'}"
            raise MediaError(name, f"no {lacking}, which {who}; {self.limits(tasks)}")
        if self.tracker is None and any("video" in READS[task] for task in possible):
            raise ValueError(missing(self.crops))
        return streams, possible

    def open(
        self,
        source: str | Path | Arrays,
        options: Options | None = None,
        progress: Progress | None = None,
        check: Callable[[], None] | None = None,
    ) -> Recording:
        """Find the segments of a recording and prepare to read them.

        Args:
            source: any file that FFmpeg reads, or arrays.
            options: how; of these the tasks and where to cut.
            progress: as of a call of the transcriber.
            check: is called now and then, here and while the segments are read; what it raises
                ends that.

        Raises:
            FileNotFoundError, MediaError: for a file that cannot be opened, or has nothing that
                the model reads.
            ValueError: for options that do not fit the model or the recording.
        """
        options = options or Options()
        if not isinstance(source, Arrays):
            source = Path(source)
        name = source.name if isinstance(source, Arrays) else str(source)
        streams, possible = self.possible(source, options)
        # Sound also tells where to cut and who speaks.
        read = Streams(streams.audio, any("video" in READS[task] for task in possible))
        notes = [] if streams.audio else ["no sound: lips alone"]
        notes += [] if streams.video else ["no video: sound alone"]
        if read.video and self.tracker is not None:
            notes += differences(self.crops, self.tracker)
        longest = options.max_seconds or LONGER * float(self.info.get("max_seconds", 15.0))
        damage: Damage = {}
        spans = []
        heard = 0.0
        if read.audio:

            def listening(seconds: float) -> None:
                if check:
                    check()
                if progress:
                    progress("listening", seconds, streams.seconds)

            level = speech_levels(source, damage, listening)
            heard = len(level) * FRAME
            spans = find_segments(level, longest, options.min_pause)
            if not spans:
                if heard:
                    notes.append("silent throughout")
                read = Streams(False, read.video)
                heard = 0.0
        alone = video_seconds(source) - heard if read.video else 0.0
        if read.video and not read.audio and not alone:
            alone = longest  # reading will show how long they are, or what is wrong with them
        if alone >= SHORTEST or (read.video and not read.audio):
            if "vsr" in possible:
                # The first frame after the sound, so that nothing of it is in these segments.
                begin = math.ceil(heard * LIP_RATE - 1e-6) / LIP_RATE
                spans += [
                    (begin + a, begin + b) for a, b in even_segments(heard + alone - begin, longest)
                ]
            else:
                after = f"after the sound, from {heard:.1f} s on, " if heard else ""
                limits = self.limits(self.usable(options))
                notes.append(f"{after}lips alone are not read: {limits}")
                if not spans:
                    raise MediaError(name, "; ".join([*damage.values(), *notes]))
        # Segments begin and end with frames, so that both streams are equally long.
        spans = [(round(a * LIP_RATE) / LIP_RATE, round(b * LIP_RATE) / LIP_RATE) for a, b in spans]
        pieces = read_pieces(source, read, spans, damage, check)
        return Recording(name, possible, spans, self.prepared(pieces, name), notes, damage)

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
        self.usable(options)
        opened: list[Recording] = []
        segments: list[list[Segment]] = []
        given = 0
        with Ahead(options.batch_size) as ahead:
            clips = ahead(self.clips_of(sources, options, opened, ahead.check))
            for group in batched(clips, options.batch_size):
                segments += [[] for _ in opened[len(segments) :]]
                found = self.transcribe([clip for _, clip in group], options)
                release_free_memory()
                for (place, _), segment in zip(group, found, strict=True):
                    segments[place].append(segment)
                # Of the recording of the last clip there may be more.
                for place in range(given, group[-1][0]):
                    yield self.conclude(opened[place], segments[place], options)
                given = group[-1][0]
        segments += [[] for _ in opened[len(segments) :]]
        for place in range(given, len(opened)):
            yield self.conclude(opened[place], segments[place], options)

    def clips_of(
        self,
        sources: Iterable[str | Path | Arrays],
        options: Options,
        opened: list[Recording],
        check: Callable[[], None] | None = None,
    ) -> Iterator[tuple[int, Clip]]:
        """The segments of recordings, which are opened one after the other, with their places.

        Whatever is wrong with a recording, the others are still to be read.
        """
        for place, source in enumerate(sources):
            read = ""
            try:
                opened.append(self.open(source, options, check=check))
                for clip in opened[place].clips:
                    yield place, clip
                    read = f"read to {clip.end:.2f} s: "
            except CancelledError:  # by `check`
                raise
            except Exception as error:
                reason = error.reason if isinstance(error, MediaError) else reason_of(error)
                if place == len(opened):
                    name = source.name if isinstance(source, Arrays) else str(source)
                    opened.append(Recording(name, [], [], iter(()), [], {}))
                opened[place].damage[""] = f"{read}{reason}"

    def conclude(
        self, recording: Recording, segments: list[Segment], options: Options
    ) -> Transcript:
        """The transcript of a recording whose segments were all read.

        Where there was something of which nothing could be read, it has no segments, is not
        complete, and its last note says why; as the last note of a damaged one says where.
        """
        notes = list(recording.notes)
        for task in dict.fromkeys(segment.task for segment in segments if segment.task):
            notes += self.why(task, options)
        wrong = list(recording.damage.values())
        if not any(segment.task for segment in segments):
            wrong += dict.fromkeys(note for segment in segments for note in segment.notes)
            segments = []
        if wrong:
            notes.append("; ".join(wrong))
        trained_on = str(self.info.get("trained_on", ""))
        return Transcript(Path(recording.name).name, segments, notes, trained_on, not wrong)

    def why(self, task: str, options: Options) -> list[str]:
        """In words, why a task was done at its rates, unless they were named."""
        notes = []
        chosen = self.choose(task, options)
        if options.rates is None and options.budget is not None:
            row = self.within(task, options)
            limit, unit = options.budget.limit, options.budget.unit.replace("_", " ")
            notes.append(
                f"{chosen}: {row['wer']} % {rate_name([row])} on {self.info['measured']}, the best "
                f"within {limit:g} {unit} of encoders and search"
                f"{' with the coarse pass' if options.cascade is not None else ''}"
            )
        elif options.rates is None:
            notes.append(f"{chosen}, the finest rates")
        coarse = self.coarsest(task)
        if options.cascade is not None and coarse != chosen:
            notes.append(
                f"{coarse} first, {chosen.pair} where the confidence was below {options.cascade:g}"
            )
        return notes

    def coarsest(self, task: str) -> TaskPair:
        """A task at its coarsest rates."""
        return TaskPair(task, max(self.model.pairs[task], key=fineness))

    def reads(self, kind: str) -> bool:
        """Whether any task of the model reads ``audio`` or ``video``."""
        return any(kind in READS[task] for task in self.model.pairs)

    def prepared(self, pieces: Iterator[Piece], name: str) -> Iterator[Clip]:
        """Segments of a recording as the model reads them; errors name it."""
        try:
            with naming_work(lambda: f"{name} was read", "lower --max_seconds"):
                for piece in pieces:
                    yield self.prepare(piece)
                    release_free_memory()
        except Exception as error:
            error.add_note(f"while {name} was read")
            raise

    def prepare(self, piece: Piece) -> Clip:
        """Cut out the mouth of the face that is there."""
        streams: dict[str, np.ndarray] = {}
        notes = list(piece.notes)
        detector = ""
        if piece.speech is not None:
            streams["speech"] = piece.speech
        if piece.frames:
            lips, detector = self.mouth(piece, notes)
            if lips is None:
                notes.append("no face")
            else:
                # As in training, where both streams end together.
                lacking = round((piece.end - piece.start) * LIP_RATE) - len(lips)
                streams["lips"] = np.pad(lips, ((0, lacking), (0, 0), (0, 0)), "edge")
                if lacking > REPEATED * LIP_RATE:
                    notes.append(f"the last picture stands for {lacking / LIP_RATE:.2f} s")
        return Clip(piece.start, piece.end, streams, notes, detector)

    def mouth(self, piece: Piece, notes: list[str]) -> tuple[np.ndarray | None, str]:
        """The mouth crop of whoever speaks, uint8 (T, 96, 96), and the detector that found it.

        It is None if no detector sees a face often enough.
        """
        if self.tracker is None:
            raise ValueError(missing(self.crops))
        own = candidates = self.mouths(piece.frames, self.tracker)
        tracker = self.tracker
        if self.other is not None and (not own or any(lips.often_lost for lips in own)):
            others = self.mouths(piece.frames, self.other)
            # Nobody is lost by it: of two people the one who speaks may be the smaller one.
            if others and len(others) >= len(own) and lost_in(others) < lost_in(own):
                candidates, tracker = others, self.other
                how = "more often than" if own else "not"
                notes.append(f"face found by {tracker.name}, {how} by {self.tracker.name}")
        if not candidates:
            return None, ""
        if len(candidates) > 1:
            notes.append("several faces")
            crops = [lips.frames for lips in candidates]
            said = self.said(crops, piece.speech)
            return crops[who_speaks(crops, piece.speech, said)], tracker.name
        return candidates[0].frames, tracker.name

    def said(
        self, candidates: Sequence[np.ndarray], speech: np.ndarray | None
    ) -> list[float] | None:
        """How well each of several mouths says what is heard; None if the model cannot tell."""
        # This loads Transformers, as building the model did; importing this module need not.
        from mome.transcribe.alignment import lips_say

        if speech is None or not (self.reads("audio") and self.reads("video")):
            return None
        heard = self.encode([Clip(0, 0, {"speech": speech}, [])], "asr")
        seen = self.encode([Clip(0, 0, {"lips": lips}, []) for lips in candidates], "vsr")
        return lips_say(self.model, heard, seen)

    def mouths(self, frames: Sequence[np.ndarray], tracker: FaceTracker) -> list[Lips]:
        """The mouth crops of the faces that a detector sees often enough, the main one first."""
        seen = seen_frames(len(frames), self.crops["landmark_every"])
        candidates = []
        for landmarks in tracker.people([frames[i] for i in seen], PEOPLE):
            try:
                found = dict(zip(seen, landmarks, strict=True))
                candidates.append(crop_face(frames, "the recording", found, self.crops["window"]))
            except FaceLost:
                continue
        return candidates

    def transcribe(self, clips: Sequence[Clip], options: Options | None = None) -> list[Segment]:
        """Transcribe segments, in order.

        Raises:
            ValueError: for a task or rates that were not trained.
            OutOfMemory: if that of the GPU or the machine does not suffice; names segments.
        """
        options = options or Options()
        tasks = self.usable(options)
        result: dict[int, Segment] = {}
        by_task: dict[str, list[int]] = {}
        for place, clip in enumerate(clips):
            task = self.task_of(clip, tasks)
            if task is None:
                notes = [*clip.notes, f"not read: {self.limits(tasks)}"]
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
        chosen = self.choose(task, options)
        with naming_utterances(lambda: [clip.name for clip in clips], FEWER):
            features = self.encode(clips, task)
            if options.cascade is None:
                return self.search(clips, features, chosen, options)
            coarse = self.coarsest(task)
            found = self.search(clips, features, coarse, options)
            doubtful = [i for i, each in enumerate(found) if each.confidence < options.cascade]
            if doubtful and coarse != chosen:
                again = self.search(
                    [clips[i] for i in doubtful], select(features, doubtful), chosen, options
                )
                for place, segment in zip(doubtful, again, strict=True):
                    found[place] = replace(segment, notes=[*segment.notes, "read again"])
            return found

    def task_of(self, clip: Clip, tasks: Sequence[str]) -> str | None:
        """The one of the tasks that reads most of a segment's streams; None if none can."""
        possible = [task for task in tasks if set(clip.streams).issuperset(streams_of([task]))]
        return max(possible, key=lambda task: (len(READS[task]), task == "asr"), default=None)

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

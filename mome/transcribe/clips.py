"""Clips: segments as the model reads them, the sound and the mouth of whoever speaks."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mome.common.memory import naming_work, release_free_memory
from mome.data.video import LIP_RATE
from mome.lips.extract import FaceLost, Lips, crop_face, seen_frames
from mome.lips.landmarks import FaceTracker
from mome.lips.provenance import Crops
from mome.transcribe.faces import missing
from mome.transcribe.recording import Piece
from mome.transcribe.speaker import who_speaks

REPEATED = 0.2  # seconds that the last picture may stand without being noted
PEOPLE = 3  # faces that are followed, to find out who speaks


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
class MouthCropper:
    """Cuts the mouth of whoever speaks out of the pictures of segments.

    Attributes:
        crops: how lips were cut for the training, see :func:`mome.transcribe.faces.crops_of`.
        tracker: finds faces; None where none will be looked for.
        other: finds them where ``tracker`` finds none, or too seldom.
        said: how well each of several mouths says what is heard; None if that is not known.
    """

    crops: Crops
    tracker: FaceTracker | None
    other: FaceTracker | None
    said: Callable[[Sequence[np.ndarray], np.ndarray | None], list[float] | None]

    def clips(self, pieces: Iterator[Piece], name: str) -> Iterator[Clip]:
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


def lost_in(mouths: Sequence[Lips]) -> float:
    """Mean number of frames in which mouths were not seen; without any, more than all."""
    return float(np.mean([lips.lost for lips in mouths])) if mouths else math.inf

"""ESPnet preprocessor: from the files of an utterance to the arrays that the model reads."""

import math
from collections.abc import Collection, Iterator, KeysView, Mapping
from typing import Any

import numpy as np
import torch

from mome.data.activity import HOP, speech_activity
from mome.data.audio import read_audio, read_samples, readable_samples
from mome.data.augment import (
    center_crop,
    cut_loudest,
    cut_noise,
    mask_audio,
    mask_video,
    mix,
    normalize,
    random_crop,
)
from mome.data.kaldi import read_scp
from mome.data.text import lowered
from mome.data.video import MediaError, read_lips

SNRS = (-5, 0, 5, 10, 15, 20, None)  # in dB; None is clean speech


# What helps against a recording of noise that was sound when stage 3 listed it.
AGAIN = "fix it, or leave it out by --stage 3 --stop_stage 3 --force true, and train again"


class LipsReader(Mapping[str, np.ndarray]):
    """ESPnet data type ``lips``: utterance -> uint8 (T, 96, 96) from ``lip.scp``."""

    def __init__(self, path: str):
        self.paths = read_scp(path)

    def __getitem__(self, utterance: str) -> np.ndarray:
        return read_lips(self.paths[utterance])

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __contains__(self, utterance: object) -> bool:
        return utterance in self.paths

    def keys(self) -> KeysView[str]:
        """Utterance ids, in file order."""
        return self.paths.keys()


def list_noises(noise_scp: str, kinds: Collection[str] = ()) -> list[list[str]]:
    """Recordings of each kind of noise.

    Raises:
        ValueError: if there is none, or none of a kind asked for.
    """
    by_kind: dict[str, list[str]] = {}
    for name, path in read_scp(noise_scp).items():
        by_kind.setdefault(name.partition("-")[0], []).append(path)
    if not by_kind:
        raise ValueError(f"{noise_scp} lists no noise; run stage 3 again")
    if missing := sorted(set(kinds) - set(by_kind)):
        raise ValueError(
            f"{noise_scp} lists no {', '.join(missing)}, only {', '.join(by_kind)}; run stage 3"
            " again, with --musan or --noisex, or with these kinds in --train_noise"
        )
    return [by_kind[kind] for kind in sorted(kinds or by_kind)]


def read_noise(path: str, length: int, rng: np.random.Generator) -> np.ndarray:
    """What `cut_noise` takes of a recording, float32 (length,), of which no more is read.

    As a whole are read those that are shorter, of another rate or format, or silent in this part.

    Raises:
        MediaError: for a recording that is missing, damaged or silent throughout.
    """
    try:
        total = readable_samples(path)
        if total is None or total <= length:
            return cut_noise(read_audio(path), length, rng)
        cut = read_samples(path, int(rng.integers(total - length + 1)), length)
        if len(cut) == length and np.any(cut):
            return cut
        return cut_loudest(read_audio(path), length)
    except (FileNotFoundError, ValueError) as error:
        reason = error.reason if isinstance(error, MediaError) else str(error)
        raise MediaError(path, f"{reason}; {AGAIN}") from error


def lead_in(data: dict[str, str | np.ndarray], frames: int) -> dict[str, str | np.ndarray]:
    """Begin a clip so many video frames earlier, with silence and its first picture and unit."""
    data = dict(data)
    if "speech" in data:
        data["speech"] = np.pad(np.asarray(data["speech"]), (frames * HOP, 0))
    if "lips" in data:
        lips = np.asarray(data["lips"])
        data["lips"] = np.concatenate([np.repeat(lips[:1], frames, axis=0), lips])
    if "units" in data:
        data["units"] = np.pad(np.asarray(data["units"]), (frames, 0), mode="edge")
    return data


class AVSRPreprocessor:
    """Tokenise the transcript, crop and normalise the lips, and augment both streams in training.

    It has the interface of ESPnet's ``AbsPreprocessor``, to which :mod:`mome.tasks.avsr` registers
    it: who only transcribes need not wait for the trainer.

    Args:
        train: augment; otherwise centre crops and clean speech.
        tokenizer: hub name or folder of the LM's tokenizer; None where there is no text.
        noise_scp: noise id -> audio file, added in training; None trains on clean speech. Kinds of
            noise (what an id begins with, up to "-") are drawn with equal chance, as AV-HuBERT
            does, whatever their number of recordings.
        noise_kinds: kinds that are used, of babble, noise, speech, music, noisex; all by default.
        noise_snrs: SNRs in dB drawn with equal chance; None among them is clean.
        crop_size: side of the crop, 88 as in AV-HuBERT; less leaves out the cheeks.
        crop_shift: pixels that a training crop's centre moves from that of the video, at most and
            in each direction; None moves it as far as it goes (4 for 88 of 96).
        flip: mirror half of the training clips.
        audio_mask_seconds: longest masked window of each second of speech; 0 switches it off.
        video_mask_frames: longest masked window in each 25 frames; 0 switches it off.
        max_lead_frames: in training, up to so many video frames of silence and of the first picture
            come before a clip, so that the windows of compression fall differently in each epoch.
        activity: give ``activity`` in training, where the speech is loud before noise is added; see
            :mod:`mome.data.activity` and the warm start, which reads it.

    Raises:
        ValueError: for a transcript without words, a kind of noise that is not listed, or a
            negative max_lead_frames.
    """

    def __init__(
        self,
        train: bool,
        tokenizer: str | None = None,
        noise_scp: str | None = None,
        noise_kinds: Collection[str] = (),
        noise_snrs: Collection[float | None] = SNRS,
        crop_size: int = 88,
        crop_shift: int | None = None,
        flip: bool = True,
        audio_mask_seconds: float = 0.4,
        video_mask_frames: int = 10,
        max_lead_frames: int = 0,
        activity: bool = False,
    ):
        self.train = train
        self.tokenizer: Any = None
        if tokenizer is not None:
            # Transcription reads no transcripts, and so loads no tokenizer here.
            from transformers import AutoTokenizer

            from mome.pretrained.hub import load

            self.tokenizer = load(AutoTokenizer, tokenizer)
        self.noises = list_noises(noise_scp, noise_kinds) if noise_scp and train else []
        self.noise_snrs = list(noise_snrs)
        if not self.noise_snrs:
            raise ValueError("noise_snrs is empty: [null] is clean speech alone")
        for snr in self.noise_snrs:
            number = isinstance(snr, int | float) and not isinstance(snr, bool)
            if snr is not None and not (number and math.isfinite(snr)):
                raise ValueError(
                    f"noise_snrs {self.noise_snrs}: {snr!r} is no SNR in dB; null is clean speech"
                )
        if max_lead_frames < 0:
            raise ValueError(f"max_lead_frames {max_lead_frames} must be 0 or more")
        self.crop_size = crop_size
        self.crop_shift = crop_shift
        self.flip = flip
        self.audio_mask_seconds = audio_mask_seconds
        self.video_mask_frames = video_mask_frames
        self.max_lead_frames = max_lead_frames
        self.activity = activity

    def __call__(self, uid: str, data: dict[str, str | np.ndarray]) -> dict[str, np.ndarray]:
        """Prepare utterance ``uid``.

        Args:
            uid: utterance id.
            data: any of speech (N,), lips (T, 96, 96) uint8, text, units (T,).

        Returns:
            speech float32 (N,), lips float32 (T, S, S) with S = crop_size, text int64 (L,), units
            int64 (T,), activity int64 (F,).
        """
        # ESPnet seeds torch by seed + epoch, so that augmentation differs by epoch and repeats
        # with the seed.
        rng = np.random.default_rng([torch.initial_seed() % 2**32, *uid.encode()])
        output = {}
        lead = 0
        if self.train and self.max_lead_frames:
            lead = int(rng.integers(self.max_lead_frames + 1))
        if "speech" in data and self.train and self.activity:
            output["activity"] = np.pad(speech_activity(np.asarray(data["speech"])), (lead, 0))
        data = lead_in(data, lead)
        if "speech" in data:
            output["speech"] = self.prepare_speech(np.asarray(data["speech"]), rng)
        if "lips" in data:
            output["lips"] = self.prepare_lips(np.asarray(data["lips"]), rng)
        if "text" in data:
            text = str(data["text"])
            if not text.strip():
                raise ValueError(f"utterance {uid}: transcript without words; remove it from text")
            if self.tokenizer is None:
                raise ValueError(f"utterance {uid} has a transcript, but no tokenizer is named")
            # As a continuation of the prompt, a transcript begins with a space.
            ids = self.tokenizer.encode(" " + lowered(text), add_special_tokens=False)
            output["text"] = np.array(ids, dtype=np.int64)
        if "units" in data:
            output["units"] = np.asarray(data["units"], dtype=np.int64)
        return output

    def prepare_speech(self, speech: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Noise and time masking in training; float32 (N,).

        The SNR is that of the speech as masked, as in Auto-AVSR.
        """
        speech = speech.astype(np.float32)
        if not self.train:
            return speech
        if self.audio_mask_seconds > 0:
            speech = mask_audio(speech, rng, max_seconds=self.audio_mask_seconds)
        if self.noises:
            snr = self.noise_snrs[rng.integers(len(self.noise_snrs))]
            if snr is not None:
                paths = self.noises[rng.integers(len(self.noises))]
                path = paths[rng.integers(len(paths))]
                speech = mix(speech, read_noise(path, len(speech), rng), snr)
        return speech

    def prepare_lips(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Crop, normalise and, in training, mirror and mask; float32 (T, crop_size, crop_size)."""
        if not self.train:
            return normalize(center_crop(frames, self.crop_size))
        frames = random_crop(frames, self.crop_size, rng, self.flip, self.crop_shift)
        if self.video_mask_frames > 0:
            frames = mask_video(frames, rng, max_frames=self.video_mask_frames)
        return normalize(frames)

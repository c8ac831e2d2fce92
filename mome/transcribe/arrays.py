"""A recording that is in memory, as arrays of pictures and of sound."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from mome.data.audio import RATES
from mome.data.video import LIP_RATE


@dataclass(eq=False, repr=False)
class Arrays:
    """Pictures and sound that begin at the same moment.

    Attributes:
        pictures: uint8 (T, H, W, 3) in RGB; None without.
        frame_rate: pictures per second.
        sound: (N,) or (channels, N), floating-point in about [-1, 1] or signed integers over the
            whole range of their type; channels are averaged. None without.
        sample_rate: samples per second.
        name: of the recording, for its transcript and for errors.

    Raises:
        ValueError: for arrays of another type or shape, samples that are not finite, and rates that
            are missing or cannot be meant.
    """

    pictures: np.ndarray | None = None
    frame_rate: float | None = None
    sound: np.ndarray | None = None
    sample_rate: int | None = None
    name: str = "arrays"

    def __post_init__(self) -> None:
        """Refuse what cannot be read."""
        if self.pictures is None and self.sound is None:
            raise ValueError(f"{self.name}: neither pictures nor sound")
        if self.pictures is not None:
            self.pictures = pictures = np.asarray(self.pictures)
            if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
                raise ValueError(
                    f"{self.name}: pictures {pictures.dtype} {pictures.shape}, not uint8 "
                    f"(T, H, W, 3) in RGB"
                )
            if not pictures.size:
                raise ValueError(f"{self.name}: pictures {pictures.shape} are empty")
            if self.frame_rate is None or not 0 < self.frame_rate < np.inf:
                raise ValueError(
                    f"{self.name}: frame_rate {self.frame_rate}; give that of pictures"
                )
        if self.sound is not None:
            self.sound = sound = np.asarray(self.sound)
            if sound.dtype.kind not in "fi" or sound.ndim not in (1, 2):
                raise ValueError(
                    f"{self.name}: sound {sound.dtype} {sound.shape}, not floating-point or signed "
                    f"integers (N,) or (channels, N)"
                )
            if sound.ndim == 2 and sound.shape[0] > sound.shape[1]:
                raise ValueError(
                    f"{self.name}: sound {sound.shape}, not (channels, N); transpose it"
                )
            if not sound.size:
                raise ValueError(f"{self.name}: sound {sound.shape} is empty")
            if not np.isfinite(sound).all():
                raise ValueError(f"{self.name}: sound with samples that are not finite")
            rate = self.sample_rate
            if rate is None or rate != int(rate) or not RATES[0] <= rate <= RATES[1]:
                raise ValueError(
                    f"{self.name}: sample_rate {rate}; give that of sound, a whole number between "
                    f"{RATES[0]} and {RATES[1]}"
                )

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """The sound second by second, as `mome.data.audio.iter_audio` gives that of a file."""
        assert self.sound is not None
        assert self.sample_rate is not None
        sound, rate = np.atleast_2d(self.sound), int(self.sample_rate)
        scale = np.float32(1)
        if sound.dtype.kind == "i":
            scale = np.float32(2 ** (8 * sound.dtype.itemsize - 1))
        for begin in range(0, sound.shape[1], rate):
            block = sound[:, begin : begin + rate] / scale
            yield rate, block.mean(axis=0).astype(np.float32)

    def grey(self) -> Iterator[np.ndarray]:
        """Grey pictures (H, W), 25 a second, as `mome.data.video.iter_video` gives those of a file:
        at each moment the one that is nearest in time.
        """
        assert self.pictures is not None
        assert self.frame_rate is not None
        for number in range(int(np.ceil((self.video_seconds - 1e-6) * LIP_RATE))):
            nearest = int(number / LIP_RATE * self.frame_rate + 0.5)
            yield cv2.cvtColor(
                self.pictures[min(nearest, len(self.pictures) - 1)], cv2.COLOR_RGB2GRAY
            )

    @property
    def seconds(self) -> float:
        """Length of the longer of both."""
        heard = 0.0
        if self.sound is not None and self.sample_rate is not None:
            heard = self.sound.shape[-1] / self.sample_rate
        return max(heard, self.video_seconds)

    @property
    def video_seconds(self) -> float:
        """Length of the pictures; 0 without."""
        if self.pictures is None or self.frame_rate is None:
            return 0.0
        return len(self.pictures) / self.frame_rate

"""eSpeak NG through its C interface: speech with phoneme timings."""

import _ctypes
import ctypes
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mome.data.audio import resample

RATE = 16000
# Constants of espeak-ng/speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
PHONEME_EVENTS_IN_IPA = 0x0001 | 0x0002
DONT_EXIT = 0x8000
CHARS_UTF8 = 1
EVENT_LIST_TERMINATED = 0
EVENT_PHONEME = 7
PARAMETER_RATE, PARAMETER_PITCH, PARAMETER_RANGE = 1, 3, 4


class Event(ctypes.Structure):
    """espeak_EVENT."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event)
)


@dataclass(frozen=True)
class Voice:
    """What a speaker sounds like.

    Attributes:
        name: language and variant, e.g. ``en-us+m3``.
        rate: words a minute.
        pitch: 0 to 100.
        pitch_range: 0 (monotone) to 100.
    """

    name: str
    rate: int
    pitch: int
    pitch_range: int


@dataclass(frozen=True)
class Phoneme:
    """A phoneme in IPA, without stress, from ``start`` to ``end`` seconds."""

    ipa: str
    start: float
    end: float


class Espeak:
    """One loaded and initialised eSpeak NG; its C library allows one a process at a time.

    What it says depends slightly on what it said before, by static state that neither
    ``espeak_Initialize`` nor ``srand`` resets: use :func:`speak`, which loads it afresh.

    Raises:
        FileNotFoundError: if the folder does not hold the library.
    """

    def __init__(self, folder: Path):
        path = folder / "libespeak-ng.so"
        if not path.exists():
            raise FileNotFoundError(f"{path}: eSpeak NG is missing; fetch it by mome-fetch-models")
        self.library = ctypes.CDLL(str(path))
        options = PHONEME_EVENTS_IN_IPA | DONT_EXIT
        self.rate = self.library.espeak_Initialize(
            AUDIO_OUTPUT_SYNCHRONOUS, 0, str(folder).encode(), options
        )
        if self.rate <= 0:
            raise RuntimeError(f"eSpeak NG did not start with the data in {folder}")
        self.samples: list[np.ndarray] = []
        self.events: list[tuple[float, str]] = []
        self.callback = Callback(self._collect)  # kept, or C would call into freed memory
        self.library.espeak_SetSynthCallback(self.callback)

    def _collect(self, wave, count, events) -> int:
        if wave and count > 0:
            self.samples.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while events[index].type != EVENT_LIST_TERMINATED:
            if events[index].type == EVENT_PHONEME:
                seconds = events[index].audio_position / 1000
                self.events.append((seconds, events[index].id.decode("utf-8", "ignore")))
            index += 1
        return 0

    def close(self) -> None:
        """Unload the library, and with it its state."""
        self.library.espeak_Terminate()
        _ctypes.dlclose(self.library._handle)

    def speak(self, text: str, voice: Voice) -> tuple[np.ndarray, list[Phoneme]]:
        """Synthesise a sentence.

        Returns:
            float32 (N,) at 16 kHz within [-1, 1], and the phonemes in order.

        Raises:
            ValueError: for a voice that eSpeak NG does not have.
        """
        if self.library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ValueError(f"eSpeak NG has no voice {voice.name}")
        for parameter, value in (
            (PARAMETER_RATE, voice.rate),
            (PARAMETER_PITCH, voice.pitch),
            (PARAMETER_RANGE, voice.pitch_range),
        ):
            self.library.espeak_SetParameter(parameter, value, 0)
        self.samples, self.events = [], []
        data = text.encode()
        status = self.library.espeak_Synth(data, len(data) + 1, 0, 0, 0, CHARS_UTF8, None, None)
        if status != 0 or not self.samples:
            raise RuntimeError(f"eSpeak NG could not speak {text!r} as {voice.name}")
        wave = np.concatenate(self.samples).astype(np.float32) / 32768
        wave = resample(wave, self.rate, RATE)
        end = len(wave) / RATE
        starts = [min(start, end) for start, _ in self.events] + [end]
        phonemes = []
        for index, (_, name) in enumerate(self.events):
            ipa = name.strip("ˈˌ").replace("ː", "")
            if ipa:
                phonemes.append(Phoneme(ipa, starts[index], starts[index + 1]))
        return wave, phonemes


def speak(folder: Path, text: str, voice: Voice) -> tuple[np.ndarray, list[Phoneme]]:
    """Synthesise a sentence, always in the same way, whatever was said before (17 ms).

    See :meth:`Espeak.speak`.
    """
    engine = Espeak(folder)
    try:
        return engine.speak(text, voice)
    finally:
        engine.close()

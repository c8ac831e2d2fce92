"""Noise for training and testing: babble of a corpus's own speakers, MUSAN-style folders, NOISEX.

The kinds are AV-HuBERT's (B. Shi et al., Interspeech 2022): babble of 30 speakers talking at once,
noise, music, and speech of one other speaker. Two things differ from its preparation: recordings
are divided between training and test as a whole, whereas AV-HuBERT first cuts them into pieces of
ten seconds, and speech is MUSAN's, not that of the corpus. Voices in babble are equally loud.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import soundfile

from mome.data.audio import RATE, limit_peak, read_audio, write_flac
from mome.data.augment import SILENT, power
from mome.data.kaldi import c_sorted, without_blanks
from mome.data.video import MediaError, reason_of

LEVEL = 0.05  # root mean square of babble
SPLITS = ("train", "test")
MUSAN_FOLDERS = ("noise", "speech", "music")
KINDS = ("babble", *MUSAN_FOLDERS, "noisex")  # a noise id begins with its kind and "-"
AUDIO_SUFFIXES = (".wav", ".flac")
NOISEX_SECONDS = 60  # of a recording at least, so that its part for tests outlasts utterances


@dataclass(frozen=True)
class Babble:
    """A babble recording to be mixed: its id, each speaker's audio files in order, its length."""

    name: str
    speakers: tuple[tuple[str, ...], ...]
    seconds: float


def split_utterances(
    spk2utt: Mapping[str, Sequence[str]], test_share: float, rng: np.random.Generator
) -> dict[str, dict[str, list[str]]]:
    """Divide each speaker's utterances between training and test noise.

    Args:
        spk2utt: speaker -> utterances.
        test_share: share of each speaker's utterances for test noise, at least one of them. A
            speaker with one utterance goes to either side.
        rng: draws the split.

    Returns:
        {"train": speaker -> utterances, "test": speaker -> utterances}, without a common utterance.
    """
    split: dict[str, dict[str, list[str]]] = {name: {} for name in SPLITS}
    for speaker in c_sorted(spk2utt):
        utterances = [str(u) for u in rng.permutation(sorted(spk2utt[speaker]))]
        if len(utterances) == 1:
            name = "test" if rng.random() < test_share else "train"
            split[name][speaker] = utterances
            continue
        count = min(max(1, round(test_share * len(utterances))), len(utterances) - 1)
        split["test"][speaker], split["train"][speaker] = utterances[:count], utterances[count:]
    return split


def plan_babble(
    name: str,
    spk2utt: Mapping[str, Sequence[str]],
    wavs: Mapping[str, str],
    durations: Mapping[str, float],
    num_speakers: int,
    seconds: float,
    rng: np.random.Generator,
) -> Babble:
    """Draw different speakers and, for each, utterances to fill the length.

    If there is one speaker, all voices are that one's: each reads the same utterances in the same
    random order, but begins at another, so that no two say the same at the same moment.

    Args:
        name: id of the recording.
        spk2utt: speaker -> utterances to draw from.
        wavs: utterance -> audio file.
        durations: utterance -> seconds.
        num_speakers: voices mixed; all speakers if there are fewer, and not more than the
            utterances of one speaker.
        seconds: length.
        rng: draws speakers and utterances.
    """
    names = c_sorted(spk2utt)
    if len(names) == 1:
        return Babble(
            name,
            _voices_of_one(spk2utt[names[0]], wavs, durations, num_speakers, seconds, rng),
            seconds,
        )
    chosen = rng.choice(names, min(num_speakers, len(names)), replace=False)
    speakers = []
    for speaker in c_sorted(str(s) for s in chosen):
        files: list[str] = []
        length = 0.0
        while length < seconds:
            for utterance in rng.permutation(sorted(spk2utt[speaker])):
                files.append(wavs[str(utterance)])
                length += durations[str(utterance)]
                if length >= seconds:
                    break
        speakers.append(tuple(files))
    return Babble(name, tuple(speakers), seconds)


def _voices_of_one(
    utterances: Sequence[str],
    wavs: Mapping[str, str],
    durations: Mapping[str, float],
    num_voices: int,
    seconds: float,
    rng: np.random.Generator,
) -> tuple[tuple[str, ...], ...]:
    """The voices of a babble of one speaker; see :func:`plan_babble`."""
    order = [str(u) for u in rng.permutation(sorted(utterances))]
    num_voices = min(num_voices, len(order))
    voices = []
    for voice in range(num_voices):
        begin = voice * len(order) // num_voices
        files: list[str] = []
        length = 0.0
        for utterance in islice(cycle(order), begin, None):
            if length >= seconds:
                break
            files.append(wavs[utterance])
            length += durations[utterance]
        voices.append(tuple(files))
    return tuple(voices)


def mix_babble(babble: Babble, rate: int = RATE) -> np.ndarray:
    """Mix a babble recording: every voice at equal power, the sum at a fixed level.

    Returns:
        float32 (seconds * rate,), within [-1, 1].

    Raises:
        ValueError: for a speaker whose utterances are silent.
    """
    length = round(babble.seconds * rate)
    total = np.zeros(length)
    for files in babble.speakers:
        voice = np.concatenate([read_audio(path, rate) for path in files])
        # Durations in headers are rounded, so that the last samples may be missing.
        voice = np.resize(voice, length)
        level = np.sqrt(power(voice))
        if level == 0:
            raise ValueError(f"{files[0]} and the following utterances are silent; exclude them")
        total += voice / level
    return limit_peak((total * LEVEL / np.sqrt(power(total))).astype(np.float32))


def split_musan(
    root: Path, test_share: float, rng: np.random.Generator
) -> dict[str, dict[str, dict[str, str]]]:
    """Divide the recordings of a MUSAN-style folder between training and test noise.

    Args:
        root: folder with any of noise/, speech/, music/; audio files at any depth.
        test_share: share of each folder's files for testing, at least one of them.
        rng: draws the split.

    Returns:
        kind -> {"train": id -> path, "test": id -> path}, without a common file.

    Raises:
        ValueError: without these folders, or for a folder with fewer than two recordings.
    """
    kinds = [kind for kind in MUSAN_FOLDERS if (root / kind).is_dir()]
    if not kinds:
        raise ValueError(f"{root} has no folder {', '.join(MUSAN_FOLDERS)}")
    result: dict[str, dict[str, dict[str, str]]] = {}
    for kind in kinds:
        files = sorted(p for p in (root / kind).rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
        if len(files) < 2:
            raise ValueError(f"{root / kind}: {len(files)} recordings cannot be split in two")
        count = min(max(1, round(test_share * len(files))), len(files) - 1)
        test = {int(i) for i in rng.choice(len(files), count, replace=False)}
        result[kind] = {name: {} for name in SPLITS}
        known: dict[str, Path] = {}
        for i, path in enumerate(files):
            name = without_blanks("-".join(path.relative_to(root).with_suffix("").parts))
            if name in known:
                raise ValueError(
                    f"{known[name]} and {path} would both be called {name}: rename one"
                )
            known[name] = path
            result[kind]["test" if i in test else "train"][name] = str(path)
    return result


def read_whole(path: str | Path) -> np.ndarray:
    """A recording of noise, float32 (N,) at 16 kHz.

    Raises:
        FileNotFoundError, MediaError: for one that cannot be read or is silent throughout.
    """
    samples = read_audio(path)
    if not np.any(samples):
        raise MediaError(path, SILENT)
    return samples


def flaw_of(path: str) -> str:
    """Why a recording cannot serve as noise, with its name; empty if it can."""
    try:
        read_whole(path)
    except MemoryError:
        raise
    except Exception as error:  # whatever is wrong with one recording, the others serve
        reason = reason_of(error)
        return reason if isinstance(error, MediaError) else f"{path}: {reason}"
    return ""


def noisex_id(file: Path) -> str:
    """The noise id of a recording of NOISEX."""
    return f"noisex-{without_blanks(file.stem)}"


def noisex_recordings(path: Path) -> list[Path]:
    """The recordings of NOISEX-92 (Varga & Steeneken, 1993): one file, or those of a folder.

    Raises:
        ValueError: for what is not there, a folder without .wav and .flac, or a file that cannot
            serve: no audio, of less than 16 kHz (NOISEX-92 itself has 19.98), or of less than a
            minute (NOISEX-92's have 235 s).
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist; --noisex takes NOISEX's babble.wav or its folder")
    files = [path]
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in AUDIO_SUFFIXES)
        if not files:
            raise ValueError(f"{path} holds no .wav or .flac; convert NOISEX's recordings to wav")
        if len({noisex_id(file) for file in files}) < len(files):
            raise ValueError(
                f"{path}: recordings have the same name but for .wav or .flac, or _ for a blank"
            )
    for file in files:
        try:
            info = soundfile.info(str(file))
        except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless, .raw
            raise ValueError(
                f"{file} is no audio that can be read ({error}); convert it to wav"
            ) from None
        if info.samplerate < RATE:
            raise ValueError(
                f"{file} has {info.samplerate} Hz: below {RATE} Hz the upper band of speech would "
                f"stay without noise. NOISEX-92's own rate is 19980 Hz"
            )
        if info.duration < NOISEX_SECONDS:
            raise ValueError(
                f"{file} lasts {info.duration:.1f} s; {NOISEX_SECONDS} s are needed to divide it "
                f"between training and test"
            )
    return files


def split_noisex(
    files: Sequence[Path], test_share: float, folder: Path
) -> dict[str, dict[str, str]]:
    """Cut each recording in two: its beginning is training noise and its end test noise.

    The paper trains and tests with one recording of babble as a whole; here no moment is in both.

    Args:
        files: see :func:`noisex_recordings`.
        test_share: share of each recording for testing.
        folder: where the parts are written, as 16 kHz FLAC; those that are there are kept.

    Returns:
        {"train": id -> path, "test": id -> path}.

    Raises:
        ValueError: for a recording with a silent part.
    """
    result: dict[str, dict[str, str]] = {name: {} for name in SPLITS}
    for file in files:
        name = noisex_id(file)
        paths = {split: folder / split / f"{name}.flac" for split in SPLITS}
        if not all(path.is_file() for path in paths.values()):
            samples = limit_peak(read_audio(file))
            place = round((1 - test_share) * len(samples))
            for split, part in zip(SPLITS, (samples[:place], samples[place:]), strict=True):
                if len(part) == 0 or power(part) == 0:
                    raise ValueError(f"{file}: its part for {split} is silent; leave it out")
                write_flac(paths[split], part)
        for split, path in paths.items():
            result[split][name] = str(path)
    return result


def speech_shaped(speech: np.ndarray, rng: np.random.Generator, rate: int = RATE) -> np.ndarray:
    """Noise with the long-term spectrum of speech, which hides it as babble of many voices does.

    White noise is filtered by the mean power spectrum of the speech in windows of 32 ms, so that
    level and spectrum do not change in time.

    Args:
        speech: float (N,).
        rng: draws the white noise.
        rate: samples per second.

    Returns:
        float32 (N,), as loud as the speech.

    Raises:
        ValueError: for speech that is empty or silent, of which no spectrum can be taken.
    """
    from scipy.signal import welch  # takes a second to load and is rarely needed

    if not np.any(speech):
        raise ValueError("speech that is empty or silent has no spectrum")
    window = min(len(speech), round(0.032 * rate))
    frequencies, density = welch(speech.astype(np.float64), rate, nperseg=window)
    spectrum = np.fft.rfft(rng.standard_normal(len(speech)))
    bins = np.fft.rfftfreq(len(speech), 1 / rate)
    shaped = np.fft.irfft(spectrum * np.sqrt(np.interp(bins, frequencies, density)), n=len(speech))
    return (shaped * np.sqrt(power(speech) / power(shaped))).astype(np.float32)

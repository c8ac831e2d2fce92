"""Read and write audio: soundfile for wav and flac, kaldiio for ark, PyAV for everything else."""

import io
import re
from collections.abc import Iterator
from math import gcd
from pathlib import Path

import av
import numpy as np
import soundfile
from av import AudioStream
from av.container import InputContainer

from mome.common.atomic_files import write_bytes
from mome.common.extras import extra
from mome.data.video import (
    MediaError,
    check_gap,
    decodable,
    decode,
    lacks,
    open_media,
    start_seconds,
    stream_seconds,
    truncated,
    unknown_codec,
)

RATE = 16000
SOUNDFILE_SUFFIXES = (".wav", ".flac", ".ogg", ".aiff", ".aif", ".w64")
# What libsndfile notes of sound that ends before its header says: its size by the header, and as it
# is. Who writes into a pipe cannot come back to write the size, and leaves 2 GiB or more.
CUT = re.compile(r"^ *(?:data|SSND|riff|Riff size) : (\d+) \(should be (\d+)\)", re.MULTILINE)
NO_SIZE = 0x7FFFF000
# The length that libsndfile gives FLAC whose header has none, as such a writer leaves it; it cannot
# read that to its end, and FFmpeg can.
NO_LENGTH = 2**63 - 1
# Samples that are read at once where a header says more for each byte of the file than sound that
# is not silent takes, as a damaged one does.
BLOCK, MOST = 1 << 20, 8
# Largest value that rounds to a 16-bit sample.
FULL_SCALE = 32767 / 32768
# Timestamps that are this many seconds away from where the samples before them end are only
# rounded; at larger distances samples are missing or there twice.
JITTER = 0.04
# Hz of recordings; what a damaged header says beyond would make sound that fills the memory.
RATES = 2000, 400_000


def read_audio(path: str | Path, rate: int = RATE) -> np.ndarray:
    """Read a recording as one channel at the given rate.

    Args:
        path: wav, flac, ogg; a video; or ``file.ark:offset`` as Kaldi writes it.
        rate: samples per second wanted; other rates are resampled.

    Returns:
        float32 (N,) in about [-1, 1]; several channels are averaged.

    Raises:
        FileNotFoundError: if the file does not exist.
        MediaError: for a corrupt or truncated file, one without an audio stream, without samples
            or with samples that are not finite.
        ModuleNotFoundError: for an archive, if kaldiio is not installed.
    """
    samples, source_rate = _read(str(path))
    _check_rate(source_rate, path)
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    if len(samples) == 0:
        raise MediaError(path, "the audio has no samples")
    samples = resample(samples, source_rate, rate)
    # Afterwards, as sums of the filter may exceed what float32 holds.
    if not np.isfinite(samples).all():
        raise MediaError(path, "the audio has samples that are not finite")
    return samples


def readable_samples(path: str | Path, rate: int = RATE) -> int | None:
    """Length of a recording of which `read_samples` can read a part: WAV or FLAC at this rate.

    Returns:
        its samples; None if it has to be read as a whole, by `read_audio`.
    """
    if not str(path).lower().endswith((".wav", ".flac")):
        return None
    try:
        info = soundfile.info(str(path))
    except soundfile.LibsndfileError:
        return None
    return info.frames if info.samplerate == rate and info.frames < NO_LENGTH else None


def read_samples(path: str | Path, start: int, count: int) -> np.ndarray:
    """Read a part of a recording, with errors as of `read_audio`; see `readable_samples`.

    Returns:
        float32 (count,), or less at the end of the file; several channels are averaged.
    """
    try:
        samples, _ = soundfile.read(str(path), count, start, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise MediaError(path, f"corrupt audio ({error.error_string})") from error
    if not np.isfinite(samples).all():
        raise MediaError(path, "the audio has samples that are not finite")
    return samples.mean(axis=1)


def resample(samples: np.ndarray, source_rate: int, rate: int) -> np.ndarray:
    """(N,) at source_rate -> float32 (ceil(N * rate / source_rate),), polyphase filter."""
    if source_rate != rate:
        from scipy.signal import resample_poly  # takes a second to load and is rarely needed

        common = gcd(source_rate, rate)
        samples = resample_poly(samples, rate // common, source_rate // common)
    return samples.astype(np.float32, copy=False)


def audio_seconds(path: str | Path) -> float:
    """Length from the header, or of sound whose header does not say it by reading all.

    Raises:
        FileNotFoundError: if the file does not exist.
        MediaError: for an unreadable file or one without an audio stream.
    """
    path = str(path)
    if path.lower().endswith(SOUNDFILE_SUFFIXES):
        _exists(path)
        try:
            info = soundfile.info(path)
        except soundfile.LibsndfileError as error:
            raise MediaError(path, f"corrupt audio ({error.error_string})") from error
        if info.frames < NO_LENGTH:
            return info.duration
    elif not _is_ark(path):
        _exists(path)
        with open_media(path) as container:
            return stream_seconds(_audio_stream(container, path), container)
    samples, rate = _read(path)
    _check_rate(rate, path)
    return len(samples) / rate


def limit_peak(samples: np.ndarray) -> np.ndarray:
    """Scale the whole signal down if its peak exceeds the 16-bit range."""
    peak = float(np.abs(samples).max(initial=0.0))
    return samples * np.float32(FULL_SCALE / peak) if peak > FULL_SCALE else samples


def write_flac(path: str | Path, samples: np.ndarray, rate: int = RATE) -> None:
    """Write 16-bit audio atomically.

    Args:
        path: output; the suffix gives the format, ``.flac`` or ``.wav``.
        samples: float (N,) within [-1, 1]; see `limit_peak`.
        rate: samples per second.

    Raises:
        OSError: if the disk is full; the message names the file.
        ValueError: for samples of another shape, that are not finite, or that would be clipped.
    """
    write_bytes(path, encode(path, samples, rate))


def encode(path: str | Path, samples: np.ndarray, rate: int = RATE) -> bytes:
    """The content of a file of 16-bit audio; arguments and errors as of :func:`write_flac`."""
    path = Path(path)
    if samples.ndim != 1 or len(samples) == 0:
        raise ValueError(f"{path}: samples of shape {samples.shape}, not (N,)")
    peak = float(np.abs(samples).max())
    if not peak <= 1.0:
        raise ValueError(f"{path}: samples up to {peak:g} would be clipped; use limit_peak")
    data = io.BytesIO()
    soundfile.write(data, samples, rate, subtype="PCM_16", format=path.suffix[1:])
    return data.getvalue()


def fit_length(samples: np.ndarray, length: int) -> np.ndarray:
    """Cut or pad with zeros at the end: (N,) -> (length,)."""
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


def file_of(path: str) -> str:
    """The file of what :func:`read_audio` takes: ``a.ark`` of ``a.ark:12``, others as they are."""
    return path.rpartition(":")[0] if _is_ark(path) else path


def _is_ark(path: str) -> bool:
    return re.search(r"\.ark:\d+$", path) is not None


def _exists(path: str) -> None:
    if path.rstrip().endswith("|"):
        raise MediaError(path, "a command; run it and put the name of a file into wav.scp")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist")


def _read(path: str) -> tuple[np.ndarray, int]:
    """Samples (N,) or (N, C) and their rate."""
    if _is_ark(path):
        with extra():
            import kaldiio  # needed only for corpora stored in archives

        _exists(path.rpartition(":")[0])
        try:
            rate, samples = kaldiio.load_mat(path)
        except Exception as error:  # of many kinds, none of which names the file
            reason = " ".join(str(error).split()) or type(error).__name__
            raise MediaError(path, f"no sound at that place of the archive ({reason})") from error
        if samples.dtype.kind == "i":
            samples = samples / np.float32(2 ** (8 * samples.dtype.itemsize - 1))
        return samples, rate
    _exists(path)
    if path.lower().endswith(SOUNDFILE_SUFFIXES) and (found := _read_with_soundfile(path)):
        return found
    return _read_with_av(path)


def _read_with_soundfile(path: str) -> tuple[np.ndarray, int] | None:
    """Samples (N,) or (N, C) and their rate; None if the header does not say how many there are."""
    try:
        with soundfile.SoundFile(path) as file:
            if file.frames == NO_LENGTH:
                return None
            # At once, without another copy, if the file may hold as much as it says.
            likely = file.frames * file.channels <= MOST * Path(path).stat().st_size
            blocks = [file.read(file.frames if likely else BLOCK, "float32")]
            while len(blocks[-1]):
                blocks.append(file.read(BLOCK, "float32"))
            notes = file.extra_info
    except soundfile.LibsndfileError as error:
        raise MediaError(path, f"corrupt audio ({error.error_string})") from error
    samples, rate = blocks[0] if len(blocks) < 3 else np.concatenate(blocks), file.samplerate
    _check_whole(len(samples) / rate, file.frames / rate, notes, path)
    return samples, rate


def _check_whole(seconds: float, announced: float, notes: str, path: str) -> None:
    """Raise MediaError if a file has less sound than its header says, or libsndfile notes so."""
    if lacks(seconds, announced):
        raise truncated(path, seconds, announced)
    for size, present in CUT.findall(notes):
        announced = seconds * int(size) / max(int(present), 1)
        if int(size) < NO_SIZE and lacks(seconds, announced):
            raise truncated(path, seconds, announced)


def _read_with_av(path: str) -> tuple[np.ndarray, int]:
    """Samples (N,), the mean of all channels, and their rate at the beginning."""
    runs: list[tuple[int, list[np.ndarray]]] = []  # of one rate each, which may change in a file
    for own, samples in iter_audio(path):
        if not runs or runs[-1][0] != own:
            runs.append((own, []))
        runs[-1][1].append(samples)
    rate = runs[0][0]
    parts = [resample(np.concatenate(blocks), own, rate) for own, blocks in runs]
    return np.concatenate(parts), rate


def iter_audio(path: str | Path) -> Iterator[tuple[int, np.ndarray]]:
    """Decode the sound of a recording block by block.

    The first sample is that of the moment when the first stream of the file starts. What is missing
    by the timestamps is silence, and what is there twice is dropped, so that sound does not move
    against video.

    Yields:
        samples per second, which may change in a file, and float32 (N,), the mean of all channels.

    Raises:
        MediaError: for a corrupt or truncated file, or one without sound.
    """
    path = str(path)
    begun = False
    with open_media(path) as container:
        stream = _audio_stream(container, path)
        start = start_seconds(container)
        position = 0.0  # seconds of sound so far
        for frame in decode(container, stream, path):
            _check_rate(frame.rate, path)
            samples = _mono(frame)
            if not np.isfinite(samples).all():
                raise MediaError(path, "the audio has samples that are not finite")
            gap = 0.0 if frame.time is None else frame.time - start - position
            check_gap(gap, path)
            if gap > (JITTER if begun else 0):
                silence = np.zeros(round(gap * frame.rate), dtype=np.float32)
                samples = np.concatenate([silence, samples])
            elif gap < -JITTER:
                samples = samples[round(-gap * frame.rate) :]
            begun = True
            position += len(samples) / frame.rate
            yield frame.rate, samples


def _check_rate(rate: int, path: str | Path) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise MediaError(path, f"sound at {rate} samples a second; fix its header")


def _mono(frame: av.AudioFrame) -> np.ndarray:
    """Mean of the channels of a frame: float32 (N,) in about [-1, 1]."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(frame.samples, -1).T
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind == "i":
        samples = samples / np.float32(2 ** (8 * samples.dtype.itemsize - 1))
    return samples.mean(axis=0).astype(np.float32)


def _audio_stream(container: InputContainer, path: str) -> AudioStream:
    if not container.streams.audio:
        raise MediaError(path, "no audio stream; name its sound in wav.scp, or drop the utterance")
    stream = decodable(container.streams.audio)
    if stream is None:
        raise unknown_codec(path, "sound")
    return stream

"""Read and write audio: soundfile for wav and flac, kaldiio for ark, PyAV for everything else."""

import io
import re
from math import gcd
from pathlib import Path

import av
import numpy as np
import soundfile
from av import AudioStream
from av.container import InputContainer

from mome.common.atomic_files import write_bytes
from mome.data.video import COMPLETE, MediaError, start_seconds

RATE = 16000
SOUNDFILE_SUFFIXES = (".wav", ".flac", ".ogg", ".aiff", ".aif", ".w64")
# Largest value that rounds to a 16-bit sample.
FULL_SCALE = 32767 / 32768


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
    """
    samples, source_rate = _read(str(path))
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    if len(samples) == 0:
        raise MediaError(path, "the audio has no samples")
    if not np.isfinite(samples).all():
        raise MediaError(path, "the audio has samples that are not finite")
    return resample(samples, source_rate, rate)


def resample(samples: np.ndarray, source_rate: int, rate: int) -> np.ndarray:
    """(N,) at source_rate -> float32 (ceil(N * rate / source_rate),), polyphase filter."""
    if source_rate != rate:
        from scipy.signal import resample_poly  # takes a second to load and is rarely needed

        common = gcd(source_rate, rate)
        samples = resample_poly(samples, rate // common, source_rate // common)
    return samples.astype(np.float32, copy=False)


def audio_seconds(path: str | Path) -> float:
    """Length from the header.

    Raises:
        FileNotFoundError: if the file does not exist.
        MediaError: for an unreadable file or one without an audio stream.
    """
    path = str(path)
    if path.lower().endswith(SOUNDFILE_SUFFIXES):
        _exists(path)
        try:
            return soundfile.info(path).duration
        except soundfile.LibsndfileError as error:
            raise MediaError(path, f"corrupt audio ({error.error_string})") from error
    if _is_ark(path):
        samples, rate = _read(path)
        return len(samples) / rate
    _exists(path)
    try:
        with av.open(path) as container:
            stream = _audio_stream(container, path)
            if stream.duration is not None:
                return float(stream.duration * stream.time_base)
            return (container.duration or 0) / av.time_base
    except av.error.FFmpegError as error:
        raise MediaError(
            path, f"corrupt or truncated file ({error.strerror}); copy it again"
        ) from error


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
    path = Path(path)
    if samples.ndim != 1 or len(samples) == 0:
        raise ValueError(f"{path}: samples of shape {samples.shape}, not (N,)")
    peak = float(np.abs(samples).max())
    if not peak <= 1.0:
        raise ValueError(f"{path}: samples up to {peak:g} would be clipped; use limit_peak")
    data = io.BytesIO()
    soundfile.write(data, samples, rate, subtype="PCM_16", format=path.suffix[1:])
    write_bytes(path, data.getvalue())


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
        import kaldiio  # needed only for corpora stored in archives

        _exists(path.rpartition(":")[0])
        rate, samples = kaldiio.load_mat(path)
        if samples.dtype.kind == "i":
            samples = samples / np.float32(2 ** (8 * samples.dtype.itemsize - 1))
        return samples, rate
    _exists(path)
    if path.lower().endswith(SOUNDFILE_SUFFIXES):
        try:
            return soundfile.read(path, dtype="float32")
        except soundfile.LibsndfileError as error:
            raise MediaError(path, f"corrupt audio ({error.error_string})") from error
    try:
        return _read_with_av(path)
    except av.error.FFmpegError as error:
        raise MediaError(
            path, f"corrupt or truncated file ({error.strerror}); copy it again"
        ) from error


def _read_with_av(path: str) -> tuple[np.ndarray, int]:
    with av.open(path) as container:
        stream = _audio_stream(container, path)
        to_float = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
        blocks: list[np.ndarray] = []
        packets = 0
        for packet in container.demux(stream):
            packets += bool(packet.size)
            if packet.is_corrupt:
                raise MediaError(path, "truncated file; copy it again")
            for frame in packet.decode():
                if not blocks and frame.time is not None:
                    blocks = [_silence(frame.time - start_seconds(container), stream)]
                blocks += [block.to_ndarray() for block in to_float.resample(frame)]
        if packets < COMPLETE * stream.frames:
            raise MediaError(
                path, f"truncated file: {packets} of {stream.frames} audio packets; copy it again"
            )
        blocks += [block.to_ndarray() for block in to_float.resample(None)]
        if not blocks:
            raise MediaError(path, "the audio has no samples")
        return np.concatenate(blocks, axis=1).T, stream.rate


def _silence(seconds: float, stream: AudioStream) -> np.ndarray:
    """Zeros (channels, N) before an audio stream that starts after the video."""
    return np.zeros((stream.channels, max(0, round(seconds * stream.rate))), dtype=np.float32)


def _audio_stream(container: InputContainer, path: str) -> AudioStream:
    if not container.streams.audio:
        raise MediaError(path, "no audio stream; name its sound in wav.scp, or drop the utterance")
    return container.streams.audio[0]

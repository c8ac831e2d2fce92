"""Noisy copies of utterances: speech and noise in one file, at SNRs that are measured in it."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from mome.common.atomic_files import write_bytes
from mome.data.audio import (
    FULL_SCALE,
    RATE,
    audio_seconds,
    encode,
    file_of,
    limit_peak,
    read_audio,
)
from mome.data.augment import add_noise, power, snr_of
from mome.data.noise import read_whole
from mome.data.video import MediaError

# dB between the SNR asked for and that of the file.
SNR_TOLERANCE = 0.05


@dataclass(frozen=True)
class Mixture:
    """One utterance and its noisy copies: SNR -> output."""

    utterance: str
    speech: str
    outputs: tuple[tuple[float, str], ...]


def make_mixture(mixture: Mixture, noises: tuple[str, ...], seed: int) -> list[float]:
    """Write the noisy copies of an utterance that are not finished.

    Returns:
        The SNRs measured in what was written.

    Raises:
        ValueError: for silent speech, or if a file misses its SNR.
        MediaError: for a damaged or silent recording, of speech or of noise.
    """
    speech = read_audio(mixture.speech)
    if power(speech) == 0:
        raise ValueError(f"{mixture.utterance}: {mixture.speech} is silent; exclude it")
    measured = []
    for snr, output in mixture.outputs:
        # The generator starts anew, so that noise and offset are the same at every SNR.
        rng = np.random.default_rng([seed, *mixture.utterance.encode()])
        noise_path = noises[int(rng.integers(len(noises)))]
        if _finished(output, (mixture.speech, noise_path), len(speech)):
            continue
        noise = read_whole(noise_path)
        mixed = add_noise(speech, noise, snr, rng)
        content, achieved = _encode_mixture(output, limit_peak(mixed), mixed, speech)
        if abs(achieved - snr) > SNR_TOLERANCE:
            # Of faint speech, 16 bits keep too little at its own level.
            loud = mixed * np.float32(FULL_SCALE / np.abs(mixed).max())
            content, achieved = _encode_mixture(output, loud, mixed, speech)
        if abs(achieved - snr) > SNR_TOLERANCE:
            raise ValueError(
                f"{mixture.utterance}: {achieved:.2f} dB in {output} in place of {snr:g} dB: the"
                f" speech of {mixture.speech} is too faint for 16 bits; exclude it"
            )
        # Once and when it is right: what a killed run has written counts as finished.
        write_bytes(output, content)
        measured.append(achieved)
    return measured


def _encode_mixture(
    output: str, scaled: np.ndarray, mixed: np.ndarray, speech: np.ndarray
) -> tuple[bytes, float]:
    """The file of a mixture (N,) that was scaled as a whole, and the SNR in dB that is in it."""
    content = encode(output, scaled)
    gain = np.sqrt(power(scaled) / power(mixed))
    stored = soundfile.read(io.BytesIO(content))[0] / gain
    return content, snr_of(speech, stored)


def _finished(output: str, sources: tuple[str, ...], length: int) -> bool:
    path = Path(output)
    files = [Path(file_of(source)) for source in sources]
    try:
        return (
            path.is_file()
            and path.stat().st_mtime >= max(file.stat().st_mtime for file in files)
            and round(audio_seconds(path) * RATE) == length
        )
    except MediaError:
        return False

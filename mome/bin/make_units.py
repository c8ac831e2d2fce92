"""Cluster acoustic features into units, the targets for pretraining a video encoder.

`mfcc`: 13 coefficients with first and second differences, normalised per utterance, as in the first
iteration of HuBERT and AV-HuBERT. `whisper`: the last layer of a frozen Whisper encoder, as their
later iterations cluster a trained model's states. Both at 25 Hz, one unit per video frame.
Writes <output>/<set>.units (utterance, units) for each data folder; the clusters are learned on the
first folder.
"""

import argparse
import logging
from pathlib import Path

import librosa
import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from mome.data.audio import read_audio
from mome.data.kaldi import read_scp, write_scp
from mome.encoders.whisper import WhisperEncoder

RATE = 16000
HOP = 160  # MFCC at 100 Hz
FRAMES_PER_UNIT = {"mfcc": 4, "whisper": 2}  # 100 Hz and 50 Hz to 25 Hz


def mfcc_features(speech: np.ndarray) -> np.ndarray:
    """(N,) waveform at 16 kHz -> (T, 39) at 100 Hz, zero mean and unit variance."""
    mfcc = librosa.feature.mfcc(y=speech, sr=RATE, n_mfcc=13, n_fft=400, hop_length=HOP)
    frames = np.concatenate(
        [mfcc, librosa.feature.delta(mfcc), librosa.feature.delta(mfcc, order=2)]
    ).T
    return (frames - frames.mean(0)) / (frames.std(0) + 1e-5)


def whisper_features(speech: list[np.ndarray], encoder: WhisperEncoder) -> list[np.ndarray]:
    """Batch of (N,) waveforms -> (T, D) at 50 Hz each."""
    lengths = torch.tensor([len(wave) for wave in speech])
    waves = [torch.from_numpy(wave) for wave in speech]
    frames, lengths, _ = encoder(pad_sequence(waves, batch_first=True), lengths)
    pairs = zip(frames.float().numpy(), lengths.tolist(), strict=True)
    return [row[:length] for row, length in pairs]


def features_of(
    wav_scp: Path, kind: str, encoder: WhisperEncoder | None, batch_size: int
) -> dict[str, np.ndarray]:
    """Features of every utterance at 25 Hz: utterance -> (T, D) float16, in the list's order."""
    paths = read_scp(wav_scp)
    speech = {utterance: read_audio(path) for utterance, path in paths.items()}
    by_length = sorted(paths, key=lambda utterance: len(speech[utterance]))
    step = FRAMES_PER_UNIT[kind]
    features: dict[str, np.ndarray] = {}
    for start in tqdm(
        range(0, len(by_length), batch_size), desc=f"{kind} {wav_scp.parent.name}", unit="batch"
    ):
        batch = by_length[start : start + batch_size]
        waves = [speech[utterance] for utterance in batch]
        if encoder is None:
            batch_frames = [mfcc_features(wave) for wave in waves]
        else:
            batch_frames = whisper_features(waves, encoder)
        for utterance, frames in zip(batch, batch_frames, strict=True):
            units = len(frames) // step
            if units == 0:
                raise ValueError(
                    f"{utterance}: {paths[utterance]} is shorter than one video frame; exclude it"
                )
            pooled = frames[: units * step].reshape(units, step, -1).mean(1)
            features[utterance] = pooled.astype(np.float16)
    return {utterance: features[utterance] for utterance in paths}


def main(argv: list[str] | None = None) -> None:
    """Learn the clusters on the first folder and label all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders, train first")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--features", choices=sorted(FRAMES_PER_UNIT), default="whisper")
    parser.add_argument("--whisper", default="openai/whisper-small", help="hub name or folder")
    parser.add_argument("--num_units", type=int, default=100)
    parser.add_argument("--max_frames", type=int, default=100_000, help="frames clustered")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s: %(message)s")
    encoder = None
    if args.features == "whisper":
        encoder = WhisperEncoder(model=args.whisper, dtype="auto").eval()
    means = None
    args.output.mkdir(parents=True, exist_ok=True)
    for data in args.data:
        features = features_of(data / "wav.scp", args.features, encoder, args.batch_size)
        if means is None:
            frames = np.concatenate(list(features.values())).astype(np.float32)
            rng = np.random.default_rng(args.seed)
            if len(frames) > args.max_frames:
                frames = frames[rng.choice(len(frames), args.max_frames, replace=False)]
            means = MiniBatchKMeans(
                args.num_units, batch_size=10_000, n_init=3, random_state=args.seed
            ).fit(frames)
            logging.info("%d clusters of %d frames", args.num_units, len(frames))
        units = {
            utterance: " ".join(map(str, means.predict(frames.astype(np.float32))))
            for utterance, frames in features.items()
        }
        write_scp(args.output / f"{data.name}.units", units)


if __name__ == "__main__":
    main()

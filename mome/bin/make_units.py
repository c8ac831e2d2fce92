"""Cluster acoustic features into units, the targets for pretraining a video encoder.

`mfcc`: 13 coefficients with first and second differences, normalised per utterance, as in the first
iteration of HuBERT and AV-HuBERT. `whisper`: the last layer of a frozen Whisper encoder, as their
later iterations cluster a trained model's states. Both at 25 Hz, one unit per video frame.
Writes <output>/<set>.units (utterance, units) for each data folder; the clusters are learned on the
first folder.
"""

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from mome.common.command import in_one_line, parser_for, start_log
from mome.common.extras import extra
from mome.common.memory import WHERE_LOADED, naming_utterances, naming_work
from mome.common.precision import built_for
from mome.common.progress import Bar
from mome.data.audio import RATE, read_audio
from mome.data.kaldi import read_scp, write_scp
from mome.data.video import LIP_RATE
from mome.encoders.whisper import WhisperEncoder

with extra("mome-make-units"):
    import librosa
    from sklearn.cluster import MiniBatchKMeans

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
    device = encoder.window.device
    lengths = torch.tensor([len(wave) for wave in speech])
    waves = pad_sequence([torch.from_numpy(wave) for wave in speech], batch_first=True)
    frames, lengths, _ = encoder(waves.to(device), lengths.to(device))
    pairs = zip(frames.float().cpu().numpy(), lengths.tolist(), strict=True)
    return [row[:length] for row, length in pairs]


def features_of(
    paths: Mapping[str, str],
    order: Sequence[str],
    encoder: WhisperEncoder | None,
    batch_size: int,
    title: str,
) -> Iterator[tuple[str, np.ndarray]]:
    """Features at 25 Hz, batch by batch: utterances and (T, D) float16.

    Args:
        paths: utterance -> audio file.
        order: utterances to read, those of like length together.
        encoder: Whisper's; MFCC if None.
        batch_size: utterances read at once.
        title: of the progress bar.

    Raises:
        ValueError: for an utterance shorter than a video frame.
        OutOfMemory: if that of the GPU or the machine does not suffice; names the batch.
    """
    step = FRAMES_PER_UNIT["mfcc" if encoder is None else "whisper"]
    batch: Sequence[str] = ()
    with naming_utterances(lambda: batch, "lower --batch_size"):
        for start in Bar(range(0, len(order), batch_size), desc=title, unit="batch"):
            batch = order[start : start + batch_size]
            waves = [read_audio(paths[utterance]) for utterance in batch]
            for utterance, wave in zip(batch, waves, strict=True):
                if len(wave) < RATE // LIP_RATE:
                    path = paths[utterance]
                    raise ValueError(
                        f"{utterance}: {path} is shorter than one video frame; exclude it"
                    )
            if encoder is None:
                batch_frames = [mfcc_features(wave) for wave in waves]
            else:
                batch_frames = whisper_features(waves, encoder)
            for utterance, frames in zip(batch, batch_frames, strict=True):
                units = len(frames) // step
                means = frames[: units * step].reshape(units, step, -1).mean(1)
                yield utterance, means.astype("f2")


def lengths_of(folder: Path) -> dict[str, int]:
    """Video frames of each utterance of a data folder, the shortest first."""
    lengths = {name: int(value) for name, value in read_scp(folder / "utt2num_frames").items()}
    return dict(sorted(lengths.items(), key=lambda item: item[1]))


def sample(lengths: Mapping[str, int], max_frames: int, rng: np.random.Generator) -> list[str]:
    """Utterances drawn at random that hold twice ``max_frames`` video frames, or all there are;
    in the order of ``lengths``, which are their video frames."""
    total, drawn = 0, set()
    for name in rng.permutation(sorted(lengths)):
        if total >= 2 * max_frames:
            break
        drawn.add(str(name))
        total += lengths[name]
    return [name for name in lengths if name in drawn]


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders, train first")
    parser.add_argument("--output", type=Path, required=True, help="folder for <set>.units")
    parser.add_argument(
        "--features",
        choices=sorted(FRAMES_PER_UNIT),
        default="whisper",
        help="what is clustered; default: %(default)s",
    )
    parser.add_argument("--whisper", default="openai/whisper-small", help="hub name or folder")
    parser.add_argument("--num_units", type=int, default=100, help="clusters; default: %(default)s")
    parser.add_argument("--max_frames", type=int, default=100_000, help="frames clustered")
    parser.add_argument(
        "--batch_size", type=int, default=16, help="utterances read at once; default: %(default)s"
    )
    parser.add_argument("--ngpu", type=int, default=0, help="1 runs Whisper on a GPU")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="draws the frames that are clustered, and the first centres; default: %(default)s",
    )
    return parser.parse_args(argv)


@in_one_line("mome-make-units")
def main(argv: list[str] | None = None) -> None:
    """Learn the clusters on the first folder and label all."""
    args = parse(argv)
    start_log()
    encoder = None
    if args.features == "whisper":
        if args.ngpu and not torch.cuda.is_available():
            # Jobs of a cluster have GPUs that the machine which submits them may lack.
            logging.warning("this machine has no GPU: Whisper runs on its CPU")
        device = "cuda" if args.ngpu and torch.cuda.is_available() else "cpu"
        loading = naming_work(lambda: f"{args.whisper} was loaded", WHERE_LOADED)
        with loading, built_for(device):
            encoder = WhisperEncoder(model=args.whisper, dtype="auto").eval().to(device)
    args.output.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    first = args.data[0]
    # What the clusters are learned on stays in memory, at most twice max_frames, and is not read
    # again; of a large corpus that is a small part.
    known = dict(
        features_of(
            read_scp(first / "wav.scp"),
            sample(lengths_of(first), args.max_frames, rng),
            encoder,
            args.batch_size,
            f"{args.features} for clusters",
        )
    )
    with naming_work(lambda: "frames were clustered", "lower --max_frames"):
        frames = np.concatenate([known[name] for name in sorted(known)]).astype(np.float32)
        if len(frames) > args.max_frames:
            frames = frames[rng.choice(len(frames), args.max_frames, replace=False)]
        means = MiniBatchKMeans(
            args.num_units, batch_size=10_000, n_init=3, random_state=args.seed
        ).fit(frames)
    logging.info("%d clusters of %d frames", args.num_units, len(frames))
    for data in args.data:
        paths = read_scp(data / "wav.scp")
        of_set = known if data == first else {}
        rest = [name for name in lengths_of(data) if name not in of_set]
        title = f"{args.features} {data.name}"
        labels = {
            utterance: " ".join(map(str, means.predict(values.astype(np.float32))))
            for utterance, values in chain(
                of_set.items(), features_of(paths, rest, encoder, args.batch_size, title)
            )
        }
        write_scp(args.output / f"{data.name}.units", {name: labels[name] for name in paths})


if __name__ == "__main__":
    main()

"""Whisper's encoder on clips as long as they are, and padded to 30 s as in its training.

Times both on a data folder in batches by length. What the padding does to the word error rate is
for a trained model to say: avsr.sh with --train_opts "--audio_encoder_conf pad_to_30s=true".
"""

import argparse

import torch
from sets import add_set_arguments
from timing import machine, seconds, table
from torch.nn.utils.rnn import pad_sequence

from mome.data.audio import read_audio
from mome.data.kaldi import read_scp
from mome.encoders.whisper import WhisperEncoder


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_set_arguments(parser, utterances=48)
    parser.add_argument(
        "--model",
        default="../../downloads/whisper-tiny.en",
        help="Whisper's folder, or its name on the hub; default: %(default)s",
    )
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16 or auto")
    parser.add_argument(
        "--repetitions", type=int, default=5, help="rounds of both variants; default: %(default)s"
    )
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    paths = list(read_scp(args.data / "wav.scp").values())[: args.utterances]
    clips = sorted((torch.from_numpy(read_audio(path)) for path in paths), key=len)
    batches = []
    for start in range(0, len(clips), args.batch_size):
        part = clips[start : start + args.batch_size]
        lengths = torch.tensor([len(clip) for clip in part])
        batches.append((pad_sequence(part, batch_first=True).to(device), lengths.to(device)))

    def run(encoder: WhisperEncoder) -> None:
        for batch in batches:
            encoder(*batch)

    encoders = {
        name: WhisperEncoder(model=args.model, dtype=args.dtype, pad_to_30s=pad).to(device).eval()
        for name, pad in {"as long as the clips": False, "padded to 30 s": True}.items()
    }
    total = sum(map(len, clips)) / 16000
    print(
        f"{len(clips)} clips, {total:.0f} s of speech, batches of {args.batch_size}; {machine()}\n"
    )
    times = seconds({n: lambda e=e: run(e) for n, e in encoders.items()}, args.repetitions)
    print(table(times, "as long as the clips"))


if __name__ == "__main__":
    main()

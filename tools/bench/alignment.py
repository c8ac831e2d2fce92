"""Posteriors of a transcript's own tokens against those of the whole vocabulary, as for alignment.

Windows of utterances of three seconds are compared with an embedding table of SmolLM2's size: all
at once with the whole table in float32, as the CTC loss of the warm start does, and with the tokens
of a transcript, as transcription does.
"""

import argparse
from functools import partial

import torch
from timing import machine, seconds, table

from mome.models.projector import EmbeddingReadout

VOCABULARY, LLM, TOKENS = 49152, 576, 12


@torch.inference_mode()
def whole(
    readout: EmbeddingReadout, windows: torch.Tensor, vocabulary: torch.Tensor, ids: torch.Tensor
) -> torch.Tensor:
    """(B, T, 1 + L) by the posteriors of all."""
    log_probs = readout.log_probs(windows, vocabulary).float()
    return torch.cat([log_probs[..., :1], log_probs[..., 1 + ids]], dim=-1)


@torch.inference_mode()
def own(
    readout: EmbeddingReadout, windows: torch.Tensor, vocabulary: torch.Tensor, ids: torch.Tensor
) -> torch.Tensor:
    """(B, T, 1 + L) by those of the tokens."""
    tokens = windows.flatten(0, 1)
    total = readout.log_total(tokens, vocabulary)
    return readout.log_probs_of(tokens, vocabulary[ids], total).unflatten(0, windows.shape[:2])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--batch", type=int, default=16, help="utterances at once; default: %(default)s"
    )
    parser.add_argument(
        "--repetitions", type=int, default=7, help="rounds of all variants; default: %(default)s"
    )
    args = parser.parse_args()
    print(machine())
    torch.manual_seed(0)
    for dtype in (torch.bfloat16, torch.float32):
        vocabulary = (0.1 * torch.randn(VOCABULARY, LLM)).to(dtype)
        readout = EmbeddingReadout(LLM)
        ids = torch.randperm(VOCABULARY)[:TOKENS].sort().values
        for name, count in (("video rate 2", 38), ("video rate 5", 15)):
            windows = vocabulary[torch.randint(VOCABULARY, (args.batch, count))].float()
            inputs = readout, windows, vocabulary, ids
            difference = float((whole(*inputs) - own(*inputs)).abs().max())
            print(f"\n{dtype}, {name}; log-posteriors differ by {difference:.0e}\n")
            runs = {
                "whole vocabulary": partial(whole, *inputs),
                "own tokens": partial(own, *inputs),
            }
            print(table(seconds(runs, args.repetitions), "whole vocabulary"))


if __name__ == "__main__":
    main()

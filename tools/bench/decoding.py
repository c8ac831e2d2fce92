"""Decoding at every rate pair: ours against two plain ways, with the same trained model.

Ours encodes a batch once and searches all rate pairs side by side. The plain ways are one utterance
and pair at a time by Transformers' ``generate`` (the encoders still run once per utterance), and
our search of one pair after the other, the encoders run again for each. Transcripts that differ are
counted: in bfloat16, equal scores may be rounded apart.
"""

import argparse
from pathlib import Path

import torch
from espnet2.train.collate_fn import CommonCollateFn
from sets import add_set_arguments, open_set
from timing import machine, seconds, table

from mome.llm.beam import beam_search
from mome.llm.prompt_tree import pack_tree
from mome.models.avsr import AVSRModel
from mome.tasks.avsr import load_model


class Decoders:
    """The three ways to decode the same utterances with the same model and beam."""

    def __init__(self, model: AVSRModel, items: list[tuple[str, dict]], args: argparse.Namespace):
        self.model = model
        self.items = sorted(items, key=lambda item: -len(item[1]["speech"]))
        self.args = args
        self.task_pairs = model.task_pairs
        self.collate = CommonCollateFn(float_pad_value=0.0, int_pad_value=-1)

    def batches(self, size: int):
        """Utterances, longest first, as the model takes them."""
        for start in range(0, len(self.items), size):
            names, batch = self.collate(self.items[start : start + size])
            yield names, {k: v.to(self.args.device) for k, v in batch.items()}

    def search(self, batch: dict, task_pairs: list) -> list:
        return beam_search(
            self.model.decoder.lm.inner,
            *self.model.prompts(self.model.encode(**batch), task_pairs),
            beam=self.args.beam,
            max_new_tokens=self.args.max_new_tokens,
            eos_id=self.model.decoder.eos_id,
        )

    def side_by_side(self) -> dict:
        """Ours."""
        found = {}
        for names, batch in self.batches(self.args.batch_size):
            for task_pair, hypotheses in zip(
                self.task_pairs, self.search(batch, self.task_pairs), strict=True
            ):
                for name, best in zip(names, hypotheses, strict=True):
                    found[name, task_pair] = best[0].tokens
        return found

    def pair_by_pair(self) -> dict:
        """Encoders and search again for every pair."""
        found = {}
        for names, batch in self.batches(self.args.batch_size):
            for task_pair in self.task_pairs:
                for name, best in zip(names, self.search(batch, [task_pair])[0], strict=True):
                    found[name, task_pair] = best[0].tokens
        return found

    def generate(self) -> dict:
        """Transformers, one utterance and pair at a time."""
        found = {}
        eos = self.model.decoder.eos_id
        for names, batch in self.batches(1):
            features = self.model.encode(**batch)
            for task_pair in self.task_pairs:
                nodes, _ = self.model.prompts(features, [task_pair])
                embeds, mask, *_ = pack_tree(nodes)
                tokens = self.model.decoder.lm.inner.generate(
                    inputs_embeds=embeds,
                    attention_mask=mask.long(),
                    num_beams=self.args.beam,
                    max_new_tokens=self.args.max_new_tokens,
                    do_sample=False,
                    length_penalty=0.0,
                    early_stopping="never" if self.args.beam > 1 else False,
                    eos_token_id=eos,
                    pad_token_id=eos,
                )[0].tolist()
                if eos in tokens:
                    tokens = tokens[: tokens.index(eos)]
                found[names[0], task_pair] = tokens
        return found


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exp", type=Path, default=Path("exp/mome"), help="a trained model")
    add_set_arguments(parser, utterances=40)
    parser.add_argument(
        "--beam", type=int, default=1, help="hypotheses, 1 is greedy; default: %(default)s"
    )
    parser.add_argument(
        "--max_new_tokens",
        type=int,
        default=32,
        help="longest transcript, in tokens; default: %(default)s",
    )
    parser.add_argument(
        "--repetitions", type=int, default=3, help="rounds of all variants; default: %(default)s"
    )
    args = parser.parse_args()
    args.device = "cuda" if torch.cuda.is_available() else "cpu"
    model, training = load_model(
        args.exp / "config.yaml", args.exp / "valid.acc.best.pth", args.device
    )
    dataset, names = open_set(args, training, streams=("speech", "lips"))
    items = [dataset[name] for name in names]
    decoders = Decoders(model, items, args)
    ways = {
        "all pairs side by side": decoders.side_by_side,
        "pair by pair, encoders each time": decoders.pair_by_pair,
        "generate, one at a time": decoders.generate,
    }
    found = {name: way() for name, way in ways.items()}
    ours = found["all pairs side by side"]
    print(
        f"{len(items)} utterances, {len(decoders.task_pairs)} rate pairs, beam {args.beam}; "
        f"{machine()}"
    )
    for name, theirs in found.items():
        differ = sum(ours[key] != theirs[key] for key in ours)
        print(f"{name}: {differ} of {len(ours)} transcripts differ from ours")
    times = seconds(ways, args.repetitions)
    print(f"\n{table(times, 'all pairs side by side')}")


if __name__ == "__main__":
    main()

"""Take the experts that a trained MoME model hardly selects out of it, layer by layer.

  mome-prune-experts --expdir exp/mome --weights valid.epoch.best.pth --data dump/valid --keep 8 \\
      --output exp/mome_8experts

The LLM reads the clips of a set with their transcripts at every task and rate pair, and each layer
keeps the routed experts that most of its tokens are sent to; shared experts stay. Of the audio,
video and text tokens of each task and rate pair the shares count alike. Nothing is trained: what is
written is a model folder with config.yaml and the weights under the same name, which stages 5 to 7
decode and pack as any other (./run.sh --stage 5 --tag mome_8experts), and pruned.json with the
shares of assignments that each layer has lost.
"""

import argparse
import json
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.utils.data import DataLoader

from mome.adapters.experts import MoME, is_stock
from mome.adapters.mome import MoMEAdapter
from mome.adapters.pruning import most_asked, without_experts
from mome.analysis.routing import expert_shares
from mome.common.atomic_files import replacing
from mome.common.command import in_one_line, parser_for, start_log
from mome.common.extras import demand_installed
from mome.common.memory import naming_utterances
from mome.common.yaml_files import read_yaml
from mome.data.kaldi import read_scp, write_text
from mome.models.avsr import AVSRModel
from mome.tasks.checkpoint import check_trained, read_checkpoint
from mome.tasks.data_folders import STREAMS, streams_of

PREFIX = "decoder.adapter.layers"


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--expdir", type=Path, required=True, help="folder of the model")
    parser.add_argument("--weights", default="valid.acc.best.pth", help="checkpoint in it")
    parser.add_argument("--data", type=Path, required=True, help="set of stage 2, not of a test")
    parser.add_argument("--keep", type=int, required=True, help="routed experts of each layer")
    parser.add_argument("--output", type=Path, required=True, help="folder of the smaller model")
    parser.add_argument("--batch_size", type=int, default=8, help="clips at once")
    return parser.parse_args(argv)


def check(model: AVSRModel, keep: int) -> list[MoME]:
    """The modules of experts of a model from which some can be taken.

    Raises:
        ValueError: if there are none, or not so many.
    """
    adapter = model.decoder.adapter
    if not isinstance(adapter, MoMEAdapter) or not all(map(is_stock, adapter.experts)):
        raise ValueError("only MoME with one linear router for all rate pairs can be pruned")
    first = adapter.experts[0]
    if not first.top_k <= keep < first.num_routed:
        raise ValueError(
            f"--keep {keep} must be at least top_k={first.top_k}, which each token is sent to, and "
            f"below the {first.num_routed} routed experts that there are"
        )
    return adapter.experts


@torch.inference_mode()
def measure(
    model: AVSRModel, training: argparse.Namespace, data: Path, batch_size: int
) -> np.ndarray:
    """Share of each routed expert in the assignments of a layer, over the clips of a set.

    Returns:
        (layers, Nr), rows that sum to 1.

    Raises:
        FileNotFoundError: for a stream that the folder lacks.
    """
    from espnet2.train.dataset import ESPnetDataset

    from mome.tasks.avsr import AVSRTask

    sources = []
    for name in ("text", *streams_of(model.tasks)):
        path = data / STREAMS[name][0]
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no {name} for {data}; run stages 1 and 2 first")
        sources.append((str(path), name, STREAMS[name][1]))
    clips = list(read_scp(data / "text"))
    loader = DataLoader(
        ESPnetDataset(sources, AVSRTask.build_preprocess_fn(training, train=False)),
        batch_sampler=[list(each) for each in batched(clips, batch_size)],
        collate_fn=AVSRTask.build_collate_fn(training, train=False),
    )
    total: Any = 0.0
    utterances: list[str] = []
    with naming_utterances(lambda: utterances, "lower --batch_size"):
        for utterances, batch in loader:
            text, lengths = batch.pop("text"), batch.pop("text_lengths")
            words = [row[:length].tolist() for row, length in zip(text, lengths, strict=True)]
            features = model.encode(**batch)
            for each in model.task_pairs:
                found = expert_shares(model, features, each, words)
                total = total + np.mean(list(found.values()), axis=0) * len(utterances)
    return total / total.sum(1, keepdims=True)


def prune(args: argparse.Namespace) -> None:
    """Measure, choose, write.

    Raises:
        OSError, ValueError: for what cannot be read, pruned or written.
    """
    from mome.tasks.avsr import load_model  # with ESPnet, which the options do without

    config, weights = args.expdir / "config.yaml", args.expdir / args.weights
    check_trained(config, weights)
    if args.output.exists() and any(args.output.iterdir()):
        raise FileExistsError(f"{args.output} is there; name a new folder")
    state = read_checkpoint(weights)
    model, training = load_model(config, weights)
    modules = check(model, args.keep)
    shares = measure(model, training, args.data, args.batch_size)
    kept = most_asked(shares, args.keep)
    for layer, (module, of_layer) in enumerate(zip(modules, kept, strict=True)):
        prefix = f"{PREFIX}.{layer}."
        own = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
        fewer = without_experts(own, module, of_layer)
        state |= {f"{prefix}{name}": tensor for name, tensor in fewer.items()}
    lost = 1 - np.take_along_axis(shares, kept, axis=1).sum(1)
    values = read_yaml(config)
    values["decoder_conf"]["adapter_conf"] = {
        **(values["decoder_conf"].get("adapter_conf") or {}),
        "num_routed": args.keep,
    }
    what = {
        "from": str(weights),
        "set": args.data.name,
        "kept": kept.tolist(),
        "lost_share": lost.round(5).tolist(),
    }
    with replacing(args.output) as partial:
        partial.mkdir()
        write_text(partial / "pruned.json", json.dumps(what) + "\n")
        torch.save(state, partial / args.weights)
        write_text(partial / "config.yaml", yaml.safe_dump(values, sort_keys=False))
    before = sum(module.down.weight.shape[0] // module.bottleneck for module in modules)
    after = sum(args.keep + module.num_shared for module in modules)
    print(
        f"{args.output}: {after} of {before} experts are left; the others had "
        f"{100 * lost.mean():.1f} % of a layer's assignments, {100 * lost.max():.1f} at most"
    )


@in_one_line("mome-prune-experts")
def main(argv: list[str] | None = None) -> None:
    """Prune a model."""
    args = parse(argv)
    demand_installed("mome-prune-experts", "espnet2")
    start_log()
    prune(args)


if __name__ == "__main__":
    main()

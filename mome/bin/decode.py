"""Decode data folders with a trained model, for several tasks and rate pairs in one pass.

The encoders run once per batch, and so does what the prompts of several tasks and rate pairs have
in common; all are searched side by side. Writes Kaldi text
files <output>/<task>/<set>/<pair>/text, each with a decode.json that says how it was made.

With --part i/n only the i-th of n parts of every set is decoded, as one of n jobs, into
<output>/split<n>/<i>; mome.bin.merge_decoding joins the parts.
"""

import argparse
import json
import logging
import os
import shlex
import sys
import time
from pathlib import Path

import torch
from espnet2.train.dataset import ESPnetDataset
from torch.utils.data import DataLoader
from tqdm import tqdm

from mome.data.kaldi import read_scp, write_scp
from mome.llm.beam import beam_search
from mome.models.avsr import AVSRModel
from mome.models.matryoshka import RatePair, parse_rate_pair
from mome.tasks.avsr import AVSRTask, load_model

STREAMS = {"speech": ("wav.scp", "sound"), "lips": ("lip.scp", "lips")}


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="config.yaml of the training")
    parser.add_argument("--weights", type=Path, required=True, help="checkpoint (.pth)")
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="FOLDER[=TASK,...]",
        help="data folders, each with the tasks it is decoded for; default: all that were trained",
    )
    parser.add_argument("--output", type=Path, required=True, help="e.g. exp/avsr/decode")
    parser.add_argument(
        "--rates", nargs="+", help="rate pairs such as a4_v2 a16 v5; default: all trained"
    )
    parser.add_argument("--beam", type=int, default=15, help="1 is greedy")
    parser.add_argument("--max_new_tokens", type=int, default=32)
    parser.add_argument("--length_penalty", type=float, default=0.0)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--num_workers", type=int, default=1)
    parser.add_argument("--ngpu", type=int, default=0)
    parser.add_argument("--part", type=part, default=(1, 1), metavar="I/N", help="of each set")
    return parser.parse_args(argv)


def part(text: str) -> tuple[int, int]:
    """Parse ``2/8``, the second of eight parts."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} must be I/N with 1 <= I <= N, such as 2/8")
    return int(number), int(count)


def conditions(
    model: AVSRModel, tasks: list[str], rates: list[str] | None
) -> list[tuple[str, RatePair]]:
    """The (task, rate pair) combinations asked for; no tasks are all tasks.

    Raises:
        ValueError: for a task or a rate that was not trained, naming those that were.
    """
    trained = [(task, pair) for task, pairs in model.pairs.items() for pair in pairs]
    wanted = {parse_rate_pair(rate) for rate in rates or []}
    known = {str(pair) for _, pair in trained}
    for pair in wanted:
        if str(pair) not in known:
            raise ValueError(f"rate pair {pair} was not trained; this model knows {sorted(known)}")
    for task in tasks:
        if task not in model.pairs:
            raise ValueError(f"task {task} was not trained; this model knows {list(model.pairs)}")
    return [
        (task, pair)
        for task, pair in trained
        if (not tasks or task in tasks) and (not wanted or pair in wanted)
    ]


def decode_set(
    model: AVSRModel,
    training: argparse.Namespace,
    data: Path,
    todo: list[tuple[str, RatePair]],
    args: argparse.Namespace,
) -> tuple[dict[tuple[str, RatePair], dict[str, str]], float]:
    """Decode one data folder: transcripts per condition, and the seconds that all took together."""
    device = "cuda" if args.ngpu else "cpu"
    needed = {"speech": "audio" in model.rates, "lips": "video" in model.rates}
    if all(task == "vsr" for task, _ in todo):
        needed["speech"] = False
    if all(task == "asr" for task, _ in todo):
        needed["lips"] = False
    sources = [
        (str(data / STREAMS[name][0]), name, STREAMS[name][1])
        for name, need in needed.items()
        if need
    ]
    for path, name, _ in sources:
        if not Path(path).exists():
            raise FileNotFoundError(f"{path}: no {name} for {data}; run stages 1 to 3 first")
    durations = read_scp(data / "utt2dur")
    by_length = sorted(durations, key=lambda utterance: -float(durations[utterance]))
    number, count = args.part
    by_length = by_length[number - 1 :: count]
    results: dict[tuple[str, RatePair], dict[str, str]] = {condition: {} for condition in todo}
    seconds = 0.0
    # ESPnet's own streaming iterator reads in file order; ours reads by length, for less padding.
    dataset = ESPnetDataset(sources, AVSRTask.build_preprocess_fn(training, train=False))
    loader = DataLoader(
        dataset,
        batch_sampler=[
            by_length[start : start + args.batch_size]
            for start in range(0, len(by_length), args.batch_size)
        ],
        collate_fn=AVSRTask.build_collate_fn(training, train=False),
        num_workers=args.num_workers,
    )
    for utterances, batch in tqdm(loader, desc=data.name, unit="batch"):
        batch = {key: value.to(device) for key, value in batch.items()}
        started = time.perf_counter()
        hypotheses = beam_search(
            model.decoder.lm.inner,
            *model.prompts(model.encode(**batch), todo),
            beam=args.beam,
            max_new_tokens=args.max_new_tokens,
            eos_id=model.decoder.eos_id,
            length_penalty=args.length_penalty,
            adapter=model.decoder.adapter,
        )
        seconds += time.perf_counter() - started
        for condition, candidates in zip(todo, hypotheses, strict=True):
            for utterance, best in zip(utterances, candidates, strict=True):
                text = model.tokenizer.decode(best[0].tokens, skip_special_tokens=True)
                results[condition][utterance] = " ".join(text.split())
    return results, seconds


@torch.inference_mode()
def main(argv: list[str] | None = None) -> None:
    """Decode what is not decoded yet."""
    args = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s: %(message)s")
    device = "cuda" if args.ngpu else "cpu"
    model, training = load_model(args.config, args.weights, device)
    number, count = args.part
    output = args.output if count == 1 else args.output / f"split{count}" / str(number)
    for item in args.data:
        folder, _, tasks = item.partition("=")
        data, todo = Path(folder), []
        for task, pair in conditions(model, tasks.split(",") if tasks else [], args.rates):
            name = Path(task, data.name, str(pair), "text")
            if (args.output / name).exists() or (output / name).exists():
                logging.info("%s %s %s is decoded already", task, data.name, pair)
            else:
                todo.append((task, pair))
        if not todo:
            continue
        results, seconds = decode_set(model, training, data, todo, args)
        logging.info("%s: %d conditions in %.1f s", data.name, len(todo), seconds)
        for (task, pair), texts in results.items():
            folder = output / task / data.name / str(pair)
            folder.mkdir(parents=True, exist_ok=True)
            settings = {
                "weights": os.path.relpath(args.weights),
                "beam": args.beam,
                "max_new_tokens": args.max_new_tokens,
                "length_penalty": args.length_penalty,
                "batch_size": args.batch_size,
                # Encoders and search, of all conditions that were decoded together.
                "seconds": round(seconds, 2),
                "conditions": [f"{task}/{pair}" for task, pair in todo],
                "utterances": len(texts),
                "reference": os.path.relpath(data / "text"),
                "command": shlex.join(["python", "-m", "mome.bin.decode", *(argv or sys.argv[1:])]),
            }
            (folder / "decode.json").write_text(json.dumps(settings, indent=2) + "\n")
            # The transcripts come last: their presence says that the condition is done.
            write_scp(folder / "text", texts)


if __name__ == "__main__":
    main()

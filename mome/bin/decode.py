"""Decode test sets and their copies, for all tasks and rate pairs of a trained model in one pass.

Sets are those of --test_sets and the noisy and corrupted copies asked for, for the tasks that each
asks anything of; see mome.data.test_sets. The encoders run once per batch, and so does what the
prompts of several tasks and rate pairs have in common; all are searched side by side. Writes Kaldi
text files <output>/<task>/<set>/<pair>/text, each with a decode.json that says how it was made.

What is decoded with the same weights and settings is kept. With others it is an error, whichever
sets are asked for: no table mixes them. With --force true what is asked for is decoded anew, and
what was decoded with others is deleted first.

With --part i/n only the i-th of n parts of every set is decoded, as one of n jobs, into
<output>/split<n>/<i>; mome.bin.merge_decoding joins the parts.
"""

import argparse
import json
import logging
import os
import shlex
import shutil
import sys
import time
from itertools import batched
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from mome.common.command import in_one_line, parser_for, start_log
from mome.common.extras import extra
from mome.common.marks import MODULES, OtherSettings, demand_same, file_digest
from mome.common.memory import naming_utterances
from mome.common.progress import Bar
from mome.common.yaml_files import read_yaml
from mome.data import test_sets
from mome.data.kaldi import read_scp, write_scp, write_text
from mome.llm.beam import Hypothesis, UndefinedScores, beam_search
from mome.models.avsr import AVSRModel
from mome.models.rates import TaskPair, parse_rate_pair
from mome.tasks.checkpoint import check_trained
from mome.tasks.data_folders import STREAMS, streams_of
from mome.tasks.extensions import import_modules, module_digests
from mome.tasks.transcript_length import default_max_new_tokens

with extra("mome-decode"):
    from espnet2.train.dataset import ESPnetDataset

    from mome.tasks.avsr import AVSRTask, load_model

UNFINISHED = 0.01  # share of transcripts without an end above which there is a warning
ELSEWHERE = "--decode_tag, --expdir or --tag"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--config", type=Path, required=True, help="config.yaml of the training")
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="module that registers what the model is made of, beside those that training imported",
    )
    parser.add_argument("--weights", type=Path, required=True, help="checkpoint (.pth)")
    test_sets.add_selection_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, help="e.g. exp/avsr/decode")
    parser.add_argument(
        "--rates", nargs="+", help="rate pairs such as a4_v2 a16 v5; default: all trained"
    )
    parser.add_argument("--beam", type=int, default=15, help="1 is greedy")
    parser.add_argument(
        "--max_new_tokens",
        type=int,
        help="longest transcript; default: a quarter more than the longest of the training, and at "
        "least 32",
    )
    parser.add_argument(
        "--length_penalty",
        type=float,
        default=0.0,
        help="exponent of the length that divides the score; Transformers' default is 1",
    )
    parser.add_argument(
        "--no_repeat_ngram_size",
        type=int,
        default=0,
        help="no n-gram of so many tokens occurs twice in a transcript, against loops; 0 allows it",
    )
    parser.add_argument("--force", choices=("true", "false"), default="false")
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


def are_cut(unfinished: int, count: int) -> bool:
    """Whether so many of a set's transcripts are without an end that it must be said."""
    return unfinished > UNFINISHED * count


def task_pairs_of(model: AVSRModel, rates: list[str] | None) -> list[TaskPair]:
    """The tasks of a model at the rate pairs asked for; none are all that were trained.

    Raises:
        ValueError: for a rate that was not trained, naming those that were.
    """
    trained = model.task_pairs
    wanted = {parse_rate_pair(rate) for rate in rates or []}
    known = {str(pair) for _, pair in trained}
    for pair in wanted:
        if str(pair) not in known:
            raise ValueError(f"rate pair {pair} was not trained; this model knows {sorted(known)}")
    return [each for each in trained if not wanted or each.pair in wanted]


def read_settings(folder: Path) -> dict[str, object] | None:
    """The settings that a condition was decoded with; None, with a warning, if it does not say."""
    try:
        return json.loads((folder / "decode.json").read_text())["settings"]
    except (OSError, ValueError, TypeError, KeyError):
        logging.warning("%s does not say how it was decoded: it counts as not done", folder)
        return None


def check_decoded(output: Path, wanted: dict[str, object], dump: Path, force: bool) -> None:
    """See that all that is decoded below a folder has the settings wanted.

    What does not say, and with ``force`` also what has others, is deleted.

    Raises:
        OtherSettings: for a condition of other settings.
    """
    for path in sorted(output.glob("*/*/*/text")):
        folder = path.parent
        settings = read_settings(folder)
        try:
            if settings is not None:
                now = wanted | {"test_set": test_sets.settings_of(dump, folder.parent.name)}
                demand_same(folder, settings, now, ELSEWHERE)
                continue
        except OtherSettings:
            if not force:
                raise
        # Jobs decode side by side, and each of them clears what is old.
        shutil.rmtree(folder, ignore_errors=True)


def batches_of(data: Path, args: argparse.Namespace) -> list[list[str]]:
    """The utterances of this job's part of a data folder, those of like length together."""
    durations = read_scp(data / "utt2dur")
    by_length = sorted(durations, key=lambda utterance: -float(durations[utterance]))
    number, count = args.part
    part_of_set = by_length[number - 1 :: count]
    return [list(batch) for batch in batched(part_of_set, args.batch_size)]


def decode_set(
    model: AVSRModel,
    training: argparse.Namespace,
    data: Path,
    task_pairs: list[TaskPair],
    args: argparse.Namespace,
    bar: Bar,
) -> tuple[dict[TaskPair, dict[str, str]], dict[TaskPair, int], float]:
    """Decode one data folder; ``bar`` counts its batches.

    Returns:
        transcripts of each task pair, how many of them ended by the limit of tokens, and the
        seconds of all.

    Raises:
        FileNotFoundError: for a stream that the folder lacks.
        MemoryError: if the memory of the GPU or the machine does not suffice; names the batch.
        FloatingPointError: for utterances of whose words the LLM has no probability.
    """
    device = "cuda" if args.ngpu else "cpu"
    sources = [
        (str(data / STREAMS[name][0]), name, STREAMS[name][1])
        for name in streams_of(each.task for each in task_pairs)
    ]
    for path, name, _ in sources:
        if not Path(path).exists():
            raise FileNotFoundError(f"{path}: no {name} for {data}; run stages 1 to 3 first")
    results: dict[TaskPair, dict[str, str]] = {each: {} for each in task_pairs}
    unfinished = dict.fromkeys(task_pairs, 0)
    seconds = 0.0
    # ESPnet's own streaming iterator reads in file order; ours reads by length, for less padding.
    dataset = ESPnetDataset(sources, AVSRTask.build_preprocess_fn(training, train=False))
    loader = DataLoader(
        dataset,
        batch_sampler=batches_of(data, args),
        collate_fn=AVSRTask.build_collate_fn(training, train=False),
        num_workers=args.num_workers,
    )
    bar.set_description(data.name, refresh=False)
    utterances: list[str] = []
    remedy = "lower --decode_batch_size (--batch_size of mome.bin.decode) or --beam"
    if len(task_pairs) > 1:
        remedy += f", or ask for fewer than {len(task_pairs)} tasks and rate pairs at once"
    with naming_utterances(lambda: utterances, remedy):
        for utterances, batch in loader:
            batch = {key: value.to(device) for key, value in batch.items()}
            started = time.perf_counter()
            try:
                hypotheses = search(model, batch, task_pairs, args)
            except UndefinedScores as error:
                raise error.naming(utterances) from None
            seconds += time.perf_counter() - started
            for each, candidates in zip(task_pairs, hypotheses, strict=True):
                for utterance, best in zip(utterances, candidates, strict=True):
                    text = model.tokenizer.decode(best[0].tokens, skip_special_tokens=True)
                    results[each][utterance] = " ".join(text.split())
                    unfinished[each] += not best[0].finished
            bar.update()
    return results, unfinished, seconds


def search(
    model: AVSRModel,
    batch: dict[str, torch.Tensor],
    task_pairs: list[TaskPair],
    args: argparse.Namespace,
) -> list[list[list[Hypothesis]]]:
    """The hypotheses of each task pair and utterance of a batch, best first."""
    return beam_search(
        model.decoder.lm.inner,
        *model.prompts(model.encode(**batch), task_pairs),
        beam=args.beam,
        max_new_tokens=args.max_new_tokens,
        eos_id=model.decoder.eos_id,
        length_penalty=args.length_penalty,
        no_repeat_ngram_size=args.no_repeat_ngram_size,
        adapter=model.decoder.adapter,
    )


@in_one_line("mome-decode")
def main(argv: list[str] | None = None) -> None:
    """Decode what is not decoded yet."""
    args = parse_arguments(argv)
    start_log()
    if args.no_repeat_ngram_size < 0:
        raise ValueError(f"--no_repeat_ngram_size {args.no_repeat_ngram_size} must be 0 or more")
    number, count = args.part
    output = args.output if count == 1 else args.output / f"split{count}" / str(number)
    check_trained(args.config, args.weights)
    config = read_yaml(args.config)
    tasks = config["model_conf"].get("tasks", ["avsr"])
    if args.max_new_tokens is None:
        args.max_new_tokens = default_max_new_tokens(config)
    wanted = test_sets.select(args, tasks)
    settings = {
        "weights": file_digest(args.weights),
        "beam": args.beam,
        "max_new_tokens": args.max_new_tokens,
        "length_penalty": args.length_penalty,
    }
    if args.no_repeat_ngram_size:
        settings["no_repeat_ngram_size"] = args.no_repeat_ngram_size
    if imported := [*(config.get("imports") or []), *args.imports]:
        settings[MODULES] = module_digests(imported)
    for folder in {args.output, output}:
        check_decoded(folder, settings, args.dump, args.force == "true")
    command = shlex.join(["python", "-m", "mome.bin.decode", *(argv or sys.argv[1:])])
    decode_sets(args, wanted, settings, output, command)


@torch.inference_mode()
def decode_sets(
    args: argparse.Namespace,
    wanted: list[test_sets.TestSet],
    settings: dict[str, object],
    output: Path,
    command: str,
) -> None:
    """Decode what is not decoded yet of some sets, and write transcripts and settings."""
    import_modules(args.imports)
    model, training = load_model(args.config, args.weights, "cuda" if args.ngpu else "cpu")
    left: list[tuple[Path, list[TaskPair]]] = []
    for test_set in wanted:
        data, task_pairs = args.dump / test_set.name, []
        for each in task_pairs_of(model, args.rates):
            name = Path(each.task, test_set.name, str(each.pair))
            if each.task not in test_set.tasks:
                continue
            folders = [where / name for where in (args.output, output)]
            if args.force == "true":
                for folder in folders:
                    shutil.rmtree(folder, ignore_errors=True)
            if any((folder / "text").exists() for folder in folders):
                logging.info("%s %s is decoded already", test_set.name, each)
            else:
                task_pairs.append(each)
        if task_pairs:
            left.append((data, task_pairs))
    total = sum(len(batches_of(data, args)) for data, _ in left)
    bar = Bar(total=total, unit="batch", disable=not total)
    for data, task_pairs in left:
        results, unfinished, seconds = decode_set(model, training, data, task_pairs, args, bar)
        bar.clear()
        logging.info("%s: %d task pairs in %.1f s", data.name, len(task_pairs), seconds)
        for each, texts in results.items():
            if are_cut(unfinished[each], len(texts)):
                logging.warning(
                    "%s %s: %d of %d transcripts do not end within --max_new_tokens %d",
                    *(data.name, each, unfinished[each], len(texts), args.max_new_tokens),
                )
            folder = output / each.task / data.name / str(each.pair)
            folder.mkdir(parents=True, exist_ok=True)
            how = {
                # What decides the transcripts; another decoding must have the same.
                "settings": settings | {"test_set": test_sets.settings_of(args.dump, data.name)},
                "weights": os.path.relpath(args.weights),
                "batch_size": args.batch_size,
                # Encoders and search, of all task pairs that were decoded together.
                "seconds": round(seconds, 2),
                "task_pairs": [str(pair) for pair in task_pairs],
                "utterances": len(texts),
                # Transcripts that were cut off at max_new_tokens.
                "unfinished": unfinished[each],
                "reference": os.path.relpath(data / "text"),
                "command": command,
            }
            write_text(folder / "decode.json", json.dumps(how, indent=2) + "\n")
            # The transcripts come last: their presence says that the condition is done.
            write_scp(folder / "text", texts)
    bar.close()


if __name__ == "__main__":
    main()

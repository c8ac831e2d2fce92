"""Decode test sets by a trained model, and write down how: what mome.bin.decode does at length."""

import argparse
import json
import logging
import os
import shutil
import time
from collections.abc import Collection, Mapping
from itertools import batched, product
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from mome.common.extras import extra
from mome.common.memory import naming_utterances
from mome.common.progress import Bar
from mome.data import test_sets
from mome.data.kaldi import read_scp, write_scp, write_text
from mome.llm.beam import Hypothesis, UndefinedScores, beam_search
from mome.models.avsr import AVSRModel
from mome.models.rates import TaskPair
from mome.tasks.data_folders import STREAMS, streams_of
from mome.tasks.extensions import import_modules
from mome.tasks.transcript_length import warn_if_cut

with extra("mome-decode"):
    from espnet2.train.dataset import ESPnetDataset

    from mome.tasks.avsr import AVSRTask, load_model


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
    remedy = "lower --decode_batch_size (--batch_size of mome-decode) or --beam"
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


@torch.inference_mode()
def decode_sets(
    args: argparse.Namespace,
    left: Mapping[str, list[TaskPair]],
    settings: Mapping[str, object],
    folders: Collection[Path],
    output: Path,
    command: str,
) -> None:
    """Decode sets and write transcripts and settings.

    Args:
        args: options of mome.bin.decode.
        left: the names of the sets, and the task pairs of each.
        settings: what decides the transcripts.
        folders: where else they may be decoded; with --force true what is there is deleted.
        output: where they are written.
        command: that decodes them, for the record.

    Raises:
        MemoryError, FloatingPointError: as of :func:`decode_set`.
    """
    import_modules(args.imports)
    model, training = load_model(args.config, args.weights, "cuda" if args.ngpu else "cpu")
    if args.force == "true":
        for name, task_pairs in left.items():
            for folder, each in product(folders, task_pairs):
                shutil.rmtree(folder / each.task / name / str(each.pair), ignore_errors=True)
    total = sum(len(batches_of(args.dump / name, args)) for name in left)
    bar = Bar(total=total, unit="batch", disable=not total)
    for name, task_pairs in left.items():
        data = args.dump / name
        results, unfinished, seconds = decode_set(model, training, data, task_pairs, args, bar)
        bar.clear()
        logging.info("%s: %d task pairs in %.1f s", data.name, len(task_pairs), seconds)
        for each, texts in results.items():
            warn_if_cut(f"{data.name} {each}", unfinished[each], len(texts), args.max_new_tokens)
            folder = output / each.task / data.name / str(each.pair)
            folder.mkdir(parents=True, exist_ok=True)
            how = {
                # What decides the transcripts; another decoding must have the same.
                "settings": {**settings, "test_set": test_sets.settings_of(args.dump, name)},
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

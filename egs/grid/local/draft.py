#!/usr/bin/env python3
"""Whether a draft by CTC saves the LLM its search: a draft, one pass of the LLM, else the search.

The projectors of a model with a readout give a transcript of their own, the best path of CTC. Where
the LLM's pass over prompt and draft has each token of it, and the end of sentence, as the most
likely one, greedy search would have said the same and need not run. Or the draft is taken as it is
where its posteriors are sure, and the LLM does not run at all (arXiv 2603.11243).

  local/draft.py --model exp/mome/packed --dump dump --test_sets test test_babble_snr-5

Prints for each set and rate pair the WER of drafts and of greedy search, the share of drafts that
the pass confirms, milliseconds an utterance of the draft, the pass and the search, and the WER
where the surest half of the drafts is taken as it is.
"""

import argparse
import time
from collections.abc import Sequence
from itertools import batched

import numpy as np
import torch

from mome.analysis.wer import score
from mome.common.markdown import markdown_table
from mome.llm.beam import beam_search
from mome.llm.prompt_tree import Node
from mome.models.avsr import AVSRModel, Features
from mome.models.rates import RatePair, TaskPair
from mome.transcribe.alignment import window_log_probs
from mome.transcribe.clips import Clip
from mome.transcribe.prepared import add_crop_arguments, open_for_crops, read_clips
from mome.transcribe.transcriber import Transcriber


@torch.inference_mode()
def draft(model: AVSRModel, features: Features, pair: RatePair) -> list[tuple[float, list[int]]]:
    """Mean entropy of the windows of the surer modality, and its best path, of each utterance."""
    found = []
    for kind, rate in pair.rates.items():
        log_probs, lengths = window_log_probs(model, features, kind, rate)
        paths = []
        for row, windows in zip(log_probs, lengths.tolist(), strict=True):
            row = row[:windows]
            entropy = float(-(row.exp() * row).sum(-1).mean())
            labels = row.argmax(-1).unique_consecutive()
            paths.append((entropy, (labels[labels > 0] - 1).tolist()))
        found.append(paths)
    return [min(each) for each in zip(*found, strict=True)]


@torch.inference_mode()
def confirmed(
    model: AVSRModel, features: Features, chosen: TaskPair, drafts: Sequence[list[int]]
) -> list[bool]:
    """Which drafts are what greedy search would say, by one pass of the LLM over all of them."""
    decoder = model.decoder
    *nodes, prompt = model.prompts(features, [chosen])[0]
    device = prompt.mask.device
    longest = max(1, *map(len, drafts))
    ids = torch.zeros(len(drafts), longest, dtype=torch.long, device=device)
    target = torch.full((len(drafts), longest + 1), -1, device=device)
    for row, tokens in enumerate(drafts):
        ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long, device=device)
        target[row, : len(tokens) + 1] = torch.tensor([*tokens, decoder.eos_id], device=device)
    lengths = torch.tensor([len(tokens) for tokens in drafts], device=device)
    valid = torch.arange(longest, device=device) < lengths[:, None]
    start = prompt.mask.shape[1] - 1
    embeds = torch.cat([prompt.embeds, decoder.embed(ids)], dim=1)
    nodes.append(Node(embeds, torch.cat([prompt.mask, valid], dim=1), prompt.parent))
    columns = [(len(nodes) - 1, start, start + longest + 1)]
    (logits,), _ = decoder.forward_tree(nodes, columns)
    return ((logits.argmax(-1) == target) | (target < 0)).all(1).tolist()


def search(
    transcribe: Transcriber, features: Features, chosen: TaskPair
) -> list[tuple[list[int], bool]]:
    """Greedy search: tokens of each utterance, and whether it came to an end."""
    model = transcribe.model
    best = beam_search(
        model.decoder.lm.inner,
        *model.prompts(features, [chosen]),
        beam=1,
        max_new_tokens=transcribe.max_new_tokens,
        eos_id=model.decoder.eos_id,
        adapter=model.decoder.adapter,
    )[0]
    return [(hypotheses[0].tokens, hypotheses[0].finished) for hypotheses in best]


def measure(
    transcribe: Transcriber, clips: Sequence[Clip], texts: Sequence[str], chosen: TaskPair
) -> list[str]:
    """A row of the table."""
    model = transcribe.model
    entropies, right, seconds = [], [], np.zeros(3)
    said: dict[str, list[str]] = {"draft": [], "search": []}
    for group in batched(clips, 16):
        features = transcribe.encode(group, chosen.task)
        began = time.perf_counter()
        drafts = draft(model, features, chosen.pair)
        drafted = time.perf_counter()
        right += confirmed(model, features, chosen, [tokens for _, tokens in drafts])
        seen = time.perf_counter()
        found = search(transcribe, features, chosen)
        seconds += np.diff([began, drafted, seen, time.perf_counter()])
        entropies += [entropy for entropy, _ in drafts]
        for key, batch in (("draft", [t for _, t in drafts]), ("search", [t for t, _ in found])):
            said[key] += [model.tokenizer.decode(t, skip_special_tokens=True) for t in batch]
    surest = np.argsort(entropies)[: len(clips) // 2]
    taken = list(said["search"])
    for place in surest:
        taken[place] = said["draft"][place]
    names = [clip.utterance for clip in clips]
    references = dict(zip(names, texts, strict=True))
    rates = [
        f"{score(references, dict(zip(names, of_set, strict=True))).wer:.1f}"
        for of_set in (said["draft"], said["search"], taken)
    ]
    milliseconds = [f"{1000 * each / len(clips):.0f}" for each in seconds]
    of_drafts, of_search, of_both = rates
    return [of_drafts, of_search, f"{np.mean(right):.2f}", *milliseconds, of_both]


def main(argv: list[str] | None = None) -> None:
    """Measure a model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_crop_arguments(parser)
    parser.add_argument("--test_sets", nargs="+", default=["test"], help="default: test")
    args = parser.parse_args(argv)
    transcribe = open_for_crops(args)
    if transcribe.model.readout is None:
        parser.error(f"{args.model} has no readout, so that its projectors write no drafts")
    rows = []
    for name in args.test_sets:
        clips, texts = read_clips(args.dump / name, None, transcribe.model)
        for chosen in transcribe.model.task_pairs:
            if chosen.task == transcribe.model.main_task:
                row = measure(transcribe, clips, texts, chosen)
                rows.append([name, str(chosen.pair), *row])
    header = ["set", "rates", "WER of drafts", "of search", "confirmed"]
    header += ["draft, ms", "pass, ms", "search, ms", "WER, surest half"]
    print("\n".join(markdown_table(header, rows, "<<>>>>>>>")))


if __name__ == "__main__":
    main()

"""Measure what reading only the doubtful utterances at fine rates costs and gains.

  mome-measure-cascade --model exp/mome/packed --dump dump --test_sets test test_babble_snr-5 \\
      --output exp/mome/cascade.json

Every utterance is read at the coarsest rates, and those of low confidence again at the finest, by
the same encoders' output. The threshold is chosen on the validation set: the cheapest that reaches
the error rate of the finest rates there. Reports for each test set the WER and the TFLOPs of an
utterance at all fixed rate pairs, of the cascade, and of a cascade that reads as many utterances
again by chance. TFLOPs are those of greedy decoding of a transcript of usual length, for each
utterance by its own length. Writes all thresholds' points as JSON, and a picture beside it.
"""

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np

from mome.analysis import dry_run
from mome.analysis.cascade import Read, by_chance, cascade, choose, curve
from mome.analysis.decoded import read_prepared
from mome.analysis.figures import headless_pyplot, save
from mome.analysis.wer import count_errors, error_rate, normalised_pairs, rate_name, unit_of
from mome.common.command import in_one_line, parser_for, start_log
from mome.common.extras import demand_installed
from mome.common.markdown import markdown_table
from mome.common.memory import naming_batch
from mome.data import test_sets
from mome.data.kaldi import write_text
from mome.models.avsr import AVSRModel
from mome.models.rates import READS, TASKS, RatePair, TaskPair, fineness
from mome.transcribe.clips import Clip
from mome.transcribe.options import Options
from mome.transcribe.prepared import add_crop_arguments, open_for_crops, read_clips
from mome.transcribe.transcriber import Transcriber
from mome.transcribe.transcript import Segment


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for(__doc__)
    add_crop_arguments(parser)
    parser.add_argument(
        "--task", default="avsr", choices=TASKS, help="the task that is read; default: avsr"
    )
    parser.add_argument("--valid_set", default="valid", help="chooses the threshold")
    parser.add_argument("--test_sets", nargs="+", default=["test"], help="default: test")
    parser.add_argument("--beam", type=int, default=1, help="1 is greedy")
    parser.add_argument("--output", type=Path, required=True, help=".json; the picture is .png")
    return parser.parse_args(argv)


class Costs:
    """TFLOPs of encoders and LLM for clips, by their length to the half second.

    Args:
        model: on the meta device.
        task: that is read.
    """

    def __init__(self, model: AVSRModel, task: str):
        self.model, self.task = model, task
        self.known: dict[tuple[str, float], float] = {}

    def __call__(self, pair: RatePair | None, clips: Sequence[Clip]) -> np.ndarray:
        """Of projectors and LLM at a rate pair, or of the encoders, if there is none: (U,)."""
        return np.array([self.of_length(pair, clip.end - clip.start) for clip in clips])

    def of_length(self, pair: RatePair | None, seconds: float) -> float:
        """For a clip of these seconds."""
        seconds = max(0.5, round(2 * seconds) / 2)
        key = str(pair), seconds
        if key not in self.known:
            if pair is None:
                kinds = READS[self.task]
                flops = sum(dry_run.encoder_flops(self.model, kind, seconds) for kind in kinds)
            else:
                flops = dry_run.llm_flops(self.model, TaskPair(self.task, pair), seconds)
            self.known[key] = flops / 1e12
        return self.known[key]


def read_set(
    transcribe: Transcriber, data: Path, chosen: list[TaskPair], costs: Costs, beam: int
) -> tuple[dict[str, Read], np.ndarray, np.ndarray]:
    """Read a set at some rate pairs, the encoders run once.

    Returns:
        rate pair -> what came out, and (U,) words of the references and TFLOPs of the encoders.
    """
    clips, texts = read_clips(data, None, transcribe.model)
    options = Options(beam=beam, batch_size=16)
    heard: dict[TaskPair, list[Segment]] = {each: [] for each in chosen}
    for group in batched(clips, options.batch_size):
        with naming_batch([clip.name for clip in group], "lower --beam"):
            features = transcribe.encode(group, chosen[0].task)
            for each in chosen:
                heard[each] += transcribe.search(group, features, each, options)
    reads = {}
    for each, segments in heard.items():
        names = [f"{number:08}" for number in range(len(clips))]  # their order is that of clips
        said = {name: segment.text for name, segment in zip(names, segments, strict=True)}
        counts = count_errors(normalised_pairs(dict(zip(names, texts, strict=True)), said))
        confidences = np.array([segment.confidence for segment in segments])
        reads[str(each.pair)] = Read(counts[:, :3].sum(1), confidences, costs(each.pair, clips))
    logging.info("%s: %d utterances at %s", data, len(clips), ", ".join(reads))
    return reads, counts[:, 3], costs(None, clips)


@in_one_line("mome-measure-cascade")
def main(argv: list[str] | None = None) -> None:
    """Read the sets, choose the threshold, report."""
    args = parse(argv)
    demand_installed("mome-measure-cascade", "matplotlib")
    start_log()
    transcribe = open_for_crops(args)
    pairs = transcribe.model.pairs.get(args.task)
    if not pairs or len(pairs) < 2:
        raise ValueError(f"{args.model} does not read {args.task} at two rate pairs or more")
    costs = Costs(dry_run.build(transcribe.conf), args.task)
    chosen = [TaskPair(args.task, pair) for pair in sorted(pairs, key=fineness)]
    fine, coarse = str(chosen[0].pair), str(chosen[-1].pair)
    reads, words, encoders = read_set(
        transcribe, args.dump / args.valid_set, [chosen[0], chosen[-1]], costs, args.beam
    )
    wanted = error_rate(reads[fine].errors, words)
    on_valid = choose(curve(reads[coarse], reads[fine], words, encoders), wanted)
    found: dict[str, Any] = {"task": args.task, "beam": args.beam, "coarse": coarse}
    found["unit"] = unit_of(read_prepared(args.dump, args.valid_set, "text").values())
    found |= {"fine": fine, "chosen_on_validation": asdict(on_valid), "sets": {}}
    for name in args.test_sets:
        reads, words, encoders = read_set(transcribe, args.dump / name, chosen, costs, args.beam)
        one, other = reads[coarse], reads[fine]
        point = cascade(one, other, words, encoders, on_valid.threshold)
        fixed = {
            pair: {
                "wer": error_rate(read.errors, words),
                "tflops": float((encoders + read.tflops).mean()),
            }
            for pair, read in reads.items()
        }
        found["sets"][name] = {
            "fixed": fixed,
            "cascade": asdict(point),
            "chance": asdict(by_chance(one, other, words, encoders, point.share)),
            "curve": [asdict(each) for each in curve(one, other, words, encoders)],
        }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.output, json.dumps(found, indent=1) + "\n")
    print("\n".join(table(found)))
    draw(found, args.output.with_suffix(".png"))


def table(found: dict[str, Any]) -> list[str]:
    """Fixed rate pairs, the cascade and one by chance, a row for each and each set."""
    rows = []
    for name, each in found["sets"].items():
        for pair, cost in each["fixed"].items():
            rows.append((name, pair, "", "", f"{cost['wer']:.1f}", f"{cost['tflops']:.4f}"))
        for title, point in (("doubtful", each["cascade"]), ("by chance", each["chance"])):
            again, share = f"{found['fine']}, {title}", f"{point['share']:.2f}"
            costs = f"{point['wer']:.1f}", f"{point['tflops']:.4f}"
            rows.append((name, found["coarse"], again, share, *costs))
    header = ["test set", "read at", "again at", "share", rate_name([found]), "TFLOPs"]
    return markdown_table(header, rows, "<<<>")


def draw(found: dict[str, Any], output: Path) -> None:
    """WER against TFLOPs: a panel for each test set."""
    sets = found["sets"]
    figure, panels = headless_pyplot().subplots(
        1, len(sets), figsize=(3.5 * len(sets), 2.8), squeeze=False
    )
    for panel, (name, each) in zip(panels[0], sets.items(), strict=True):
        curve_of = each["curve"]
        panel.plot(
            [p["tflops"] for p in curve_of], [p["wer"] for p in curve_of], "-", label="cascade"
        )
        ends = [curve_of[0], curve_of[-1]]
        panel.plot([p["tflops"] for p in ends], [p["wer"] for p in ends], ":", label="by chance")
        for marker, (pair, cost) in zip("os^vD*", each["fixed"].items(), strict=False):
            panel.plot(cost["tflops"], cost["wer"], marker, color="black", markersize=5, label=pair)
        chosen = each["cascade"]
        panel.plot(chosen["tflops"], chosen["wer"], "x", color="red", label="chosen on validation")
        panel.set_title(test_sets.parse(name).describe(), fontsize=9)
        panel.set_xlabel("TFLOPs for an utterance")
        highest = max(p["wer"] for p in (*curve_of, *each["fixed"].values()))
        panel.set_ylim(0, 1.08 * highest or 1)  # so that no marker is cut by the edge
    panels[0][0].set_ylabel(f"{rate_name([found])} (%)")
    panels[0][0].legend(fontsize=6)
    figure.tight_layout()
    save(figure, output)
    print(output)


if __name__ == "__main__":
    main()

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
import shlex
import shutil
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from mome.common.command import in_one_line, parser_for, start_log
from mome.common.extras import demand_installed
from mome.common.marks import MODULES, OtherSettings, demand_same, file_digest
from mome.common.yaml_files import read_yaml
from mome.data import test_sets
from mome.data.kaldi import write_text
from mome.models.rates import TaskPair, task_pairs_of
from mome.tasks.checkpoint import check_trained
from mome.tasks.config import namespace
from mome.tasks.data_folders import check_trained_on
from mome.tasks.extensions import import_modules, module_digests
from mome.tasks.transcript_length import default_max_new_tokens

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
    parser.add_argument("--train_set", help="a model that was trained on another set is an error")
    parser.add_argument(
        "--parameters", type=Path, help="file for the model's numbers of parameters, by part"
    )
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
    parser.add_argument(
        "--force",
        choices=("true", "false"),
        default="false",
        help="true decodes anew what is asked for, also with other settings; default: %(default)s",
    )
    parser.add_argument(
        "--batch_size", type=int, default=16, help="utterances at once; default: %(default)s"
    )
    parser.add_argument(
        "--num_workers",
        type=int,
        default=1,
        help="processes that read clips; 0 reads them in this one; default: %(default)s",
    )
    parser.add_argument(
        "--ngpu", type=int, default=0, help="1 decodes on a GPU, 0 on the CPU; default: %(default)s"
    )
    parser.add_argument("--part", type=part, default=(1, 1), metavar="I/N", help="of each set")
    return parser.parse_args(argv)


def part(text: str) -> tuple[int, int]:
    """Parse ``2/8``, the second of eight parts."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} must be I/N with 1 <= I <= N, such as 2/8")
    return int(number), int(count)


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


def not_decoded(
    wanted: Iterable[test_sets.TestSet], task_pairs: list[TaskPair], folders: Collection[Path]
) -> dict[str, list[TaskPair]]:
    """The sets that are not decoded yet, by name, each with the task pairs that are missing.

    Args:
        wanted: the sets asked for.
        task_pairs: of the model, those asked for.
        folders: where a set may be decoded: all of it, or this job's part.
    """
    left: dict[str, list[TaskPair]] = {}
    for test_set in wanted:
        for each in task_pairs:
            if each.task not in test_set.tasks:
                continue
            name = Path(each.task, test_set.name, str(each.pair), "text")
            if any((folder / name).exists() for folder in folders):
                logging.info("%s %s is decoded already", test_set.name, each)
            else:
                left.setdefault(test_set.name, []).append(each)
    return left


@in_one_line("mome-decode")
def main(argv: list[str] | None = None) -> None:
    """Decode what is not decoded yet."""
    args = parse_arguments(argv)
    demand_installed("mome-decode", "espnet2")
    start_log()
    if args.no_repeat_ngram_size < 0:
        raise ValueError(f"--no_repeat_ngram_size {args.no_repeat_ngram_size} must be 0 or more")
    number, count = args.part
    output = args.output if count == 1 else args.output / f"split{count}" / str(number)
    folders = {args.output, output}
    check_trained(args.config)
    config = read_yaml(args.config)
    if args.train_set is not None:
        check_trained_on(args.config, args.train_set)
    check_trained(args.weights)
    task_pairs = task_pairs_of(config["model_conf"], args.rates or ())
    if args.max_new_tokens is None:
        args.max_new_tokens = default_max_new_tokens(config)
    wanted = test_sets.select(args, config["model_conf"].get("tasks", ["avsr"]))
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
    for folder in folders:
        check_decoded(folder, settings, args.dump, args.force == "true")
    # With --force true these are deleted once the model is there.
    left = not_decoded(wanted, task_pairs, () if args.force == "true" else folders)
    # Only what decodes or counts waits for ESPnet.
    if args.parameters and number == 1 and (left or not args.parameters.is_file()):
        from mome.analysis import dry_run
        from mome.analysis.parameters import in_markdown

        import_modules(args.imports)
        # Sizes need no values: nothing is read but configurations.
        lines = in_markdown(dry_run.build(namespace(config)))
        write_text(args.parameters, "\n".join(lines) + "\n")
    if left:
        from mome.tasks.decoding import decode_sets

        command = shlex.join(["python", "-m", "mome.bin.decode", *(argv or sys.argv[1:])])
        decode_sets(args, left, settings, folders, output, command)


if __name__ == "__main__":
    main()

"""What stage 5 has decoded, and the references, for programs that look into errors."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mome.common.json_files import read_json
from mome.common.marks import digest_of
from mome.data import test_sets
from mome.data.kaldi import read_scp
from mome.models.rates import TASKS, fineness, parse_rate_pair

Scores = Mapping[tuple[str, str, str], Mapping[str, float]]  # task, test set, rate pair -> score
REMEDY = "remove it, run stage 5 again"  # of files that cannot be read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of programs that read transcripts: which model's, and where the references are."""
    parser.add_argument("--expdir", type=Path, required=True, help="folder of the model")
    parser.add_argument("--dump", type=Path, required=True, help="folder of the prepared sets")
    parser.add_argument("--decode_tag", default="", help="of a further decoding of the model")


def decode_folder(expdir: Path, tag: str = "") -> Path:
    """Where the transcripts of a model are; ``tag`` is that of a further decoding."""
    return expdir / (f"decode_{tag}" if tag else "decode")


def rate_order(name: str) -> tuple[int, int]:
    """Key that sorts names of rate pairs by audio rate, then video rate."""
    return fineness(parse_rate_pair(name))


def settings_digest(how: Mapping[str, Any]) -> str:
    """What stands beside a score for the settings in the decode.json of what was scored."""
    return digest_of(how.get("settings", {}))


def load_scores(expdir: Path, tag: str = "") -> dict[str, dict[str, Any]]:
    """Error rates as stage 5 has written them: ``<task>/<set>/<rate pair>`` -> score.

    Keys that begin with ``guess/`` are of guesses. Earlier versions wrote no digest of the settings
    beside the scores, which are taken as they are; so are those without transcripts.

    Raises:
        FileNotFoundError: if there are none; names the stage that writes them.
        ValueError: for a file that cannot be read, or conditions that were decoded in another way
            since they were scored; names the file and the remedy.
    """
    path = expdir / f"scores{f'_{tag}' if tag else ''}.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; stage 5 writes it")
    scores = read_json(path, REMEDY)
    decode = decode_folder(expdir, tag)
    for key, score in scores.items():
        scored = score.pop("settings", None)
        if scored and decode.is_dir() and scored != settings_digest(read_how(decode / key)):
            raise ValueError(
                f"{path}: {key} is not decoded, or in another way since it was scored; run stage 5"
                " again"
            )
    return scores


def scores_by_condition(expdir: Path, tag: str = "") -> Scores:
    """The scores that stage 5 wrote.

    Raises:
        FileNotFoundError, ValueError: as of :func:`load_scores`.
    """
    scores = {}
    for key, score in load_scores(expdir, tag).items():
        task, *rest = key.split("/")
        if task in TASKS and len(rest) == 2:
            scores[task, rest[0], rest[1]] = score
    return scores


def read_how(folder: Path) -> dict[str, Any]:
    """How a condition was decoded, by the decode.json in its folder; empty without one.

    Raises:
        ValueError: for a file that cannot be read; names it and the remedy.
    """
    path = folder / "decode.json"
    return read_json(path, REMEDY) if path.is_file() else {}


def read_scores(
    expdir: Path, weights: str, tag: str = ""
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Error rates of a model's test sets, of one checkpoint.

    Args:
        expdir: folder of the model.
        weights: SHA-256 of the checkpoint. What others were decoded with is left out.
        tag: of a further decoding.

    Returns:
        Rows, in the order of tables: ``task``, ``set``, ``rates``, and what
        :class:`mome.analysis.wer.Score` has; and the settings that all were decoded with. Both are
        empty if nothing was scored.

    Raises:
        ValueError: as of :func:`load_scores`.
    """
    try:
        scores = load_scores(expdir, tag)
    except FileNotFoundError:
        scores = {}
    rows, settings = [], {}
    for key, values in scores.items():
        task, _, rest = key.partition("/")
        name, _, pair = rest.partition("/")
        if task not in TASKS:
            continue
        found = read_how(decode_folder(expdir, tag) / key).get("settings", {})
        if found.get("weights") == weights:
            rows.append({"task": task, "set": name, "rates": pair, **values})
            settings = {key: value for key, value in found.items() if key != "test_set"}

    def order(row: dict[str, Any]) -> tuple:
        return TASKS.index(row["task"]), test_sets.parse(row["set"]).order, rate_order(row["rates"])

    return sorted(rows, key=order), settings


def read_prepared(dump: Path, name: str, file: str) -> dict[str, str]:
    """A file of a test set, such as text or lip.scp: utterance -> value.

    Raises:
        FileNotFoundError: if it is not there; names the file and the stage that writes it.
    """
    path = dump / name / file
    if not path.is_file():
        stage = 2 if test_sets.parse(name).base == name else 3
        raise FileNotFoundError(f"{path} does not exist; stage {stage} writes it")
    return read_scp(path)


def read_transcripts(
    decode: Path, task: str, name: str, rates: Sequence[str] = ()
) -> dict[str, dict[str, str]]:
    """Transcripts of a task and a test set: rate pair -> utterance -> hypothesis.

    Args:
        decode: what `decode_folder` gives.
        task: avsr, asr or vsr.
        name: of the test set.
        rates: names of rate pairs, such as v2; none stands for all that are decoded.

    Returns:
        The rate pairs in the order of ``rates``, or else from low rates to high ones.

    Raises:
        FileNotFoundError: if one is not decoded; names the file and the stage that writes it.
        ValueError: for a name that is not one of a rate pair.
    """
    folder = decode / task / name
    found = sorted((path.parent.name for path in folder.glob("*/text")), key=rate_order)
    if not rates and not found:
        raise FileNotFoundError(f"{folder} holds no transcripts; stage 5 writes them")
    transcripts = {}
    for pair in rates or found:
        path = folder / str(parse_rate_pair(pair)) / "text"
        if not path.is_file():
            there = f"; decoded are {', '.join(found)}" if found else ""
            raise FileNotFoundError(f"{path} does not exist; stage 5 writes it{there}")
        transcripts[pair] = read_scp(path)
    return transcripts

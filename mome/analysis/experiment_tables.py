"""What experiments show: word error rates beside a baseline's, and what each method costs."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mome.analysis import dry_run, parameters
from mome.analysis.comparison import compare, errors_by_seed
from mome.analysis.conditions import demand_alike, describe_copies, describe_search
from mome.analysis.decoded import (
    decode_folder,
    rate_order,
    read_how,
    read_prepared,
    read_transcripts,
)
from mome.analysis.experiments import (
    Experiment,
    ExperimentList,
    all_trainings,
    best_rate,
    is_begun,
    is_decoded,
    losses_by_rate,
    read_run,
    trainings,
)
from mome.analysis.wer import rate_name, unit_of
from mome.common.markdown import markdown_table
from mome.common.marks import MODULES
from mome.common.yaml_files import read_yaml
from mome.data import test_sets
from mome.models.rates import TaskPair
from mome.tasks.config import namespace

ALL_PAIRS = "all pairs"
COSTS = ("method", "adapter", "active", "TFLOPs for a clip", "stage 4, min", "memory, GB")


def finished(listed: ExperimentList, experiment: Experiment, expdir: Path) -> dict[int, list[Path]]:
    """Seed -> folders of its models, of the seeds that are decoded at the learning rate chosen."""
    rate = best_rate(listed, experiment, expdir)
    if rate is None:
        return {}
    by_seed = {
        seed: [expdir / each.name for each in trainings(experiment, rate, seed)]
        for seed in listed.seeds
    }
    return {seed: each for seed, each in by_seed.items() if all(map(is_decoded, each))}


def transcripts_of(folders: Sequence[Path], task: str, name: str) -> dict[str, dict[str, str]]:
    """Rate pair -> utterance -> hypothesis of a test set, of the models of one seed together."""
    found: dict[str, dict[str, str]] = {}
    for folder in folders:
        found |= read_transcripts(decode_folder(folder), task, name)
    return found


def hows_of(folders: Sequence[Path], task: str, names: Sequence[str]) -> dict[Path, dict[str, Any]]:
    """Folder of a condition -> how it was decoded, of some models and test sets."""
    texts = (
        path
        for folder in folders
        for name in names
        for path in sorted((decode_folder(folder) / task / name).glob("*/text"))
    )
    return {path.parent: read_how(path.parent) for path in texts}


def describe_decoding(hows: Mapping[Path, Mapping[str, Any]], dump: Path) -> list[str]:
    """What all conditions have in common, in lines for tables; none without conditions.

    Raises:
        mome.common.marks.OtherSettings: if they differ in more than weights and modules, see
            :func:`mome.analysis.conditions.demand_alike`.
    """
    if not hows:
        return []
    settings = {folder: how.get("settings", {}) for folder, how in hows.items()}
    # The limit of tokens comes from the training transcripts, as each LM's tokenizer divides them.
    demand_alike(settings, dump, but=["weights", "max_new_tokens", MODULES])
    first = next(iter(settings.values()))
    search = describe_search(first) if first else "How was not recorded"
    files = sorted({Path(how["weights"]).name for how in hows.values() if "weights" in how})
    weights = ", ".join(f"`{file}`" for file in files)
    copies = describe_copies(dump, [folder.parent.name for folder in hows])
    return [f"{search}. Weights: {weights} of each training.", "", *copies, ""]


def costs(folders: Sequence[Path], task: str, seconds: float) -> dict[str, Any]:
    """Parameters, TFLOPs of a clip at each rate pair, and what training and decoding took.

    Args:
        folders: of the models of one seed.
        task: that they are trained for.
        seconds: length of the clip.
    """
    flops: dict[str, float] = {}
    for folder in folders:
        model = dry_run.build(namespace(read_yaml(folder / "config.yaml")))
        encoders = {kind: dry_run.encoder_flops(model, kind, seconds) for kind in model.rates}
        for pair in model.pairs[task]:
            llm = dry_run.llm_flops(model, TaskPair(task, pair), seconds)
            flops[str(pair)] = float(f"{(llm + sum(encoders.values())) / 1e12:.3g}")
    adapter = {name: counts for name, *counts in parameters.table(model)}["adapter"]
    runs: list[Any] = [read_run(folder) for folder in folders]
    seconds_of, peaks = ([run.get(name) for run in runs] for name in ("seconds", "peak_gigabytes"))
    return {
        "trained": adapter[0] * len(folders),
        "active": adapter[1],
        "tflops": flops,
        # Not known of trainings that were interrupted.
        "training_seconds": None if None in seconds_of else round(sum(seconds_of)),
        "peak_gigabytes": None if None in peaks else max(peaks),
        "revisions": sorted({each for run in runs for each in run["revisions"]}),
    }


def results(
    listed: ExperimentList, experiments: Sequence[Experiment], expdir: Path, dump: Path
) -> dict[str, Any]:
    """All that is known of a list's experiments, in plain values for JSON.

    Raises:
        ValueError: if transcripts do not fit the references.
        mome.common.marks.OtherSettings: if they were not decoded alike, or of other test sets than
            there are now.
    """
    baseline = next(each for each in listed.experiments if each.name == listed.baseline)
    found: dict[str, Any] = {}
    hows: dict[Path, dict[str, Any]] = {}
    of_baseline: dict[tuple[str, str], dict[int, np.ndarray]] = {}
    for experiment in [baseline, *(each for each in experiments if each is not baseline)]:
        losses = losses_by_rate(listed, experiment, expdir)
        # The rate of a list that has one only is not yet that of a training.
        begun = any(is_begun(expdir / each.name) for each in all_trainings(listed, [experiment]))
        row: dict[str, Any] = {
            "title": experiment.title,
            "validation_loss": {f"{rate:g}": round(loss, 4) for rate, loss in losses.items()},
            "learning_rate": best_rate(listed, experiment, expdir) if begun else None,
            "wer": {},
            "wer_of_all_pairs": {},
        }
        by_seed = finished(listed, experiment, expdir)
        row["seeds"] = list(by_seed)
        names = sets_of(by_seed, listed.task)
        if names:
            durations = [*map(float, read_prepared(dump, names[0], "utt2dur").values())]
            row |= costs(next(iter(by_seed.values())), listed.task, float(np.median(durations)))
        hows |= hows_of([f for folders in by_seed.values() for f in folders], listed.task, names)
        for name in names:
            heard = {
                seed: transcripts_of(folders, listed.task, name)
                for seed, folders in by_seed.items()
            }
            references = read_prepared(dump, name, "text")
            row["unit"] = unit_of(references.values())
            pairs = sorted(next(iter(heard.values())), key=rate_order)
            by_pair = {}
            for pair in pairs:
                by_pair[pair], words = errors_by_seed(
                    references, {seed: each[pair] for seed, each in heard.items()}
                )
            # An utterance is drawn with all that was heard of it, at whatever rates.
            by_pair[ALL_PAIRS] = {
                seed: np.sum([by_pair[pair][seed] for pair in pairs], axis=0) for seed in by_seed
            }
            for pair, errors in by_pair.items():
                key = (name, " ".join(pairs) if pair == ALL_PAIRS else pair)
                if experiment is baseline:
                    of_baseline[key] = errors
                other = None if experiment is baseline else of_baseline.get(key)
                if pair == ALL_PAIRS:
                    cell = compare(errors, other, words * len(pairs))
                    row["wer_of_all_pairs"][name] = asdict(cell)
                else:
                    row["wer"].setdefault(name, {})[pair] = asdict(compare(errors, other, words))
        found[experiment.name] = row
    return {
        "task": listed.task,
        "baseline": listed.baseline,
        "decoding": describe_decoding(hows, dump),
        "experiments": found,
    }


def sets_of(by_seed: Mapping[int, Sequence[Path]], task: str) -> list[str]:
    """Names of the test sets that all models of all seeds have decoded, as tables list them."""
    decoded = [
        {path.name for path in (decode_folder(folder) / task).glob("*")}
        for folders in by_seed.values()
        for folder in folders
    ]
    common = set.intersection(*decoded) if decoded else set()
    return sorted(common, key=lambda name: test_sets.parse(name).order)


def sets_in(rows: Collection[Mapping[str, Any]]) -> list[str]:
    """Names of the test sets that any row of `results` has, in the order of tables."""
    names = {name for row in rows for name in row["wer"]}
    return sorted(names, key=lambda name: test_sets.parse(name).order)


def pairs_in(rows: Collection[Mapping[str, Any]], name: str) -> list[str]:
    """The rate pairs at which any row of `results` has a test set, in the order of tables."""
    return sorted({pair for row in rows for pair in row["wer"].get(name, {})}, key=rate_order)


def markdown(found: Mapping[str, Any]) -> str:
    """The tables of `results`."""
    rows = found["experiments"]
    lines = [f"# Experiments, {found['task'].upper()}", ""]
    lines += [
        f"{rate_name(rows.values())} in %: mean over seeds, with their standard deviation, and",
        "below it the difference to",
        f"{rows[found['baseline']]['title']} with its 95 % confidence interval: over utterances,",
        "by a paired bootstrap, and over seeds, by Student's t of the differences seed by seed.",
        "**Bold**: of two seeds or more, the interval leaves out zero. Of one seed it speaks of",
        "these trainings alone.",
        "",
        *found["decoding"],
    ]
    for name in sets_in(rows.values()):
        pairs = pairs_in(rows.values(), name)
        lines += [f"## {test_sets.parse(name).describe()}", ""]
        cells = []
        for row in rows.values():
            if name in row["wer"]:
                of_pairs = [_cell(row["wer"][name].get(pair)) for pair in pairs]
                of_all = _cell(row["wer_of_all_pairs"][name])
                cells.append([row["title"], len(row["seeds"]), *of_pairs, of_all])
        lines += [*markdown_table(["method", "seeds", *pairs, ALL_PAIRS], cells, "<><"), ""]
    lines += ["## Costs", "", "Parameters of the adapter; memory of the host, not of a GPU.", ""]
    costs = []
    for row in rows.values():
        if row["seeds"]:
            flops = ", ".join(f"{pair} {value:g}" for pair, value in row["tflops"].items())
            minutes, peak = row["training_seconds"], row["peak_gigabytes"]
            costs.append(
                [
                    *(row["title"], f"{row['trained']:,}", f"{row['active']:,}", flops),
                    "?" if minutes is None else f"{minutes / 60:.0f}",
                    "?" if peak is None else f"{peak:.1f}",
                ]
            )
    lines += markdown_table(COSTS, costs, "<>><>")
    rates = list(dict.fromkeys(rate for row in rows.values() for rate in row["validation_loss"]))
    losses = []
    for row in rows.values():
        of_row = row["validation_loss"]
        losses.append(
            [row["title"], *(f"{of_row[rate]:.4f}" if rate in of_row else "" for rate in rates)]
        )
    lines += ["", "## Validation loss by learning rate", ""]
    lines += markdown_table(["method", *rates], losses)
    waiting = [row["title"] for row in rows.values() if not row["seeds"]]
    if waiting:
        lines += ["", f"Without results so far: {', '.join(waiting)}."]
    revisions = sorted({r for row in rows.values() for r in row.get("revisions", [])})
    lines += ["", f"Trained by the code of revision {', '.join(revisions) or 'none'}.", ""]
    return "\n".join(lines)


def _cell(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return ""
    spread = "" if cell["spread"] is None else f" ± {cell['spread']:.1f}"
    text = f"{cell['mean']:.1f}{spread}"
    if cell["difference"] is None:
        return text
    low, high = cell["low"], cell["high"]
    difference = f"{cell['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
    clear = (low > 0 or high < 0) and cell["spread"] is not None
    return f"{text}<br>{f'**{difference}**' if clear else difference}"

"""Which task a recording is read by and at which rates, and why.

What can be chosen is what a model was trained for, its ``pairs`` (the rate pairs of each task), and
what was measured of it, the rows ``rates`` in its ``info``, which is mome.json of the packed model.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mome.analysis.wer import rate_name
from mome.models.rates import READS, RatePair, TaskPair, fineness, parse_rate_pair
from mome.tasks.data_folders import streams_of
from mome.transcribe.options import Options

Pairs = Mapping[str, Sequence[RatePair]]
Info = Mapping[str, Any]


def choose(task: str, options: Options, pairs: Pairs, info: Info) -> TaskPair:
    """The task at the rates asked for, the best within the budget, or the finest.

    Raises:
        ValueError: for what the model was not trained for, or a budget that nothing meets.
    """
    if task not in pairs:
        raise ValueError(f"this model knows {', '.join(pairs)}, not {task}")
    rates = options.rates
    if rates is None and options.budget is not None:
        return TaskPair(task, parse_rate_pair(within(task, options, info)["rates"]))
    if rates is None:
        return finest(task, pairs)
    wanted = parse_rate_pair(rates)
    # a4_v2 asks for audio at 4 where there is no video.
    wanted = RatePair(
        wanted.audio if "audio" in READS[task] else None,
        wanted.video if "video" in READS[task] else None,
    )
    if wanted not in pairs[task]:
        raise ValueError(
            f"{task} was not trained at {rates}; this model knows "
            f"{', '.join(str(pair) for pair in pairs[task])}"
        )
    return TaskPair(task, wanted)


def finest(task: str, pairs: Pairs) -> TaskPair:
    """A task at its finest rates."""
    return TaskPair(task, min(pairs[task], key=fineness))


def coarsest(task: str, pairs: Pairs) -> TaskPair:
    """A task at its coarsest rates."""
    return TaskPair(task, max(pairs[task], key=fineness))


def within(task: str, options: Options, info: Info) -> Mapping[str, Any]:
    """The row of a task with the lowest error rate within the budget, the cheapest of equals.

    With a cascade, all is read at the coarsest rates first, which counts.

    Raises:
        ValueError: if none keeps to the budget, or nothing was measured.
    """
    budget, cascade = options.budget, options.cascade is not None
    assert budget is not None, "there is a budget where this is called"
    rows = [row for row in info.get("rates", []) if row["task"] == task]
    coarse = None
    if cascade and rows:
        coarse = max(rows, key=lambda row: fineness(parse_rate_pair(row["rates"])))
    costs = {row["rates"]: budget.cost(row, coarse) for row in rows}
    cheap = [row for row in rows if costs[row["rates"]] <= budget.limit]
    if not cheap:
        known = ", ".join(f"{rates} {cost:g}" for rates, cost in costs.items())
        raise ValueError(
            f"{task}: no rates keep to {budget.limit:g} {budget.unit}"
            f"{' of a cascade' if cascade else ''}; there are {known or 'none that were measured'}"
        )
    return min(cheap, key=lambda row: (row["wer"], costs[row["rates"]]))


def usable(options: Options, pairs: Pairs, info: Info) -> list[str]:
    """The tasks that may be used, by the options and by what was trained.

    Raises:
        ValueError: if there is none; says why.
    """
    tasks = list(pairs) if options.task == "auto" else [options.task]
    found, errors = [], []
    for task in tasks:
        try:
            choose(task, options, pairs, info)
            found.append(task)
        except ValueError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return found


def limits(tasks: Sequence[str], pairs: Pairs) -> str:
    """Why nothing but these tasks is done, in words."""
    if len(tasks) < len(pairs):
        return f"the options allow {' and '.join(tasks)} alone"
    return f"the model was trained for {' and '.join(tasks)} alone"


def task_of(streams: Collection[str], tasks: Sequence[str]) -> str | None:
    """The one of the tasks that reads most of a segment's streams; None if none can."""
    possible = [task for task in tasks if set(streams).issuperset(streams_of([task]))]
    return max(possible, key=lambda task: (len(READS[task]), task == "asr"), default=None)


def why(task: str, options: Options, pairs: Pairs, info: Info) -> list[str]:
    """In words, why a task was done at its rates, unless they were named."""
    notes = []
    chosen = choose(task, options, pairs, info)
    if options.rates is None and options.budget is not None:
        row = within(task, options, info)
        limit, unit = options.budget.limit, options.budget.unit.replace("_", " ")
        notes.append(
            f"{chosen}: {row['wer']} % {rate_name([row])} on {info['measured']}, the best "
            f"within {limit:g} {unit} of encoders and search"
            f"{' with the coarse pass' if options.cascade is not None else ''}"
        )
    elif options.rates is None:
        notes.append(f"{chosen}, the finest rates")
    coarse = coarsest(task, pairs)
    if options.cascade is not None and coarse != chosen:
        notes.append(
            f"{coarse} first, {chosen.pair} where the confidence was below {options.cascade:g}"
        )
    return notes

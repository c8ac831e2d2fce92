"""Train, decode and compare a named list of experiments, over several seeds, within a budget.

  egs/grid/experiments.sh --hours 8 &> experiments.log &

The list is a YAML file that holds

  baseline: name of the experiment that the others are compared with
  task: avsr, asr or vsr
  learning_rates: every experiment is trained at each of them with the first seed; the others take
    the rate whose validation loss was lowest at the end. Nothing is chosen on a test set
  seeds: of the trainings; all have the same warm start
  common: configuration that all experiments share, beside conf/train.yaml
  experiments: name -> {title, conf: what it changes, run_opts: list of further options of run.sh,
    model_per_pair: true for a model for each rate pair}

First come all experiments at the first learning rate, then the other rates, then the other seeds,
so that whatever the budget, the comparison is as wide as it can be. Each training is a folder
<expdir>/experiments/<name>/lr<rate>_seed<seed>; what is finished is kept and what was interrupted
goes on, so the same command goes on after a budget is used up or a machine was lost. No training
begins that is not expected to end within the budget, by the mean of those before it.

Writes RESULTS.md and results.json to <expdir>/experiments after every training; --report_only true
does only that. What follows `--` are options of run.sh for all experiments, such as
-- --snrs -5 --beam 1.
"""

import argparse
import json
import os
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from mome.analysis.experiment_tables import markdown, results
from mome.analysis.experiments import (
    Experiment,
    ExperimentList,
    Training,
    all_trainings,
    is_trained,
    left,
    read_list,
    trainings_left,
)
from mome.bin.run_once import config_settings
from mome.common.atomic_files import write_bytes
from mome.common.marks import OtherSettings, demand_same


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", type=Path, default=Path(), help="folder of run.sh")
    parser.add_argument("--list", type=Path, default=Path("conf/experiments.yaml"))
    parser.add_argument("--train_config", type=Path, default=Path("conf/train.yaml"))
    parser.add_argument("--only", nargs="+", default=[], help="names of experiments; default: all")
    parser.add_argument("--hours", type=float, default=8.0, help="budget of this call")
    parser.add_argument("--expdir", type=Path, default=Path("exp"))
    parser.add_argument("--dumpdir", type=Path, default=Path("dump"))
    parser.add_argument("--report_only", choices=("true", "false"), default="false")
    parser.add_argument("run_opts", nargs="*", help="after --: options of run.sh")
    return parser.parse_args(argv)


def revision(recipe: Path) -> str:
    """The commit of the code, with a mark if it was changed since."""
    command = ["git", "-C", str(recipe), "describe", "--always", "--dirty", "--abbrev=10"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def settings_of(training: Training, args: argparse.Namespace) -> dict[str, object]:
    """What decides the result of a training, beside the code."""
    further = [*training.experiment.run_opts, *args.run_opts]
    return {"task": args.task, "run_opts": further, **config_settings(training.conf)}


def command_line(training: Training, args: argparse.Namespace) -> dict[str, object]:
    """Options of run.sh that the runner gives.

    Raises:
        ValueError: if they are given for it too.
    """
    options = {
        "tasks": args.task,
        "dumpdir": args.dumpdir.resolve(),
        "expdir": args.expdir.resolve(),
        "tag": f"experiments/{training.name}",
        "train_config": args.expdir.resolve() / "experiments" / training.name / "train.yaml",
        "train_opts": f"--seed {training.seed}",
    }
    given = {*training.experiment.run_opts, *args.run_opts}
    if clash := given & {f"--{name}" for name in (*options, "stage", "stop_stage")}:
        raise ValueError(f"{min(clash)} cannot be given to run.sh: experiments differ in it")
    return {name: str(value) for name, value in options.items()}


def check_unchanged(trainings: Iterable[Training], args: argparse.Namespace) -> None:
    """See that what is trained already was asked for as it is asked for now.

    Raises:
        OtherSettings: for a training of other settings.
    """
    for training in trainings:
        notes = args.expdir / "experiments" / training.name / "run.json"
        if notes.is_file():
            before = json.loads(notes.read_text(encoding="utf-8"))["settings"]
            demand_same(notes.parent, before, settings_of(training, args), "--expdir")


def run(training: Training, decode: bool, args: argparse.Namespace) -> None:
    """Train, or decode and score, by the recipe; note what training took.

    Raises:
        RuntimeError: if the recipe fails; names its log.
    """
    folder = args.expdir.resolve() / "experiments" / training.name
    folder.mkdir(parents=True, exist_ok=True)
    config, log, notes = folder / "train.yaml", folder / "run.log", folder / "run.json"
    config.write_text(yaml.safe_dump(training.conf, sort_keys=False), encoding="utf-8")
    what: dict[str, object] = {"settings": settings_of(training, args)}
    resumed = notes.is_file()
    if not decode and not resumed:
        what["revision"] = revision(args.recipe)
        notes.write_text(json.dumps(what) + "\n", encoding="utf-8")
    stage = 5 if decode else 4
    command = ["./run.sh", "--stage", str(stage), "--stop_stage", str(stage)]
    command += [w for k, v in command_line(training, args).items() for w in (f"--{k}", str(v))]
    command += [*training.experiment.run_opts, *args.run_opts]
    started = time.perf_counter()
    with open(log, "a", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, cwd=args.recipe, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise RuntimeError(
            f"{training.name} failed ({lines[-1] if lines else 'no word'}); see {log}"
        )
    if not decode and not resumed:  # of one that was interrupted, the whole is not known
        what["seconds"] = round(time.perf_counter() - started, 1)
        # Linux gives kilobytes, of the largest process.
        what["peak_gigabytes"] = round(usage.ru_maxrss * 1024 / 1e9, 2)
        write_bytes(notes, (json.dumps(what) + "\n").encode())


def write_report(
    listed: ExperimentList, chosen: Sequence[Experiment], args: argparse.Namespace
) -> Path:
    """Write results.json and RESULTS.md of what is finished.

    Returns:
        the path of the table.
    """
    folder = args.expdir / "experiments"
    folder.mkdir(parents=True, exist_ok=True)
    found = results(listed, chosen, folder, args.dumpdir)
    write_bytes(folder / "results.json", (json.dumps(found, indent=1) + "\n").encode())
    write_bytes(folder / "RESULTS.md", markdown(found).encode())
    return folder / "RESULTS.md"


def main(argv: list[str] | None = None) -> None:
    """Work off the list."""
    args = parse(argv)
    folder = args.expdir / "experiments"
    started = time.monotonic()
    spent: list[float] = []  # seconds of each training that this call has done
    try:
        listed = read_list(args.list, args.train_config)
        args.task = listed.task
        chosen = listed.only(args.only)
        check_unchanged(all_trainings(listed, chosen), args)
        while args.report_only == "false" and (todo := left(listed, chosen, folder)):
            training, decode = todo[0]
            waiting = trainings_left(listed, chosen, folder)
            expected = sum(spent) / len(spent) if spent else 0.0
            used = time.monotonic() - started
            if used + expected > 3600 * args.hours:
                print(
                    f"budget of {args.hours:g} h used up: {waiting} trainings are left", flush=True
                )
                break
            estimate = f", some {waiting * expected / 60:.0f} min" if spent else ""
            what = "decoding" if is_trained(folder / training.name) else "training"
            print(
                f"{time.strftime('%H:%M:%S')} {what} {training.name}; {waiting} trainings are "
                f"left{estimate}",
                flush=True,
            )
            begun = time.monotonic()
            run(training, decode, args)
            if what == "training":
                spent.append(time.monotonic() - begun)
            write_report(listed, chosen, args)
        print(write_report(listed, chosen, args).read_text(encoding="utf-8"))
    except (OtherSettings, FileNotFoundError, ValueError, RuntimeError) as error:
        raise SystemExit(f"mome-run-experiments: {error}") from None


if __name__ == "__main__":
    main()

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
    model_per_pair: true for a model for each rate pair, learning_rates: its own}
  base: another list beside it, which gives whatever this one leaves out, but no experiments

First come all experiments at the first learning rate, then the other rates, then the other seeds,
so that whatever the budget, the comparison is as wide as it can be. Each training is a folder
<expdir>/experiments/<name>/lr<rate>_seed<seed>; what is finished is kept and what was interrupted
goes on, so the same command goes on after a budget is used up or a machine was lost. No training
begins that is not expected to end within the budget, by the mean of those before it.

With --jobs 8 eight of them run side by side, on the GPUs that are there in turns. The first runs
alone until its own training begins, as it may have to make the warm start that all share.

Writes RESULTS.md, results.json and two pictures, wer (at each rate pair) and parameters (against
active ones), as .png and .svg, to <expdir>/experiments now and then and at the end; --report_only
true does only that. An experiment that fails is left out from then on, and named at the end.
What follows `--` are options of run.sh for all experiments, such as -- --snrs -5 --beam 1. Those of
training, as in -- --train_opts "--decoder_conf gradient_checkpointing=true", and an experiment's
own are given together. Options that change no result, as this one, may differ from those that the
trainings were begun with.
"""

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import yaml

from mome.analysis.experiment_figure import draw
from mome.analysis.experiment_options import command_line, is_option, pairs_of, settings_of
from mome.analysis.experiment_tables import markdown, results
from mome.analysis.experiments import (
    Experiment,
    ExperimentList,
    Training,
    all_trainings,
    is_begun,
    is_decoded,
    is_trained,
    left,
    read_list,
    read_run,
    trainings_left,
)
from mome.common.atomic_files import write_bytes
from mome.common.command import in_one_line, parser_for
from mome.common.extras import demand_installed
from mome.common.marks import differences, read_mark
from mome.common.processes import default_jobs

REPORT_SECONDS = 60  # between two reports on the way
GRACE_SECONDS = 20  # for what is stopped to end by itself


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--recipe", type=Path, default=Path(), help="folder of run.sh")
    parser.add_argument(
        "--list",
        type=Path,
        default=Path("conf/experiments.yaml"),
        help="the list; default: conf/experiments.yaml",
    )
    parser.add_argument(
        "--train_config",
        type=Path,
        default=Path("conf/train.yaml"),
        help="what all trainings begin from; default: conf/train.yaml",
    )
    parser.add_argument("--only", nargs="+", default=[], help="names of experiments; default: all")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[], help="of the list; default: all"
    )
    parser.add_argument("--hours", type=float, default=8.0, help="budget of this call")
    parser.add_argument("--jobs", type=int, default=1, help="trainings or decodings side by side")
    parser.add_argument("--expdir", type=Path, default=Path("exp"), help="default: exp")
    parser.add_argument("--dumpdir", type=Path, default=Path("dump"), help="default: dump")
    parser.add_argument(
        "--report_only",
        choices=("true", "false"),
        default="false",
        help="true: only write the tables of what is there",
    )
    parser.add_argument("run_opts", nargs="*", help="after --: options of run.sh")
    args = parser.parse_args(argv)
    if args.jobs < 1:
        parser.error(f"--jobs {args.jobs}: at least one is needed")
    args.folder = args.expdir.resolve() / "experiments"
    return args


def revision(recipe: Path) -> str:
    """The commit of the code, with a mark if it was changed since."""
    command = ["git", "-C", str(recipe), "describe", "--always", "--dirty", "--abbrev=10"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def check_unchanged(trainings: Iterable[Training], args: argparse.Namespace) -> None:
    """See that what is trained was asked for as it is asked for now, and from the same inputs.

    Raises:
        ValueError: for a training of other settings or inputs; says what differs.
    """
    inputs: dict[str, object] = {}
    for training in trainings:
        folder = args.folder / training.name
        begun = (folder / "checkpoint.pth").is_file() or is_trained(folder)
        if not begun or not is_begun(folder):
            continue
        before = read_run(folder)["settings"]
        now = settings_of(training, args)
        if args.report_only == "true":  # which needs no options of run.sh
            now = {name: value for name, value in now.items() if not is_option(name)}
            now |= {name: value for name, value in before.items() if is_option(name)}
        mark = read_mark(folder / ".done") or {"settings": {}}
        read = {k: v for k, v in mark["settings"].items() if k.startswith("input ")}
        shared = {name: value for name, value in inputs.items() if name in read}
        lines = differences(before, now)
        lines += differences({name: read[name] for name in shared}, shared)
        if lines:
            raise ValueError(
                f"{folder} was trained with other settings or inputs than are asked for now:\n  "
                + "\n  ".join(lines)
                + "\nRemove it to train it again, or give another --expdir."
            )
        inputs |= read


class Processes:
    """The process groups that the runner has started, which end with it.

    Args:
        lock: file descriptor of the folder's lock, which they hold as well.
    """

    def __init__(self, lock: int):
        self.lock = lock
        self.groups: set[int] = set()
        self.stopping = False
        self.changing = threading.Lock()

    def run(self, command: Sequence[str], **options: Any) -> tuple[int, float]:
        """Run a command in a group of its own: its exit status and the kilobytes it took at most.

        Raises:
            RuntimeError: if the runner is being stopped.
        """
        with self.changing:
            if self.stopping:
                raise RuntimeError("not begun: the runner is being stopped")
            process = subprocess.Popen(
                command, start_new_session=True, pass_fds=(self.lock,), **options
            )
            self.groups.add(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        with self.changing:
            self.groups.discard(process.pid)
        return process.returncode, usage.ru_maxrss

    def stop(self) -> None:
        """End all of them, by force if they take long; none begins any more."""
        with self.changing:
            self.stopping = True
        for number in (signal.SIGTERM, signal.SIGKILL):
            for group in list(self.groups):
                with suppress(ProcessLookupError):  # it has just ended
                    os.killpg(group, number)
            ends = time.monotonic() + GRACE_SECONDS
            while self.groups and time.monotonic() < ends:
                time.sleep(0.1)


def run(
    training: Training,
    args: argparse.Namespace,
    processes: Processes,
    environment: dict[str, str],
) -> None:
    """Train, or decode and score what is trained, by the recipe; note what training took.

    Args:
        training: what to do next.
        args: of the command line.
        processes: that the recipe's are added to.
        environment: variables of those processes.

    Raises:
        RuntimeError: if the recipe fails, or does not do what it was asked to; names its log.
    """
    folder = args.folder / training.name
    if is_trained(folder):
        run_stage(5, training, args, processes, environment, is_decoded)
        return
    folder.mkdir(parents=True, exist_ok=True)
    notes = folder / "run.json"
    what: dict[str, Any] = {"settings": settings_of(training, args), "revisions": []}
    resumed = (folder / "checkpoint.pth").is_file() and notes.is_file()
    if resumed:
        what["revisions"] = read_run(folder)["revisions"]
    what["revisions"].append(revision(args.recipe))
    (folder / "scores.json").unlink(missing_ok=True)  # of an older training
    write_bytes(notes, (json.dumps(what) + "\n").encode())
    config = yaml.safe_dump(training.conf, sort_keys=False)
    write_bytes(folder / "train.yaml", config.encode())
    took = run_stage(4, training, args, processes, environment, is_trained)
    if not resumed:  # of one that was interrupted, the whole is not known
        write_bytes(notes, (json.dumps(what | took) + "\n").encode())


def run_stage(
    stage: int,
    training: Training,
    args: argparse.Namespace,
    processes: Processes,
    environment: dict[str, str],
    is_done: Callable[[Path], bool],
) -> dict[str, float]:
    """Run a stage of the recipe: its seconds and the memory of its largest process.

    Raises:
        RuntimeError: if it fails, or what it should make is not there; names its log.
    """
    folder = args.folder / training.name
    log = folder / "run.log"
    command = ["./run.sh", "--stage", str(stage), "--stop_stage", str(stage)]
    command += [w for k, v in command_line(training, args).items() for w in (f"--{k}", v)]
    started = time.perf_counter()
    with open(log, "a", encoding="utf-8") as output:
        code, peak = processes.run(
            command, cwd=args.recipe, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    if code or not is_done(folder):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise RuntimeError(
            f"{training.name} failed ({lines[-1] if lines else 'no word'}); see {log}"
        )
    return {
        "seconds": round(time.perf_counter() - started, 1),
        # Linux gives kilobytes.
        "peak_gigabytes": round(peak * 1024 / 1e9, 2),
    }


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold a folder against another runner, also while processes of a killed one go on.

    Raises:
        ValueError: if another runner, or what it has started, is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: other experiments are running there") from None
        yield file.fileno()


def write_report(
    listed: ExperimentList, chosen: Sequence[Experiment], args: argparse.Namespace
) -> Path:
    """Write results.json, RESULTS.md and the pictures wer and parameters of what is finished.

    Returns:
        the path of the table.
    """
    args.folder.mkdir(parents=True, exist_ok=True)
    found = results(listed, chosen, args.folder, args.dumpdir)
    write_bytes(args.folder / "results.json", (json.dumps(found, indent=1) + "\n").encode())
    write_bytes(args.folder / "RESULTS.md", markdown(found).encode())
    draw(found, args.folder)
    return args.folder / "RESULTS.md"


@in_one_line("mome-run-experiments", RuntimeError)
def main(argv: list[str] | None = None) -> None:
    """Work off the list."""
    args = parse(argv)
    demand_installed("mome-run-experiments", "matplotlib")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    listed = read_list(args.list, args.train_config)
    args.task = listed.task
    chosen = listed.only(args.only)
    args.seeds = listed.only_seeds(args.seeds)
    asked = all_trainings(listed, chosen)
    for training in asked if args.report_only == "false" else []:
        command_line(training, args)  # raises its errors before hours have passed
    check_unchanged(asked, args)
    if args.report_only == "false":
        with locked(args.folder) as lock:
            work(listed, chosen, args, lock)
    print(write_report(listed, chosen, args).read_text(encoding="utf-8"))


def environments(jobs: int, ngpu: int) -> list[dict[str, str]]:
    """Variables of each job's processes: of several, each has its GPUs and its share of cores.

    Args:
        jobs: side by side.
        ngpu: GPUs of a job. More jobs than there are GPUs for take them in turns.

    Raises:
        ValueError: if a job asks for more GPUs than there are.
    """
    if jobs == 1:
        return [dict(os.environ)]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [*map(str, range(torch.cuda.device_count()))]
    if ngpu > len(gpus):
        raise ValueError(f"--ngpu {ngpu}: this machine has {len(gpus)} GPUs")
    # Processes that take all cores each slow each other more than those cores help.
    threads = str(max(1, default_jobs() // jobs))
    found = []
    for job in range(jobs):
        variables = {"OMP_NUM_THREADS": threads, **os.environ}
        if ngpu:
            own = (gpus[(job * ngpu + index) % len(gpus)] for index in range(ngpu))
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(own)
        found.append(variables)
    return found


def wait_until_begun(work: Future, folder: Path) -> None:
    """Wait until a training itself begins, after what all trainings share, or has failed."""
    while not (folder / "config.yaml").is_file() and not wait([work], timeout=0.5).done:
        pass


def finished(busy: Iterable[Future]) -> set[Future]:
    """Those that are done, as soon as there is one.

    Asks again every second: Python notices a signal between two steps of its main thread, and one
    that comes just before a wait without end would be noticed only after it.
    """
    while not (done := wait(busy, timeout=1, return_when=FIRST_COMPLETED).done):
        pass
    return done


def work(
    listed: ExperimentList, chosen: Sequence[Experiment], args: argparse.Namespace, lock: int
) -> None:
    """Train and decode until all is done or the budget is used up.

    Raises:
        RuntimeError: at the end, with all that have failed, whose experiments are left out from
            then on; before it if nothing succeeds and two experiments fail.
        ValueError: see `environments` and `command_line`.
    """
    started = reported = time.monotonic()
    spent: list[float] = []  # seconds of each training that this call has done
    free = environments(args.jobs, int(dict(pairs_of(args.run_opts)).get("ngpu", 0)))
    busy: dict[Future, tuple[Training, bool, dict[str, str], float]] = {}
    failed: dict[str, str] = {}  # experiment -> what was said
    done = 0

    def remaining() -> list[Training]:
        names = {training.name for training, *_ in busy.values()}
        todo = left(listed, chosen, args.folder, args.seeds)
        return [t for t in todo if t.name not in names and t.experiment.name not in failed]

    processes = Processes(lock)
    with stopping_all(processes, args.jobs) as pool:
        while True:
            # What has failed meanwhile is not begun with another seed.
            todo = remaining() if free and not any(future.done() for future in busy) else []
            expected = sum(spent) / len(spent) if spent else 0.0
            if todo and time.monotonic() - started + expected <= 3600 * args.hours:
                training = todo[0]
                trained = is_trained(args.folder / training.name)
                waiting = trainings_left(listed, chosen, args.folder, args.seeds)
                estimate = f", some {waiting * expected / args.jobs / 60:.0f} min" if spent else ""
                print(
                    f"{time.strftime('%H:%M:%S')} {'decoding' if trained else 'training'} "
                    f"{training.name}; {waiting} trainings are left{estimate}",
                    flush=True,
                )
                environment = free.pop()
                future = pool.submit(run, training, args, processes, environment)
                if not busy and not done:
                    wait_until_begun(future, args.folder / training.name)
                busy[future] = (training, trained, environment, time.monotonic())
                continue
            if not busy:
                break
            for future in finished(busy):
                training, trained, environment, begun = busy.pop(future)
                free.append(environment)
                error = future.exception()
                if error is None:
                    done += 1
                    if not trained:
                        spent.append(time.monotonic() - begun)
                elif isinstance(error, (RuntimeError, OSError)):
                    # The rest of a night is worth more than to stop at one that fails.
                    print(error, flush=True)
                    failed[training.experiment.name] = str(error)
                else:
                    raise error
            if len(failed) > 1 and not done and not busy:
                break
            if time.monotonic() - reported > REPORT_SECONDS:
                try:
                    write_report(listed, chosen, args)
                except Exception as error:  # it is written again at the end, when nothing is lost
                    print(f"the report is not written now: {error!r}", flush=True)
                reported = time.monotonic()
    if failed:
        write_report(listed, chosen, args)
        raise RuntimeError("\n".join(failed.values()))
    if remaining():
        waiting = trainings_left(listed, chosen, args.folder, args.seeds)
        print(f"budget of {args.hours:g} h used up: {waiting} trainings are left", flush=True)


@contextmanager
def stopping_all(processes: Processes, jobs: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for so many jobs; what is at work is stopped if the runner is stopped or fails."""
    pool = ThreadPoolExecutor(jobs)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        processes.stop()
        raise
    pool.shutdown()


if __name__ == "__main__":
    main()

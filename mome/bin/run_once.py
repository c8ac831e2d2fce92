"""Run a command unless its mark says that it has succeeded with the same settings.

  python -m mome.bin.run_once --mark dump/test/.done -- python -m mome.bin.prepare_media ...

Settings are the options of the command, the content of the YAML file that its --config names, and
what the marks of its inputs (--needs) hold. With the same settings nothing is done, and with others
it is an error that shows the difference; with --force true the work is done again in either case.
So is it with raw files that are others now (--sources: of a folder, names and sizes of all below),
but what was made from the work is not in doubt if the same comes of them.
Options that change no result, such as --nj, do not count, nor does a launcher before the command:
what counts comes after the last `--`. Of modules that the command or its configuration imports the
files' content counts (--modules_of: of those that another configuration imports). Output goes to
the log beside the mark as well.

With --valid FOLDER... the work is finished when these data folders are valid. If they are not, the
next call looks whether they have been repaired, and otherwise does the work again.
"""

import logging
import os
import shlex
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from mome.common.command import in_one_line, parser_for
from mome.common.marks import (
    MODULES,
    SOURCE,
    fingerprint,
    is_done,
    is_made,
    read_mark,
    write_mark,
)
from mome.common.training_log import Follower
from mome.common.yaml_files import read_yaml
from mome.tasks.config import command_settings, relative
from mome.tasks.extensions import module_digests

LAST_LINES = 30  # of a training that failed, which are shown


def kept_sources(mark: Path, settings: Mapping[str, object]) -> dict[str, object]:
    """What a mark says of raw files that are not compared now, as where a disk is not mounted."""
    made = read_mark(mark)
    known = made["settings"] if made else {}
    return {k: v for k, v in known.items() if k.startswith(SOURCE) and k not in settings}


def are_valid(folders: list[str], log: Path) -> bool:
    """Whether data folders are valid; what is wrong with them is shown and added to the log."""
    if not folders:
        return True
    # Other work does not wait for what reads audio and video.
    from mome.data.kaldi import findings, validate_data_dir

    found = {folder: validate_data_dir(folder) for folder in folders}
    said = "".join(f"{findings(Path(folder), each)}\n" for folder, each in found.items())
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file:
        file.write(said.encode(errors="surrogateescape"))
    print(said, end="", flush=True)
    return not any(found.values())


def unfinished(marks: list[str]) -> list[str]:
    """Those of some marks and other files whose work was begun and is not finished."""
    found = {path: read_mark(path) for path in marks if path.endswith(".done")}
    return [path for path, mark in found.items() if mark and mark["state"] != "done"]


def terminate(pid: int) -> None:
    """Send SIGTERM to a process and to all that it has started, such as those of other GPUs."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        # Listed before it ends: afterwards nothing says whose they were.
        for each in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                each.terminate()


def run_logged(command: list[str], log: Path, show: str, steps: int | None = None) -> int:
    """Run a command with its output appended to a log and shown here: its exit status.

    Args:
        command: program and arguments.
        log: file that all output is added to.
        show: ``all`` that it writes, or ``progress`` of a training and, if that fails, the end.
        steps: of an epoch of that training, if known.
    """
    condense = Follower(steps)
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        open(log, "ab") as file,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process,
    ):
        signal.signal(signal.SIGTERM, lambda *_: terminate(process.pid))
        # By pieces, not lines: a progress bar rewrites its line many times before it ends it.
        assert process.stdout is not None
        begun = b""  # a line that has not ended yet
        last: deque[str] = deque(maxlen=LAST_LINES)
        while piece := os.read(process.stdout.fileno(), 1 << 16):
            file.write(piece)
            file.flush()
            if show == "all":
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
                continue
            *lines, begun = (begun + piece).split(b"\n")
            for line in (each.decode(errors="replace") for each in lines):
                last.append(line.rsplit("\r", 1)[-1])
                if (progress := condense(line)) is not None:
                    print(progress, flush=True)
        code = process.wait()
        if code and show == "progress":
            print("\n".join([*last, begun.decode(errors="replace")]), flush=True)
        return code


def steps_of(settings: Mapping[str, object]) -> int | None:
    """How many steps an epoch of a training has, if its command or its configuration says so."""
    given = settings.get("configuration num_iters_per_epoch")
    steps = settings.get("--num_iters_per_epoch", given)
    return int(str(steps)) if str(steps).isdecimal() else None


@in_one_line("mome-run-once")
def main(argv: list[str] | None = None) -> None:
    """Compare, run and mark."""
    parser = parser_for(__doc__)
    parser.add_argument("--mark", type=Path, required=True, help="e.g. dump/test/.done")
    parser.add_argument("--needs", nargs="*", default=[], help="marks or files of its inputs")
    parser.add_argument(
        "--sources",
        nargs="*",
        default=[],
        help="raw files or folders of them; what is not named is taken to be as it was",
    )
    parser.add_argument(
        "--modules_of", type=Path, help="configuration that names modules which the command imports"
    )
    parser.add_argument(
        "--checkpoint", type=Path, help="unfinished work that has this file goes on from it"
    )
    parser.add_argument(
        "--elsewhere", default="folder", help="options that put other work beside this"
    )
    parser.add_argument(
        "--show", choices=("all", "progress"), default="all", help="of the output; the log has all"
    )
    parser.add_argument(
        "--valid", nargs="*", default=[], help="data folders that must be valid afterwards"
    )
    parser.add_argument(
        "--forget", type=Path, help="record of finished parts; --force true deletes it"
    )
    parser.add_argument(
        "--force",
        choices=("true", "false"),
        default="false",
        help="true runs the command anew, whatever is finished; default: %(default)s",
    )
    argv = sys.argv[1:] if argv is None else argv
    first = argv.index("--") if "--" in argv else len(argv)
    args = parser.parse_args(argv[:first])
    command = argv[first + 1 :]
    if not command:
        parser.error("a command must follow --")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if inputs_left := unfinished(args.needs):
        raise SystemExit(
            f"{', '.join(inputs_left)}: that work was begun and is not finished, and {args.mark}"
            f" needs it; run its stage again"
        )
    # exp/mome/.done -> exp/mome/log, exp/mome/.packed.done -> exp/mome/packed.log
    what = args.mark.name.removesuffix(".done").lstrip(".")
    log = args.mark.with_name(f"{what}.log" if what else "log")
    force = args.force == "true"
    settings = command_settings(command)
    named = args.modules_of and args.modules_of.is_file()
    if named and (names := read_yaml(args.modules_of).get("imports")):
        settings[MODULES] = module_digests(names)
    for name, paths in (("input ", args.needs), (SOURCE, args.sources)):
        settings |= {f"{name}{relative(path)}": fingerprint(path) for path in paths}
    settings |= kept_sources(args.mark, settings)
    done = is_done(args.mark, settings, args.elsewhere, force, args.checkpoint)
    if done:
        logging.info("done already: %s", args.mark)
    elif not force and is_made(args.mark, settings) and are_valid(args.valid, log):
        write_mark(args.mark, settings)
        return
    else:
        if force and args.forget:
            args.forget.unlink(missing_ok=True)
        write_mark(args.mark, settings, "started")
        if run_logged(command, log, args.show, steps_of(settings)):
            logging.error(
                "failed: %s; see %s; the same command goes on from there%s",
                *(shlex.join(command), log, ", without --force true" if force else ""),
            )
            raise SystemExit(1)
        write_mark(args.mark, settings, "made")
    if not are_valid(args.valid, log):
        write_mark(args.mark, settings, "made")
        raise SystemExit(
            f"what {args.mark} marks is not valid, see above: fix what writes it, or repair the"
            f" folder, and run the same command again"
        )
    if not done:
        write_mark(args.mark, settings)


if __name__ == "__main__":
    main()

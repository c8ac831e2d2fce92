"""What programs have in common: their parser, their log, and how an error ends them."""

import argparse
import logging
import os
import select
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mome.common.memory import WHERE_LOADED, lacks_memory

STANDARD_OUTPUT = 1
PACKAGE = Path(__file__).resolve().parents[1]
# Errors of these types say what to do. Of others are errors of a module that does not keep to a
# contract: they need a traceback.
KINDS = (ValueError, OSError, MemoryError, FloatingPointError)


def parser_for(documentation: str | None, **options: Any) -> argparse.ArgumentParser:
    """A parser whose help begins with a program's documentation, as it is written.

    Args:
        documentation: docstring of the program's module.
        options: further ones of :class:`argparse.ArgumentParser`.
    """
    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=documentation, formatter_class=raw, **options)


def start_log() -> None:
    """Show what is logged, from now on, on standard error."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s: %(message)s")


@contextmanager
def in_one_line(command: str, *further: type[Exception]) -> Iterator[None]:
    """End with the message of an error that explains itself, raised inside the context.

    So does any error that says that there is no memory left, as where a model is loaded. Where
    what reads the output has ended, as ``head`` does, the program ends without a word, as others
    do. Around the ``main`` of a program it stands as a decorator.

    Args:
        command: name of the program, which the line begins with.
        further: types of errors, beside ``KINDS``, that say what to do.

    Raises:
        SystemExit: in the place of such errors, for status 1; others are raised as they are.
    """
    kinds: tuple[type[Exception], ...] = (*KINDS, *further)
    try:
        yield
        if sys.stdout is not None:  # as where the shell has closed it
            sys.stdout.flush()
    except SystemExit:  # as argparse ends a program after its help
        drop_unread()
        raise
    except Exception as error:
        unread = drop_unread()
        if unread and isinstance(error, BrokenPipeError):
            raise SystemExit(128 + signal.SIGPIPE) from None
        if isinstance(error, kinds) and explains_itself(error):
            raise SystemExit(f"{command}: error: {error}") from None
        if not lacks_memory(error):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise SystemExit(f"{command}: error: out of memory: {WHERE_LOADED} ({reason})") from None


def drop_unread() -> bool:
    """Whether nobody reads the standard output any longer; what is left of it then goes nowhere.

    Otherwise Python would complain of it once more at its end.
    """
    with suppress(OSError):
        if sys.stdout is not None:
            sys.stdout.flush()
    output = select.poll()
    output.register(STANDARD_OUTPUT, 0)
    if not any(event & select.POLLERR for _, event in output.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), STANDARD_OUTPUT)
    return True


def explains_itself(error: BaseException) -> bool:
    """Whether the message of an error says what is wrong.

    It does if this package has raised it, or if the system names a file. One that a library or a
    module of the user's raises needs its traceback. So does one of a function in C, such as
    NumPy's, which has no frame of its own: the last one is that of its caller, where no ``raise``
    stands.
    """
    if isinstance(error, OSError) and error.filename is not None:
        return True
    last = traceback.extract_tb(error.__traceback__)[-1]
    raised = (last.line or "").startswith("raise ")
    return raised and Path(last.filename).resolve().is_relative_to(PACKAGE)

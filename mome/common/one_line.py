"""Errors that say what to do end a program with one line; others keep their traceback."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


@contextmanager
def in_one_line(command: str) -> Iterator[None]:
    """End with the message of an error that this package raises inside the context.

    Args:
        command: name of the program, which the line begins with.

    Raises:
        SystemExit: in the place of such an error; others are raised as they are.
    """
    try:
        yield
    # Of other types are errors of a module that does not keep to a contract: they need a traceback.
    except (ValueError, OSError, MemoryError, FloatingPointError) as error:
        if not explains_itself(error):
            raise
        raise SystemExit(f"{command}: error: {error}") from None


def explains_itself(error: BaseException) -> bool:
    """Whether this package has raised an error, whose message then says what to do.

    One that a library or a module of the user's raises needs its traceback. So does one of a
    function in C, such as NumPy's, which has no frame of its own: the last one is that of its
    caller, where no ``raise`` stands.
    """
    last = traceback.extract_tb(error.__traceback__)[-1]
    raised = (last.line or "").startswith("raise ")
    return raised and Path(last.filename).resolve().is_relative_to(PACKAGE)

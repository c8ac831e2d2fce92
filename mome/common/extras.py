"""Libraries that only some of the commands need, and which extra of the package brings them."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

EXTRAS = {
    "espnet2": "recipes",
    "espnet3": "recipes",
    "kaldiio": "recipes",
    "librosa": "recipes",
    "sklearn": "recipes",
    "matplotlib": "plot",
}


@contextmanager
def without_type_checks() -> Iterator[None]:
    """Around imports of ESPnet, which loads faster then.

    Its functions check the types of their arguments when they are called: typeguard parses and
    compiles each of them once more for that, in every process that imports them. What is imported
    within does without these checks.
    """
    try:
        import typeguard
    except ModuleNotFoundError:
        yield
        return
    checked = typeguard.typechecked
    vars(typeguard)["typechecked"] = lambda target=None, **_: target or (lambda each: each)
    try:
        yield
    finally:
        vars(typeguard)["typechecked"] = checked


@contextmanager
def extra(command: str | None = None) -> Iterator[None]:
    """Around imports of what an extra brings: says how to get what is missing.

    Args:
        command: program that the imports are for, which then ends with that line.

    Raises:
        ModuleNotFoundError: if there is no such command; of other libraries as it was.
    """
    try:
        with without_type_checks():
            yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in EXTRAS:
            raise
        message = f"{name} is missing: in the clone, pip install '.[{EXTRAS[name]}]'"
        if command is not None:
            raise SystemExit(f"{command}: {message}") from None
        raise ModuleNotFoundError(message, name=name) from None


def demand_installed(command: str, *libraries: str) -> None:
    """See that a program has what it will import later, before it has worked for hours.

    Raises:
        SystemExit: if a library is missing; says how to get it.
    """
    with extra(command):
        for library in libraries:
            import_module(library)

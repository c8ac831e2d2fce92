#!/usr/bin/env python3
"""Mutation testing: change a module in one place at a time, and see whether its tests notice.

  tools/mutate.py mome/lips/crop.py --tests test/lips/test_crop.py
  tools/mutate.py mome/data/noise.py mome/data/audio.py --tests test/data/test_noise.py --sample 50

A change is one that a tired author might make: a number that is another one, < for <=, + for -,
`and` for `or`, a call that is left out. Prints each change that no test notices, as file, line and
both versions, and at the end how many of how many were noticed. What is left is to be read: some
changes make no difference to anybody.

Why not a package: cosmic-ray starts Python and imports everything for each mutant, seconds where a
test takes milliseconds, and steps numbers by one, so that the side of a crop is 2.3 or 0.3 in the
place of 1.3; mutmut leaves the constants of a module alone. Here libraries are loaded once, each
mutant is a fork, and runs, fastest first, only those tests that reach its line.
"""

import argparse
import ast
import importlib
import importlib.abc
import importlib.util
import os
import pickle
import random
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
tqdm.monitor_interval = 0  # no thread of its own: this process forks
SWAPS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}
# Of a call f(x, ...) that becomes x: these change the type, and the next line notices.
CONVERSIONS = frozenset(
    "list tuple set dict frozenset len range zip enumerate iter next isinstance getattr sum any all"
    " map filter Path str type super open print".split()
)


@dataclass(frozen=True)
class Mutant:
    """A change: ``node.field`` (``[place]`` of a list) becomes ``new``."""

    node: ast.AST
    field: str
    place: int | None
    new: object
    line: int

    def swap(self, value: object) -> object:
        """Put a value there, and return what was there."""
        if self.place is None:
            old = getattr(self.node, self.field)
            setattr(self.node, self.field, value)
        else:
            values = getattr(self.node, self.field)
            old, values[self.place] = values[self.place], value
        return old


def replacements(child: object) -> Iterator[object]:
    """What a part of a program may become."""
    if isinstance(child, ast.Constant):
        value = child.value
        if isinstance(value, bool):
            yield ast.copy_location(ast.Constant(not value), child)
        elif isinstance(value, int):
            yield ast.copy_location(ast.Constant(value + 1), child)
        elif isinstance(value, float):
            yield ast.copy_location(ast.Constant(1.3 * value if value else 0.3), child)
    elif isinstance(child, ast.UnaryOp):
        yield child.operand
    elif isinstance(child, ast.Call) and child.args and not isinstance(child.args[0], ast.Starred):
        name = getattr(child.func, "id", getattr(child.func, "attr", ""))
        if name not in CONVERSIONS and not name[:1].isupper():
            yield child.args[0]
    elif isinstance(child, ast.Expr) and isinstance(child.value, ast.Call):
        yield ast.copy_location(ast.Pass(), child)
    else:
        yield from (other() for other in SWAPS.get(type(child), ()))


def find_mutants(node: ast.AST, line: int = 0) -> Iterator[Mutant]:
    """All changes of a program, without those of messages, types and command lines."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params", "msg"):
            continue
        children = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for place, child in children:
            if not isinstance(child, ast.AST) or is_said(child):
                continue
            at = getattr(child, "lineno", line)
            for new in replacements(child):
                yield Mutant(node, field, place, new, at)
            yield from find_mutants(child, at)


def is_said(node: ast.AST) -> bool:
    """Whether a part only tells people something: a message, a type, an option's help."""
    called = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and node.value.func
    return isinstance(node, ast.Raise | ast.JoinedStr) or (
        isinstance(called, ast.Attribute)
        and called.attr in ("add_argument", "warning", "info", "error")
    )


@dataclass
class Program:
    """A module that is changed."""

    name: str
    path: Path
    source: str
    tree: ast.Module

    @cached_property
    def inside(self) -> set[int]:
        """Lines of functions; others run when the module is imported."""
        return {
            line
            for node in ast.walk(self.tree)
            if isinstance(node, ast.FunctionDef)
            for line in range(node.body[0].lineno, (node.end_lineno or 0) + 1)
        }


class Loader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a compiled program in the place of its file."""

    def __init__(self, program: Program, code: CodeType):
        self.name, self.path, self.code = program.name, program.path, code

    def find_spec(self, name, path=None, target=None):
        """The module's, and nothing for others."""
        if name == self.name:
            return importlib.util.spec_from_file_location(name, self.path, loader=self)
        return None

    def create_module(self, spec):
        """As usual."""

    def exec_module(self, module):
        """Run the program."""
        exec(self.code, module.__dict__)


class Reach:
    """pytest plugin: which lines of some files each test reaches, and its seconds."""

    def __init__(self, paths: Iterable[Path]):
        self.paths = {str(path) for path in paths}
        self.found: dict[str, tuple[float, set[tuple[str, int]]]] = {}
        self.lines: set[tuple[str, int]] = set()
        self.begun = 0.0

    def start(self) -> None:
        """Watch lines from now on."""
        tool = sys.monitoring
        tool.use_tool_id(tool.COVERAGE_ID, "mutate")
        tool.register_callback(tool.COVERAGE_ID, tool.events.LINE, self.note)
        tool.set_events(tool.COVERAGE_ID, tool.events.LINE)

    def note(self, code: CodeType, line: int) -> object:
        """Of other files nothing more needs to be heard."""
        if code.co_filename not in self.paths:
            return sys.monitoring.DISABLE
        self.lines.add((code.co_filename, line))
        return None

    def pytest_runtest_setup(self) -> None:
        """A test begins; lines of shared fixtures count for the first that needs them."""
        self.lines, self.begun = set(), time.process_time()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test has ended."""
        if report.when == "call" and report.passed:
            self.found[report.nodeid] = time.process_time() - self.begun, self.lines


def in_child(work: Callable[[], object], seconds: float) -> Any:
    """What a function returns in a process of its own; None if that crashes or takes too long.

    Args:
        work: the function.
        seconds: of processor time; a busy machine changes no verdict.
    """
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        with suppress(BaseException), open(write, "wb") as pipe:
            pickle.dump(work(), pipe)
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return pickle.loads(said) if said else None


def run_tests(tests: list[str], plugins: tuple = (), options: tuple[str, ...] = ()) -> int:
    """pytest's exit status."""
    fixed = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly"]
    return int(pytest.main([*fixed, *options, *tests], plugins=list(plugins)))


def main() -> None:
    """Change, test, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="+", type=Path, help="such as mome/lips/crop.py")
    parser.add_argument("--tests", nargs="+", required=True, help="files or ids of tests")
    parser.add_argument("-k", default="", help="of these only those that pytest's -k chooses")
    parser.add_argument("--longest", type=float, default=3.0, help="s; slower tests are left out")
    parser.add_argument("--sample", type=int, help="so many changes of each, drawn at random")
    parser.add_argument(
        "--seed", type=int, default=0, help="draws the changes of --sample; default: %(default)s"
    )
    args = parser.parse_args()
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT)]
    programs = [read_program(path.resolve()) for path in args.modules]
    reach = Reach(program.path for program in programs)

    def watch() -> tuple:
        before = set(sys.modules)
        reach.start()
        code = run_tests(args.tests, (reach,), ("-k", args.k) if args.k else ())
        loaded = [name for name, module in sys.modules.items() if is_library(name, module)]
        return code, reach.found, [name for name in loaded if name not in before]

    code, found, libraries = in_child(watch, 3600) or (1, {}, [])
    if code or not found:
        raise SystemExit(f"the tests fail without any change (pytest's status {code})")
    quick = {test: lines for test, (cost, lines) in found.items() if cost <= args.longest}
    costs = {test: found[test][0] for test in quick}
    left_out = len(found) - len(quick)
    print(f"{len(quick)} tests in {sum(costs.values()):.1f} s; {left_out} are too slow", flush=True)
    for library in libraries:
        with suppress(Exception):
            importlib.import_module(library)
    for program in programs:
        try_changes(program, quick, costs, args.sample, args.seed)


def read_program(path: Path) -> Program:
    """A module by its file."""
    source = path.read_text(encoding="utf-8")
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return Program(name, path, source, ast.parse(source))


def try_changes(
    program: Program,
    reached: Mapping[str, set[tuple[str, int]]],
    costs: Mapping[str, float],
    sample: int | None,
    seed: int,
) -> None:
    """Try the changes of a module, and print those that no test notices.

    Args:
        program: the module.
        reached: test -> lines that it reaches, with their files.
        costs: test -> seconds.
        sample: how many changes, drawn at random; all if it is None.
        seed: draws them.
    """
    mutants = list(find_mutants(program.tree))
    if sample and sample < len(mutants):
        mutants = random.Random(seed).sample(mutants, sample)
        mutants.sort(key=lambda mutant: mutant.line)
    file = program.path.relative_to(ROOT)
    lines = program.source.splitlines()
    noticed = 0
    for mutant in tqdm(mutants, desc=str(file), unit="change"):
        tests = sorted(tests_of(mutant.line, program, reached), key=costs.__getitem__)
        old = mutant.swap(mutant.new)
        changed = ast.unparse(statement_at(program.tree, mutant.line)).splitlines()[0]
        code = compile(ast.fix_missing_locations(program.tree), str(program.path), "exec")
        mutant.swap(old)
        loader = Loader(program, code)

        def try_tests(loader: Loader = loader, tests: list[str] = tests) -> int:
            sys.meta_path.insert(0, loader)
            return run_tests(tests)

        status = in_child(try_tests, 10 + 10 * sum(costs[t] for t in tests)) if tests else 0
        if status in (4, 5) and in_child(lambda tests=tests: run_tests(tests), 3600):
            raise SystemExit(f"pytest finds no tests by {' '.join(tests)}")
        if status != 0:
            noticed += 1
            continue
        said = lines[mutant.line - 1].strip()
        tqdm.write(f"{file}:{mutant.line}: {said}\n    {changed}")
    print(f"{file}: {noticed} of {len(mutants)} changes are noticed", flush=True)


def tests_of(line: int, program: Program, reached: Mapping[str, set[tuple[str, int]]]) -> list[str]:
    """The tests that reach a line, or the statement that goes on there."""
    if line not in program.inside:
        return [*reached]
    own = {n for lines in reached.values() for path, n in lines if path == str(program.path)}
    first = max((n for n in own if n <= line), default=0)
    return [test for test, lines in reached.items() if (str(program.path), first) in lines]


def is_library(name: str, module: ModuleType) -> bool:
    """Whether a module is Python's or installed, and not one of the checkout."""
    file = getattr(module, "__file__", None) or ""
    return name.partition(".")[0] in sys.stdlib_module_names or "site-packages" in file


def statement_at(tree: ast.AST, line: int) -> ast.AST:
    """The smallest statement of a line."""
    fitting = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    smallest = min(fitting, key=lambda node: (node.end_lineno or 0) - node.lineno)
    if isinstance(smallest, ast.If | ast.While):
        return smallest.test
    return smallest


if __name__ == "__main__":
    main()

"""Commands of the documents: whether they exist and know the options given to them.

Bash runs a page's shell blocks in a copy of the repository's folders in which every script, every
``mome-...`` and every other program is a stand-in that takes down how it was called. So loops,
variables and quotes are bash's own. What was taken down is then read by the real scripts and
parsers, up to the point where they know their options, and so are commands within the text.
"""

import importlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

import mome.tasks.config

ROOT = Path(__file__).parents[1]
# A comment before a block says which test runs its commands, or what they need that tests lack.
BLOCK = re.compile(r"(?:^<!-- (run by|needs): ([^\n]+) -->\n)?^```sh\n(.*?)^```$", re.M | re.S)
# Commands within the text: scripts by their path, and programs.
INLINE = re.compile(r"`((?:[\w./]*/\w+\.sh|mome-[a-z]|python -m mome\.)[^`]*)`")
PLACEHOLDER = re.compile(r"(?<!<)<[a-z][^<>\n]*>")
SCRIPTS = ("egs/*/*.sh", "egs/*/local/*.py", "egs/TEMPLATE/*/*.sh", "utils/*.sh")
SCRIPTS += ("tools/*.sh", "tools/mutate.py", "tools/bench/*.sh")
SCRIPTS += ("test/random_kills.py", "test/fuzz/fuzz.py")
# Programs of others, whose options are not checked here.
OTHERS = ("pip", "pre-commit", "ruff", "mypy", "cp", "rm")
# A recipe that a user has made by utils/new_recipe.sh; its run.sh takes what any takes.
MADE, MADE_LIKE = "egs/my_corpus", "egs/mini_av"
STAND_IN = """#!{bash}
printf '%s\\0' "$#" "$BLOCK" "$PWD" "$0" "$@" >> "$RECORD"
"""


class Block(NamedTuple):
    """A shell block: ``kind`` is ``run by`` or ``needs``, empty without a comment before it."""

    kind: str
    what: str
    code: str


class Call(NamedTuple):
    """A command that a page gives: where, which program, its arguments, and in which block."""

    folder: Path
    program: str
    words: list[str]
    block: int = 0


class Parsed(Exception):
    """The options are known; nothing else shall run."""


def blocks(page: Path) -> list[Block]:
    """The shell blocks of a page."""
    return [Block(*found) for found in BLOCK.findall(page.read_text(encoding="utf-8"))]


def make_stand_ins(tree: Path) -> None:
    """Folders as the repository has them, with stand-ins, and ``bin`` for what is on PATH."""
    for folder in ("bin", *{str(path.parent.relative_to(ROOT)) for path in scripts()}):
        (tree / folder).mkdir(parents=True, exist_ok=True)
    stand_in = tree / "stand_in"
    stand_in.write_text(STAND_IN.format(bash=shutil.which("bash")))
    stand_in.chmod(0o755)
    for path in scripts():
        place = tree / path.relative_to(ROOT)
        if os.access(path, os.X_OK):
            place.symlink_to(stand_in)
        else:
            place.touch()  # to be sourced
    (tree / MADE).mkdir()
    (tree / MADE / "run.sh").symlink_to(stand_in)
    commands = [f"mome-{path.stem.replace('_', '-')}" for path in ROOT.glob("mome/bin/[!_]*.py")]
    for name in (*commands, *OTHERS, "python"):
        (tree / "bin" / name).symlink_to(stand_in)


def scripts() -> Iterator[Path]:
    """The scripts that a page may call by their path."""
    for pattern in SCRIPTS:
        yield from ROOT.glob(pattern)


def calls(page: Path, tree: Path) -> list[Call]:
    """What the blocks of a page call, in the page's folder if it is a recipe's."""
    recipe = page.with_name("run.sh").exists()
    start = tree / page.parent.relative_to(ROOT) if recipe else tree
    lines = ["set -euo pipefail"]
    for number, block in enumerate(blocks(page)):
        lines += [f"export BLOCK={number}", f"cd '{start}'"]
        lines.append(PLACEHOLDER.sub("placeholder", block.code))
    record = tree / "record"
    record.write_bytes(b"")
    done = subprocess.run(
        [shutil.which("bash"), "-c", "\n".join(lines)],
        env={"PATH": str(tree / "bin"), "RECORD": str(record)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{page}: {done.stderr}"
    fields = record.read_text().split("\0")[:-1]
    found = []
    while fields:
        count, block, place, program = fields[:4]
        end = 4 + int(count)
        folder = Path(place).relative_to(tree)
        name = program.removeprefix(f"{tree}/bin/")
        found.append(Call(folder, name, fields[4:end], int(block)))
        fields = fields[end:]
    return found


def inline_calls(page: Path) -> list[Call]:
    """The commands within a page's text.

    They are given in the repository's folder, but for ``./run.sh`` and its like: these are in the
    page's recipe, that of the page's name, or any.
    """
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    recipes = (page.parent, ROOT / "egs" / page.stem, ROOT / "egs/mini_av")
    recipe = next(folder for folder in recipes if (folder / "run.sh").exists())
    found = []
    for code in INLINE.findall(text):
        program, *words = shlex.split(PLACEHOLDER.sub("placeholder", code))
        here = program.startswith("./")
        found.append(Call(recipe.relative_to(ROOT) if here else Path(), program, words))
    return found


def is_run_by(call: Call, test: str) -> bool:
    """Whether the text of a test names what a call runs: a module, or a script and its folder."""
    name, words = call.program, call.words
    if name == "python" and words[0] == "-m":
        name = f"mome-{words[1].removeprefix('mome.bin.').replace('_', '-')}"
    if name.startswith("mome-"):
        module = name[5:].replace("-", "_")
        names = rf"{name}\b|mome\.bin\.{module}\b|from mome\.bin import .*\b{module}\b"
        return re.search(names, test) is not None
    if name == "python":
        return words[0] in test
    if "/" not in name:
        return True
    path = (ROOT / call.folder / name).resolve()
    return path.name in test and path.parent.name in test


class Checker:
    """Reads calls by the programs' own parsers.

    Args:
        monkeypatch: keeps the programs from doing more than that.
        folder: stands for a corpus's folder.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path):
        self.monkeypatch = monkeypatch
        self.corpus = folder
        # Modules of a user's.
        monkeypatch.setattr(mome.tasks.config, "import_modules", lambda names: None)

    def check(self, call: Call, page: Path, partly: bool = False) -> None:
        """Fail if the program does not know what it is given; ``partly`` if that is not all."""
        name, words = call.program, call.words
        if name.startswith("mome-"):
            self.python(f"mome.bin.{name[5:].replace('-', '_')}", call.folder, words, partly)
        elif name == "python" and words[0] == "-m" and words[1].startswith("mome."):
            self.python(words[1], call.folder, words[2:], partly)
        elif name == "python" and words[0].startswith("tools/"):
            self.python(ROOT / words[0], call.folder, words[1:], partly)
        elif name == "python" and words[0] != "-m":
            text = page.read_text(encoding="utf-8")
            assert f"```python\n# {words[0]}\n" in text, f"{words[0]} is not shown on the page"
        elif "/" in name:
            place = str(call.folder / name).replace(MADE, MADE_LIKE)
            self.script(ROOT / place, call.folder, words, partly)

    def script(self, path: Path, folder: Path, words: Sequence[str], partly: bool) -> None:
        """A script of the repository."""
        text = path.read_text(encoding="utf-8")
        if not os.access(path, os.X_OK):
            assert not words, f"{path} is to be sourced"
        elif path.suffix == ".py":
            self.python(path, folder, words, partly)
        elif "avsr.sh" in text:
            self.recipe(path, words)
        elif program := re.search(r'exec python -m (mome\.[\w.]+) (?:[^\n]|\\\n)*"\$@"', text):
            self.python(program[1], folder, words, partly)
            if "--" in words:
                self.recipe(path.with_name("run.sh"), words[words.index("--") + 1 :])
        else:
            names = [word.partition("=")[0] for word in words if word.startswith("--")]
            unknown = [name for name in names if not re.search(rf"{re.escape(name)}\b", text)]
            assert not unknown, f"{path} has no {unknown[0]}"

    def recipe(self, path: Path, words: Sequence[str]) -> None:
        """A recipe's run.sh: it reads its options, and stops at the --help that follows them."""
        options = list(options_of(words))
        given = [str(self.corpus) if word.startswith("/data/") else word for word in words]
        command = [str(path), *given, "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{path} {words}: {done.stderr.splitlines()[0]}"
        avsr = (ROOT / "egs/TEMPLATE/avsr1/avsr.sh").read_text(encoding="utf-8")
        for option, value in options:
            if option in ("train_config", "parallel"):
                assert (path.parent / value).is_file(), f"{path}: {value} does not exist"
            further = re.search(rf"^{option}=.*# further options of (\S+)(?: (\w+))?", avsr, re.M)
            if further is None or value == "none":
                continue
            program, command = further.groups()
            if program == "local/data.py":
                folders = (
                    ["--out", "x"] if command == "download" else ["--corpus", "x", "--out", "x"]
                )
                self.python(path.parent / program, path.parent, [command, *folders, *value.split()])
            else:
                module = program.rstrip(",;").replace("mome-", "mome.bin.", 1).replace("-", "_")
                self.python(module, path.parent, value.split(), partly=True)

    def python(
        self, program: str | Path, folder: Path, words: Sequence[str], partly: bool = False
    ) -> None:
        """A module, or a file of a recipe; ``partly`` if others give what it demands."""

        def parse_args(parser, argv=None, namespace=None):
            for action in parser._actions:
                action.required = action.required and not partly
            original(parser, argv, namespace)
            raise Parsed

        original: Callable = ArgumentParser.parse_args
        with self.monkeypatch.context() as patch:
            patch.setattr(ArgumentParser, "parse_args", parse_args)
            patch.setattr("sys.argv", [str(program), *words])
            patch.chdir(ROOT / folder)
            if isinstance(program, Path):
                patch.syspath_prepend(program.parent)
            with pytest.raises(Parsed):
                load(program).main()


def options_of(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Options and values as utils/parse_options.sh reads them; there must be nothing else."""
    rest = iter(words)
    for word in rest:
        assert re.match(r"--\w", word), f"{word} is no option: run.sh would begin its stages"
        name, equals, value = word.removeprefix("--").partition("=")
        yield name, value if equals else next(rest)


def load(program: str | Path):
    """A module by its name, or by its file."""
    if isinstance(program, str):
        return importlib.import_module(program)
    spec = importlib.util.spec_from_file_location(f"of_{program.parents[1].name}", program)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

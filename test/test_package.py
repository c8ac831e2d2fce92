"""What an installation of the package brings: its commands, its files and its licence."""

import ast
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ["mome", "setup.py", "pyproject.toml", "README.md", "LICENSE"]


def copy_sources(target: Path) -> Path:
    """A copy to build in, since a build writes into the folder of its sources."""
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    return target


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout


def commands(text: str) -> dict[str, str]:
    """Console commands in the text of a file entry_points.txt."""
    parser = ConfigParser(delimiters="=")
    parser.read_string(text)
    return dict(parser["console_scripts"])


def modules_with_main() -> dict[str, str]:
    """The commands that there should be: one for each module of mome/bin that defines `main`."""
    found = {}
    for path in (ROOT / "mome/bin").glob("*.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in body):
            found[f"mome-{path.stem.replace('_', '-')}"] = f"mome.bin.{path.stem}:main"
    return found


def test_every_module_of_bin_is_a_command(tmp_path):
    sources = copy_sources(tmp_path / "sources")
    run([sys.executable, "setup.py", "--quiet", "egg_info"], sources)
    listed = commands((sources / "mome.egg-info/entry_points.txt").read_text(encoding="utf-8"))
    assert listed == modules_with_main()
    assert listed["mome-prepare-media"] == "mome.bin.prepare_media:main"
    assert len(listed) == len(list((ROOT / "mome/bin").glob("[!_]*.py")))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """A wheel, built without a network."""
    sources = copy_sources(tmp_path_factory.mktemp("build") / "sources")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    run([*command, "--no-build-isolation", "--wheel-dir", "wheels", "."], sources)
    (path,) = (sources / "wheels").glob("mome-*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_all_modules_and_what_they_read(wheel):
    names = set(wheel.namelist())
    assert {"mome/adapters/experts_cpu.cpp", "mome/py.typed"} <= names
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mome").rglob("*.py")}
    assert files == {name for name in names if name.endswith(".py")}


def test_the_wheel_names_and_holds_the_licence(wheel):
    (licence,) = (name for name in wheel.namelist() if name.endswith("licenses/LICENSE"))
    assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    lines = wheel.read(metadata).decode().splitlines()
    assert "License-Expression: Apache-2.0" in lines
    extras = {f"Provides-Extra: {name}" for name in ("cluster", "demo", "dev", "plot")}
    assert extras <= set(lines)

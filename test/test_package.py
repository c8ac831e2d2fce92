"""What an installation of the package brings: commands, files and licence, and that it works.

It is installed from its wheel into a new environment, outside any checkout. The libraries that it
needs are those of the environment of these tests: a .pth file puts them behind the new one's own.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from configparser import ConfigParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mome.tasks.packed import pack

INFO = {"trained_on": "nothing", "max_seconds": 4.0}
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
def built_wheel(tmp_path_factory) -> Path:
    """A wheel, built without a network."""
    sources = copy_sources(tmp_path_factory.mktemp("build") / "sources")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    run([*command, "--no-build-isolation", "--wheel-dir", "wheels", "."], sources)
    (path,) = (sources / "wheels").glob("mome-*.whl")
    return path


@pytest.fixture
def wheel(built_wheel) -> zipfile.ZipFile:
    """What the wheel holds."""
    return zipfile.ZipFile(built_wheel)


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


@pytest.fixture(scope="module")
def environment(built_wheel, tmp_path_factory) -> Path:
    """The folder of a virtual environment with the wheel."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    run([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder.parent)
    python = str(folder / "bin/python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index"]
    run([*pip, "--no-deps", str(built_wheel)], folder.parent)
    (site,) = folder.glob("lib/python*/site-packages")
    # A .pth file gives a folder alone, and the editable installation of mome in it is not looked
    # at; nor would be setuptools' stand-in for distutils, which ESPnet imports.
    lines = [sysconfig.get_path("purelib"), "import _distutils_hack; _distutils_hack.add_shim()"]
    (site / "libraries.pth").write_text("\n".join(lines))
    return folder


@pytest.fixture
def elsewhere(environment, tmp_path):
    """Runs a command of the environment in an empty folder, without anything of this checkout."""
    folder = tmp_path / "empty"
    folder.mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MOME", "PYTHON"))}
    kept["PATH"] = os.pathsep.join([str(environment / "bin"), os.defpath])

    def start(*command: object, **variables: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(environment / "bin" / str(command[0])), *map(str, command[1:])],
            cwd=folder,
            env=kept | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    return start


def test_every_command_explains_itself(elsewhere, environment):
    names = modules_with_main()
    assert set(names) <= {path.name for path in (environment / "bin").iterdir()}
    # All in one process, which loads the libraries once.
    code = """if True:
        import contextlib, io, sys
        from importlib.metadata import distribution
        for entry in distribution("mome").entry_points:
            said = io.StringIO()
            try:
                with contextlib.redirect_stdout(said):
                    entry.load()(["--help"])
            except SystemExit as stop:
                print(entry.name, stop.code, said.getvalue().startswith("usage: "))
        import mome
        print(mome.__file__)
    """
    done = elsewhere("python", "-c", code)
    *said, place = done.stdout.splitlines()
    assert sorted(said) == sorted(f"{name} 0 True" for name in names), done.stderr
    assert Path(place).is_relative_to(environment)
    assert elsewhere("mome-score", "--help").stdout.startswith("usage: mome-score")


def test_names_are_imported_without_trainer_and_transformers(elsewhere):
    code = """if True:
        import sys, mome
        mome.Transcriber; mome.MoME; mome.attach
        print(mome.__version__, sorted({name.split(".")[0] for name in sys.modules}))
        print([name for name in sys.modules if name.startswith("espnet2.")])
        import mome.bin.score, mome.bin.confusions
    """
    done = elsewhere("python", "-c", code)
    first, second = done.stdout.splitlines()
    assert first.startswith("0.1.0 ")
    assert "'torch'" in first
    for library in ("espnet2", "transformers", "peft", "scipy", "librosa"):
        assert f"'{library}'" not in first
    assert second == "[]"


@pytest.mark.parametrize("module", ["score", "confusions", "fetch_models", "prepare_media"])
def test_programs_without_a_network_load_no_pytorch(module):
    code = f"import sys, mome.bin.{module}; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


def test_a_recording_is_transcribed(elsewhere, training, tiny_downloads, tmp_path):
    packed = pack(training / "config.yaml", training / "model.pth", tmp_path / "tiny.zip", INFO, "")
    noise = np.random.default_rng(0).normal(0, 0.1, 32000)
    soundfile.write(tmp_path / "noise.wav", noise, 16000)
    command = ["mome-transcribe", tmp_path / "noise.wav", "--model", packed, "--beam", "1"]
    lacking = elsewhere(*command)
    assert lacking.returncode == 1
    assert lacking.stderr.count("\n") == 1
    assert "tiny.zip needs whisper0, and there is no downloads/whisper0: put" in lacking.stderr
    assert "mome-fetch-models --downloads <folder>" in lacking.stderr
    done = elsewhere(*command, "--format", "json", MOME_DOWNLOADS=str(tiny_downloads))
    assert done.returncode == 0, done.stderr
    (segment,) = json.loads(done.stdout)["segments"]
    assert segment["task"] == "asr"
    assert segment["words"]
    code = f"""if True:
        import sys, mome
        print(mome.Transcriber.load({str(packed)!r})({str(tmp_path / "noise.wav")!r}).text)
        print([name for name in sys.modules if name.startswith(("espnet2.tasks", "peft"))])
        print("espnet2.train.trainer" in sys.modules, "espnet2.train.preprocessor" in sys.modules)
    """
    again = elsewhere("python", "-c", code, MOME_DOWNLOADS=str(tiny_downloads))
    assert again.stdout.splitlines()[-2:] == ["[]", "False False"], again.stderr

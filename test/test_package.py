"""What an installation of the package brings: commands, files and licence, and that it works.

It is installed from its wheel, which is built from its source archive, into new environments
outside any checkout. Their libraries are those of the environment of these tests: a .pth file puts
them behind a new one's own, all of them or those that the package requires without an extra.
`tools/test.sh --wheel` does it with libraries of the package index.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterable
from configparser import ConfigParser
from email import message_from_bytes
from functools import cache, partial
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mome.common.extras import EXTRAS
from mome.tasks.packed import pack

INFO = {"trained_on": "nothing", "max_seconds": 4.0}
ROOT = Path(__file__).parents[1]
VERSION = "0.2.0"
SOURCES = ["mome", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"]
SOURCES += ["CHANGELOG.md", "CITATION.cff"]


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


def options_without_help(path: Path) -> list[str]:
    """The options that a file adds to a parser without a word on what they do, with their lines."""
    return [
        f"{path}:{node.lineno}: {ast.unparse(node.args[0]) if node.args else ast.unparse(node)}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "add_argument"
        and not any(keyword.arg == "help" for keyword in node.keywords)
    ]


def test_every_option_says_what_it_does():
    patterns = ("mome/**/*.py", "egs/*/local/*.py", "egs/TEMPLATE/*/local/*.py")
    patterns += ("tools/*.py", "tools/bench/*.py", "test/fuzz/fuzz.py", "test/random_kills.py")
    files = [path for pattern in patterns for path in ROOT.glob(pattern)]
    files.remove(ROOT / "tools/browser.py")  # its options are a browser's
    assert ROOT / "mome/bin/decode.py" in files
    assert [option for path in files for option in options_without_help(path)] == []


def test_an_option_without_help_is_found(tmp_path):
    path = tmp_path / "program.py"
    path.write_text('parser.add_argument("--a", help="of it")\nparser.add_argument("--b")\n')
    assert options_without_help(path) == [f"{path}:2: '--b'"]


def test_version_and_date_are_the_same_everywhere():
    setup, changes, citation = (
        (ROOT / name).read_text(encoding="utf-8")
        for name in ("setup.py", "CHANGELOG.md", "CITATION.cff")
    )
    cited = yaml.safe_load(citation)
    assert cited["version"] == VERSION
    assert f'    version="{VERSION}",\n' in setup
    sections = re.findall(r"^## (.+)$", changes, re.MULTILINE)
    assert sections[:2] == ["Unreleased", f"{VERSION} - {cited['date-released']}"]


@pytest.fixture(scope="module")
def source_archive(tmp_path_factory) -> Path:
    """A source archive."""
    sources = copy_sources(tmp_path_factory.mktemp("build") / "sources")
    run([sys.executable, "setup.py", "--quiet", "sdist"], sources)
    (path,) = (sources / "dist").glob("mome-*.tar.gz")
    return path


@pytest.fixture(scope="module")
def built_wheel(source_archive) -> Path:
    """A wheel, built of what is in the source archive, without a network."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", "wheels", str(source_archive)]
    run(command, source_archive.parent)
    (path,) = source_archive.parent.glob("wheels/mome-*.whl")
    return path


@pytest.fixture
def wheel(built_wheel) -> zipfile.ZipFile:
    """What the wheel holds."""
    return zipfile.ZipFile(built_wheel)


def requirements(wheel: zipfile.ZipFile) -> list[Requirement]:
    """What the package requires, by itself and by its extras."""
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    lines = message_from_bytes(wheel.read(name)).get_all("Requires-Dist")
    return [Requirement(line) for line in lines]


def wanted_for(required: Iterable[Requirement], extra: str = "") -> list[Requirement]:
    """Those that are required here, by an extra or by none."""
    return [each for each in required if not each.marker or each.marker.evaluate({"extra": extra})]


def brought_by(required: Iterable[Requirement]) -> set[str]:
    """The distributions that come with these, as far as they are in this environment."""
    waiting, seen = list(required), set()
    while waiting:
        each = waiting.pop()
        known = canonicalize_name(each.name), frozenset(each.extras)
        if known in seen:
            continue
        seen.add(known)
        further = [Requirement(line) for line in distribution(each.name).requires or []]
        for extra in ("", *each.extras):
            waiting += wanted_for(further, extra)
    return {name for name, _ in seen}


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
    extras = {f"Provides-Extra: {name}" for name in ("cluster", "demo", "dev", "plot", "recipes")}
    assert extras <= set(lines)


def entries(name: str) -> set[str]:
    """The files and folders of a distribution in site-packages."""
    return {file.parts[0] for file in distribution(name).files or []} - {"..", "__pycache__"}


def test_every_library_that_is_imported_is_required(wheel):
    """By the package itself, or by the extra that the error names where it is missing."""
    required = requirements(wheel)

    @cache
    def modules(extra: str) -> set[str]:
        names = [each.name for each in wanted_for(required, extra)]
        return {entry.partition(".")[0] for name in names for entry in entries(name)}

    used = set()
    for path in (ROOT / "mome").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                used |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                used.add(str(node.module).partition(".")[0])
    libraries = used - set(sys.stdlib_module_names) - {"mome"}
    # Of PyTorch (on Linux), Transformers, ESPnet, and of Dask, which ESPnet asks for.
    libraries -= {"triton", "tokenizers", "typeguard", "omegaconf", "distributed"}
    others = libraries - modules("")
    extras = EXTRAS | {"gradio": "demo", "safehttpx": "demo"}
    assert others == set(extras)
    assert {name for name in others if name not in modules(extras[name])} == set()


def install(wheel: Path, libraries: Path, folder: Path) -> Path:
    """A virtual environment with the wheel, and behind it the libraries of a folder."""
    run([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder.parent)
    python = str(folder / "bin/python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index"]
    run([*pip, "--no-deps", str(wheel)], folder.parent)
    (site,) = folder.glob("lib/python*/site-packages")
    # A .pth file gives a folder alone, and the editable installation of mome in it is not looked
    # at; nor would be setuptools' stand-in for distutils, which ESPnet imports.
    shim = "import importlib.util as u; u.find_spec('_distutils_hack') and "
    shim += "__import__('_distutils_hack').add_shim()"
    (site / "libraries.pth").write_text(f"{libraries}\n{shim}\n")
    return folder


@pytest.fixture(scope="module")
def full(built_wheel, tmp_path_factory) -> Path:
    """The folder of an environment with the wheel and all libraries, also those of the extras."""
    folder = tmp_path_factory.mktemp("full") / "venv"
    return install(built_wheel, Path(sysconfig.get_path("purelib")), folder)


@pytest.fixture(scope="module")
def plain(built_wheel, tmp_path_factory) -> Path:
    """The folder of an environment with the wheel and what it requires without an extra."""
    folder = tmp_path_factory.mktemp("plain")
    libraries = folder / "libraries"
    libraries.mkdir()
    for name in brought_by(wanted_for(requirements(zipfile.ZipFile(built_wheel)))):
        for entry in entries(name):
            if not (libraries / entry).exists():
                (libraries / entry).symlink_to(distribution(name).locate_file(entry))
    assert not (libraries / "espnet2").exists()
    return install(built_wheel, libraries, folder / "venv")


def outside(environment: Path, folder: Path, *command: object, **variables: str):
    """Run a command of an environment in a folder, without anything of this checkout."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MOME", "PYTHON"))}
    kept["PATH"] = os.pathsep.join([str(environment / "bin"), os.defpath])
    return subprocess.run(
        [str(environment / "bin" / str(command[0])), *map(str, command[1:])],
        cwd=folder,
        env=kept | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def elsewhere(plain, tmp_path):
    """Runs a command of the environment without extras in an empty folder."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return partial(outside, plain, folder)


# All in one process, which loads the libraries once. What a command is called with beside --help
# is only to be read before it finds that something is missing.
EXPLAIN = """if True:
    import contextlib, io, sys
    from importlib.metadata import distribution
    import mome
    CALLS = {
        "mome-convert-avhubert": "--checkpoint x --output x",
        "mome-corrupt-lips": "--dump x --sets x --kinds drop --parallel x",
        "mome-decode": "--config x --weights x --dump x --output x",
        "mome-demo": "--model x",
        "mome-make-noise": "--dump x --parallel x",
        "mome-pack": "--expdir x --weights x --dump x --trained_on x --output x",
        "mome-plot-training": "--expdirs x --output x",
        "mome-prepare-media": "--data x --dump x --parallel x",
        "mome-prune-experts": "--expdir x --data x --keep 1 --output x",
    }
    print(mome.__file__)
    for entry in distribution("mome").entry_points:
        calls = ["--help", CALLS[entry.name]] if entry.name in CALLS else ["--help"]
        for call in calls if len(sys.argv) > 1 else calls[:1]:
            said = io.StringIO()
            try:
                with contextlib.redirect_stdout(said):
                    entry.load()(call.split())
            except SystemExit as stop:
                begin = "usage" if said.getvalue().startswith("usage: ") else said.getvalue()
                print(entry.name, begin, stop.code, sep="; ")
    try:
        print(mome.load_model.__name__)
    except ModuleNotFoundError as error:
        print(error)
"""


def test_every_command_explains_itself(full, tmp_path):
    names = modules_with_main()
    assert set(names) <= {path.name for path in (full / "bin").iterdir()}
    done = outside(full, tmp_path, "python", "-c", EXPLAIN)
    place, *said, loader = done.stdout.splitlines()
    assert Path(place).is_relative_to(full)
    assert sorted(said) == sorted(f"{name}; usage; 0" for name in names), done.stderr
    assert loader == "load_model"


def test_what_is_missing_without_the_extras_is_said_in_a_line(elsewhere, plain):
    lacking = {
        "mome-convert-avhubert": ("espnet2", "recipes"),
        "mome-corrupt-lips": ("espnet3", "recipes"),
        "mome-decode": ("espnet2", "recipes"),
        "mome-demo": ("gradio", "demo"),
        "mome-make-noise": ("espnet3", "recipes"),
        "mome-make-units": ("librosa", "recipes"),
        "mome-pack": ("sklearn", "recipes"),
        "mome-plot-training": ("matplotlib", "plot"),
        "mome-prepare-media": ("espnet3", "recipes"),
        "mome-prune-experts": ("espnet2", "recipes"),
        "mome-train": ("espnet2", "recipes"),
    }
    # These cannot even list their options.
    silent = {"mome-make-units", "mome-train"}
    expected = [f"{name}; usage; 0" for name in set(modules_with_main()) - silent]
    expected += [
        f"{name}; ; {name}: {library} is missing: in the clone, pip install '.[{extra}]'"
        for name, (library, extra) in lacking.items()
    ]
    done = elsewhere("python", "-c", EXPLAIN, "all")
    place, *said, loader = done.stdout.splitlines()
    assert Path(place).is_relative_to(plain)
    assert sorted(said) == sorted(expected), done.stderr
    assert loader == "espnet2 is missing: in the clone, pip install '.[recipes]'"
    done = elsewhere("mome-train", "--help")
    assert done.returncode == 1
    assert done.stderr == "mome-train: espnet2 is missing: in the clone, pip install '.[recipes]'\n"


def test_names_are_imported_without_trainer_and_transformers(full, tmp_path):
    code = """if True:
        import sys, mome
        mome.Transcriber; mome.MoME; mome.attach
        print(mome.__version__, sorted({name.split(".")[0] for name in sys.modules}))
        print([name for name in sys.modules if name.startswith("espnet2.")])
        import mome.bin.score, mome.bin.confusions
    """
    done = outside(full, tmp_path, "python", "-c", code)
    first, second = done.stdout.splitlines()
    assert first.startswith(f"{VERSION} ")
    assert "'torch'" in first
    for library in ("espnet2", "transformers", "peft", "scipy", "librosa"):
        assert f"'{library}'" not in first
    assert second == "[]"


def test_programs_that_compute_nothing_load_no_pytorch():
    """Nor does one that finds its work done, such as mome-decode."""
    programs = ["score", "confusions", "fetch_models", "check_pretrained", "run_once"]
    programs += ["prepare_media", "make_noise", "merge_decoding", "decode", "pack"]
    code = f"""if True:
        import importlib, sys
        for name in {programs}:
            importlib.import_module(f"mome.bin.{{name}}")
            assert "torch" not in sys.modules, name
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def packed(training, tmp_path) -> Path:
    """A tiny packed model."""
    config, weights = training / "config.yaml", training / "model.pth"
    return pack(config, weights, tmp_path / "tiny.zip", INFO, "")


@pytest.fixture
def noise(tmp_path) -> Path:
    """A recording of two seconds of noise."""
    samples = np.random.default_rng(0).normal(0, 0.1, 32000)
    soundfile.write(tmp_path / "noise.wav", samples, 16000)
    return tmp_path / "noise.wav"


def test_a_recording_is_transcribed(elsewhere, packed, noise, tiny_downloads):
    command = ["mome-transcribe", noise, "--model", packed, "--beam", "1"]
    lacking = elsewhere(*command)
    assert lacking.returncode == 2
    assert lacking.stderr.count("\n") == 1
    assert "tiny.zip needs whisper0, and there is no downloads/whisper0: put" in lacking.stderr
    assert "mome-fetch-models --downloads <folder>" in lacking.stderr
    done = elsewhere(*command, "--format", "json", MOME_DOWNLOADS=str(tiny_downloads))
    assert done.returncode == 0, done.stderr
    (segment,) = json.loads(done.stdout)["segments"]
    assert segment["task"] == "asr"
    assert segment["words"]


# Everything that is done without ESPnet, in numbers: a model that is built and its loss, a packed
# one and what it transcribes, and adapters of an LM.
COMPUTE = """if True:
    import json, sys
    from importlib.util import find_spec
    import torch, yaml, mome
    from transformers import AutoModelForCausalLM
    from mome.tasks.build import build_model
    from mome.tasks.config import namespace
    from mome.tasks.packed import load_packed

    config, packed, noise, lm = sys.argv[1:]
    found = {"espnet": find_spec("espnet2") is not None}
    torch.manual_seed(0)
    model = build_model(namespace(yaml.safe_load(open(config))))
    batch = {
        "text": torch.randint(5, 60, (2, 4)), "text_lengths": torch.tensor([4, 3]),
        "speech": torch.randn(2, 16000), "speech_lengths": torch.tensor([16000, 12000]),
        "lips": torch.randn(2, 25, 88, 88), "lips_lengths": torch.tensor([25, 20]),
    }
    loss, stats, weight = model(**batch)
    loss.backward()
    gradients = [p.grad.double().abs().sum() for p in model.parameters() if p.grad is not None]
    found["loss"] = loss.tolist(), weight.tolist(), {k: v.tolist() for k, v in stats.items()}
    found["gradient"] = float(torch.stack(gradients).sum())
    model, _, _ = load_packed(packed)
    found["tensors"] = {k: float(v.double().abs().sum()) for k, v in model.state_dict().items()}
    transcribe = mome.Transcriber.load(packed)
    segments = transcribe(noise, mome.transcribe.options.Options(beam=2)).segments
    found["words"] = [(w.text, w.start, w.confidence) for s in segments for w in s.words]
    parts = ("espnet2.tasks", "espnet2.train.trainer", "espnet2.train.preprocessor", "peft")
    found["loaded"] = [name for name in sys.modules if name.startswith(parts)]
    for name in ("mome", "lora"):
        torch.manual_seed(0)
        language_model = AutoModelForCausalLM.from_pretrained(lm)
        adapter = mome.attach(language_model, name, {})
        logits = language_model(torch.arange(2, 12)[None]).logits
        found[name] = float(logits.double().sum()), sum(p.numel() for p in adapter.parameters())
    print(json.dumps(found))
"""


def test_without_espnet_all_is_computed_as_with_it(
    full, plain, training, packed, noise, tiny_lm, tiny_downloads, tmp_path
):
    command = ["python", "-c", COMPUTE, training / "config.yaml", packed, noise, tiny_lm]
    found = []
    for environment in (full, plain):
        done = outside(environment, tmp_path, *command, MOME_DOWNLOADS=str(tiny_downloads))
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout.splitlines()[-1]))
    assert [each.pop("espnet") for each in found] == [True, False]
    assert found[0]["loaded"] == []  # of what a model is trained by, and LoRA alone needs
    assert found[0] == found[1]
    assert found[0]["words"]
    assert found[0]["gradient"] > 0


def test_a_part_that_is_of_espnet_is_named(elsewhere, training, noise, tiny_downloads, tmp_path):
    values = yaml.safe_load((training / "config.yaml").read_text(encoding="utf-8"))
    values |= {"video_encoder": "avhubert", "video_encoder_conf": {"size": "base"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    weights = training / "model.pth"
    packed = pack(tmp_path / "config.yaml", weights, tmp_path / "avhubert.zip", INFO, "")
    done = elsewhere(
        "mome-transcribe", noise, "--model", packed, MOME_DOWNLOADS=str(tiny_downloads)
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    what = "cannot be built here: espnet2 is missing: in the clone, pip install '.[recipes]'"
    assert f"{packed} {what}" in done.stderr

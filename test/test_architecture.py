"""The layering of docs/architecture.md: imports run downwards only, and in no circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From top to bottom; a folder may import from those below its level.
LEVELS = (
    ("bin",),
    ("demo",),
    ("transcribe",),
    ("analysis",),
    ("tasks",),
    ("models",),
    ("llm",),
    ("adapters", "corpora", "encoders", "lips"),
    ("data",),
    ("pretrained",),
    ("common",),
)
LEVEL = {folder: number for number, folders in enumerate(LEVELS) for folder in folders}
# Imports that break the rule, as (importing module, imported module); there should be none.
DEVIATIONS: frozenset[tuple[str, str]] = frozenset()


def find_modules(root: Path) -> dict[str, Path]:
    """Module name -> file of all modules of the package below ``root``."""
    modules = {}
    for path in sorted((root / "mome").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def imports_of(path: Path, modules: dict[str, Path]) -> set[str]:
    """Modules of the package that a file imports, also inside functions and for annotations.

    ``from mome.data import kaldi`` imports the module ``mome.data.kaldi``, ``from mome.adapters
    import MoMEAdapter`` the package ``mome.adapters``. That Python runs the ``__init__.py`` of the
    folders on the way is left out.
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; name the module"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else str(node.module) for name in names}
    inside = {name for name in found if name.partition(".")[0] == "mome"}
    assert inside <= set(modules), f"{path} imports {inside - set(modules)}, which do not exist"
    return inside


def graph_of(root: Path) -> dict[str, set[str]]:
    """Module -> modules that it imports."""
    modules = find_modules(root)
    return {name: imports_of(path, modules) for name, path in modules.items()}


def folder_of(module: str) -> str:
    """Folder of a module; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def violations(graph: dict[str, set[str]]) -> list[str]:
    """Imports that run upwards, or sideways between folders of one level."""
    wrong = []
    for module, imported in graph.items():
        for other in imported:
            source, target = folder_of(module), folder_of(other)
            # The package's own __init__.py lies above all folders.
            levels = LEVEL.get(source, -1), LEVEL.get(target, -1)
            if source != target and levels[0] >= levels[1] and (module, other) not in DEVIATIONS:
                way = "sideways" if levels[0] == levels[1] else "upwards"
                wrong.append(f"{module} imports {other}: {way}")
    return sorted(wrong)


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of a circle of imports, empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_every_folder_has_a_level_and_a_line_in_the_documentation():
    folders = {path.parent.name for path in (ROOT / "mome").glob("*/__init__.py")}
    assert folders == set(LEVEL)
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert [folder for folder in sorted(folders) if f"{folder}/" not in text] == []


def test_imports_run_downwards():
    graph = graph_of(ROOT)
    assert violations(graph) == []
    assert {(m, o) for m, o in DEVIATIONS if o not in graph[m]} == set(), "no longer imported"


def test_no_circle_of_imports():
    assert circle(graph_of(ROOT)) == []


def test_every_folder_of_the_package_has_its_tests():
    """Programs are tested by the recipes that run them, everything else in a folder of its name."""
    tested = {path.parent.name for path in (ROOT / "test").glob("*/test_*.py")}
    assert set(LEVEL) - {"bin"} <= tested


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("data/a.py", "from mome.models.b import x", "mome.data.a imports mome.models.b: upwards"),
        ("lips/a.py", "import mome.llm.b", "mome.lips.a imports mome.llm.b: upwards"),
        (
            "lips/a.py",
            "def f():\n    from mome.encoders import b",
            "mome.lips.a imports mome.encoders.b: sideways",
        ),
        ("common/a.py", "from mome import version", "mome.common.a imports mome: upwards"),
    ],
)
def test_a_wrong_import_is_found(tmp_path, file, text, message):
    for folder in LEVEL:
        (tmp_path / "mome" / folder).mkdir(parents=True)
        for name in ("__init__.py", "b.py"):
            (tmp_path / "mome" / folder / name).touch()
    (tmp_path / "mome/__init__.py").touch()
    (tmp_path / "mome" / file).write_text(text)
    assert violations(graph_of(tmp_path)) == [message]


def test_a_circle_is_found():
    graph = {"mome.data.a": {"mome.data.b"}, "mome.data.b": {"mome.data.a"}}
    assert set(circle(graph)) == set(graph)

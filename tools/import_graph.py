"""The import graph of ``mome/``: its layers, what breaks them, and the diagram that shows it.

    python tools/import_graph.py

writes the diagram into docs/architecture.md; test/test_architecture.py checks the layers and fails
when the diagram is out of date. Nothing is imported: the files are parsed.
"""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = "docs/architecture.md"
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
BEGIN = "<!-- import graph: written by `python tools/import_graph.py` -->"
END = "<!-- end of the import graph -->"


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
    """Imports that run upwards, or sideways: between folders of one level, or between programs."""
    wrong = []
    for module, imported in graph.items():
        for other in imported:
            source, target = folder_of(module), folder_of(other)
            # The package's own __init__.py lies above all folders.
            levels = LEVEL.get(source, -1), LEVEL.get(target, -1)
            alone = source != target or source == "bin"
            if alone and levels[0] >= levels[1] and (module, other) not in DEVIATIONS:
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


def diagram(graph: dict[str, set[str]]) -> str:
    """The folders on a diagonal, with a mark where one imports another.

    A folder's column begins at its name; a mark in it means that it imports the folder at the end
    of the row.
    """
    pairs = {(folder_of(module), folder_of(other)) for module in graph for other in graph[module]}
    folders = list(LEVEL)
    rows = []
    for number, imported in enumerate(folders):
        marks = ["●" if (folder, imported) in pairs else "·" for folder in folders[:number]]
        rows.append(" ".join([*marks, imported]))
    return "\n".join(rows)


def with_diagram(text: str, drawn: str) -> str:
    """A page whose diagram, between the two markers, is replaced.

    Raises:
        ValueError: if the page has not both markers.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {BEGIN!r} and {END!r} around its diagram")
    return f"{before}{BEGIN}\n\n```text\n{drawn}\n```\n\n{END}{after}"


def main() -> None:
    """Write the diagram into the page."""
    page = ROOT / PAGE
    text = page.read_text(encoding="utf-8")
    page.write_text(with_diagram(text, diagram(graph_of(ROOT))), encoding="utf-8")


if __name__ == "__main__":
    main()

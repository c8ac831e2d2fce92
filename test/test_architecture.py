"""The layering of docs/architecture.md: imports run downwards only, and in no circle."""

import pytest
from import_graph import (
    DEVIATIONS,
    LEVEL,
    PAGE,
    ROOT,
    circle,
    diagram,
    graph_of,
    violations,
    with_diagram,
)


def test_every_folder_has_a_level_and_a_line_in_the_documentation():
    folders = {path.parent.name for path in (ROOT / "mome").glob("*/__init__.py")}
    assert folders == set(LEVEL)
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert [folder for folder in sorted(folders) if f"{folder}/" not in text] == []


def test_the_diagram_is_that_of_the_imports():
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    renewed = with_diagram(text, diagram(graph_of(ROOT)))
    assert text == renewed, f"{PAGE} is out of date: run python tools/import_graph.py"


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
        ("bin/a.py", "from mome.bin.b import x", "mome.bin.a imports mome.bin.b: sideways"),
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


def test_a_mark_stands_in_the_column_of_the_importing_folder():
    rows = diagram({"mome.demo.a": {"mome.common.b"}, "mome.bin.a": {"mome.demo.a"}}).splitlines()
    assert rows[:2] == ["bin", "● demo"]
    assert rows[-1].endswith(" common")
    assert [place for place, mark in enumerate(rows[-1]) if mark == "●"] == [rows[1].index("demo")]


def test_a_page_without_markers_has_no_place_for_the_diagram():
    with pytest.raises(ValueError, match="around its diagram"):
        with_diagram("# Architecture\n", "bin")

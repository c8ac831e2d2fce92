"""Documents: links, files, errors that they quote, commands."""

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from doc_commands import (
    Call,
    Checker,
    blocks,
    calls,
    inline_calls,
    is_run_by,
    make_stand_ins,
)

from mome.analysis.decoded import rate_order
from mome.data import test_sets

ROOT = Path(__file__).parents[1]
# Of recipes, not what they have written.
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("egs/*/*.md")]
SHELL = [page for page in PAGES if blocks(page)]
# Within the text of other pages, an option stands alone where it is explained.
TEXT = [
    *(ROOT / "docs" / f"{name}.md" for name in ("first_run", "grid", "licences", "lrs3")),
    *(ROOT / "docs" / f"{name}.md" for name in ("evidence", "robustness", "troubleshooting")),
    *ROOT.glob("egs/*/RESULTS.md"),
]
FILE = re.compile(r"(?<![\w/.<-])(?:egs|mome|tools|utils|test|docs)/[\w./-]*\.[a-z]+\b")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.strip().lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), f"{page}: {link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{page}: {link} names no heading of {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_are_part_of_the_repository(page):
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a clone")
    tracked = set(listed.stdout.split())
    named = set(FILE.findall(page.read_text(encoding="utf-8")))
    # What a user makes by the commands of a page.
    made = {name for name in named if re.search(r"/exp/|/dump/|^egs/my_corpus/", name)}
    assert not named - made - tracked, f"{page} names what is not in the repository"


def test_every_page_is_reached_from_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in sorted(ROOT.glob("docs/*.md")):
        assert f"docs/{page.name}" in readme, f"README.md does not name {page.name}"
    assert readme.count("\n") < 115, "what is not needed first belongs into docs/"


def test_every_page_is_in_the_menu():
    menu = re.findall(r"^ +- [^:\n]+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {page.name for page in ROOT.glob("docs/*.md")}
    assert pages <= set(menu)
    results = {f"results/{page.parent.name}.md" for page in ROOT.glob("egs/*/RESULTS.md")}
    assert results <= set(menu)


def messages() -> list[str]:
    """The texts in the sources, with … for what an f-string puts in; of scripts, their lines."""
    found = []
    for path in ROOT.glob("mome/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "…" for p in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    for pattern in ("egs/TEMPLATE/**/*.sh", "utils/*.sh", "tools/*.sh"):
        for path in ROOT.glob(pattern):
            found += path.read_text(encoding="utf-8").splitlines()
    return found


def test_errors_that_are_quoted_still_exist():
    headings = re.findall(
        r"^### (.+)$", (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert headings
    texts = messages()
    for heading in headings:
        assert re.fullmatch("`[^`]+`", heading), f"{heading}: quote one message"
        fixed = [part.strip() for part in heading.strip("`").split("…") if part.strip()]
        assert len("".join(fixed)) > 12, f"{heading}: too short to be found"
        pattern = re.compile(".*".join(map(re.escape, fixed)), re.DOTALL)
        assert any(map(pattern.search, texts)), f"no message reads {heading}; see the sources"


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory) -> Path:
    """A folder with the repository's scripts, which only take down how they are called."""
    tree = tmp_path_factory.mktemp("tree")
    make_stand_ins(tree)
    return tree


@pytest.mark.parametrize("page", SHELL, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist_and_know_their_options(page, stand_ins, tmp_path, monkeypatch, capsys):
    checker = Checker(monkeypatch, tmp_path)
    for call in calls(page, stand_ins):
        try:
            checker.check(call, page)
        except SystemExit:
            reason = capsys.readouterr().err.rpartition(" error: ")[2]
            pytest.fail(f"{page}: {call.program} {' '.join(call.words)}: {reason}")


@pytest.mark.parametrize("page", TEXT, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_within_the_text_know_their_options(page, tmp_path, monkeypatch, capsys):
    checker = Checker(monkeypatch, tmp_path)
    for call in inline_calls(page):
        try:
            checker.check(call, page, partly=True)
        except SystemExit as stop:
            if not stop.code:
                continue  # --help
            reason = capsys.readouterr().err.rpartition(" error: ")[2]
            pytest.fail(f"{page}: {call.program} {' '.join(call.words)}: {reason}")


@pytest.mark.parametrize("page", SHELL, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_run_by_a_test_or_say_what_they_need(page, stand_ins):
    found = blocks(page)
    for kind, what, code in found:
        assert kind, f"{page}: no <!-- run by: test/... --> or <!-- needs: ... --> before\n{code}"
        if kind == "run by":
            assert re.fullmatch(r"test/(?:\w+/)*test_\w+\.py", what), f"{page}: {what} is no test"
            assert (ROOT / what).is_file(), f"{page}: {what} does not exist"
    for call in calls(page, stand_ins):
        kind, what, _ = found[call.block]
        if kind == "run by":
            test = (ROOT / what).read_text(encoding="utf-8")
            assert is_run_by(call, test), f"{page}: {what} does not run {call.program}"


@pytest.mark.parametrize(
    ("program", "words", "test", "run"),
    [
        ("mome-pack", [], "from mome.bin import pack as command", True),
        ("mome-pack", [], "from mome.bin import transcribe", False),
        ("mome-fetch-models", [], 'run("mome-fetch-models")', True),
        ("python", ["-m", "mome.bin.convert_avhubert"], "import mome.bin.train", False),
        ("python", ["adapt.py"], '"adapt.py"', True),
        ("egs/grid/run.sh", [], 'ROOT / "egs/grid" / "run.sh"', True),
        ("egs/grid/run.sh", [], 'ROOT / "egs/mini_av" / "run.sh"', False),
        ("tools/docs.sh", [], 'ROOT / "tools/setup.sh"', False),
    ],
)
def test_a_test_that_does_not_run_a_command_is_found(program, words, test, run):
    assert is_run_by(Call(Path(), program, words), test) is run


@pytest.mark.parametrize(
    "command",
    ["./run.sh --no_such 1", "mome-confusions --no_such", "python -m mome.bin.no_such"],
)
def test_a_wrong_command_within_the_text_is_found(command, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(f"Do it by `{command}`.\n")
    (call,) = inline_calls(page)
    with pytest.raises((AssertionError, SystemExit, ModuleNotFoundError)):
        Checker(monkeypatch, tmp_path).check(call, page, partly=True)


@pytest.mark.parametrize(("recipe", "count"), [("grid", 15), ("mini_av", 5)])
def test_the_scores_of_a_recipe_are_those_of_its_table(recipe, count):
    """docs/images/<recipe>/wer_*.png are drawn from the first, and read beside the second."""
    scores = json.loads((ROOT / "egs" / recipe / "scores.json").read_text(encoding="utf-8"))
    text = (ROOT / "egs" / recipe / "RESULTS.md").read_text(encoding="utf-8")
    cells = {
        key: f"{score['wer']:.1f} [{score['low']:.1f}, {score['high']:.1f}]"
        for key, score in scores.items()
        if not key.startswith("guess/")
    }
    rows: dict[str, list[str]] = {}
    for key in sorted(cells, key=lambda key: rate_order(key.split("/")[2])):
        task, name, _ = key.split("/")
        words = test_sets.parse(name).describe().removeprefix("test, ")
        row = {"avsr": words, "asr": f"ASR, {words}", "vsr": "VSR | |"}[task]
        rows.setdefault(row, []).append(cells[key])
    assert len(rows) == count
    for row, values in rows.items():
        assert f"| {row} | {' | '.join(values)} |" in text, row


@pytest.mark.parametrize(
    "code", ["mome-no-such-command", "egs/mini_av/no_such.sh", "README.md", "cd egs && ls"]
)
def test_a_command_that_does_not_exist_is_found(code, stand_ins, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"```sh\n{code}\n```\n")
    with pytest.raises(AssertionError, match=r"No such file|command not found"):
        calls(page, stand_ins)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("mome-transcribe", ["talk.mp4", "--model", "model.zip", "--no_such", "1"]),
        ("mome-transcribe", ["talk.mp4"]),  # --model is missing
        ("python", ["-m", "mome.bin.train", "--no_such", "1"]),
        ("python", ["no_such.py"]),
        ("egs/mini_av/run.sh", ["--no_such", "1"]),
        ("egs/mini_av/run.sh", ["--train_config", "conf/no_such.yaml"]),
        ("egs/mini_av/run.sh", ["--decode_opts", "--no_such 1"]),
        ("egs/grid/run.sh", ["--prepare_opts", "--split no_such"]),
        ("egs/grid/local/hostile.py", ["--no_such"]),
        ("tools/setup.sh", ["--no_such"]),
    ],
)
def test_a_command_with_wrong_options_is_found(program, words, tmp_path, monkeypatch):
    with pytest.raises((AssertionError, SystemExit)):
        Checker(monkeypatch, tmp_path).check(Call(Path(), program, words), ROOT / "README.md")


def test_the_site_is_built_and_asks_no_other_host(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (tools/requirements.lock has it)")
    command = [ROOT / "tools/docs.sh", "--site-dir", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    built = {path.stem: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.html")}
    assert {page.stem for page in ROOT.glob("docs/*.md")} < set(built)
    assert "Attach an adapter to a frozen LM." in built["api"]
    assert 'href="lrs3.html#on-a-slurm-cluster"' in built["recipes"]
    assert "<em>These commands need GRID.</em>" in built["licences"]
    for name, text in built.items():
        requests = re.findall(r'<(?:script|link|img)\b[^>]* (?:src|href)="(?:https?:)?//', text)
        assert requests == [], f"{name} asks another host"


def test_the_site_is_not_built_with_a_dead_link(tmp_path, monkeypatch, caplog):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (tools/requirements.lock has it)")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort

    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    dead = ["no_such.md", "speed.md#no-such", "../egs/no_such.py"]
    links = [f"[x]({link})" for link in dead]
    (tmp_path / "docs/demo.md").write_text("\n".join(["# Demo", "", *links]))
    folders = {"docs_dir": str(tmp_path / "docs"), "site_dir": str(tmp_path / "site")}
    with pytest.raises(Abort, match="3 warnings"):
        build(load_config(str(ROOT / "mkdocs.yml"), strict=True, **folders))
    assert [link for link in dead if link not in caplog.text] == []

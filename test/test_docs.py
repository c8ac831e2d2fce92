"""Documents: links, files, errors that they quote."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("egs/**/*.md")]
# Not what recipes have written, which is ignored by git.
PAGES = [page for page in PAGES if not {"exp", "data", "dump"} & set(page.parts)]
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

"""Documents: their links lead somewhere, and files that they name are there."""

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

"""What MkDocs does with documents that are written for GitHub.

Documents outside docs/ are pages of the site too, README.md the first of them. Links between pages
are followed to where the pages lie in the site. Links to other files lead to the repository, whose
address is ``MOME_REPOSITORY``; without one their text is shown and no link. What the commands of a
block need, a comment on GitHub, is a line before them.
"""

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# Places in the repository -> in the site; those below docs/ keep theirs.
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "egs/TEMPLATE/README.md": "new_recipe.md",
    "egs/grid/RESULTS.md": "results/grid.md",
    "egs/grid/TRIALS.md": "results/grid_trials.md",
    "egs/lrs2/RESULTS.md": "results/lrs2.md",
    "egs/lrs3/RESULTS.md": "results/lrs3.md",
    "egs/mini_av/RESULTS.md": "results/mini_av.md",
    "egs/mini_av/TRIALS.md": "results/mini_av_trials.md",
    "tools/bench/growth.png": "images/growth.png",
}
SOURCES = {page: place for place, page in OUTSIDE.items()}
# Code, which is left as it is, or a link: a picture's mark, its text, its target.
LINK = re.compile(r"```.*?^```|`[^`\n]+`|(!?)\[([^\]]*)\]\(([^)\s]+)\)", re.MULTILINE | re.DOTALL)
NEEDS = re.compile(r"^<!-- needs: ([^;\n]+?)(?:; [^\n]+)? -->$", re.MULTILINE)
log = logging.getLogger("mkdocs.hooks.docs")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents that lie outside docs/."""
    for place, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / place)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Follow the page's links, and say what commands need."""
    here = page.file.src_uri
    place = SOURCES.get(here, f"docs/{here}")
    repository = config.extra["repository"]
    followed_all = LINK.sub(lambda link: followed(link, place, here, repository), markdown)
    return NEEDS.sub(r"*These commands need \1.*\n", followed_all)


def followed(link: re.Match[str], place: str, here: str, repository: str) -> str:
    """A link of a page as the site has it.

    Args:
        link: what was found, maybe code.
        place: the page in the repository.
        here: the page in the site.
        repository: its address; empty if it has none.
    """
    image, text, target = link.groups()
    if target is None or re.match(r"[a-z]+:|#", target):
        return link[0]
    path, sharp, anchor = target.partition("#")
    file = posixpath.normpath(posixpath.join(posixpath.dirname(place), path))
    if file in OUTSIDE or file.startswith("docs/"):
        page = OUTSIDE.get(file, file.removeprefix("docs/"))
        relative = posixpath.relpath(page, posixpath.dirname(here))
        return f"{image}[{text}]({relative}{sharp}{anchor})"
    if not (ROOT / file).exists():
        log.warning("%s: %s leads nowhere", place, target)
    if not repository:
        return text
    kind = "raw" if image else "blob"
    return f"{image}[{text}]({repository.rstrip('/')}/{kind}/main/{file}{sharp}{anchor})"


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave out the roles of docstrings, such as :class:, before names that are code already."""
    return re.sub(r":(?:class|func|meth|mod):(?=<code>)", "", html)

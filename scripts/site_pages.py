"""Adds to the documentation site what is not in docs/; mkdocs calls it (`hooks` in mkdocs.yml).

The README and other pages from the top of the repository, with their links; the notebooks, which `make notebooks` has
run; and MathJax, from the package that brings it, so that the site loads nothing from elsewhere.
"""

import os
import re
from pathlib import Path

import mathjax
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

TOP = Path(__file__).parents[1]
NOTEBOOKS = TOP / "build" / "notebooks"
MATHJAX = Path(mathjax.__file__).parent / "static" / "mathjax" / "es5" / "tex-svg.js"
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "scripts/README.md": "scripts.md",
}
"""File of the repository → page of the site."""
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(TOP / source)))
    for path in sorted(NOTEBOOKS.rglob("*")):
        if path.suffix in (".md", ".ipynb", ".png"):
            uri = f"notebooks/{path.relative_to(NOTEBOOKS).as_posix()}"
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    files.append(File.generated(config, f"mathjax/{MATHJAX.name}", abs_src_path=str(MATHJAX)))
    for file in [file for file in files if file.src_uri.endswith(".py")]:  # the notebooks' sources
        files.remove(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    sources = {of: source for source, of in PAGES.items()}
    uri = page.file.src_uri
    if uri.startswith("notebooks/"):
        markdown += f"\n\n[This page as a notebook]({Path(uri).stem}.ipynb)\n"
    return relinked(markdown, sources.get(uri, f"docs/{uri}"), uri)


def relinked(markdown: str, source: str, page: str) -> str:
    """The text of a file of the repository, with its links to other files as links from a page of the site."""

    def link(found: re.Match[str]) -> str:
        target, anchor = found[1], found[2] or ""
        file = os.path.normpath(Path(source).parent / target)
        if file not in PAGES and not file.startswith("docs/"):
            return found[0]  # mkdocs reports it, as it reports every link that leads nowhere
        there = PAGES.get(file, re.sub(r"^docs/(notebooks/\w+)\.py$", r"docs/\1.md", file).removeprefix("docs/"))
        return f"]({os.path.relpath(there, Path(page).parent)}{anchor})"

    return LINK.sub(link, markdown)

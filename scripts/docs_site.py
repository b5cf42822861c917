"""Hooks of mkdocs.yml: which pages the site has, in what order, and where links between repository files lead there.

A page is a Markdown file at its place in the repository; README.md and the examples' become pages of their own. A source file that some page links to becomes a
page that shows it. A new file in docs/ needs no entry here: it comes at the end of its folder's section.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[1]
ELSEWHERE = {"README.md": "index.md", "examples/README.md": "examples.md", "benchmarks/README.md": "benchmarks.md"}
"""Repository path -> site path of the pages that lie outside docs/."""
SECTIONS = {
    "Start": ("index.md", "bring-your-own.md", "real-models.md", "scale.md", "vllm.md", "sharded-learner.md", "ray.md", "software-tasks.md", "examples.md"),
    "Compare and check": ("how-to-compare.md", "claims.md", "experiments.md", "statistics.md", "probe.md"),
    "Methods": ("methods/",),
    "Inside": ("architecture.md", "engine.md", "remote-models.md", "sandbox.md", "tiny-model.md", "how-to-add-a-method.md", "benchmarks.md", "dependencies.md"),
    "API": ("api/",),
}
"""Section -> pages in order; a folder stands for all in it. Pages that are not there are left out."""
ROOMS = (
    "advantages",
    "objectives",
    "rewards",
    "rollouts",
    "memory",
    "sandbox",
    "evals",
    "tasks.base",
    "types",
    "method",
    "loop",
    "config",
    "models.sampling",
    "models.responders",
    "models.remote",
    "models.structured",
    "models.scripted",
    "rewards.critiques",
)
"""Modules below etude that have a page of the API reference."""
TITLES = {
    "index.md": "What it is",
    "bring-your-own.md": "Bring your own",
    "examples.md": "Examples",
    "engine.md": "Engine and learner",
    "tiny-model.md": "The model tiny",
}
"""Short titles for the list of pages, where a page's own is long."""
FIRST = ("methods/baselines.md", "api/etude.md")
"""Pages that come first in their folder."""

_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)")
_FENCES = {".py": "python", ".jsonl": "json", ".toml": "toml"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and say in which order all of them come."""
    from mkdocs.structure.files import File

    for path, uri in ELSEWHERE.items():
        files.append(File.generated(config, uri, content=(REPOSITORY / path).read_text()))
    for uri, text in api_pages().items():
        files.append(File.generated(config, uri, content=text))
    pages = files.documentation_pages()
    for path in sorted({target for file in pages for target in linked_sources(file.content_string, file.src_uri)}):
        fence = _FENCES.get(Path(path).suffix, "text")
        text = f"# {path}\n\n~~~~~{fence}\n{(REPOSITORY / path).read_text()}\n~~~~~\n"
        files.append(File.generated(config, site_path(path), content=text))
    config.nav = navigation(file.src_uri for file in pages)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where the linked file is on the site."""
    return with_site_links(markdown, page.file.src_uri)


def with_site_links(markdown: str, uri: str) -> str:
    """The text of the page at `uri` with its links between repository files led to pages of the site. Links to what is not there stay, and fail the build."""
    here = os.path.dirname(repository_path(uri))

    def led(match: re.Match[str]) -> str:
        target = os.path.normpath(os.path.join(here, match[1]))
        return os.path.relpath(site_path(target), os.path.dirname(uri) or ".") if (REPOSITORY / target).is_file() else match[1]

    return _LINK.sub(led, markdown)


def site_path(path: str) -> str:
    """Where a file of the repository is on the site."""
    if path in ELSEWHERE:
        return ELSEWHERE[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else f"source/{path}.md"


def repository_path(uri: str) -> str:
    """The file of the repository that a page of the site is made from."""
    return next((path for path, made in ELSEWHERE.items() if made == uri), f"docs/{uri}")


def linked_sources(markdown: str, uri: str) -> set[str]:
    """Files outside the documentation that the page at `uri` links to."""
    here = os.path.dirname(repository_path(uri))
    targets = {os.path.normpath(os.path.join(here, target)) for target in _LINK.findall(markdown)}
    return {t for t in targets if not t.startswith("docs/") and t not in ELSEWHERE and (REPOSITORY / t).is_file()}


def api_pages() -> dict[str, str]:
    """Site path -> text of the API reference: the names that `import etude` offers, then its rooms."""
    package = importlib.import_module("etude")
    public = "\n\n".join(f"::: {module}.{name}" for module, names in package._HOMES.items() for name in names)
    pages = {"api/etude.md": f"# etude\n\nWhat `import etude` offers. Every name is loaded when it is first used.\n\n{public}\n"}
    for room in ROOMS:
        # What etude.md describes is not described again: a name has one place that others link to.
        known = "|".join(["_.*", *package._HOMES.get(f"etude.{room}", ())])
        options = f"    options:\n      filters: ['!^({known})$']\n      show_root_heading: false\n      show_root_toc_entry: false\n"
        pages[f"api/{room}.md"] = f"# etude.{room}\n\n::: etude.{room}\n{options}"
    return pages


def navigation(uris: Iterable[str]) -> list[dict[str, list[Any]]]:
    """The sections with the pages that there are; whatever no section names comes last."""
    left = sorted(uris, key=lambda uri: (uri not in FIRST, uri))
    found: list[dict[str, list[Any]]] = []
    for title, entries in SECTIONS.items():
        pages = [uri for entry in entries for uri in left if uri == entry or (entry.endswith("/") and uri.startswith(entry))]
        left = [uri for uri in left if uri not in pages]
        if pages:
            found.append({title: [{TITLES[uri]: uri} if uri in TITLES else uri for uri in pages]})
    return [*found, *([{"More": left}] if left else [])]

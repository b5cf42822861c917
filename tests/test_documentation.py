"""The documentation's links lead somewhere, in the repository and on the site that `make docs` builds."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", *sorted(path for folder in ("docs", "examples", "benchmarks") for path in (REPOSITORY / folder).rglob("*.md"))]


def tokens(text: str) -> Iterator[Token]:
    """All tokens of a page, those inside lines too."""
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        yield token
        yield from token.children or []


def targets(text: str) -> list[str]:
    """What a page's links and images point at."""
    found = [token.attrGet({"link_open": "href", "image": "src"}.get(token.type, "")) for token in tokens(text)]
    return [str(target) for target in found if target]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them: lower case, punctuation left out, spaces as hyphens, repeats numbered."""
    found: set[str] = set()
    parsed = MarkdownIt("commonmark").parse(text)
    for opening, line in pairwise(parsed):
        if opening.type == "heading_open":
            title = "".join(child.content for child in line.children or [])
            slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            found.add(next(name for n in range(100) if (name := f"{slug}-{n}" if n else slug) not in found))
    return found


def complaints(page: Path) -> list[str]:
    """Links of a page within the repository that lead nowhere, where the page lies or on the site that is made of docs/."""
    found = []
    for target in targets(page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.is_relative_to(REPOSITORY) or not file.exists():
            found.append(f"{target}: there is no such file")
        elif file.is_dir() and page.is_relative_to(REPOSITORY / "docs"):
            found.append(f"{target}: a folder is no page of the site; expected a file in it")
        elif "--" in anchor:
            found.append(f"{target}: the site makes one hyphen of several; expected a heading without a dash or other marks between words")
        elif anchor and anchor not in anchors(file.read_text()):
            found.append(f"{target}: there is no such heading; there are {', '.join(sorted(anchors(file.read_text())))}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    assert complaints(page) == []


def test_links_that_lead_nowhere_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "REPOSITORY", tmp_path)
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    other.write_text("# A `title`, twice?\n\n## A title twice\n\n```\n# no heading\n```\n")
    page.write_text(
        "# Here\n[a](other.md) [b](other.md#a-title-twice) [c](other.md#a-title-twice-1) [d](#here) [e](https://x.org/nowhere)\n\n"
        "[f](absent.md) [g](other.md#no-heading) [h](#there) ![i](no.png) [j](/etc/passwd)\n\n| a |\n|---|\n| [k](gone.md) |\n\n`[l](code.md)`\n\n    [m](code.md)\n"
    )
    assert [complaint.split(":")[0] for complaint in complaints(page)] == ["absent.md", "other.md#no-heading", "#there", "no.png", "/etc/passwd", "gone.md"]


@pytest.fixture(scope="module")
def site() -> ModuleType:
    """scripts/docs_site.py."""
    spec = importlib.util.spec_from_file_location("docs_site", REPOSITORY / "scripts" / "docs_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_come_in_order_whether_all_are_there_or_not(site: ModuleType) -> None:
    pages = ["api/config.md", "api/etude.md", "architecture.md", "index.md", "methods/zeal.md", "methods/baselines.md"]
    assert site.navigation(pages) == [
        {"Start": [{"What it is": "index.md"}]},
        {"Methods": ["methods/baselines.md", "methods/zeal.md"]},
        {"Inside": ["architecture.md"]},
        {"API": ["api/etude.md", "api/config.md"]},
    ]
    assert site.navigation([*pages, "claims.md", "new.md"])[1:2] == [{"Compare and check": ["claims.md"]}]
    assert site.navigation([*pages, "claims.md", "new.md"])[-1] == {"More": ["new.md"]}


def test_links_are_led_to_pages_of_the_site(site: ModuleType) -> None:
    readme = "[a](docs/architecture.md) [b](docs/engine.md#the-engine) ![c](docs/images/report.png) [d](LICENSE) [e](https://x.org) [f](#here) [g](absent.md)"
    assert site.with_site_links(readme, "index.md") == (
        "[a](architecture.md) [b](engine.md#the-engine) ![c](images/report.png) [d](source/LICENSE.md) [e](https://x.org) [f](#here) [g](absent.md)"
    )
    page = "[a](../../src/etude/loop.py) [b](../../README.md) [c](../architecture.md) [d](../../examples/README.md)"
    assert (
        site.with_site_links(page, "methods/baselines.md") == "[a](../source/src/etude/loop.py.md) [b](../index.md) [c](../architecture.md) [d](../examples.md)"
    )
    assert site.linked_sources(page, "methods/baselines.md") == {"src/etude/loop.py"}


def test_the_reference_names_what_there_is(site: ModuleType) -> None:
    import etude

    pages = site.api_pages()
    assert set(re.findall(r"^::: etude\.[\w.]*?(\w+)$", pages["api/etude.md"], re.MULTILINE)) == set(etude.__all__)
    for room in site.ROOMS:
        assert importlib.util.find_spec(f"etude.{room}") is not None

"""The methods as tables: what `etude list` shows, and the table in README.md, which is generated.

python -m etude.catalogue --check     is README.md up to date?
python -m etude.catalogue --write     bring it up to date
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from etude.cards import Listing, is_own, listings
from etude.durable import replace_file
from etude.errors import EtudeError, InputError, nearest

REPOSITORY = Path(__file__).resolve().parents[2]
"""Where README.md and docs/ are, when this is a source tree."""
CLAIMS = REPOSITORY / "docs" / "claims"
SHIPPED = Path(__file__).resolve().parent / "assets" / "claims.json"
"""The verdicts that travel with the package, by slug: an installed one has no docs/. `etude claims` writes them."""
START, END = "<!-- methods:start -->", "<!-- methods:end -->"
NO_CLAIM, NOT_RUN = "—", "not run"
_ARXIV = re.compile(r"\d{4}\.\d{4,5}(v\d+)?")


@dataclass(frozen=True)
class Entry:
    """One method as the tables show it. `link` is empty for a paper that is not on arXiv."""

    slug: str
    name: str
    family: str
    paper: str
    link: str
    title: str
    summary: str
    evolves: str
    claim: str
    searches: bool = False


def entries(family: str | None = None, *, claims: Path = CLAIMS) -> list[Entry]:
    """All methods and studies with a claim, or those of one family, by family and slug.

    claims: folder with the verdicts, one SLUG.json a claim.
    Raises InputError for a family that there is not.
    """
    known = listings()
    families = sorted({listing.card.family for listing in known})
    if family is not None and family not in families:
        raise InputError(f"there is no family {family!r}.{nearest(family, families)} Families: {', '.join(families) or 'none yet'}")
    chosen = [listing for listing in known if family in (None, listing.card.family)]
    # The baselines come first: everything else is compared with them.
    return [_entry(listing, claims) for listing in sorted(chosen, key=lambda each: (each.card.family != "baselines", each.card.family, each.card.slug))]


def _entry(listing: Listing, claims: Path) -> Entry:
    card = listing.card
    link = f"https://arxiv.org/abs/{card.paper}" if _ARXIV.fullmatch(card.paper) else ""
    return Entry(card.slug, card.name, card.family, card.paper, link, card.title, card.summary, card.evolves, claim_state(listing, claims), card.searches)


def claim_state(listing: Listing, claims: Path = CLAIMS) -> str:
    """The verdict on a method's claim as its file has it; 'not run' without a file, '—' without a claim."""
    if not listing.has_claim:
        return NO_CLAIM
    if not claims.is_dir():
        return shipped_verdict(listing.card.slug)
    path = claims / f"{listing.card.slug}.json"
    if not path.is_file():
        return NOT_RUN
    try:
        return str(json.loads(path.read_text())["verdict"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds no verdict: {error}; expected a JSON object with an entry `verdict`") from error


def shipped_verdict(slug: str) -> str:
    """The verdict on a claim that travels with the package; 'not run' where there is none."""
    return str(json.loads(SHIPPED.read_text()).get(slug, NOT_RUN)) if SHIPPED.is_file() else NOT_RUN


def as_json(rows: Sequence[Entry]) -> str:
    """The methods as a JSON list."""
    return json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False)


def as_tables(rows: Iterable[Entry]) -> RenderableType:
    """One table a family, for a terminal."""
    parts: list[RenderableType] = []
    for family, group in groupby(rows, key=lambda row: row.family):
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title=family, title_justify="left", title_style="bold")
        for name in ("method", "name", "paper", "changes"):
            table.add_column(name, no_wrap=name != "name")
        table.add_column("what it does", ratio=1, min_width=20)
        table.add_column("claim", no_wrap=True)
        for row in group:
            paper = Text(row.paper or NO_CLAIM, style=f"link {row.link}" if row.link else "")
            table.add_row(Text(row.slug, style="bold"), row.name, paper, row.evolves, row.summary, row.claim)
        parts += [table, Text()]
    return Group(*parts[:-1])


def method_table(rows: Sequence[Entry] | None = None) -> str:
    """The methods as one Markdown table; by default Étude's own, whatever else is installed."""
    lines = ["| method | family | paper | what it does | changes | claim |", "|---|---|---|---|---|---|"]
    for row in [row for row in entries() if is_own(row.slug)] if rows is None else rows:
        paper = f"[{row.paper}]({row.link})" if row.link else row.paper or NO_CLAIM
        cells = (f"`{row.slug}`", row.family, paper, f"**{row.name}**: {row.summary}", row.evolves, row.claim)
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)


def with_table(text: str, table: str) -> str:
    """A page with the table between its markers. Raises InputError when it has no such place."""
    start, end = text.find(START), text.find(END)
    if start < 0 or end < start:
        raise InputError(f"there is no place for the method table; expected a line {START} and below it a line {END}")
    return f"{text[: start + len(START)]}\n{table}\n{text[end:]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check or write the table in README.md."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given not in (["--check"], ["--write"]):
        print(__doc__, file=sys.stderr)
        return 2
    path = REPOSITORY / "README.md"
    try:
        text = path.read_text()
        new = with_table(text, method_table())
    except (EtudeError, OSError) as error:
        print(f"error: {path}: {error}", file=sys.stderr)
        return 2
    if given == ["--write"]:
        replace_file(path, new)
    elif new != text:
        print("error: the method table in README.md is out of date; run: python -m etude.catalogue --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

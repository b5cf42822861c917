"""The claims as tables: a short one in README.md, all of them in docs/claims.md. Both are generated from docs/claims/*.json by `etude claims`.

So is the picture of each, docs/claims/SLUG.svg, which can thus be drawn again without running anything.

The verdicts are also written to assets/claims.json, which travels with the package: `etude list` shows them where there is no docs/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etude import catalogue
from etude.cards import card_of, is_own, known_cards
from etude.catalogue import CLAIMS, REPOSITORY, SHIPPED
from etude.durable import replace_file
from etude.errors import InputError
from etude.evals.claim_files import is_current, is_source_tree, read_results, shipped_verdicts
from etude.evals.verdict import LEVEL
from etude.method import MethodCard
from etude.viewer.claim import bounds, compared, interval, number_or, outcome, settling
from etude.viewer.claim_picture import picture_of

MARKERS = ("<!-- claims:start -->", "<!-- claims:end -->")
NOT_RUN = "not run"
_ARXIV = re.compile(r"\d{4}\.\d{4,5}(v\d+)?")


def with_claims(text: str, table: str, page: str) -> str:
    """A page with the generated part between its markers. Raises InputError when it has no such place."""
    start, end = (text.find(marker) for marker in MARKERS)
    if start < 0 or end < start:
        raise InputError(f"there is no place for the claims in {page}; expected a line {MARKERS[0]} and below it a line {MARKERS[1]}")
    return f"{text[: start + len(MARKERS[0])]}\n{table}\n{text[end:]}"


def cards_with_claims() -> list[MethodCard]:
    """Cards of Étude's own methods and studies that have a claim: baselines first, then by family and slug."""
    cards = [card for slug in known_cards() if is_own(slug) and (card := card_of(slug)).claim is not None]
    return sorted(cards, key=lambda card: (card.family != "baselines", card.family, card.slug))


def surviving(results: Mapping[str, Mapping[str, Any]]) -> dict[str, bool]:
    """For each supported claim, whether it is still supported when all claims are read together: Holm's correction over every claim that was tested.

    A claim's p-value is the largest of its effect tests', because it holds only if all of them do.
    """
    from etude.evals.statistics import holm

    tested = {slug: r["p_value"] for slug, r in results.items() if r["verdict"] != "void" and r["p_value"] is not None}
    adjusted = holm(tested) if tested else {}
    return {slug: adjusted[slug] <= 1 - LEVEL for slug, r in results.items() if r["verdict"] == "supported"}


def short_table(cards: Sequence[MethodCard], results: Mapping[str, Mapping[str, Any]]) -> str:
    """The README's table: one row a claim."""
    survives = surviving(results)
    lines = ["| method | expected | seen | verdict |", "|---|---|---|---|"]
    for card in cards:
        assert card.claim is not None
        result = results.get(card.slug)
        seen = _seen(result) if result else ""
        lines.append(_row([f"[`{card.slug}`](docs/claims.md#{card.slug})", card.claim.expectation, seen, verdict_text(result, survives.get(card.slug))]))
    return "\n".join(lines)


def long_page(cards: Sequence[MethodCard], results: Mapping[str, Mapping[str, Any]]) -> str:
    """The generated part of docs/claims.md: the table of all claims, then a section on each."""
    survives = surviving(results)
    lines = [
        "| method | paper | the paper says | seen (difference, 95 % interval) | verdict | ablation | seeds | command |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for card in cards:
        assert card.claim is not None
        result = results.get(card.slug)
        paper = f"[{card.paper}](https://arxiv.org/abs/{card.paper})" if _ARXIV.fullmatch(card.paper) else card.paper or "—"
        seen, ablation, seeds = (_seen(result), _ablation(result), str(len(result["seeds"]))) if result else ("", "", "")
        command = result["command"] if result else f"etude reproduce {card.slug}"
        verdict = verdict_text(result, survives.get(card.slug))
        lines.append(_row([f"[`{card.slug}`](#{card.slug})", paper, card.claim.statement, seen, verdict, ablation, seeds, f"`{command}`"]))
    tested = sum(r["verdict"] != "void" for r in results.values())
    lines += ["", f"Claims judged: {tested}. A verdict is marked where it does not survive Holm's correction over these.", ""]
    return "\n".join([*lines, *(line for card in cards for line in _section(card, results.get(card.slug), survives.get(card.slug)))]).rstrip()


def verdict_text(result: Mapping[str, Any] | None, survives: bool | None) -> str:
    """The verdict as a table shows it, with a remark where it does not survive correction over all claims."""
    if result is None:
        return NOT_RUN
    return f"**{result['verdict']}**" + (", but not among all claims" if survives is False else "")


def _section(card: MethodCard, result: Mapping[str, Any] | None, survives: bool | None) -> list[str]:
    claim = card.claim
    assert claim is not None
    lines = [f"### {card.slug}", "", f"*{card.name}.* The paper says: {claim.statement}", "", f"Expected here: {claim.expectation}", ""]
    if claim.tried:
        lines += [f"Tuning: {claim.tried}", ""]
    if result is None:
        return [*lines, f"Not run yet: `etude reproduce {card.slug}`.", ""]
    lines += [f"Verdict: {verdict_text(result, survives)}. " + " ".join(f"{reason}." for reason in result["reasons"]), ""]
    if result["preconditions"]:
        lines += ["| precondition | measure | mean | expected | |", "|---|---|---:|---|---|"]
        lines += [
            _row(
                [
                    p["name"],
                    f"{p['measure']} of `{p['arm']}`",
                    number_or(p["mean"], "{:.3g}"),
                    bounds(p),
                    "holds" if p["holds"] else f"**fails**: {p['otherwise']}",
                ]
            )
            for p in result["preconditions"]
        ]
        lines.append("")
    if result["tests"]:
        lines += ["| test | measure | difference | 95 % interval | p | smallest detectable | outcome |", "|---|---|---:|---|---:|---:|---|"]
        lines += [_test_row(test) for test in result["tests"]]
        lines.append("")
    lines += [line for test in result["tests"] if (hint := settling(test)) for line in (f"{hint}.", "")]
    if picture_of(result) is not None:
        lines += [f"![{card.name}: {_shown(result)}](claims/{card.slug}.svg)", ""]
    made = f"{len(result['seeds'])} seeds from {result['seeds'][0]}, {result['design']['budget']} an arm"
    return [*lines, f"{made}: `{result['command']}`. All numbers: [{card.slug}.json](claims/{card.slug}.json).", ""]


def _shown(result: Mapping[str, Any]) -> str:
    """What the claim's picture plots."""
    if result["curves"] is not None:
        return f"{result['curves']['metric']} of each arm over the budget"
    return f"values of each seed and mean differences: {'; '.join(test['name'] for test in result['tests'])}"


def _test_row(test: Mapping[str, Any]) -> str:
    difference, detectable = number_or(test["difference"]["estimate"], "{:+.3g}"), number_or(test["detectable"], "{:.3g}")
    return _row([test["name"], compared(test), difference, interval(test), number_or(test["adjusted_p_value"], "{:.3f}"), detectable, outcome(test)])


def _seen(result: Mapping[str, Any]) -> str:
    if result["verdict"] == "void":
        return "; ".join(result["reasons"])
    effects = [test for test in result["tests"] if test["role"] == "effect"]
    return "; ".join(f"{test['name']}: {number_or(test['difference']['estimate'], '{:+.3g}')} {interval(test)}" for test in effects)


def _ablation(result: Mapping[str, Any]) -> str:
    said = [f"{test['name']}: {test['ablation']}" for test in result["tests"] if test["role"] == "ablation"]
    return "; ".join(said) or "—"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def pages() -> dict[Path, str]:
    """Every generated file with the content that it should have: the two pages, the verdicts that travel with the package, and a picture of each result.

    Raises InputError outside a source tree, for a page without a place for the claims, and for a result that cannot be read, has no method, or is of a claim
    that has changed since.
    """
    if not is_source_tree():
        raise InputError("there is no source tree of Étude here, so no page to write; `etude list` shows the verdicts that travel with the package")
    cards, results = cards_with_claims(), read_results()
    by_slug = {card.slug: card for card in cards}
    for slug, result in results.items():
        card = by_slug.get(slug)
        if card is None or card.claim is None:
            raise InputError(f"{CLAIMS / slug}.json is the result of a claim that no method makes; remove it")
        if not is_current(result, card.claim):
            raise InputError(f"the claim of {slug} has other arms, settings or tests than when it was run; run it again with: etude reproduce {slug}")
    readme, page = REPOSITORY / "README.md", REPOSITORY / "docs" / "claims.md"
    text = with_claims(readme.read_text(), short_table(cards, results), readme.name)
    return {
        readme: catalogue.with_table(text, catalogue.method_table()),
        page: with_claims(page.read_text(), long_page(cards, results), page.name),
        SHIPPED: shipped_verdicts(results.values()),
        **{CLAIMS / f"{slug}.svg": picture for slug, result in results.items() if (picture := picture_of(result)) is not None},
    }


def write_pages() -> list[Path]:
    """Bring every generated file up to date; returns those that changed. Raises as `pages` does."""
    changed = _outdated()
    for path, text in changed.items():
        replace_file(path, text)
    return list(changed)


def outdated_pages() -> list[Path]:
    """Generated files whose content is not what it should be. Raises as `pages` does."""
    return list(_outdated())


def _outdated() -> dict[Path, str]:
    return {path: text for path, text in pages().items() if not path.is_file() or path.read_text() != text}

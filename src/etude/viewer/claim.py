"""What a claim's check found, in words: in the terminal, and the phrases that tables and pictures share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

STYLES = {"supported": "bold green", "not supported": "bold red", "inconclusive": "bold yellow", "void": "bold magenta"}


def claim_report(result: Mapping[str, Any]) -> RenderableType:
    """The paper's statement, ours, every test with its interval, and the verdict."""
    paper = f" ({result['paper']})" if result["paper"] else ""
    words = Table.grid(padding=(0, 2, 0, 0))
    words.add_column(style="dim", no_wrap=True)
    words.add_column()
    words.add_row("the paper says", result["statement"])
    words.add_row("expected here", result["expectation"])
    words.add_row("run", f"{len(result['seeds'])} seeds from {result['seeds'][0]}, {result['design']['budget']} an arm")
    parts: list[RenderableType] = [Text(f"{result['name']}{paper}", style="bold"), words, Text()]
    if result["preconditions"]:
        parts += [_preconditions(result), Text()]
    if result["tests"]:
        parts += [_tests(result), Text()]
    parts.append(Text.assemble("verdict: ", (result["verdict"], STYLES[result["verdict"]])))
    parts += [Text(f"  {reason}") for reason in result["reasons"]]
    parts += [Text(f"  {hint}") for test in result["tests"] if (hint := settling(test))]
    if result["quick"]:
        parts.append(Text("This was a quick check of the machinery. It says nothing about the claim.", style="yellow"))
    return Group(*parts)


def _tests(result: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("test", "measure", "difference", "95 % interval", "smallest detectable", "p", "outcome"):
        table.add_column(name, justify="right" if name in ("difference", "p", "smallest detectable") else "left")
    for test in result["tests"]:
        style = STYLES[test["verdict"]]
        p = number_or(test["adjusted_p_value"], "{:.3f}")
        difference, detectable = number_or(test["difference"]["estimate"], "{:+.3g}"), number_or(test["detectable"], "{:.3g}")
        table.add_row(test["name"], compared(test), difference, interval(test), detectable, p, Text(outcome(test), style=style))
    return table


def _preconditions(result: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("precondition", "measure", "mean", "expected", ""):
        table.add_column(name)
    for found in result["preconditions"]:
        mark = Text("holds", style="green") if found["holds"] else Text("fails", style="bold red")
        table.add_row(found["name"], f"{found['measure']} of {found['arm']}", number_or(found["mean"], "{:.3g}"), bounds(found), mark)
    return table


def compared(test: Mapping[str, Any]) -> str:
    """'final eval/pass@1: dapo − grpo, higher by more than 0.02'."""
    arms = f"{test['treatment']} − {test['control']}" if test["control"] is not None else test["treatment"]
    margin = f" by more than {test['margin']:g}" if test["margin"] else ""
    return f"{test['measure']}: {arms}, {test['better']}{margin}"


def interval(test: Mapping[str, Any]) -> str:
    """'[+0.01, +0.04]'; an end that is infinite is written as such."""
    low, high = test["difference"]["low"], test["difference"]["high"]
    return f"[{number_or(low, '{:+.3g}', '−∞')}, {number_or(high, '{:+.3g}', '∞')}]"


def outcome(test: Mapping[str, Any]) -> str:
    """'supported', 'ablation confirms'."""
    return f"ablation {test['ablation']}" if test["role"] == "ablation" else test["verdict"]


def bounds(found: Mapping[str, Any]) -> str:
    """'at least 0.1 and at most 0.9'."""
    return " and ".join(f"{word} {found[key]:g}" for word, key in (("at least", "at_least"), ("at most", "at_most")) if found[key] is not None)


def settling(test: Mapping[str, Any]) -> str | None:
    """How many seeds would settle a test that is inconclusive; None for one that is not."""
    if test["verdict"] != "inconclusive" or test["role"] != "effect":
        return None
    seeds = test["seeds_to_settle"]
    if seeds is None:
        return f"{test['name']}: no affordable number of seeds would settle a difference this small"
    return f"{test['name']}: about {seeds} seeds would settle it, if the difference is as seen (--seeds {seeds})"


def number_or(value: float | None, form: str, otherwise: str = "–") -> str:
    """A number in a form; `otherwise` where JSON has no number for it."""
    return otherwise if value is None else form.format(value)

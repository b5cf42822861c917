"""A comparison as a terminal shows it at the end."""

from __future__ import annotations

import math
from dataclasses import replace

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from etude.evals.comparison import ArmResult, Comparison
from etude.evals.statistics import Interval
from etude.viewer.live import open_console
from etude.viewer.numbers import count, interval_text, is_share, number, title_of, value_text


def print_comparison(comparison: Comparison, *, console: Console | None = None) -> None:
    """Say what was compared, how the arms did, what deserves a look, and where everything is."""
    console = console if console is not None else open_console()
    console.print()
    console.print(Text(headline(comparison), style="bold"))
    for remark in comparison.remarks:
        console.print(Text(f"! {remark}", style="yellow"))
    if comparison.tuning:
        console.print(Padding(tuning_table(comparison), (1, 0, 0, 0)))
    console.print(Padding(result_table(comparison, wide=console.width >= 110), (1, 0, 0, 0)))
    console.print(Text(legend(comparison), style="dim"))
    console.print()
    for name, value in (("page", comparison.folder / "compare.html"), ("numbers", comparison.folder / "compare.json"), ("repeat", comparison.command)):
        console.print(Text.assemble((f"{name:<9}", "dim"), str(value)), soft_wrap=True)


def headline(comparison: Comparison) -> str:
    """The comparison in one sentence, which claims no more than the intervals allow."""
    first = comparison.arms[0].arm.name
    metric, at = title_of(comparison.metric), f"after {comparison.budget}"
    clear = [(a.arm.name, verdict(a, comparison.lower_is_better)) for a in comparison.arms[1:]]
    better, worse = ([name for name, said in clear if said == kind] for kind in ("better", "worse"))
    parts = [f"{_list(better)} did better than {first}"] if better else []
    parts += [f"{_list(worse)} did worse" + ("" if better else f" than {first}")] if worse else []
    if parts:
        return f"{' and '.join(parts)} by {metric} {at}"
    if all(a.difference is None for a in comparison.arms[1:]):
        return f"{_list([a.arm.name for a in comparison.arms])} by {metric} {at}: nothing can be compared"
    return f"No arm can be told from {first} by {metric} {at}"


def verdict(result: ArmResult, lower_is_better: bool) -> str:
    """`better` or `worse` when the difference's interval excludes zero, `same` when it does not, empty without one."""
    if result.difference is None:
        return ""
    interval = result.difference.final
    if interval.low <= 0 <= interval.high:
        return "same"
    return "better" if (interval.low > 0) != lower_is_better else "worse"


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def result_table(comparison: Comparison, *, wide: bool = True) -> Table:
    """One row an arm, an estimate above its interval. A narrow table leaves the differences on the way out."""
    first, unit = comparison.arms[0].arm.name, comparison.budget.unit
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("arm", style="bold", overflow="fold")
    titles = [f"final {title_of(comparison.metric)}", "mean on the way", f"final − {first}", f"on the way − {first}", f"{unit} to {first}’s final", "runs"]
    for i, title in enumerate(titles):
        if wide or i != 3:
            table.add_column(title, justify="right")
    for result in comparison.arms:
        cells = _cells(comparison, result)
        table.add_row(result.arm.name, *(cell for i, cell in enumerate(cells) if wide or i != 3))
    return table


def _cells(comparison: Comparison, result: ArmResult) -> list[Text]:
    name, failed, gap = comparison.metric, result.failed, result.difference
    runs = Text(f"{len(result.seeds) - len(failed)} of {len(result.seeds)}", style="bold red" if failed else "")
    if result.final is None or result.area is None:
        kind = "crashed" if any(seed.status == "crashed" for seed in failed) else "interrupted"
        return [Text(kind, style="bold red"), *(Text("–") for _ in range(4)), runs]
    style = {"better": "green", "worse": "red"}.get(verdict(result, comparison.lower_is_better), "")
    return [
        _estimate(name, result.final),
        _estimate(name, result.area),
        _two_lines(difference_text(name, gap.final), style) if gap else Text("–"),
        _two_lines(difference_text(name, gap.area)) if gap else Text("–"),
        Text(reach_text(comparison, result)),
        runs,
    ]


def _estimate(name: str, interval: Interval) -> Text:
    return Text.assemble(value_text(name, interval.estimate), (f"\n{ends_text(name, interval)}".rstrip(), "dim"))


def _two_lines(text: str, style: str = "") -> Text:
    estimate, bracket, ends = text.partition(" [")
    return Text.assemble((estimate, style), (f"\n[{ends}" if bracket else "", "dim"))


def ends_text(name: str, interval: Interval) -> str:
    """The ends of an interval; those of a share are cut at 0 and 100 %, which t intervals do not know of."""
    known = within_share(name, interval)
    return interval_text(name, known.low, known.high)


def within_share(name: str, interval: Interval) -> Interval:
    """An interval of a share, cut at 0 and 1; any other as it is, and one that is infinite too."""
    if not is_share(name) or not math.isfinite(interval.low):
        return interval
    return replace(interval, low=max(0.0, interval.low), high=min(1.0, interval.high))


def difference_text(name: str, interval: Interval) -> str:
    """'+4.1 [+1.0, +7.2] points' for shares, '+0.3 [0.1, 0.5]' otherwise; without the brackets where nothing is known."""
    scale, unit = (100.0, " points") if is_share(name) else (1.0, "")

    def signed(value: float) -> str:
        text = f"{abs(scale * value):.1f}" if is_share(name) else number(abs(value))
        return ("−" if value < 0 else "+") + text

    known = math.isfinite(interval.low) and math.isfinite(interval.high)
    return signed(interval.estimate) + (f" [{signed(interval.low)}, {signed(interval.high)}]" if known else "") + unit


def reach_text(comparison: Comparison, result: ArmResult) -> str:
    """What the arm's mean curve needs to come to the first arm's mean final value."""
    if comparison.target is None or result.final is None:
        return "–"
    return "not reached" if result.reach is None else count(result.reach)


def tuning_table(comparison: Comparison) -> Table:
    """What a sweep tried, and chose."""
    seeds = comparison.tuning[0]["seeds"]
    table = Table(
        box=None, padding=(0, 3, 0, 0), header_style="dim", title=f"tuning, on seeds {', '.join(map(str, seeds))}", title_justify="left", title_style="dim"
    )
    table.add_column("arm", style="bold")
    table.add_column("setting")
    table.add_column(f"final {title_of(comparison.metric)}", justify="right")
    table.add_column("")
    for trial in comparison.tuning:
        setting = ", ".join(f"{name} {value}" for name, value in trial["settings"].items())
        score = value_text(comparison.metric, trial["score"]) if all(v is not None for v in trial["values"]) else "crashed"
        table.add_row(trial["arm"], setting, score, Text("chosen", style="green") if trial["chosen"] else "")
    return table


def legend(comparison: Comparison) -> str:
    """How the numbers were made."""
    seeds = len(comparison.seeds)
    return (
        f"{seeds} seed{'s' if seeds > 1 else ''}; values at {comparison.budget}, read off the learning curves; [95 % intervals, seeds as the unit]; "
        "differences are taken seed by seed, each on its own 95 %"
    )

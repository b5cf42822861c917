"""`compare.html`: a comparison as one page that needs nothing else."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from etude.durable import replace_file
from etude.evals.arm_text import value_text as setting_text
from etude.evals.comparison import ArmResult, Comparison
from etude.viewer.charts import Chart, DrawnChart, Line, draw
from etude.viewer.comparison_table import difference_text, ends_text, headline, legend, reach_text, verdict, within_share
from etude.viewer.numbers import count, duration, is_share, number, percent, title_of, value_text
from etude.viewer.page import render_page
from etude.viewer.report import Tile
from etude.viewer.strips import Row, Strip, draw_strip

NOT_A_SETTING = ("out", "seed", "quiet")


def write_page(comparison: Comparison) -> Path:
    """Write `compare.html` into the comparison's folder, replacing an older one at once, and return its path."""
    path = comparison.folder / "compare.html"
    replace_file(path, render(comparison).encode("utf-8", errors="replace").decode("utf-8"))
    return path


def render(comparison: Comparison) -> str:
    """The whole page as text."""
    from etude.comparing import as_csv

    charts = [chart for chart in (learning_curves(comparison),) if chart is not None]
    data = base64.b64encode(as_csv(comparison).encode()).decode()
    return render_page(
        "compare.html",
        comparison=comparison,
        headline=headline(comparison),
        model=short(comparison.settings.get("model", "tiny")),
        tasks=short(comparison.settings.get("tasks", "arithmetic")),
        tiles=tiles(comparison),
        charts=charts,
        chart_data=[chart.data for chart in charts],
        strips=[strip for strip in (finals(comparison), differences(comparison)) if strip is not None],
        rows=result_rows(comparison),
        first=comparison.arms[0].arm.name,
        metric=title_of(comparison.metric),
        legend=legend(comparison),
        tuning=tuning_rows(comparison),
        runs=run_rows(comparison),
        settings=differing_settings(comparison),
        configurations=configurations(comparison),
        made=[(name, made_text(value)) for name, value in comparison.made.items() if name != "configurations"],
        download=f"data:text/csv;base64,{data}",
    )


def short(value: Any) -> str:
    """A name a heading can carry: the last part of a path, anything else as it is."""
    return str(value).rstrip("/").rsplit("/", 1)[-1]


def tiles(comparison: Comparison) -> list[Tile]:
    """Each arm's final value, with its difference to the first."""
    found = []
    for result in comparison.arms:
        if result.final is None:
            found.append(Tile(result.arm.name, "–", f"{len(result.failed)} of {len(result.seeds)} runs did not finish", "down"))
            continue
        kind = {"better": "up", "worse": "down"}.get(verdict(result, comparison.lower_is_better), "")
        gap = difference_text(comparison.metric, result.difference.final) if result.difference else ends_text(comparison.metric, result.final)
        found.append(Tile(result.arm.name, value_text(comparison.metric, result.final.estimate), gap, kind))
    return found


def learning_curves(comparison: Comparison) -> DrawnChart | None:
    """Mean over seeds against budget, with bands; arms with runs that did not finish have none."""
    share, write = is_share(comparison.metric), percent if is_share(comparison.metric) else number
    lines = []
    for result in comparison.arms:
        curve = result.curve
        if curve is None:
            lines.append(Line(result.arm.name, [], []))
            continue
        known = any(math.isfinite(v) for v in curve.low)
        low, high = ([inside(v, share) for v in ends] for ends in (curve.low, curve.high))
        lines.append(Line(result.arm.name, curve.x, curve.mean, low if known else None, high if known else None, dense=True))
    note = f"mean over seeds against {comparison.budget.unit}; bands: 95 % intervals, point by point"
    title = title_of(comparison.metric)
    return draw(Chart(f"Held-out {title}" if comparison.metric.startswith("eval/") else title, note, lines, write, share=share, x_name=comparison.budget.unit))


def inside(value: float, share: bool) -> float:
    """An interval's end where the axis has it: t intervals of shares can leave [0, 1]."""
    return min(1.0, max(0.0, value)) if share and math.isfinite(value) else value


def finals(comparison: Comparison) -> Strip | None:
    """Every run's final value."""
    rows = []
    for result in comparison.arms:
        values = [(seed.seed, seed.final) for seed in result.seeds if seed.final is not None]
        text = value_text(comparison.metric, result.final.estimate) if result.final else "no mean: runs did not finish"
        rows.append(Row(result.arm.name, values, within_share(comparison.metric, result.final) if result.final else None, text))
    return draw_strip(f"Final {title_of(comparison.metric)}", "a dot a run; bar: mean and 95 % interval", rows, lambda v: tick(comparison.metric, v))


def differences(comparison: Comparison) -> Strip | None:
    """Every seed's difference to the first arm."""
    first = {seed.seed: seed.final for seed in comparison.arms[0].seeds if seed.final is not None}
    rows: list[Row | None] = [None]
    for result in comparison.arms[1:]:
        if result.difference is None:
            rows.append(None)
            continue
        values = [(seed.seed, seed.final - first[seed.seed]) for seed in result.seeds if seed.final is not None and seed.seed in first]
        rows.append(Row(result.arm.name, values, result.difference.final, difference_text(comparison.metric, result.difference.final)))
    title = f"Difference to {comparison.arms[0].arm.name}"
    return draw_strip(title, "a dot a seed; bar: mean and 95 % interval", rows, lambda v: tick(comparison.metric, v, signed=True), around_zero=True)


def tick(name: str, value: float, *, signed: bool = False) -> str:
    """A value on a strip's scale; differences of shares are points."""
    text = f"{100 * abs(value):.3g}" if is_share(name) else number(abs(value))
    sign = "−" if value < 0 else ("+" if signed and value > 0 else "")
    return sign + text + ("" if signed or not is_share(name) else " %")


def result_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The table's rows as texts."""
    name = comparison.metric
    return [_result_row(comparison, result, name) for result in comparison.arms]


def _result_row(comparison: Comparison, result: ArmResult, name: str) -> dict[str, Any]:
    row: dict[str, Any] = {"arm": result.arm.name, "failed": len(result.failed), "runs": f"{len(result.seeds) - len(result.failed)} of {len(result.seeds)}"}
    if result.final is None or result.area is None:
        return {**row, "crashed": True}
    gap = result.difference
    reached = sum(seed.reached is not None for seed in result.seeds)
    return {
        **row,
        "crashed": False,
        "final": (value_text(name, result.final.estimate), ends_text(name, result.final)),
        "area": (value_text(name, result.area.estimate), ends_text(name, result.area)),
        "difference": _parted(difference_text(name, gap.final)) if gap else ("–", ""),
        "area_difference": _parted(difference_text(name, gap.area)) if gap else ("–", ""),
        "p_value": number(gap.p_value) if gap else "",
        "detectable": (f"{100 * gap.detectable:.1f} points" if is_share(name) else number(gap.detectable)) if gap and math.isfinite(gap.detectable) else "",
        "verdict": {"better": "right", "worse": "wrong"}.get(verdict(result, comparison.lower_is_better), ""),
        "reach": reach_text(comparison, result),
        "reached": f"{reached} of {len(result.seeds)} runs",
    }


def _parted(text: str) -> tuple[str, str]:
    """A difference's text as its estimate and its interval."""
    estimate, bracket, ends = text.partition(" [")
    return estimate, f"[{ends}" if bracket else ""


def tuning_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """What a sweep tried."""
    rows = []
    for trial in comparison.tuning:
        values = [value_text(comparison.metric, v) if v is not None else "crashed" for v in trial["values"]]
        score = value_text(comparison.metric, trial["score"]) if None not in trial["values"] else "–"
        setting = ", ".join(f"{name} = {setting_text(value)}" for name, value in trial["settings"].items())
        rows.append({"arm": trial["arm"], "setting": setting, "score": score, "values": values, "chosen": trial["chosen"]})
    return rows


def run_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Every run."""
    rows = []
    for result in comparison.arms:
        for seed in result.seeds:
            report = seed.folder / "report.html"
            rows.append(
                {
                    "arm": result.arm.name,
                    "seed": seed.seed,
                    "status": seed.status,
                    "final": value_text(comparison.metric, seed.final) if seed.final is not None else "–",
                    "area": value_text(comparison.metric, seed.area) if seed.area is not None else "–",
                    "spent": count(seed.spent) if comparison.budget.unit not in ("seconds", "minutes") else number(seed.spent),
                    "steps": seed.steps,
                    "time": duration(seed.seconds),
                    "report": os.path.relpath(report, comparison.folder) if report.is_file() else "",
                }
            )
    return rows


def differing_settings(comparison: Comparison) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Arms, and the settings in which they differ: (name, one text an arm, '–' where the method has none)."""
    flat = {name: _flat(config) for name, config in comparison.made.get("configurations", {}).items()}
    arms = [result.arm.name for result in comparison.arms if result.arm.name in flat]
    names = dict.fromkeys(name for arm in arms for name in flat[arm])
    rows = []
    for name in names:
        values = [("default" if flat[arm][name] is None else setting_text(flat[arm][name])) if name in flat[arm] else "–" for arm in arms]
        if name.rpartition(".")[2] not in NOT_A_SETTING and len(set(values)) > 1:
            rows.append(("method" if name == "method.slug" else name.removeprefix("method."), values))
    return arms, rows


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, entry in value.items():
        found |= _flat(entry, f"{prefix}{name}.") if isinstance(entry, Mapping) else {f"{prefix}{name}": entry}
    return found


def configurations(comparison: Comparison) -> list[tuple[str, str]]:
    """(arm, its whole configuration as YAML)."""
    return [(name, yaml.safe_dump(config, sort_keys=False, allow_unicode=True)) for name, config in comparison.made.get("configurations", {}).items()]


def made_text(value: Any) -> str:
    """A fact about how it was made, in a line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {entry}" for name, entry in value.items() if entry is not None)
    return "–" if value is None else str(value)

"""Numbers as people write them: shares, counts, durations, intervals, the ledger."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

SHARES = (
    "eval/pass@",
    "eval/maj@",
    "eval/format",
    "eval/success",
    "eval/truncated",
    "rollout/truncated",
    "signal/groups_with_spread",
    "loss/clip_fraction",
    "probe/accuracy",
    "probe/top_",
    "probe/unanswered",
    "probe/positive",
    "probe/truncated",
    "probe/solved",
    "probe/auc",
    "probe/best_by_reward",
    "explore/solved",
    "explore/several_ways",
    "explore/distinct",
    "exploit/auc",
    "exploit/best_by_reward",
    "exploit/best_ways",
    "balance/score",
    "balance/searched",
    "balance/at_",
    "balance/quantity",
    "balance/quality",
)
"""Prefixes of metrics that are shares of one, shown as percentages."""

TITLES = {
    "eval/length": "length, tokens",
    "eval/length_right": "length where right, tokens",
    "eval/length_wrong": "length where wrong, tokens",
    "eval/entropy": "entropy, nats",
    "eval/truncated": "truncated",
    "eval/format": "well-formed answers",
    "eval/kl_to_start": "KL to the start, nats",
    "eval/score": "score",
    "eval/return": "return",
    "eval/success": "success",
    "eval/reward": "reward",
}


def title_of(name: str) -> str:
    """A metric's name for a person: 'pass@1' for 'eval/pass@1'."""
    return TITLES.get(name, name.removeprefix("eval/"))


def is_share(name: str) -> bool:
    """True for metrics in [0, 1] that are shown as percentages."""
    return name.startswith(SHARES)


def value_text(name: str, value: float) -> str:
    """A metric's value as a person would write it: '34.2 %' for shares, three significant digits otherwise."""
    if not is_share(name):
        return number(value)
    return f"{100 * value:.1f} %" if math.isfinite(value) else "–"


def interval_text(name: str, low: float, high: float) -> str:
    """'[27.9, 41.3]' for shares, '[1.2, 1.9]' otherwise, empty when there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    if is_share(name):
        return f"[{100 * low:.1f}, {100 * high:.1f}]"
    return f"[{number(low)}, {number(high)}]"


def percent(value: float) -> str:
    """A share as '34 %'; one decimal below 10 % and where rounding would claim a full 100 %."""
    if not math.isfinite(value):
        return "–"
    whole = 100 * value
    fine = (0 < whole < 9.95) or (99.5 <= whole < 99.95)
    return f"{whole:.1f} %" if fine else f"{whole:.0f} %"


def number(value: float) -> str:
    """Three significant digits, thousands apart: '0.0123', '4.50', '12,300'."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size < 1e-3:
        return f"{value:.1e}".replace("e-0", "e-")
    return f"{value:#.3g}".removesuffix(".")


def count(value: float) -> str:
    """A large count in short: '950', '12.3k', '4.56M'."""
    if value is None or not math.isfinite(value):
        return "–"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.3g}{unit}"
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """Seconds as '8.4s', '1m 52s', '2h 05m'."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


LEDGER = {
    "steps": ("Steps", "turns of the loop"),
    "seconds": ("Time", "training, without evaluation"),
    "rollouts": ("Rollouts", "also those that were thrown away"),
    "generated_tokens": ("Generated tokens", "written by the policy in rollouts"),
    "prompt_tokens": ("Prompt tokens", "read by the sampler"),
    "judged_tokens": ("Judged tokens", "read or written by model judges"),
    "trained_tokens": ("Trained tokens", "entered the loss"),
    "environment_steps": ("Environment steps", "turns that an environment answered"),
    "task_evaluations": ("Task evaluations", "values that a search asked for"),
    "decode_steps": ("Decode steps", "engine steps, whatever the number of sequences"),
    "forward_equivalents": ("Forward equivalents", "network passes per token: forward 1, forward and backward 3"),
    "evaluation_rollouts": ("Evaluation rollouts", "held-out and probe samples; spent from no budget"),
    "evaluation_tokens": ("Evaluation tokens", "spent from no budget"),
    "evaluation_seconds": ("Evaluation time", "spent from no budget"),
}


@dataclass(frozen=True)
class LedgerRow:
    """One line of the ledger: what, how much (as text), how much per step (as text, may be empty), what it means."""

    name: str
    total: str
    per_step: str
    meaning: str


def ledger_rows(ledger: dict[str, Any]) -> list[LedgerRow]:
    """The ledger in reading order; entries that are zero are left out, unknown ones come last under their own name."""
    known = [key for key in LEDGER if key in ledger]
    unknown = [key for key in ledger if key not in LEDGER and key != "model_calls"]
    steps = ledger.get("steps") if isinstance(ledger.get("steps"), int) else 0
    rows = []
    for key in [*known, *unknown]:
        value = ledger[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value == 0:
            continue
        name, meaning = LEDGER.get(key, (key.replace("_", " "), ""))
        show = duration if key.endswith("seconds") else count
        per_step = show(value / steps) if steps and key != "steps" and not key.startswith("evaluation") else ""
        rows.append(LedgerRow(name, show(value), per_step, meaning))
    calls = ledger.get("model_calls")
    if isinstance(calls, dict):
        rows += [
            LedgerRow(f"Calls: {role}", count(n), count(n / steps) if steps else "", "model calls in this role")
            for role, n in calls.items()
            if isinstance(n, (int, float)) and n
        ]
    return rows

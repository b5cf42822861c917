"""How well `etude plan` predicts: short runs of `tiny` on this machine, each predicted from others, beside what it took.

    python benchmarks/planner.py --out planner.json

Every run keeps its weights nearly still (a learning rate of 1e-7), so that lengths are those of the run that is predicted from and only the work differs. Seconds are
CPU seconds of the process on one thread, which other work on the machine moves less than wall time; `--clock wall` for an idle machine. What the decode clock counts
(steps, slots, lag) does not depend on the machine.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

sys.path.insert(0, str(Path(__file__).parent))

from machine import describe, headline

from etude import train
from etude.planning import PlanConfig, make_plan
from etude.planning.measured import WARM_UP
from etude.settings import merged


@dataclass
class Options:
    """What is run."""

    suite: Literal["full", "small"] = "full"
    """`small` for a machine with little time."""
    tasks: str = "lists"
    steps: int = 16
    clock: Literal["cpu", "wall"] = "cpu"
    runs: Path | None = None
    """Folder for the runs; those that are there are not run again. Default: a temporary one."""
    out: Path | None = None


@dataclass(frozen=True)
class Variant:
    """A run: its method and settings, and what of them the planner is told, by its own names."""

    method: str
    settings: dict[str, Any]
    told: dict[str, Any]
    settled: int = WARM_UP
    """Steps before any is counted: until what waits is what waits on a long run."""


def variant(method: str, tasks: int, group: int, *, slots: int = 512, settled: int = WARM_UP, cut: int = 0, over_provision: float = 0.0) -> Variant:
    """A run of so many groups of so many attempts. cut: longest attempt, 0 for what the task set allows."""
    told: dict[str, Any] = {"tasks_per_step": tasks, "group_size": group, "slots": slots}
    settings = {**told}
    if cut:
        told, settings = {**told, "max_length": cut}, {**settings, "max_new_tokens": cut}
    if over_provision:
        told, settings = {**told, "mode": ("partial",), "over_provision": over_provision}, {**settings, "over_provision": over_provision}
    return Variant(method, settings, told, settled)


@dataclass(frozen=True)
class Suite:
    """Runs by name, and which of them all are predicted from."""

    runs: dict[str, Variant]
    sources: dict[str, tuple[str, ...]]


SUITES = {
    "full": Suite(
        {
            "16 x 16": variant("grpo", 16, 16),
            "16 x 4": variant("grpo", 16, 4),
            "32 x 16": variant("grpo", 32, 16),
            "16 x 16, 64 slots": variant("grpo", 16, 16, slots=64),
            "16 x 16, at most 8 tokens": variant("grpo", 16, 16, cut=8),
            "16 x 16, APRIL": variant("april", 16, 16, settled=5, over_provision=2.0),
        },
        {"one run": ("16 x 16",), "two runs": ("16 x 16", "16 x 4")},
    ),
    "small": Suite(
        {
            "8 x 8": variant("grpo", 8, 8),
            "8 x 16": variant("grpo", 8, 16),
            "12 x 8, 48 slots": variant("grpo", 12, 8, slots=48),
            "8 x 8, APRIL": variant("april", 8, 8, settled=5, over_provision=1.5),
        },
        {"one run": ("8 x 8",), "two runs": ("8 x 8", "8 x 16")},
    ),
}
COLUMNS = {"seconds": "s an update", "decode_steps": "decode steps", "slots_empty": "slots empty", "stale": "stale tokens", "lag": "mean lag"}


def run(name: str, chosen: Variant, options: Options, folder: Path) -> Path:
    """Train, unless it is done; the folder of the run."""
    where = folder / name.replace(" ", "").replace(",", "-")
    if not (where / "result.json").is_file():
        print(f"running {name} …", file=sys.stderr)
        small = {"evaluate_every": 0, "checkpoint_every": 0, "eval_tasks": 4, "eval_samples": 1, "probe": "never", "quiet": True}
        train(chosen.method, tasks=options.tasks, steps=options.steps, threads=1, lr=1e-7, save_trajectories=10_000, out=where, **small, **chosen.settings)
    return where


def measured(chosen: Variant, folder: Path) -> dict[str, float]:
    """What a run took, an update, after its first steps."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "time/step" in line]
    before, counted = steps[chosen.settled - 1]["ledger"], steps[chosen.settled :]
    mean = {key: sum(line.get(key, 0.0) for line in counted) / len(counted) for key in ("time/step", "rollout/stale_tokens", "rollout/lag_mean")}
    spent = {key: counted[-1]["ledger"][key] - before[key] for key in ("decode_steps", "generated_tokens", "rollouts")}
    # Every attempt's first token comes with its prompt, outside the slots that the clock counts.
    busy = spent["generated_tokens"] - spent["rollouts"] if "rollout/utilisation" not in counted[0] else 0.0
    slots = chosen.settings["slots"]
    empty = (
        1 - busy / (spent["decode_steps"] * slots)
        if busy
        else 1 - sum(line["rollout/utilisation"] * line["rollout/decode_steps"] for line in counted) / sum(line["rollout/decode_steps"] for line in counted)
    )
    return {
        "seconds": mean["time/step"],
        "decode_steps": spent["decode_steps"] / len(counted),
        "slots_empty": empty,
        "stale": mean["rollout/stale_tokens"],
        "lag": mean["rollout/lag_mean"],
    }


def predicted(chosen: Variant, sources: list[Path]) -> tuple[dict[str, float], dict[str, Any]]:
    """What the planner says of a run from other ones, and the rates that it found."""
    told = {"mode": ("synchronous",), "updates": 60, **chosen.told}
    plan = make_plan(merged(PlanConfig(), told), sources)
    outcome = plan.outcomes[0]
    rates = {key: getattr(plan.rates, key) for key in ("decode_step", "decode_token", "prefill_token", "update", "train_token")}
    return {key: float(getattr(outcome, key)) for key in COLUMNS}, rates


def main(options: Options) -> None:
    if options.clock == "cpu":
        # The loop reads time.perf_counter; CPU time of this process stands in for it.
        time.perf_counter = time.process_time
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.runs or Path(scratch)
        suite = SUITES[options.suite]
        folders = {name: run(name, chosen, options, folder) for name, chosen in suite.runs.items()}
        record: dict[str, Any] = {"machine": describe(1), "clock": options.clock, "runs": {}, "rates": {}}
        for name, where in folders.items():
            record["runs"][name] = {"measured": measured(suite.runs[name], where)}
            for title, sources in suite.sources.items():
                record["runs"][name][title], record["rates"][title] = predicted(suite.runs[name], [folders[source] for source in sources])
    show(record, suite)
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n")


def show(record: dict[str, Any], suite: Suite) -> None:
    print(headline(record["machine"], f"{record['clock']} seconds", "tiny"))
    for title, rates in record["rates"].items():
        print(f"rates from {title} ({', '.join(suite.sources[title])}): " + ", ".join(f"{name} {1e6 * value:.3g} µs" for name, value in rates.items()))
    print(f"\n{'':28}{'':12}" + "".join(f"{title:>16}" for title in COLUMNS.values()))
    for name, sides in record["runs"].items():
        for side, values in sides.items():
            print(f"{name if side == 'measured' else '':28}{side:12}" + "".join(f"{values[key]:>16.3g}" for key in COLUMNS))


if __name__ == "__main__":
    main(tyro.cli(Options))

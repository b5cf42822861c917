"""What a run does for held-out tasks by how well the model that it started from did on them: those hardly ever solved, and those solved nearly always."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etude.durable import replace_file
from etude.evals.measures import Average, First, Record, Spent
from etude.evals.passk import pass_at_k
from etude.experiments.imitate_first import started_warm
from etude.export import MODEL
from etude.models.sampling import stream_key
from etude.types import Metrics, mean

MIXED = "signal/groups_with_spread"
HARD, SOLVED = 0.05, 0.8
"""The start's pass@1 on a task, up to which it is hard, and from which it is solved."""
SORTING = 7_919
"""Added to the seed of the attempts that sort tasks: nothing is measured on the attempts that it was chosen by."""


def hard_tasks(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """Measures of a run of `settings["method"]` on `settings["tasks"]`; how it starts is `imitate_first`'s. The start and the end try each of `measured_tasks` held-out
    tasks (96) `measured_samples` times (16), with the same random numbers in all arms. `budget`, as a setting, goes before the claim's.

    `pass_1`, `pass_8`, `pass_all`: pass@1, pass@8 and pass@`measured_samples`, and `pass_1_first` and so on of the start. `hard_pass_1`, ...: of the tasks that the start
    solves in at most 5 % of other attempts; `solved_pass_1`, ...: in at least 80 %; without such tasks there are none. `hard`, `solved`: their share. `lost`: how far pass@1
    fell, mean over tasks where a rise counts 0; `worst`: on the task where it fell most. `teaching_first`, `teaching`: share of a step's groups with right and wrong
    attempts, in the first step and on average. `rollouts`, `tokens`: what the run cost.
    """
    count, samples = settings.get("measured_tasks", 96), settings.get("measured_samples", 16)
    own = {name: value for name, value in settings.items() if name != "budget" and not name.startswith("measured_")}
    asked = {"tasks": settings["tasks"], "tasks_limit": count, "samples": samples, "threads": 1}
    quiet = {"export": "last", "evaluate_every": 0, "eval_tasks": 8, "eval_samples": 1}
    with started_warm(seed, {**quiet, **own}, settings.get("budget", budget)) as (start, run):
        sorting, before = (once(start, {**asked, "seed": seed + offset}) for offset in (SORTING, 0))
        after = right_attempts(run.folder / MODEL, {**asked, "seed": seed})
        record = Record(run.metrics(), name=f"{settings['method']}, seed {seed}")
    rates = [right / samples for right in sorting]
    chosen = {
        "": list(range(len(rates))),
        "hard_": [i for i, rate in enumerate(rates) if rate <= HARD],
        "solved_": [i for i, rate in enumerate(rates) if rate >= SOLVED],
    }
    falls = [max(0, a - b) / samples for a, b in zip(before, after, strict=True)]
    found = {
        "hard": len(chosen["hard_"]) / len(rates),
        "solved": len(chosen["solved_"]) / len(rates),
        "lost": mean(falls),
        "worst": max(falls),
        "teaching_first": First(MIXED)(record),
        "teaching": Average(MIXED)(record),
        "rollouts": Spent("rollouts")(record),
        "tokens": Spent("tokens")(record),
    }
    for which, places in chosen.items():
        for when, counts in {"_first": before, "": after}.items():
            found |= {f"{which}{name}{when}": value for name, value in coverage([counts[i] for i in places], samples).items()}
    return found


def right_attempts(model: Path, asked: Mapping[str, Any]) -> list[int]:
    """How many attempts at each held-out task are right. asked: settings of `etude.evaluate`."""
    import etude

    return [sum(t.correct > 0 for t in row) for row in etude.evaluate(model, **asked).trajectories]


def once(model: Path, asked: Mapping[str, Any]) -> list[int]:
    """The same, kept beside the model for the next who asks."""
    path = model.parent / f"right-{stream_key(json.dumps(asked, sort_keys=True))}.json"
    if not path.exists():
        replace_file(path, json.dumps(right_attempts(model, asked)))
    return json.loads(path.read_text())


def coverage(right: Sequence[int], samples: int) -> Metrics:
    """pass@1, pass@8 and pass@`samples` as `pass_1`, `pass_8`, `pass_all`, from how many of `samples` attempts at each task were right. Empty without a task."""
    sizes = {"pass_1": 1, "pass_8": min(8, samples), "pass_all": samples}
    return {name: mean([pass_at_k(samples, c, k) for c in right]) for name, k in sizes.items()} if right else {}

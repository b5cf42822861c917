"""What KnowRL watches while it trains: a step's verdicts on the tasks that the model wrote, and on verified ones."""

from __future__ import annotations

from collections.abc import Sequence

from etude.evals.self_knowledge import Opinion, entropy_bits, information_bits, self_knowledge
from etude.tasks.feasibility import LABELS, Label
from etude.types import Group, Metrics, Task, mean


def verdicts_on(groups: Sequence[Group]) -> list[tuple[Task, list[Label | None]]]:
    """Each group's task and the verdicts on it."""
    return [(group.trajectories[0].task, group.tags["verdicts"]) for group in groups]


def introspection_metrics(groups: Sequence[Group]) -> Metrics:
    """What a step's verdicts show. Groups have the tags `verdicts` and `consensus`; verified tasks have a label for an answer, written ones a `claim` in their info.

    `intrinsic/...`: of written tasks, with the claim for the truth (see `etude.evals.self_knowledge`); besides P(feasible) by claim, the share of unanimous groups, the
    entropy of all verdicts and what they tell of the claim, in bits. `seeds/...`: right verdicts on verified tasks, by class.
    """
    opinions: list[Opinion] = []
    pairs: list[tuple[str, str]] = []
    by_claim: dict[str, list[float]] = {label: [] for label in LABELS}
    by_seed: dict[str, list[float]] = {label: [] for label in LABELS}
    for task, verdicts in verdicts_on(groups):
        if task.answer in LABELS:
            by_seed[task.answer] += [float(v == task.answer) for v in verdicts]
            continue
        claim = task.info["claim"]
        opinions.append(Opinion(tuple(verdicts), float(claim == "feasible")))
        pairs += [(v, claim) for v in verdicts if v is not None]
        by_claim[claim] += [float(v == "feasible") for v in verdicts if v is not None]
    found = self_knowledge(opinions)
    everything = [v for _, verdicts in verdicts_on(groups) for v in verdicts]
    metrics: Metrics = {f"intrinsic/{name}": found[name] for name in ("accuracy", "f1", "consistency", "feasible") if name in found}
    metrics |= {f"intrinsic/feasible_if_{label}": mean(values) for label, values in by_claim.items() if values}
    metrics |= {f"seeds/{label}": mean(values) for label, values in by_seed.items() if values}
    metrics["intrinsic/unanimous"] = mean([float(g.tags["consensus"].share > 1 - 1e-9) for g in groups], default=0.0)
    metrics["intrinsic/verdict_entropy"] = entropy_bits([v for v in everything if v is not None])
    metrics["intrinsic/information"] = information_bits(pairs)
    metrics["intrinsic/invalid"] = mean([float(v is None) for v in everything], default=0.0)
    return metrics

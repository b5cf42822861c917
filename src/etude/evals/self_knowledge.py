"""Does a model know what it can do? Its verdicts on tasks beside what is so: the label of each, or how often it really solves it.

*Extrinsic*: tasks whose truth comes from outside, a fixed labelled set or measured solve rates. *Intrinsic*: tasks that the model wrote itself, where the truth is the
claim under which it wrote them; a model that writes caricatures does well there without knowing its limits.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams, stream_key
from etude.rewards.consensus import consensus_of
from etude.rollouts import EpisodeRequest, run_episodes
from etude.tasks.feasibility import Label, Verdicts
from etude.types import Metrics, mean

BINS = 10
"""Bins of the calibration error."""
SURE = 0.5
"""Solve rate from which a task counts as one that the model can do."""
LOWEST_SEED_ACCURACY = 0.6
LARGEST_LEANING = 0.3
LOWEST_ENTROPY = 0.3
"""Limits of `alarms`: accuracy on the verified tasks of either class; distance of P(feasible) from one half on as many of both; bits of the batch's verdicts."""


@dataclass(frozen=True)
class Opinion:
    """What a model says of one task, and what is so.

    verdicts: of several independent self-analyses; None where one is not valid. solved: how often the model solves the task, in [0, 1]; of a label 1 or 0.
    """

    verdicts: tuple[Label | None, ...]
    solved: float

    @property
    def feasible(self) -> float:
        """P(feasible): the share of the valid verdicts; NaN without one."""
        return mean([float(v == "feasible") for v in self.verdicts if v is not None])

    @property
    def majority(self) -> str | None:
        return consensus_of(self.verdicts).majority


def self_knowledge(opinions: Sequence[Opinion], *, solved_at: float = SURE) -> Metrics:
    """How well verdicts fit. What has no value (nothing was judged infeasible, say) is left out.

    - `accuracy`: share of tasks whose majority verdict is right, feasible where the solve rate is at least `solved_at`; without a majority it is wrong.
      `balanced_accuracy`: the mean of the shares in either class, of which there may be one.
    - `f1`: of the class infeasible. `ece`: calibration error of P(feasible) against the solve rate.
    - `feasible`: mean P(feasible). `refusal`: share of tasks that the majority calls infeasible; `over_refusal`: of those the model can do;
      `overconfidence`: share that it calls feasible, of those it cannot do.
    - `consistency`: mean share of the verdicts that agree with the majority. `invalid`: share of verdicts that are none.
    - `solvable`: share of tasks that the model can do. `solved_if_feasible`, `solved_if_infeasible`: mean solve rate by majority verdict.
    """
    said = [o.majority for o in opinions]
    can = [o.solved >= solved_at for o in opinions]
    right = [verdict == ("feasible" if able else "infeasible") for verdict, able in zip(said, can, strict=True)]
    in_class = [mean([float(r) for r, able in zip(right, can, strict=True) if able == kind]) for kind in (True, False) if kind in can]
    hits = sum(verdict == "infeasible" and not able for verdict, able in zip(said, can, strict=True))
    judged, unable = said.count("infeasible"), can.count(False)
    sure = [o for o in opinions if not math.isnan(o.feasible)]
    found = {
        "accuracy": mean([float(r) for r in right]),
        "balanced_accuracy": mean(in_class),
        "f1": 2 * hits / (judged + unable) if judged + unable else math.nan,
        "ece": calibration_error([o.feasible for o in sure], [o.solved for o in sure]),
        "feasible": mean([o.feasible for o in sure]),
        "refusal": judged / len(said) if said else math.nan,
        "over_refusal": mean([float(v == "infeasible") for v, able in zip(said, can, strict=True) if able]),
        "overconfidence": mean([float(v == "feasible") for v, able in zip(said, can, strict=True) if not able]),
        "consistency": mean([consensus_of(o.verdicts).share for o in opinions]),
        "invalid": mean([float(v is None) for o in opinions for v in o.verdicts]),
        "solvable": mean([float(able) for able in can]),
        "solved_if_feasible": mean([o.solved for o, v in zip(opinions, said, strict=True) if v == "feasible"]),
        "solved_if_infeasible": mean([o.solved for o, v in zip(opinions, said, strict=True) if v == "infeasible"]),
    }
    return {name: value for name, value in found.items() if not math.isnan(value)}


def calibration_error(forecasts: Sequence[float], outcomes: Sequence[float], *, bins: int = BINS) -> float:
    """Expected calibration error: over equal bins of the forecast, the mean distance between mean forecast and mean outcome, weighed by the bin's size (Naeini et al.
    2015, AAAI 29). forecasts, outcomes: in [0, 1]. NaN for none."""
    if not forecasts:
        return math.nan
    filled: dict[int, list[tuple[float, float]]] = {}
    for forecast, outcome in zip(forecasts, outcomes, strict=True):
        filled.setdefault(min(bins - 1, int(forecast * bins)), []).append((forecast, outcome))
    return sum(abs(sum(f - o for f, o in pairs)) for pairs in filled.values()) / len(forecasts)


def entropy_bits(values: Sequence[str]) -> float:
    """Entropy of how values are spread, in bits; 0 for none."""
    return -sum(n / len(values) * math.log2(n / len(values)) for n in Counter(values).values()) if values else 0.0


def information_bits(pairs: Sequence[tuple[str, str]]) -> float:
    """Mutual information of two labels from the pairs that were seen, in bits: 0 where one says nothing about the other."""
    return entropy_bits([a for a, _ in pairs]) + entropy_bits([b for _, b in pairs]) - entropy_bits([f"{a}\x1f{b}" for a, b in pairs])


def flip_rate(first: Sequence[Opinion], second: Sequence[Opinion]) -> float:
    """Share of tasks whose majority verdict changes between two ways of asking; NaN where there are none that have one both times."""
    both = [(a.majority, b.majority) for a, b in zip(first, second, strict=True) if a.majority is not None and b.majority is not None]
    return mean([float(a != b) for a, b in both])


def alarms(*, seeds: Sequence[tuple[Label, Label | None]], verdicts: Sequence[Label | None]) -> dict[str, str]:
    """Signs that verdicts have come to mean nothing, by name, each with a sentence; empty for a healthy state.

    seeds: (label, verdict) of self-analyses of verified tasks; no sign follows from fewer than 16 of a class. verdicts: those of a whole batch.
    """
    found: dict[str, str] = {}
    by_class: dict[Label, list[Label | None]] = {"feasible": [], "infeasible": []}
    for label, verdict in seeds:
        by_class[label].append(verdict)
    if all(len(given) >= 16 for given in by_class.values()):
        for label, given in by_class.items():
            accuracy = given.count(label) / len(given)
            if accuracy < LOWEST_SEED_ACCURACY:
                found[f"seeds_{label}"] = f"of the verdicts on verified {label} tasks {100 * accuracy:.0f} % are right"
        leaning = mean([mean([float(v == "feasible") for v in given if v is not None]) for given in by_class.values()])
        if abs(leaning - 0.5) > LARGEST_LEANING:
            found["leaning"] = f"{100 * leaning:.0f} % of the verdicts on as many verified tasks of both kinds are 'feasible'"
    valid = [v for v in verdicts if v is not None]
    if valid and entropy_bits(valid) < LOWEST_ENTROPY:
        common, count = Counter(valid).most_common(1)[0]
        found["one_verdict"] = f"{100 * count / len(valid):.0f} % of a batch's verdicts are '{common}'"
    return found


def ask(
    policy: LanguageModel,
    verdicts: Verdicts,
    texts: Sequence[str],
    *,
    samples: int,
    params: SamplingParams,
    ledger: Ledger,
    swapped: bool = False,
) -> list[tuple[Label | None, ...]]:
    """The verdicts of `samples` self-analyses of each task. Every call draws with the same random numbers, so that two differ by what the policy became."""
    tasks = [verdicts.task(text, id=f"ask/{i}", swapped=swapped) for i, text in enumerate(texts)]
    requests = [EpisodeRequest(task, s, stream_key("self-knowledge", task.info["text"], s)) for task in tasks for s in range(samples)]
    attempts = run_episodes(policy, requests, verdicts, params, max_turns=1, ledger=ledger)
    given: list[Label | None] = [verdicts.prompts.verdict(t.last_text) for t in attempts]
    return [tuple(given[i * samples : (i + 1) * samples]) for i in range(len(texts))]

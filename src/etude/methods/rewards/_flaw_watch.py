"""What FAPO watches while it trains: what the judge found in a step's attempts, and the signs that the policy gets round it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etude.config import Share
from etude.evals.monitors import RIGHT
from etude.rewards.flaws import detection, turns_against_flaws
from etude.tasks.base import TaskSet
from etude.tasks.first_error import FLAWLESS
from etude.types import Group, Metrics, mean, trajectories_of


@dataclass
class FlawAlarmConfig:
    """From where on the judge counts as circumvented."""

    alarm_silence: Share = 0.5
    """Share of judgements that name no step above which an alarm is raised."""
    alarm_merged: Share = 0.3
    """How far the number of steps of an attempt may fall below the first step's, as a share, before an alarm is raised."""
    alarm_blind: Share = 0.5
    """Share of planted flaws that has to be found, or an alarm is raised."""


def flaws_seen(groups: Sequence[Group], tasks: TaskSet, *, penalty: float) -> Metrics:
    """What the judge found in a step's attempts, before anything is filtered. Attempts have the tags `judgement` (None where not asked), `named` and `steps`.

    `flaw/ratio`: share of right attempts that are flagged; `flaw/unreadable`: share of their judgements that named no step; `flaw/judged`: their number. `flaw/alpha`,
    `flaw/beta`: shares of right unflagged and of wrong attempts; `flaw/refining`: share of groups in which flawed positives are pushed down. `flaw/steps`,
    `flaw/step_length`: steps of an attempt, characters of a step. Where steps can be checked exactly, `flaw/true_ratio`, the share of right attempts that are flawed, and
    the judge's `flaw/precision`, `flaw/recall`, ... (`etude.rewards.flaws.detection`). What has no value is left out.
    """
    attempts = trajectories_of(groups)
    right = [t for t in attempts if t.tags["judgement"] is not None]
    steps = [t.tags["steps"] for t in attempts]
    shares = [group_shares(g) for g in groups]
    seen: Metrics = {
        "flaw/alpha": mean([alpha for alpha, _ in shares]),
        "flaw/beta": mean([beta for _, beta in shares]),
        "flaw/refining": mean([float(turns_against_flaws(a, b, penalty=penalty)) for a, b in shares]),
        "flaw/steps": mean([float(len(s)) for s in steps]),
        "flaw/step_length": mean([float(len(step)) for s in steps for step in s], default=0.0),
        "flaw/judged": float(len(right)),
    }
    if not right:
        return seen
    seen["flaw/ratio"] = mean([t.rewards["flagged"] for t in right])
    seen["flaw/unreadable"] = mean([float(t.tags["named"] is None) for t in right])
    truth = [first for t in right if (first := tasks.first_wrong_step(t.task, t.tags["steps"])) is not None]
    if len(truth) == len(right):
        found = detection([t.tags["named"] for t in right], truth)
        seen |= {"flaw/true_ratio": mean([float(first != FLAWLESS) for first in truth])} | {f"flaw/{name}": value for name, value in found.items()}
    return seen


def group_shares(group: Group) -> tuple[float, float]:
    """The shares of a group's attempts that are right and not flagged, and that are wrong."""
    known = [t for t in group.trajectories if not math.isnan(t.correct)]
    sound = mean([float(t.correct >= RIGHT and not t.rewards.get("flagged")) for t in known], default=0.0)
    return sound, mean([float(t.correct < RIGHT) for t in known], default=0.0)


class FlawAlarms:
    """Judgements that name nothing, attempts with ever fewer steps to find a flaw in, planted flaws that are not found: each is said once, and logged."""

    def __init__(self, config: FlawAlarmConfig) -> None:
        self.config = config
        self.usual_steps: float | None = None
        self.said: set[str] = set()

    def raised(self, step: int, seen: Mapping[str, float]) -> Metrics:
        """`flaw/alarm_silent`, `flaw/alarm_merged` and `flaw/alarm_blind`, 1 where the alarm is on, for what a step's attempts showed."""
        config, steps = self.config, seen["flaw/steps"]
        if self.usual_steps is None:
            self.usual_steps = steps
        silence, found = seen.get("flaw/unreadable", 0.0), seen.get("flaw/planted_recall", 1.0)
        alarms = {
            "silent": (
                silence > config.alarm_silence,
                f"{silence:.0%} of the judgements name no step, and what is not named is not penalised; look at judgements.jsonl, and at --step-prompt",
            ),
            "merged": (
                steps < (1 - config.alarm_merged) * self.usual_steps,
                f"attempts have {steps:.1f} steps, at first {self.usual_steps:.1f}: merged steps hide flaws; look at trajectories.jsonl",
            ),
            "blind": (
                found < config.alarm_blind,
                f"the judge finds {found:.0%} of the flaws that were planted into attempts it had passed: it no longer tells flawed from sound",
            ),
        }
        for name, (on, text) in alarms.items():
            if on and name not in self.said:
                self.said.add(name)
                warnings.warn(f"step {step}: {text}", stacklevel=2)
        return {f"flaw/alarm_{name}": float(on) for name, (on, _) in alarms.items()}

    def state(self) -> dict[str, Any]:
        """Plain values that what is raised later depends on."""
        return {"usual_steps": self.usual_steps, "said": sorted(self.said)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a saved state."""
        self.usual_steps, self.said = state["usual_steps"], set(state["said"])

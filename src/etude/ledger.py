"""What a run has spent, and how much it may spend."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from etude.errors import InputError, nearest

FORWARD = 1.0
"""Forward-equivalents of one token in a forward pass."""
FORWARD_BACKWARD = 3.0
"""Forward-equivalents of one token in a forward and a backward pass: the backward one computes two products for every product of the forward one."""


@dataclass
class Ledger:
    """Everything a run spends, also on what was discarded. A method adds to it where the work is done; the driver adds `steps` and the seconds.

    What evaluation spends is kept apart, so that measuring more often does not make a method look costlier.
    """

    generated_tokens: int = 0
    """Tokens the policy wrote."""
    prompt_tokens: int = 0
    """Tokens of the prompts it was given, once per prefill."""
    judged_tokens: int = 0
    """Tokens that judging models read and wrote."""
    trained_tokens: int = 0
    """Tokens that entered a loss, once per pass."""
    rollouts: int = 0
    environment_steps: int = 0
    task_evaluations: int = 0
    """Values that a search asked for: an agent tried on a task, a state judged."""
    model_calls: dict[str, int] = field(default_factory=dict)
    """Calls by role: policy, judge, proposer, ..."""
    forward_equivalents: float = 0.0
    """Token-forwards through the network: 1 a token in a forward pass, 3 in a forward and backward pass."""
    decode_steps: int = 0
    """Steps of the sampler engine, each of which advances every running sequence by a token."""
    steps: int = 0
    """Steps of the loop."""
    seconds: float = 0.0
    """Wall time of those steps."""
    evaluation_tokens: int = 0
    evaluation_rollouts: int = 0
    evaluation_seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Generated and judged tokens: what a token budget counts."""
        return self.generated_tokens + self.judged_tokens

    @property
    def calls(self) -> int:
        """Model calls of all roles."""
        return sum(self.model_calls.values())

    def count_call(self, role: str, count: int = 1) -> None:
        """Add model calls made in a role."""
        self.model_calls[role] = self.model_calls.get(role, 0) + count

    def __add__(self, other: Ledger) -> Ledger:
        return self._combined(other, 1)

    def __sub__(self, other: Ledger) -> Ledger:
        """What was spent between an earlier copy of this ledger and now."""
        return self._combined(other, -1)

    def _combined(self, other: Ledger, sign: int) -> Ledger:
        numbers = {f.name: getattr(self, f.name) + sign * getattr(other, f.name) for f in fields(self) if f.name != "model_calls"}
        roles = dict.fromkeys([*self.model_calls, *other.model_calls])
        calls = {role: self.model_calls.get(role, 0) + sign * other.model_calls.get(role, 0) for role in roles}
        return Ledger(**numbers, model_calls={role: count for role, count in calls.items() if count})

    def copy(self) -> Ledger:
        return replace(self, model_calls=dict(self.model_calls))

    def restore(self, other: Ledger) -> None:
        """Take another ledger's values in place, so that whoever holds this ledger goes on counting into it."""
        for f in fields(self):
            value = getattr(other, f.name)
            setattr(self, f.name, dict(value) if isinstance(value, dict) else value)

    def set_apart_evaluation(self, before: Ledger) -> None:
        """Count everything spent since `before`, an earlier copy, as evaluation: its tokens, rollouts and seconds; its other costs are not kept."""
        spent = self - before
        self.restore(before)
        self.evaluation_tokens += spent.evaluation_tokens + spent.tokens
        self.evaluation_rollouts += spent.evaluation_rollouts + spent.rollouts
        self.evaluation_seconds += spent.evaluation_seconds + spent.seconds

    def to_plain(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {f.name: dict(v) if isinstance(v := getattr(self, f.name), dict) else v for f in fields(self)}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Ledger:
        """From what `to_plain` gave; entries it lacks are zero, and ones that are not known are left out."""
        known = {f.name for f in fields(cls)}
        ledger = cls(**{name: value for name, value in values.items() if name in known})
        return ledger.copy()


_UNITS: dict[str, tuple[Callable[[Ledger], float], float]] = {
    "tokens": (lambda ledger: ledger.tokens, 1),
    "rollouts": (lambda ledger: ledger.rollouts, 1),
    "steps": (lambda ledger: ledger.steps, 1),
    "env-steps": (lambda ledger: ledger.environment_steps, 1),
    "decode-steps": (lambda ledger: ledger.decode_steps, 1),
    "calls": (lambda ledger: ledger.calls, 1),
    "evaluations": (lambda ledger: ledger.task_evaluations, 1),
    "forwards": (lambda ledger: ledger.forward_equivalents, 1),
    "seconds": (lambda ledger: ledger.seconds, 1),
    "minutes": (lambda ledger: ledger.seconds, 60),
}


def spent_units(ledger: Ledger) -> list[str]:
    """The units of a budget that something was spent of."""
    return [unit for unit, (count, _) in _UNITS.items() if count(ledger) > 0]


_SUFFIXES = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
_FORM = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<suffix>[kmg]?)-(?P<unit>[a-z-]+)", re.IGNORECASE)
_EXAMPLES = "as 400k-tokens, 1.5M-tokens, 20k-rollouts, 50-steps, 120-seconds, 2-minutes, 5k-env-steps, 1k-calls, 600-evaluations or 2G-forwards"


@dataclass(frozen=True)
class Budget:
    """What a run may spend: an amount of one unit. Tokens are generated and judged ones; seconds are those of steps; evaluation is free."""

    amount: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> Budget:
        """A number, k, M or G where wanted, a hyphen and a unit.

        Raises InputError for anything else.
        """
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise InputError(f"the budget {text!r} cannot be read; expected a number, a hyphen and a unit, {_EXAMPLES}")
        unit = match["unit"].lower()
        if not unit.endswith("s"):
            unit += "s"
        if unit not in _UNITS:
            raise InputError(
                f"the budget {text!r} has the unknown unit {match['unit']!r}.{nearest(unit, _UNITS)} Expected one of {', '.join(_UNITS)}, {_EXAMPLES}"
            )
        amount = float(match["number"]) * _SUFFIXES[match["suffix"].lower()]
        if amount <= 0:
            raise InputError(f"the budget {text!r} is nothing; expected more than 0, {_EXAMPLES}")
        return cls(amount, unit)

    def used(self, ledger: Ledger) -> float:
        """What a ledger has spent, in this budget's unit."""
        count, size = _UNITS[self.unit]
        return count(ledger) / size

    def spent(self, ledger: Ledger) -> float:
        """The fraction that a ledger has spent: 1 or more when nothing is left."""
        return self.used(ledger) / self.amount

    def __str__(self) -> str:
        for suffix, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
            if self.amount >= size:
                return f"{self.amount / size:.10g}{suffix}-{self.unit}"
        return f"{self.amount:.10g}-{self.unit}"

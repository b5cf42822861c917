"""What an attempt is worth to a search that must not see the verdict: rules that can be checked, a judge's ratings, and how short it was. Pure functions.

    R = w1 * (share of the rules that hold * completion) + w2 * quality + w3 * 1 / (1 + size / scale)

Completion and quality are a judge's, in [0, 1]. What no judge could rate counts as 0, so that it comes after everything that was rated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from etude.types import StopReason

HANDED_IN, OUT_OF_TURNS, CUT_OFF, NOTHING_DONE = "handed in", "out of turns", "cut off", "nothing done"
"""How an attempt ended. `nothing done`: it ended well, but with an empty answer or an unchanged repository."""


@dataclass(frozen=True)
class Rules:
    """What an attempt has to be like, whatever it says. shortest, longest: turns (0: no limit). repeats: how often in a row the same turn may come.

    edits: smallest share of the turns that are edits, where the environment counts edits.
    """

    shortest: int = 1
    longest: int = 0
    repeats: int = 3
    edits: float = 0.0


def status_of(stop_reason: StopReason, artefact: str, *, environment: bool, unchanged: bool = False) -> str:
    """How an attempt ended, by what happened and not by its words."""
    if environment and stop_reason != "environment":
        return OUT_OF_TURNS
    if not environment and stop_reason == "length":
        return CUT_OFF
    return NOTHING_DONE if unchanged or not artefact.strip() else HANDED_IN


def rules_of(status: str, turns: Sequence[str], facts: Mapping[str, float], rules: Rules) -> dict[str, bool]:
    """Which rules hold, by name. turns: what the model wrote; facts: what the environment counted, of which `edits` is looked at."""
    longest_run = max((len(list(same)) for _, same in groupby(turn.strip() for turn in turns)), default=0)
    held = {
        "ended": status in (HANDED_IN, NOTHING_DONE),
        "something done": status != NOTHING_DONE,
        "long enough": len(turns) >= rules.shortest,
        "short enough": not rules.longest or len(turns) <= rules.longest,
        "no repeats": longest_run <= rules.repeats,
    }
    if rules.edits and "edits" in facts:
        held["enough edits"] = facts["edits"] >= rules.edits * len(turns)
    return held


def efficiency(size: float, scale: float) -> float:
    """1 / (1 + size / scale): 1 for nothing at all, 1/2 for an attempt of size `scale`."""
    return 1 / (1 + size / scale)


def attempt_score(rules: float, completion: float | None, quality: float | None, short: float, weights: tuple[float, float, float]) -> float:
    """R. rules: the share that holds. completion, quality: the judge's ratings, None where there are none."""
    return weights[0] * rules * (completion or 0.0) + weights[1] * (quality or 0.0) + weights[2] * short

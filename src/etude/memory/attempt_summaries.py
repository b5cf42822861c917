"""What is remembered of a whole attempt: a log shortened to what a model can read many of, and a structured summary that a model writes of it, with its ratings.

How the attempt ended is not the summariser's to say: it stands in the question, by what happened. Nothing here sees a verdict.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from etude.sandbox.base import cut
from etude.types import Message

Turn = tuple[str, str]
"""Who wrote a turn of an attempt, as `Segment.author`, and the text."""
Rating = Annotated[float, Ge(0), Le(1)]
SUMMARISE = """Below is an attempt at a task, shortened. Summarise it for somebody who will try the same task again, and rate it.
Whether it was right has not been checked; go by what its log shows. In `findings` say of each part of the problem that the attempt dealt with what it did there, and
whether that worked. `tests` is how the last run of tests ended that the attempt made itself. `completion` is how likely it is that the task is solved, from 0 to 1;
`coherence`, `depth` and `robustness` rate the reasoning, from 0 to 1."""
ORDER = ("status", "findings", "approach_summary", "strategy", "key_changes", "tests", "modified_files", "specific_techniques")
"""Fields in the order in which an operator is shown them, most useful first. What comes after those is left out when there is no room."""


@dataclass(frozen=True)
class Finding:
    """What became of one part of the problem. what: what the attempt did there."""

    part: str
    what: str
    worked: bool


@dataclass(frozen=True)
class Summary:
    """What a model writes of an attempt. An operator reads it in place of the log."""

    approach_summary: str
    modified_files: list[str]
    key_changes: list[str]
    strategy: str
    specific_techniques: list[str]
    tools_used: list[str]
    reasoning_pattern: str
    assumptions_made: list[str]
    components_touched: list[str]
    findings: list[Finding]
    tests: Literal["passed", "failed", "not run"]
    completion: Rating
    coherence: Rating
    depth: Rating
    robustness: Rating

    @property
    def quality(self) -> float:
        """Mean of the three ratings of the reasoning."""
        return (self.coherence + self.depth + self.robustness) / 3


@dataclass(frozen=True)
class Shortening:
    """How an attempt's log is shortened, in characters. observation, thought: of one turn of the environment or of the model; log: of it all; problem: of the task."""

    observation: int = 400
    thought: int = 1200
    log: int = 12_000
    problem: int = 2000

    def halved(self) -> Shortening:
        return Shortening(*(max(40, size // 2) for size in asdict(self).values()))


@dataclass(frozen=True)
class Attempted:
    """What a summariser may know of an attempt: the problem, the turns, how it ended, what was made (a patch, an answer), and what the environment counted."""

    problem: str
    turns: Sequence[Turn]
    status: str
    artefact: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def shortened(turns: Sequence[Turn], limits: Shortening) -> str:
    """A log in which every turn is cut in its middle, and turns in the middle are left out where all together are too long. Turns are numbered."""
    lines = [
        f"[{number}] {'attempt' if author == 'policy' else author}: {cut(text.strip(), limits.thought if author == 'policy' else limits.observation)}"
        for number, (author, text) in enumerate(turns, 1)
    ]
    while len(lines) > 2 and sum(map(len, lines)) + len(lines) > limits.log:
        del lines[len(lines) // 2]
    return cut("\n".join(lines), limits.log)


def question(attempt: Attempted, limits: Shortening) -> tuple[Message, ...]:
    """What a summariser is asked."""
    parts = [
        SUMMARISE,
        f"The task:\n{cut(attempt.problem, limits.problem)}",
        f"The attempt:\n{shortened(attempt.turns, limits)}",
        f"How it ended: {attempt.status}." + (f" Counted: {json.dumps(dict(attempt.facts), ensure_ascii=False)}" if attempt.facts else ""),
    ]
    if attempt.artefact and len(attempt.turns) > 1:
        parts.append(f"What it made:\n{cut(attempt.artefact, limits.log // 3)}")
    return (Message("user", "\n\n".join(parts)),)


def shown(summary: Mapping[str, Any], status: str, most: int) -> str:
    """A summary as an operator reads it: a line a field, as many as fit into `most` characters."""
    said = {**summary, "status": status}
    lines: list[str] = []
    for name in ORDER:
        value = said.get(name)
        if not value:
            continue
        if name == "findings":
            value = "; ".join(f"{f['part']}: {f['what']} ({'worked' if f['worked'] else 'failed'})" for f in value)
        line = f"{name}: {', '.join(value) if isinstance(value, list) else value}"
        if sum(map(len, lines)) + len(lines) + len(line) > most:
            lines.append(cut(line, max(40, most - sum(map(len, lines)) - len(lines))))
            break
        lines.append(line)
    return "\n".join(lines)


def right_findings(findings: Sequence[Mapping[str, Any]], checks: Mapping[str, bool]) -> list[bool]:
    """Of each finding about a part that was checked by running something, whether it says what the check says."""
    return [finding["worked"] == checks[finding["part"]] for finding in findings if finding["part"] in checks]

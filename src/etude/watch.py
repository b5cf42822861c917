"""What stands between a run and its collapse: readings of the probe as they fall due, what they mean, and which checkpoint to go back to.

Everything that is decided follows from `probe.jsonl`, one line a reading, which a checkpoint rewinds as it does the other logs: a run that was killed and resumed
decides as it would have. After a rollback the count of steps goes on, under the older state: what was spent stays spent, and new steps draw new random numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from etude.config import CollapseLimits
from etude.errors import CheckpointError
from etude.evals.collapse import Reading, most_accurate, signs_of_collapse
from etude.types import Metrics

if TYPE_CHECKING:
    from etude.method import Method
    from etude.run import Run

OnCollapse = Literal["warn", "stop", "rollback"]
Action = Literal["none", "warn", "stop", "rollback"]


@dataclass
class Watch:
    """What a method gives the driver to watch it with: a reading of the probe every so many steps, and from where on it shows a collapse.

    `read` changes nothing that the next step depends on, and spends from no budget.
    """

    every: int
    read: Callable[[], Reading]
    limits: CollapseLimits = field(default_factory=CollapseLimits)


@dataclass(frozen=True)
class Finding:
    """What follows from a reading.

    signs: the signs of collapse that it shows. new: those that the reading before did not show. action: what to do; `to` is the step to go back to, None where
    the state stays. best: no reading of a sound state was more accurate.
    """

    reading: Reading
    signs: dict[str, str]
    new: tuple[str, ...]
    action: Action
    to: int | None
    best: bool

    @property
    def metrics(self) -> Metrics:
        """What goes into metrics.jsonl."""
        metrics = {**self.reading.metrics, "collapse/signs": float(len(self.signs)), **{f"collapse/{name}": 1.0 for name in self.signs}}
        return metrics | ({"collapse/back_to": float(self.to)} if self.to is not None else {})

    @property
    def message(self) -> str:
        """What a person is told; empty where there is nothing new."""
        return collapse_text(self.to_plain()) if self.new or self.action in ("stop", "rollback") else ""

    def to_plain(self) -> dict[str, Any]:
        """One line of probe.jsonl."""
        return {**self.reading.to_plain(), "signs": self.signs, "action": self.action, "to": self.to}


def collapse_text(line: Mapping[str, Any]) -> str:
    """A line of probe.jsonl that shows a collapse, in one sentence: when, by which signs, and what was done."""
    consequence = "; the run ended there" if line["action"] == "stop" else ""
    if line["to"] is not None:
        consequence = f"; the run went back to the state of step {line['to']}" + (" and ended" if line["action"] == "stop" else "")
    signs = "; ".join(f"{name.replace('_', ' ')}: {said}" for name, said in line["signs"].items())
    return f"collapse at step {line['step']} ({signs}){consequence}"


class History:
    """The readings of a run, read back from its log."""

    def __init__(self, lines: Iterable[Mapping[str, Any]]) -> None:
        self._lines: list[dict[str, Any]] = [dict(line) for line in lines]

    def add(self, finding: Finding) -> None:
        self._lines.append(finding.to_plain())

    @property
    def last_step(self) -> int | None:
        """Step of the newest reading."""
        return self._lines[-1]["step"] if self._lines else None

    @property
    def went_back(self) -> bool:
        """Whether the newest reading took the run back."""
        return bool(self._lines) and self._lines[-1]["to"] is not None

    @property
    def rollbacks(self) -> int:
        """Times that the run went back."""
        return sum(1 for line in self._lines if line["action"] == "rollback")

    def readings(self) -> list[Reading]:
        """Readings of the states that the present one came from: those between a rollback and where it went back to are left out."""
        return [Reading.from_plain(line) for line in self._branch()]

    def best(self) -> Reading | None:
        """The most accurate reading that shows no collapse; the earliest of equals."""
        return most_accurate([Reading.from_plain(line) for line in self._branch() if not line["signs"]])

    def ended_at(self, step: int) -> str | None:
        """Why the run ended at this step, if a collapse ended it there."""
        last = self._lines[-1] if self._lines else None
        if last is None or last["step"] != step or last["action"] != "stop":
            return None
        return collapse_text(last)

    def collapses(self) -> list[dict[str, Any]]:
        """Readings that showed new signs or had consequences, as plain values: `step`, `signs`, `action`, `to`."""
        found, before = [], set()
        for line in self._lines:
            if set(line["signs"]) - before or line["action"] in ("stop", "rollback"):
                found.append({name: line[name] for name in ("step", "signs", "action", "to")})
            before = set() if line["to"] is not None else set(line["signs"])
        return found

    def judge(self, reading: Reading, limits: CollapseLimits, on_collapse: OnCollapse = "warn", most_rollbacks: int = 0) -> Finding:
        """What a new reading means. Nothing is added yet.

        With `rollback`, the run goes back `most_rollbacks` times; then, or when there is nothing to go back to, a collapse ends it, in the best state there is.
        """
        branch = self._branch()
        signs = signs_of_collapse([*map(Reading.from_plain, branch), reading], limits)
        new = tuple(name for name in signs if not branch or name not in branch[-1]["signs"])
        sound = self.best()
        action: Action = "none"
        to = None
        if signs:
            action = on_collapse
            if on_collapse == "rollback" and sound is not None:
                to = sound.step
                action = "stop" if self.rollbacks >= most_rollbacks else "rollback"
            elif on_collapse == "rollback":
                action = "stop"  # collapsed before it was ever sound
        best = not signs and most_accurate([*([sound] if sound is not None else []), reading]) is reading
        return Finding(reading, signs, new, action, to, best)

    def _branch(self) -> list[dict[str, Any]]:
        kept: list[dict[str, Any]] = []
        for line in self._lines:
            kept.append(line)
            if line["to"] is not None:
                kept = [earlier for earlier in kept if earlier["step"] <= line["to"]]
        return kept


class Guard:
    """Reads the history of one run's probe, and does what a finding says."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.history = History(run.probe_log)

    @property
    def read_at(self) -> int | None:
        """Step of the newest reading, None before the first."""
        return self.history.last_step

    def hold(self) -> None:
        """Keep the checkpoint that the run may go back to, or that a person may want when a collapse ends the run, from being dropped."""
        best = self.history.best() if self.run.config.on_collapse != "warn" else None
        self.run.checkpoints.held = best.step if best is not None else None

    def holds(self, finding: Finding) -> bool:
        """Whether the state that a finding is about needs a checkpoint to be gone back to."""
        return finding.best and self.run.config.on_collapse != "warn"

    def ended(self) -> str | None:
        """Why there is no next step, when a collapse ended the run where it stands.

        A resumed run may be told to go on: with `warn`, or with more rollbacks where these had run out.
        """
        config = self.run.config
        more = config.on_collapse == "rollback" and self.history.went_back and self.history.rollbacks < config.most_rollbacks
        return None if more or config.on_collapse == "warn" else self.history.ended_at(self.run.step)

    def take(self, reading: Reading, method: Method, limits: CollapseLimits) -> Finding:
        """Say what a reading means, record it, and take the method back where that follows.

        Where the checkpoint to go back to is lost or damaged, the run ends instead, with a warning.
        """
        config = self.run.config
        finding = self.history.judge(reading, limits, config.on_collapse, config.most_rollbacks)
        if finding.to is not None:
            try:
                method.load_state(self.run.checkpoints.load(finding.to).state())
            except CheckpointError as error:
                warnings.warn(f"the run cannot go back to step {finding.to}, and ends: {error}", stacklevel=2)
                finding = replace(finding, action="stop", to=None)
            else:
                # One that was written here before this reading (by a run that was asked to stop) holds the state that is left now.
                self.run.checkpoints.drop(self.run.step)
        self.history.add(finding)
        self.run.probe_log.append([finding.to_plain()])
        self.hold()
        return finding

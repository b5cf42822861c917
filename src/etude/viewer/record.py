"""What a run folder holds, read back: metrics by step, evaluations, samples, ledger, configuration.

Reading never fails on a run that is unfinished or damaged: a missing file is an empty one, a broken line is counted and left out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import yaml

from etude.config import NO_MODEL, NO_STEP_LIMIT
from etude.errors import InputError
from etude.evals.collapse import Reading
from etude.method import get_method
from etude.searching import SEARCH
from etude.summary import Exported

Series = tuple[list[int], list[float]]
"""Steps and the finite values measured at them, by rising step."""

PRIMARY = ("eval/pass@1", "eval/score", "eval/return", "eval/success", "eval/reward")
"""Held-out metrics that can stand for a run in one number, most telling first."""


@dataclass
class RunRecord:
    """Everything that one run has written so far.

    `steps` maps a step to its numeric metrics, training and evaluation together; of values written twice (a resumed run repeats steps) the last one counts.
    `broken_lines` counts lines of the JSONL files that could not be read.
    """

    folder: Path
    steps: dict[int, dict[str, float]] = field(default_factory=dict)
    ledger: dict[str, Any] = field(default_factory=dict)
    trajectories: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    trees: list[dict[str, Any]] = field(default_factory=list)
    search: dict[str, Any] = field(default_factory=dict)
    probe: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    broken_lines: int = 0

    @cached_property
    def names(self) -> list[str]:
        """Names of all numeric metrics, sorted."""
        return sorted({name for row in self.steps.values() for name in row})

    def series(self, name: str) -> Series:
        """Steps and finite values of one metric; both empty when it was never measured."""
        found = [(step, row[name]) for step, row in self.steps.items() if math.isfinite(row.get(name, math.nan))]
        return [s for s, _ in found], [v for _, v in found]

    @cached_property
    def evaluations(self) -> list[int]:
        """Steps at which the held-out split was measured."""
        return [step for step, row in self.steps.items() if any(name.startswith("eval/") for name in row)]

    @cached_property
    def primary(self) -> str | None:
        """The metric that stands for the run (what chose the best checkpoint, if that is known), or None when nothing was held out."""
        said = self.result.get("score_key")
        return next((name for name in (said, *PRIMARY) if isinstance(name, str) and self.series(name)[0]), None)

    @property
    def score_key(self) -> str:
        """The metric that chose the best checkpoint."""
        said = self.result.get("score_key")
        return said if isinstance(said, str) else PRIMARY[0]

    @property
    def exported(self) -> Exported | None:
        """Which weights are in `model/`, or None where the run does not say."""
        said = self.result.get("exported")
        whole = isinstance(said, dict) and said.keys() >= Exported.__annotations__.keys() and all(v is None or _is_number(v) for v in said.values())
        return cast(Exported, said) if whole else None

    def largest_k(self, kind: str = "pass") -> int | None:
        """The largest k > 1 of `eval/pass@k` (or `eval/maj@k`), or None."""
        return max((k for k in self.ks(kind) if k > 1), default=None)

    def ks(self, kind: str = "pass") -> list[int]:
        """Every k that `eval/{kind}@k` was measured for."""
        return sorted(int(m.group(1)) for name in self.names if (m := re.fullmatch(rf"eval/{kind}@(\d+)", name)))

    @property
    def last_step(self) -> int:
        return max([*self.steps, _whole(self.ledger.get("steps"))], default=0)

    @property
    def planned_steps(self) -> int | None:
        """Steps that the configuration asked for at most; None where only a budget ends the run."""
        steps = _whole(self._section("run").get("steps"))
        return steps if 0 < steps < NO_STEP_LIMIT else None

    @property
    def seconds(self) -> float | None:
        """Wall time of all steps, or None where the ledger does not say."""
        value: Any = self.ledger.get("seconds")
        return float(value) if _is_number(value) and math.isfinite(value) else None

    @property
    def status(self) -> str:
        """`finished`, `interrupted`, `failed`, `collapsed`, or `unfinished` when no result was written (still running, or killed)."""
        if not self.result:
            return "unfinished"
        said = self.result.get("status")
        return said if said in ("interrupted", "failed", "collapsed") else "finished"

    @cached_property
    def method(self) -> str:
        """The method's name as its card gives it, or its slug where the method is not installed here."""
        slug = self.result.get("method") or self.config.get("method") or self.environment.get("method")
        if not isinstance(slug, str):
            named = re.fullmatch(r"(.+)-[^-]+-seed\d+(-\d+)?", self.folder.resolve().name)
            slug = named.group(1) if named else ""
        try:
            return get_method(slug).card.name
        except Exception:  # a report can be written where the method's package is missing or broken
            return slug or "The run"

    @property
    def model(self) -> str:
        return _short(self._section("inputs").get("model"), "the model")

    @property
    def subject(self) -> str:
        """What was improved or searched, for a sentence: ' of tiny on arithmetic', or without a model ' on simulated'."""
        return ("" if self.model == NO_MODEL else f" of {self.model}") + f" on {self.tasks}"

    @property
    def tasks(self) -> str:
        return _short(self._section("inputs").get("tasks"), "its tasks")

    @property
    def seed(self) -> int | None:
        value = self._section("run").get("seed")
        return value if isinstance(value, int) else None

    def _section(self, name: str) -> Mapping[str, Any]:
        section = self.config.get(name)
        return section if isinstance(section, Mapping) else self.config


def read_run(folder: Path) -> RunRecord:
    """Read a run folder, finished or not.

    Raises InputError when the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no run folder {str(folder)!r}; expected a folder that `etude train` wrote (see its last line for the path)")
    record = RunRecord(folder, result=_read_json(folder / "result.json"), environment=_read_json(folder / "environment.json"))
    rows, broken_metrics = _read_lines(folder / "metrics.jsonl")
    record.trajectories, broken_trajectories = _read_lines(folder / "trajectories.jsonl")
    record.samples, broken_samples = _read_lines(folder / "samples.jsonl")
    trees, broken_trees = _read_lines(folder / "trees.jsonl")
    record.trees = [line for line in trees if isinstance(line.get("step"), int) and isinstance(line.get("branches"), list)]
    record.search = _read_json(folder / SEARCH)
    readings, broken_probe = _read_lines(folder / "probe.jsonl")
    record.probe = [line for line in readings if _is_reading(line)]
    record.broken_lines = (
        broken_metrics + broken_trajectories + broken_samples + broken_trees + len(trees) - len(record.trees) + broken_probe + len(readings) - len(record.probe)
    )
    unsorted: dict[int, dict[str, float]] = {}
    for row in rows:
        if not _is_number(row.get("step")):
            record.broken_lines += 1
            continue
        if isinstance(row.get("ledger"), dict):
            record.ledger = row["ledger"]
        unsorted.setdefault(int(row["step"]), {}).update(numeric(row))
    record.steps = {step: unsorted[step] for step in sorted(unsorted)}
    if isinstance(record.result.get("ledger"), dict):
        record.ledger = record.result["ledger"]
    record.config_text = _read_text(folder / "config.yaml")
    try:
        loaded = yaml.safe_load(record.config_text)
    except yaml.YAMLError:
        loaded = None
    record.config = loaded if isinstance(loaded, dict) else {}
    return record


def numeric(row: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of one line: names with a slash, numbers as floats, null as NaN; anything else is left out."""
    return {
        name: math.nan if value is None else float(value)
        for name, value in row.items()
        if "/" in name and (value is None or _is_number(value) or isinstance(value, bool))
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_reading(line: Mapping[str, Any]) -> bool:
    """Whether a line of probe.jsonl is as `etude.watch` writes it."""
    try:
        Reading.from_plain(line)
        known = isinstance(line["signs"], dict) and isinstance(line["action"], str)
        return known and isinstance(line["step"], int) and (line["to"] is None or isinstance(line["to"], int))
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def _whole(value: Any) -> int:
    return int(value) if _is_number(value) and math.isfinite(value) else 0


def _short(value: Any, default: str) -> str:
    """A name a headline can carry: the last part of a path, anything else as it is."""
    if not isinstance(value, str) or not value:
        return default
    return value.rstrip("/").rsplit("/", 1)[-1] or value


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read_text(path) or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The objects of a JSONL file and how many lines were not one."""
    found: list[dict[str, Any]] = []
    broken = 0
    for line in _read_text(path).split("\n"):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError:
            broken += 1
            continue
        if isinstance(value, dict):
            found.append(value)
        else:
            broken += 1
    return found, broken

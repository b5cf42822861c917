"""How a run ended: what `result.json` holds, and what `drive` returns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypedDict

from etude.durable import replace_file
from etude.ledger import Ledger
from etude.types import Metrics

Status = Literal["finished", "interrupted", "failed", "collapsed"]


class Exported(TypedDict):
    """Where `RUN/model` is from: its step, and what there was to choose from. A score is None where the step was not measured."""

    step: int
    score: float | None
    last_step: int
    last_score: float | None
    evaluations: int


@dataclass
class Summary:
    """How a run ended; `collapsed` when --on-collapse ended it. `before` and `after` are its first and last evaluation; measurements that were NaN are left out."""

    status: Status
    reason: str
    step: int
    """Steps done."""
    folder: Path
    ledger: Ledger
    metrics: Metrics = field(default_factory=dict)
    """Last value of everything that was measured, evaluations included."""
    before: Metrics = field(default_factory=dict)
    after: Metrics = field(default_factory=dict)
    best: dict[str, float] | None = None
    """`step` and `score` of the best checkpoint."""
    exported: Exported | None = None
    """Which weights are in `RUN/model`; None while there is no such folder."""
    score_key: str = "eval/pass@1"
    method: str = ""
    """The method's slug."""
    collapses: list[dict[str, Any]] = field(default_factory=list)
    """Collapses that the probe showed: `step`, `signs` (name to sentence), `action` (warn, stop, rollback) and `to`, the step that the run went back to or None."""

    def to_plain(self) -> dict[str, Any]:
        """As plain JSON values; the folder, which may be moved, is left out."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "folder"}
        return {**values, "ledger": self.ledger.to_plain()}

    def write(self) -> None:
        """Write `result.json` into the run's folder, replacing it at once."""
        replace_file(self.folder / "result.json", json.dumps(self.to_plain(), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Summary | None:
        """The summary in a run's folder, or None when there is none that can be read."""
        try:
            values = json.loads((folder / "result.json").read_text())
            return cls.from_plain(values, folder)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @classmethod
    def from_plain(cls, values: Mapping[str, Any], folder: Path) -> Summary:
        return cls(**{**values, "ledger": Ledger.from_plain(values["ledger"])}, folder=folder)

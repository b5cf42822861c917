"""What the report says of the probe beside its curves: what it is, and the answers before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from etude.viewer.numbers import percent
from etude.viewer.record import RunRecord
from etude.viewer.samples import readable

MOST_ANSWERS = 8


@dataclass(frozen=True)
class ProbeFacts:
    """The probe in numbers: tasks, attempts at each, readings, and the steps that the table of answers compares."""

    tasks: int
    samples: str
    readings: int
    before_step: int
    after_step: int
    verdict: str


@dataclass(frozen=True)
class AnswerRow:
    """One final answer, and at each of the one or two steps that are compared its share of all attempts, as text and as the width of a bar in percent."""

    answer: str
    cells: list[tuple[str, float]]


def compared(record: RunRecord) -> list[Mapping[str, Any]]:
    """The first reading, and the last that showed a collapse or, where none did, the last one. One alone where they are the same; none without a probe."""
    if not record.probe:
        return []
    first, last = record.probe[0], next((line for line in reversed(record.probe) if line["signs"]), record.probe[-1])
    return [first] if last is first else [first, last]


def probe_facts(record: RunRecord) -> ProbeFacts | None:
    """None where the run had no probe."""
    shown = compared(record)
    if not shown:
        return None
    sound = not any(line["signs"] for line in record.probe)
    return ProbeFacts(
        tasks=len(record.probe[0]["accuracy"]),
        samples=_samples(record),
        readings=len(record.probe),
        before_step=shown[0]["step"],
        after_step=shown[-1]["step"],
        verdict="No sign of a collapse was seen." if sound and len(record.probe) > 1 else "",
    )


def answer_rows(record: RunRecord) -> list[AnswerRow]:
    """The most common answers of the readings that are compared, the later one's first."""
    shown = compared(record)
    tables = [{str(answer): float(share) for answer, share in line["answers"]} for line in shown]
    answers = dict.fromkeys(answer for table in reversed(tables) for answer in list(table)[: MOST_ANSWERS // len(tables)])
    widest = max((share for table in tables for share in table.values()), default=1.0)
    return [AnswerRow(readable(answer, most=60), [_cell(table, answer, widest) for table in tables]) for answer in answers]


def _cell(table: Mapping[str, float], answer: str, widest: float) -> tuple[str, float]:
    """A reading keeps its most common answers only: another one's share is below the least of these, if it was given at all."""
    if answer in table:
        return percent(table[answer]), 100 * table[answer] / widest
    return (f"below {percent(min(table.values()))}" if table else "–"), 0.0


def _samples(record: RunRecord) -> str:
    """Attempts at each task, from the configuration; 'several' where it does not say."""
    for section in (record.config.get("method"), record.config):
        watch = section.get("watch") if isinstance(section, Mapping) else None
        value = watch.get("probe_samples") if isinstance(watch, Mapping) else None
        if isinstance(value, int) and math.isfinite(value):
            return str(value)
    return "several"

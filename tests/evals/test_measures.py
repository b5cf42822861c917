"""Measures on records whose numbers can be worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from etude.errors import InputError
from etude.evals.measures import (
    Area,
    AtBudget,
    Attempts,
    Average,
    Constant,
    Deviation,
    Final,
    First,
    Largest,
    Measure,
    Reached,
    Record,
    Slope,
    Spent,
    Total,
    gain,
    of_every,
)
from etude.ledger import Budget


def record(values: list[float | None], *, tokens: int = 100, budget: str = "400-tokens", **more: Any) -> Record:
    """One value a row; row i stands at step i, after i * `tokens` tokens."""
    rows = [{"step": i, "m": v, "ledger": {"generated_tokens": i * tokens, "steps": i, "rollouts": 8 * i}} for i, v in enumerate(values)]
    return Record(rows, Budget.parse(budget), **more)


CURVE = [0.2, 0.4, 0.8, 0.8, 1.0]


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        (First("m"), 0.2),
        (Final("m"), 1.0),
        (AtBudget("m"), 1.0),
        (Average("m"), 0.64),
        (Average("m", last=0.5), (0.8 + 0.8 + 1.0) / 3),
        (Largest("m"), 1.0),
        (Total("m"), 3.2),
        # Trapezoids of width 100: 0.3, 0.6, 0.8, 0.9.
        (Area("m"), 2.6 / 4),
        # Least squares over steps 0 ... 4: sum of (x - 2)(y - 0.64) is 2, of squares 10.
        (Slope("m"), 0.2),
        (Reached("m", 0.6), 150.0),
        (Reached("m", 0.6, over="steps"), 1.5),
        (Reached("m", 2.0), 400.0),
        (Spent("rollouts"), 32.0),
        (Spent("generated_tokens"), 400.0),
        (Deviation("m", last=0.5), math.sqrt(4 / 300)),
        (gain("m"), 0.8),
        (Total("m") / Spent("steps") * 10.0 + Constant(1.0), 9.0),
    ],
)
def test_values(measure: Measure, expected: float) -> None:
    assert measure(record(CURVE)) == pytest.approx(expected)


def test_overshooting_the_budget_gains_nothing() -> None:
    # Measured after 300 and 600 tokens, the value at 400 is a third of the way.
    long = record([0.0, 0.3, 0.6], tokens=300)
    assert AtBudget("m")(long) == pytest.approx(0.4)
    # To 400: a triangle of 300 x 0.3 and a trapezoid of 100 between 0.3 and 0.4.
    assert Area("m")(long) == pytest.approx((45 + 35) / 400)
    assert Final("m")(long) == 0.6


def test_of_values_at_one_place_the_last_counts_for_curves_and_all_for_totals() -> None:
    idle = record([1.0, 3.0], tokens=0)
    assert idle.curve("m") == ([0.0], [3.0])
    assert Total("m")(idle) == 4.0


def test_missing_values_are_left_out() -> None:
    assert Average("m")(record([1.0, None, 3.0])) == 2.0


def test_attempts_are_chosen_by_what_they_are_and_when(tmp_path: Path) -> None:
    attempts = [(1, 0.0, 10), (1, 1.0, 5), (4, 0.0, 20), (4, 0.0, 30), (4, 1.0, 6)]
    lines = [json.dumps({"step": s, "length": length, "rewards": {"correct": c}}) for s, c, length in attempts]
    (tmp_path / "trajectories.jsonl").write_text("\n".join(lines) + "\n")
    run = record(CURVE, folder=tmp_path)
    assert Attempts("length", where={"correct": 0.0})(run) == 20.0
    assert Attempts("length", where={"correct": 0.0}, part=(0.75, 1.0))(run) == 25.0
    assert Attempts("length", part=(0.0, 0.25))(run) == 7.5
    assert math.isnan(Attempts("length", where={"correct": 0.5})(run))
    with pytest.raises(InputError, match="save_trajectories"):
        Attempts("length")(record(CURVE))


def test_a_measure_says_what_it_is() -> None:
    measure = Deviation("loss/grad_norm") / Average("loss/grad_norm", last=0.25)
    assert str(measure) == "standard deviation of loss/grad_norm / mean loss/grad_norm, last 25% of the run"
    assert str((Final("a") - First("a")) / Final("b")) == "(final a - first a) / final b"
    assert measure.metrics() == ["loss/grad_norm"]
    assert json.loads(json.dumps(measure.to_plain())) == {
        "measure": "Combined",
        "operation": "/",
        "left": {"measure": "Deviation", "metric": "loss/grad_norm", "last": 1.0},
        "right": {"measure": "Average", "metric": "loss/grad_norm", "last": 0.25},
    }


def test_what_cannot_be_measured_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"has no value of 'mm'\. Did you mean m\?"):
        Final("mm")(record(CURVE))
    with pytest.raises(InputError, match="seed 7"):
        of_every([record(CURVE, name="grpo, seed 7")], Final("m") / 0.0)
    with pytest.raises(InputError, match="unknown unit"):
        Spent("bananas")(record(CURVE))
    with pytest.raises(InputError, match="share of the run"):
        Average("m", last=0.0)
    with pytest.raises(InputError, match="rising shares"):
        Attempts("length", part=(0.5, 0.5))


def test_results_of_an_experiment_are_read_by_name() -> None:
    assert (Final("a") - Final("b"))(Record.of_values({"a": 3.0, "b": 1.0})) == 2.0

"""The numbers of a comparison, worked out by hand from made-up rows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from etude.errors import EtudeError, InputError
from etude.evals.arms import Arm, ArmRun, Status
from etude.evals.comparison import Comparison, compare_curves
from etude.evals.sweep import Trial, best_of, choices, edge_remarks
from etude.ledger import Budget, Ledger

METRIC = "eval/pass@1"
T95_2 = 4.302652729911275
"""Student's t, 97.5 %, 2 degrees of freedom (any table has 4.303)."""


def made(arm: str, seed: int, points: list[tuple[int, float]], status: Status = "finished", error: str | None = None) -> ArmRun:
    """A run with an evaluation at each (tokens spent, value)."""
    rows: list[dict[str, Any]] = [
        {"step": i, METRIC: value, "ledger": Ledger(generated_tokens=tokens, steps=i, seconds=2.0 * i).to_plain()} for i, (tokens, value) in enumerate(points)
    ]
    return ArmRun(arm, seed, Path(arm) / f"seed-{seed}", status, error, rows)


def compared(runs: list[ArmRun], budget: float = 1000, **options: Any) -> Comparison:
    arms = [Arm(name, "grpo") for name in dict.fromkeys(run.arm for run in runs)]
    return compare_curves(arms, runs, metric=METRIC, budget=Budget(budget, "tokens"), **options)


def test_final_values_areas_differences_and_reach() -> None:
    control = [made("control", s, [(0, 0.2), (1000, end)]) for s, end in ((1, 0.4), (2, 0.5), (3, 0.6))]
    # 1200 overshoots: half-way between 800 and 1200 the curves stand at 0.6, 0.7 and 0.7.
    treated = [made("treated", s, [(0, 0.2), (800, at), (1200, end)]) for s, at, end in ((1, 0.5, 0.7), (2, 0.6, 0.8), (3, 0.6, 0.8))]
    found = compared([*control, *treated])
    first, second = found.arms

    assert [s.final for s in first.seeds] == pytest.approx([0.4, 0.5, 0.6])
    assert [s.area for s in first.seeds] == pytest.approx([0.3, 0.35, 0.4])
    assert first.final is not None
    # Mean 0.5, standard deviation 0.1 over 3 seeds: half-width t * 0.1 / sqrt(3).
    assert (first.final.estimate, first.final.high - first.final.estimate) == pytest.approx((0.5, T95_2 * 0.1 / math.sqrt(3)))
    assert first.difference is None
    assert first.reach == pytest.approx(1000)
    assert found.target == pytest.approx(0.5)

    assert [s.final for s in second.seeds] == pytest.approx([0.6, 0.7, 0.7])
    # (0.2 + 0.5)/2 over 800 of 1000, (0.5 + 0.6)/2 over the other 200.
    assert second.seeds[0].area == pytest.approx(0.8 * 0.35 + 0.2 * 0.55)
    gap = second.difference
    assert gap is not None
    # Seed by seed 0.2, 0.2, 0.1: mean 1/6, standard deviation 0.1 / sqrt(3).
    assert (gap.final.estimate, gap.final.estimate - gap.final.low) == pytest.approx((1 / 6, T95_2 * 0.1 / 3))
    assert gap.pairs == 3
    # t = (1/6) / (0.1/3) = 5 with 2 degrees of freedom: p = 1 - 5/sqrt(27).
    assert gap.p_value == pytest.approx(1 - 5 / math.sqrt(27))
    assert gap.detectable > gap.final.estimate - gap.final.low
    # The mean curve rises from 0.2 to 1.7/3 over 800 tokens and comes to 0.5 at 800 * 0.3 / (1.7/3 - 0.2); it is drawn on a grid of 1000/32.
    assert second.reach == pytest.approx(800 * 0.3 / (1.7 / 3 - 0.2), abs=1)
    # Seed 1 gets to 0.5 at 800 tokens exactly.
    assert second.seeds[0].reached == pytest.approx(800)
    # Seed 1 of the control ends below 0.5, seed 2 arrives with the last token.
    assert [s.reached for s in first.seeds] == [None, pytest.approx(1000), pytest.approx(750)]
    assert found.remarks == []
    assert found["treated"] is second


def test_the_p_values_of_several_arms_are_corrected() -> None:
    def arm(name: str, ends: tuple[float, float, float]) -> list[ArmRun]:
        return [made(name, s, [(0, 0.2), (1000, end)]) for s, end in enumerate(ends)]

    alone = compared([*arm("a", (0.4, 0.5, 0.6)), *arm("b", (0.6, 0.7, 0.7))])
    both = compared([*arm("a", (0.4, 0.5, 0.6)), *arm("b", (0.6, 0.7, 0.7)), *arm("c", (0.5, 0.4, 0.6))])
    assert alone["b"].difference is not None
    assert both["b"].difference is not None
    # The smaller one of two counts twice; the interval is each one's own.
    assert both["b"].difference.p_value == pytest.approx(2 * alone["b"].difference.p_value)
    assert both["b"].difference.final == alone["b"].difference.final


def test_an_arm_with_a_crash_has_no_mean_however_well_its_other_seeds_did() -> None:
    control = [made("control", s, [(0, 0.2), (1000, 0.4 + s / 10)]) for s in (1, 2)]
    frail = [made("frail", 1, [(0, 0.2), (1000, 0.99)]), made("frail", 2, [(0, 0.2), (300, 0.9)], "crashed", "step 3: the loss is NaN")]
    found = compared([*control, *frail])
    result = found["frail"]
    assert (result.final, result.area, result.curve, result.difference, result.reach) == (None,) * 5
    assert [s.final for s in result.seeds] == [0.99, None]
    assert "frail, seed 2, crashed: step 3: the loss is NaN" in found.remarks
    assert any(r.startswith("frail has no mean: 1 of 2 runs did not finish") for r in found.remarks)

    # Nor is there anything to compare with when it is the first arm that crashed.
    turned = compared([*frail, *control])
    assert turned["control"].difference is None
    assert turned["control"].final is not None
    assert turned.target is None


def test_a_single_seed_has_no_interval_and_says_so() -> None:
    found = compared([made("a", 1, [(0, 0.2), (1000, 0.4)]), made("b", 1, [(0, 0.2), (1000, 0.6)])])
    gap = found["b"].difference
    assert gap is not None
    assert gap.final.estimate == pytest.approx(0.2)
    assert (gap.final.low, gap.final.high) == (-math.inf, math.inf)
    assert math.isnan(gap.p_value)
    assert found.remarks == ["One seed a run shows no spread, so that there are no intervals: whether a difference is chance cannot be said."]


def test_differences_are_taken_over_the_seeds_that_both_arms_have() -> None:
    control = [made("a", s, [(0, 0.2), (1000, 0.1 * s)]) for s in (1, 2, 3)]
    other = [made("b", s, [(0, 0.2), (1000, 0.1 * s + 0.05)]) for s in (2, 3, 4)]
    gap = compared([*control, *other])["b"].difference
    assert gap is not None
    assert (gap.pairs, gap.final.estimate) == (2, pytest.approx(0.05))


def test_an_arm_that_stopped_before_the_budget_was_spent_is_named() -> None:
    found = compared([made("a", 1, [(0, 0.2), (1000, 0.4)]), made("b", 1, [(0, 0.2), (600, 0.5)])])
    assert found["b"].seeds[0].final == pytest.approx(0.5)
    assert any(r.startswith("b ended by its steps before the budget was spent (1 of 1 runs, from 60 % of it on)") for r in found.remarks)


def test_different_starting_points_are_named() -> None:
    found = compared([made("a", 1, [(0, 0.2), (1000, 0.4)]), made("b", 1, [(0, 0.3), (1000, 0.5)])])
    assert any("measured different values of eval/pass@1 (0.2, 0.3)" in r for r in found.remarks)


def test_where_lower_is_better_the_level_is_reached_from_above() -> None:
    runs = [made("a", 1, [(0, 9.0), (1000, 5.0)]), made("b", 1, [(0, 9.0), (1000, 1.0)])]
    assert compared(runs, lower_is_better=True)["b"].seeds[0].reached == pytest.approx(500)


def test_what_is_reached_after_the_budget_is_not_reached() -> None:
    runs = [made("a", 1, [(0, 0.2), (1000, 0.6)]), made("b", 1, [(0, 0.2), (900, 0.5), (1100, 0.66)])]
    assert compared(runs)["b"].seeds[0].reached is None


def test_a_metric_that_was_never_measured_is_refused_with_what_was() -> None:
    with pytest.raises(InputError, match=r"never measured eval/pass@2; expected one of eval/pass@1"):
        compare_curves([Arm("a", "grpo")], [made("a", 1, [(0, 0.2)])], metric="eval/pass@2", budget=Budget(10, "tokens"))


def test_everything_is_plain_json() -> None:
    found = compared([made("a", 1, [(0, 0.2), (1000, 0.4)]), made("b", 1, [(0, 0.2), (1000, 0.6)])])
    plain = json.loads(json.dumps(found.to_plain(), allow_nan=False))
    assert plain["arms"][1]["seeds"][0]["final"] == 0.6
    assert plain["arms"][1]["seeds"][0]["y"] == [0.2, 0.6]
    assert plain["arms"][1]["difference"]["final"]["low"] is None
    assert plain["budget"] == "1k-tokens"


def test_a_sweep_takes_every_combination_and_the_best_that_got_through() -> None:
    arms = choices(Arm("a", "grpo", {"group_size": 4}), {"lr": [0.1, 0.2], "epochs": [1, 2]})
    assert [arm.settings for arm in arms] == [{"group_size": 4, "lr": lr, "epochs": epochs} for lr in (0.1, 0.2) for epochs in (1, 2)]
    assert arms[3].name == "a lr=0.2,epochs=2"
    with pytest.raises(InputError, match="the arm a sets lr, which the sweep is to choose"):
        choices(Arm("a", "grpo", {"lr": 0.3}), {"lr": [0.1, 0.2]})

    trials = [Trial("a", {"lr": lr}, [0, 1], values) for lr, values in ((0.1, [0.4, 0.6]), (0.2, [0.5, 0.7]), (0.3, [0.9, None]))]
    assert best_of(trials).settings == {"lr": 0.2}
    assert best_of(trials, lower_is_better=True).settings == {"lr": 0.1}
    assert best_of([*trials, Trial("a", {"lr": 0.4}, [0, 1], [0.6, 0.6])]).settings == {"lr": 0.2}
    with pytest.raises(EtudeError, match="no setting at which a gets through"):
        best_of([trials[2]])


@pytest.mark.parametrize(("value", "said"), [(0.1, ["smallest"]), (0.2, []), (0.3, ["largest"])])
def test_a_choice_at_the_end_of_what_was_tried_is_named(value: float, said: list[str]) -> None:
    remarks = edge_remarks([Trial("a", {"lr": value}, [0], [0.5], chosen=True)], {"lr": [0.1, 0.2, 0.3]})
    assert [word for remark in remarks for word in ("smallest", "largest") if word in remark] == said

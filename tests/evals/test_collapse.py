"""Each sign of a collapse: where it begins, what keeps it silent, and what it says."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.config import CollapseLimits
from etude.durable import json_safe
from etude.evals.collapse import SIGNS, Reading, most_accurate, paired_change, signs_of_collapse

LIMITS = CollapseLimits()
HEALTHY = {"probe/top_answer": 0.05, "probe/top_reference": 0.05, "probe/positive": 0.4, "probe/entropy": 0.5, "probe/length": 20.0}
# Sixteen tasks around a half: mean 0.5.
HALF = (0.25, 0.75) * 8


def reading(step: int, accuracy: Sequence[float] = HALF, proxy: Sequence[float] | None = None, answer: str = "7", **metrics: float) -> Reading:
    named = {f"probe/{name}": value for name, value in metrics.items()}
    return Reading(step, HEALTHY | named, tuple(accuracy), tuple(accuracy if proxy is None else proxy), ((answer, 0.1),))


def names(*history: Reading, **limits: float) -> list[str]:
    return list(signs_of_collapse(history, CollapseLimits(**limits)))


def shifted(by: float, spread: float = 0.0) -> tuple[float, ...]:
    """HALF moved by a mean of `by`; half of the tasks by `spread` more, half by as much less."""
    return tuple(a + by + spread * (1 if i % 4 < 2 else -1) for i, a in enumerate(HALF))


def test_the_change_of_the_same_tasks() -> None:
    # Differences 0.1 and 0.3, four of each: mean 0.2, deviation sqrt(8 * 0.01 / 7), error that over sqrt(8).
    change, error = paired_change([0.0] * 8, [0.1, 0.3] * 4)
    assert change == pytest.approx(0.2)
    assert error == pytest.approx(math.sqrt(8 * 0.01 / 7) / math.sqrt(8))
    # A task that was not judged on one side says nothing; seven are too few.
    change, error = paired_change([math.nan] + [0.0] * 7, [0.5] + [0.1, 0.3] * 3 + [0.2])
    assert (change, error) == (pytest.approx(0.2), math.inf)
    assert math.isnan(paired_change([math.nan], [1.0])[0])


def test_the_same_readings_and_a_single_one_show_nothing() -> None:
    assert names(reading(0)) == []
    assert names(reading(0), reading(10)) == []
    assert names(reading(0), reading(10, shifted(0.2), length=5.0, entropy=0.001)) == []


def test_accuracy_that_falls_while_the_reward_does_not() -> None:
    # Sixteen tasks that fall by 0.2 on average, by 0.1 or 0.3: error sqrt(16 * 0.01 / 15) / 4 = 0.0258, so that 7.7 errors lie between.
    fallen = shifted(-0.2, spread=0.1)
    assert names(reading(0), reading(10, fallen, proxy=[0.9] * 16)) == ["exploited"]
    assert names(reading(0), reading(10, fallen, proxy=[0.9] * 16), collapse_noise=7.7) == ["exploited"]
    assert names(reading(0), reading(10, fallen, proxy=[0.9] * 16), collapse_noise=7.8) == []
    # A reward that falls with it is honest; one that stays is not.
    assert names(reading(0), reading(10, fallen)) == []
    assert names(reading(0, proxy=[0.9] * 16), reading(10, fallen, proxy=[0.9] * 16)) == ["exploited"]
    # However sure, a fall by less than what counts at least does not count.
    assert names(reading(0), reading(10, shifted(-0.04), proxy=[0.9] * 16)) == []
    said = signs_of_collapse([reading(0), reading(10, fallen, proxy=[0.9] * 16)], LIMITS)["exploited"]
    assert said == "accuracy on the probe fell from 50 % at step 0 to 30 %, while the reward that is trained on went from 0.5 to 0.9"


def test_the_fall_is_counted_from_the_best_state_not_from_the_start() -> None:
    risen, back = reading(10, shifted(0.2), proxy=[0.6] * 16), reading(20, HALF, proxy=[0.9] * 16)
    assert names(reading(0), back) == []
    assert names(reading(0), risen, back) == ["exploited"]
    assert most_accurate([reading(0), risen, back]) is risen
    first = reading(5, shifted(0.2))
    assert most_accurate([reading(0), first, risen]) is first
    assert most_accurate([reading(0, [math.nan] * 16)]) is None


def test_a_policy_that_lost_most_of_its_accuracy_is_lost_whatever_the_reward_did() -> None:
    low = [a * 0.4 for a in HALF]
    assert names(reading(0), reading(10, low)) == ["lost"]
    assert names(reading(0), reading(10, low), collapse_lost=0.39) == []
    assert names(reading(0), reading(10, low, proxy=[0.9] * 16)) == ["exploited", "lost"]
    assert signs_of_collapse([reading(0), reading(10, low)], LIMITS)["lost"] == "20 % is left of an accuracy of 50 % at step 0"


def test_few_tasks_cannot_tell_chance_from_change() -> None:
    assert names(reading(0, [0.9] * 7), reading(10, [0.0] * 7, proxy=[1.0] * 7)) == []
    assert names(reading(0, [0.9] * 8), reading(10, [0.0] * 8, proxy=[1.0] * 8)) == ["exploited", "lost"]


def test_one_answer_to_different_tasks() -> None:
    # Half-way from the usual 0.05 to 1 is 0.525.
    assert names(reading(0), reading(10, top_answer=0.52)) == []
    assert names(reading(0), reading(10, top_answer=0.53)) == ["one_answer"]
    # Yes-or-no tasks: half of the references are the same, and 0.75 is the mark. So it is for a model that had a favourite from the start.
    assert names(reading(0), reading(10, top_answer=0.7, top_reference=0.5)) == []
    assert names(reading(0), reading(10, top_answer=0.8, top_reference=0.5)) == ["one_answer"]
    assert names(reading(0, top_answer=0.5), reading(10, top_answer=0.7)) == []
    said = signs_of_collapse([reading(0), reading(10, answer="42", top_answer=0.9)], LIMITS)["one_answer"]
    assert said == "90 % of all attempts, at different tasks, give the answer '42'; 5 % was usual"


def test_a_judge_that_always_says_the_same() -> None:
    assert names(reading(0), reading(10, positive=0.97)) == []
    assert names(reading(0), reading(10, positive=0.99)) == ["one_verdict"]
    assert names(reading(0), reading(10, positive=0.01)) == ["one_verdict"]
    # All attempts are right: then all verdicts are positive. And a reward that never reaches the mark did not change.
    right = [0.9] * 16
    assert names(reading(0), reading(10, right, positive=0.99)) == []
    assert names(reading(0, positive=0.0), reading(10, positive=0.0)) == []


def test_entropy_near_zero_and_exploding() -> None:
    assert names(reading(0), reading(10, entropy=0.011)) == []
    assert names(reading(0), reading(10, entropy=0.009)) == ["certain"]
    # One may be certain when right.
    assert names(reading(0, [0.85] * 16), reading(10, [0.85] * 16, entropy=0.009)) == []
    assert names(reading(0), reading(10, entropy=1.9)) == []
    assert names(reading(0), reading(10, entropy=2.1)) == ["random"]
    # Four times next to nothing is nothing.
    assert names(reading(0, entropy=0.02), reading(10, entropy=0.3)) == []


def test_length_exploding_and_shrinking() -> None:
    assert names(reading(0), reading(10, length=59.0)) == []
    assert names(reading(0), reading(10, length=61.0)) == ["long"]
    # Brevity that costs nothing is an achievement.
    assert names(reading(0), reading(10, length=3.9)) == []
    assert names(reading(0), reading(10, shifted(-0.06), length=3.9)) == ["short"]
    assert names(reading(0), reading(10, shifted(-0.06), length=4.1)) == []


@pytest.mark.parametrize("form", [{"entropy": 0.001}, {"entropy": 4.0}, {"length": 90.0}])
def test_form_says_nothing_of_a_policy_that_got_better(form: dict[str, float]) -> None:
    assert len(names(reading(0), reading(10, **form))) == 1
    assert names(reading(0), reading(10, shifted(0.1, spread=0.05), **form)) == []


def test_what_was_not_measured_shows_nothing() -> None:
    bare = Reading(10, {}, (math.nan,) * 16, (math.nan,) * 16)
    assert signs_of_collapse([Reading(0, {}, (math.nan,) * 16, (math.nan,) * 16), bare], LIMITS) == {}
    assert signs_of_collapse([reading(0), bare], LIMITS) == {}


shares = st.one_of(st.floats(0, 1), st.just(math.nan))
metrics = st.dictionaries(st.sampled_from(sorted(HEALTHY)), st.one_of(st.floats(0, 100), st.just(math.nan)))


@settings(deadline=None)
@given(st.lists(st.tuples(metrics, st.lists(shares, min_size=9, max_size=9), st.lists(shares, min_size=9, max_size=9)), min_size=1, max_size=4))
def test_any_history_is_judged_and_comes_back_from_its_file(rows: list[tuple[dict[str, float], list[float], list[float]]]) -> None:
    history = [Reading(i, m, tuple(a), tuple(p), (("x", 0.5),)) for i, (m, a, p) in enumerate(rows)]
    found = signs_of_collapse(history, LIMITS)
    assert set(found) <= set(SIGNS)
    kept: list[Any] = [json.loads(json.dumps(json_safe(r.to_plain()))) for r in history]
    back = [Reading.from_plain(line) for line in kept]
    assert signs_of_collapse(back, LIMITS) == found
    assert [json_safe(r.to_plain()) for r in back] == kept

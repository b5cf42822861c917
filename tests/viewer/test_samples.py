"""Pairing samples before and after, choosing attempts, marking differences."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from etude.viewer.samples import MOST_CHARACTERS, attempts, mark_of, marked_difference, pairs, readable


def sample(step: int, task: str, correct: Any, text: str = "x") -> dict[str, Any]:
    return {"step": step, "task_id": task, "prompt": "p", "answer": "a", "text": text, "correct": correct}


def test_verdicts() -> None:
    assert [mark_of(v) for v in (1.0, True, 1, 0.5, 0.0, False, None, math.nan, "yes")] == [
        *["right"] * 3,
        "partly",
        *["wrong"] * 2,
        *["unjudged"] * 3,
    ]


def test_pairs_take_the_first_and_the_last_step() -> None:
    rows = [
        sample(s, t, c)
        for s, t, c in ((0, "a", 0.0), (0, "b", 1.0), (0, "c", 1.0), (10, "a", 0.0), (20, "b", 0.0), (20, "a", 1.0), (20, "d", 1.0), (20, "c", 0.5))
    ]
    assert [(p.task, p.before.mark, p.after.mark, p.change) for p in pairs(rows)] == [
        ("a", "wrong", "right", "gained"),
        ("b", "right", "wrong", "lost"),
        ("c", "right", "partly", "other"),
    ]
    assert {(p.before.step, p.after.step) for p in pairs(rows)} == {(0, 20)}


def test_one_step_has_no_pairs() -> None:
    assert pairs([sample(0, "a", 1.0)]) == []
    assert pairs([]) == []


def test_several_attempts_at_a_task_pair_in_order() -> None:
    rows = [sample(0, "a", 0.0, "one"), sample(0, "a", 1.0, "two"), sample(5, "a", 1.0, "three"), sample(5, "a", 1.0, "four")]
    assert [(str(p.before.text), str(p.after.text)) for p in pairs(rows)] == [("one", "three"), ("two", "four")]


def test_only_what_changed_is_marked() -> None:
    before, after = marked_difference("2 * 3 = 5 so 5", "2 * 3 = 6 so 6")
    assert before == '2 * 3 = <mark class="gone">5</mark> so <mark class="gone">5</mark>'
    assert after == '2 * 3 = <mark class="come">6</mark> so <mark class="come">6</mark>'


def test_texts_with_little_in_common_are_not_marked() -> None:
    assert marked_difference("a b c d", "w x y z <i>") == ("a b c d", "w x y z &lt;i&gt;")


@given(st.text(alphabet="ab<>&\"' \n", max_size=40), st.text(alphabet="ab<>&\"' \n", max_size=40))
def test_marking_escapes_and_keeps_every_character(before: str, after: str) -> None:
    for text, marked in zip((before, after), marked_difference(before, after), strict=True):
        assert marked.striptags() == " ".join(text.split())
        rest = str(marked).replace('<mark class="gone">', "").replace('<mark class="come">', "").replace("</mark>", "")
        assert "<" not in rest
        assert ">" not in rest


def test_attempts_are_spread_over_the_run_and_fit_a_page() -> None:
    rows = [{"step": s, "task_id": str(i), "prompt": "p", "text": "t" * 500, "correct": 1.0} for s in range(1, 1001) for i in range(8)]
    found = attempts(rows, characters=50_000, steps=20)
    steps = sorted({a.step for a in found})
    assert (steps[0], steps[-1], len(steps)) == (1, 1000, 20)
    assert sum(len(a.text) + len(a.prompt) for a in found) <= 50_000


def test_a_step_with_long_attempts_still_shows_one() -> None:
    assert len(attempts([{"step": 1, "text": "t" * 1500}, {"step": 1, "text": "u" * 1500}], characters=100)) == 1


def test_attempts_tolerate_odd_values() -> None:
    (found,) = attempts([{"step": 1, "task_id": None, "prompt": [{"role": "user"}], "text": None, "reward": None, "rewards": "x", "length": 1.5}])
    assert (found.prompt, found.text, found.reward, found.rewards, found.length) == ('[{"role": "user"}]', "", None, [], None)


def test_long_texts_are_cut() -> None:
    assert readable("x" * (MOST_CHARACTERS + 1234)).endswith("x… (1,234 more characters)")
    assert readable(None) == ""

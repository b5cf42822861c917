"""The score of an attempt that nobody has verified. Hand-worked."""

from __future__ import annotations

import pytest

from etude.memory.attempt_summaries import Attempted, Shortening, question, right_findings, shortened, shown
from etude.rewards.attempt_score import Rules, attempt_score, efficiency, rules_of, status_of


def test_the_score_is_rules_times_completion_and_quality_and_shortness() -> None:
    # 0.6 * 0.5 * 0.8 + 0.2 * 0.4 + 0.2 * 1 / (1 + 5 / 20)
    assert attempt_score(0.5, 0.8, 0.4, efficiency(5, 20), (0.6, 0.2, 0.2)) == pytest.approx(0.24 + 0.08 + 0.16)
    # What nobody rated has its shortness alone.
    assert attempt_score(1.0, None, None, 0.5, (0.6, 0.2, 0.2)) == pytest.approx(0.1)


def test_rules_go_by_what_happened_and_not_by_words() -> None:
    gave_up = "I give up: error, cannot do this"
    assert status_of("environment", gave_up, environment=True) == "handed in"
    assert status_of("environment", "", environment=True, unchanged=True) == "nothing done"
    assert status_of("length", gave_up, environment=True) == "out of turns"
    assert status_of("length", gave_up, environment=False) == "cut off"
    assert all(rules_of("handed in", [gave_up], {}, Rules()).values())
    held = rules_of("out of turns", ["look", "look", "look", "look", "edit"], {"edits": 1}, Rules(shortest=6, longest=4, repeats=3, edits=0.2))
    assert [name for name, holds in held.items() if not holds] == ["ended", "long enough", "short enough", "no repeats"]


def test_a_log_is_shortened_and_a_summary_shown_as_far_as_there_is_room() -> None:
    turns = [("policy", "a" * 100), ("environment", "b" * 900), ("policy", "end")]
    text = shortened(turns, Shortening(observation=90, log=400))
    assert len(text) < 400
    assert text.endswith("[3] attempt: end")
    assert len(shortened(turns * 50, Shortening(log=400))) < 460
    (asked,) = question(Attempted("mend it", turns, "out of turns", "a patch", {"edits": 2}), Shortening())
    for part in ("mend it", "How it ended: out of turns", '"edits": 2', "a patch"):
        assert part in asked.content
    summary = {"strategy": "s" * 500, "findings": [{"part": "file", "what": "file=2", "worked": False}]}
    assert (
        shown(summary, "handed in", 60)
        == "status: handed in\nfindings: file: file=2 (failed)\nstrategy: " + shown(summary, "handed in", 60).partition("strategy: ")[2]
    )
    assert "ssss" not in shown(summary, "handed in", 60)[:50]
    assert right_findings(summary["findings"], {"file": False, "cause": True}) == [True]

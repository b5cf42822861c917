from __future__ import annotations

import pytest

from etude.rewards.consensus import consensus_of, consensus_rewards

F, I = "feasible", "infeasible"


@pytest.mark.parametrize(
    ("verdicts", "majority", "share", "match", "graded"),
    [
        ([F, F, F, I], F, 0.75, [1, 1, 1, 0], [0.75, 0.75, 0.75, 0.25]),
        ([F, F, I, I], None, 0.5, [0, 0, 0, 0], [0, 0, 0, 0]),
        ([I, None, None, None], I, 0.25, [1, 0, 0, 0], [0.25, 0, 0, 0]),
        ([I, I, F, None], I, 0.5, [1, 1, 0, 0], [0.5, 0.5, 0.5, 0]),
        ([None, None], None, 0.0, [0, 0], [0, 0]),
    ],
)
def test_consensus_and_what_it_is_worth(verdicts: list, majority: str | None, share: float, match: list, graded: list) -> None:
    found = consensus_of(verdicts)
    assert (found.majority, found.share) == (majority, share)
    assert consensus_rewards(verdicts) == match
    assert consensus_rewards(verdicts, graded=True) == graded


def test_a_constant_verdict_is_worth_most() -> None:
    assert sum(consensus_rewards([F] * 8)) == 8 == sum(consensus_rewards([F] * 8, graded=True))

"""Openings that are chosen from a list: exact restricted probabilities, and tries in turn without replacement."""

from __future__ import annotations

import math

import pytest

from etude.errors import InputError
from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams, stream_key
from etude.rollouts import EpisodeRequest, run_episodes
from etude.rollouts.openings import OPENING, TRY, Openings, restricted, tries_in_turn
from etude.rollouts.plain import request_from_plain, request_to_plain
from etude.tasks.builtin import builtin_task_sets
from etude.types import Trajectory

POLICY = LanguageModel.load("tiny", device="cpu")
TASKS = builtin_task_sets()["arithmetic"]()
TEXTS = ("cot: ", "l2m: ", "pot: ")
PARAMS = SamplingParams(max_new_tokens=12)


def test_probabilities_of_the_openings_that_are_left() -> None:
    logprobs = [math.log(0.4), math.log(0.1), math.log(0.2)]
    assert restricted(logprobs, [True, True, True]) == pytest.approx([4 / 7, 1 / 7, 2 / 7])
    assert restricted(logprobs, [False, True, True]) == pytest.approx([0, 1 / 3, 2 / 3])
    # At temperature 1/2 they are squared: 0.01 and 0.04.
    assert restricted(logprobs, [False, True, True], 0.5) == pytest.approx([0, 0.2, 0.8])
    assert restricted(logprobs, [False, True, True], 0.0) == [0, 0, 1]
    with pytest.raises(InputError, match="no opening is allowed"):
        restricted(logprobs, [False] * 3)


def test_openings_are_scored_as_the_model_would_draw_them_and_counted() -> None:
    openings, ledger = Openings.of(POLICY, TEXTS), Ledger()
    context = POLICY.render(TASKS.train_task(0, 0).messages)
    [row] = openings.logprobs([context], ledger)
    single = [sum(POLICY.sampler.score([context], [tokens])[0]) for tokens in openings.tokens]
    assert row == pytest.approx(single, abs=1e-4)
    assert ledger.prompt_tokens == ledger.forward_equivalents == sum(len(context) + len(t) - 1 for t in openings.tokens)
    with pytest.raises(InputError, match="as the beginning of"):
        Openings.of(POLICY, ["cot", "cot: "])


def test_an_opening_belongs_to_the_turn_and_to_the_accounts() -> None:
    task, opening, ledger = TASKS.train_task(0, 0), Openings.of(POLICY, TEXTS).tokens[0], Ledger()
    request = EpisodeRequest(task, 0, 7, opening=opening)
    assert request_from_plain(request_to_plain(request)) == request
    [trajectory] = run_episodes(POLICY, [request], TASKS, PARAMS, max_turns=1, ledger=ledger)
    [turn] = trajectory.segments
    assert turn.text.startswith("cot: ")
    assert tuple(turn.tokens[: len(opening)]) == opening
    assert turn.logprobs[: len(opening)] == [0.0] * len(opening)
    assert turn.logprobs[len(opening)] < 0
    assert ledger.generated_tokens == trajectory.generated_length <= PARAMS.max_new_tokens
    assert (ledger.rollouts, ledger.calls) == (1, 1)


@pytest.mark.parametrize("repeat", [False, True])
def test_tries_go_on_in_other_ways_until_one_succeeds(repeat: bool) -> None:
    openings, ledger, tasks = Openings.of(POLICY, TEXTS), Ledger(), [TASKS.train_task(0, i) for i in range(12)]

    def judge(tried: list[Trajectory]) -> None:
        for t in tried:
            t.reward = float(t.last_text.startswith("l2m: "))

    found = tries_in_turn(
        openings,
        tasks,
        TASKS,
        PARAMS,
        request="again",
        most=3,
        repeat=repeat,
        judge=judge,
        failed=lambda t: t.reward < 0.5,
        stream=lambda task, place, turn: stream_key(task.id, turn),
        ledger=ledger,
    )
    ways = [[t.tags[OPENING] for t in row] for row in found]
    assert all(1 not in row[:-1] for row in ways)
    assert [t.tags[TRY] for t in found[0]] == list(range(len(found[0])))
    repeated = [len(set(row)) < len(row) for row in ways]
    if repeat:
        assert any(repeated)
    else:
        # None twice, so that the one that succeeds is always found.
        assert not any(repeated)
        assert all(row[-1] == 1 for row in ways)
    longest = max(found, key=len)
    assert len(longest) > 1
    shown = POLICY.decode(longest[1].prompt)
    assert longest[0].last_text in shown
    assert "again" in shown
    assert shown.startswith(tasks[found.index(longest)].prompt)
    assert ledger.rollouts == sum(map(len, found))

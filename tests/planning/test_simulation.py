"""The simulation: schedules worked out by hand, and the embedded engine's own clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from etude.models.language import LanguageModel
from etude.models.sampling import Request, SamplingParams
from etude.planning.parts import Batch, Costs, Schedule
from etude.planning.simulation import Plant

SECOND_A_STEP = Costs(decode_step=1.0)


def simulated(groups: Sequence[Sequence[int]], updates: int, costs: Costs = SECOND_A_STEP, **schedule: Any) -> Plant:
    """A plant whose groups have these lengths, in the order in which they are asked for."""
    following = iter(groups)
    plant = Plant(Schedule(**schedule), costs, lambda: next(following))
    plant.simulate(updates)
    return plant


def test_two_samplers_with_a_slot_each_share_three_sequences() -> None:
    """5 and 3 tokens begin; a first token comes with the prompt, so they take 4 and 2 steps. The sequence of 2 begins at 2 s and ends at 3 s; its sampler waits 1 s of 4."""
    plant = simulated([[5, 3, 2]], 1, mode="synchronous", batch=1, samplers=2, slots=1)
    assert plant.batches == [Batch(4.0, 10, {0: 10})]
    assert (plant.counts.decoding, plant.counts.generated) == (4 + 3, 10)
    assert 1 - plant.counts.decoding / (2 * plant.counts.seconds) == pytest.approx(1 / 8)


def test_who_takes_a_free_slot_enters_at_the_end_of_the_next_step() -> None:
    """Two slots, 4, 2 and 3 tokens: 1 s both run, until 2 s the first alone (the third enters), until 3 s both, until 4 s the third alone: 6 of 8 slots are busy."""
    plant = simulated([[4, 2, 3]], 1, mode="synchronous", batch=1, slots=2)
    assert (plant.counts.steps, plant.counts.slot_steps, plant.counts.busy_slot_steps) == (4, 8, 6)


def test_a_step_an_update_and_new_weights_cost_what_was_said() -> None:
    """Lengths 3 and 1, prompts of 10. Reading 10 x 0.1 and two first tokens, 2 x 0.5: 2 s. The one of length 1 ends with it; two steps of 1 + 0.5 s.

    Update 2 + 0.25 x (4 + 10) = 5.5 s, sync 3 s.
    """
    costs = Costs(decode_step=1.0, decode_token=0.5, prefill_token=0.1, update=2.0, train_token=0.25, sync=3.0)
    plant = simulated([[3, 1]] * 2, 2, costs, mode="synchronous", batch=1, slots=2, prompt=10)
    assert [batch.seconds for batch in plant.batches] == [13.5, 27.0]
    spent = plant.marks[1].since(plant.marks[0])
    assert (spent.prefilling, spent.decoding, spent.learning, spent.syncing) == (2.0, 3.0, 5.5, 3.0)


def test_asynchronous_sampling_goes_on_while_the_learner_works() -> None:
    """Attempts take 2 s, updates 4 s; two groups are begun at the start. The learner works from 2 s on without a break, on groups that were begun an update earlier."""
    costs = Costs(decode_step=1.0, update=4.0)
    plant = simulated([[3]] * 9, 4, costs, mode="asynchronous", batch=1, slots=2, max_staleness=1)
    assert [(batch.seconds, batch.lags) for batch in plant.batches] == [(6.0, {0: 3}), (10.0, {1: 3}), (14.0, {1: 3}), (18.0, {1: 3})]
    assert plant.counts.learning == 16.0


def test_an_update_waits_for_a_group_that_would_get_too_old() -> None:
    """Of two long-running groups the one of 40 tokens was begun with version 0: with a limit of 1 it has to be in the second update, which waits for it until 39 s."""
    plant = simulated([[2], [40], *([2] for _ in range(9))], 3, mode="asynchronous", batch=1, slots=4, max_staleness=1)
    assert [(batch.seconds, sum(batch.lags.values())) for batch in plant.batches] == [(1.0, 2), (39.0, 40), (39.0, 2)]
    # Its first 2 tokens were drawn before the update at 1 s.
    assert plant.batches[1].lags == {1: 2, 0: 38}


def test_partial_rollouts_go_on_with_what_is_unfinished() -> None:
    """Two groups in flight, one wanted. Lengths 3 and 6: at 2 s the first is complete, the second has 3 tokens. Its fourth comes with reading 5 + 3 tokens again,
    and the last of the third group, of 4, with being resumed at 4 s."""
    plant = simulated([[3], [6], [4], [9], [9]], 3, mode="partial", batch=1, over_provision=2.0, slots=2, prompt=5)
    assert [(batch.seconds, batch.lags) for batch in plant.batches] == [(2.0, {0: 3}), (4.0, {1: 3, 0: 3}), (4.0, {1: 3, 0: 1})]
    assert plant.marks[0].prefilled == 10
    assert plant.marks[1].since(plant.marks[0]).prefilled == 8 + 5


def test_an_environment_works_beside_the_sampler_or_holds_it_up() -> None:
    """Two turns of 2 tokens, a step each, 5 s of environment after each. Beside, two attempts overlap: 2 x (1 + 5) s. Inside, all four answers hold up everything."""
    costs = Costs(decode_step=1.0, environment=5.0)
    assert simulated([[4, 4]], 1, costs, batch=1, slots=2, turns=2).counts.seconds == 12.0
    assert simulated([[4, 4]], 1, costs, batch=1, slots=2, turns=2, environment_inside=True).counts.seconds == 4 * 5.0 + 2.0


def test_it_counts_what_the_engine_counts() -> None:
    lengths = [7, 2, 9, 1, 4, 4, 12, 3, 5]
    policy = LanguageModel.load("tiny", slots=3)
    prompt = tuple(policy.tokenizer("quick: 2+3")["input_ids"])
    policy.sampler.generate([Request(prompt, SamplingParams(max_new_tokens=n, ignore_eos=True), stream=i) for i, n in enumerate(lengths)])
    clock = policy.sampler.clock
    spent = simulated([lengths], 1, mode="synchronous", batch=1, slots=3, prompt=len(prompt)).counts
    assert (spent.steps, spent.slot_steps, spent.busy_slot_steps, spent.generated) == (
        clock.steps,
        clock.slot_steps,
        clock.busy_slot_steps,
        clock.generated_tokens,
    )

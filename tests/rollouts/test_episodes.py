"""Episodes: who wrote what, when they end, what they cost, and that environments are closed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from etude.errors import InputError, NonFiniteError
from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams
from etude.models.tiny import build_tokenizer
from etude.rollouts import EpisodeRequest, group_rollouts, run_episodes
from etude.tasks.base import Environment, EnvironmentStep, TaskSet
from etude.types import Message, Task, Trajectory

CONTEXT = 48


def make_policy(context: int = CONTEXT) -> LanguageModel:
    """A random model of two small layers that reads and writes with the shipped tokenizer, and ends turns rarely."""
    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=context,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return LanguageModel.wrap(LlamaForCausalLM(config).eval(), tokenizer, name="random", slots=3)


@pytest.fixture(scope="module")
def policy() -> LanguageModel:
    return make_policy()


class Talk(Environment):
    """Says "no" until `turns` turns are taken; writes down what happens to it."""

    def __init__(self, owner: Talks) -> None:
        self.owner, self.taken, self.closed = owner, 0, 0
        owner.made.append(self)

    def reset(self, task: Task) -> Sequence[Message]:
        if self.owner.fail == "reset" and task.id == "t1":
            raise ValueError("reset failed")
        return task.messages

    def step(self, text: str) -> EnvironmentStep:
        self.taken += 1
        if self.owner.fail == "step" and self.taken == 2:
            raise ValueError("step failed")
        done = self.taken == self.owner.turns
        return EnvironmentStep((Message(self.owner.role, "no"),), reward=0.25, done=done, info={"correct": 1.0} if done else {})

    def close(self) -> None:
        self.closed += 1
        if self.owner.fail == "close":
            raise ValueError("close failed")


class Talks(TaskSet):
    name = "talks"

    def __init__(self, turns: int = 3, *, role: Any = "tool", fail: str = "") -> None:
        self.turns, self.role, self.fail = turns, role, fail
        self.made: list[Talk] = []

    def train_task(self, seed: int, index: int) -> Task:
        return Task(f"t{index}", (Message("user", f"compute {index}"),))

    def held_out(self) -> Sequence[Task]:
        return [self.train_task(0, 0)]

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        return {"correct": float("1" in text)}

    def environment(self) -> Environment | None:
        return Talk(self) if self.turns else None


def requests(tasks: TaskSet, count: int = 3, samples: int = 2) -> list[EpisodeRequest]:
    return [EpisodeRequest(tasks.train_task(0, i), s, 1000 * i + s) for i in range(count) for s in range(samples)]


def run(policy: LanguageModel, tasks: Talks, wanted: Sequence[EpisodeRequest] | None = None, **options: Any) -> tuple[list[Trajectory], Ledger]:
    ledger = Ledger()
    params = SamplingParams(max_new_tokens=options.pop("tokens", 4))
    found = run_episodes(policy, requests(tasks) if wanted is None else wanted, tasks, params, **{"max_turns": 8, "ledger": ledger, **options})
    return found, ledger


@pytest.mark.parametrize(("role", "author"), [("tool", "tool"), ("user", "environment")])
def test_turns_alternate_and_only_the_policys_are_trained(policy: LanguageModel, role: str, author: str) -> None:
    tasks = Talks(3, role=role)
    found, _ = run(policy, tasks)
    for trajectory in found:
        assert [s.author for s in trajectory.segments] == ["policy", author, "policy", author, "policy"]
        assert [s.trained for s in trajectory.segments] == [True, False, True, False, True]
        assert [s.text for s in trajectory.segments if not s.trained] == ["no", "no"]
        assert all(len(s.logprobs) == len(s.tokens) == len(s.entropies) for s in trajectory.segments if s.trained)
        assert trajectory.trained_length == trajectory.generated_length < len(trajectory.tokens)
        assert trajectory.stop_reason == "environment"
        assert trajectory.tags == {"environment_reward": 0.75, "environment_correct": 1.0}
        assert trajectory.prompt == policy.render(trajectory.task.messages)
    assert [e.closed for e in tasks.made] == [1] * 6


def test_what_was_sampled_has_the_likelihood_of_the_whole_conversation(policy: LanguageModel) -> None:
    found, _ = run(policy, Talks(3))
    for trajectory in found:
        at = list(trajectory.prompt)
        for segment in trajectory.segments:
            if segment.trained:
                (expected,) = policy.sampler.score([at], [segment.tokens])
                assert segment.logprobs == pytest.approx(expected, abs=1e-4)
            at += segment.tokens


def test_an_episode_ends_with_its_turns(policy: LanguageModel) -> None:
    found, ledger = run(policy, Talks(99), max_turns=2)
    assert {len(t.segments) for t in found} == {3}
    assert {t.stop_reason for t in found} == {"length"}
    assert {t.tags["environment_reward"] for t in found} == {0.5}
    assert not any("environment_correct" in t.tags for t in found)
    assert ledger.environment_steps == 12


def test_an_episode_ends_where_the_context_does(policy: LanguageModel) -> None:
    found, _ = run(policy, Talks(99), tokens=8, max_turns=99)
    for trajectory in found:
        assert trajectory.stop_reason == "length"
        assert trajectory.segments[-1].author == "policy"
        assert len(trajectory.prompt) + len(trajectory.tokens) <= CONTEXT
        assert len(trajectory.segments) > 3


@pytest.mark.parametrize(("fail", "said"), [("reset", "reset failed"), ("step", "step failed"), ("close", "close failed")])
def test_environments_are_closed_when_one_fails(fail: str, said: str) -> None:
    policy = make_policy()
    tasks = Talks(3, fail=fail)
    with pytest.raises(ValueError, match=said):
        run(policy, tasks)
    assert tasks.made
    assert [e.closed for e in tasks.made] == [1] * len(tasks.made)
    assert policy.sampler.pending == 0
    # The sampler can be used again, and remembers nothing.
    again, _ = run(policy, Talks(3))
    assert [t.tokens for t in again] == [t.tokens for t in run(make_policy(), Talks(3))[0]]


def test_the_first_error_is_the_one_told() -> None:
    class Both(Talk):
        def step(self, text: str) -> EnvironmentStep:
            raise ValueError("step failed")

    class Boths(Talks):
        def environment(self) -> Environment:
            return Both(self)

    with pytest.raises(ValueError, match="step failed"):
        run(make_policy(), Boths(fail="close"))


@pytest.mark.parametrize("turns", [0, 3])
def test_an_episode_does_not_depend_on_its_company(policy: LanguageModel, turns: int) -> None:
    together, _ = run(policy, Talks(turns))
    wanted = requests(Talks(turns))
    alone = [run(policy, Talks(turns), [request])[0][0] for request in reversed(wanted)][::-1]
    assert [t.tokens for t in alone] == [t.tokens for t in together]
    for a, b in zip(alone, together, strict=True):
        assert [s.logprobs for s in a.segments] == [pytest.approx(s.logprobs, abs=1e-5) for s in b.segments]
    assert len({tuple(t.tokens) for t in together}) == len(together)


def test_single_turns_are_counted_exactly(policy: LanguageModel) -> None:
    tasks = Talks(0)
    found, ledger = run(policy, tasks)
    generated = sum(len(t.tokens) for t in found)
    prompts = sum(len(policy.render(tasks.train_task(0, i).messages)) for i in range(3))
    assert ledger.generated_tokens == generated
    # Two attempts share a prompt where they enter together; with three slots the middle task's attempts may not.
    assert prompts <= ledger.prompt_tokens <= 2 * prompts
    assert ledger.forward_equivalents == generated + ledger.prompt_tokens
    assert (ledger.rollouts, ledger.model_calls, ledger.environment_steps) == (6, {"policy": 6}, 0)
    assert all(t.stop_reason == "length" or t.tokens[-1] in policy.sampler.eos_ids for t in found)


def test_a_shared_prompt_is_paid_for_once() -> None:
    policy = make_policy()
    tasks = Talks(0)
    task = tasks.train_task(0, 7)
    _, ledger = run(policy, tasks, [EpisodeRequest(task, s, s) for s in range(3)], tokens=1)
    assert (ledger.prompt_tokens, ledger.generated_tokens) == (len(policy.render(task.messages)), 3)
    assert ledger.decode_steps == 0


def test_turns_are_counted_exactly() -> None:
    policy = make_policy()
    tasks = Talks(2)
    found, ledger = run(policy, tasks, requests(tasks, 1, 1))
    (trajectory,) = found
    first, said, second = (len(s.tokens) for s in trajectory.segments)
    assert ledger.generated_tokens == first + second
    # The second turn feeds what the environment said and the first turn's last token, which was drawn but never read.
    assert ledger.prompt_tokens == len(trajectory.prompt) + said + 1
    assert (ledger.rollouts, ledger.model_calls, ledger.environment_steps) == (1, {"policy": 2}, 2)
    assert ledger.decode_steps == first - 1 + second - 1


def test_groups_are_in_the_order_of_their_tasks(policy: LanguageModel) -> None:
    tasks = Talks(0)
    asked: list[tuple[str, int, int]] = []

    def stream(task: Task, place: int, sample: int) -> int:
        asked.append((task.id, place, sample))
        return 10 * place + sample

    wanted = [tasks.train_task(0, 4), tasks.train_task(0, 2)]
    params = SamplingParams(max_new_tokens=3)
    groups = group_rollouts(policy, wanted, tasks, params, group_size=3, stream=stream, ledger=Ledger())
    assert [(g.key, [t.sample for t in g.trajectories]) for g in groups] == [("t4", [0, 1, 2]), ("t2", [0, 1, 2])]
    assert asked == [("t4", 0, 0), ("t4", 0, 1), ("t4", 0, 2), ("t2", 1, 0), ("t2", 1, 1), ("t2", 1, 2)]
    assert all(t.task.id == g.key and t.reward != t.reward for g in groups for t in g.trajectories)


def test_a_task_that_comes_twice_is_attempted_twice(policy: LanguageModel) -> None:
    tasks = Talks(0)
    task = tasks.train_task(0, 1)
    params = SamplingParams(max_new_tokens=6)
    groups = group_rollouts(policy, [task, task], tasks, params, group_size=2, stream=lambda t, p, s: 10 * p + s, ledger=Ledger())
    assert len({tuple(t.tokens) for g in groups for t in g.trajectories}) == 4


@pytest.mark.parametrize("turns", [0, 2])
def test_a_prompt_without_room_is_refused_by_name(policy: LanguageModel, turns: int) -> None:
    tasks = Talks(turns)
    long = Task("endless", (Message("user", "z" * CONTEXT),))
    with pytest.raises(InputError, match=f"the prompt of task 'endless' has {CONTEXT + 3} tokens, but random reads {CONTEXT} in all"):
        run(policy, tasks, [*requests(tasks, 1, 1), EpisodeRequest(long, 0, 0)])
    assert policy.sampler.pending == 0
    assert all(e.closed == 1 for e in tasks.made)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_found_in_the_first_rollout(value: float) -> None:
    policy = make_policy()
    with torch.no_grad():
        policy.model.get_output_embeddings().weight[5].fill_(value)
    tasks = Talks(0)
    with pytest.raises(NonFiniteError, match="not finite"):
        run(policy, tasks)
    assert policy.sampler.pending == 0


def test_an_attempt_can_be_made_under_another_prompt(policy: LanguageModel) -> None:
    tasks = Talks(0)
    task = tasks.train_task(0, 1)
    hint = (Message("user", "compute 1 + 1 as in 2 + 2"),)
    wanted = [EpisodeRequest(task, 0, 7), EpisodeRequest(task, 1, 7, hint), EpisodeRequest(task, 2, 7)]
    (plain, hinted, again), _ = run(policy, tasks, wanted)
    assert plain.prompt == again.prompt == policy.render(task.messages)
    assert hinted.prompt == policy.render(hint)
    assert (plain.tokens, plain.task) == (again.tokens, hinted.task)

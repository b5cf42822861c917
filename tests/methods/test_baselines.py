"""What sets each baseline apart, on the embedded model with rewards whose outcome is known."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.config import RunConfig
from etude.errors import InputError
from etude.method import get_method
from etude.methods.baselines.dpo import preference_pairs
from etude.models.engine import Engine
from etude.models.language import LanguageModel
from etude.objectives import PolicyObjective, sequence_product, sequence_ratio, token_ratio
from etude.rollouts import is_mixed
from etude.run import Run
from etude.settings import build_config
from etude.tasks.base import TaskSet
from etude.tasks.builtin import builtin_task_sets
from etude.tasks.builtin.check_and_fix import CheckAndFix
from etude.types import Group, Message, Segment, Task, Trajectory, trajectories_of

SMALL: dict[str, Any] = {"tasks_per_step": 2, "group_size": 4, "max_new_tokens": 6, "eval_tasks": 2, "eval_samples": 2, "warmup_steps": 0, "eval_kl": False}


class Known(TaskSet):
    """Every third training task is always right, every third always wrong, every third right or wrong by a hash of what was written."""

    name = "known"

    def train_task(self, seed: int, index: int) -> Task:
        return Task(f"{('right', 'wrong', 'mixed')[index % 3]}-{index}", (Message("user", f"compute {index}"),), answer=str(index))

    def held_out(self) -> Sequence[Task]:
        return [self.train_task(0, i) for i in range(3)]

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        kind = task.id.split("-")[0]
        return {"correct": {"right": 1.0, "wrong": 0.0}.get(kind, float(zlib.crc32(text.encode()) % 2))}


class Mixed(Known):
    """Only tasks that are right or wrong by a hash."""

    def train_task(self, seed: int, index: int) -> Task:
        return super().train_task(seed, 3 * index + 2)


def ready(slug: str, tmp_path: Path, tasks: TaskSet | None = None, **settings: Any) -> Any:
    """A method that is set up, on the embedded model."""
    config = build_config(slug, **{**SMALL, **settings})
    run = Run(tmp_path, RunConfig(save_trajectories=0))
    learner = config.method.learner
    method: Any = get_method(slug)(config, run, policy=LanguageModel.load("tiny", device="cpu", learner=learner), task_set=tasks or Mixed())
    method.setup()
    run.step = 1
    return method


def test_a_sampler_with_copies_of_the_weights_is_corrected_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = ready("grpo", tmp_path)
    assert method.objective().correction is None
    monkeypatch.setattr(Engine, "shares_weights", False)
    assert method.objective().correction(torch.tensor([0.5, 3.0]), torch.ones(2)).tolist() == [0.5, 2.0]
    method.config.correction = "none"
    assert method.objective().correction is None


def attempt(reward: float, tokens: Sequence[int] = (5, 6, 7), *, correct: float | None = None) -> Trajectory:
    count = len(tokens)
    segment = Segment(list(tokens), "policy", "x", trained=True, logprobs=[-1.0] * count, entropies=[0.5] * count)
    rewards = {} if correct is None else {"correct": correct}
    return Trajectory(Task("t", (Message("user", "1+1"),)), [1, 2, 3], [segment], "eos", reward=reward, rewards=rewards)


def advantages(group: Group) -> list[float]:
    return [t.segments[0].advantages[0] for t in group.trajectories]


@pytest.mark.parametrize(
    ("slug", "expected"),
    [
        # Rewards 1, 0, 0, 0: mean 1/4, standard deviation 1/2; the mean of the others is 0 for the first and 1/3 for the rest.
        ("grpo", [1.5, -0.5, -0.5, -0.5]),
        ("dapo", [1.5, -0.5, -0.5, -0.5]),
        ("gspo", [1.5, -0.5, -0.5, -0.5]),
        ("dr-grpo", [0.75, -0.25, -0.25, -0.25]),
        ("rloo", [1.0, -1 / 3, -1 / 3, -1 / 3]),
    ],
)
def test_advantages_of_a_group(slug: str, expected: list[float], tmp_path: Path) -> None:
    method = ready(slug, tmp_path, **({"kl_coefficient": 0.0} if slug == "rloo" else {}))
    group = Group("t", [attempt(1.0), attempt(0.0), attempt(0.0), attempt(0.0)])
    method.credit([group])
    assert advantages(group) == pytest.approx(expected, abs=1e-5)
    assert all(t.segments[0].advantages == [a] * 3 for t, a in zip(group.trajectories, advantages(group), strict=True))


@pytest.mark.parametrize(
    ("slug", "aggregation", "ratio", "clips"),
    [
        ("grpo", "seq_mean_token_mean", token_ratio, (0.2, 0.2)),
        ("dr-grpo", "dr_grpo", token_ratio, (0.2, 0.2)),
        ("dapo", "token_mean", token_ratio, (0.2, 0.28)),
        ("gspo", "seq_mean_token_mean", sequence_ratio, (0.05, 0.05)),
        ("rloo", "seq_mean_token_mean", sequence_product, (0.2, 0.2)),
        ("reinforce-pp", "token_mean", token_ratio, (0.2, 0.2)),
    ],
)
def test_the_objective_is_the_papers(slug: str, aggregation: str, ratio: Any, clips: tuple[float, float], tmp_path: Path) -> None:
    criterion = ready(slug, tmp_path).criterion
    assert isinstance(criterion, PolicyObjective)
    assert (criterion.aggregation, criterion.ratio, (criterion.clip_low, criterion.clip_high)) == (aggregation, ratio, clips)
    assert criterion.normal_length == 6
    # The methods that have the divergence in the reward do not have it in the loss as well.
    assert criterion.kl_coefficient == 0.0
    # A ratio of 2 on a good token is worth 1 + clip_high, one of 1/2 on a bad token costs 1 - clip_low.
    value = criterion.surrogate(torch.tensor([2.0, 0.5]), torch.tensor([1.0, -1.0]), torch.zeros(2))
    assert value.tolist() == pytest.approx([-(1 + clips[1]), 1 - clips[0]])


def test_dr_grpos_loss_is_divided_by_the_limit_not_the_length(tmp_path: Path) -> None:
    def gradient(slug: str, length: int) -> float:
        method = ready(slug, tmp_path, grad_clip=0.0)
        group = Group("t", [attempt(1.0, [9] * length), attempt(0.0, [8])])
        group.trajectories[0].set_advantage(1.0)
        group.trajectories[1].set_advantage(0.0)
        loss: float = method.learner.update([group.trajectories], method.criterion)["loss/total"]
        return loss

    # The loss is -ratio x advantage = -1 a token, for one of two trajectories.
    assert gradient("grpo", 3) == pytest.approx(-1 / 2)
    assert gradient("grpo", 6) == pytest.approx(-1 / 2)
    assert gradient("dr-grpo", 3) == pytest.approx(-3 / (2 * 6))
    assert gradient("dr-grpo", 6) == pytest.approx(-6 / (2 * 6))


def test_dapo_replaces_groups_that_teach_nothing_and_pays_for_them(tmp_path: Path) -> None:
    method = ready("dapo", tmp_path, Known(), tasks_per_step=3, overlong_weight=0.0)
    groups = method.collect(method.curriculum.next(3))
    chosen = method.select(groups)
    assert len(groups) > 3
    assert len(chosen) == 3
    assert all(g.key.startswith("mixed") and is_mixed(g) for g in chosen)
    assert len({g.key for g in groups}) == len(groups)
    assert method.curriculum.cursor == len(groups)
    everything = trajectories_of(groups)
    ledger = method.run.ledger
    assert ledger.rollouts == len(everything) == 4 * len(groups)
    assert ledger.generated_tokens == sum(t.generated_length for t in everything)
    metrics = method.credit(chosen) | method.update(chosen)
    assert metrics["signal/groups_trained"] == 3
    assert ledger.trained_tokens == sum(t.trained_length for t in trajectories_of(chosen))


def test_dapo_gives_up_after_its_rounds_and_updates_nothing(tmp_path: Path) -> None:
    class Hopeless(Known):
        def verify(self, task: Task, text: str) -> Mapping[str, float]:
            return {"correct": 0.0}

    method = ready("dapo", tmp_path, Hopeless(), sampling_rounds=3)
    before = [p.clone() for p in method.policy.model.parameters()]
    metrics = method.step()
    assert method.run.ledger.rollouts == 3 * 2 * 4
    assert (metrics["signal/groups_trained"], metrics["signal/updates"]) == (0, 0)
    assert all(torch.equal(a, b) for a, b in zip(before, method.policy.model.parameters(), strict=True))


def test_dapo_without_dynamic_sampling_keeps_every_group(tmp_path: Path) -> None:
    method = ready("dapo", tmp_path, Known(), tasks_per_step=3, dynamic_sampling=False)
    groups = method.collect(method.curriculum.next(3))
    assert [g.key for g in method.select(groups)] == ["right-0", "wrong-1", "mixed-2"]
    assert method.run.ledger.rollouts == 12


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_dapo_takes_reward_off_answers_near_the_limit(weight: float, tmp_path: Path) -> None:
    method = ready("dapo", tmp_path, overlong_weight=weight, overlong_share=0.5, max_new_tokens=10)
    # The limit is 10 tokens and the penalty rises over the last 5: from 0 at 5 to 1 at 10.
    lengths, penalties = (4, 5, 7, 10), (0.0, 0.0, -0.4, -1.0)
    group = Group("t", [attempt(0.0, [5] * n) for n in lengths])
    method.judge([group])
    for trajectory, penalty in zip(group.trajectories, penalties, strict=True):
        assert trajectory.reward == pytest.approx(trajectory.correct + weight * penalty)
        assert trajectory.rewards.get("overlong") == (pytest.approx(penalty) if weight else None)


def test_dapos_length_limit_is_that_of_all_turns(tmp_path: Path) -> None:
    method = ready("dapo", tmp_path, builtin_task_sets()["check-and-fix"](), overlong_share=0.5, max_new_tokens=10)
    trajectory = attempt(0.0, [5] * 10)
    trajectory.segments = [*trajectory.segments, Segment([4] * 30, "environment"), *trajectory.segments]
    trajectory.tags |= {"environment_reward": 1.0, "environment_correct": 1.0}
    trajectory.segments[2] = Segment([5] * 5, "policy", "x", trained=True)
    # 15 of the 20 tokens of two turns, of which the last 10 are penalised.
    method.judge([Group("t", [trajectory])])
    assert trajectory.rewards["overlong"] == pytest.approx(-0.5)


@pytest.mark.parametrize("family", sorted(builtin_task_sets()))
def test_dapo_takes_nothing_off_answers_within_what_the_tasks_ask_for(family: str, tmp_path: Path) -> None:
    tasks = builtin_task_sets()[family]()
    method = ready("dapo", tmp_path, tasks, max_new_tokens=0)
    limit, turns = tasks.max_new_tokens, min(tasks.max_turns, method.max_turns)
    cache = round(0.2 * limit)
    # Rollouts may be longer than that by the cache, over which the penalty falls to -1.
    assert method.params.max_new_tokens == limit + cache
    longest, over = attempt(0.0, [5] * limit * turns), attempt(0.0, [5] * (limit + cache) * turns)
    for trajectory in (longest, over):
        trajectory.task = tasks.train_task(0, 0)
        trajectory.tags |= {"environment_reward": 1.0} if turns > 1 else {}
    method.judge([Group("t", [longest, over])])
    assert [t.rewards["overlong"] for t in (longest, over)] == pytest.approx([0.0, -1.0])
    # Evaluation, and a run without the penalty, keep to the task set's own limit.
    assert ready("dapo", tmp_path, tasks, max_new_tokens=0, overlong_weight=0.0).params.max_new_tokens == limit


def test_dapos_cache_has_to_fit_into_a_limit_of_the_users_own(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--overlong-share is 1.5; with --max-new-tokens 10 .* expected at most 1"):
        ready("dapo", tmp_path, overlong_share=1.5, max_new_tokens=10)
    assert ready("dapo", tmp_path, overlong_share=1.5, max_new_tokens=0).params.max_new_tokens == 64 + 96


def test_a_step_without_a_batch_counts_in_the_schedule(tmp_path: Path) -> None:
    method = ready("dapo", tmp_path, lr=1e-3, schedule="linear")
    groups = method.collect(method.curriculum.next(2))
    method.credit(groups)
    rates = []
    for step in (1, 2, 3):
        method.run.step = step
        rates.append(method.update([] if step == 2 else groups).get("loss/lr"))
    # One hundred steps are the default of a run.
    assert rates == [pytest.approx(1e-3), None, pytest.approx(1e-3 * 98 / 100)]


def test_gspo_is_grpo_on_fresh_rollouts_and_not_on_stale_ones(tmp_path: Path) -> None:
    def weights(slug: str, **settings: Any) -> torch.Tensor:
        method = ready(slug, tmp_path, clip_low=0.2, clip_high=0.2, lr=1e-2, **settings)
        method.step()
        return torch.cat([p.detach().flatten() for p in method.policy.model.parameters()])

    assert torch.allclose(weights("gspo", mini_batches=1), weights("grpo", mini_batches=1), atol=1e-6)
    assert not torch.allclose(weights("gspo", mini_batches=1, epochs=3), weights("grpo", mini_batches=1, epochs=3), atol=1e-4)


def test_rloo_takes_the_divergence_off_the_reward(tmp_path: Path) -> None:
    method = ready("rloo", tmp_path, kl_coefficient=0.5)
    with torch.no_grad():
        for parameter in method.policy.model.parameters():
            parameter.mul_(1.05)
    groups = method.collect(method.curriculum.next(2))
    flat = trajectories_of(groups)
    rewards = [t.reward for t in flat]
    start = method.learner.logprobs(flat, reference=True)
    method.credit(groups)
    divergences = [sum(t.segments[0].logprobs) - sum(values) for t, values in zip(flat, start, strict=True)]
    assert max(abs(d) for d in divergences) > 1e-2
    assert [t.reward for t in flat] == pytest.approx([r - 0.5 * d for r, d in zip(rewards, divergences, strict=True)], abs=1e-6)
    assert [t.rewards["kl"] for t in flat] == pytest.approx(divergences, abs=1e-6)
    first = [t.reward for t in groups[0].trajectories]
    assert advantages(groups[0])[0] == pytest.approx(first[0] - sum(first[1:]) / 3)


def test_reinforce_pp_learns_from_single_attempts(tmp_path: Path) -> None:
    method = ready("reinforce-pp", tmp_path, group_size=1, tasks_per_step=16, kl_coefficient=0.0)
    groups = method.collect(method.curriculum.next(16))
    assert {len(g) for g in groups} == {1}
    method.credit(groups)
    tokens = [(a, t.reward) for t in trajectories_of(groups) for s in t.segments for a in s.advantages]
    values = torch.tensor([a for a, _ in tokens], dtype=torch.float64)
    assert float(values.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(values.std()) == pytest.approx(1.0, abs=1e-3)
    assert {r for a, r in tokens if a > 0} == {1.0}
    assert method.update(groups)["loss/grad_norm"] > 0


def test_reinforce_pp_whitens_what_the_groups_mean_leaves(tmp_path: Path) -> None:
    method = ready("reinforce-pp", tmp_path, group_baseline=True)
    easy, hard = Group("a", [attempt(5.0), attempt(4.0)]), Group("b", [attempt(1.0), attempt(0.0)])
    method.credit([easy, hard])
    # Centred: +-1/2, three tokens each; whitened over 12 tokens with the unbiased variance 12 (1/4) / 11.
    expected = 0.5 / math.sqrt(12 * 0.25 / 11)
    assert [*advantages(easy), *advantages(hard)] == pytest.approx([expected, -expected] * 2, abs=1e-5)
    with pytest.raises(InputError, match="--group-size is 1; with --group-baseline at least 2"):
        ready("reinforce-pp", tmp_path, group_baseline=True, group_size=1)


def test_raft_imitates_a_few_distinct_good_attempts(tmp_path: Path) -> None:
    method = ready("raft", tmp_path, keep_per_task=2)
    good = [attempt(1.0, [5, 6]), attempt(1.0, [5, 6]), attempt(2.0, [7]), attempt(1.0, [8]), attempt(1.0, [9])]
    poor = [attempt(0.5, [10]), attempt(0.0, [11]), attempt(math.nan, [12])]
    group = Group("t", [*poor, *good])
    (chosen,) = method.select([group])
    assert chosen.trajectories == [good[2], good[0]]
    assert method.credit([chosen, Group("u", [])]) == {"signal/kept": 2.0, "signal/tasks_kept": 1.0}
    repeats = ready("raft", tmp_path, keep_per_task=3, keep_distinct=False).select([group])[0]
    assert repeats.trajectories == [good[2], good[0], good[1]]


def test_raft_makes_what_it_kept_likelier(tmp_path: Path) -> None:
    method = ready("raft", tmp_path, lr=1e-3)
    groups = method.collect(method.curriculum.next(2))
    chosen = method.select(groups)
    kept = trajectories_of(chosen)
    assert kept
    assert all(t.correct == 1.0 for t in kept)
    before = sum(map(sum, method.learner.logprobs(kept)))
    method.credit(chosen)
    method.update(chosen)
    assert sum(map(sum, method.learner.logprobs(kept))) > before


def test_sft_makes_demonstrations_likelier_and_samples_nothing(tmp_path: Path) -> None:
    family = builtin_task_sets()["arithmetic"]()
    method = ready("sft", tmp_path, family, tasks_per_step=4, lr=1e-3)
    groups = method.collect(method.curriculum.next(4))
    shown = trajectories_of(groups)
    for place, trajectory in enumerate(shown):
        (segment,) = trajectory.segments
        assert (segment.author, segment.trained) == ("injected", True)
        assert segment.text == family.demonstration(trajectory.task, method.run.stream(1, place, trajectory.task.id))
        assert method.policy.decode(segment.tokens) == segment.text
        assert segment.tokens[-1] == method.policy.tokenizer.eos_token_id
    before = sum(map(sum, method.learner.logprobs(shown)))
    for _ in range(2):
        metrics = method.update(groups)
    assert metrics["loss/nll"] > 0
    assert sum(map(sum, method.learner.logprobs(shown))) > before
    assert (method.run.ledger.generated_tokens, method.run.ledger.rollouts) == (0, 0)
    assert method.run.ledger.trained_tokens == 2 * sum(t.trained_length for t in shown)


def test_sft_refuses_what_it_cannot_imitate(tmp_path: Path) -> None:
    class Open(Known):
        def train_task(self, seed: int, index: int) -> Task:
            return Task(f"open-{index}", (Message("user", "say something"),))

    with pytest.raises(InputError, match="known has no demonstrations to imitate: task 'open-0' has none"):
        ready("sft", tmp_path, Open())

    class Silent(CheckAndFix):
        conversation = TaskSet.conversation  # type: ignore[assignment]

    with pytest.raises(InputError, match="check-and-fix is played in turns with an environment, and has no conversations to imitate"):
        ready("sft", tmp_path, Silent())


def test_sft_imitates_the_assistants_turns_of_a_conversation_and_reads_the_rest(tmp_path: Path) -> None:
    family = builtin_task_sets()["calculator"](sloppy=1.0)
    method = ready("sft", tmp_path, family, tasks_per_step=2, lr=1e-3)
    groups = method.collect(method.curriculum.next(2))
    shown = trajectories_of(groups)
    for trajectory in shown:
        authors = [(s.author, s.trained) for s in trajectory.segments]
        # One call that fails, two that work, the answer; what the calculator says stands between them.
        assert authors == [("injected", True), ("environment", False)] * 3 + [("injected", True)]
        assert trajectory.segments[1].text == "error"
        played = [*trajectory.prompt, *(t for s in trajectory.segments for t in s.tokens)]
        seed = method.run.stream(1, shown.index(trajectory), trajectory.task.id)
        assert method.policy.tokenizer.decode(played) == method.policy.tokenizer.apply_chat_template(
            [{"role": m.role, "content": m.content} for m in family.conversation(trajectory.task, seed)], tokenize=False
        )
    before = sum(map(sum, method.learner.logprobs(shown)))
    method.update(groups)
    assert sum(map(sum, method.learner.logprobs(shown))) > before


def test_dpo_pairs_the_best_with_the_worst() -> None:
    a, b, c, d, e, unjudged = (attempt(r) for r in (0.0, 1.0, 0.5, 1.0, 0.25, math.nan))
    group = Group("t", [a, b, c, d, e, unjudged])
    assert preference_pairs(group, 4) == [[b, a], [d, e]]
    assert preference_pairs(group, 1) == [[b, a]]
    assert preference_pairs(Group("t", [b, d]), 4) == []
    assert preference_pairs(Group("t", [b]), 4) == []
    # What has no trained token has no likelihood to raise or lower.
    untrained = attempt(2.0)
    untrained.segments[0].trained = False
    assert preference_pairs(Group("t", [untrained, b, a]), 4) == [[b, a]]


def test_dpo_counts_attempts_that_have_nothing_to_train(tmp_path: Path) -> None:
    method = ready("dpo", tmp_path)
    untrained = attempt(0.5)
    untrained.segments[0].trained = False
    group = Group("t", [attempt(1.0), untrained, attempt(0.0)])
    assert method.credit([group]) == {"signal/pairs": 1.0, "signal/untrained": 1.0}
    assert method.update([group])["loss/total"] == pytest.approx(math.log(2), abs=1e-4)


def test_dpo_prefers_the_better_attempt(tmp_path: Path) -> None:
    method = ready("dpo", tmp_path, lr=1e-3)
    groups = method.collect(method.curriculum.next(2))
    pairs = method.units(groups)
    assert pairs
    assert method.credit(groups) == {"signal/pairs": len(pairs), "signal/untrained": 0}

    def margin() -> float:
        values = [sum(v) for v in method.learner.logprobs([t for pair in pairs for t in pair])]
        return sum(values[0::2]) - sum(values[1::2])

    before = margin()
    # At the start policy and reference are the same, so every pair's loss is log 2.
    assert method.update(groups)["loss/total"] == pytest.approx(math.log(2), abs=1e-4)
    assert margin() > before


@pytest.mark.parametrize("slug", ["grpo", "rloo"])
def test_an_adapter_is_all_that_lora_trains_and_saves(slug: str, tmp_path: Path) -> None:
    method = ready(slug, tmp_path, lora_rank=4, lr=1e-2, eval_kl=True)
    base = {n: p.detach().clone() for n, p in method.policy.model.named_parameters() if not p.requires_grad}
    adapter = {n: p.detach().clone() for n, p in method.policy.model.named_parameters() if p.requires_grad}
    assert adapter
    assert all("lora_" in name for name in adapter)
    metrics = method.step()
    assert metrics["loss/grad_norm"] > 0
    now = dict(method.policy.model.named_parameters())
    assert all(torch.equal(now[n], p) for n, p in base.items())
    assert any(not torch.equal(now[n], p) for n, p in adapter.items())
    assert {n for n in method.state().tensors if n.startswith("weights.")} == {f"weights.{n}" for n in adapter}
    assert method.evaluate()["eval/kl_to_start"] > 0


def test_tool_tokens_are_read_but_not_trained(tmp_path: Path) -> None:
    method = ready("grpo", tmp_path, builtin_task_sets()["calculator"](), grad_clip=0.0, lr=1e-3)
    policy = method.policy

    def conversation(result: str, reward: float) -> Trajectory:
        call = policy.tokenizer("<calc>2*3</calc><|end|>", add_special_tokens=False)["input_ids"]
        said = policy.render_after(call, [Message("tool", result)])
        answer = policy.tokenizer("answer: 6<|end|>", add_special_tokens=False)["input_ids"]
        task = method.task_set.train_task(0, 0)
        segments = [
            Segment(call, "policy", trained=True, logprobs=[-1.0] * len(call)),
            Segment(said, "tool", result),
            Segment(answer, "policy", trained=True, logprobs=[-1.0] * len(answer)),
        ]
        return Trajectory(task, policy.render(task.messages), segments, "environment", reward=reward)

    good, bad = conversation("6", 1.0), conversation("7", 0.0)
    method.credit([Group("t", [good, bad])])
    assert [s.advantages for s in good.segments if not s.trained] == [[]]
    spoken = len(good.segments[0].tokens) + len(good.segments[2].tokens)
    values = method.learner.logprobs([good, bad])
    assert [len(v) for v in values] == [spoken, spoken]
    # What the tool said is context: it changes how likely the answer is, and has no likelihood of its own.
    first = len(good.segments[0].tokens)
    assert values[0][:first] == pytest.approx(values[1][:first], abs=1e-5)
    assert values[0][first:] != pytest.approx(values[1][first:], abs=1e-4)
    method.update([Group("t", [good, bad])])
    assert method.run.ledger.trained_tokens == 2 * spoken

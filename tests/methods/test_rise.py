"""RISE: the second phase on the policy's own solutions, its scores, and the update that both kinds share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.config import RunConfig
from etude.errors import InputError
from etude.method import get_method
from etude.methods.rewards.rise import VERIFY
from etude.models.language import LanguageModel
from etude.rollouts import of_kind
from etude.run import Run
from etude.settings import build_config
from etude.tasks.base import TaskSet
from etude.tasks.builtin import builtin_task_sets
from etude.types import Group, Message, Segment, Task, Trajectory, trajectories_of

SMALL: dict[str, Any] = {"tasks_per_step": 4, "group_size": 4, "verify_share": 1.5, "eval_tasks": 3, "eval_samples": 4, "warmup_steps": 0, "eval_kl": False}


def ready(tmp_path: Path, tasks: TaskSet | None = None, **settings: Any) -> Any:
    config = build_config("rise", **{**SMALL, **settings})
    run = Run(tmp_path, RunConfig(save_trajectories=0))
    policy = LanguageModel.load("tiny", device="cpu")
    method: Any = get_method("rise")(config, run, policy=policy, task_set=tasks or builtin_task_sets()["arithmetic"]())
    method.setup()
    run.step = 1
    return method


def attempt(reward: float, logprobs: tuple[float, ...] = (-1.0, -1.0), kind: str | None = None) -> Trajectory:
    count = len(logprobs)
    segment = Segment([5] * count, "policy", "x", trained=True, logprobs=list(logprobs), entropies=[0.5] * count)
    return Trajectory(Task("t", (Message("user", "1+1"),)), [1, 2], [segment], "eos", reward=reward, tags={"kind": kind} if kind else {})


def test_each_step_verifies_some_of_its_own_solutions(tmp_path: Path) -> None:
    method = ready(tmp_path, critiques=3)
    groups = method.collect(method.curriculum.next(4))
    solved, verified = of_kind(groups, None), of_kind(groups, VERIFY)
    assert [len(g) for g in solved] == [4] * 4
    assert [len(g) for g in verified] == [3] * 6
    solutions = trajectories_of(solved)
    parents = [g.trajectories[0].parent for g in verified]
    assert all(any(p is s for s in solutions) for p in parents)
    assert len({id(p) for p in parents}) == 6
    # Six of four tasks: every task gives one, two give a second.
    assert sorted(sum(p.task is g.trajectories[0].task for p in parents) for g in solved) == [1, 1, 2, 2]
    for group, parent in zip(verified, parents, strict=True):
        task = group.trajectories[0].task
        assert task.prompt == f"rate: {parent.task.prompt}\n{parent.text}"
        assert float(task.answer) == parent.reward == parent.rewards["outcome"]
        assert all(t.reward == t.rewards["agreement"] and "correct" not in t.rewards for t in group.trajectories)
    assert method.run.ledger.rollouts == 16 + 18
    assert method.run.ledger.model_calls == {"policy": 34}
    assert method.counted["verify/reward"] == pytest.approx(sum(t.reward for t in trajectories_of(verified)) / 18)


def test_solutions_are_scored_in_three_tiers(tmp_path: Path) -> None:
    method = ready(tmp_path, scores=(2.0, 0.0, -3.0))
    task = method.task_set.train_task(0, 0)
    texts = [f"answer: {task.answer}", "answer: 1000", "1000"]
    group = Group("t", [Trajectory(task, [1], [Segment([2], "policy", text)], "eos") for text in texts])
    method.judge([group])
    assert group.rewards == [2.0, 0.0, -3.0]


def test_the_same_step_repeats_itself_and_verifies_nothing_at_a_share_of_0(tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        method = ready(tmp_path / name)
        texts.append([t.text for t in trajectories_of(method.collect(method.curriculum.next(4)))])
    assert texts[0] == texts[1]
    plain = ready(tmp_path / "plain", verify_share=0.0)
    groups = plain.collect(plain.curriculum.next(4))
    assert [t.text for t in trajectories_of(groups)] == texts[0][:16]
    assert "verify/reward" not in plain.counted


def test_permuted_truths_keep_the_scores_and_exchange_whose_they_are(tmp_path: Path) -> None:
    moved = 0
    for step in range(1, 5):
        method = ready(tmp_path / str(step), permute_truths=True)
        method.run.step = step
        verified = of_kind(method.collect(method.curriculum.next(4)), VERIFY)
        tasks = [g.trajectories[0].task for g in verified]
        assert sorted(float(t.answer or 0) for t in tasks) == sorted(t.info["truth"] for t in tasks)
        assert all(t.info["truth"] == g.trajectories[0].parent.reward for t, g in zip(tasks, verified, strict=True) if g.trajectories[0].parent is not None)
        moved += sum(float(t.answer or 0) != t.info["truth"] for t in tasks)
    assert moved > 0


def test_balance_finds_the_rare_class(tmp_path: Path) -> None:
    class Rare(TaskSet):
        """One sample of each task is right."""

        name = "rare"
        max_new_tokens = 6

        def train_task(self, seed: int, index: int) -> Task:
            return Task(f"t{index}", (Message("user", f"compute {index}"),), answer="1")

        def held_out(self) -> list[Task]:
            return [self.train_task(0, 10**6)]

        def verify(self, task: Task, text: str) -> dict[str, float]:
            return {"correct": 0.0}

        def verify_trajectory(self, trajectory: Trajectory) -> dict[str, float]:
            return {"correct": float(trajectory.sample == 0)}

    shares = {}
    for balance in (False, True):
        method = ready(tmp_path / str(balance), Rare(), balance_classes=balance, group_size=8, verify_share=1.0)
        shares[balance] = [g.trajectories[0].parent.reward == 1 for g in of_kind(method.collect(method.curriculum.next(4)), VERIFY)]
    assert sum(shares[True]) == 2
    assert len(shares[True]) == len(shares[False]) == 4
    assert sum(shares[False]) < 2


def test_a_solution_that_would_be_cut_is_not_verified(tmp_path: Path) -> None:
    method = ready(tmp_path)
    task = method.task_set.train_task(0, 0)
    short = Trajectory(task, [1], [Segment([2], "policy", "answer: 3")], "eos", rewards={"outcome": 1.0}, reward=1.0)
    long = Trajectory(task, [1], [Segment([2], "policy", "x" * 230 + "\nanswer: 3")], "eos", rewards={"outcome": 1.0}, reward=1.0)
    unjudged = Trajectory(task, [1], [Segment([2], "policy", "answer: 3")], "eos", rewards={"outcome": math.nan})
    rows, unfit = method.verifiable([Group("t", [short, long, unjudged])])
    assert (rows, unfit) == ([[short]], 1)


def test_the_control_verifies_the_first_steps_solutions_for_ever_and_after_a_resumption(tmp_path: Path) -> None:
    method = ready(tmp_path / "one", verify_source="start")
    first = {t.text for t in trajectories_of(of_kind(method.collect(method.curriculum.next(4)), None))}
    method.run.step = 2
    second = method.collect(method.curriculum.next(4))
    parents = [g.trajectories[0].parent for g in of_kind(second, VERIFY)]
    assert {p.text for p in parents} <= first
    resumed = ready(tmp_path / "two", verify_source="start")
    resumed.load_state(method.state())
    resumed.run.step = 2
    groups, _ = resumed.verify(resumed.pool)
    assert [t.text for t in trajectories_of(groups)] == [t.text for t in trajectories_of(of_kind(second, VERIFY))]


def test_the_divergence_is_paid_token_by_token_within_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = ready(tmp_path, kl_coefficient=0.5)
    method.counted = {}
    # The second token of the first attempt is 0.4 more likely than at the start.
    monkeypatch.setattr(method.learner, "logprobs", lambda trajectories, reference: [[-1.0, -1.4], [-1.0, -1.0]])
    group = Group("t", [attempt(1.0), attempt(-0.5)])
    metrics = method.credit([group])
    width = 1.5 / 2**0.5  # of 1 and -0.5
    baseline = (1 - 0.2 - 0.5) / 2
    assert group.trajectories[0].segments[0].advantages == pytest.approx([(0.8 - baseline) / width] * 2, abs=1e-4)
    assert group.trajectories[1].segments[0].advantages == pytest.approx([(-0.5 - baseline) / width] * 2, abs=1e-4)
    assert metrics["reward/kl"] == pytest.approx(0.2)
    assert method.run.ledger.forward_equivalents == 4
    assert method.criterion.kl_coefficient == 0.0


def test_whitening_takes_both_kinds_together(tmp_path: Path) -> None:
    method = ready(tmp_path, advantage="whitened", kl_coefficient=0.0)
    method.counted = {}
    solve = Group("s", [attempt(1.0), attempt(-1.0)])
    verify = Group("v", [attempt(1.0, kind=VERIFY), attempt(-0.5, kind=VERIFY)], {"kind": VERIFY})
    metrics = method.credit([solve, verify])
    values = torch.tensor([a for t in trajectories_of([solve, verify]) for a in t.segments[0].advantages])
    # Without the group's means: +-1 and +-0.75, each at two tokens.
    raw = torch.tensor([1.0, 1.0, -1.0, -1.0, 0.75, 0.75, -0.75, -0.75])
    assert values.tolist() == pytest.approx((raw / raw.std()).tolist(), abs=1e-4)
    assert metrics["verify/advantage_share"] == pytest.approx(0.75 / 1.75)
    # Within groups each kind has a deviation of its own, so that their shares are alike.
    method.config.advantage = "group"
    assert method.credit([solve, verify])["verify/advantage_share"] == pytest.approx(0.5, abs=1e-4)


def test_what_could_not_be_judged_stays_out(tmp_path: Path) -> None:
    for advantage in ("group", "whitened"):
        method = ready(tmp_path / advantage, advantage=advantage, kl_coefficient=0.0)
        method.counted = {}
        group = Group("t", [attempt(1.0), attempt(math.nan), attempt(-0.5)])
        method.credit([group])
        first, unjudged, last = (t.segments[0].advantages[0] for t in group.trajectories)
        assert unjudged == 0
        assert first == pytest.approx(-last)
        assert first > 0


def test_a_rating_that_agrees_becomes_more_likely(tmp_path: Path) -> None:
    method = ready(tmp_path, lr=1e-3, kl_coefficient=0.0)
    parent = Trajectory(method.task_set.train_task(0, 0), [1], [Segment([2], "policy", "answer: 3")], "eos", rewards={"outcome": -0.5}, reward=-0.5)
    task = method.verification.follow(parent)
    prompt = method.policy.render(task.messages)

    def written(text: str) -> Trajectory:
        tokens = method.policy.tokenizer(text, add_special_tokens=False)["input_ids"]
        return Trajectory(task, prompt, [Segment(tokens, "policy", text, trained=True)], "eos", tags={"kind": VERIFY})

    group = Group(task.id, [written("answer: -0.5"), written("answer: 1")], {"kind": VERIFY})
    for trajectory, values in zip(group.trajectories, method.learner.logprobs(group.trajectories), strict=True):
        trajectory.segments[0].logprobs = values
        components = method.verification.verify(task, trajectory.text)
        trajectory.rewards, trajectory.reward = dict(components), components["agreement"]
    before = [sum(v) for v in method.learner.logprobs(group.trajectories)]
    method.counted = {}
    method.credit([group])
    method.update([group])
    after = [sum(v) for v in method.learner.logprobs(group.trajectories)]
    assert after[0] - after[1] > before[0] - before[1]


def test_an_evaluation_rates_every_solution_and_weighs_the_vote(tmp_path: Path) -> None:
    method = ready(tmp_path)
    metrics = method.evaluate()
    assert {"eval/maj@4", "eval/weighted_maj@4", "eval/verify_accuracy", "eval/verify_constant", "eval/verify_length", "eval/check_words"} <= metrics.keys()
    assert method.run.ledger.rollouts == 2 * 12
    # `tiny` has not been taught to rate: what it writes is no rating, nobody's answer is stood by, and the vote is the plain one.
    assert metrics["eval/verify_unrated"] > 0.5
    silent = ready(tmp_path, eval_verification=False).evaluate()
    assert not any(name.startswith(("eval/verify_", "eval/weighted")) for name in silent)


def test_episodes_with_an_environment_are_verified_in_a_single_turn(tmp_path: Path) -> None:
    method = ready(tmp_path, builtin_task_sets()["calculator"](), verify_share=0.5)
    groups = method.collect(method.curriculum.next(4))
    verified = trajectories_of(of_kind(groups, VERIFY))
    assert verified
    assert all(len(t.segments) == 1 for t in verified)
    assert any("[tool] " in t.task.prompt for t in verified)
    method.credit(groups)
    assert method.update(groups)["signal/updates"] == 1


def test_the_long_prompt_where_the_model_has_room_for_it(tmp_path: Path) -> None:
    assert ready(tmp_path).verification.template.startswith("rate: ")
    policy = LanguageModel.load("tiny", device="cpu")
    policy.sampler.context_length = 4096
    config = build_config("rise", **SMALL)
    method: Any = get_method("rise")(config, Run(tmp_path, RunConfig()), policy=policy, task_set=builtin_task_sets()["arithmetic"]())
    method.setup()
    assert method.verification.template.startswith("Below are a question")


def test_a_prompt_of_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("{question}? {response}! right is {right}\n")
    method = ready(tmp_path, verify_prompt=str(tmp_path / "mine.txt"))
    assert method.verification.prompt("q", "r") == "q? r! right is 1"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"scores": (0.0, 1.0, 2.0)}, "expected finite ones that fall"),
        ({"critiques": 1}, "--critiques is 1"),
        ({"verify_prompt": "nowhere.txt"}, "'nowhere.txt', which cannot be read"),
        ({"verify_prompt": "long"}, "do not fit into the 256 tokens"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told):
        ready(tmp_path, **settings)

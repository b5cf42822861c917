"""SCoRe: learn to correct oneself by reinforcement in two stages (Kumar et al., arXiv:2409.12917).

A task is attempted, a fixed request asks for another look without saying whether the attempt was right, and the task is attempted again. Two things go wrong where this is
simply trained. Imitation of good corrections teaches to mend somebody else's mistakes. And reinforcement of both attempts finds that the surest way to a right second
answer is a right first one, repeated: both rise together, and the second look dies out.

So training begins with a stage that pulls the attempts apart. The first one earns nothing and is held to the starting policy by a strong divergence, so that the only way
to reward leads through the second. Then both are rewarded, and the second earns a bonus besides, `alpha` times what it adds to the first: mending pays far more than
repeating, and spoiling costs as much. Each attempt's tokens see nothing but their own reward (`gamma` 0), or the bonus would pay for worse first attempts.

Differs from RLOO in that reward, baseline and divergence are those of a turn, and in the two stages. `stage_steps` 0 with `alpha` 0 is plain reinforcement over turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from etude.advantages import assign_turns, by_turn, leave_one_out, turn_returns
from etude.advantages.turns import trained_turns
from etude.claim import Arm, Claim, Comparison, Precondition, reported_seeds
from etude.config import AtLeastOne, Count, NonNegative, PolicyOptimizationConfig, Share
from etude.evals.measures import Final
from etude.evals.revision import revised
from etude.ledger import FORWARD
from etude.loop import PolicyOptimization
from etude.method import State, register
from etude.methods.self_correction._corrections import FROM_COPIES, QUICK_START, repeats_itself
from etude.objectives import Aggregation, Objective, PolicyObjective
from etude.objectives.policy import ppo_surrogate
from etude.rewards.progress import with_progress
from etude.rollouts import EpisodeRequest, run_episodes
from etude.tasks.revisions import ATTEMPT_REWARDS, after_attempts, given_attempts, request_between_attempts
from etude.types import Group, Metrics, Task, Trajectory, mean, trajectories_of

BETA2_RANGE = 10.0
"""How many times larger or smaller than at the start an adapted `beta2` may become."""


@dataclass
class SCoReConfig(PolicyOptimizationConfig):
    """Options of SCoRe."""

    tasks_per_step: AtLeastOne = 12
    """Tasks per step."""
    group_size: AtLeastOne = 8
    """Episodes of each task, of two attempts or more."""
    stage_steps: Count = 32
    """Steps of the first stage, in which first attempts earn nothing and are held where they are (0: none)."""
    alpha: NonNegative = 10.0
    """Second stage: bonus of a later attempt for every point by which it is better than the one before (0: none)."""
    later_weight: NonNegative = 1.0
    """Second stage: weight of the reward of later attempts, without the bonus."""
    rescale: bool = True
    """Second stage: divide advantages by `later_weight + alpha`, the most that a point of a later attempt is worth, so that a larger bonus is not a larger step."""
    beta1: NonNegative = 0.01
    """Weight of the divergence from the starting policy in an attempt's reward."""
    beta2: NonNegative = 0.25
    """The same for first attempts in the first stage."""
    adapt_beta2: bool = False
    """Steer `beta2` so that the divergence moves first attempts about as hard as reward moves later ones."""
    turn_kl: Literal["mean", "sum"] = "mean"
    """The divergence of an attempt: mean over its tokens, or sum (the paper's form, in which long attempts pay more)."""
    gamma: Share = 0.0
    """How much of the next attempt's return an attempt is credited with. Above 0 the bonus can pay for a worse first attempt."""
    given_attempts: Share = 0.0
    """Second stage: share of episodes that begin after a first attempt of the starting policy, which is read and not trained on."""
    clip: NonNegative = 0.2
    """How far from 1 the importance ratio may go, where a batch is used for several optimiser steps."""
    aggregation: Aggregation = "seq_mean_token_sum"
    """How per-token losses become one number."""


@register(
    slug="score",
    name="SCoRe",
    family="self_correction",
    paper="2409.12917",
    title="Training Language Models to Self-Correct via Reinforcement Learning",
    summary="reinforcement over two attempts: first held apart, then with a bonus for what the second one mends",
    config=SCoReConfig,
    claim=Claim(
        statement="Reinforcement of two attempts makes the first one better and lets the second look die out. With a first stage that holds first attempts where they are, "
        "and then a bonus for progress, the second look comes to mend answers.",
        expectation="From a model that can check its answers and was taught to repeat them, on as many episodes, the greedy accuracy of second answers to held-out tasks "
        "less that of first ones ends more than 8 points above that of plain reinforcement over two turns, and the accuracy of second answers more than 5 points.",
        arms=(
            Arm("score", settings={"method": "score", "stage_steps": 32}),
            Arm("plain RL", "score", {"method": "score", "stage_steps": 0, "alpha": 0.0}),
            Arm("larger reward", "score", {"method": "score", "stage_steps": 0, "alpha": 0.0, "later_weight": 11.0}),
            Arm("no first stage", "score", {"method": "score", "stage_steps": 0}),
        ),
        common={
            **FROM_COPIES,
            "tasks": "check-and-fix:pool=4",
            "warm_tasks": "check-and-fix:copies=0.9,edits=0.03,misses=0.3,slips=0",
            "tasks_per_step": 12,
            "group_size": 8,
        },
        experiment="etude.experiments.second_looks:second_looks",
        budget="7680-rollouts",
        tests=(
            Comparison("what the second look adds", "score", "plain RL", Final("delta"), margin=0.08),
            Comparison("accuracy of the second answer", "score", "plain RL", Final("correct@2"), margin=0.05),
            Comparison("progress, not a larger reward", "score", "larger reward", Final("delta"), role="ablation"),
            Comparison("the first stage", "score", "no first stage", Final("delta"), role="ablation"),
        ),
        preconditions=(
            *repeats_itself("score"),
            Precondition(
                "first answers can be learnt by heart",
                "plain RL",
                Final("practised@1"),
                at_least=0.9,
                otherwise="plain reinforcement does not get to where a second look has nothing left to add in training",
            ),
        ),
        tried="Parts, on seed 0; SCoRe's own arm was not run. 40 steps of lessons of which a tenth show a check (copies 0.85, edits 0.05, misses 0.5) gave a start that "
        "repeats every answer when it is greedy (28.9 % right both times, 128 tasks), and at temperature 1 checks in 7.8 % of its second answers, three in four of "
        "them right. From there plain reinforcement found the check by itself, in 8 steps of 64 episodes on a pool of 64 problems: greedy accuracy went from 29.2 % "
        "to 16.7 % at the first answer and to 93.8 % at the second (48 tasks). With the lessons here (56 steps) the start is right in 24.2 % both times and checks "
        "in 3.5 % of its second answers, 5 of 9 checks right. 18 steps of plain reinforcement, 64 episodes each, pool of 32, then took first answers in training "
        "from 31 % to 50 %, and greedy held-out ones from 24.2 % to 18.0 %, second ones to 43.8 %: the check is found here too, only later. Whether the "
        "preconditions hold after 80 steps is open. From the start that STaR's card tells of, with these shares (a check in 2.1 % of second answers, 76 % of them "
        "right) and a pool of 8, plain reinforcement over 80 steps of 96 learnt first answers by heart and found the check as well (second answers to held-out tasks "
        "67.2 %, 46.9 points above first ones); with two stages, 32 steps for the first, 64.5 and 39.1. With half as many checks it was a hundredth of that, and "
        "neither found them. With a pool of 4 plain reinforcement had all by heart before: 17.2 % both times, and nothing changed; in two stages second answers came "
        "to 43.8 %, 23.8 points above first ones. The other arms were not tried.",
        seeds=reported_seeds(5),
        quick={**QUICK_START, "stage_steps": 1},
    ),
)
class SCoRe(PolicyOptimization):
    """Differs from the loop's defaults in credit by turn, and in episodes that may begin after a given attempt."""

    config: SCoReConfig
    minimum_group: ClassVar[int] = 2

    def setup(self) -> None:
        super().setup()
        self.request = request_between_attempts(self.task_set, self.card.name)
        self.learner.freeze_reference()
        self.start = self.policy.copy(f"the start of {self.policy.name}") if self.config.given_attempts else None
        self.beta2 = self.config.beta2

    def objective(self) -> Objective:
        clip = self.config.clip
        surrogate = ppo_surrogate(clip, clip)
        return PolicyObjective(surrogate, self.config.aggregation, normal_length=self.params.max_new_tokens, clip_low=clip, clip_high=clip)

    @property
    def stage(self) -> Literal[1, 2]:
        """The stage that the step belongs to."""
        return 1 if self.run.step <= self.config.stage_steps else 2

    # Rollouts

    def rollout(self, tasks: Sequence[Task], round_: int = 0) -> list[Group]:
        if self.start is None or self.stage == 1:
            return super().rollout(tasks, round_)
        size = self.attempts_per_task
        places = [(place, sample) for place in range(len(tasks)) for sample in range(size)]
        begun = self.begun(tasks, [at for at in places if self.run.rng(self.run.step, round_, "given", *at).random() < self.config.given_attempts], round_)
        requests = [EpisodeRequest(begun.get(at, tasks[at[0]]), at[1], self.stream(tasks[at[0]], *at, round_)) for at in places]
        episodes = self.attempt(requests)
        return [Group(task.id, episodes[place * size : (place + 1) * size]) for place, task in enumerate(tasks)]

    def begun(self, tasks: Sequence[Task], places: Sequence[tuple[int, int]], round_: int) -> dict[tuple[int, int], Task]:
        """The tasks at some places (number of the task, sample), each begun after a first attempt that the starting policy makes now. One that leaves no room for
        another attempt is left out."""
        assert self.start is not None, "only a run with given attempts begins episodes after them"
        requests = [EpisodeRequest(tasks[p], s, self.run.stream(self.run.step, round_, "given", p, tasks[p].id, s)) for p, s in places]
        first = run_episodes(self.start, requests, self.task_set, self.params, max_turns=1, ledger=self.run.ledger)
        begun = {at: after_attempts(t.task, [t.last_text], self.request, "start") for at, t in zip(places, first, strict=True)}
        room = self.policy.context_length - self.params.max_new_tokens
        return {at: task for at, task in begun.items() if len(self.policy.render(task.opening)) <= room}

    # Credit

    def credit(self, groups: Sequence[Group]) -> Metrics:
        config, episodes = self.config, trajectories_of(groups)
        divergences = {id(t): row for t, row in zip(episodes, self.divergences(episodes), strict=True)}
        scale = config.later_weight + config.alpha if self.stage == 2 and config.rescale else 1.0

        def returns(episode: Trajectory) -> list[float]:
            paid = self.paid(episode.tags[ATTEMPT_REWARDS])[len(given_attempts(episode.task)) :]
            betas = [self.beta2 if self.stage == 1 and number == 0 else config.beta1 for number in range(len(paid))]
            own = [reward - beta * kl for reward, beta, kl in zip(paid, betas, divergences[id(episode)], strict=True)]
            return turn_returns(own, gamma=config.gamma)

        assign_turns(groups, returns, lambda returns_G: leave_one_out(returns_G) / scale)
        metrics = {"score/stage": float(self.stage), "score/beta2": self.beta2} | self.observed(episodes, divergences)
        if self.stage == 1 and config.adapt_beta2:
            first = [torch.tensor([divergences[id(t)][0] for t in g.trajectories], dtype=torch.float64) for g in groups]
            pull = mean([float(leave_one_out(kl_G).abs().mean()) for kl_G in first])
            low, high = config.beta2 / BETA2_RANGE, config.beta2 * BETA2_RANGE
            self.beta2 = min(high, max(low, balanced(self.beta2, pull=pull, push=metrics.get("score/push@2", 0.0))))
        return metrics

    def paid(self, rewards: Sequence[float]) -> list[float]:
        """What each attempt of an episode is paid, the divergence aside; `rewards` are all attempts', given ones included."""
        if self.stage == 1:
            return [0.0, *rewards[1:]]
        bonus = [total - own for own, total in zip(rewards, with_progress(rewards, alpha=self.config.alpha), strict=True)]
        return [rewards[0], *(self.config.later_weight * own + extra for own, extra in zip(rewards[1:], bonus[1:], strict=True))]

    def divergences(self, episodes: Sequence[Trajectory]) -> list[list[float]]:
        """log pi_old - log pi_ref (k1) of each trained turn, summed or averaged over its tokens; one row an episode."""
        reference = self.learner.logprobs(episodes, reference=True)
        self.run.ledger.forward_equivalents += FORWARD * sum(map(len, reference))
        rows: list[list[float]] = []
        for episode, values in zip(episodes, reference, strict=True):
            turns = zip(trained_turns(episode), by_turn(episode, values), strict=True)
            sums = [(sum(own.logprobs) - sum(start), max(1, len(start))) for own, start in turns]
            rows.append([total / length if self.config.turn_kl == "mean" else total for total, length in sums])
        return rows

    def observed(self, episodes: Sequence[Trajectory], divergences: dict[int, list[float]]) -> Metrics:
        """How the attempts went: what `revised` says of episodes that are the policy's own throughout, and for each turn the divergence, the mean size of the advantages
        and the share that was cut off."""
        own = [t for t in episodes if not given_attempts(t.task)]
        metrics: Metrics = {f"revision/{name}": value for name, value in revised(own, self.task_set.answer_in).items()}
        turns: dict[int, list[tuple[float, float, bool]]] = {}
        for episode in episodes:
            for number, (turn, kl) in enumerate(zip(trained_turns(episode), divergences[id(episode)], strict=True), 1 + len(given_attempts(episode.task))):
                cut = len(turn.tokens) >= self.params.max_new_tokens and turn.tokens[-1] not in self.policy.sampler.eos_ids
                turns.setdefault(number, []).append((kl, abs(turn.advantages[0]) if turn.advantages else 0.0, cut))
        for number, rows in sorted(turns.items()):
            names = (f"score/kl@{number}", f"score/push@{number}", f"score/truncated@{number}")
            metrics |= {name: mean([float(row[i]) for row in rows]) for i, name in enumerate(names)}
        return metrics

    # Saving

    def state(self) -> State:
        state = super().state()
        state.plain["beta2"] = self.beta2
        return state

    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.beta2 = float(state.plain["beta2"])


def balanced(beta: float, *, pull: float, push: float, most: float = 1.5) -> float:
    """The weight nearest to `beta`, at most `most` times larger or smaller, at which beta * pull = push; `beta` itself where either is 0.

    pull: mean size of first attempts' divergence, measured from their group's. push: mean size of later attempts' advantages.
    """
    return min(beta * most, max(beta / most, push / pull)) if pull > 0 and push > 0 else beta

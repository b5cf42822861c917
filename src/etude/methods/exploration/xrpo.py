"""XRPO: spend rollouts where they say most, and help where all of them fail (arXiv:2510.06672).

GRPO tries every task equally often. Much of that tells nothing new: a task that always or never succeeds has no spread, and its group no gradient. XRPO has three remedies.

Allocation: after a first few attempts at each task, the rest of the budget goes out in rounds, one attempt at a time, to the task whose mean reward is least certain
and would gain most from one more attempt, plus a bonus for tasks that were left behind. The total is GRPO's.
Seeding: a task that nobody solved is retried with solved examples of similar questions in its prompt. The examples are the policy's own verified answers.
Sharpening: a right answer that the policy found unlikely for its group earns up to half as much credit again.

Each can be switched off, and without all three this is GRPO, attempt for attempt. A seeded attempt may be trained under the prompt that it was sampled under (`seeded`)
or under the bare question (`original`): then the weights take in what the examples gave, and tokens are weighed for having been sampled under another prompt.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Gt, Lt

from etude.advantages import group_normalised, sharpened_by_novelty
from etude.claim import Arm, Claim, Comparison, Precondition
from etude.config import AtLeastOne, Count, NonNegative, Share
from etude.errors import InputError
from etude.evals.measures import Final
from etude.memory.exemplars import ExemplarStore, fitting_examples
from etude.method import State, register
from etude.methods.baselines.grpo import GRPO, GRPOConfig
from etude.objectives import Objective, PolicyObjective, sequence_ratio
from etude.rewards.self_scores import mean_logprob
from etude.rollouts import EpisodeRequest, adaptive_rollouts
from etude.rollouts.adaptive import ROUND
from etude.rollouts.allocation import even_allocation, greedy_allocation
from etude.tasks.base import prompt_key
from etude.types import Group, Message, Metrics, Task, Trajectory, mean, trajectories_of

SEEDED = "seeded"
"""Tag of a trajectory whose prompt held solved examples."""
DISTILLED = {"method": "xrpo", "condition_on": "original", "correction": "none", "examples_from": "same", "exploration": 0.1}
"""Arms of the claim: what seeded attempts show is learnt under the bare question, with full weight; examples come from the question's own family or not at all."""


@dataclass
class XRPOConfig(GRPOConfig):
    """Options of XRPO. `group_size` is the mean number of rollouts per task; what each task gets varies."""

    adaptive: bool = True
    """Give rollouts after the first round to the tasks whose mean reward is least certain; else to all alike."""
    base_rollouts: Count = 0
    """Rollouts of every task in the first round (0: half of group_size, between 2 and 4)."""
    most_rollouts: Count = 0
    """Rollouts of one task at most (0: four times group_size)."""
    phases: AtLeastOne = 3
    """Rounds of rollouts in a step, the first one included."""
    exploration: NonNegative = 0.02
    """Weight of the bonus for tasks with few rollouts: 0 leaves tasks without spread alone, 0.3 is nearly uniform."""
    confidence: Annotated[float, Gt(0), Lt(1)] = 0.95
    """Level of the interval whose narrowing is what a rollout promises."""
    give_up_after: Count = 0
    """Steps in which a task stayed unsolved after which it gets the first round's rollouts only (0: never)."""
    seeding: bool = True
    """Show solved examples at further attempts of a task that was never solved."""
    examples: AtLeastOne = 2
    """Examples in such a prompt at most."""
    examples_from: Literal["any", "same", "other"] = "any"
    """Families whose questions may be examples: any, the task's own, or only others (which should not help)."""
    example_tokens: Count = 256
    """Longest answer that is kept as an example, in tokens (0: any)."""
    example_instruction: str = ""
    """What a seeded prompt says before its first example."""
    examples_kept: AtLeastOne = 512
    """Solved questions that are remembered, the newest."""
    prefer_examples: Literal["shortest", "newest"] = "shortest"
    """Which of several right answers to a question is remembered."""
    solved_at: Annotated[float, Gt(0)] = 1.0
    """Verdict of the verifier from which an attempt has solved its task."""
    condition_on: Literal["seeded", "original"] = "seeded"
    """Prompt that seeded attempts are trained under: with the examples, or the bare question."""
    correction: Literal["none", "truncate", "mask", "sequence_truncate", "sequence_mask"] = "truncate"
    """Weigh tokens for the gap between sampler and learner, which is large for attempts trained under another prompt."""
    sharpening: bool = True
    """Raise the advantage of right answers that are unlikely in their group."""
    novelty_weight: NonNegative = 2.5
    """How steeply that rises with how unlikely an answer is."""
    novelty_cap: Share = 0.5
    """Largest rise, as a share of the advantage."""
    importance_ratio: Literal["token", "answer"] = "token"
    """Ratio of the loss: each token's (GRPO), or a whole answer's geometric mean (GSPO; use a narrower clip)."""


@register(
    slug="xrpo",
    name="XRPO",
    family="exploration",
    paper="2510.06672",
    title="XRPO: Pushing the limits of GRPO with Targeted Exploration and Exploitation",
    summary="rollouts go where rewards are uncertain, unsolved tasks see solved examples, unusual right answers earn more",
    rollouts="adaptive",
    config=XRPOConfig,
    claim=Claim(
        statement="Giving rollouts to tasks whose rewards are uncertain, showing solved examples to tasks that are never solved, and crediting unusual right answers more "
        "lets the same number of rollouts go further than under GRPO.",
        expectation="From a model that reads examples and knows half of the families of questions a little and the others not at all, on the same number of generated tokens, "
        "held-out pass@1 on the families that it did not know ends more than 5 points above GRPO's, and above GRPO's at a higher learning rate, which suits it better "
        "there; over all families it ends above GRPO's. Without seeding, and with examples of other families, that is lost.",
        arms=(
            Arm("xrpo", settings=DISTILLED),
            Arm("grpo", settings={"method": "grpo"}),
            Arm("grpo, higher rate", "grpo", {"method": "grpo", "lr": 5e-4}),
            Arm("without seeding", "xrpo", {**DISTILLED, "seeding": False}),
            Arm("examples of other families", "xrpo", {**DISTILLED, "examples_from": "other"}),
            Arm("without allocation", "xrpo", {**DISTILLED, "adaptive": False}),
        ),
        common={
            "model": "tiny",
            "tasks": "keyed-shift",
            "warm_tasks": "keyed-shift:lessons=1",
            "warm_steps": 40,
            "warm_lr": 1.5e-3,
            "lr": 3e-4,
            "tasks_per_step": 16,
            "group_size": 8,
            "eval_tasks": 128,
            "eval_samples": 2,
            "evaluate_every": 10,
        },
        experiment="etude.experiments.hard_families:hard_families",
        budget="60k-tokens",
        tests=(
            Comparison("hard families at the end", "xrpo", "grpo", Final("hard"), margin=0.05),
            Comparison("hard families, GRPO at a higher rate", "xrpo", "grpo, higher rate", Final("hard")),
            Comparison("all families at the end", "xrpo", "grpo", Final("pass_rate")),
            Comparison("all families over the budget", "xrpo", "grpo", Final("pass_rate_area"), role="ablation"),
            Comparison("seeding", "xrpo", "without seeding", Final("hard"), role="ablation"),
            Comparison("whose examples", "xrpo", "examples of other families", Final("hard"), role="ablation"),
            Comparison("allocation", "xrpo", "without allocation", Final("hard"), role="ablation"),
        ),
        preconditions=(
            Precondition(
                "hard families are not solved at first", "grpo", Final("hard_first"), at_most=0.06, otherwise="no task is hard enough to need examples"
            ),
            Precondition(
                "examples help", "xrpo", Final("solved_when_seeded"), at_least=0.3, otherwise="the model cannot read examples, or never has any that fit"
            ),
            Precondition("some groups have no spread", "grpo", Final("spread"), at_most=0.8, otherwise="every rollout tells something as it is"),
        ),
        tried="All on seed 0. As it comes, the model cannot read examples: on arithmetic two of them take its pass@1 from 35 % to 0.4 %, and on lists:steps=3 no settings "
        "without seeding put XRPO ahead of GRPO (40.9 % both with groups of 16). So keyed-shift, where after 40 steps of lessons two right examples take hard "
        "families from 2.3 % to 85 %. With offsets from 0 to 9 (a guess is right once in 100 times), 60k tokens at 5e-4 and examples of any family, XRPO ended at "
        "12.5 % on hard families, without seeding at 38 %, GRPO at 37 %: where a family had no solved question yet, examples of others misled, and 0 to 6 % of the "
        "seeded attempts were right. In another such run, from another warm-up, 40k tokens gave XRPO 36 % (41 % without correction) and GRPO 18 %: who is lucky "
        "first decides. So offsets are from 1 to 6, and examples come from the same family or not at all; with that 90 % of the seeded attempts were right. Then, at "
        "45k tokens, hard and all families: at 3e-4 XRPO 43 % and 55 %, GRPO 30 % and 46 %; at 5e-4 XRPO 47 % and 54 %, GRPO 41 % and 42 %. At the end, at 3e-4, 75 "
        "% of XRPO's groups had spread, and 19 % of GRPO's. In this last form 60k tokens, other bonuses, other seeds, and the arms without seeding, without "
        "allocation and with examples of other families were not tried.",
        quick={"warm_steps": 1, "warm_tasks_per_step": 8, "eval_samples": 1, "eval_tasks": 4, "tasks_per_step": 4, "group_size": 4, "evaluate_every": 1},
    ),
)
class XRPO(GRPO):
    """Differs from GRPO in how rollouts are given out and prompted, and in the advantage."""

    config: XRPOConfig
    overlaps: ClassVar[bool] = True

    def setup(self) -> None:
        config = self.config
        self.base = config.base_rollouts or min(config.group_size, 4, max(2, config.group_size // 2))
        self.most = config.most_rollouts or 4 * config.group_size
        if config.phases == 1:
            self.base = config.group_size
        if self.base > config.group_size:
            raise InputError(f"--base-rollouts is {self.base}, above --group-size {config.group_size}, the mean over all rounds; expected at most that")
        if self.most < config.group_size:
            raise InputError(
                f"--most-rollouts is {self.most}, below --group-size {config.group_size}, the mean over all tasks; expected at least as many, or 0 for four times as many"
            )
        if config.give_up_after and config.ray.max_staleness:
            raise InputError(
                f"--give-up-after {config.give_up_after} counts the steps in which a task was not solved, and --max-staleness {config.ray.max_staleness} begins "
                "batches before these are known; drop one of them"
            )
        super().setup()
        if config.seeding:
            self.require_single_turns("puts solved examples into the prompt of a single turn; add --no-seeding")
        withheld = [*self.held_out, *self.task_set.held_out(), *(self.probe.tasks if self.probe is not None else ())]
        self.exemplars = ExemplarStore(
            capacity=config.examples_kept,
            prefer=config.prefer_examples,
            token_limit=config.example_tokens,
            forbidden=frozenset(map(prompt_key, withheld)),
        )
        self.failures: dict[str, int] = {}
        self.rounds: Metrics = {}

    # Rollouts

    def collect(self, tasks: Sequence[Task]) -> list[Group]:
        self.left = (self.config.group_size - self.base) * len(tasks)
        self.phases_left = self.config.phases - 1
        groups = adaptive_rollouts(
            tasks,
            first=self.base,
            attempt=self.attempt_and_mark,
            stream=self.stream,
            judge=self.judge,
            allocate=self.further_attempts,
            prompt=self.seeded_prompt if self.config.seeding else None,
        )
        self.rounds = self.round_metrics(groups)
        return groups

    def attempt_and_mark(self, requests: Sequence[EpisodeRequest]) -> list[Trajectory]:
        """Attempts, of which the seeded ones are marked and, where they are to be, trained under the bare question."""
        trajectories = self.attempt(requests)
        for request, trajectory in zip(requests, trajectories, strict=True):
            if request.messages is not None:
                trajectory.tags[SEEDED] = True
                if self.config.condition_on == "original":
                    trajectory.train_prompt = self.policy.render(trajectory.task.messages)
        return trajectories

    def further_attempts(self, groups: Sequence[Group]) -> list[int] | None:
        """The next phase's share of the step's rollouts; None when they are used up."""
        config = self.config
        if config.seeding:
            self.learn_examples(groups)
        if not self.phases_left or not self.left:
            return None
        budget = math.ceil(self.left / self.phases_left)
        places = [place for place, group in enumerate(groups) if not self.is_given_up(group)]
        counts = [len(groups[place]) for place in places]
        if config.adaptive:
            deviations = [deviation(groups[place]) for place in places]
            given = greedy_allocation(counts, deviations, budget, most=self.most, exploration=config.exploration, confidence=config.confidence)
        else:
            given = even_allocation(counts, budget, most=self.most)
        self.phases_left -= 1
        self.left -= sum(given)
        further = [0] * len(groups)
        for place, more in zip(places, given, strict=True):
            further[place] = more
        return further

    def is_given_up(self, group: Group) -> bool:
        """Whether a task has been tried in vain often enough, and has not been solved in this step either."""
        limit = self.config.give_up_after
        return limit > 0 and self.failures.get(prompt_key(group.trajectories[0].task), 0) >= limit and not any(map(self.is_solved, group.trajectories))

    def remember(self, groups: Sequence[Group]) -> None:
        super().remember(groups)
        if self.config.give_up_after:
            for group in groups:
                key = prompt_key(group.trajectories[0].task)
                if any(map(self.is_solved, group.trajectories)):
                    self.failures.pop(key, None)
                else:
                    self.failures[key] = self.failures.get(key, 0) + 1

    def is_solved(self, trajectory: Trajectory) -> bool:
        return trajectory.correct >= self.config.solved_at

    def learn_examples(self, groups: Sequence[Group]) -> None:
        """Remember what the newest round solved."""
        attempts = trajectories_of(groups)
        newest = max((t.tags[ROUND] for t in attempts), default=0)
        for trajectory in attempts:
            if trajectory.tags[ROUND] == newest and self.is_solved(trajectory):
                self.exemplars.add(trajectory.task, trajectory.text, trajectory.generated_length)

    def seeded_prompt(self, group: Group) -> tuple[Message, ...] | None:
        """Solved examples before the question of a task that nobody has solved; None for others, and where there is no example that fits."""
        if any(map(self.is_solved, group.trajectories)):
            return None
        task = group.trajectories[0].task
        return fitting_examples(
            task,
            self.exemplars.similar(task, self.config.examples, whose=self.config.examples_from),
            room=self.policy.context_length - self.params.max_new_tokens,
            length=lambda messages: len(self.policy.render(messages)),
            instruction=self.config.example_instruction,
        )

    def round_metrics(self, groups: Sequence[Group]) -> Metrics:
        """Where the step's rollouts went, and what seeding did."""
        firsts = [[t for t in group.trajectories if t.tags[ROUND] == 0] for group in groups]
        unsolved = [not any(map(self.is_solved, first)) for first in firsts]
        saved = sum(never and any(map(self.is_solved, group.trajectories)) for never, group in zip(unsolved, groups, strict=True))
        seeded = [t for t in trajectories_of(groups) if SEEDED in t.tags]
        metrics: Metrics = {
            "rollout/largest_group": float(max(map(len, groups), default=0)),
            "rollout/seeded": len(seeded) / max(1, sum(map(len, groups))),
            "signal/unsolved": mean([float(u) for u in unsolved]),
            "signal/saved": float(saved),
            "memory/exemplars": float(len(self.exemplars)),
        }
        if seeded:
            metrics["reward/solved_when_seeded"] = mean([float(self.is_solved(t)) for t in seeded])
        return metrics

    # Learning

    def credit(self, groups: Sequence[Group]) -> Metrics:
        metrics = super().credit(groups) | self.rounds
        return metrics | self.sharpen(groups) if self.config.sharpening else metrics

    def sharpen(self, groups: Sequence[Group]) -> Metrics:
        """Raise the advantages of unlikely right answers."""
        raised: list[Trajectory] = []
        for group in groups:
            plain = group_normalised(torch.tensor(group.rewards, dtype=torch.float64))
            logprobs = torch.tensor([math.nan if math.isnan(t.reward) else mean_logprob(t) for t in group.trajectories], dtype=torch.float64)
            sharp = sharpened_by_novelty(plain, logprobs, weight=self.config.novelty_weight, cap=self.config.novelty_cap)
            for trajectory, before, after in zip(group.trajectories, plain.tolist(), sharp.tolist(), strict=True):
                trajectory.set_advantage(after)
                if after > before:
                    raised.append(trajectory)
        metrics: Metrics = {"signal/sharpened": len(raised) / max(1, sum(map(len, groups)))}
        if raised:
            # Short lucky guesses are unlikely too: if these grow short, the verifier is being played.
            metrics["signal/sharpened_length"] = mean([float(t.generated_length) for t in raised])
        return metrics

    def objective(self) -> Objective:
        objective = super().objective()
        assert isinstance(objective, PolicyObjective)
        if self.config.importance_ratio == "answer":
            objective.ratio = sequence_ratio
        return objective

    # Saving

    def state(self) -> State:
        state = super().state()
        state.plain["exemplars"] = self.exemplars.state()
        state.plain["failures"] = dict(self.failures)
        return state

    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.exemplars.load_state(state.plain["exemplars"])
        self.failures = {str(key): int(count) for key, count in state.plain["failures"].items()}


def deviation(group: Group) -> float:
    """The unbiased standard deviation of a group's judged rewards, 0 with fewer than two."""
    judged = [r for r in group.rewards if not math.isnan(r)]
    return statistics.stdev(judged) if len(judged) > 1 else 0.0

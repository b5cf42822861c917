"""ExIt: learn single steps of improvement, from starts that grow out of the policy's own attempts (arXiv:2509.04575).

A policy that is to improve an answer over many steps could be trained on whole chains of steps, at many times the cost. ExIt trains one step at a time. What makes the steps
add up is where they begin: a buffer of partial histories, in which the best attempt from every start becomes a further start. Starts are drawn by how much there is to
learn from them (the variance of a group's returns), so that training moves to the depths at which the policy can still gain. Only the newest attempt is shown, however
long the history is. At test time the policy goes on for as many steps as one likes, also beyond the depths that training saw.

Differs from GRPO in four places, each of which can be left out: a share of a step's tasks begins from the buffer, and asks for a better attempt or for a better one by another
way (`start_share`, `expand`, `diverge_share`); the return of such a step is what it improved (`step_return`); attempts unlike the rest of their group can earn more
(`diversity`); the reference that the policy is held to follows it slowly (`reference_every`). Nothing is credited across steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Lt

from etude.advantages import diversity_weights, weighted_by_diversity
from etude.claim import Arm, Claim, Comparison, Precondition, reported_seeds
from etude.config import AtLeastOne, Count, NonNegative, Share
from etude.errors import InputError
from etude.evals.evaluate import Evaluation
from etude.evals.improvement import improvement_metrics
from etude.evals.measures import Final
from etude.memory import Curriculum, History, SelfGrowingCurriculum, TaskBuffer
from etude.memory.exemplars import hashed, trigrams
from etude.memory.self_growing import QUALITY
from etude.memory.task_buffer import Sampling
from etude.method import register
from etude.methods.baselines.grpo import GRPO, GRPOConfig
from etude.models.sampling import stream_key
from etude.rewards import judge
from etude.rewards.improvement import RIGHT, StepReturn, scaled, step_return
from etude.rollouts import has_room
from etude.rollouts.chain import chain_rollouts
from etude.tasks.iterates import Mode, named_request, next_step
from etude.tasks.user_code import load_object
from etude.types import Group, Metrics, Task, Trajectory, mean, trajectories_of

BEFORE = "before"
"""Component of the judgement of a step: the quality of the attempt that it began from."""


@dataclass
class StartsConfig:
    """Where attempts begin."""

    start_share: Share = 0.5
    """Chance of a task of a step to begin from the buffer (0: never, which is GRPO on base tasks)."""
    expand: Literal["best", "all", "none"] = "best"
    """Which attempts of a group become further starts: the best one, all, or none, which leaves a prioritised replay of base tasks."""
    diverge_share: Share = 0.1
    """Chance of such a start to ask for a better attempt by another way (0: never)."""
    prefix: Literal["uniform", "whole"] = "uniform"
    """Begin after a random number of a drawn history's attempts (0 gives the base task), or after all of them."""
    start_scores: Literal["variance", "random"] = "variance"
    """What starts are drawn by: the variance of their group's returns, or, as a control, random numbers."""
    buffer_capacity: AtLeastOne = 1024
    """Starts that the buffer holds."""
    buffer_minimum: AtLeastOne = 64
    """Starts that the buffer has to hold before any is drawn."""
    buffer_sampling: Sampling = "softmax"
    """How scores become chances: exp(kappa * score), or one over the rank."""
    buffer_kappa: NonNegative = 20.0
    """Inverse temperature of that softmax; scores go up to 0.25."""
    starts_per_task: Count = 16
    """Starts that grew from one base task at most (0: any number)."""
    start_max_age: Count = 50
    """Steps after which a start that was never tried leaves the buffer (0: it stays)."""


@dataclass
class ExItConfig(GRPOConfig):
    """Options of ExIt."""

    group_size: Annotated[int, Ge(2)] = 8
    """Attempts from each start."""
    starts: StartsConfig = field(default_factory=StartsConfig)
    step_return: StepReturn = "quality"
    """What a step is rewarded for: the `quality` of the new attempt, its `improvement` on the one before, 1 for a right and 1/2 for a `better` one, or 1 for
    any `progress`: what is right or better."""
    quality_range: tuple[float, float] = (0.0, 1.0)
    """Rewards that count as no quality and as full quality."""
    improve_request: str = "auto"
    """What follows an attempt that is to be improved: `standard`, `short`, or a text file, with {question} and {feedback} where wanted. `auto`: standard where it has room."""
    diverge_request: str = "auto"
    """The same where another way is asked for."""
    diversity: bool = False
    """Multiply advantages by how far an attempt lies from the middle of its group."""
    diversity_positive_only: bool = False
    """Do so with positive advantages alone."""
    embed_with: str | None = None
    """What attempts are compared by: `file.py:function`, from a text to a list of numbers. Default: counts of three-character pieces, hashed to 64 numbers."""
    kl_coefficient: NonNegative = 0.005
    """Weight of the divergence from the reference in the loss."""
    reference_every: Count = 20
    """Steps after which the reference moves towards the policy (0: it stays where the run began)."""
    reference_keep: Annotated[float, Ge(0), Lt(1)] = 0.6
    """Share of the reference that stays when it moves."""
    improve_steps: Count = 16
    """Steps of improvement that an evaluation takes from held-out attempts (0: none)."""
    improve_chains: AtLeastOne = 1
    """Attempts at each held-out task that it does so from."""


@register(
    slug="exit",
    name="ExIt",
    family="self_correction",
    paper="2509.04575",
    title="Bootstrapping Task Spaces for Self-Improvement",
    summary="single steps of improvement, from starts that grow out of the policy's own attempts",
    config=ExItConfig,
    claim=Claim(
        statement="Training single steps of improvement, from partial histories that grow and are chosen by how much there is to learn from them, gives a policy that "
        "improves its answers over many steps at test time, beyond the depths it was trained at.",
        expectation="On the same number of generated tokens, 16 steps of improvement raise the share of exact answers by more than 10 points more than after training on "
        "first attempts alone; exact answers still rise from step 4 to step 16, and first attempts are at most 3 points worse.",
        arms=(
            Arm("exit", settings={"method": "exit"}),
            Arm("first attempts only", "exit", {"method": "exit", "start_share": 0.0}),
            Arm("replay of base tasks", "exit", {"method": "exit", "expand": "none"}),
            Arm("random scores", "exit", {"method": "exit", "start_scores": "random"}),
        ),
        common={
            "tasks": "subset-target:high=9,moves=true",
            "warm_tasks": "subset-target:high=9,moves=true,lessons=true",
            "warm_steps": 240,
            "warm_tasks_per_step": 32,
            "warm_lr": 2e-3,
            "warm_schedule": "linear",
            "lr": 5e-4,
            "tasks_per_step": 32,
            "start_share": 0.8,
            "expand": "all",
            "prefix": "whole",
            "diverge_share": 0.0,
            "buffer_capacity": 512,
            "step_return": "progress",
            "improve_request": "short",
            "diverge_request": "short",
            "eval_tasks": 200,
            "eval_samples": 1,
            "evaluate_every": 0,
        },
        experiment="etude.experiments.iterated_improvement:iterated_improvement",
        budget="100k-tokens",
        tests=(
            Comparison("what steps gain", "exit", "first attempts only", Final("exact_16") - Final("exact_0"), margin=0.1),
            Comparison("gains go on", "exit", None, Final("exact_16") - Final("exact_4")),
            Comparison("first attempts are kept", "exit", "first attempts only", Final("exact_0"), margin=-0.03),
            Comparison("growing starts", "exit", "replay of base tasks", Final("exact_16") - Final("exact_0"), role="ablation"),
            Comparison("chosen by variance", "exit", "random scores", Final("exact_16") - Final("exact_0"), role="ablation"),
        ),
        preconditions=(
            Precondition("the form is known", "exit", Final("format_first"), at_least=0.9, otherwise="the warm start did not teach the form of an answer"),
            Precondition(
                "a step keeps most of an attempt",
                "exit",
                Final("edit_first"),
                at_most=0.07,
                otherwise="the warm start did not teach to copy: steps are new guesses",
            ),
            Precondition("steps gain nothing at first", "exit", Final("gain_first"), at_most=0.1, otherwise="the warm start improves its attempts already"),
        ),
        tried="On seed 0. Without moves a step of the taught model turns 1.5 of 8 digits over, and which step is good stands in the gap, the numbers and the digits "
        "together: 100k tokens from there taught nothing (exact answers from 5.5 to 2.5 % over 16 steps, from 7.5 to 3 % after first attempts alone). With moves what is "
        "left to learn is a token, '+', '-' or '='. By computation, one number more or less at random in the direction of the gap makes 76 % exact in 16 steps, if right "
        "attempts are left alone; in a random direction it is 5 %, if they are left alone every other time. 100k tokens each, 80 % from the buffer, whole prefixes. The "
        "best attempts as starts, `better`, a tenth of diverging requests and 3e-4: 5 to 19.5 % over 16 steps. The same at 1e-3, on 100 tasks: 6 to 11 %; the attempts "
        "that steps began from had a quality of 0.9, since a right one has the largest variance while every other one is left alone, and by the 11th step the policy left "
        "nearly all attempts as they were. All attempts, `progress`, no such requests and 5e-4, changed together, the settings here: 5 to 38.5 % (21 % after 4 steps) at "
        "a mean depth of 2.8, on seed 1 2.5 to 52.5 % (24 % after 4). On seed 0 first attempts only went from 5 to 3 %, replay of base tasks stayed at 3.5 %, and random "
        "scores went from 4 to 46 %, with first attempts of a quality of 0.3 in place of 0.6: growing starts are needed here, and for the gain their choice by variance "
        "is not.",
        seeds=reported_seeds(5),
        quick={"warm_steps": 2, "warm_tasks_per_step": 8, "tasks_per_step": 2, "group_size": 4, "buffer_minimum": 2, "eval_tasks": 8, "improve_steps": 4},
    ),
)
class ExIt(GRPO):
    """Differs from GRPO in where attempts begin, what a step earns, the diversity bonus, and the moving reference."""

    config: ExItConfig
    curriculum: SelfGrowingCurriculum

    # Before the first step

    def setup(self) -> None:
        config = self.config
        low, high = config.quality_range
        if not low < high:
            raise InputError(f"--quality-range is {low:g} {high:g}; expected the lower number first")
        self.embed = embedding(config.embed_with)
        super().setup()
        self.require_single_turns("begins from single attempts; give tasks of single turns")
        asked: dict[Mode, str] = {"improve": config.improve_request}
        if config.starts.diverge_share:
            asked["diverge"] = config.diverge_request
        self.requests: dict[Mode, str] = {mode: self.chosen_request(spec, mode) for mode, spec in asked.items()}
        if config.kl_coefficient and config.reference_every:
            self.learner.reset_reference()

    def chosen_request(self, spec: str, mode: Mode) -> str:
        """The request that an option names. Raises InputError for one that can never stand between two attempts of full length."""
        option = f"--{mode}-request"
        if spec == "auto":
            spec = "standard" if self.leaves_room(named_request("standard", option, mode)) else "short"
        request = named_request(spec, option, mode)
        if not self.leaves_room(request):
            raise InputError(
                f"a task, an attempt of {self.params.max_new_tokens} tokens, the request and another attempt do not fit into the {self.policy.context_length} tokens "
                f"that {self.policy.name} reads; shorten {option}, or lower --max-new-tokens"
            )
        return request

    def make_curriculum(self) -> Curriculum:
        starts = self.config.starts
        buffer = TaskBuffer(
            starts.buffer_capacity,
            sampling=starts.buffer_sampling,
            kappa=starts.buffer_kappa,
            per_group=starts.starts_per_task,
            max_age=starts.start_max_age,
        )
        return SelfGrowingCurriculum(
            super().make_curriculum(),
            buffer,
            self.begin,
            seed=self.run.seed,
            share=starts.start_share,
            minimum=starts.buffer_minimum,
            diverge=starts.diverge_share,
            prefix=starts.prefix,
            expand=starts.expand,
            scores=starts.start_scores,
            fits=self.fits,
        )

    def begin(self, history: History, mode: Mode) -> Task:
        """The task of a step from a history's newest attempt."""
        return next_step(history.task, history.attempts[-1], self.requests[mode], self.task_set, author="buffer")

    def fits(self, task: Task) -> bool:
        """Whether a step's prompt leaves room for an answer."""
        return has_room(self.policy, task, self.params.max_new_tokens)

    def leaves_room(self, request: str) -> bool:
        """Whether two attempts of full length, the request and the first held-out task fit into the model's context."""
        task = next_step(self.held_out[0], "", request, self.task_set, author="buffer")
        return has_room(self.policy, task, 2 * self.params.max_new_tokens)

    # One step

    def collect(self, tasks: Sequence[Task]) -> list[Group]:
        self.counted = self.curriculum.metrics(tasks)
        return super().collect(tasks)

    def judge(self, groups: Sequence[Group]) -> None:
        super().judge(groups)
        for attempt in trajectories_of(groups):
            before = self.curriculum.start_of(attempt.task).history.qualities[-1:]
            quality = attempt.tags[QUALITY] = scaled(attempt.reward, *self.config.quality_range)
            attempt.rewards |= {BEFORE: before[0]} if before else {}
            attempt.rewards["return"] = attempt.reward = step_return(quality, before[0] if before else None, self.config.step_return)

    def credit(self, groups: Sequence[Group]) -> Metrics:
        metrics = super().credit(groups) | self.counted | step_metrics(trajectories_of(groups))
        if not self.config.diversity:
            return metrics
        for group in groups:
            weights = diversity_weights(torch.tensor([self.embed(t.last_text) for t in group.trajectories], dtype=torch.float64))
            advantages = type(self).advantage(torch.tensor(group.rewards, dtype=torch.float64))
            weighted = weighted_by_diversity(advantages, weights, positive_only=self.config.diversity_positive_only)
            for attempt, value in zip(group.trajectories, weighted.tolist(), strict=True):
                attempt.set_advantage(value)
        return metrics

    def update(self, groups: Sequence[Group]) -> Metrics:
        config = self.config
        metrics = super().update(groups)
        if config.kl_coefficient and config.reference_every and self.run.step % config.reference_every == 0:
            self.learner.reset_reference(keep=config.reference_keep)
        return metrics

    # Measuring

    def evaluation(self) -> Evaluation:
        evaluation = super().evaluation()
        if self.config.improve_steps:
            evaluation.metrics |= self.improved([t for row in evaluation.trajectories for t in row[: self.config.improve_chains]])
        return evaluation

    def improved(self, first: Sequence[Trajectory]) -> Metrics:
        """What further steps gain from held-out attempts, which are judged already. Only improvement is asked for."""
        chains = chain_rollouts(
            self.policy,
            first,
            lambda attempt: next_step(attempt.task, attempt.last_text, self.requests["improve"], self.task_set, author="policy"),
            self.task_set,
            replace(self.params, temperature=self.config.evaluation.eval_temperature, top_p=1.0, top_k=0),
            steps=self.config.improve_steps,
            stream=lambda attempt, step: stream_key("evaluation", self.evaluation_seed, "improve", step, attempt.task.id, attempt.sample),
            ledger=self.run.ledger,
        )
        judge([t for chain in chains for t in chain[1:]], self.task_set)
        return {f"eval/{name}": value for name, value in improvement_metrics(chains, self.task_set.answer_in).items()}


def step_metrics(attempts: Sequence[Trajectory]) -> Metrics:
    """How steps went that began from an attempt: the share that is better than it, and of those from a right (wrong) one the share that is not right (is right)."""
    steps = [(t.rewards[BEFORE], t.tags[QUALITY]) for t in attempts if BEFORE in t.rewards and not math.isnan(t.tags[QUALITY])]
    shares = {
        "step/better": [float(now > before) for before, now in steps],
        "step/broken": [float(now < RIGHT) for before, now in steps if before >= RIGHT],
        "step/fixed": [float(now >= RIGHT) for before, now in steps if before < RIGHT],
    }
    return {name: mean(share) for name, share in shares.items() if share}


def embedding(spec: str | None) -> Callable[[str], list[float]]:
    """From an attempt to its vector: hashed three-character pieces, or the user's own function. Raises InputError for a function that gives something else than numbers."""
    if spec is None:
        return lambda text: hashed(trigrams(text))
    function: Any = load_object(spec, "--embed-with")

    def embed(text: str) -> list[float]:
        try:
            vector = [float(value) for value in function(text)]
        except (TypeError, ValueError) as error:
            raise InputError(
                f"--embed-with {spec} gave no list of numbers for the text {text[:40]!r} ({error}); expected as many numbers for every text"
            ) from error
        return vector

    embed("")
    return embed

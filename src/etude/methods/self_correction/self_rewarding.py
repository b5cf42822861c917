"""Self-Rewarding: a model scores its own attempts, and learns to prefer those that it gave the most points (Yuan et al., arXiv:2401.10020).

    tasks -> attempts -> points by the policy itself -> best and worst of each task -> DPO ┐
      ▲                                                                                    │
      └───────────────────── the policy of the next round, and its judge ◄─────────────────┘

Nothing but the model's own opinion says what is good, so that what it cannot see it does not learn, and what pleases it without being right it learns all the same. The
judge is the policy as it is at the start of a round, and so is the reference of that round's DPO: judging is meant to get better with the rest.

A model that is too small to judge in words has a stand-in for a score: the mean log-probability of what it wrote. That is no judgement. It prefers what the policy is
likely to say anyway, which sharpens it.

Differs from DPO in who ranks the attempts and in its rounds, and from ReST-EM in learning without a verifier, and from pairs.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Gt

from etude.config import AtLeastOne, JudgeConfig
from etude.curation import with_origin
from etude.errors import InputError
from etude.iterated import IteratedConfig, IteratedImitation, RoundConfig
from etude.method import State, register
from etude.methods.baselines.dpo import preference_pairs
from etude.objectives import Objective, PreferenceObjective
from etude.rewards.judges import Judge, LocalJudge, Question, open_judge
from etude.rewards.self_scores import ADDITIVE, NEEDS, mean_logprob, mean_points, points_question
from etude.rollouts.plain import trajectory_from_plain, trajectory_to_plain
from etude.tasks.templates import read_template
from etude.types import Group, Metrics, Task, Trajectory, mean, trajectories_of

WORSE = "worse"
"""Tag of an example: the attempt that it is preferred to, as plain values."""
SCORE = "score"
"""What the policy's own score is called among an attempt's rewards."""
JUDGE = "judge"
"""What the judge's tensors are called by in a checkpoint."""


@dataclass
class SelfRewardingConfig(IteratedConfig):
    """Options of Self-Rewarding."""

    group_size: AtLeastOne = 4
    """Attempts at each task, of which the best and the worst are compared."""
    round: RoundConfig = field(default_factory=lambda: RoundConfig(rounds=2, start_from="newest"))
    beta: Annotated[float, Gt(0)] = 0.1
    """How strongly the policy is held to what it was at the start of the round."""
    pairs_per_task: AtLeastOne = 1
    """Pairs of one task at most: best and worst, then the next ones, as long as their scores differ."""
    score: Literal["auto", "judge", "mean-logprob"] = "auto"
    """What an attempt is worth: points that the model gives when asked (`judge`), or the mean log-probability of what it wrote, a stand-in for models that cannot judge in
    words; `auto`: points, of a model that reads enough for the question."""
    points_prompt: str = "additive"
    """How points are asked for: `additive`, five that add up, or a text file with {problem} and {response} that asks for a last line `score: N`, 0 to 5."""
    judge_samples: AtLeastOne = 1
    """Judgements of each attempt, whose mean is the score (3 in the paper). More than 1 needs a --judge-temperature."""
    judging: JudgeConfig = field(default_factory=JudgeConfig)


@register(
    slug="self-rewarding",
    name="Self-Rewarding",
    family="self_correction",
    paper="2401.10020",
    title="Self-Rewarding Language Models",
    summary="rounds of DPO on the attempts that the model itself scored best and worst",
    config=SelfRewardingConfig,
    signal="self-judge",
)
class SelfRewarding(IteratedImitation):
    """Differs from ReST-EM in the reward, which is the policy's own, and in the pairs that a round learns from."""

    config: SelfRewardingConfig
    minimum_group: ClassVar[int] = 2

    def setup(self) -> None:
        config = self.config
        if config.judge_samples > 1 and config.judging.judge_temperature == 0:
            raise InputError(
                f"--judge-samples is {config.judge_samples} and --judge-temperature 0, so that all of them say the same; expected a temperature above 0"
            )
        if config.aggregation != "token_mean":
            raise InputError(f"--aggregation {config.aggregation} does not fit pairs, whose loss is of whole attempts; leave it out")
        prompt = config.points_prompt
        self.template = (
            ADDITIVE if prompt == "additive" else read_template(prompt, "--points-prompt", names=("additive",), needs=("problem", "response"), may=())
        )
        super().setup()
        self.judging = self.open_judge()

    def open_judge(self) -> Judge | None:
        """Who gives points; None where log-probabilities stand in for them. Raises InputError for a judge that cannot be used, or that reads too little."""
        config = self.config
        if config.score == "mean-logprob":
            return None
        judge = open_judge(config.judging, self.policy, self.run.ledger)
        reads = judge.model.context_length if isinstance(judge, LocalJudge) else NEEDS
        if reads >= NEEDS or config.points_prompt != "additive":
            return judge
        judge.close()
        if config.score == "judge":
            raise InputError(
                f"--score judge asks for points in words, and {judge.name} reads {reads} tokens; expected {NEEDS}, a shorter --points-prompt FILE, or "
                "--score mean-logprob"
            )
        warnings.warn(
            f"{judge.name} reads {reads} tokens, too few to be asked for points: the mean log-probability of its attempts stands in for its score. "
            "--score mean-logprob says so without this warning",
            stacklevel=2,
        )
        return None

    # One round

    def begin_round(self) -> Metrics:
        metrics = super().begin_round()
        self.learner.reset_reference()
        return metrics

    def examples(self, tasks: Sequence[Task]) -> tuple[list[Trajectory], Metrics]:
        groups, metrics = self.attempted(tasks)
        pairs = [(better, worse) for group in groups for better, worse in preference_pairs(group, self.config.pairs_per_task)]
        attempts = trajectories_of(groups)
        told = {"pairs/count": float(len(pairs)), "pairs/unscored": mean([float(math.isnan(t.reward)) for t in attempts])}
        verdicts = [(better.rewards.get("correct", math.nan), worse.rewards.get("correct", math.nan)) for better, worse in pairs]
        differing = [float(better > worse) for better, worse in verdicts if abs(better - worse) > 1e-9]
        if differing:
            told["pairs/right"] = mean(differing)
        return [paired(better, worse) for better, worse in pairs], metrics | told

    def judge(self, groups: Sequence[Group]) -> None:
        """The reward is the policy's own score. What the task set says, where it can, is only looked at."""
        super().judge(groups)
        attempts = trajectories_of(groups)
        for attempt, score in zip(attempts, self.scores(attempts), strict=True):
            attempt.rewards[SCORE] = attempt.reward = score

    def scores(self, attempts: Sequence[Trajectory]) -> list[float]:
        """What the model makes of its attempts; NaN where it says nothing that can be read."""
        if self.judging is None:
            return [mean_logprob(attempt) for attempt in attempts]
        asked = []
        for attempt in attempts:
            messages = (points_question(self.template, attempt),)
            streams = [self.run.stream(self.run.step, "points", attempt.task.id, attempt.sample, attempt.text, i) for i in range(self.config.judge_samples)]
            asked.append([self.judging.ask(Question(messages, stream)) for stream in streams])
        self.judging.settle()
        return [mean_points([future.result() for future in futures]) for futures in asked]

    def units(self, groups: Sequence[Group]) -> list[list[Trajectory]]:
        return [[better, trajectory_from_plain(better.tags[WORSE])] for better in trajectories_of(groups)]

    def update(self, groups: Sequence[Group]) -> Metrics:
        metrics = super().update(groups)
        if self.judging is not None:
            self.judging.follow()
        return metrics

    def objective(self) -> Objective:
        return PreferenceObjective(beta=self.config.beta)

    # Saving

    def state(self) -> State:
        state = super().state()
        return state.with_part(JUDGE, self.judging.state()) if self.judging is not None else state

    def load_state(self, state: State) -> None:
        super().load_state(state)
        if self.judging is not None:
            self.judging.load_state(state.part_of(JUDGE))

    def close(self) -> None:
        super().close()
        # A run whose input was refused has none yet.
        judging: Any = getattr(self, "judging", None)
        if judging is not None:
            judging.close()


def paired(better: Trajectory, worse: Trajectory) -> Trajectory:
    """An example that carries what it is preferred to, so that a corpus can keep the two together."""
    example = with_origin(better, reward=better.reward, over=worse.reward)
    return replace(example, tags={**example.tags, WORSE: trajectory_to_plain(replace(worse, parent=None, fork=0, tags={}))})

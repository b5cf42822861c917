"""FAPO: a right answer reached by a wrong step earns less than one reached by right steps (arXiv:2510.22543).

A verifier of final answers rewards lucky guesses, jumps and errors that cancel: flawed positives, a third of the right attempts in ordinary training. A judge reads
each right attempt, and names the first wrong step or none. A flawed positive then earns 0, between wrong (-1) and right (1). While wrong attempts outnumber sound ones
in a group, 0 is above its mean, and flawed positives are stepping stones that are reinforced; as soon as sound ones are more, 0 is below, and they are pushed down.
The shift comes by itself, group by group, without a weight to tune or a schedule (`etude.rewards.flaws`).

Differs from DAPO in the reward, in a bound on the loss of bad tokens (dual clip 10), and in dynamic sampling, which is off and, where it is switched on, looks at the
spread of the flaw-aware reward and not at verdicts: a group of sound and flawed attempts that are all right still teaches.

Only right attempts are judged. What cannot be read, or was not answered, flags nothing and is counted. That makes silence pay, and steps that are merged until nothing can be
located in them as well: both raise an alarm. On task sets that check steps themselves the judge's precision and recall are logged, and `--judge exact` puts the
checker in its place. `fapo-genrm` trains a judge.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from etude.config import NonNegative, Share
from etude.errors import InputError
from etude.evals.monitors import RIGHT
from etude.method import State, register
from etude.methods.baselines.dapo import DAPO, DAPOConfig
from etude.methods.rewards._judged import Judged, JudgedConfig
from etude.rewards import judge as verify
from etude.rewards.flaws import detection, flaw_aware, turns_against_flaws
from etude.rewards.judges import Judge, Judgement, LocalJudge, Question
from etude.rewards.step_checker import EXACT, StepChecker
from etude.tasks.first_error import FLAWLESS, index_in, question, split_steps, template_named
from etude.types import Group, Message, Metrics, Task, Trajectory, mean, trajectories_of


@dataclass
class FAPOConfig(DAPOConfig, JudgedConfig):
    """Options of FAPO."""

    dual_clip: NonNegative = 10.0
    """Bound on the loss of bad tokens whose ratio grew large, in advantages (0: none)."""
    dynamic_sampling: bool = False
    """Replace groups whose flaw-aware rewards are all equal by further tasks."""
    flaw_penalty: NonNegative = 1.0
    """What a flaw takes off the reward of a right attempt, which is 1 (0: flaws are logged only)."""
    shuffle_flaws: bool = False
    """As a control: give each group's flags to any of its right attempts, so that as many are penalised and nothing is learnt by it."""
    step_prompt: str = "auto"
    """How the judge is asked: `full`, with instructions; `short`, for models that were taught the form; a text file with {problem}, {reference} and {steps}; or
    `auto`, `full` for judges that read 1024 tokens or more."""
    checker_recall: Share = 1.0
    """With --judge exact: share of the flawed attempts that are seen to be flawed."""
    checker_false_alarms: Share = 0.0
    """With --judge exact: share of the sound attempts that are said to be flawed."""
    alarm_silence: Share = 0.5
    """Share of judgements that can't be read from which an alarm is raised."""
    alarm_merged: Share = 0.3
    """How far the number of steps of an attempt may fall below the first step's, as a share, before an alarm is raised."""


@register(
    slug="fapo",
    name="FAPO",
    family="rewards",
    paper="2510.22543",
    title="FAPO: Flawed-Aware Policy Optimization for Efficient and Reliable Reasoning",
    summary="a right answer reached by a wrong step earns less",
    config=FAPOConfig,
)
class FAPO(Judged, DAPO):
    """Differs from DAPO in the reward, which a judge of steps has a part in."""

    config: FAPOConfig

    def setup(self) -> None:
        super().setup()
        context = self.judging.model.context_length if isinstance(self.judging, LocalJudge) else None
        self.template = template_named(self.config.step_prompt, context)
        self.usual_steps = math.nan
        self.alarmed: set[str] = set()

    def open_judge(self) -> Judge:
        config = self.config
        if config.judging.judge != EXACT:
            if config.checker_recall < 1 or config.checker_false_alarms > 0:
                raise InputError(
                    f"--checker-recall and --checker-false-alarms make the exact checker worse, but the judge is {config.judging.judge}; "
                    "expected --judge exact with them"
                )
            return super().open_judge()
        task = self.task_set.train_task(self.run.seed, 0)
        if self.task_set.first_wrong_step(task, ["answer: 1"]) is None:
            raise InputError(
                f"--judge exact: {self.task_set.name} does not check steps; expected a task set with `first_wrong_step`, as max5, or a model to judge"
            )
        return StepChecker(self.task_set, self.run.ledger, recall=config.checker_recall, false_alarms=config.checker_false_alarms)

    # Asking

    def question(self, trajectory: Trajectory) -> tuple[Message, ...] | None:
        if not self.is_right(trajectory):
            return None
        task = trajectory.task
        return question(self.template, problem=task.prompt, reference=reference_of(task), steps=split_steps(trajectory.text))

    def answer(self, trajectory: Trajectory, question: Question) -> Future[Judgement]:
        if isinstance(self.judging, StepChecker):
            return self.judging.check(trajectory.task, split_steps(trajectory.text), self.run.rng("checker", question.stream))
        return super().answer(trajectory, question)

    def is_right(self, trajectory: Trajectory) -> bool:
        """The verifier's verdict on an attempt, which is asked for once."""
        if not trajectory.tags.get("verified"):
            verify([trajectory], self.task_set)
            trajectory.tags["verified"] = True
        return trajectory.correct >= RIGHT

    # Rewarding

    def judge(self, groups: Sequence[Group]) -> None:
        for group, answers in zip(groups, self.judgements(groups), strict=True):
            for trajectory, judgement in zip(group.trajectories, answers, strict=True):
                steps = split_steps(trajectory.text)
                named = index_in(judgement.text, len(steps)) if judgement is not None else None
                trajectory.tags |= {"judgement": judgement, "named": named, "steps": steps}
            self.reward(group)
        self.penalise_length(groups)

    def reward(self, group: Group) -> None:
        """Give the attempts of a group their flaw-aware rewards. One whose verdict is NaN stays unjudged."""
        right = [t for t in group.trajectories if t.tags["judgement"] is not None]
        flags = [t.tags["named"] not in (None, FLAWLESS) for t in right]
        if self.config.shuffle_flaws:
            self.run.rng(self.run.step, "shuffled flaws", group.key).shuffle(flags)
        for trajectory, flagged in zip(right, flags, strict=True):
            trajectory.rewards["flagged"] = float(flagged)
        for trajectory in group.trajectories:
            is_right, flagged = trajectory.correct >= RIGHT, bool(trajectory.rewards.get("flagged"))
            value = flaw_aware(is_right, flagged, penalty=self.config.flaw_penalty)
            trajectory.reward = trajectory.rewards["flaw_aware"] = math.nan if math.isnan(trajectory.correct) else value

    def teaches(self, group: Group) -> bool:
        known = [r for t in group.trajectories if not math.isnan(r := t.rewards["flaw_aware"])]
        return len(known) > 1 and max(known) - min(known) > 1e-9

    # Watching

    def collect(self, tasks: Sequence[Task]) -> list[Group]:
        groups = super().collect(tasks)
        self.keep_transcripts(
            groups, [[t.tags["judgement"] for t in g.trajectories] for g in groups], [[t.tags["named"] for t in g.trajectories] for g in groups]
        )
        self.seen = self.flaws_seen(groups)
        return groups

    def credit(self, groups: Sequence[Group]) -> Metrics:
        return super().credit(groups) | self.seen

    def flaws_seen(self, groups: Sequence[Group]) -> Metrics:
        """What the judge found in a step's attempts, before anything is filtered.

        `flaw/ratio`: share of right attempts that are flagged; `flaw/unreadable`: share of their judgements that named no step. `flaw/alpha`, `flaw/beta`: shares of
        sound and of wrong attempts; `flaw/refining`: share of groups in which flawed positives are pushed down. `flaw/steps`, `flaw/step_length`: steps of an attempt,
        characters of a step. Where steps can be checked exactly, `flaw/true_ratio` and the judge's `flaw/precision`, `flaw/recall`, ... (`etude.rewards.flaws.detection`).
        """
        attempts = trajectories_of(groups)
        right = [t for t in attempts if t.tags["judgement"] is not None]
        steps = [t.tags["steps"] for t in attempts]
        shares = [group_shares(g) for g in groups]
        seen: Metrics = {
            "flaw/alpha": mean([alpha for alpha, _ in shares]),
            "flaw/beta": mean([beta for _, beta in shares]),
            "flaw/refining": mean([float(turns_against_flaws(a, b, penalty=self.config.flaw_penalty)) for a, b in shares]),
            "flaw/steps": mean([float(len(s)) for s in steps]),
            "flaw/step_length": mean([float(len(step)) for s in steps for step in s], default=0.0),
            "flaw/judged": float(len(right)),
        }
        if right:
            seen["flaw/ratio"] = mean([t.rewards["flagged"] for t in right])
            seen["flaw/unreadable"] = mean([float(t.tags["named"] is None) for t in right])
            truth = [first for t in right if (first := self.task_set.first_wrong_step(t.task, t.tags["steps"])) is not None]
            if len(truth) == len(right):
                found = detection([t.tags["named"] for t in right], truth)
                seen |= {"flaw/true_ratio": mean([float(first != FLAWLESS) for first in truth])} | {f"flaw/{name}": value for name, value in found.items()}
        return seen | self.alarms(seen)

    def alarms(self, seen: Metrics) -> Metrics:
        """Signs that the policy gets round the judge: judgements that name nothing, and attempts with ever fewer steps to find a flaw in. Each is said once."""
        config, steps = self.config, seen["flaw/steps"]
        if math.isnan(self.usual_steps):
            self.usual_steps = steps
        silence = seen.get("flaw/unreadable", 0.0)
        raised = {"silent": silence > config.alarm_silence, "merged": steps < (1 - config.alarm_merged) * self.usual_steps}
        said = {
            "silent": f"{silence:.0%} of the judgements name no step, and what is not named is not penalised; look at judgements.jsonl, and at --step-prompt",
            "merged": f"attempts have {steps:.1f} steps, at first {self.usual_steps:.1f}: merged steps hide flaws; look at trajectories.jsonl",
        }
        for name in (name for name, on in raised.items() if on and name not in self.alarmed):
            self.alarmed.add(name)
            warnings.warn(f"step {self.run.step}: {said[name]}", stacklevel=2)
        return {f"flaw/alarm_{name}": float(on) for name, on in raised.items()}

    # Saving

    def state(self) -> State:
        state = super().state()
        state.plain["flaws"] = {"usual_steps": None if math.isnan(self.usual_steps) else self.usual_steps, "alarmed": sorted(self.alarmed)}
        return state

    def load_state(self, state: State) -> None:
        super().load_state(state)
        usual = state.plain["flaws"]["usual_steps"]
        self.usual_steps, self.alarmed = math.nan if usual is None else float(usual), set(state.plain["flaws"]["alarmed"])


def reference_of(task: Task) -> str:
    """The reference answer as the judge is told it."""
    return task.answer if task.answer is not None else "(none is given)"


def group_shares(group: Group) -> tuple[float, float]:
    """The shares of a group's attempts that are right and not flagged, and that are wrong."""
    known = [t for t in group.trajectories if not math.isnan(t.correct)]
    sound = mean([float(t.correct >= RIGHT and not t.rewards.get("flagged")) for t in known], default=0.0)
    return sound, mean([float(t.correct < RIGHT) for t in known], default=0.0)

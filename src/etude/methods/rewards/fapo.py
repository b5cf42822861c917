"""FAPO: a right answer reached by a wrong step earns less than one reached by right steps (arXiv:2510.22543).

A verifier of final answers rewards lucky guesses, jumps and errors that cancel: flawed positives, a third of the right attempts in ordinary training. A judge reads
each right attempt, and names the first wrong step or none. A flawed positive then earns 0, between wrong (-1) and right (1). While wrong attempts outnumber sound ones
in a group, 0 is above its mean, and flawed positives are stepping stones that are reinforced; as soon as sound ones are more, 0 is below, and they are pushed down.
The shift comes by itself, group by group, without a weight to tune or a schedule (`etude.rewards.flaws`).

Differs from DAPO in the reward, in a bound on the loss of bad tokens (dual clip 10), and in dynamic sampling, which is off and, where it is switched on, looks at the
spread of the flaw-aware reward and not at verdicts: a group of sound and flawed attempts that are all right still teaches.

Only right attempts are judged. What cannot be read, or was not answered, flags nothing and is counted. That makes silence pay, and steps that are merged until nothing
can be located in them as well: both raise an alarm, as does a judge that misses flaws which were planted to test it (`--planted-flaws`). On task sets that check steps
themselves the judge's precision and recall are logged, and `--judge exact` puts the checker in its place. `fapo-genrm` trains a judge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from etude.claim import Arm, Claim, Comparison, Precondition, reported_seeds
from etude.config import Count, NonNegative, Share
from etude.errors import InputError
from etude.evals.measures import Final
from etude.evals.monitors import RIGHT
from etude.method import State, register
from etude.methods.baselines.dapo import DAPO, DAPOConfig
from etude.methods.rewards._flaw_watch import FlawAlarmConfig, FlawAlarms, flaws_seen
from etude.methods.rewards._judged import Judged, JudgedConfig
from etude.rewards import judge as verify
from etude.rewards.flaws import flaw_aware
from etude.rewards.judges import Judge, Judgement, LocalJudge, Question
from etude.rewards.step_checker import EXACT, StepChecker
from etude.tasks.first_error import FLAWLESS, index_in, planted, question, split_steps, template_named
from etude.types import Group, Metrics, Task, Trajectory, mean, trajectories_of


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
    planted_flaws: Count = 0
    """Right attempts of a step, of those that were not flagged, that are shown to the judge once more with one digit changed, to see whether it still finds flaws."""
    alarms: FlawAlarmConfig = field(default_factory=FlawAlarmConfig)


@register(
    slug="fapo",
    name="FAPO",
    family="rewards",
    paper="2510.22543",
    title="FAPO: Flawed-Aware Policy Optimization for Efficient and Reliable Reasoning",
    summary="a right answer reached by a wrong step earns less",
    config=FAPOConfig,
    claim=Claim(
        statement="Rewards for answers alone reinforce flawed positives, which stay a third of all right attempts. Lowering their reward from 1 to 0, by a judge that is "
        "right nine times in ten, makes answers sound and training no slower: the sign of their advantage flips by itself once sound attempts outnumber wrong ones.",
        expectation="From a model most of whose right answers are flawed, on the same number of rollouts, with flaws found at a recall of 0.91 and a false alarm for "
        "14 % of the sound attempts, the share of sound held-out attempts is more than 5 points above that of rewards for answers alone at half of the budget, and the "
        "share of flawed among right ones more than 10 points lower at the end. With the same flags given to any right attempts of the group neither is seen.",
        arms=(
            Arm("fapo"),
            Arm("answers alone", "fapo", {"flaw_penalty": 0.0}),
            Arm("shuffled flags", "fapo", {"shuffle_flaws": True}),
        ),
        common={
            "method": "fapo",
            "model": "tiny",
            "tasks": "max5:sums=3",
            "warm_tasks": "max5:sums=3,slips=0.25,jumps=0.1",
            "warm_steps": 40,
            "group_size": 8,
            "judge": "exact",
            "checker_recall": 0.91,
            "checker_false_alarms": 0.136,
            "overlong_weight": 0.0,
            "lr": 3e-4,
            "eval_tasks": 128,
            "eval_samples": 4,
            "evaluate_every": 5,
        },
        experiment="etude.experiments.flawed_steps:sound_work",
        budget="5120-rollouts",
        tests=(
            Comparison("sound attempts at half of the budget", "fapo", "answers alone", Final("sound_half"), margin=0.05),
            Comparison("flawed among right ones", "fapo", "answers alone", Final("flawed"), better="lower", margin=0.1),
            Comparison("which attempts are flagged", "fapo", "shuffled flags", Final("sound_half"), margin=0.05, role="ablation"),
        ),
        preconditions=(
            Precondition(
                "right answers are flawed",
                "answers alone",
                Final("flawed_first"),
                at_least=0.4,
                otherwise="there are few flawed positives to do anything about",
            ),
            Precondition(
                "some answers are right",
                "answers alone",
                Final("right_first"),
                at_least=0.15,
                at_most=0.6,
                otherwise="nothing is rewarded by answers, or almost everything",
            ),
            Precondition("the judge is as good as the paper's", "fapo", Final("recall"), at_least=0.85, otherwise="flaws are not found"),
        ),
        tried="The start and the rate, on seed 0. Five sums after 30 steps of imitation with half of them wrong and 30 % guesses: 30 % right, 1 % sound; at 1e-3 FAPO lost "
        "even that. Four sums, a quarter wrong: 34 % right, 10 % sound, and 0 % under FAPO at 1e-3: where nearly all right answers are flawed, a flawed one (0) still beats a "
        "wrong one (-1), and both arms drift to guesses. Three sums, a quarter wrong, 10 % guesses, at 3e-4: from 13 % sound to 16 % at half of the budget and 12 % at its "
        "end under FAPO, to 3 % and 1 % by answers alone, at the same share of right ones; flawed among the right 69 % and 98 % at the end. Shuffled flags were not tried. "
        "Five reported seeds then left it open by a little: four were alike, and from the start of one, with hardly any sound work, FAPO drifted to guesses as answers alone "
        "did. So ten are run.",
        seeds=reported_seeds(10),
        quick={"warm_steps": 1, "warm_tasks_per_step": 8, "eval_samples": 1, "eval_tasks": 4, "tasks_per_step": 4, "group_size": 4, "evaluate_every": 1},
    ),
)
class FAPO(Judged, DAPO):
    """Differs from DAPO in the reward, which a judge of steps has a part in."""

    config: FAPOConfig

    def setup(self) -> None:
        super().setup()
        context = self.judging.model.context_length if isinstance(self.judging, LocalJudge) else None
        self.template = template_named(self.config.step_prompt, context)
        self.alarms = FlawAlarms(self.config.alarms)

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

    def question(self, trajectory: Trajectory, stream: int = 0) -> Question | None:
        return self.question_about(trajectory.task, split_steps(trajectory.text), stream) if self.is_right(trajectory) else None

    def question_about(self, task: Task, steps: Sequence[str], stream: int) -> Question:
        """What the judge is asked about a solution."""
        return Question(question(self.template, problem=task.prompt, reference=reference_of(task), steps=steps), stream, subject=(task, steps))

    def is_right(self, trajectory: Trajectory) -> bool:
        """The verifier's verdict on an attempt, which is asked for once."""
        if not trajectory.tags.get("verified"):
            verify([trajectory], self.task_set)
            # A task set that gives no verdict means its reward by it, and the reward is about to change.
            trajectory.rewards.setdefault("correct", trajectory.reward)
            trajectory.tags["verified"] = True
        return trajectory.correct >= RIGHT

    # Rewarding

    def judge(self, groups: Sequence[Group]) -> None:
        for group, answers in zip(groups, self.judgements(groups), strict=True):
            for trajectory, judgement in zip(group.trajectories, answers, strict=True):
                steps = split_steps(trajectory.text)
                # A judgement that was cut off may have been cut off in the middle of its number.
                named = index_in(judgement.text, len(steps)) if judgement is not None and judgement.finished else None
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
        self.seen = flaws_seen(groups, self.task_set, penalty=self.config.flaw_penalty)
        if self.config.planted_flaws:
            self.seen |= self.planted_flaws_found(groups)
        self.seen |= self.alarms.raised(self.run.step, self.seen)
        return groups

    def planted_flaws_found(self, groups: Sequence[Group]) -> Metrics:
        """`flaw/planted_recall`: share of the flaws that were planted into attempts which passed as sound, and that the judge then found. Empty where none were."""
        passed = [t for t in trajectories_of(groups) if t.tags["named"] == FLAWLESS]
        random = self.run.rng(self.run.step, "planted flaws")
        asked: list[tuple[int, Future[Judgement]]] = []
        for trajectory in random.sample(passed, min(self.config.planted_flaws, len(passed))):
            steps = planted(trajectory.tags["steps"], random)
            if steps is not None:
                asked.append((len(steps), self.judging.ask(self.question_about(trajectory.task, steps, self.run.stream(self.run.step, "planted", len(asked))))))
        self.judging.settle()
        found = [index_in(judgement.text, count) if (judgement := future.result()).finished else None for count, future in asked]
        return {"flaw/planted_recall": mean([float(named not in (None, FLAWLESS)) for named in found])} if found else {}

    def credit(self, groups: Sequence[Group]) -> Metrics:
        return super().credit(groups) | self.seen

    # Saving

    def state(self) -> State:
        state = super().state()
        state.plain["alarms"] = self.alarms.state()
        return state

    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.alarms.load_state(state.plain["alarms"])


def reference_of(task: Task) -> str:
    """The reference answer as the judge is told it."""
    return task.answer if task.answer is not None else "(none is given)"

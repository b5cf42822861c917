"""Tasks of single turns, answered several times over: `--env revise`.

After each attempt a fixed request asks for another look. It never says whether the attempt was right, so whatever the next one gains, the policy found out by itself
(intrinsic self-correction). Every attempt is judged, and the last one is what an episode is worth.

An episode may begin after attempts that somebody else made: see `after_attempts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from etude.errors import InputError
from etude.tasks.around import Around, in_single_turns
from etude.tasks.base import Environment, EnvironmentStep, TaskSet, total
from etude.tasks.options import settings_in
from etude.tasks.templates import filled, read_template
from etude.types import Message, Segment, StartingPoint, Task, Trajectory

VERDICTS = "verdicts"
"""Tag of an episode of several attempts: how right each of them was, in order, those of its starting point included."""
ANSWERS = "answers"
"""Tag of an episode whose attempts are no turns of their own: the final answer of each of them, None where none could be read."""
ATTEMPT_REWARDS = "attempt_rewards"
"""Tag of an episode of several attempts: the reward of each of them by the task set's weights."""
REQUESTS = {
    "standard": "Check the solution above. It may hold an error. If you find one, correct it; in any case write the whole solution once more and state the final answer "
    "in the same form as before.",
    "short": "check and fix",
}
"""Requests by name: for models that follow instructions, and for small ones, which have to be taught what it means (the built-in tasks `check-and-fix` do)."""
OPTIONS = {"turns": "attempts in all", "request": f"{', '.join(REQUESTS)}, or a text file, in which {{question}} stands for what was asked"}


class Revisions(Around):
    """A task set of single turns, in which every task is attempted `turns` times in one conversation.

    Components of the judgement are the last attempt's. Each attempt's own reward stands on its segment, and its verdict in the trajectory's tag VERDICTS.
    """

    def __init__(self, tasks: TaskSet, *, turns: int = 2, request: str = "standard") -> None:
        """Raises InputError for fewer than two turns, a request that cannot be read, and tasks that have an environment."""
        super().__init__(in_single_turns(tasks, "--env revise asks for another look at tasks of single turns"))
        if turns < 2:
            raise InputError(f"turns is {turns}; expected at least 2, a first attempt and one at correcting it")
        self.request = REQUESTS.get(request) or read_template(request, "request", names=tuple(REQUESTS), needs=(), may=("question",))
        self.max_turns = turns
        # The last attempt is judged as if it were all that was written.
        self.environment_weights = tasks.reward_weights

    @classmethod
    def named(cls, spec: str, tasks: TaskSet) -> Revisions:
        """From `revise` or `revise:option=value,option=value`."""
        options = settings_in(spec.partition(":")[2], f"--env {spec}", OPTIONS)
        if not isinstance(options.get("turns", 2), int):
            raise InputError(f"--env {spec}: turns is {options['turns']!r}; expected a whole number from 2")
        return cls(tasks, **options)

    def verify_trajectory(self, trajectory: Trajectory) -> Mapping[str, float]:
        return judge_attempts(trajectory, self.tasks.verify_trajectory, self.tasks.reward_weights)

    def first_wrong_step(self, task: Task, steps: Sequence[str]) -> int | None:
        return self.tasks.first_wrong_step(task, steps)

    def environment(self) -> Environment:
        return RevisionEnvironment(self.request, self.max_turns)


class RevisionEnvironment(Environment):
    """Asks for another look until there have been `turns` attempts."""

    def __init__(self, request: str, turns: int) -> None:
        self.request, self._turns = request, turns
        self._said, self._attempts = "", 0

    def reset(self, task: Task) -> Sequence[Message]:
        self._said, self._attempts = asking_again(self.request, task).content, len(given_attempts(task))
        if self._attempts >= self._turns:
            raise InputError(f"task {task.id!r} begins after {self._attempts} attempts, and an episode has {self._turns}; expected fewer, or more turns")
        return task.opening

    def step(self, text: str) -> EnvironmentStep:
        self._attempts += 1
        return EnvironmentStep(done=True) if self._attempts >= self._turns else EnvironmentStep((Message("user", self._said),))

    def snapshot(self) -> tuple[str, int]:
        return self._said, self._attempts

    def restore(self, state: tuple[str, int]) -> None:
        self._said, self._attempts = state


def request_between_attempts(task_set: TaskSet, who: str) -> str:
    """The request that follows an attempt at tasks that are answered several times over. Raises InputError for other tasks, and where a reward sees the last attempt
    alone; `who` is the method that asks."""
    from etude.tasks.user_reward import RewardedTaskSet

    environment = task_set.environment()
    if environment is not None:
        environment.close()
    if not isinstance(environment, RevisionEnvironment):
        raise InputError(
            f"{task_set.name} asks for one answer, and {who} learns from several to the same question; add --env revise, or take --tasks check-and-fix"
        )
    if isinstance(task_set, RewardedTaskSet):
        raise InputError(
            f"--reward judges the last answer of {task_set.name} alone, and {who} needs every one judged; give it single-turn tasks and --env revise"
        )
    return environment.request


def asking_again(request: str, task: Task) -> Message:
    """What follows an attempt at a task."""
    return Message("user", filled(request, {"question": task.prompt}))


def after_attempts(task: Task, attempts: Sequence[str], request: str, author: str) -> Task:
    """The task, begun after attempts that `author` made: they are context, and no token of theirs is trained on."""
    messages = [m for attempt in attempts for m in (Message("assistant", attempt), asking_again(request, task))]
    return replace(task, start=StartingPoint(tuple(messages), author))


def given_attempts(task: Task) -> list[str]:
    """The attempts that a task's starting point holds."""
    return [m.content for m in task.start.messages if m.role == "assistant"] if task.start is not None else []


def answer_of(trajectory: Trajectory, answer_in: Callable[[str], str | None]) -> str | None:
    """The final answer of an episode, None where none could be read: the last in its tag ANSWERS, which may be no text of the policy's (the output of a program), else what
    `answer_in` finds in its last text."""
    answers = trajectory.tags.get(ANSWERS)
    return answers[-1] if answers else answer_in(trajectory.last_text)


def attempts_of(trajectory: Trajectory) -> list[str]:
    """All attempts of an episode in order, the given ones included."""
    return [*given_attempts(trajectory.task), *(s.text for s in trajectory.segments if s.author == "policy")]


def judge_attempts(
    trajectory: Trajectory, judge: Callable[[Trajectory], Mapping[str, float]], weights: Mapping[str, float] = TaskSet.reward_weights
) -> Mapping[str, float]:
    """Judge every attempt of an episode as if it stood alone; returns the components of the last one.

    judge: components of an episode of one turn. Each attempt's reward by `weights` is written onto its segment, and all of them into the tags ATTEMPT_REWARDS and VERDICTS.
    """
    tags = {name: value for name, value in trajectory.tags.items() if not name.startswith("environment_")}
    given = [Segment([], "policy", text) for text in given_attempts(trajectory.task)]
    verdicts: list[float] = []
    rewards: list[float] = []
    components: Mapping[str, float] = {}
    for segment in [*given, *(s for s in trajectory.segments if s.author == "policy")]:
        components = judge(replace(trajectory, segments=[segment], tags=dict(tags)))
        segment.reward = total(components, weights)
        rewards.append(segment.reward)
        verdicts.append(components.get("correct", min(1.0, max(0.0, segment.reward))))
    trajectory.tags |= {VERDICTS: verdicts, ATTEMPT_REWARDS: rewards}
    return components

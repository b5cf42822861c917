"""Episodes: attempts at tasks, single-turn or in an environment, all in one continuously batched sampler.

While one finishes, another takes its slot. `run_episodes` runs a batch of them to the end; `Episodes` is the same driven from outside, a decode step at a time, so
that what still runs can be stopped and go on later under newer weights.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from etude.errors import InputError, NonFiniteError
from etude.ledger import FORWARD, Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import FinishedEvent, Request, SamplingParams, stream_key
from etude.tasks.base import EPISODE_TAGS, STEPS_TAKEN, TOOL_COUNTS, Environment, EnvironmentStep, TaskSet
from etude.types import Completion, Message, Segment, StopReason, Task, Trajectory


@dataclass(slots=True)
class EpisodeRequest:
    """One episode to run: a task, which attempt at it this is, and the key of its random numbers.

    messages: what to show the policy instead of the task's own messages (hints, examples); single-turn tasks only. The trajectory's `prompt` is then this context.
    opening: tokens that the first turn begins with. They belong to the turn as if the policy had written them, with log-probability and entropy 0: nothing was drawn.
    """

    task: Task
    sample: int
    stream: int
    messages: tuple[Message, ...] | None = None
    opening: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class Episode:
    """One attempt on its way.

    segments: the turns that are whole, and what the environment answered to them. reward, correct: what it gave so far.
    writing: the turn that was being written when the episode was stopped, from which it is resumed. environment: kept in the middle of the episode; None for single
    turns, and where the episode was read from a file.
    """

    request: EpisodeRequest
    prompt: list[int]
    environment: Environment | None
    segments: list[Segment] = field(default_factory=list)
    reward: float = 0.0
    correct: float | None = None
    tools: dict[str, Any] = field(default_factory=dict)
    stop_reason: StopReason = "length"
    writing: Completion | None = None

    @property
    def turns(self) -> int:
        """Whole turns of the policy."""
        return sum(s.author == "policy" for s in self.segments)

    @property
    def turn_stream(self) -> int:
        """The key of the random numbers of the turn that comes next or is being written."""
        return stream_key(self.request.stream, "turn", self.turns) if self.turns else self.request.stream

    def hear(self, answer: EnvironmentStep) -> None:
        """Note what the environment gave for a turn, and said of the episode."""
        self.reward += answer.reward
        if "correct" in answer.info:
            self.correct = float(answer.info["correct"])
        for name in TOOL_COUNTS & answer.info.keys():
            self.tools[name] = self.tools.get(name, 0) + int(answer.info[name])
        self.tools |= answer.info.get(EPISODE_TAGS, {})

    def trajectory(self) -> Trajectory:
        """What has become of it, once it has ended."""
        trajectory = Trajectory(self.request.task, self.prompt, self.segments, self.stop_reason, sample=self.request.sample)
        if self.environment is not None:
            trajectory.tags["environment_reward"] = self.reward
            if self.correct is not None:
                trajectory.tags["environment_correct"] = self.correct
            trajectory.tags |= self.tools
        return trajectory


class Episodes:
    """Episodes that share one sampler, driven from outside: add or resume some, step, hear which ended, stop the rest.

    A context: on leaving it, what still runs is taken out of the sampler, every environment is closed whose episode `stop` did not hand out, and, without an error,
    everything spent is added to `ledger`. An attempt counts as a rollout, and a turn as a call, when its first token is drawn: once, however often it is resumed.
    Raises NonFiniteError when the policy's log-probabilities are not finite: what it then writes means nothing.
    """

    def __init__(self, policy: LanguageModel, task_set: TaskSet, params: SamplingParams, *, max_turns: int, ledger: Ledger) -> None:
        self.policy, self.task_set, self.params, self.max_turns, self.ledger = policy, task_set, params, max_turns, ledger
        self._before = policy.sampler.clock.copy()
        self._rendered: dict[tuple[str, tuple[Message, ...]], list[int]] = {}
        self._running: dict[int, Episode] = {}
        self._environments: list[Environment] = []
        self._rollouts = self._calls = self._given = 0

    def __enter__(self) -> Episodes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for ident, episode in self._running.items():
            # One that ended in the same step as an error elsewhere is in flight no more.
            with contextlib.suppress(InputError):
                self._count(episode, self.policy.sampler.abort(ident))
            self.policy.sampler.release(ident)
        self._running.clear()
        if kind is not None:
            # An error that is on its way is told before one that closing makes.
            for environment in self._environments:
                with contextlib.suppress(Exception):
                    environment.close()
            return
        close_all(self._environments)
        self._settle()

    @property
    def running(self) -> int:
        """Episodes that have not ended."""
        return len(self._running)

    def add(self, request: EpisodeRequest) -> Episode:
        """Begin an episode. Raises InputError for a prompt that leaves no room in the model's context."""
        episode = Episode(request, [], self.task_set.environment())
        if episode.environment is not None:
            self._environments.append(episode.environment)
        self._begin(episode)
        return episode

    def resume(self, episode: Episode) -> None:
        """Go on with an episode that was stopped, from the last token it has, under the weights of now.

        Where its environment is gone with the process that held it, the policy's turns are played to a fresh one. One that then answers otherwise cannot be brought
        back, and the episode begins anew, with a warning.
        """
        if episode.environment is None:
            episode.environment = self.task_set.environment()
            if episode.environment is not None:
                self._environments.append(episode.environment)
                if not self._replay(episode, episode.environment):
                    self._restart(episode)
                    return
        else:
            self._environments.append(episode.environment)
        writing = episode.writing
        assert writing is not None, "only an episode that was stopped can be resumed"
        prefix = writing if writing.tokens else None
        keep = episode.environment is not None
        ident = self.policy.sampler.add(Request(tuple(writing.prompt), self.params, stream=episode.turn_stream, prefix=prefix, keep=keep))
        self._running[ident] = episode

    def step(self) -> list[Episode]:
        """Advance every running episode by one token; returns those that ended."""
        ended: list[Episode] = []
        done = [event for event in self.policy.sampler.step() if isinstance(event, FinishedEvent)]
        for event in done:
            if (episode := self._running.get(event.request)) is not None and episode.environment is not None:
                episode.environment.begin(event.completion.text)
        for event in done:
            if event.request in self._running:
                episode = self._running.pop(event.request)
                try:
                    following = self._take_turn(episode, event.completion)
                finally:
                    self.policy.sampler.release(event.request)
                if following is None:
                    ended.append(episode)
                else:
                    self._running[following] = episode
        return ended

    def stop(self) -> list[Episode]:
        """Take everything that still runs out of the sampler, to be resumed later. The environments of what is returned are the caller's to close."""
        sampler = self.policy.sampler
        for (ident, episode), completion in zip(self._running.items(), sampler.abort_all(list(self._running)), strict=True):
            sampler.release(ident)
            self._count(episode, completion)
            episode.writing = completion
            if episode.environment is not None:
                self._environments.remove(episode.environment)
        stopped = list(self._running.values())
        self._running.clear()
        return stopped

    def _begin(self, episode: Episode) -> None:
        request = episode.request
        if episode.environment is None:
            shown = request.task.opening if request.messages is None else request.messages
            key = (request.task.id, shown)
            if key not in self._rendered:
                self._rendered[key] = self.policy.render(shown)
            episode.prompt = self._rendered[key]
        else:
            opening = tuple(episode.environment.reset(request.task))
            start = request.task.start
            if start is not None and opening[-len(start.messages) :] != start.messages:
                raise InputError(
                    f"task {request.task.id!r} begins after {len(start.messages)} messages, which its environment's reset() did not return; "
                    "expected it to open with `task.opening`"
                )
            episode.prompt = self.policy.render(list(opening))
        _check_prompt(episode.prompt, self.policy, request.task)
        keep = episode.environment is not None
        prefix = self._given_tokens(episode.prompt, request.opening) if request.opening else None
        self._running[self.policy.sampler.add(Request(tuple(episode.prompt), self.params, stream=request.stream, prefix=prefix, keep=keep))] = episode

    def _given_tokens(self, prompt: list[int], opening: tuple[int, ...]) -> Completion:
        """The beginning of a turn that nobody drew, to go on from."""
        nothing, version = [0.0] * len(opening), self.policy.sampler.version
        return Completion(0, prompt, list(opening), "", nothing, list(nothing), [version] * len(opening), "aborted")

    def _replay(self, episode: Episode, environment: Environment) -> bool:
        """Play an episode's turns to a fresh environment; says whether it answered as the first one did. It costs no tokens, and is in no account."""
        if self.policy.render(list(environment.reset(episode.request.task))) != episode.prompt:
            return False
        answers = (s.text for s in episode.segments if s.author != "policy")
        return all(_text(environment.step(s.text).messages) == next(answers, None) for s in episode.segments if s.author == "policy")

    def _restart(self, episode: Episode) -> None:
        warnings.warn(
            f"the environment of task {episode.request.task.id!r} answered otherwise when the episode was replayed to a fresh one, so that the episode begins anew; "
            "expected answers that depend on the task and the turns alone",
            stacklevel=3,
        )
        episode.segments, episode.reward, episode.correct, episode.tools, episode.writing = [], 0.0, None, {}, None
        episode.environment = self.task_set.environment()
        assert episode.environment is not None
        self._environments.append(episode.environment)
        self._begin(episode)

    def _take_turn(self, episode: Episode, completion: Completion) -> int | None:
        """Record what the policy wrote, let the environment answer, and start the next turn. Returns the new request's id, or None at the end."""
        _check_finite(completion, self.policy, episode.request.task)
        self._count(episode, completion)
        episode.writing = None
        episode.segments.append(Segment.from_completion(completion))
        whole = completion.stop_reason == "length" and len(completion.tokens) == self.task_set.fixed_length
        episode.stop_reason = "stop" if whole else completion.stop_reason
        if episode.environment is None:
            return None
        answer = episode.environment.step(completion.text)
        self.ledger.environment_steps += int(answer.info.get(STEPS_TAKEN, 1))
        episode.hear(answer)
        if answer.done:
            episode.stop_reason = "environment"
            return None
        episode.stop_reason = "length"
        if episode.turns >= self.max_turns:
            return None
        tokens = self.policy.render_after(completion.tokens, answer.messages)
        if len(completion.prompt) + len(completion.tokens) + len(tokens) + 1 >= self.policy.context_length:
            return None
        author = "tool" if any(m.role == "tool" for m in answer.messages) else "environment"
        episode.segments.append(Segment(tokens, author, _text(answer.messages)))
        return self.policy.sampler.fork(completion.request, append=tokens, stream=episode.turn_stream, params=self.params, keep=True)

    def _count(self, episode: Episode, completion: Completion) -> None:
        """Count a turn that ended or was stopped, if its first token was drawn since it last went in."""
        if completion.tokens and not (episode.writing is not None and episode.writing.tokens):
            self._calls += 1
            self._rollouts += not episode.turns
            self._given += len(episode.request.opening) if not episode.turns else 0

    def _settle(self) -> None:
        spent = self.policy.sampler.clock.since(self._before)
        self.ledger.generated_tokens += spent.generated_tokens + self._given
        self.ledger.prompt_tokens += spent.prefill_tokens
        self.ledger.decode_steps += spent.steps
        self.ledger.rollouts += self._rollouts
        self.ledger.count_call("policy", self._calls)
        self.ledger.forward_equivalents += FORWARD * (spent.generated_tokens + spent.prefill_tokens)


def run_episodes(
    policy: LanguageModel,
    requests: Sequence[EpisodeRequest],
    task_set: TaskSet,
    params: SamplingParams,
    *,
    max_turns: int,
    ledger: Ledger,
    ended: Callable[[Trajectory], None] = lambda trajectory: None,
) -> list[Trajectory]:
    """One trajectory for each request, in their order; nothing is judged yet, but an environment's rewards are in `tags`.

    Each turn is a trained segment, each answer of the environment an untrained one. `ended` hears of every trajectory as soon as it has ended, while others still
    run. Everything spent is added to `ledger`. Every environment is closed, also after an error. Raises NonFiniteError when the policy's log-probabilities are not
    finite: what it then writes means nothing.
    """
    with Episodes(policy, task_set, params, max_turns=max_turns, ledger=ledger) as episodes:
        begun = [episodes.add(request) for request in requests]
        trajectories: dict[Episode, Trajectory] = {}
        while episodes.running:
            for episode in episodes.step():
                trajectories[episode] = episode.trajectory()
                ended(trajectories[episode])
    return [trajectories[episode] for episode in begun]


def close_all(environments: Sequence[Environment]) -> None:
    """Close environments, all of them whatever one of them raises."""
    with contextlib.ExitStack() as stack:
        for environment in environments:
            stack.callback(environment.close)


def _text(messages: Sequence[Message]) -> str:
    return "\n".join(m.content for m in messages)


def _check_finite(completion: Completion, policy: LanguageModel, task: Task) -> None:
    if not all(map(math.isfinite, completion.logprobs)):
        raise NonFiniteError(f"the log-probabilities of {policy.name} are not finite on task {task.id!r}: its weights or activations hold NaN or infinities")


def _check_prompt(prompt: Sequence[int], policy: LanguageModel, task: Task) -> None:
    if len(prompt) >= policy.context_length:
        raise InputError(
            f"the prompt of task {task.id!r} has {len(prompt)} tokens, but {policy.name} reads {policy.context_length} in all; "
            "shorten the prompt or use a model with a longer context"
        )

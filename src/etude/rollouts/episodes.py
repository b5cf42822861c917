"""Episodes: attempts at tasks, single-turn or in an environment, all in one continuously batched sampler.

While one finishes, another takes its slot.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from etude.errors import InputError, NonFiniteError
from etude.ledger import FORWARD, Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import FinishedEvent, Request, Sampler, SamplingParams, stream_key
from etude.tasks.base import TOOL_COUNTS, Environment, TaskSet
from etude.types import Completion, Message, Segment, StopReason, Task, Trajectory


@dataclass(slots=True)
class EpisodeRequest:
    """One episode to run: a task, which attempt at it this is, and the key of its random numbers.

    messages: what to show the policy instead of the task's own messages (hints, examples); single-turn tasks only. The trajectory's `prompt` is then this context.
    """

    task: Task
    sample: int
    stream: int
    messages: tuple[Message, ...] | None = None


@dataclass(slots=True, eq=False)
class _Episode:
    request: EpisodeRequest
    prompt: list[int]
    environment: Environment | None
    segments: list[Segment] = field(default_factory=list)
    reward: float = 0.0
    correct: float | None = None
    tools: dict[str, int] = field(default_factory=dict)
    stop_reason: StopReason = "length"

    def trajectory(self) -> Trajectory:
        trajectory = Trajectory(self.request.task, self.prompt, self.segments, self.stop_reason, sample=self.request.sample)
        if self.environment is not None:
            trajectory.tags["environment_reward"] = self.reward
            if self.correct is not None:
                trajectory.tags["environment_correct"] = self.correct
            trajectory.tags |= self.tools
        return trajectory


def run_episodes(
    policy: LanguageModel,
    requests: Sequence[EpisodeRequest],
    task_set: TaskSet,
    params: SamplingParams,
    *,
    max_turns: int,
    ledger: Ledger,
) -> list[Trajectory]:
    """One trajectory for each request, in their order; nothing is judged yet, but an environment's rewards are in `tags`.

    Each turn is a trained segment, each answer of the environment an untrained one. Everything spent is added to `ledger`. Every environment is closed, also
    after an error. Raises NonFiniteError when the policy's log-probabilities are not finite: what it then writes means nothing.
    """
    sampler = policy.sampler
    before = sampler.clock.copy()
    rendered: dict[tuple[str, tuple[Message, ...]], list[int]] = {}
    running: dict[int, _Episode] = {}
    episodes: list[_Episode] = []
    with _closing() as environments, _aborting(sampler, running):
        for request in requests:
            environment = task_set.environment()
            if environment is None:
                shown = request.task.messages if request.messages is None else request.messages
                key = (request.task.id, shown)
                if key not in rendered:
                    rendered[key] = policy.render(shown)
                prompt = rendered[key]
            else:
                environments.append(environment)
                prompt = policy.render(list(environment.reset(request.task)))
            _check_prompt(prompt, params, policy, request.task)
            episode = _Episode(request, prompt, environment)
            episodes.append(episode)
            ident = sampler.add(Request(tuple(prompt), params, stream=request.stream, keep=environment is not None))
            running[ident] = episode
        while running:
            for event in sampler.step():
                if isinstance(event, FinishedEvent) and event.request in running:
                    episode = running.pop(event.request)
                    try:
                        _check_finite(event.completion, policy, episode.request.task)
                        following = _take_turn(episode, event.completion, policy, params, max_turns, ledger)
                    finally:
                        sampler.release(event.request)
                    if following is not None:
                        running[following] = episode
    spent = sampler.clock.since(before)
    ledger.generated_tokens += spent.generated_tokens
    ledger.prompt_tokens += spent.prefill_tokens
    ledger.decode_steps += spent.steps
    ledger.rollouts += len(requests)
    ledger.count_call("policy", sum(1 for e in episodes for s in e.segments if s.author == "policy"))
    ledger.forward_equivalents += FORWARD * (spent.generated_tokens + spent.prefill_tokens)
    return [episode.trajectory() for episode in episodes]


@contextlib.contextmanager
def _closing() -> Iterator[list[Environment]]:
    """Closes every environment that was added, whatever happens. An error that is on its way is told before one that closing makes."""
    environments: list[Environment] = []
    try:
        yield environments
    except BaseException:
        for environment in environments:
            with contextlib.suppress(Exception):
                environment.close()
        raise
    with contextlib.ExitStack() as stack:
        for environment in environments:
            stack.callback(environment.close)


@contextlib.contextmanager
def _aborting(sampler: Sampler, running: dict[int, _Episode]) -> Iterator[None]:
    """Takes what still runs out of the sampler, which other episodes will use."""
    try:
        yield
    finally:
        for ident in running:
            # One that ended in the same step as an error elsewhere is in flight no more.
            with contextlib.suppress(InputError):
                sampler.abort(ident)
            sampler.release(ident)


def _take_turn(episode: _Episode, completion: Completion, policy: LanguageModel, params: SamplingParams, max_turns: int, ledger: Ledger) -> int | None:
    """Record what the policy wrote, let the environment answer, and start the next turn. Returns the new request's id, or None at the end."""
    sampler = policy.sampler
    episode.segments.append(Segment.from_completion(completion))
    episode.stop_reason = completion.stop_reason
    if episode.environment is None:
        return None
    answer = episode.environment.step(completion.text)
    ledger.environment_steps += 1
    episode.reward += answer.reward
    if "correct" in answer.info:
        episode.correct = float(answer.info["correct"])
    for name in TOOL_COUNTS & answer.info.keys():
        episode.tools[name] = episode.tools.get(name, 0) + int(answer.info[name])
    turns = sum(1 for s in episode.segments if s.author == "policy")
    following = None
    if answer.done:
        episode.stop_reason = "environment"
    elif turns >= max_turns:
        episode.stop_reason = "length"
    else:
        tokens = policy.render_after(completion.tokens, answer.messages)
        if len(completion.prompt) + len(completion.tokens) + len(tokens) + 1 < policy.context_length:
            author = "tool" if any(m.role == "tool" for m in answer.messages) else "environment"
            text = "\n".join(m.content for m in answer.messages)
            episode.segments.append(Segment(tokens, author, text))
            stream = stream_key(episode.request.stream, "turn", turns)
            following = sampler.fork(completion.request, append=tokens, stream=stream, params=params, keep=True)
        else:
            episode.stop_reason = "length"
    return following


def _check_finite(completion: Completion, policy: LanguageModel, task: Task) -> None:
    if not all(map(math.isfinite, completion.logprobs)):
        raise NonFiniteError(f"the log-probabilities of {policy.name} are not finite on task {task.id!r}: its weights or activations hold NaN or infinities")


def _check_prompt(prompt: Sequence[int], params: SamplingParams, policy: LanguageModel, task: Task) -> None:
    if len(prompt) >= policy.context_length:
        raise InputError(
            f"the prompt of task {task.id!r} has {len(prompt)} tokens, but {policy.name} reads {policy.context_length} in all; "
            "shorten the prompt or use a model with a longer context"
        )

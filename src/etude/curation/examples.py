"""Examples to imitate: somebody's words as a trajectory, in which every turn is either learnt or only read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from etude.errors import InputError
from etude.models.language import LanguageModel
from etude.tasks.base import TaskSet
from etude.types import Message, Segment, Task, Trajectory

ORIGIN = "origin"
"""Tag of an example: where it came from, as plain values (the round, the kind, whatever a method wants to know of it later)."""


def conversation_example(
    policy: LanguageModel, task: Task, messages: Sequence[Message], *, learn: Sequence[bool] | None = None, weight: float = 1.0, **origin: Any
) -> Trajectory:
    """A conversation in which the assistant's turns are imitated, and what stands before and between them is read.

    messages: from the first to the last; those before the first assistant turn are the prompt. learn: for each assistant turn, whether it is learnt (default: all);
    a turn that is not learnt is context. weight: the example's in the loss. What does not fit into the model's context is left out from the end, turn by turn.
    Raises InputError where no assistant turn is there or the first one does not fit, and where `learn` does not fit the turns.
    """
    start = next((i for i, m in enumerate(messages) if m.role == "assistant"), None)
    if start is None:
        raise InputError(f"the conversation of task {task.id!r} has no turn of the assistant; expected at least one to imitate")
    parts = [(own, list(said)) for own, said in groupby(messages[start:], key=lambda m: m.role == "assistant")]
    turns = sum(own for own, _ in parts)
    if learn is not None and len(learn) != turns:
        raise InputError(
            f"the conversation of task {task.id!r} has {turns} turns of the assistant, and {len(learn)} are said to be learnt or not; expected one each"
        )
    wanted = iter(learn if learn is not None else [True] * turns)
    prompt, segments = policy.render(messages[:start]), list[Segment]()
    for own, said in parts:
        text = "\n".join(m.content for m in said)
        tokens = written(policy, text) if own else policy.render_after(segments[-1].tokens, said)
        segments.append(Segment(tokens, "injected" if own else "environment", text, trained=own and next(wanted)))
    room = policy.context_length - len(prompt)
    while segments and sum(len(s.tokens) for s in segments) > room:
        segments.pop()
    if not segments:
        raise InputError(f"the conversation of task {task.id!r} does not fit into the {policy.context_length} tokens that {policy.name} reads")
    return with_origin(Trajectory(task, prompt, segments, "environment"), weight=weight, **origin)


def demonstrated(policy: LanguageModel, tasks: TaskSet, task: Task, seed: int, **origin: Any) -> Trajectory:
    """What a task set shows of a task, to be imitated: a whole conversation, a worked answer, or the reference answer, whichever there is first.

    seed: which of the demonstrations. Raises InputError for a task that has none of them.
    """
    messages = tasks.conversation(task, seed)
    if messages is None:
        text = tasks.demonstration(task, seed) or task.answer
        if text is None:
            raise InputError(f"task {task.id!r} of {tasks.name} has no demonstration and no answer; expected tasks that can be imitated")
        messages = [*task.messages, Message("assistant", text)]
    return conversation_example(policy, task, messages, **origin)


def relabelled(trajectory: Trajectory, prompt: Sequence[int], *, turn: int = -1, **origin: Any) -> Trajectory:
    """One of the policy's turns as the answer to another prompt: what succeeded late is learnt as what to do at once (hindsight).

    prompt: the tokens of the context that it is learnt under. turn: which of the policy's turns, the last by default.
    """
    own = [s for s in trajectory.segments if s.author in ("policy", "injected")][turn]
    alone = replace(trajectory, prompt=list(prompt), segments=[as_target(own)], parent=None, fork=0, train_prompt=None, tags=dict(trajectory.tags))
    return with_origin(alone, **origin)


def spliced(task: Task, prompt: Sequence[int], read: Sequence[Segment], learnt: Sequence[Segment], **origin: Any) -> Trajectory:
    """A history of two parts, the first only read and the second learnt: of the second, what the environment wrote is read all the same."""
    segments = [replace(s, trained=False) for s in read] + [as_target(s) if s.author in ("policy", "injected") else replace(s, trained=False) for s in learnt]
    return with_origin(Trajectory(task, list(prompt), segments, "environment"), **origin)


def as_target(segment: Segment) -> Segment:
    """A span to be imitated, whoever wrote it: without the probabilities that it was drawn with."""
    return replace(segment, trained=True, logprobs=[], entropies=[], versions=[], alternatives=[], advantages=[1.0] * len(segment.tokens))


def with_origin(trajectory: Trajectory, *, weight: float = 1.0, **origin: Any) -> Trajectory:
    """The example with its weight in the loss, and with where it came from in the tag ORIGIN."""
    known: Mapping[str, Any] = trajectory.tags.get(ORIGIN, {})
    example = replace(trajectory, tags={**trajectory.tags, ORIGIN: {**known, **origin}}, segments=[replace(s) for s in trajectory.segments])
    example.set_advantage(weight)
    return example


def written(policy: LanguageModel, text: str) -> list[int]:
    """A whole turn as the policy would write it, with the end of the turn."""
    tokens: list[int] = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
    end: Any = policy.tokenizer.eos_token_id
    return [*tokens, end]

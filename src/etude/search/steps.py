"""Partial solutions in a sampler: a policy writes one step at a time, and many ways on from the same place.

A step ends with a delimiter (a line break, say) and a solution with the model's own end token. Where a step was written to, the sampler keeps its keys and values, so that
the next steps are forks of it and no prefix is computed twice. What is kept is bounded: beyond that the oldest places are let go, and read anew when they are needed.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from etude.errors import InputError, NonFiniteError
from etude.ledger import FORWARD, Ledger
from etude.models.attention import AttentionPlan
from etude.models.language import LanguageModel
from etude.models.sampling import FinishedEvent, Request, SamplingParams
from etude.search.tree import Node
from etude.tasks.base import TaskSet
from etude.types import Completion, Segment, Task, Trajectory

KEPT_BYTES = 2**30
"""Memory that kept keys and values may take."""
Key = Hashable
"""A place, for whoever asks: a tree and a node, say."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Steps wanted behind a place: its key, all its tokens, and the key of the random numbers of each step."""

    key: Key
    context: Sequence[int]
    streams: Sequence[int]


class StepWriter:
    """Writes steps, and remembers where they led. A context: what is kept is let go on leaving it.

    params: how a step is drawn; its stop strings are the delimiter. Every token goes into `ledger`, and a call for every step.
    """

    def __init__(self, policy: LanguageModel, params: SamplingParams, ledger: Ledger, *, kept_bytes: int = KEPT_BYTES) -> None:
        self.policy, self.params, self.ledger, self.kept_bytes = policy, params, ledger, kept_bytes
        self._kept: OrderedDict[Key, tuple[int, int, int]] = OrderedDict()
        """Of each place the sampler's request that ends there, how many tokens it has drawn, and what it takes."""
        self._bytes_per_token = AttentionPlan.of(policy.model).bytes_per_token
        self._bytes = 0
        self._loose: set[int] = set()
        """Requests that the sampler keeps, and that are neither kept nor dropped yet."""

    def __enter__(self) -> StepWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for key in list(self._kept):
            self.forget(key)
        for request in self._loose:
            self.policy.sampler.release(request)
        self._loose.clear()

    def write(self, asked: Sequence[Ask], *, keep: bool = True) -> list[list[Completion]]:
        """The steps of each ask, all drawn in one batch. keep: they may be kept, until they are dropped. Raises NonFiniteError where log-probabilities are not finite."""
        sampler = self.policy.sampler
        before = sampler.clock.copy()
        rows = [[self._begin(ask, stream, keep) for stream in ask.streams] for ask in asked]
        waiting = {ident for row in rows for ident in row}
        self._loose |= waiting if keep else set()
        done: dict[int, Completion] = {}
        while waiting:
            for event in sampler.step():
                if isinstance(event, FinishedEvent) and event.request in waiting:
                    done[event.request] = event.completion
                    waiting.remove(event.request)
        spent = sampler.clock.since(before)
        self.ledger.generated_tokens += spent.generated_tokens
        self.ledger.prompt_tokens += spent.prefill_tokens
        self.ledger.decode_steps += spent.steps
        self.ledger.count_call("policy", len(done))
        self.ledger.forward_equivalents += FORWARD * (spent.generated_tokens + spent.prefill_tokens)
        if not all(math.isfinite(value) for completion in done.values() for value in completion.logprobs):
            raise NonFiniteError(f"the log-probabilities of {self.policy.name} are not finite: its weights or activations hold NaN or infinities")
        return [[done[ident] for ident in row] for row in rows]

    def keep(self, key: Key, completion: Completion) -> None:
        """Remember the place that a step led to, under a key."""
        self.forget(key)
        size = self._bytes_per_token * (len(completion.prompt) + len(completion.tokens))
        self._loose.discard(completion.request)
        self._kept[key] = (completion.request, len(completion.tokens), size)
        self._bytes += size
        while self._bytes > self.kept_bytes and len(self._kept) > 1:
            self.forget(next(iter(self._kept)))

    def drop(self, completions: Sequence[Completion]) -> None:
        """Let go of steps that are not kept."""
        for completion in completions:
            self._loose.discard(completion.request)
            self.policy.sampler.release(completion.request)

    def forget(self, key: Key) -> None:
        """Let go of a place, if it is kept."""
        if key in self._kept:
            request, _, size = self._kept.pop(key)
            self._bytes -= size
            self.policy.sampler.release(request)

    def ends(self, completion: Completion) -> bool:
        """Whether nothing comes after a step: the model ended its answer, or a stop string of the tasks did; or the step ran out of tokens, or the context is full."""
        if completion.stop_reason != "stop" or len(completion.prompt) + len(completion.tokens) + 1 >= self.policy.context_length:
            return True
        _, *others = self.params.stop
        return bool(others) and any(stop in str(self.policy.tokenizer.decode(completion.tokens, skip_special_tokens=True)) for stop in others)

    def _begin(self, ask: Ask, stream: int, keep: bool) -> int:
        sampler = self.policy.sampler
        held = self._kept.get(ask.key)
        if held is None:
            return sampler.add(Request(tuple(ask.context), self.params, stream=stream, keep=keep))
        request, drawn, _ = held
        # The last token is fed again for its logits; handed over as given, it makes everything before the new step its prompt.
        return sampler.fork(request, drawn - 1, append=[ask.context[-1]], stream=stream, params=self.params, keep=keep)


def step_params(task_set: TaskSet, params: SamplingParams, *, delimiter: str, step_tokens: int) -> SamplingParams:
    """How a step of a solution is drawn, from how a whole solution is. Raises InputError for tasks in turns, and for a delimiter that is nothing."""
    environment = task_set.environment()
    if environment is not None:
        environment.close()
        raise InputError(
            f"{task_set.name} is played in turns with an environment, and this search goes through the steps of a single turn; agent-r searches the turns of episodes"
        )
    written = delimiter.replace("\\n", "\n")
    if not written:
        raise InputError("--delimiter is empty; expected what a step ends with, as '\\n' or '\\n\\n'")
    return replace(params, max_new_tokens=step_tokens or params.max_new_tokens, stop=(written, *params.stop))


def step_state(completion: Completion, value: float) -> dict[str, Any]:
    """What a node of a step is known by, as plain JSON values."""
    return {
        "text": completion.text,
        "tokens": completion.tokens,
        "logprobs": completion.logprobs,
        "entropies": completion.entropies,
        "versions": completion.versions,
        "stop_reason": completion.stop_reason,
        "value": value,
    }


def context_of(path: Sequence[Node]) -> list[int]:
    """All tokens of a path from the root: the prompt, and the steps."""
    return [token for node in path for token in node.state["tokens"]]


def solution_of(task: Task, path: Sequence[Node], delimiter: str) -> Trajectory:
    """The attempt that a path is, as the policy would have written it in one go; not judged."""
    root, *steps = path

    def joined(name: str) -> list[Any]:
        return [value for step in steps for value in step.state[name]]

    text = delimiter.join(step.state["text"] for step in steps)
    written = Segment(joined("tokens"), "policy", text, trained=True, logprobs=joined("logprobs"), entropies=joined("entropies"), versions=joined("versions"))
    return Trajectory(task, list(root.state["tokens"]), [written], path[-1].state["stop_reason"] if steps else "length")

"""Attempts whose first words are chosen from a list, and tries in turn: each in another of them, until one succeeds.

What an answer opens with (a strategy's tag, a tool's name, a language) is then a choice of the policy's own, with probabilities that can be read, restricted and drawn
from exactly. The rest of the answer is sampled as ever.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from random import Random

from etude.errors import InputError
from etude.ledger import FORWARD, Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams
from etude.rollouts.episodes import EpisodeRequest, run_episodes
from etude.tasks.base import TaskSet
from etude.types import Message, Task, Trajectory

OPENING, TRY = "opening", "try"
"""Tags of an attempt: the number of what it opened with, and how many tries at the task came before it in its turn."""


def restricted(logprobs_K: Sequence[float], allowed: Sequence[bool], temperature: float = 1.0) -> list[float]:
    """Probabilities of K openings, of which only some are allowed: softmax(log-probability / temperature) over those, 0 for the others.

    Temperature 0 gives the likeliest allowed one. Raises InputError where none is allowed.
    """
    if not any(allowed):
        raise InputError("no opening is allowed; expected at least one")
    top = max(value for value, may in zip(logprobs_K, allowed, strict=True) if may)
    if temperature == 0:
        best = next(k for k, value in enumerate(logprobs_K) if allowed[k] and value == top)
        return [float(k == best) for k in range(len(logprobs_K))]
    weights = [math.exp((value - top) / temperature) if may else 0.0 for value, may in zip(logprobs_K, allowed, strict=True)]
    return [w / sum(weights) for w in weights]


@dataclass(frozen=True)
class Openings:
    """K texts that an answer may begin with, as a policy's tokens."""

    policy: LanguageModel
    tokens: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, policy: LanguageModel, texts: Sequence[str]) -> Openings:
        """Raises InputError where the tokens of one begin those of another: they could not be told apart."""
        tokens = tuple(tuple(policy.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
        for (one, a), (other, b) in permutations(zip(texts, tokens, strict=True), 2):
            if b[: len(a)] == a:
                raise InputError(f"{policy.name} reads {one!r} as the beginning of {other!r}; expected openings that differ in an early token")
        return cls(policy, tokens)

    @property
    def longest(self) -> int:
        return max(map(len, self.tokens))

    def logprobs(self, contexts: Sequence[Sequence[int]], ledger: Ledger) -> list[list[float]]:
        """[Q][K] log-probability of each opening after each of Q contexts, at temperature 1. A single opening is no choice, and costs nothing."""
        count = len(self.tokens)
        if count == 1:
            return [[0.0] for _ in contexts]
        pairs = [(context, opening) for context in contexts for opening in self.tokens]
        read = sum(len(context) + len(opening) - 1 for context, opening in pairs)
        ledger.prompt_tokens += read
        ledger.forward_equivalents += FORWARD * read
        values = [sum(v) for v in self.policy.sampler.score([c for c, _ in pairs], [o for _, o in pairs])]
        return [values[q * count : (q + 1) * count] for q in range(len(contexts))]


def after_tries(task: Task, tries: Sequence[Trajectory], request: str) -> tuple[Message, ...]:
    """The task with earlier attempts at it, each followed by a request for another."""
    return (*task.opening, *(m for t in tries for m in (Message("assistant", t.last_text), Message("user", request))))


def tries_in_turn(
    openings: Openings,
    tasks: Sequence[Task],
    task_set: TaskSet,
    params: SamplingParams,
    *,
    request: str,
    most: int,
    repeat: bool = False,
    judge: Callable[[list[Trajectory]], None],
    failed: Callable[[Trajectory], bool],
    stream: Callable[[Task, int, int], int],
    ledger: Ledger,
) -> list[list[Trajectory]]:
    """The attempts at each of Q tasks, in turn and judged: at most `most`, until one has not failed. Each sees the earlier ones, and opens in none of their ways.

    The policy draws the opening among those that are left, at the temperature of `params`. repeat: among all of them instead. stream(task, place, try) names the
    random numbers of a try at `tasks[place]`. A task whose next prompt would leave no room for a whole answer gets no further try. The ledger counts everything, the
    openings as generated tokens.
    """
    policy = openings.policy
    found: list[list[Trajectory]] = [[] for _ in tasks]
    active = list(range(len(tasks)))
    for turn in range(most):
        shown = {q: after_tries(tasks[q], found[q], request) for q in active}
        prompts = {q: policy.render(messages) for q, messages in shown.items()}
        active = [q for q in active if not turn or len(prompts[q]) + params.max_new_tokens <= policy.context_length]
        if not active:
            break
        requests, chosen = list[EpisodeRequest](), list[int]()
        for q, logprobs in zip(active, openings.logprobs([prompts[q] for q in active], ledger), strict=True):
            used = set() if repeat else {t.tags[OPENING] for t in found[q]}
            probabilities = restricted(logprobs, [k not in used for k in range(len(logprobs))], params.temperature)
            key = stream(tasks[q], q, turn)
            chosen.append(Random(f"opening/{key}").choices(range(len(logprobs)), probabilities)[0])
            requests.append(EpisodeRequest(tasks[q], turn, key, shown[q], openings.tokens[chosen[-1]]))
        tried = run_episodes(policy, requests, task_set, params, max_turns=1, ledger=ledger)
        for q, opening, trajectory in zip(active, chosen, tried, strict=True):
            trajectory.tags |= {OPENING: opening, TRY: turn}
            found[q].append(trajectory)
        judge(tried)
        active = [q for q in active if failed(found[q][-1]) and (repeat or len(found[q]) < len(openings.tokens))]
    return found

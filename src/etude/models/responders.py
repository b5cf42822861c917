"""Whoever answers conversations, whether it runs here or behind an endpoint: one interface for evaluations that only need texts back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from etude.errors import InputError
from etude.models.endpoint import Endpoint, Reply
from etude.models.sampling import Request, SamplingParams, stream_key
from etude.types import Message, Task

if TYPE_CHECKING:
    from etude.models.language import LanguageModel


@dataclass(frozen=True)
class Asked:
    """A conversation to be gone on with, under a name that its random numbers depend on."""

    id: str
    messages: tuple[Message, ...]


class Responder(Protocol):
    """Answers conversations, many at a time."""

    def replies(self, asked: Sequence[Asked], params: SamplingParams, *, samples: int, key: Sequence[int | str]) -> list[list[Reply]]:
        """`samples` answers to each conversation. The same key and ids draw with the same random numbers, where the responder is able to."""
        ...

    def fits(self, messages: Sequence[Message], new_tokens: int) -> bool:
        """Whether a conversation leaves room for an answer of so many tokens."""
        ...

    def likelihoods(self, asked: Sequence[Asked], answers: Sequence[Sequence[str]]) -> list[list[float]]:
        """Log-probability of each given answer as a whole, right after its conversation. Raises InputError where the responder has none."""
        ...


@dataclass
class LocalResponder:
    """A model that runs here."""

    policy: LanguageModel

    def replies(self, asked: Sequence[Asked], params: SamplingParams, *, samples: int, key: Sequence[int | str]) -> list[list[Reply]]:
        requests = []
        for each in asked:
            prompt = tuple(self.policy.render(each.messages))
            if len(prompt) >= self.policy.context_length:
                raise InputError(f"what {each.id!r} is asked has {len(prompt)} tokens, but {self.policy.name} reads {self.policy.context_length} in all")
            requests += [Request(prompt, params, stream=stream_key(*key, each.id, sample)) for sample in range(samples)]
        done = self.policy.sampler.generate(requests)
        replies = [Reply(c.text, float(len(c.tokens)), c.finished, float(len(c.prompt))) for c in done]
        return [replies[i : i + samples] for i in range(0, len(replies), samples)]

    def fits(self, messages: Sequence[Message], new_tokens: int) -> bool:
        return len(self.policy.render(messages)) + new_tokens <= self.policy.context_length

    def likelihoods(self, asked: Sequence[Asked], answers: Sequence[Sequence[str]]) -> list[list[float]]:
        contexts, options = [], []
        for each, given in zip(asked, answers, strict=True):
            context = self.policy.render(each.messages)
            contexts += [context] * len(given)
            options += [list(self.policy.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in given]
        totals = iter([sum(values) for values in self.policy.sampler.score(contexts, options)])
        return [[next(totals) for _ in given] for given in answers]


@dataclass
class RemoteResponder:
    """A model behind an endpoint. How long its context is nobody says, so that everything is taken to fit."""

    endpoint: Endpoint

    def replies(self, asked: Sequence[Asked], params: SamplingParams, *, samples: int, key: Sequence[int | str]) -> list[list[Reply]]:
        tasks = [Task(each.id, each.messages) for each in asked]
        return self.endpoint.sample(tasks, params, samples=samples, seed=stream_key(*key) % 2**31)

    def fits(self, messages: Sequence[Message], new_tokens: int) -> bool:
        return True

    def likelihoods(self, asked: Sequence[Asked], answers: Sequence[Sequence[str]]) -> list[list[float]]:
        raise InputError("an endpoint gives no log-probabilities of options; leave --option-logits out, or measure a model that runs here")

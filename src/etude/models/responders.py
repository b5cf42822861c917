"""Whoever answers conversations, whether it runs here or behind an endpoint: one interface for evaluations that only need texts back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from etude.errors import InputError
from etude.ledger import Ledger
from etude.models.remote import Endpoint, Query
from etude.models.replies import Reply, count_replies
from etude.models.sampling import Request, SamplingParams, stream_key
from etude.types import Message

if TYPE_CHECKING:
    from etude.models.language import LanguageModel
    from etude.models.schemas import Schema


@dataclass(frozen=True)
class Asked:
    """A conversation to be gone on with, under a name that its random numbers depend on.

    schema: the form that the answer must have, for a responder that can enforce it; see `etude.models.structured`, which checks it in any case.
    """

    id: str
    messages: tuple[Message, ...]
    schema: Schema[Any] | None = None


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


def request_seed(key: Sequence[int | str], asked: Asked) -> int:
    """The seed of a conversation's first sample, as servers take it: 31 bits of the key and the conversation's name."""
    return stream_key(*key, asked.id) % 2**31


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
        return self.endpoint.answers([Query(a.messages, params, samples, request_seed(key, a), a.schema, repr(a.id)) for a in asked])

    def fits(self, messages: Sequence[Message], new_tokens: int) -> bool:
        return True

    def likelihoods(self, asked: Sequence[Asked], answers: Sequence[Sequence[str]]) -> list[list[float]]:
        raise InputError("an endpoint gives no log-probabilities of options; leave --option-logits out, or measure a model that runs here")


@dataclass
class CountedResponder:
    """Another responder, whose answers are counted into a ledger: tokens written and read, and a call each under `role`.

    A run that is replayed from kept answers counts the same as one that asked for them; what went over the network is in the endpoint's own `allowance.spent`.
    """

    responder: Responder
    ledger: Ledger
    role: str = "policy"

    def replies(self, asked: Sequence[Asked], params: SamplingParams, *, samples: int, key: Sequence[int | str]) -> list[list[Reply]]:
        rows = self.responder.replies(asked, params, samples=samples, key=key)
        count_replies(self.ledger, (reply for row in rows for reply in row), self.role)
        return rows

    def fits(self, messages: Sequence[Message], new_tokens: int) -> bool:
        return self.responder.fits(messages, new_tokens)

    def likelihoods(self, asked: Sequence[Asked], answers: Sequence[Sequence[str]]) -> list[list[float]]:
        return self.responder.likelihoods(asked, answers)

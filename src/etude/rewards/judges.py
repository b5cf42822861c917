"""Models that judge: a question goes in, what the model writes comes out, and every token is counted.

What is asked and how the answer is read is the method's business. Which model answers is a setting: the policy as it is (`live`), as it was at the start
(`frozen`), a moving average of its weights (`average`), any other model, or an endpoint. Judgements are data: they are never trained on, unless a method makes
rollouts of them itself.

A judge that shares the machine answers when everything is asked for with `settle`, in one batch. An endpoint begins at once and works in threads, so that it judges
the first attempts while the last ones are still being written.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from etude.config import JudgeConfig
from etude.errors import InputError
from etude.ledger import FORWARD, Ledger
from etude.models.averaged import AveragedModel
from etude.models.language import LanguageModel
from etude.models.remote import Endpoint, Query, is_endpoint
from etude.models.responders import Asked, Responder
from etude.models.sampling import Request, SamplingParams
from etude.models.schemas import Schema
from etude.types import Message

ROLE = "judge"
"""The role that judges' calls are counted under."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a judge is asked, and the key of the random numbers that it answers with.

    subject: what the words are about, for a judge that does not need them. schema: the form of the answer, for an endpoint that can enforce it.
    """

    messages: tuple[Message, ...]
    stream: int
    subject: Any = None
    schema: Schema[Any] | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge wrote. tokens: read and written. finished: the judge ended it itself; what it did not end may lack its verdict."""

    text: str
    tokens: int
    finished: bool


class Judge(ABC):
    """A model that is asked about attempts. What it reads and writes is added to `ledger` as judged tokens, and a call for every question."""

    def __init__(self, name: str, params: SamplingParams, ledger: Ledger) -> None:
        self.name, self.params, self.ledger = name, params, ledger

    @abstractmethod
    def ask(self, question: Question) -> Future[Judgement]:
        """Hand in a question. The answer is there after `settle`, of an endpoint perhaps before."""

    @abstractmethod
    def settle(self) -> None:
        """Have everything answered that was asked, and count it.

        Raises what answering raises: EtudeError or InputError of an endpoint that fails.
        """

    def follow(self) -> None:
        """Hear that the policy has changed: after every step. An average takes its part of the new weights."""

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs of the judge, as named tensors."""
        return {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go back to a saved state."""

    def close(self) -> None:
        """Let go of connections and threads."""

    def _count(self, tokens: int, calls: int) -> None:
        self.ledger.judged_tokens += tokens
        self.ledger.count_call(ROLE, calls)


class LocalJudge(Judge):
    """A model in this process: the policy itself, a copy of it, or another."""

    def __init__(self, model: LanguageModel, params: SamplingParams, ledger: Ledger) -> None:
        super().__init__(model.name, params, ledger)
        self.model = model
        self._asked: list[tuple[Question, Future[Judgement]]] = []

    def ask(self, question: Question) -> Future[Judgement]:
        future: Future[Judgement] = Future()
        self._asked.append((question, future))
        return future

    def settle(self) -> None:
        asked, self._asked = self._asked, []
        sampler = self.model.sampler
        fitting: list[tuple[Request, Future[Judgement]]] = []
        for question, future in asked:
            prompt = self.model.render(question.messages)
            if len(prompt) < self.model.context_length:
                fitting.append((Request(tuple(prompt), self.params, stream=question.stream), future))
            else:
                warnings.warn(
                    f"a question for the judge {self.name} has {len(prompt)} tokens, but it reads {self.model.context_length} in all: such attempts go unjudged",
                    stacklevel=2,
                )
                future.set_result(Judgement("", 0, finished=False))
        before = sampler.clock.copy()
        for (request, future), completion in zip(fitting, sampler.generate([request for request, _ in fitting]), strict=True):
            future.set_result(Judgement(completion.text, len(request.prompt) + len(completion.tokens), completion.finished))
        spent = sampler.clock.since(before)
        # A prompt that several questions share is read once: the clock knows.
        read_and_written = spent.prefill_tokens + spent.generated_tokens
        self.ledger.decode_steps += spent.steps
        self.ledger.forward_equivalents += FORWARD * read_and_written
        self._count(read_and_written, len(fitting))


class AverageJudge(LocalJudge):
    """An exponential moving average of the policy's weights: w <- decay w + (1 - decay) w_policy after every step."""

    def __init__(self, policy: LanguageModel, decay: float, params: SamplingParams, ledger: Ledger) -> None:
        self.average, self.decay = AveragedModel(policy), decay
        super().__init__(self.average.model, params, ledger)

    def follow(self) -> None:
        self.average.follow(1 - self.decay)

    def state(self) -> dict[str, Tensor]:
        return self.average.state()

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        self.average.load_state(tensors)


class EndpointJudge(Judge):
    """A model behind an OpenAI-compatible endpoint, which begins as soon as it is asked.

    Tokens are the server's count; of a server that does not count, the policy's tokenizer's.
    """

    def __init__(self, endpoint: Endpoint, policy: LanguageModel, params: SamplingParams, ledger: Ledger) -> None:
        super().__init__(f"{endpoint.base_url}#{endpoint.model}", params, ledger)
        self.endpoint, self.policy = endpoint, policy
        self._threads = ThreadPoolExecutor(endpoint.concurrency)
        self._asked: list[Future[Judgement]] = []

    def ask(self, question: Question) -> Future[Judgement]:
        future = self._threads.submit(self._answer, question)
        self._asked.append(future)
        return future

    def settle(self) -> None:
        asked, self._asked = self._asked, []
        for place, future in enumerate(asked):
            try:
                self._count(future.result().tokens, 1)
            except BaseException:
                for waiting in asked[place + 1 :]:
                    waiting.cancel()
                raise

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    def _answer(self, question: Question) -> Judgement:
        (reply,) = self.endpoint.answer(Query(question.messages, self.params, seed=question.stream % 2**31, schema=question.schema, about="a judge's question"))
        counted = reply.length + reply.prompt_length
        if math.isnan(counted):
            counted = len(self.policy.render(question.messages)) + len(self.policy.tokenizer.encode(reply.text))
        return Judgement(reply.text, round(counted), reply.finished)


class ResponderJudge(Judge):
    """Whoever answers conversations, such as a scripted model. Tokens are those that the responder counts."""

    def __init__(self, responder: Responder, name: str, params: SamplingParams, ledger: Ledger) -> None:
        super().__init__(name, params, ledger)
        self.responder = responder
        self._asked: list[tuple[Question, Future[Judgement]]] = []

    def ask(self, question: Question) -> Future[Judgement]:
        future: Future[Judgement] = Future()
        self._asked.append((question, future))
        return future

    def settle(self) -> None:
        asked, self._asked = self._asked, []
        conversations = [Asked(str(question.stream), question.messages, question.schema) for question, _ in asked]
        rows = self.responder.replies(conversations, self.params, samples=1, key=(ROLE,))
        for (_, future), (reply,) in zip(asked, rows, strict=True):
            counted = round(sum(length for length in (reply.length, reply.prompt_length) if not math.isnan(length)))
            self._count(counted, 1)
            future.set_result(Judgement(reply.text, counted, reply.finished))


def open_judge(config: JudgeConfig, policy: LanguageModel, ledger: Ledger, *, stop: tuple[str, ...] = ()) -> Judge:
    """The judge that a configuration names, for a policy that is as it was at the start.

    Raises InputError for a model that cannot be loaded and an endpoint that does not answer, before anything is sampled.
    """
    params = SamplingParams(max_new_tokens=config.judge_tokens, temperature=config.judge_temperature, stop=stop)
    if config.judge == "live":
        return LocalJudge(policy, params, ledger)
    if config.judge == "frozen":
        return LocalJudge(policy.copy(f"the start of {policy.name}"), params, ledger)
    if config.judge == "average":
        return AverageJudge(policy, config.judge_decay, params, ledger)
    if is_endpoint(config.judge):
        endpoint = Endpoint.parse(config.judge, concurrency=config.judge_concurrency)
        endpoint.check()
        return EndpointJudge(endpoint, policy, params, ledger)
    try:
        model = LanguageModel.load(config.judge, device=str(policy.device))
    except InputError as error:
        raise InputError(
            f"--judge {config.judge} can't be used: {error}; expected live, frozen, average, a model, http://host:port/v1#model, or openai:NAME"
        ) from error
    return LocalJudge(model, params, ledger)

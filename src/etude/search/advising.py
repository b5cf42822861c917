"""Questions to a model about whole attempts: summaries with ratings, guidance for further ones, and which is the best. Every answer is an object, or None with a reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, TypeVar

from annotated_types import Ge

from etude.ledger import Ledger
from etude.memory.attempt_summaries import Attempted, Shortening, Summary, question
from etude.models.responders import Asked, CountedResponder, Responder
from etude.models.sampling import SamplingParams
from etude.models.schemas import Schema
from etude.models.structured import Structured, ask_structured
from etude.sandbox.base import cut
from etude.search.attempt_operators import Advice, Operator, advice_question
from etude.types import Message

T = TypeVar("T")
CHOOSE = """Below are summaries of attempts at the same task. Which one is most likely right? Answer with its number, or 0 if you cannot tell."""
NO_ROOM = "the question does not fit into the model's context"
HALVINGS = 5
"""How often a question is made shorter until it fits."""


@dataclass(frozen=True)
class Choice:
    """The number of an attempt, from 1, or 0."""

    best: Annotated[int, Ge(0)]


@dataclass(frozen=True)
class Consulted:
    """What an operator's question is about. name: what its random numbers depend on. summaries: of the parents, in the order in which the operator speaks of them."""

    name: str
    operator: Operator
    problem: str
    summaries: Sequence[str]


@dataclass
class Adviser:
    """Whoever summarises and advises, with what it may read and write.

    params: of its answers. limits: how logs are shortened; where a question does not fit they are halved. words: of guidance. repairs: how often it is asked again where its
    answer cannot be read. Everything goes into `ledger`, under the roles `summary`, `operator` and `pick`.
    """

    responder: Responder
    ledger: Ledger
    params: SamplingParams
    limits: Shortening = field(default_factory=Shortening)
    words: int = 200
    repairs: int = 1

    def summaries(self, attempts: Sequence[tuple[str, Attempted]], *, key: Sequence[int | str]) -> list[Structured[Summary]]:
        """A summary of each attempt, which goes with a name of its own."""
        return self._ask("summary", Summary, [(name, lambda limits, a=attempt: question(a, limits)) for name, attempt in attempts], key)

    def advice(self, consulted: Sequence[Consulted], *, key: Sequence[int | str]) -> list[Structured[Advice]]:
        """Guidance by each operator."""

        def asked(one: Consulted, limits: Shortening) -> tuple[Message, ...]:
            return advice_question(one.operator, one.problem, one.summaries, words=self.words, most_problem=limits.problem)

        return self._ask("operator", Advice, [(one.name, lambda limits, one=one: asked(one, limits)) for one in consulted], key)

    def choice(self, name: str, problem: str, summaries: Sequence[str], *, key: Sequence[int | str]) -> Structured[Choice]:
        """Which of some attempts is the best."""
        attempts = "\n\n".join(f"Attempt {number}:\n{summary}" for number, summary in enumerate(summaries, 1))

        def asked(limits: Shortening) -> tuple[Message, ...]:
            return (Message("user", f"{CHOOSE}\n\nThe task:\n{cut(problem, limits.problem)}\n\n{attempts}"),)

        return self._ask("pick", Choice, [(name, asked)], key)[0]

    def _ask(
        self, role: str, kind: type[T], asked: Sequence[tuple[str, Callable[[Shortening], tuple[Message, ...]]]], key: Sequence[int | str]
    ) -> list[Structured[T]]:
        schema = Schema.of(kind)
        found: list[Structured[T]] = [Structured(None, NO_ROOM, ()) for _ in asked]
        fitting: list[tuple[int, Asked]] = []
        for place, (name, made) in enumerate(asked):
            limits = self.limits
            for _ in range(HALVINGS):
                *before, last = made(limits)
                messages = (*before, replace(last, content=f"{last.content}\n\n{schema.instruction}"))
                if self.responder.fits(messages, self.params.max_new_tokens):
                    fitting.append((place, Asked(name, messages)))
                    break
                limits = limits.halved()
        counted = CountedResponder(self.responder, self.ledger, role)
        answers = ask_structured(counted, [each for _, each in fitting], schema, self.params, key=(*key, role), repairs=self.repairs, told=False)
        for (place, _), answer in zip(fitting, answers, strict=True):
            found[place] = answer
        return found

"""Exemplars: questions that were solved, with the worked answers that solved them, kept to be shown when a similar question is not.

Similarity is the cosine of counts of three-character pieces by default: it needs no model and no download. Another embedding is a function from text to named weights.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from etude.tasks.base import prompt_key
from etude.types import Message, Task

Embedding = Callable[[str], Mapping[str, float]]
"""From a text to its features' weights."""
Whose = Literal["any", "same", "other"]
"""Which families examples may come from: any, the question's own, or only others."""


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A solved question. `key` identifies the question whatever its task is called (`prompt_key`); tokens is the length of the answer."""

    key: str
    question: str
    answer: str
    family: str
    tokens: int


class ExemplarStore:
    """Solved questions, newest last. At most `capacity`, one answer each; the question that was solved least recently goes first.

    prefer: of two answers to one question keep the `shortest` (the newer of two equally long) or the `newest`.
    token_limit: answers longer than this are not kept (0: any length). Half an answer would show work that leads nowhere.
    forbidden: keys of questions that must never be shown: the held-out ones.
    """

    def __init__(
        self,
        *,
        capacity: int = 512,
        prefer: Literal["shortest", "newest"] = "shortest",
        token_limit: int = 0,
        forbidden: Container[str] = frozenset(),
        embedding: Embedding | None = None,
    ) -> None:
        self.capacity = capacity
        self.prefer = prefer
        self.token_limit = token_limit
        self.forbidden = forbidden
        self._embedding = embedding or trigrams
        self._kept: dict[str, Exemplar] = {}
        self._vectors: dict[str, tuple[Mapping[str, float], float]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self):
        return iter(self._kept.values())

    def add(self, task: Task, answer: str, tokens: int) -> bool:
        """Keep a verified answer; False where it is too long, empty, worse than what is kept, or the question must not be shown."""
        key = prompt_key(task)
        if key in self.forbidden or not answer.strip() or (self.token_limit and tokens > self.token_limit):
            return False
        known = self._kept.get(key)
        if known is not None and self.prefer == "shortest" and known.tokens < tokens:
            return False
        # Put in anew, it counts as the newest.
        self._kept.pop(key, None)
        self._put(Exemplar(key, task.prompt, answer, family_of(task), tokens))
        while len(self._kept) > self.capacity:
            oldest = next(iter(self._kept))
            del self._kept[oldest], self._vectors[oldest]
        return True

    def similar(self, task: Task, count: int, *, whose: Whose = "any") -> list[Exemplar]:
        """Up to `count` exemplars, the most similar question first and of equals the newest; never the task's own question."""
        own, family = prompt_key(task), family_of(task)
        vector, norm = self._embedded(task.prompt)
        ranked: list[tuple[float, int, Exemplar]] = []
        for age, exemplar in enumerate(self._kept.values()):
            if exemplar.key == own or (whose == "same" and exemplar.family != family) or (whose == "other" and exemplar.family == family):
                continue
            other, length = self._vectors[exemplar.key]
            ranked.append((-cosine(vector, other, norm * length), -age, exemplar))
        return [exemplar for _, _, exemplar in sorted(ranked, key=lambda r: r[:2])[:count]]

    def state(self) -> list[dict[str, Any]]:
        """Everything that is kept, oldest first, as plain JSON values."""
        return [{"key": e.key, "question": e.question, "answer": e.answer, "family": e.family, "tokens": e.tokens} for e in self]

    def load_state(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Go back to a saved state."""
        self._kept.clear()
        self._vectors.clear()
        for values in state:
            self._put(Exemplar(**values))

    def _put(self, exemplar: Exemplar) -> None:
        self._kept[exemplar.key] = exemplar
        self._vectors[exemplar.key] = self._embedded(exemplar.question)

    def _embedded(self, text: str) -> tuple[Mapping[str, float], float]:
        vector = self._embedding(text)
        return vector, math.sqrt(sum(w * w for w in vector.values()))


def trigrams(text: str) -> Mapping[str, float]:
    """How often each piece of three characters occurs, case and runs of white space aside; of a shorter text the whole."""
    plain = " ".join(text.lower().split())
    return Counter(plain[i : i + 3] for i in range(max(1, len(plain) - 2)))


def hashed(features: Mapping[str, float], size: int = 64) -> list[float]:
    """Named weights as a vector of `size` numbers and length 1: each name adds its weight to a place that its hash names. Zeros without features."""
    vector = [0.0] * size
    for name, weight in features.items():
        vector[zlib.crc32(name.encode()) % size] += weight
    norm = math.sqrt(sum(w * w for w in vector))
    return [w / norm for w in vector] if norm else vector


def cosine(a: Mapping[str, float], b: Mapping[str, float], norms: float) -> float:
    """The cosine between two vectors whose norms have the product `norms`; 0 where one is empty."""
    if len(b) < len(a):
        a, b = b, a
    return sum(w * b[k] for k, w in a.items() if k in b) / norms if norms else 0.0


def family_of(task: Task) -> str:
    """What kind of task it is: its `family` field where it has one, else its id up to the last slash (`arithmetic/train-0-7`), else nothing."""
    named = task.info.get("family")
    return str(named) if named is not None else task.id.rpartition("/")[0]


def with_examples(task: Task, examples: Sequence[Exemplar], *, instruction: str = "") -> tuple[Message, ...]:
    """A task's messages behind solved examples: each a question and the answer to it, as earlier turns of the conversation, the best one next to the question.

    instruction: said before the first example. What the task says to the system stays in front.
    """
    system = [m for m in task.messages if m.role == "system"]
    turns: list[Message] = []
    for place, example in enumerate(reversed(examples)):
        question = f"{instruction}\n\n{example.question}" if instruction and place == 0 else example.question
        turns += [Message("user", question), Message("assistant", example.answer)]
    return (*system, *turns, *(m for m in task.messages if m.role != "system"))


def fitting_examples(
    task: Task, examples: Sequence[Exemplar], *, room: int, length: Callable[[Sequence[Message]], int], instruction: str = ""
) -> tuple[Message, ...] | None:
    """The prompt with as many examples as leave it at most `room` tokens by `length(messages)`; the least similar are dropped first. None where not one fits."""
    for count in range(len(examples), 0, -1):
        messages = with_examples(task, examples[:count], instruction=instruction)
        if length(messages) <= room:
            return messages
    return None

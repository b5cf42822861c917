"""Prompts that a model writes by the example of others (self-instruct, arXiv:2212.10560), and the sieve against those that repeat."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from random import Random

from etude.memory.introspection import nearest
from etude.tasks.feasibility import LONGEST_TASK, READS_LITTLE, listed, plain
from etude.tasks.templates import filled, read_template
from etude.types import Message, Metrics, Task

WRITE = {
    "standard": """Here are some tasks:

{examples}

Write five new tasks of the same kind. Let them differ from these and from each other. Give one task a line, numbered, without solutions and without remarks.""",
    "short": "new: {examples}",
}
"""What a model is asked, by name: for one that follows instructions, and for a small one that has been taught what it means and answers with one task."""

WRITTEN = "written"
"""Mark in the info of a task that a model wrote: nobody knows its answer."""


@dataclass(frozen=True)
class Sieved:
    """New prompts; and how many lines were none, and how many were like an earlier one."""

    fresh: list[str]
    malformed: int
    duplicates: int


@dataclass(frozen=True)
class PromptWriting:
    """The request for new prompts, with {examples} in it. alone: each answer is one prompt, instead of a list of them."""

    template: str
    alone: bool = False

    @classmethod
    def load(cls, spec: str, context_length: int) -> PromptWriting:
        """`standard`, `short`, `auto` (by how much the model reads), or a text file with {examples}. Raises InputError for a file that cannot be used."""
        if spec == "auto":
            spec = "short" if context_length < READS_LITTLE else "standard"
        template = WRITE.get(spec) or read_template(spec, "--instruct-prompt", names=("auto", *WRITE), needs=("examples",), may=())
        return cls(template, alone=spec == "short")

    def request(self, examples: Sequence[str]) -> tuple[Message, ...]:
        """The request with examples, a line each or, for a small model, behind each other."""
        shown = ("; " if self.alone else "\n").join(" ".join(e.split()) for e in examples)
        return (Message("user", filled(self.template, {"examples": shown})),)

    def sieve(self, written: Sequence[str], known: Sequence[str], *, similar: float, forbidden: Collection[str] = frozenset()) -> Sieved:
        """The prompts in some texts that are new.

        known: prompts that were there before. similar: one whose ROUGE-L over words with a known or earlier new one is above this is a duplicate. forbidden: prompts, as
        `plain` gives them, that may not be written (held-out ones).
        """
        seen = [plain(text).split() for text in known]
        fresh: list[str] = []
        malformed = duplicates = 0
        for text in written:
            lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
            items, other = (lines[:1], len(lines[1:])) if self.alone else listed(text)
            good = [item for item in items if 1 < len(item) <= LONGEST_TASK]
            malformed += other + len(items) - len(good)
            for item in good:
                words = plain(item).split()
                if plain(item) in forbidden or nearest(item, seen) > similar:
                    duplicates += 1
                    continue
                seen.append(words)
                fresh.append(item)
        return Sieved(fresh, malformed, duplicates)


class SelfInstruct:
    """Prompts that grow by what the model writes. `texts` are those written so far, which a run has to save.

    write: has the policy answer requests, each with a name. shots: prompts shown in a request at most. similar: see `PromptWriting.sieve`.
    """

    def __init__(self, writing: PromptWriting, write: Callable[[Sequence[Task]], list[str]], *, similar: float, shots: int = 4) -> None:
        self.writing, self.write, self.similar, self.shots = writing, write, similar, shots
        self.texts: list[str] = []

    def grow(self, examples: Sequence[str], requests: int, rng: Random, *, forbidden: Collection[str] = frozenset()) -> tuple[list[Task], Metrics]:
        """New tasks without answers, marked by WRITTEN in their info, out of that many requests; and `instruct/new`, `instruct/malformed`, `instruct/duplicates`."""
        asked = [self.writing.request(rng.sample(list(examples), min(self.shots, len(examples)))) for _ in range(requests)]
        texts = self.write([Task(f"self-instruct/{len(self.texts)}-{i}", request) for i, request in enumerate(asked)])
        sieved = self.writing.sieve(texts, [*examples, *self.texts], similar=self.similar, forbidden=forbidden)
        first = len(self.texts)
        self.texts += sieved.fresh
        tasks = [Task(f"written/{first + i}", (Message("user", text),), info={WRITTEN: True}) for i, text in enumerate(sieved.fresh)]
        counts = {"new": len(tasks), "malformed": sieved.malformed, "duplicates": sieved.duplicates}
        return tasks, {f"instruct/{name}": float(count) for name, count in counts.items()}

"""Introspection: tasks that the model writes itself, each under the claim that it can or cannot do it, and the examples that it is shown while it writes.

A curriculum whose tasks are requests for a verdict. What was agreed on and claimed alike becomes an example for the next cycle: a second loop of the same bias, so
that examples are capped, kept in balance, and outnumbered by the verified ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from etude.memory.curriculum import Curriculum
from etude.rollouts.similarity import rouge_l
from etude.tasks.feasibility import LABELS, Example, Label, Prompts, Verdicts, plain
from etude.types import Group, Message, Metrics, Task, mean

Writer = Callable[[Sequence[tuple[Message, ...]], int], list[str]]
"""From requests, and the number of their round, to what the model wrote to each."""


@dataclass
class ExamplePool:
    """Examples to write by: verified ones, and written ones that were agreed on, the newest last.

    capacity: written examples of each class at most. balanced: of one call to `keep`, take as many of one class as of the other.
    """

    seeds: dict[Label, list[str]]
    capacity: int = 64
    balanced: bool = True
    kept: dict[Label, list[str]] = field(default_factory=lambda: {label: [] for label in LABELS})

    def shots(self, claim: Label, verified: int, written: int, rng: Random) -> list[str]:
        """Examples of a class in random order: `verified` seeds and `written` kept ones, as far as there are; seeds take the place of kept ones that are missing."""
        kept = self.kept[claim]
        newer = rng.sample(kept, min(written, len(kept)))
        seeds = self.seeds[claim]
        shown = rng.sample(seeds, min(verified + written - len(newer), len(seeds))) + newer
        rng.shuffle(shown)
        return shown

    def keep(self, found: Mapping[Label, Sequence[str]]) -> None:
        """Take in tasks that were agreed on; the oldest make room."""
        most = min(len(found[label]) for label in LABELS) if self.balanced else None
        for label in LABELS:
            self.kept[label] = [*self.kept[label], *found[label][:most]][-self.capacity :]

    def texts(self) -> list[str]:
        """Everything that is in the pool."""
        return [text for part in (self.seeds, self.kept) for label in LABELS for text in part[label]]


def nearest(text: str, others: Sequence[Sequence[str]]) -> float:
    """The largest ROUGE-L, over words, between a task and others that are split already; 0 where there are none."""
    words = plain(text).split()
    return max((rouge_l(words, other) for other in others), default=0.0)


class Introspection(Curriculum):
    """Hands out requests for a verdict: on tasks the model wrote, and, as a fixed share, on verified ones.

    seeds: gives the verified tasks when tasks are first asked for: measuring what a model can do costs attempts. write: has the policy write. rng: random numbers,
    named by parts. capacity: written examples of each class at most. seed_share: of verified tasks in each batch. runs: requests to write in a cycle; cycles follow
    each other until there are tasks enough, `rounds` of them at most. feasible_share: of those requests, how many ask for feasible tasks. balanced: hand out as many of
    one claim as of the other, and keep as many, as far as there are. similar: a task whose ROUGE-L with an example or a task that waits is above this is a duplicate.
    forbidden: tasks, as `plain` gives them, that are never handed out. shuffled: a control, in which the claims of a cycle are exchanged among its tasks. keep_at: share
    of verdicts that have to agree for a task to become an example.
    """

    def __init__(
        self,
        *,
        prompts: Prompts,
        seeds: Callable[[], dict[Label, list[str]]],
        write: Writer,
        rng: Callable[..., Random],
        capacity: int = 64,
        seed_share: float = 0.2,
        runs: int = 12,
        rounds: int = 4,
        verified_shots: int = 6,
        written_shots: int = 2,
        feasible_share: float = 0.5,
        balanced: bool = True,
        similar: float = 0.7,
        keep_at: float = 7 / 8,
        forbidden: Collection[str] = frozenset(),
        shuffled: bool = False,
    ) -> None:
        self.prompts, self.write, self.rng = prompts, write, rng
        self.verdicts = Verdicts(prompts)
        self.seed_share, self.runs, self.rounds = seed_share, runs, rounds
        self.verified_shots, self.written_shots = verified_shots, written_shots
        self.feasible_share, self.balanced, self.similar, self.keep_at = feasible_share, balanced, similar, keep_at
        self.forbidden, self.shuffled = forbidden, shuffled
        self.capacity, self._seeds = capacity, seeds
        self._pool: ExamplePool | None = None
        self.waiting: list[Example] = []
        self.written = self.cycle = self.batch = 0
        self.counted: Metrics = {}

    @property
    def pool(self) -> ExamplePool:
        if self._pool is None:
            self._pool = ExamplePool(self._seeds(), self.capacity, self.balanced)
        return self._pool

    def next(self, count: int) -> list[Task]:
        self.counted = {}
        pool = self.pool
        self.batch += 1
        wanted = count - min(count, max(1, round(self.seed_share * count))) if self.seed_share else count
        rounds = 0
        while len(self.waiting) < wanted and rounds < self.rounds:
            self._introspect()
            rounds += 1
        tasks = [self._written(example) for example in self._taken(wanted)]
        return tasks + self._verified(pool, count - wanted)

    def observe(self, groups: Sequence[Group]) -> None:
        found: dict[Label, list[str]] = {label: [] for label in LABELS}
        for group in groups:
            task = group.trajectories[0].task
            claim, consensus = task.info.get("claim"), group.tags.get("consensus")
            if claim in LABELS and consensus is not None and consensus.majority == claim and consensus.share >= self.keep_at - 1e-9:
                found[claim].append(task.info["text"])
        self.pool.keep(found)

    def state(self) -> dict[str, Any]:
        return {
            "seeds": self._pool.seeds if self._pool is not None else None,
            "kept": self._pool.kept if self._pool is not None else None,
            "waiting": [[e.text, e.label] for e in self.waiting],
            "written": self.written,
            "cycle": self.cycle,
            "batch": self.batch,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._pool = None if state["seeds"] is None else ExamplePool(state["seeds"], self.capacity, self.balanced, state["kept"])
        self.waiting = [Example(text, label) for text, label in state["waiting"]]
        self.written, self.cycle, self.batch = int(state["written"]), int(state["cycle"]), int(state["batch"])

    def _introspect(self) -> None:
        """One cycle: have tasks written under both claims, and queue what is new."""
        pool = self.pool
        feasible = round(self.feasible_share * self.runs)
        claims: list[Label] = [LABELS[0] if i < feasible else LABELS[1] for i in range(self.runs)]
        rng = self.rng("introspection", self.cycle)
        rng.shuffle(claims)
        requests = [self.prompts.writing(claim, pool.shots(claim, self.verified_shots, self.written_shots, rng)) for claim in claims]
        answers = self.write(requests, self.cycle)
        self.cycle += 1
        known = [plain(text).split() for text in (*pool.texts(), *(e.text for e in self.waiting))]
        seeds = [plain(text).split() for label in LABELS for text in pool.seeds[label]]
        fresh: list[Example] = []
        malformed = duplicates = 0
        distances: list[float] = []
        for claim, answer in zip(claims, answers, strict=True):
            found, bad = self.prompts.tasks_in(answer)
            malformed += bad + (not found and not bad)
            for text in found:
                words = plain(text).split()
                if plain(text) in self.forbidden or words in known or nearest(text, known) > self.similar:
                    duplicates += 1
                    continue
                distances.append(nearest(text, seeds))
                known.append(words)
                fresh.append(Example(text, claim))
        if self.shuffled:
            labels: list[Label] = [e.label for e in fresh]
            rng.shuffle(labels)
            fresh = [Example(e.text, label) for e, label in zip(fresh, labels, strict=True)]
        self.waiting += fresh
        total = malformed + duplicates + len(fresh)
        before = self.counted
        self.counted = {
            "introspection/written": before.get("introspection/written", 0.0) + len(fresh),
            "introspection/malformed": malformed / total,
            "introspection/distinct": len(fresh) / max(1, duplicates + len(fresh)),
            "introspection/nearest_seed": mean(distances, default=0.0),
        }

    def _taken(self, count: int) -> list[Example]:
        """The oldest tasks that wait, alternately of either claim where batches are balanced and there are any."""
        taken: list[Example] = []
        while self.waiting and len(taken) < count:
            # Which claim comes first changes from batch to batch, so that odd numbers favour neither.
            wanted = LABELS[(self.batch + len(taken)) % 2]
            place = next((i for i, e in enumerate(self.waiting) if e.label == wanted), 0) if self.balanced else 0
            taken.append(self.waiting.pop(place))
        return taken

    def _written(self, example: Example) -> Task:
        self.written += 1
        return self.verdicts.task(example.text, id=f"introspection/{self.written}", claim=example.label)

    def _verified(self, pool: ExamplePool, count: int) -> list[Task]:
        """Verified tasks, alternately of either class, with their labels."""
        rng = self.rng("seeds", self.batch)
        shuffled = {label: rng.sample(texts, len(texts)) for label, texts in pool.seeds.items()}
        labels: list[Label] = [LABELS[(self.batch + i) % 2] for i in range(count)]
        chosen: list[tuple[Label, str]] = [(label, shuffled[label].pop()) for label in labels if shuffled[label]]
        return [self.verdicts.task(text, label, id=f"seed/{self.batch}-{i}", claim=None) for i, (label, text) in enumerate(chosen)]

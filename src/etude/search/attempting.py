"""Making attempts: whole episodes under guidance, each then summarised, rated and scored. What the verifier says of them is handed over apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from etude.ledger import Ledger
from etude.memory.attempt_summaries import Attempted, Summary
from etude.models.language import LanguageModel
from etude.models.responders import CountedResponder, Responder
from etude.models.sampling import SamplingParams
from etude.rewards import judge
from etude.rewards.attempt_score import Rules, attempt_score, efficiency, rules_of, status_of
from etude.rollouts.guided import PATCH, TESTS, Guided, guided, guided_episodes, guided_request
from etude.search.advising import Adviser
from etude.search.attempt_operators import first_words
from etude.search.attempt_pool import Attempt
from etude.types import Task, Trajectory

FACTS = ("edits", "edited_files", "test_runs", "invalid_actions", "tool_calls", "tool_errors", TESTS)
"""Tags of an episode that say what the model did. No other tag is looked at: some come from the verifier."""
UNCHANGED = "empty_patch"


@dataclass(frozen=True)
class Order:
    """An attempt to be made. number: which of the task's it is. stream: of its random numbers. calls: that its guidance has cost already."""

    task: Task
    number: int
    operator: str
    plan: str
    guidance: str
    stream: int
    calls: int = 0

    @property
    def name(self) -> str:
        return f"{self.task.id}/{self.number}"


@dataclass(frozen=True)
class Scoring:
    """How attempts are scored: rules, weights of completion, quality and efficiency, and whether the ratings of summaries count at all."""

    rules: Rules
    weights: tuple[float, float, float]
    rated: bool = True


@dataclass
class Attempter:
    """Who makes attempts, on which tasks, and who summarises them (None: nobody). params, max_turns: of an episode."""

    actor: LanguageModel | Responder
    tasks: Guided
    params: SamplingParams
    max_turns: int
    adviser: Adviser | None
    scoring: Scoring
    ledger: Ledger

    def __post_init__(self) -> None:
        inner = self.tasks.environment()
        self.in_environment = inner is not None
        if inner is not None:
            inner.close()

    def make(self, orders: Sequence[Order], *, key: Sequence[int | str]) -> list[tuple[Attempt, float, Mapping[str, bool]]]:
        """The attempts, in the order of the orders, each with the verdict on it and the executable checks of its parts: both for measuring, and for nothing else."""
        fitting = [self._fitting(order) for order in orders]
        requests = [guided_request(order.task, text, sample=order.number, stream=order.stream) for order, text in zip(orders, fitting, strict=True)]
        actor = self.actor if isinstance(self.actor, LanguageModel) else CountedResponder(self.actor, self.ledger, "policy")
        trajectories = guided_episodes(actor, requests, self.tasks, self.params, max_turns=self.max_turns, ledger=self.ledger)
        known = [self._known(order, trajectory) for order, trajectory in zip(orders, trajectories, strict=True)]
        summaries: list[Summary | None] = [None] * len(orders)
        calls = [0] * len(orders)
        if self.adviser is not None:
            named = [(order.name, attempted) for order, attempted in zip(orders, known, strict=True)]
            for place, answer in enumerate(self.adviser.summaries(named, key=key)):
                summaries[place], calls[place] = answer.value, len(answer.replies)
        judge(trajectories, self.tasks)
        made: list[tuple[Attempt, float, Mapping[str, bool]]] = []
        for order, text, trajectory, attempted, summary, spent in zip(orders, fitting, trajectories, known, summaries, calls, strict=True):
            attempt = self._scored(order, text, attempted, trajectory, summary, spent)
            made.append((attempt, trajectory.correct, _checks(trajectory)))
        return made

    def _fitting(self, order: Order) -> str:
        """The guidance, as much of it as fits into the context of a model that runs here."""
        text = order.guidance
        if isinstance(self.actor, LanguageModel):
            room = self.actor.context_length - self.params.max_new_tokens
            while text and len(self.actor.render(guided(order.task.opening, text))) > room:
                text = first_words(text, len(text.split()) // 2)
        return text

    def _known(self, order: Order, trajectory: Trajectory) -> Attempted:
        """What a summariser, a rule or a choice may know."""
        tags = trajectory.tags
        artefact = str(tags.get(PATCH, trajectory.last_text))
        status = status_of(trajectory.stop_reason, artefact, environment=self.in_environment, unchanged=bool(tags.get(UNCHANGED, False)))
        turns = [(segment.author, segment.text) for segment in trajectory.segments]
        return Attempted(order.task.prompt, turns, status, artefact, {name: tags[name] for name in FACTS if name in tags})

    def _scored(self, order: Order, guidance: str, attempted: Attempted, trajectory: Trajectory, summary: Summary | None, spent: int) -> Attempt:
        turns = [text for author, text in attempted.turns if author == "policy"]
        scoring = self.scoring
        rules = rules_of(attempted.status, turns, attempted.facts, scoring.rules)
        size, scale = (len(turns), self.max_turns) if self.in_environment else (len(trajectory.last_text.split()), self.params.max_new_tokens)
        completion = (summary.completion if summary is not None else None) if scoring.rated else 1.0
        quality = summary.quality if summary is not None and scoring.rated else None
        return Attempt(
            operator=order.operator,
            plan=order.plan,
            guidance=guidance,
            turns=attempted.turns,
            artefact=attempted.artefact,
            patched=PATCH in trajectory.tags,
            status=attempted.status,
            facts=attempted.facts,
            rules=rules,
            summary=asdict(summary) if summary is not None else {},
            value=attempt_score(sum(rules.values()) / len(rules), completion, quality, efficiency(size, scale), scoring.weights),
            calls=order.calls + len(turns) + spent,
        )


def _checks(trajectory: Trajectory) -> dict[str, bool]:
    """What running something said of parts of the attempt: the environment's own checks, and the last tests that the model ran."""
    checks: dict[str, Any] = dict(trajectory.tags.get("checks", {}))
    return {str(part): bool(holds) for part, holds in checks.items()}

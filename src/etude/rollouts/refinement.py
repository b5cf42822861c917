"""Answer, criticise, revise, until the critic is content: three roles of one policy, each by its own prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams
from etude.rollouts.episodes import EpisodeRequest, run_episodes
from etude.tasks.base import TaskSet
from etude.tasks.feedback import Roles, verdict_in
from etude.types import Message, Metrics, Trajectory, mean

Stream = Callable[[Trajectory, str, int], int]
"""From the first answer, the role and the number of the look at it to the key of the random numbers."""


@dataclass(eq=False)
class Chain:
    """An answer, the feedback on it, the answer made of both, and so on. `feedback[k]` is about `answers[k]`; None where it did not fit into the model's context."""

    answers: list[Trajectory]
    feedback: list[Trajectory | None] = field(default_factory=list)
    closed: bool = False

    @property
    def verdicts(self) -> list[bool | None]:
        """Of each feedback; None where it holds none, or is none."""
        return [None if said is None else verdict_in(said.text) for said in self.feedback]

    @property
    def final(self) -> Trajectory:
        return self.answers[-1]

    @property
    def qualified(self) -> bool:
        """Whether the final answer was found good. One that nobody looked at was not."""
        return len(self.feedback) == len(self.answers) and self.verdicts[-1] is True

    def answer(self, turn: int) -> Trajectory:
        """The answer that stands after so many refinements at most: where the chain ended earlier, its last one."""
        return self.answers[min(turn, len(self.answers) - 1)]


def refine_until_qualified(
    policy: LanguageModel,
    task_set: TaskSet,
    answers: Sequence[Trajectory],
    roles: Roles,
    params: SamplingParams,
    feedback_params: SamplingParams,
    *,
    refinements: int,
    last_word: bool,
    stream: Stream,
    ledger: Ledger,
) -> list[Chain]:
    """A chain for each answer to a task of a single turn, in their order; nothing is judged by labels.

    An answer that is found qualified is never touched: a reviser spoils right answers too. Others are refined, at most `refinements` times. last_word: ask for
    feedback on the last refinement too, for whoever filters by it. What does not fit into the model's context is not asked, and its chain ends there.
    """
    chains = [Chain([answer]) for answer in answers]

    def ask(asked: Sequence[Chain], messages: Sequence[tuple[Message, ...]], how: SamplingParams, role: str, turn: int) -> list[Trajectory | None]:
        fits = [len(policy.render(m)) + how.max_new_tokens <= policy.context_length for m in messages]
        requests = [
            EpisodeRequest(c.answers[0].task, c.answers[0].sample, stream(c.answers[0], role, turn), m)
            for c, m, fit in zip(asked, messages, fits, strict=True)
            if fit
        ]
        said = iter(run_episodes(policy, requests, task_set, how, max_turns=1, ledger=ledger))
        return [next(said) if fit else None for fit in fits]

    for turn in range(refinements + 1):
        running = [c for c in chains if not c.closed]
        if turn == refinements and not last_word:
            break
        looks = ask(running, [roles.criticise(c.final.task, c.final.text) for c in running], feedback_params, "feedback", turn)
        for chain, look in zip(running, looks, strict=True):
            chain.feedback.append(look)
            chain.closed = look is None or chain.qualified
        if turn == refinements:
            break
        running = [c for c in running if not c.closed]
        spoken = [c.feedback[-1] for c in running]
        wanted = [roles.revise(c.final.task, c.final.text, said.text) for c, said in zip(running, spoken, strict=True) if said is not None]
        for chain, better in zip(running, ask(running, wanted, params, "refine", turn), strict=True):
            if better is None:
                chain.closed = True
            else:
                chain.answers.append(better)
    return chains


def chain_metrics(chains: Sequence[Chain]) -> Metrics:
    """Shares of chains: `qualified`, whose final answer was found good; `refined`, which hold more than one; and `refinements`, their mean number. Empty where no
    feedback was asked for."""
    if not any(c.feedback for c in chains):
        return {}
    return {
        "qualified": mean([float(c.qualified) for c in chains]),
        "refined": mean([float(len(c.answers) > 1) for c in chains]),
        "refinements": mean([len(c.answers) - 1.0 for c in chains]),
    }

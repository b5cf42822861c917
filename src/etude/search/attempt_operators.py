"""How a new attempt comes out of earlier ones (SE-Agent, arXiv:2508.02085): a model reads their summaries and writes guidance, and the whole task is tried again under it.

Nothing of a log is copied. What passes on is a text for the system message: a plan for a first attempt, and advice for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from etude.sandbox.base import cut
from etude.types import Message

Operator = Literal["revise", "crossover", "transfer", "restructure", "refine"]
RECOMBINATIONS: tuple[Operator, ...] = ("crossover", "transfer", "restructure")
Origin = Operator | Literal["plan", "mutate"]
PLAN: Final = "plan"
MUTATE: Final = "mutate"
"""What made the attempts that a pool begins with."""
PLANS = (
    "Reproduce the problem first. Find out exactly what goes wrong, and only then look for where.",
    "Read before you act. Follow the data from the entry point to the place that matters, then make one small change.",
    "Work backwards from the result that is wanted: what must be true at the end, and what is the last step that could make it so?",
    "Write down two or three different explanations first, find what would tell them apart, and look at that.",
    "Think of special cases first: empty, first and last, negative, very large, repeated. Mend what breaks there, and check the usual case afterwards.",
)
"""Ways to go about a task of any kind: the first attempts at it differ by these."""
_ASKED: dict[Operator, str] = {
    "revise": """An earlier attempt at the task below is summarised. Reflect on it: gaps in its logic, steps that were wasted or went in circles, evidence that it missed,
    decisions made too early. Then write guidance for another attempt that goes about the task in a really different way: another place to begin, other tools, another
    order. If it did not come to an end, ask for a direct plan with few changes.""",
    "crossover": """Two earlier attempts at the task below are summarised. Write guidance for a third one that keeps what worked in each, does not share their weaknesses,
    and looks at what neither of them looked at.""",
    "transfer": """Earlier attempts at the task below are summarised. The first one is weaker than the others. Write guidance for improving it: keep what worked in it, and
    take over from the others what they found out and it did not.""",
    "restructure": """All earlier attempts at the task below are summarised. Look at them as a whole: two or three things that all of them overlooked, two or three ways in
    which they failed again and again, what held up in most of them. Then write guidance for an attempt that is organised anew from the beginning.""",
    "refine": """The best attempt at the task below is summarised, and after it others. Write guidance for doing the same again without what was not needed: name the steps
    that led to the result, and leave out those that the others show to be of no use.""",
}
PROMPTS: dict[Operator, str] = {operator: " ".join(text.split()) for operator, text in _ASKED.items()}
"""What each operator is asked for."""
MUTATION = "An earlier attempt followed the plan below and at one point did this:\n> {step}\nFollow the plan, but do something else at that point.\n\n{plan}"
GUIDE = "Guidance for this attempt, made from earlier ones. Trust what you see yourself more than this.\n"


@dataclass(frozen=True)
class Advice:
    """What an operator writes. observations: what it noticed about the earlier attempts. guidance: what goes into the next attempt's system message."""

    observations: list[str]
    guidance: str


def advice_question(operator: Operator, problem: str, summaries: Sequence[str], *, words: int, most_problem: int) -> tuple[Message, ...]:
    """What a model is asked for an operator's guidance. summaries: of the parents, as `attempt_summaries.shown` gives them, in the order in which the prompt speaks of
    them."""
    attempts = "\n\n".join(f"Attempt {number}:\n{summary}" for number, summary in enumerate(summaries, 1))
    asked = f"{PROMPTS[operator]} At most {words} words of guidance."
    return (Message("user", f"{asked}\n\nThe task:\n{cut(problem, most_problem)}\n\n{attempts}"),)


def mutation(plan: str, steps: Sequence[str], random: Random, *, most_step: int = 300) -> str:
    """Guidance that perturbs an attempt without asking a model: the same plan, with one step of it, drawn at random, to be done otherwise. The last step stays."""
    step = random.choice(list(steps[:-1]) or list(steps))
    return MUTATION.format(plan=plan, step=cut(" ".join(step.split()), most_step))


def first_words(text: str, most: int) -> str:
    """A text up to so many words, its lines kept."""
    kept: list[str] = []
    for line in text.strip().splitlines():
        words = line.split()
        if most < len(words):
            return "\n".join([*kept, " ".join(words[:most])]).rstrip()
        kept.append(line)
        most -= len(words)
    return "\n".join(kept)

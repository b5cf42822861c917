"""Ask the same question again and again, in one of two formats, and keep every answer: the protocol behind `etude eval MODEL --protocol self-correction`.

Round 0 opens the conversation; every later round puts the last answer and one fixed request behind it and asks again. Nothing stops early, so that every stop policy can
be tried on the same logs afterwards. Without history each round asks afresh: what two draws differ by anyway, which has to be known before a change is called a correction.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Literal

from etude.errors import InputError
from etude.models.replies import Reply
from etude.models.responders import Asked, Responder
from etude.models.sampling import SamplingParams
from etude.tasks.answers import final_answer, normalise
from etude.tasks.base import TaskSet
from etude.tasks.paired import Form, PairedItem, letter_in
from etude.tasks.paired_prompts import Script, Way, most_consistent
from etude.types import Message

Append = Literal["rationale", "letter"]
Pick = Literal["model", "votes"]


@dataclass(frozen=True)
class Arm:
    """One way of asking: a format, a way of answering, and what is kept of the conversation.

    samples: answers drawn a round with the way `sc`, of which one is picked. append: what of an answer the conversation goes on with: all of its `rationale`, or nothing
    but the `letter` (in the format of options). history: whether it goes on at all. pick: who chooses among samples of free answers; votes choose among letters anyway.
    """

    form: Form
    way: Way
    rounds: int
    script: Script
    params: SamplingParams
    samples: int = 5
    append: Append = "rationale"
    history: bool = True
    option_logits: bool = False
    pick: Pick = "model"
    seed: int = 0

    @property
    def drawn(self) -> int:
        """Answers drawn a round."""
        return self.samples if self.way == "sc" else 1

    def key(self, round_: int, *more: int | str) -> tuple[int | str, ...]:
        """What the random numbers of a round depend on."""
        return ("asking again", self.seed, self.form, self.way, round_, *more)


@dataclass
class Answered:
    """One round of one item.

    answer: the letter, or the final answer in normal form; None where it cannot be read. right: verdict in [0, 1]. tokens, prompt_tokens: generated and read, all samples and
    the choice among them included (a prompt counts once a request). agreed: share of the samples with the same answer, NaN where there was one. dropped: earlier rounds
    left out of the context because it was full. likelihoods: log-probability of every option's letter as an answer, where asked for.
    """

    text: str
    answer: str | None
    right: float
    tokens: float
    prompt_tokens: float
    samples: list[str] = field(default_factory=list)
    agreed: float = math.nan
    dropped: int = 0
    likelihoods: list[float] | None = None


class Verdicts:
    """A verifier that judges equal texts once, so that a judge which is unsure of itself makes no flips out of answers that stayed the same."""

    def __init__(self, task_set: TaskSet) -> None:
        self.task_set = task_set
        self._known: dict[tuple[str, str], float] = {}

    def right(self, item: PairedItem, text: str) -> float:
        """The verdict on a free answer, in [0, 1]."""
        key = (item.task.id, " ".join(text.split()))
        if key not in self._known:
            components = self.task_set.verify(item.task, text)
            self._known[key] = float(components.get("correct", sum(components.values())))
        return self._known[key]


def ask_again(
    items: Sequence[PairedItem], arm: Arm, responder: Responder, verdicts: Verdicts, *, done: Callable[[int], None] = lambda rounds: None
) -> list[list[Answered]]:
    """Every item through all rounds: [items][rounds + 1]. `done` hears how many rounds are complete.

    Raises InputError, before anything is asked, for a question that leaves no room in the model's context for an answer and a second one.
    """
    starts = [arm.script.start(item, arm.form, arm.way) for item in items]
    _require_room(items, starts, arm, responder)
    logs: list[list[Answered]] = [[] for _ in items]
    for round_ in range(arm.rounds + 1):
        asked, dropped = [], []
        for item, start, log in zip(items, starts, logs, strict=True):
            messages, left_out = _conversation(item, start, log, arm, responder)
            asked.append(Asked(item.task.id, tuple(messages)))
            dropped.append(left_out)
        replies = responder.replies(asked, arm.params, samples=arm.drawn, key=arm.key(round_))
        picked = _picked(items, replies, arm, responder, round_)
        for i, (item, rows) in enumerate(zip(items, replies, strict=True)):
            logs[i].append(_answered(item, rows, *picked[i], arm, verdicts, dropped[i]))
        if arm.option_logits and arm.form == "choice":
            found = responder.likelihoods(asked, [[f"answer: {arm.script.written(letter)}" for letter in item.letters] for item in items])
            for log, values in zip(logs, found, strict=True):
                log[-1].likelihoods = values
        done(round_ + 1)
    return logs


def _require_room(items: Sequence[PairedItem], starts: Sequence[Sequence[Message]], arm: Arm, responder: Responder) -> None:
    tokens = arm.params.max_new_tokens
    for item, start in zip(items, starts, strict=True):
        again = [Message("assistant", ""), arm.script.request(item, arm.form, arm.way)] if arm.history and arm.rounds else []
        if not responder.fits([*start, *again], 2 * tokens if again else tokens):
            raise InputError(
                f"the question {item.task.id!r} leaves no room in the model's context for {'two answers' if again else 'an answer'} of {tokens} tokens; lower "
                "--max-new-tokens, ask in fewer words (--prompts short, or a --request of your own), or use a model with a longer context"
            )


def _conversation(item: PairedItem, start: Sequence[Message], log: Sequence[Answered], arm: Arm, responder: Responder) -> tuple[list[Message], int]:
    """What is asked in the next round, and how many early rounds it leaves out for lack of room."""
    if not arm.history or not log:
        return list(start), 0
    request = arm.script.request(item, arm.form, arm.way)
    turns = [[Message("assistant", _appended(past, arm)), request] for past in log]
    for first in range(len(log)):
        messages = [*start, *(m for turn in turns[first:] for m in turn)]
        if first == len(log) - 1 or responder.fits(messages, arm.params.max_new_tokens):
            return messages, first
    raise AssertionError("a log that is not empty has a last round")


def _appended(past: Answered, arm: Arm) -> str:
    """What the conversation keeps of an answer. One that cannot be read is kept as it is."""
    return f"answer: {arm.script.written(past.answer)}" if arm.form == "choice" and arm.append == "letter" and past.answer is not None else past.text


def read(item: PairedItem, form: Form, text: str, task_set: TaskSet) -> str | None:
    """The answer in a text, in the form in which answers are compared."""
    if form == "choice":
        return letter_in(text, item)
    answer = task_set.answer_in(text)
    return normalise(answer) if answer is not None else None


def _answered(item: PairedItem, replies: Sequence[Reply], chosen: int, extra: tuple[float, float], arm: Arm, verdicts: Verdicts, dropped: int) -> Answered:
    text = replies[chosen].text
    answers = [read(item, arm.form, reply.text, verdicts.task_set) for reply in replies]
    answer = answers[chosen]
    right = float(answer == item.letters[item.gold]) if arm.form == "choice" else verdicts.right(item, text)
    agreed = answers.count(answer) / len(answers) if len(answers) > 1 and answer is not None else math.nan
    tokens = sum(reply.length for reply in replies) + extra[0]
    samples = [reply.text for reply in replies] if len(replies) > 1 else []
    return Answered(text, answer, right, tokens, replies[0].prompt_length + extra[1], samples, agreed, dropped)


def _picked(
    items: Sequence[PairedItem], replies: Sequence[Sequence[Reply]], arm: Arm, responder: Responder, round_: int
) -> list[tuple[int, tuple[float, float]]]:
    """Of each item's samples the number of the one that counts, and what choosing it cost in tokens generated and read."""
    free = (0.0, 0.0)
    if arm.drawn == 1:
        return [(0, free) for _ in items]
    if arm.form == "choice" or arm.pick == "votes":
        return [(_voted(item, rows, arm.form), free) for item, rows in zip(items, replies, strict=True)]
    asked = [Asked(item.task.id, (most_consistent(item.task.prompt, [r.text for r in rows]),)) for item, rows in zip(items, replies, strict=True)]
    params = replace(arm.params, temperature=0.0, stop=())
    said = [row[0] for row in responder.replies(asked, params, samples=1, key=arm.key(round_, "pick"))]
    return [
        (number_in(reply.text, [r.text for r in rows], Random(f"{arm.seed}/{item.task.id}/{round_}/pick")), (reply.length, reply.prompt_length))
        for item, rows, reply in zip(items, replies, said, strict=True)
    ]


def _voted(item: PairedItem, replies: Sequence[Reply], form: Form) -> int:
    """The first sample that gives the most common answer. One that cannot be read votes too, for no answer; ties go to what came first."""
    answers = [letter_in(reply.text, item) if form == "choice" else _plain(reply.text) for reply in replies]
    return answers.index(Counter(answers).most_common(1)[0][0])


def _plain(text: str) -> str | None:
    answer = final_answer(text)
    return normalise(answer) if answer is not None else None


def number_in(text: str, responses: Sequence[str], random: Random) -> int:
    """Which of numbered responses (from 1) a model chose, as a place from 0: by the number it gives, else by the response that it quotes, else any."""
    said = final_answer(text) or text.strip()
    match = re.search(r"\d+", said)
    if match and 1 <= int(match[0]) <= len(responses):
        return int(match[0]) - 1
    quoted = [i for i, response in enumerate(responses) if response.strip() and response.strip() in text]
    return quoted[0] if quoted else random.randrange(len(responses))


def settle(items: Sequence[PairedItem], logs: Sequence[Sequence[Answered]], arm: Arm, responder: Responder) -> list[tuple[float, float]]:
    """Generate, then choose: the different answers that an item's rounds gave become options, and the model chooses among them once.

    Returns the verdict of each item's chosen answer and the tokens that choosing took. A lone answer stands; a choice that cannot be read leaves the last one.
    """
    found: list[dict[str, Answered]] = [{r.answer: r for r in log if r.answer is not None} for log in logs]
    places = [i for i, answers in enumerate(found) if len(answers) > 1]
    questions = [PairedItem(items[i].task, tuple(found[i]), 0) for i in places]
    asked = [Asked(q.task.id, tuple(arm.script.start(q, "choice", arm.way))) for q in questions]
    replies = responder.replies(asked, arm.params, samples=1, key=arm.key(arm.rounds + 1, "settle")) if asked else []
    verdicts = [(log[-1].right, 0.0) for log in logs]
    for i, question, (reply,) in zip(places, questions, replies, strict=True):
        letter = letter_in(reply.text, question)
        chosen = found[i][question.options[question.letters.index(letter)]] if letter is not None else logs[i][-1]
        verdicts[i] = (chosen.right, reply.length)
    return verdicts

"""A model that follows rules, right as often as its skill says: for tests and simulations of methods that ask a model for words.

It stands wherever a model behind an endpoint could: it reads a conversation, and its answers have lengths in tokens, limits and stop strings. How good it is, is a number, so
that what a method gains can be compared with what was put in. A rule says what an answer looks like when it is right and when it is wrong; chance decides, by the Rasch model
of item response theory: P(right) = 1 / (1 + exp(-(skill - difficulty))).

Every answer has a random stream of its own, made from the seed of the request and the conversation, so that it depends neither on order nor on what runs at the same time.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Any

from etude.errors import InputError
from etude.models.allowance import FRAME_TOKENS
from etude.models.replies import Reply
from etude.models.responders import Asked, request_seed
from etude.models.sampling import SamplingParams, stream_key
from etude.types import Message

_PIECES = re.compile(r" ?[^\W\d_]{1,8}|\d| ?[^\w\s]{1,2}|\s+(?=\s)|\s|.", re.DOTALL)


def pieces_of(text: str) -> list[str]:
    """A text in pieces that are about as many as its tokens, and together are the text: up to eight letters or two signs, perhaps with a space before them, single digits,
    white space. Of docs/architecture.md, loop.py and a file of evaluation results there are 0.98 to 1.00 times as many as SmolLM2's
    tokenizer makes."""
    return _PIECES.findall(text)


@dataclass(frozen=True)
class Situation:
    """What a rule answers to. match: what the rule's pattern found in the last message. random: this answer's own stream."""

    messages: tuple[Message, ...]
    match: re.Match[str] | None
    skill: float
    random: Random

    @property
    def last(self) -> str:
        """The last message's content."""
        return self.messages[-1].content

    def chance(self, difficulty: float = 0.0) -> float:
        """Probability of being right about something of a difficulty on the scale of the skill. Skills and difficulties of infinite size make it certain."""
        distance = self.skill - difficulty
        return 0.5 if math.isnan(distance) else 1 / (1 + math.exp(-max(-700.0, min(700.0, distance))))

    def succeeds(self, difficulty: float = 0.0) -> bool:
        """Draw whether it is right. Every call draws anew."""
        return self.random.random() < self.chance(difficulty)


@dataclass(frozen=True)
class Rule:
    """One thing that the model can do.

    when: a pattern that is searched in the last message, or a function of the whole conversation. answer: the text, or None to leave the conversation to the next rule.
    name: what a skill of its own is given under.
    """

    name: str
    when: str | re.Pattern[str] | Callable[[tuple[Message, ...]], bool]
    answer: Callable[[Situation], str | None]


@dataclass
class ScriptedModel:
    """Answers by the first rule that has an answer. It is a `Responder`, a `Speaker`, and with `completion` what a chat server answers.

    skill: how good it is (logits; 0 is right half of the time at difficulty 0). skills: other values for some rules, by their names. context_length: tokens that it reads and
    writes at most. At temperature 0 an answer depends on the conversation alone, as a greedy model's does.
    Raises InputError for a conversation that no rule answers, or that is too long, and for skills of rules that are not there.
    """

    rules: Sequence[Rule]
    skill: float = 0.0
    skills: Mapping[str, float] = field(default_factory=dict)
    name: str = "scripted"
    seed: int = 0
    context_length: int = 1_000_000

    def __post_init__(self) -> None:
        names = [rule.name for rule in self.rules]
        if twice := {name for name in names if names.count(name) > 1}:
            raise InputError(f"two rules of {self.name} are called {sorted(twice)[0]!r}; expected a name for each")
        if unknown := sorted(self.skills.keys() - set(names)):
            raise InputError(f"{self.name} has no rule {unknown[0]!r} that could have a skill; its rules are {', '.join(names)}")
        if any(math.isnan(value) for value in (self.skill, *self.skills.values())):
            raise InputError(f"a skill of {self.name} is NaN; expected a number")

    def reply(self, messages: Sequence[Message], params: SamplingParams, seed: int) -> Reply:
        """One answer, drawn under a seed."""
        conversation = tuple(messages)
        read = prompt_tokens(conversation)
        if read >= self.context_length:
            raise InputError(f"the conversation has {read} tokens, but {self.name} reads {self.context_length} in all; shorten it")
        said = json.dumps([[m.role, m.content] for m in conversation])
        key = stream_key("scripted", self.seed, said, seed if params.temperature > 0 else "greedy")
        text = self._text(conversation, key)
        for stop in params.stop:
            text = text.partition(stop)[0]
        pieces = pieces_of(text)
        room = min(params.max_new_tokens, self.context_length - read)
        # The token that ends an answer is one of its own.
        finished = len(pieces) < room
        return Reply("".join(pieces[:room]), float(min(len(pieces) + 1, room)), finished, float(read))

    def replies(self, asked: Sequence[Asked], params: SamplingParams, *, samples: int, key: Sequence[int | str]) -> list[list[Reply]]:
        """`samples` answers to each conversation: the same ones as over HTTP, where a server made of `completion` is asked by a `RemoteResponder`."""
        return [[self.reply(each.messages, params, request_seed(key, each) + sample) for sample in range(samples)] for each in asked]

    def fits(self, messages: Sequence[Message], new_tokens: int = 1) -> bool:
        """Whether a conversation leaves room for an answer of so many tokens."""
        return prompt_tokens(messages) + new_tokens <= self.context_length

    def likelihoods(self, asked: Sequence[Asked], answers: Sequence[Sequence[str]]) -> list[list[float]]:
        """None: a script has no probabilities of words."""
        raise InputError(f"{self.name} is scripted and has no log-probabilities")

    def say(self, messages: Sequence[Message], params: SamplingParams, stream: int) -> Iterator[str]:
        """The next turn, in pieces."""
        yield from pieces_of(self.reply(messages, params, stream % 2**31).text)

    def completion(self, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """What an OpenAI-compatible server answers to a chat completion request: HTTP status and JSON. A test puts it behind a socket.

        `n` answers are drawn under the seeds `seed`, `seed` + 1, ..., so that it does not matter how samples are spread over requests.
        """
        try:
            messages = [Message(m["role"], m["content"]) for m in body["messages"]]
            limit = body.get("max_completion_tokens") or body.get("max_tokens") or self.context_length
            stop = body.get("stop") or ()
            stops = (stop,) if isinstance(stop, str) else tuple(stop)
            params = SamplingParams(limit, body.get("temperature", 1.0), body.get("top_p", 1.0), stop=stops)
            replies = [self.reply(messages, params, int(body.get("seed") or 0) + i) for i in range(body.get("n") or 1)]
        except (InputError, KeyError, TypeError) as error:
            return 400, {"error": {"message": str(error), "type": "invalid_request_error"}}
        choices = [
            {"index": i, "finish_reason": "stop" if r.finished else "length", "message": {"role": "assistant", "content": r.text}}
            for i, r in enumerate(replies)
        ]
        read, written = round(replies[0].prompt_length), round(sum(r.length for r in replies))
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        return 200, {"id": "scripted", "object": "chat.completion", "created": 0, "model": self.name, "choices": choices, "usage": usage}

    def _text(self, messages: tuple[Message, ...], key: int) -> str:
        for rule in self.rules:
            if callable(rule.when):
                match, applies = None, rule.when(messages)
            else:
                match = re.search(rule.when, messages[-1].content)
                applies = match is not None
            if not applies:
                continue
            situation = Situation(messages, match, self.skills.get(rule.name, self.skill), Random(stream_key(key, rule.name)))
            if (text := rule.answer(situation)) is not None:
                return text
        raise InputError(f"no rule of {self.name} answers {messages[-1].content[:80]!r}; its rules are {', '.join(rule.name for rule in self.rules)}")


def prompt_tokens(messages: Sequence[Message]) -> int:
    """Tokens that a scripted model reads: the pieces of every message, and a frame of a quarter of what real ones have at most."""
    return sum(_count_pieces(m.content) + FRAME_TOKENS // 4 for m in messages)


@lru_cache(maxsize=10_000)
def _count_pieces(text: str) -> int:
    """A conversation is read again at every turn."""
    return len(pieces_of(text))

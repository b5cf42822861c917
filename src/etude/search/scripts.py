"""Scripted agents and judges of known skill for task sets whose truth is at hand: a search is tried on them before a model costs anything.

They read the same prompts, and are read by the same code, as models behind endpoints (`etude.models.scripted`). What they know of the truth shows only in their skill:
how often the agent takes the right action, and how noisy the judge's values are. So they say how a search deals with errors of a known rate; real errors are not independent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from etude.errors import InputError
from etude.models.scripted import Rule, ScriptedModel, Situation
from etude.search.actions import stated_action
from etude.search.discriminator import CANDIDATE
from etude.search.hindsight import HEAD
from etude.search.value_agent import GOAL, LAST, MADE
from etude.tasks.base import TaskSet
from etude.tasks.builtin.bug_hunt import DECISIONS, BugHunt, decided, right_prefix
from etude.types import Message, Task

FORM = "Answer with one JSON object"
"""How the request for an object begins that is put behind a message."""
_BEHIND = re.compile(rf"\n\n(?:{re.escape(HEAD)}|{FORM})")
_TRIED = re.compile(rf"^{re.escape(HEAD)}\ntried: (.*?)\nvalue from -100 to 100: (-?\d+)", re.DOTALL | re.MULTILINE)
_STEP = re.compile(r"^\d+\. (.*?)\n-> ", re.DOTALL | re.MULTILINE)
_SECTION = re.compile(r"^## ", re.MULTILINE)


class Script(Protocol):
    """What a scripted model needs to know of a task set."""

    def learn(self, tasks: Sequence[Task]) -> None:
        """Tasks that it is to know."""
        ...

    def task(self, words: str) -> Task:
        """The task whose opening words these are. Raises InputError for one that it does not know."""
        ...

    def options(self, task: Task, actions: Sequence[str]) -> Mapping[str, float]:
        """What an agent may do after some actions, and how likely it is to."""
        ...

    def worth(self, task: Task, actions: Sequence[str]) -> float:
        """What a judge without noise would say of the last of some actions, from -100 to 100."""
        ...

    def worth_made(self, task: Task, made: str) -> float:
        """What it would say of what a finished attempt has made."""
        ...


@dataclass
class BugHuntScript:
    """An agent that takes the right file in a quarter of the draws and the tempting one in half of them, right causes and patches in 35 and tempting ones in 40 %; and a judge
    that says 55 + 10 depth while all decisions are right, else 5 + 15 for each right one before the first wrong one, and of a patch 100, or -20 + 20 for each."""

    odds: Mapping[str, tuple[float, float]] = field(default_factory=lambda: {"open": (0.25, 0.5), "suspect": (0.35, 0.4), "patch": (0.35, 0.4)})
    """Probability of the right choice and of the tempting one, by the decision."""
    _known: dict[str, Task] = field(default_factory=dict)

    def task(self, words: str) -> Task:
        if words not in self._known:
            raise InputError(f"the script of bug-hunt does not know {words[:80]!r}; expected a task that it was told of")
        return self._known[words]

    def learn(self, tasks: Sequence[Task]) -> None:
        self._known |= {task.opening[0].content: task for task in tasks}

    def options(self, task: Task, actions: Sequence[str]) -> Mapping[str, float]:
        place = len(decided(actions))
        verb = list(DECISIONS)[place]
        right, tempting = self.odds[verb]
        rest = (1 - right - tempting) / (len(DECISIONS[verb]) - 2)
        known = {task.info["right"][place]: right, task.info["tempting"][place]: tempting}
        return {f"{verb} {choice}": known.get(choice, rest) for choice in DECISIONS[verb]}

    def worth(self, task: Task, actions: Sequence[str]) -> float:
        chosen = decided(actions)
        right, done = right_prefix(task, chosen), len(chosen) == len(DECISIONS)
        if right == len(chosen):
            return 100.0 if done else 55.0 + 10.0 * right
        return -20.0 + 20.0 * right if done else 5.0 + 15.0 * right

    def worth_made(self, task: Task, made: str) -> float:
        return self.worth(task, [f"{verb} {choice}" for verb, choice in zip(DECISIONS, made.split(), strict=True)])


def scripted_model(script: Script, *, noise: float = 30.0, obedience: float = 0.8, seed: int = 0) -> ScriptedModel:
    """A model that acts, judges and debates by a script.

    noise: standard deviation of the judge's values, which are then cut to -100 and 100. obedience: how often the agent listens to hindsight, and takes an action that none
    of the branches took that it is told of (where there is one). A debater says the candidate that it values most, with the same noise, or half of the time what most others
    said.
    Raises InputError for noise below 0, and an obedience that is no share.
    """
    if noise < 0 or not 0 <= obedience <= 1:
        raise InputError(f"noise is {noise:g}, obedience {obedience:g}; expected at least 0, and a share in [0, 1]")

    def judged(situation: Situation) -> str:
        words = situation.last
        task = script.task(_section(words, GOAL))
        actions = [stated_action(text) for text in _STEP.findall(_section(words, MADE)) + _STEP.findall(_section(words, LAST))]
        value = round(max(-100.0, min(100.0, script.worth(task, actions) + situation.random.gauss(0, noise))))
        advice = "go on like this" if value >= 50 else "try something else"
        return json.dumps({"explanation": f"it looks {'right' if value >= 50 else 'wrong'}", "feedback": advice, "value": value})

    def debated(situation: Situation) -> str:
        task = script.task(_section(situation.last, GOAL))
        made = [part.partition("\n")[2].partition("\na judge's value")[0] for part in situation.last.split(f"{CANDIDATE} ")[1:]]
        made[-1] = made[-1].partition("\n\n")[0]
        said = [int(number) for number in re.findall(r"^- agent \d+(?: \(you\))?: (\d+)", situation.last, re.MULTILINE)]
        if said and (situation.random.random() < 0.5 or "the last word" in situation.last):
            return json.dumps({"explanation": "most say so", "id": max(sorted(set(said)), key=said.count)})
        values = [script.worth_made(task, each) + situation.random.gauss(0, noise) for each in made]
        return json.dumps({"explanation": "it looks right", "id": values.index(max(values)) + 1})

    def acted(situation: Situation) -> str:
        said, last = [message for message in situation.messages if message.role != "system"], situation.last
        task = script.task(_BEHIND.split(said[0].content)[0])
        options = dict(script.options(task, [stated_action(message.content) for message in said if message.role == "assistant"]))
        tried = {action for action, _ in _TRIED.findall(last)}
        if tried and situation.random.random() < obedience:
            options = {action: chance for action, chance in options.items() if stated_action(action) not in tried} or options
        action = _drawn(options, situation.random)
        return json.dumps({"thought": "", "action": stated_action(action)}) if FORM in last else action

    rules = [
        Rule("judge", lambda messages: LAST in messages[-1].content, judged),
        Rule("debate", lambda messages: CANDIDATE in messages[-1].content, debated),
        Rule("act", _anything, acted),
    ]
    return ScriptedModel(rules, name="scripted", seed=seed)


def script_of(task_set: TaskSet) -> Script:
    """The script of a task set. Raises InputError for one that has none."""
    if isinstance(task_set, BugHunt):
        return BugHuntScript()
    from etude.tasks.repos import RepositoryTasks

    if isinstance(task_set, RepositoryTasks):
        from etude.search.repository_script import RepositoryScript

        return RepositoryScript(task_set)
    raise InputError(f"there is no scripted model for tasks of {task_set.name}; expected bug-hunt or repos:FOLDER, or name who acts with --model")


def _anything(messages: tuple[Message, ...]) -> bool:
    return True


def _drawn(options: Mapping[str, float], random: Random) -> str:
    actions = list(options)
    return random.choices(actions, [options[action] for action in actions])[0]


def _section(words: str, head: str) -> str:
    """What stands below a heading of a prompt, up to the next one."""
    _, _, rest = words.partition(f"{head}\n")
    following = _SECTION.search(rest)
    return (rest[: following.start()] if following else rest).strip()

"""The value agent: what an action was worth, from -100 to 100, with an explanation and advice for another attempt (SWE-Search, arXiv:2410.20285).

A judging model reads the task, the steps so far, the last action with its answer, and what was changed before and after it; what is asked of it depends on the kind of the
action and on the depth. A rule that needs no model can take its place, or be told to it as a hint. Neither sees hidden tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import mean
from typing import Any, Literal

from etude.errors import InputError
from etude.models.sampling import stream_key
from etude.rewards.critiques import Critique, CritiqueForm, critiques
from etude.rewards.judges import Judge, Question
from etude.search.acting import ActionTree
from etude.search.actions import Kind
from etude.types import Message

LOWEST, HIGHEST = -100, 100
SCALE = """75 to 100: much progress towards the goal
50 to 74: helpful
25 to 49: acceptable
0 to 24: hardly anything gained
-49 to -1: harmful, or done before
-100 to -50: makes it much worse"""
CRITERIA: Mapping[Kind, str] = {
    "look": "It looked for something. Does what it found bear on the task? Was it new, and was it the place to look?",
    "plan": "It made a plan or a guess. Does it name the cause, and does it follow from what was seen?",
    "edit": "It changed something. Is the change right, complete and in the right place, and does it leave other things as they were?",
    "test": "It ran tests. Were they the ones that tell, and what do they say of the changes so far?",
    "finish": "It handed in. Is the task done, and was that checked? Handing in what is wrong or empty deserves a value near -100.",
    "other": "It did something else. Was it a valid action, and did it help?",
}
EARLY = 3
"""Depth below which looking around is judged leniently."""
LENIENT = "The attempt has only begun: looking around is in order."
STRICT = "The attempt is under way: steps that repeat earlier ones, or lead nowhere, deserve low values."
MADE, LAST, GOAL, CHANGES = "## Steps before", "## The step to judge", "## The task", "## Changed before that step"
Source = Literal["judge", "hinted", "rule", "random", "random-way"]
"""Who values actions: the judge, the judge with the rule's value as a hint, the rule alone, or, as controls, numbers drawn at random: everywhere, or but for the actions
that end an attempt, which the judge values."""
MINOR, MAJOR, ADDED, NO_TESTS, LEAST_MENDED = -25.0, -50.0, 100.0, 50.0, 75.0


@dataclass(frozen=True)
class Valued:
    """What was said of an action. value: None where nothing could be read. spread: of several opinions, the largest minus the smallest."""

    value: float | None
    explanation: str = ""
    feedback: str = ""
    spread: float = 0.0
    tokens: int = 0

    def entries(self) -> dict[str, Any]:
        """As entries of a node's state."""
        return {"value": self.value, "explanation": self.explanation, "feedback": self.feedback, "spread": self.spread}


@dataclass(frozen=True)
class Candidate:
    """An action that was carried out at a node of a tree, to be valued: the state that came of it, which is not in the tree yet, and a name for its random numbers."""

    tree: ActionTree
    parent: int
    state: Mapping[str, Any]
    done: bool
    stream: int

    @property
    def path(self) -> list[Mapping[str, Any]]:
        """The states before it, the root's left out."""
        return [node.state for node in self.tree.tree.path(self.parent)[1:]]


@dataclass
class ValueAgent:
    """Values actions, a batch at a time.

    opinions: how many judgements are asked for, of which the mean counts (the words are those of the first). sees_tree: the judge is shown the tree so far, whose values may
    pull its own towards them. shown: characters of an answer of the environment that it reads; longer ones are cut in the middle.
    Raises InputError where a judge is needed and there is none.
    """

    source: Source
    judge: Judge | None = None
    style: Literal["json", "lines"] = "json"
    opinions: int = 1
    sees_tree: bool = False
    shown: int = 2000

    def __post_init__(self) -> None:
        if self.source not in ("rule", "random") and self.judge is None:
            raise InputError(f"values come from a judge (--value {self.source}), and there is none; name one with --judge, or use --value rule")
        if self.opinions > 1 and self.judge is not None and self.judge.params.temperature == 0:
            raise InputError(f"--opinions {self.opinions}: at --judge-temperature 0 all opinions would be the same; expected more than 0, or one opinion")
        self.form = CritiqueForm(LOWEST, HIGHEST, whole=True, style=self.style)

    def values(self, candidates: Sequence[Candidate]) -> list[Valued]:
        """What each action is worth, in their order."""
        if self.source in ("random", "random-way"):
            drawn = [Valued(float(Random(stream_key(each.stream, "random value")).randint(LOWEST, HIGHEST))) for each in candidates]
            ends = [i for i, each in enumerate(candidates) if each.done and self.source == "random-way"]
            for i, valued in zip(ends, self._judged([candidates[i] for i in ends], [""] * len(ends)), strict=True):
                drawn[i] = valued
            return drawn
        rules = [rule_value(each) if self.source != "judge" else None for each in candidates]
        if self.source == "rule":
            return [Valued(value, said, said) for value, said in filter(None, rules)]
        return self._judged(candidates, [f"{rule[0]:.0f} ({rule[1]})" if rule is not None else "" for rule in rules])

    def _judged(self, candidates: Sequence[Candidate], hints: Sequence[str]) -> list[Valued]:
        assert self.judge is not None
        asked = [
            Question((Message("user", self.words(each, hint)),), stream_key(each.stream, "opinion", number))
            for each, hint in zip(candidates, hints, strict=True)
            for number in range(self.opinions)
        ]
        said = critiques(self.judge, asked, self.form)
        return [_together(said[i : i + self.opinions]) for i in range(0, len(said), self.opinions)]

    def words(self, candidate: Candidate, hint: str = "") -> str:
        """What the judge is asked."""
        state, path = candidate.state, candidate.path
        before = candidate.tree.tree.nodes[candidate.parent].state.get("product")
        parts = [
            f"You watch an agent at a task, and judge its last step: how much it helps. {CRITERIA[state['kind']]} {LENIENT if len(path) + 1 < EARLY else STRICT}",
            f"{GOAL}\n" + "\n".join(message.content for message in candidate.tree.opening),
            f"{MADE}\n" + ("\n".join(_shown(i + 1, each, self.shown // 4) for i, each in enumerate(path)) or "(none)"),
        ]
        if before is not None:
            parts.append(f"{CHANGES}\n{shortened(before, 2 * self.shown) or '(nothing)'}")
        parts.append(f"{LAST}\n{_shown(len(path) + 1, state, self.shown)}" + ("\nThe attempt has ended with it." if candidate.done else ""))
        if state["product"] is not None and state["product"] != before:
            parts.append(f"## Changed now\n{shortened(state['product'], 2 * self.shown) or '(nothing)'}")
        if self.sees_tree:
            parts.append(f"## All attempts so far\n{tree_text(candidate.tree)}")
        if hint:
            parts.append(f"## What a simple rule gives\n{hint}")
        return "\n\n".join([*parts, f"The scale of values:\n{SCALE}"])


def _together(opinions: Sequence[Critique]) -> Valued:
    known = [each.value for each in opinions if each.value is not None]
    tokens = sum(each.tokens for each in opinions)
    if not known:
        return Valued(None, f"(no value: {opinions[0].error})", tokens=tokens)
    first = next(each for each in opinions if each.value is not None)
    return Valued(mean(known), first.explanation, first.feedback, max(known) - min(known), tokens)


def rule_value(candidate: Candidate) -> tuple[float, str]:
    """A value that needs no model, and why (the deterministic value of the paper's refactored code).

    Failed: -25, after a failure -50. Looking: 100 if the answer is new, else 0. Editing: 50 before tests were run on the path. Tests, and an edit in the same action with
    them: 100 if all pass; else the value before, less 25, but 25 more and at most 75 if fewer fail than in the run before. Handing in: -100 if nothing was changed, else
    what was known before. Anything else: what was known before, at first 0.
    """
    state, path = candidate.state, candidate.path
    known = next((value for each in reversed(path) if (value := each.get("value")) is not None and each["kind"] in ("edit", "test")), None)
    if state["failed"]:
        again = bool(path) and bool(path[-1]["failed"])
        return (MAJOR, "another action that failed") if again else (MINOR, "the action failed")
    if state["tests"] is not None:
        return _of_tests(state["tests"], [each["tests"] for each in path if each["tests"] is not None], NO_TESTS if known is None else known)
    if state["kind"] == "look":
        seen = [each["messages"] for each in path]
        return (0.0, "nothing new was seen") if state["messages"] in seen else (ADDED, "something new was seen")
    if state["kind"] == "edit":
        return NO_TESTS, "changed, and not tested"
    if state["kind"] == "finish" and state["product"] == "":
        return -100.0, "handed in without a change"
    return (0.0, "nothing is known of it") if known is None else (known, "as it was before")


def _of_tests(tests: Sequence[int], earlier: Sequence[Sequence[int]], known: float) -> tuple[float, str]:
    passed, failed = tests
    if failed == 0 and passed > 0:
        return 100.0, "all tests that were run pass"
    if earlier and failed < earlier[-1][1]:
        return min(LEAST_MENDED, known + 25), f"{failed} tests fail, fewer than before"
    return max(-100.0, known - 25), f"{failed} tests fail"


def tree_text(tree: ActionTree) -> str:
    """A tree as text: of each node what was done and what it was worth."""
    return tree.tree.view(lambda node: f"{node.number} {shortened(str(node.state.get('action', 'start')), 60)} ({node.state.get('value')})")


def _shown(number: int, state: Mapping[str, Any], longest: int) -> str:
    answer = "\n".join(message["content"] for message in state["messages"])
    return f"{number}. {shortened(state['text'], 2 * longest)}\n-> {shortened(answer, longest) or '(no answer)'}"


def shortened(text: str, longest: int) -> str:
    """A text, cut in its middle where it is longer."""
    if len(text) <= longest:
        return text
    half = max(1, (longest - 5) // 2)
    return f"{text[:half]} ... {text[-half:]}"

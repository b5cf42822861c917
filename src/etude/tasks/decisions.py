"""`simulated`: repairs that take several decisions, and a scripted model that makes them, summarises attempts and advises on further ones, each with a known error rate.

    file=2  -> noted; left: cause, patch, case
    cause=1 -> noted; left: patch, case         (1 is the tempting error)
    ...
    submit

All decisions have to be right. What is right is a function of the case's number and nowhere in the words, so that nothing but the script can know. The script reads and
writes the same texts as a real model in its place: it finds plans, `keep` and `avoid` in a system message, steps in a log, findings in a summary.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any, ClassVar

from etude.errors import InputError
from etude.memory.attempt_summaries import SUMMARISE, Finding, Summary
from etude.models.sampling import stream_key
from etude.models.scripted import Rule, ScriptedModel, Situation
from etude.search.attempt_operators import PLANS, PROMPTS, Advice, Operator
from etude.tasks.base import EPISODE_TAGS, Environment, EnvironmentStep
from etude.tasks.finite import FiniteTasks
from etude.tasks.options import settings_in
from etude.types import Message, Task

PARTS = ("file", "cause", "patch", "case", "order", "names")
TEMPTING, TEMPTATION = 1, 3
"""The option that is always wrong, and how much more often it is taken than another wrong one."""
CHECKS = "checks"
"""Tag of an episode: what was right, by part. For measuring summaries; no summary, score or choice sees it."""
_CASE = re.compile(r"Case (\d+):")
_STEP = re.compile(r"(?m)^\s*(?:\[\d+\] attempt: )?([a-z]+)=(\d)\s*$")
_ADVICE = re.compile(r"(?m)^(keep|avoid): ([a-z]+)=(\d)")
_ELSE = re.compile(r"(?m)^> ([a-z]+)=(\d)")
_FINDING = re.compile(r"([a-z]+): [a-z]+=(\d) \((worked|failed)\)")


@dataclass(eq=False)
class Decisions(FiniteTasks):
    """Cases with `parts` decisions among `options` options each.

    plain, favoured: how often the script decides rightly, and on the decision that its plan favours. accuracy: how often a finding in a summary is right. noise: standard
    deviation of a rating, around the share of right decisions. follows: how often it takes what it is told to keep. new_plans: guidance takes any plan; else that of a
    revision one that its parent did not follow, and that of a recombination one that a parent did. cases: how many there are.
    """

    parts: int = 4
    options: int = 5
    plain: float = 0.3
    favoured: float = 0.85
    accuracy: float = 0.75
    noise: float = 0.1
    follows: float = 0.9
    new_plans: bool = True
    cases: int = 600
    seed: int = 0
    name: str = field(default="simulated", init=False)
    max_new_tokens: int = field(default=600, init=False)

    OPTIONS: ClassVar[Mapping[str, str]] = {
        "parts": "decisions of a case",
        "options": "of a decision",
        "plain": "share of decisions that are right",
        "favoured": "the same of the decision that a plan favours",
        "accuracy": "share of findings that are right",
        "noise": "of ratings",
        "follows": "share of advice to keep something that is followed",
        "new_plans": "true or false: whether recombinations may take a plan that no parent followed",
        "cases": "cases there are",
    }

    def __post_init__(self) -> None:
        shares = {name: getattr(self, name) for name in ("plain", "favoured", "accuracy", "follows")}
        wrong = [f"{name}={value}" for name, value in shares.items() if not 0 < value < 1]
        if wrong or not 2 <= self.parts <= len(PARTS) or not 3 <= self.options <= 9 or self.noise < 0 or self.cases < 1:
            raise InputError(
                f"the simulated repairs have {', '.join(wrong) or f'parts={self.parts}, options={self.options}, noise={self.noise}, cases={self.cases}'}; "
                f"expected shares between 0 and 1, 2 to {len(PARTS)} parts, 3 to 9 options, no negative noise and a case or more"
            )
        self.max_turns = self.parts + 2
        FiniteTasks.__init__(self, [], [self._task(number) for number in range(self.cases)])

    @classmethod
    def parse(cls, spec: str, seed: int) -> Decisions:
        """From `simulated` or `simulated:option=value,...`. Raises InputError for anything else."""
        given = settings_in(spec.partition(":")[2], f"--tasks {spec}", cls.OPTIONS, example="simulated:accuracy=0.9")
        try:
            return cls(**given, seed=seed)
        except TypeError as error:
            raise InputError(f"--tasks {spec} can't be made: {error}; expected numbers, for example accuracy=0.9") from error

    @property
    def names(self) -> Sequence[str]:
        return PARTS[: self.parts]

    def right(self, case: int) -> dict[str, int]:
        """What is right in a case, by part."""
        random = Random(stream_key("decisions", self.seed, case))
        return {part: random.randint(TEMPTING + 1, self.options) for part in self.names}

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        """Nothing of a last turn is judged: the environment judges the episode."""
        return {"correct": 0.0}

    def environment(self) -> Environment:
        return DecisionEnvironment(self)

    def model(self) -> ScriptedModel:
        """The scripted model that acts, summarises and advises."""
        script = _Script(self)
        certain = math.inf
        rules = [
            Rule("summarise", lambda messages: messages[-1].content.startswith(SUMMARISE), script.summary),
            *(Rule(name, _asks(name), script.advice(name)) for name in PROMPTS),
            Rule("pick", "Which one is most likely right", lambda situation: '{"best": 1}'),
            Rule("act", lambda messages: True, script.action),
        ]
        skills = {"summarise": math.log(self.accuracy / (1 - self.accuracy))}
        return ScriptedModel(rules, skill=certain, skills=skills, name="simulated", seed=self.seed)

    def _task(self, number: int) -> Task:
        names = ", ".join(self.names)
        asked = f"Case {number}: decide on {names}, one a turn, as {self.names[0]}=1, with options 1 to {self.options}. Then submit."
        return Task(f"case-{number}", (Message("user", asked),), info={"case": number})


class DecisionEnvironment(Environment):
    """One case that is being decided. The reward comes with `submit`: 1 where every decision is right."""

    def __init__(self, tasks: Decisions) -> None:
        self._tasks = tasks
        self._decided: dict[str, int] = {}
        self._right: dict[str, int] = {}

    def reset(self, task: Task) -> Sequence[Message]:
        self._decided, self._right = {}, self._tasks.right(task.info["case"])
        return task.opening

    def step(self, text: str) -> EnvironmentStep:
        if text.strip() == "submit":
            checks = {part: self._decided.get(part) == option for part, option in self._right.items()}
            return EnvironmentStep(reward=float(all(checks.values())), done=True, info={EPISODE_TAGS: {CHECKS: checks}})
        step = _STEP.fullmatch(text.strip())
        if step is None or step[1] not in self._right:
            return EnvironmentStep((Message("user", f"Error: expected one of {', '.join(self._right)} with its option, or submit"),))
        self._decided[step[1]] = int(step[2])
        left = [part for part in self._right if part not in self._decided]
        return EnvironmentStep((Message("user", f"noted; left: {', '.join(left) or 'submit'}"),))


@dataclass(frozen=True)
class _Script:
    """What the scripted model does in each of its parts."""

    world: Decisions

    def action(self, situation: Situation) -> str:
        """The next decision, by the plan and the advice in the system message."""
        decided = {m.content.partition("=")[0] for m in situation.messages if m.role == "assistant"}
        part = next((name for name in self.world.names if name not in decided), None)
        if part is None:
            return "submit"
        system, asked = ("\n".join(m.content for m in situation.messages if m.role == role) for role in ("system", "user"))
        advice = [(kind, int(option)) for kind, name, option in _ADVICE.findall(system) if name == part]
        kept = [option for kind, option in advice if kind == "keep"]
        if kept and situation.random.random() < self.world.follows:
            return f"{part}={kept[0]}"
        avoided = {option for kind, option in advice if kind == "avoid"} | {int(option) for name, option in _ELSE.findall(system) if name == part}
        return f"{part}={self._drawn(_case(asked), part, system, avoided, situation.random)}"

    def _drawn(self, case: int, part: str, system: str, avoided: set[int], random: Random) -> int:
        world, right = self.world, self.world.right(case)[part]
        favoured = any(plan in system and place % world.parts == world.names.index(part) for place, plan in enumerate(PLANS))
        chance = world.favoured if favoured else world.plain
        weights = {option: float(TEMPTATION if option == TEMPTING else 1) for option in range(1, world.options + 1) if option != right}
        weights = {option: (1 - chance) * weight / sum(weights.values()) for option, weight in weights.items()} | {right: chance}
        free = {option: weight for option, weight in weights.items() if option not in avoided} or weights
        return random.choices(list(free), list(free.values()))[0]

    def summary(self, situation: Situation) -> str:
        """Findings, each right as often as the skill says, and a rating that is right but for noise: 0.2 for nothing right, 0.8 for all."""
        right = self.world.right(_case(situation.last))
        taken = {part: int(option) for part, option in _STEP.findall(situation.last) if part in right}
        findings = []
        for part, option in taken.items():
            worked = option == right[part]
            findings.append(Finding(part, f"{part}={option}", worked if situation.succeeds() else not worked))
        share = sum(option == right[part] for part, option in taken.items()) / len(right)
        rating = min(1.0, max(0.0, 0.2 + 0.6 * (share + situation.random.gauss(0, self.world.noise))))
        plan = next((plan for plan in PLANS if plan in situation.last), "")
        return _json(Summary("decided one after another", [], [], plan, [], [], "", [], list(taken), findings, "not run", rating, 0.5, 0.5, 0.5))

    def advice(self, operator: Operator) -> Any:
        """Guidance from the findings of summaries, by what each operator is for."""

        def answer(situation: Situation) -> str:
            attempts = situation.last.split("Attempt ")[1:]
            found = [[(part, int(option), worked == "worked") for part, option, worked in _FINDING.findall(attempt)] for attempt in attempts]
            votes: dict[tuple[str, int], int] = {}
            for findings in found:
                for part, option, worked in findings:
                    votes[part, option] = votes.get((part, option), 0) + (1 if worked else -1)
            lines = [f"avoid: {part}={option}" for (part, option), count in votes.items() if count < 0]
            if operator != "revise":
                for part in self.world.names:
                    best = max((choice for choice in votes if choice[0] == part), key=lambda choice: votes[choice], default=None)
                    lines += [f"keep: {part}={best[1]}"] if best is not None and votes[best] > 0 else []
            followed = [plan for plan in PLANS if plan in situation.last]
            pool = followed if operator != "revise" else [plan for plan in PLANS if plan not in followed]
            plan = situation.random.choice(PLANS if self.world.new_plans or not pool else pool)
            return _json(Advice([], "\n".join([plan, *lines])))

        return answer


def _asks(operator: Operator) -> Any:
    return lambda messages: messages[-1].content.startswith(PROMPTS[operator])


def _case(text: str) -> int:
    found = _CASE.search(text)
    if found is None:
        raise InputError("the simulated model was asked about no case of its own; expected --tasks simulated with it")
    return int(found[1])


def _json(value: Any) -> str:
    return json.dumps(asdict(value))

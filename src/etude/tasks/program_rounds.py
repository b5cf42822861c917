"""Tasks of single turns, solved by programs in rounds: `--env cosc`, the form of CoSC (arXiv:2410.10735).

    policy        <python>print(12 - 5)</python>
    tool          7
    policy        The question says that 5 are bought: it asks for a sum. <python>print(12 + 5)</python>
    tool          17
    policy        The program adds what is bought, and 17 is more than 12. answer: 17

A round is a program, what running it gives, and what the model then says about both. A turn that holds a program goes on to the next round, and one without a program is
the conclusion. The program is run here and nowhere else: the model's turn ends with the program, so that it cannot write an output of its own, and no output is ever
trained on. Every round is judged by the answer that it would have left: its conclusion's, or else the program's output.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from etude.errors import InputError
from etude.sandbox import Limits, Sandbox, open_sandbox
from etude.tasks.around import Around, in_single_turns
from etude.tasks.base import Environment, EnvironmentStep, TaskSet, total
from etude.tasks.options import settings_in
from etude.tasks.python_tool import CLOSE, NO_CODE, OPEN, called_code
from etude.tasks.revisions import ANSWERS, VERDICTS
from etude.tasks.small_language import FAILED, run_program
from etude.tasks.templates import filled, read_template
from etude.types import Message, Segment, Task, Trajectory

WENT_ON = "went_on"
"""Tag of an episode in rounds: for each round its verdict, and whether the policy went on after it (None where it had no say)."""
PROMPTS = {
    "none": "{question}",
    "standard": f"Solve the problem with a program. Write {OPEN}, Python code that prints the answer, and {CLOSE}, and stop; the next message is what it printed. Then "
    "check in two steps: does the program do what the problem asks, and does the result fit everything that the problem says? If not, say what to change and write a "
    "corrected program in the same way. If so, end with a line 'answer: X'.\n\n{question}",
}
"""What is said before a question, by name: nothing, for models that were trained on the form; an instruction, for others that follow one."""
OPTIONS = {
    "language": "python or small",
    "rounds": "programs of an episode at most",
    "verify": "whether the policy checks its programs; without, an episode is one program, and its output the answer",
    "prompt": f"{', '.join(PROMPTS)}, or a text file with {{question}}",
    "backend": "safe or jail, for python",
    "workers": "interpreters at once, for python",
    **{field.name: "a limit of the sandbox, for python" for field in fields(Limits)},
}
_ERROR = re.compile(r"\w*(Error|Exception|Limit)\b")


@dataclass(frozen=True)
class Ran:
    """What a program gave: the text that the policy is shown, and whether it ran to its end."""

    text: str
    ok: bool


class Language(ABC):
    """What programs are written in, and the marks around one."""

    opening: str
    closing: str
    tokens: int
    """Tokens that a check and a program need at most."""

    @abstractmethod
    def run(self, program: str) -> Ran:
        """Run a program, whatever it is."""

    @abstractmethod
    def answer_in(self, output: str) -> str | None:
        """The answer that an output gives; None where the program failed, or put out nothing."""

    def program_in(self, text: str) -> str | None:
        """The program of a turn; None where it holds none."""
        return called_code(text, self.opening, self.closing)

    def closed(self, text: str) -> str:
        """A turn with the mark after its program, which a sampler that stops there leaves out."""
        return text + self.closing if self.opening in text and self.closing not in text else text


class PythonPrograms(Language):
    """Python, in the sandbox. The answer is the last line of the output."""

    opening, closing, tokens = OPEN, CLOSE, 400

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def run(self, program: str) -> Ran:
        result = self._sandbox.run([program])[0] if program.strip() else NO_CODE
        return Ran(result.text, result.ok)

    def answer_in(self, output: str) -> str | None:
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        return None if not lines or lines[-1] == "(no output)" or _ERROR.match(lines[-1]) else lines[-1]


class SmallPrograms(Language):
    """The language of `etude.tasks.small_language`, between marks that the embedded model has tokens for."""

    opening, closing, tokens = "<calc>", "</calc>", 64

    def run(self, program: str) -> Ran:
        output = run_program(program)
        return Ran(output, output != FAILED)

    def answer_in(self, output: str) -> str | None:
        return None if output.strip() in ("", FAILED) else output.strip()


@dataclass(frozen=True)
class Round:
    """A program, what it put out, and the turn that came after, None where the episode ended before it."""

    program: str
    output: str
    said: str | None


class ProgramRounds(Around):
    """A task set of single turns, in which a task is solved by up to `rounds` programs, each of them run and checked."""

    def __init__(
        self,
        tasks: TaskSet,
        *,
        language: str = "python",
        rounds: int = 3,
        verify: bool = True,
        prompt: str = "standard",
        backend: str = "safe",
        workers: int = 0,
        **limits: Any,
    ) -> None:
        """What is not named here are limits of the sandbox. Raises InputError for wrong options, tasks that have an environment, and a back end that cannot be had."""
        super().__init__(in_single_turns(tasks, "--env cosc lets tasks of single turns be solved by programs"))
        if language not in ("python", "small"):
            raise InputError(f"language is {language!r}; expected python or small")
        if language == "small" and limits:
            raise InputError(f"{next(iter(limits))} is a limit of the sandbox, which programs in the small language do not need; leave it out")
        self.language: Language = (
            SmallPrograms() if language == "small" else PythonPrograms(open_sandbox(backend, limits=Limits(**{"output": 2000, **limits}), workers=workers))
        )
        self.rounds, self.verifying = checked_rounds(rounds, verify), verify
        self._prompt = PROMPTS.get(prompt) or read_template(prompt, "prompt", names=tuple(PROMPTS), needs=("question",), may=())
        self.max_turns = self.rounds + 1 if verify else 1
        self.max_new_tokens = max(tasks.max_new_tokens, self.language.tokens)
        self.stop = (self.language.closing, *tasks.stop)
        self.environment_weights = tasks.reward_weights

    @classmethod
    def named(cls, spec: str, tasks: TaskSet) -> ProgramRounds:
        """From `cosc` or `cosc:option=value,option=value`."""
        try:
            return cls(tasks, **settings_in(spec.partition(":")[2], f"--env {spec}", OPTIONS))
        except TypeError as error:
            raise InputError(
                f"--env {spec} can't be made: {error}; expected numbers for rounds and limits, for example --env cosc:rounds=2,seconds=2"
            ) from error

    def train_task(self, seed: int, index: int) -> Task:
        return self._told(self.tasks.train_task(seed, index))

    def held_out(self) -> Sequence[Task]:
        return [self._told(task) for task in self.tasks.held_out()]

    def verify_trajectory(self, trajectory: Trajectory) -> Mapping[str, float]:
        inner = self.tasks
        return judge_rounds(trajectory, self.language, self.rounds, inner.verify_trajectory, inner.answer_in, inner.reward_weights)

    def conversation(self, task: Task, seed: int) -> Sequence[Message] | None:
        """What a JSONL line has under `conversation`: the messages after the question, alternately the assistant's and the tool's."""
        given = task.info.get("conversation")
        return None if given is None else [*task.messages, *messages_of(given, f"task {task.id!r}")]

    def environment(self) -> Environment:
        return ProgramEnvironment(self.language, self.rounds, self.verifying)

    def _told(self, task: Task) -> Task:
        """The task with the prompt around its first message by the user."""
        messages = list(task.messages)
        place = next((i for i, m in enumerate(messages) if m.role == "user"), 0)
        messages[place] = Message(messages[place].role, filled(self._prompt, {"question": messages[place].content}))
        return replace(task, messages=tuple(messages))


class ProgramEnvironment(Environment):
    """Runs the program of a turn. A turn without one ends the episode, and so does a program beyond the last round, or the same one twice in a row."""

    def __init__(self, language: Language, rounds: int, verify: bool = True) -> None:
        self.language, self.rounds, self.verifying = language, rounds, verify
        self._programs = 0
        self._last = ""

    def reset(self, task: Task) -> Sequence[Message]:
        self._programs, self._last = 0, ""
        return task.opening

    def step(self, text: str) -> EnvironmentStep:
        program = self.language.program_in(text)
        if program is None or self._programs >= self.rounds or (self._programs and program == self._last):
            return EnvironmentStep(done=True)
        self._programs, self._last = self._programs + 1, program
        ran = self.language.run(program)
        said = (Message("tool", ran.text),) if self.verifying else ()
        return EnvironmentStep(said, done=not self.verifying, info={"tool_calls": 1, "tool_errors": int(not ran.ok)})

    def snapshot(self) -> tuple[int, str]:
        return self._programs, self._last

    def restore(self, state: tuple[int, str]) -> None:
        self._programs, self._last = state


def rounds_of(trajectory: Trajectory, language: Language) -> list[Round]:
    """The rounds of an episode, whoever wrote it. A program whose output it does not hold is run again; one that only repeats the last is no round."""
    spoken = [(s.author in ("policy", "injected"), s.text) for s in trajectory.segments]
    found: list[Round] = []
    for place, (own, text) in enumerate(spoken):
        program = language.program_in(text) if own else None
        if program is None:
            continue
        after = spoken[place + 1 :]
        if not after and found and found[-1].program == program:
            continue
        output = after[0][1] if after and not after[0][0] else language.run(program).text
        found.append(Round(program, output, next((later for policy, later in after if policy), None)))
    return found


def programs_in(trajectory: Trajectory, language: Language) -> list[str]:
    """The programs of an episode, whoever wrote it, without one that only repeats the last."""
    found = [p for s in trajectory.segments if s.author in ("policy", "injected") and (p := language.program_in(s.text)) is not None]
    return [p for i, p in enumerate(found) if i == 0 or p != found[i - 1]]


def concluded(trajectory: Trajectory, language: Language) -> bool:
    """Whether the last turn of an episode, whoever wrote it, says something and goes no further."""
    return language.program_in(_last_said(trajectory)) is None


def judge_rounds(
    trajectory: Trajectory,
    language: Language,
    most: int,
    judge: Callable[[Trajectory], Mapping[str, float]],
    answer_in: Callable[[str], str | None],
    weights: Mapping[str, float] = TaskSet.reward_weights,
) -> Mapping[str, float]:
    """Judge the answer that each round of an episode left; returns the components of the last one.

    judge: components of an episode of one turn, which has the answer alone. The tag VERDICTS has a verdict for each of `most` rounds, ANSWERS the answers: whoever ended
    earlier keeps the answer. The tag WENT_ON has what the policy did after each round that there was.
    """
    rounds = rounds_of(trajectory, language)[:most]
    answers = [_left_by(r, language, answer_in) for r in rounds] or [_last_said(trajectory)]
    alone = {name: value for name, value in trajectory.tags.items() if not name.startswith("environment_")}
    judged = [judge(replace(trajectory, segments=[Segment([], "policy", answer)], tags=dict(alone))) for answer in answers]
    verdicts = [c.get("correct", min(1.0, max(0.0, total(c, weights)))) for c in judged]
    rest = most - len(verdicts)
    read = [answer_in(answer) for answer in answers]
    trajectory.tags[VERDICTS] = [*verdicts, *[verdicts[-1]] * rest]
    trajectory.tags[ANSWERS] = [*read, *[read[-1]] * rest]
    trajectory.tags[WENT_ON] = [[v, None if r.said is None else language.program_in(r.said) is not None] for v, r in zip(verdicts, rounds, strict=False)]
    return judged[-1]


def messages_of(given: Any, whose: str) -> list[Message]:
    """Messages from plain values, one {"role": ..., "content": ...} each. Raises InputError for anything else, and where the last is not the assistant's."""
    expected = 'expected a list of {"role": ..., "content": ...} with roles system, user, assistant and tool, the last one the assistant\'s'
    if not isinstance(given, list) or not given:
        raise InputError(f"the conversation of {whose} is {'empty' if given == [] else 'no list'}; {expected}")
    for number, message in enumerate(given, start=1):
        known = isinstance(message, dict) and message.get("role") in ("system", "user", "assistant", "tool") and isinstance(message.get("content"), str)
        if not known:
            raise InputError(f"message {number} of the conversation of {whose} is {str(message)[:80]}; {expected}")
    if given[-1]["role"] != "assistant":
        raise InputError(f"the conversation of {whose} ends with a message by the {given[-1]['role']}; {expected}")
    return [Message(m["role"], m["content"]) for m in given]


def checked_rounds(rounds: int, verify: bool) -> int:
    """Rounds of an episode: one where nothing is checked. Raises InputError for fewer than one."""
    if not isinstance(rounds, int) or rounds < 1:
        raise InputError(f"rounds is {rounds!r}; expected a whole number from 1")
    return rounds if verify else 1


def _left_by(round_: Round, language: Language, answer_in: Callable[[str], str | None]) -> str:
    """The text whose final answer a round left: its conclusion, where that gives one, else the program's output."""
    if round_.said is not None and language.program_in(round_.said) is None and answer_in(round_.said) is not None:
        return round_.said
    output = language.answer_in(round_.output)
    return "" if output is None else f"answer: {output}"


def _last_said(trajectory: Trajectory) -> str:
    return next((s.text for s in reversed(trajectory.segments) if s.author in ("policy", "injected")), "")

"""A run of an agent: its code in the jail, and this side of the lines that it talks in.

The agent writes one JSON object a line and reads one for it:

    {"want": "task"}                                          {"text": what is to be done}
    {"want": "model", "messages": [{"role", "content"}, ...]}   {"text": the model's answer}; may also say "tokens" and "stop"
    {"want": "action", "text": a turn with an action}         {"text": what came of it, "done": whether it was handed in}

or `{"error": why not}`. It has nothing else: no network, no key, no file of the task. The host asks the model, counts calls and tokens, carries out the actions, and knows
what decides. An agent that ends, crashes or hangs has handed in what there is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from etude.agents.code import ENTRY, Files
from etude.errors import EtudeError
from etude.sandbox.base import cut
from etude.sandbox.jail import JailSandbox
from etude.sandbox.programs import LONGEST_LINE, Ended, JailedProgram
from etude.types import Message

ROLES = ("system", "user", "assistant")
MOST_LINES = 500
"""Lines of a run. Who writes more is ended."""
MOST_SECONDS = 120.0
"""Of an agent's own in a run, besides what it waits for. Who takes more is ended."""
MOST_STOPS = 4
"""As many as servers take."""
SHOWN = 1200
"""Characters of one entry that a log keeps."""
LOG = 6_000
"""Characters of a log."""


class Refusal(EtudeError):
    """What an agent wants cannot be had. It is told so, and goes on."""


class Workplace(Protocol):
    """What an agent acts on."""

    @property
    def opening(self) -> str:
        """What is to be done, in words for the agent."""
        ...

    def step(self, text: str) -> tuple[str, bool]:
        """Carry out the action of a turn: what came of it, and whether the work is handed in now."""
        ...


Ask = Callable[[tuple[Message, ...], int | None, tuple[str, ...]], str]
"""Asks the model: messages, tokens (None: as many as are allowed), stop strings. Raises Refusal where it cannot be asked."""


@dataclass
class RunLog:
    """What happened in a run, in order. ended: how the program ended, None where it was ended from here. calls: of the model. actions: that were carried out."""

    entries: list[str] = field(default_factory=list)
    calls: int = 0
    actions: int = 0
    handed_in: bool = False
    ended: Ended | None = None

    @property
    def text(self) -> str:
        """The log as a text, for whoever changes the agent next."""
        return cut("\n".join(self.entries), LOG)

    def note(self, who: str, text: str) -> None:
        self.entries.append(f"[{who}] {cut(text.strip(), SHOWN)}")


def run_agent(jail: JailSandbox, files: Files, mode: str, workplace: Workplace, ask: Ask, *, calls: int) -> RunLog:
    """Let an agent work, until it ends or has used up its lines or its time. mode: `solve` or `edit`, its argument. calls: of the model, at most.

    Whatever the agent does, this ends and the work is handed in. Raises what `ask` raises, except Refusal.
    """
    log = RunLog()
    with JailedProgram(jail, files, (ENTRY, mode)) as program:
        for _ in range(MOST_LINES):
            line = program.receive()
            if line is None or program.seconds > MOST_SECONDS:
                break
            answer = _answer(line, workplace, ask, calls, log)
            program.send(json.dumps(answer) if len(json.dumps(answer)) <= LONGEST_LINE else json.dumps({"error": "the answer is too long"}))
        log.ended = program.ended
    if log.ended is None:
        log.note("host", f"the agent was ended: it wrote more than {MOST_LINES} lines, or took more than {MOST_SECONDS:g} seconds itself")
    elif not log.ended.ok:
        log.note("host", f"the agent crashed: {log.ended.error}\n{log.ended.aside}")
    if not log.handed_in:
        workplace.step("submit")
        log.note("host", "it did not submit; its work was handed in as it was")
    return log


def _answer(line: str, workplace: Workplace, ask: Ask, calls: int, log: RunLog) -> dict[str, Any]:
    try:
        wanted = _read(line)
        match wanted.get("want"):
            case "task":
                return {"text": workplace.opening, "calls": calls - log.calls}
            case "model":
                messages, tokens, stop = _question(wanted)
                if log.calls >= calls:
                    raise Refusal(f"all {calls} calls of the model are used up")
                log.calls += 1
                text = ask(messages, tokens, stop)
                log.note("model", text)
                return {"text": text, "calls": calls - log.calls}
            case "action":
                text = wanted.get("text")
                if not isinstance(text, str):
                    raise Refusal("an action needs a text")
                if log.handed_in:
                    raise Refusal("the work is handed in; nothing can be done any more")
                said, log.handed_in = workplace.step(text)
                log.actions += not said.startswith("Error:")
                log.note("result", said or "handed in")
                return {"text": said, "done": log.handed_in}
            case other:
                raise Refusal(f"'want' is {other!r:.80}; expected 'task', 'model' or 'action'")
    except Refusal as error:
        log.note("error", str(error))
        return {"error": str(error)}


def _read(line: str) -> Mapping[str, Any]:
    try:
        wanted = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"the line {line[:80]!r} is no JSON ({error}); standard output is for requests only, print to standard error") from error
    if not isinstance(wanted, dict):
        raise Refusal(f"the line {line[:80]!r} is no JSON object")
    return wanted


def _question(wanted: Mapping[str, Any]) -> tuple[tuple[Message, ...], int | None, tuple[str, ...]]:
    given, tokens, stop = wanted.get("messages"), wanted.get("tokens"), wanted.get("stop", [])
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise Refusal("'messages' is no list of messages; expected [{'role': 'user', 'content': '...'}, ...]")
    for message in given:
        if not isinstance(message, dict) or message.get("role") not in ROLES or not isinstance(message.get("content"), str):
            raise Refusal(f"{message!r:.80} is no message; expected a role of {', '.join(ROLES)} and a text as content")
    if tokens is not None and (type(tokens) is not int or tokens < 1):
        raise Refusal(f"'tokens' is {tokens!r:.80}; expected a number of at least 1")
    if not isinstance(stop, list) or len(stop) > MOST_STOPS or not all(isinstance(text, str) and text for text in stop):
        raise Refusal(f"'stop' is {stop!r:.80}; expected a list of at most {MOST_STOPS} texts")
    return tuple(Message(m["role"], _unicode(m["content"])) for m in given), tokens, tuple(_unicode(text) for text in stop)


def _unicode(text: str) -> str:
    """Without halves of surrogate pairs, which JSON can write and no server takes."""
    return text.encode("utf-8", "replace").decode()

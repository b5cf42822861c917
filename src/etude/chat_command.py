"""`etude chat`: a conversation in the terminal, in which a model looks at each of its answers again and everybody can see what it changes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from etude.config import ChatConfig, MeasureConfig
from etude.errors import EtudeError, InputError
from etude.settings import check_config

if TYPE_CHECKING:
    from rich.console import Console

    from etude.models.streaming import Speaker
    from etude.types import Message

FEEDBACK = "Check your answer above step by step, and name every error that you find, or say that there is none. Do not write a new answer yet."
"""What asks for feedback before a further look."""
COMMANDS = {
    "/reset": "forget the conversation",
    "/turns N": "further looks at each answer",
    "/quit": "leave (as Ctrl-D does)",
}
KEEP_FREE = 64
"""Tokens of the context that an answer should find free at least."""


def chat_command(given: list[str]) -> int:
    """Run the command; returns its exit code: 130 when an interrupt ended it, which in a conversation it does not."""
    from rich.console import Console

    from etude.cli import parsed

    model, rest = (given[0], given[1:]) if given and not given[0].startswith("-") else (None, given)
    if model is None and not {"-h", "--help"} & set(rest):
        raise InputError("no model is named; expected one first, as in `etude chat tiny`")
    description = (
        "Talk to MODEL (tiny, smollm2, a Hugging Face folder or hub id, a run's folder, or an endpoint: http://host:port/v1#model, or openai:NAME). After each answer it is "
        "asked to look again, and what it changes is marked. Ctrl-C ends an answer, Ctrl-D the conversation. Where input is piped in, every line is a question."
    )
    config = parsed(ChatConfig, rest, prog=f"etude chat {model or 'MODEL'}", description=description, default=ChatConfig())
    check_config(config, "flag")
    request = request_of(config, str(model))
    speaker = _speaker(str(model), config)
    chat = Chat(speaker, config, request, Console(highlight=False))
    if sys.stdin.isatty():
        chat.console.print(f"{model}. {_commands()}", style="dim", markup=False, soft_wrap=True)
    for line in _lines(sys.stdin.isatty(), chat.console):
        if not chat.take(line, forgiving=sys.stdin.isatty()):
            break
    return 0


def request_of(config: ChatConfig, model: str) -> str:
    """The text that asks for another look. Raises InputError for a file that cannot be read, and where feedback is asked for in short words."""
    from etude.tasks.revisions import REQUESTS
    from etude.tasks.templates import read_template

    name = config.request or ("short" if model == "tiny" else "standard")
    if config.feedback and name == "short":
        raise InputError("--feedback needs a model that follows instructions, and the request `short` is for those that do not; leave one of them out")
    return REQUESTS.get(name) or read_template(name, "request", names=tuple(REQUESTS), needs=(), may=("question",))


def _speaker(model: str, config: ChatConfig) -> Speaker:
    from etude.models.remote import Endpoint, is_endpoint
    from etude.models.streaming import LocalSpeaker, RemoteSpeaker

    if is_endpoint(model, config.base_url):
        endpoint = Endpoint.parse(model, config.base_url)
        endpoint.check()
        return RemoteSpeaker(endpoint)
    import torch

    from etude.api import load_policy

    if config.threads:
        torch.set_num_threads(config.threads)
    policy = load_policy(model, MeasureConfig(device=config.device, dtype=config.dtype, slots=1))
    return LocalSpeaker(policy, min(config.max_new_tokens, KEEP_FREE))


def _commands() -> str:
    return "; ".join(f"{name}: {what}" for name, what in COMMANDS.items())


def _lines(interactive: bool, console: Console) -> Iterator[str]:
    """What is typed, or piped in, line by line, without empty ones."""
    if interactive:
        with suppress(ImportError):
            import readline  # noqa: F401  Lines can then be edited and called up again.
    while True:
        try:
            line = input("\n> " if interactive else "")
        except EOFError:
            return
        except KeyboardInterrupt:
            if not interactive:
                raise
            console.print("\nCtrl-D or /quit leaves", style="dim")
            continue
        if line.strip():
            yield line.strip()


@dataclass
class Chat:
    """A conversation: everything that was said, and how it goes on."""

    speaker: Speaker
    config: ChatConfig
    request: str
    console: Console
    messages: list[Message] = field(default_factory=list)
    questions: list[int] = field(default_factory=list)
    turns: int = field(init=False)
    answered: int = 0

    def __post_init__(self) -> None:
        self.turns = self.config.turns

    def take(self, line: str, *, forgiving: bool) -> bool:
        """Answer a line, or do what a command says; returns whether the conversation goes on.

        forgiving: what goes wrong, and an interrupt, end the answer alone; otherwise they are raised.
        """
        if line.startswith("/"):
            return self._obey(line)
        saved = list(self.messages), list(self.questions)
        try:
            self._exchange(line)
        except KeyboardInterrupt:
            self.console.print("\nstopped", style="yellow")
            if not forgiving:
                raise
        except EtudeError as error:
            if not forgiving:
                raise
            self.messages, self.questions = saved
            self.console.print(f"\nerror: {error}", style="bold red", markup=False, soft_wrap=True)
        return True

    def _obey(self, line: str) -> bool:
        name, _, value = line.partition(" ")
        if name == "/quit":
            return False
        if name == "/reset":
            self.messages, self.questions = [], []
            self.console.print("forgotten", style="dim")
        elif name == "/turns" and value.strip().isdigit():
            self.turns = int(value)
            self.console.print(f"further looks at each answer: {self.turns}", style="dim")
        else:
            self.console.print(f"there is no command {line!r}; {_commands()}", style="yellow", markup=False, soft_wrap=True)
        return True

    def _exchange(self, question: str) -> None:
        """One question: a first answer and the further looks at it."""
        from etude.tasks.templates import filled

        self.questions.append(len(self.messages))
        before = self._turn("attempt 1" if self.turns else "", question)
        for look in range(self.turns):
            if before and self.config.feedback:
                self._turn(f"feedback {look + 1}", FEEDBACK)
            if not before:
                self.console.print("the model said nothing", style="dim")
                return
            after = self._turn(f"attempt {look + 2}", filled(self.request, {"question": question}))
            self._compare(before, after)
            before = after

    def _turn(self, title: str, asked: str) -> str:
        """The model's turn after what is asked, shown as it is written. Interrupted, what was written so far is its turn; where that is nothing, neither was said."""
        from etude.models.sampling import SamplingParams, stream_key
        from etude.models.streaming import without_oldest
        from etude.types import Message
        from etude.viewer.samples import readable

        self.messages.append(Message("user", asked))
        system = [Message("system", self.config.system)] if self.config.system else []
        start = without_oldest(system, self.messages, self.questions, self.speaker)
        if start > self.questions[0]:
            self.questions = [place for place in self.questions if place >= start]
            self.console.print("the beginning of the conversation no longer fits the model's context, and is left out", style="dim", soft_wrap=True)
        shown = [*system, *self.messages[start:]]
        params = SamplingParams(self.config.max_new_tokens, self.config.temperature, self.config.top_p)
        if title:
            self.console.print(title, style="bold dim")
        text = ""
        self.answered += 1
        try:
            for piece in self.speaker.say(shown, params, stream_key("chat", self.config.seed, self.answered)):
                text += piece
                # A model's text may hold what a terminal would obey.
                self.console.print(readable(piece, len(piece)), end="", markup=False, soft_wrap=True)
                self.console.file.flush()
        finally:
            if text:
                self.messages.append(Message("assistant", text))
            else:
                self.messages.pop()
                self.questions = [place for place in self.questions if place < len(self.messages)]
        self.console.print()
        return text

    def _compare(self, before: str, after: str) -> None:
        from etude.viewer.samples import readable
        from etude.viewer.word_difference import changed_words

        if before == after:
            self.console.print("unchanged", style="dim")
            return
        plain = not self.console.is_terminal or self.console.no_color
        self.console.print("changed", style="bold dim")
        self.console.print(changed_words(*(readable(text, len(text)) for text in (before, after)), plain=plain), soft_wrap=True)

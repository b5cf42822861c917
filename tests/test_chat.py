"""`etude chat`: what is said, shown, kept and forgotten."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from rich.console import Console

from etude.chat_command import FEEDBACK, Chat, request_of
from etude.cli import main
from etude.config import ChatConfig
from etude.errors import EtudeError, InputError
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams
from etude.models.streaming import LocalSpeaker
from etude.types import Message
from etude.viewer.word_difference import changed_words


class Says:
    """Says one text after the other, a character at a time; an exception among them is raised after the text before it."""

    def __init__(self, *turns: str | BaseException, most: int = 99) -> None:
        self.turns, self.most = iter(turns), most
        self.heard: list[list[str]] = []

    def say(self, messages: Sequence[Message], params: SamplingParams, stream: int) -> Iterator[str]:
        self.heard.append([m.content for m in messages])
        turn = next(self.turns)
        if isinstance(turn, BaseException):
            yield from turn.args[0] if isinstance(turn, KeyboardInterrupt) else ""
            raise turn
        yield from turn

    def fits(self, messages: Sequence[Message]) -> bool:
        return len(messages) <= self.most


def chat(speaker: Says, **settings: Any) -> tuple[Chat, Callable[[], str]]:
    out = io.StringIO()
    config = ChatConfig(**settings)
    return Chat(speaker, config, "look again at {question}", Console(file=out, width=80)), out.getvalue


def test_attempts_feedback_and_changes_are_shown_and_kept() -> None:
    speaker = Says("it is 5", "no: 2+2 is 4", "it is 4", "fine", "it is 4")
    talk, shown = chat(speaker, turns=2, feedback=True, system="short")
    assert talk.take("2+2?", forgiving=True)
    assert speaker.heard[-1] == [
        *("short", "2+2?", "it is 5", FEEDBACK, "no: 2+2 is 4", "look again at 2+2?"),
        *("it is 4", FEEDBACK, "fine", "look again at 2+2?"),
    ]
    assert "attempt 1\nit is 5\nfeedback 1\nno: 2+2 is 4\nattempt 2\nit is 4\nchanged\nit is [-5-]{+4+}\n" in shown()
    assert shown().endswith("attempt 3\nit is 4\nunchanged\n")


def test_an_interrupt_ends_the_answer_and_an_error_forgets_the_question() -> None:
    speaker = Says("one", KeyboardInterrupt("tw"), KeyboardInterrupt(""), EtudeError("server gone"), "five")
    talk, shown = chat(speaker, turns=0)
    for question in "abcde":
        assert talk.take(question, forgiving=True)
    assert speaker.heard[-1] == ["a", "one", "b", "tw", "e"]
    assert shown().count("stopped") == 2
    assert "error: server gone" in shown()
    with pytest.raises(EtudeError):
        chat(Says(EtudeError("x")))[0].take("a", forgiving=False)


def test_commands_and_a_full_context() -> None:
    speaker = Says("A", "B", "C", "D", "", most=3)
    talk, shown = chat(speaker, turns=0)
    assert all(talk.take(line, forgiving=True) for line in ("a", "b", "/turns x", "c", "/reset", "d"))
    assert speaker.heard == [["a"], ["a", "A", "b"], ["b", "B", "c"], ["d"]]
    assert "left out" in shown()
    assert "there is no command '/turns x'" in shown()
    assert talk.take("/turns 1", forgiving=True)
    assert talk.take("e", forgiving=True)
    assert "the model said nothing" in shown()
    assert talk.turns == 1
    assert not talk.take("/quit", forgiving=True)
    with pytest.raises(InputError, match="leaves no room"):
        chat(Says("a", most=0))[0].take("a", forgiving=False)


def test_words_that_changed() -> None:
    assert changed_words("9*8=71\nanswer: 90", "9*8=72\nanswer: 91", plain=True).plain == "9*8=[-71-]{+72+}\nanswer: [-90-]{+91+}"
    marked = changed_words("a b", "a c d")
    assert (marked.plain, [str(span.style) for span in marked.spans]) == ("a bc d", ["red strike", "bold green"])


def test_a_model_that_runs_here_streams_what_it_writes_and_can_be_stopped() -> None:
    before = signal.getsignal(signal.SIGINT)
    policy = LanguageModel.load("tiny", device="cpu", slots=1)
    speaker = LocalSpeaker(policy, 32)
    asked = [Message("user", "compute 9*8+19")]
    params = SamplingParams(max_new_tokens=24)
    pieces = list(speaker.say(asked, params, 7))
    assert len(pieces) > 5
    stopped = speaker.say(asked, params, 7)
    seen = [next(stopped), next(stopped)]
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        seen += list(stopped)
    assert policy.sampler.pending == 0
    assert signal.getsignal(signal.SIGINT) is before
    assert list(speaker.say(asked, params, 7)) == pieces
    assert not speaker.fits([Message("user", "compute " * 240)])


def test_questions_are_piped_in(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("quick: 9*8+19\n\n/quit\nnever\n"))
    assert main(["chat", "tiny", "--threads", "1", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("attempt 1\n")
    assert shown.count("attempt") == 2


def test_an_endpoint_streams(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openai")
    from chat_server import completion, serving

    with serving() as server:
        server.reply = lambda body: (200, completion([f"heard {len(body['messages'])}"]))
        monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
        assert main(["chat", f"{server.url}#small"]) == 0
        assert "attempt 1\nheard 1\nattempt 2\nheard 3\nchanged\nheard [-1-]{+3+}\n" in capsys.readouterr().out
        server.reply = lambda body: (404, {"error": {"message": "gone"}})
        monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
        assert main(["chat", f"{server.url}#small"]) == 2
        assert "has no model" in capsys.readouterr().err


def test_requests_that_do_not_go_together() -> None:
    assert request_of(ChatConfig(), "tiny") == "check and fix"
    with pytest.raises(InputError, match="--feedback needs a model that follows"):
        request_of(ChatConfig(feedback=True), "tiny")
    with pytest.raises(InputError, match="cannot be read"):
        request_of(ChatConfig(request="no-such-file"), "tiny")
    assert main(["chat"]) == 2

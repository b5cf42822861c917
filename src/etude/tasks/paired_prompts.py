"""What a model is asked in rounds: the opening question in either format, and what follows each of its answers.

The request after an answer says again what was asked and never whether the answer was right, so that whatever changes, the model changes by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from etude.errors import InputError
from etude.tasks.paired import Form, PairedItem
from etude.tasks.revisions import REQUESTS
from etude.tasks.templates import filled, read_template
from etude.types import Message

Way = Literal["baseline", "cot", "sc"]
"""How an answer is asked for: at once, after thinking step by step, or as the most consistent of several of the latter."""
WAYS: tuple[Way, ...] = get_args(Way)


@dataclass(frozen=True)
class Script:
    """Templates of what is said, with the fields {question}, {options} and {how}.

    opening, again: by format; {keyed} stands for the options in the form of '91=a'. how: by format and by whether the model is to think first; empty where nothing is said
    about it. small: letters are written small.
    """

    opening: Mapping[Form, str]
    again: Mapping[Form, str]
    how: Mapping[tuple[Form, bool], str]
    small: bool = False

    def written(self, letter: str) -> str:
        """An option's letter as this script writes it."""
        return letter.lower() if self.small else letter

    def start(self, item: PairedItem, form: Form, way: Way) -> list[Message]:
        """The conversation up to the first answer: the task's own messages, the last of which asks."""
        *before, last = item.task.messages
        return [*before, Message(last.role, self._said(self.opening[form], item, form, way))]

    def request(self, item: PairedItem, form: Form, way: Way) -> Message:
        """What follows an answer."""
        return Message("user", self._said(self.again[form], item, form, way))

    def with_request(self, spec: str) -> Script:
        """The same with a text file's request in both formats. Raises InputError for one that cannot be read."""
        text = read_template(spec, "request", names=(), needs=(), may=("question", "options", "how"))
        return replace(self, again={"generation": text, "choice": text})

    def _said(self, template: str, item: PairedItem, form: Form, way: Way) -> str:
        options, keyed = (item.lettered, item.keyed) if form == "choice" else ("", "")
        return filled(template, {"question": item.task.prompt, "options": options, "keyed": keyed, "how": self.how.get((form, way != "baseline"), "")})


SCRIPTS: Mapping[str, Script] = {
    "standard": Script(
        opening={"generation": "{question}\n\n{how}", "choice": "{question}\n\n{options}\n\n{how}"},
        again={
            "generation": "The question once more: {question}\n\nReview your previous answers to it; they may be right or wrong. {how}",
            "choice": "The question once more: {question}\n\n{options}\n\nReview your previous choices; they may be right or wrong. {how}",
        },
        how={
            ("generation", False): "Give the final answer on a last line 'answer: X', and nothing else.",
            ("generation", True): "Think step by step, then give the final answer on a last line 'answer: X'.",
            ("choice", False): "Give the letter of the option that you choose on a last line 'answer: X', and nothing else.",
            ("choice", True): "Think step by step, then give the letter of the option that you choose on a last line 'answer: X'.",
        },
    ),
    "short": Script(
        opening={"generation": "{question}", "choice": "{question}\n{keyed}"},
        again={"generation": REQUESTS["short"], "choice": REQUESTS["short"]},
        how={},
        small=True,
    ),
}
"""Scripts by name: for models that follow instructions, and for small ones, which were taught what the short request means."""


def script_of(prompts: str, request: str | None, ways: Sequence[Way]) -> Script:
    """The script of a name, with the request of a text file where one is given. Raises InputError where thinking is asked for and the script has no words for it."""
    script = SCRIPTS[prompts]
    if "cot" in ways and not script.how:
        raise InputError(
            f"the prompts {prompts!r} do not say how to answer, so that cot would be baseline; expected the methods baseline and sc, or --prompts standard"
        )
    return script.with_request(request) if request is not None else script


def most_consistent(question: str, responses: Sequence[str]) -> Message:
    """Asks a model which of its numbered responses agrees best with the others."""
    numbered = "\n\n".join(f"Response {i}:\n{text.strip()}" for i, text in enumerate(responses, start=1))
    return Message(
        "user",
        f"Here are {len(responses)} responses to this question: {question}\n\n{numbered}\n\nWhich of them agrees best with the others? "
        "Give its number on a last line 'answer: N', and nothing else.",
    )

"""What is wrong with this answer, and how should it be? Prompts for two roles of one model, critic and reviser, and the verdict that its feedback ends in."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from etude.tasks.feasibility import READS_LITTLE
from etude.tasks.templates import filled, read_template
from etude.types import Message, Task

FEEDBACK = {
    "standard": """Below are a question and a response to it.

Question:
{question}

Response:
{response}

Check the response step by step. Where it is wrong or could be better, say where and what should stand there. Then end with one line that is either
"verdict: qualified" or "verdict: not qualified".""",
    "short": "check: {question}\n{response}",
}
"""What a critic is asked, by name: for models that follow instructions, and for small ones, which have to be taught what it means."""
REFINE = {
    "standard": """Below are a question, a response to it, and feedback on the response.

Question:
{question}

Response:
{response}

Feedback:
{feedback}

Write the response anew, with what the feedback finds set right. Answer the question in full, as if for the first time, and do not mention the feedback.""",
    "short": "mend: {question}\n{response}\n{feedback}",
}
"""The same for a reviser."""
MARKER = "verdict:"
ACCEPTED: Collection[str] = ("qualified", "ok")
REJECTED: Collection[str] = ("not qualified", "unqualified", "bad")
"""Words of a verdict; of short feedback, what is wrong may follow the last of them ('bad 2: 12')."""


@dataclass(frozen=True)
class Roles:
    """The prompts of critic and reviser, with {question} and {response}, and for the reviser {feedback}. The task's system message stays in front of either."""

    feedback: str
    refine: str

    @classmethod
    def load(cls, feedback: str, refine: str, context_length: int) -> Roles:
        """Each `standard`, `short`, `auto` (by how much the model reads), or a text file. Raises InputError for a file that cannot be used."""
        fits = "short" if context_length < READS_LITTLE else "standard"
        return cls(
            _named(fits if feedback == "auto" else feedback, FEEDBACK, "--feedback-prompt", ("question", "response")),
            _named(fits if refine == "auto" else refine, REFINE, "--refine-prompt", ("question", "response", "feedback")),
        )

    def criticise(self, task: Task, response: str) -> tuple[Message, ...]:
        """The request for feedback on a response."""
        return _asked(task, self.feedback, {"question": task.prompt, "response": response})

    def revise(self, task: Task, response: str, feedback: str) -> tuple[Message, ...]:
        """The request for a better response."""
        return _asked(task, self.refine, {"question": task.prompt, "response": response, "feedback": feedback})


def verdict_in(feedback: str) -> bool | None:
    """Whether feedback's last line accepts the answer; None where that line is no verdict, is hedged, or contradicts an earlier one.

    Whoever filters by verdicts has to take None as a refusal: were it let through, a model that forgets the form would open the filter.
    """
    lines = [line.replace("*", "").replace("`", "").strip().casefold() for line in feedback.strip().splitlines() if line.strip()]
    if not lines or sum(line.count(MARKER) for line in lines) > 1:
        return None
    said = lines[-1].removeprefix(MARKER).strip(" .\"'")
    if said in ACCEPTED:
        return True
    return False if said in REJECTED or said.startswith("bad ") else None


def _named(spec: str, known: dict[str, str], option: str, needs: tuple[str, ...]) -> str:
    return known.get(spec) or read_template(spec, option, names=("auto", *known), needs=needs, may=())


def _asked(task: Task, template: str, fields: dict[str, str]) -> tuple[Message, ...]:
    return (*(m for m in task.messages if m.role == "system"), Message("user", filled(template, fields)))

"""Another attempt at a task, begun from the newest one alone.

What is shown is the task, the last attempt with what may be told of it (`TaskSet.feedback`), and a request. Earlier attempts are left out, so that the hundredth prompt is as
long as the second. `etude.tasks.revisions` keeps the whole conversation instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from etude.tasks.base import TaskSet
from etude.tasks.templates import filled, read_template
from etude.types import Message, StartingPoint, Task

Mode = Literal["improve", "diverge"]
"""What is asked for: a better attempt, or a better one by another way."""
REQUESTS: Mapping[str, Mapping[Mode, str]] = {
    "standard": {
        "improve": "Above is the latest attempt. {feedback}\nImprove it: find what is wrong or weak in it and put it right; leave alone what is right. Write the "
        "whole solution once more and state the final answer in the same form as before.",
        "diverge": "Above is the latest attempt. {feedback}\nFind a better one by a clearly different approach than the one above. Write the whole solution and "
        "state the final answer in the same form as before.",
    },
    "short": {"improve": "check and fix {feedback}", "diverge": "unique {feedback}"},
}
"""Requests by name: for models that follow instructions, and for small ones, which have to be taught what they mean (the lessons of `subset-target` do). Both short ones
are a token of the embedded model."""


def named_request(spec: str, option: str, mode: Mode) -> str:
    """The request that an option names: one of REQUESTS, or a text file's. Raises InputError for a file that cannot be read or has unknown fields."""
    if spec in REQUESTS:
        return REQUESTS[spec][mode]
    return read_template(spec, option, names=tuple(REQUESTS), needs=(), may=("question", "feedback"))


def begun_from(task: Task, attempt: str, request: str, feedback: str, *, author: str) -> Task:
    """The task, begun after an attempt that `author` made: it is context, and no token of it is trained on. An earlier starting point is left out.

    request: fields {question} and {feedback}; white space at its end goes, so that a request may end in feedback that is empty.
    """
    said = filled(request, {"question": task.prompt, "feedback": feedback}).strip()
    return replace(task, start=StartingPoint((Message("assistant", attempt), Message("user", said)), author))


def next_step(task: Task, attempt: str, request: str, task_set: TaskSet, *, author: str) -> Task:
    """The same with the feedback that the task set gives."""
    return begun_from(task, attempt, request, task_set.feedback(task, attempt), author=author)

"""Translation tasks as texts: what is translated into which language, how a model is asked, and where its translation stands in what it wrote."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace

from etude.tasks.answers import final_answer, follows_convention
from etude.tasks.base import TaskSet
from etude.tasks.templates import filled, read_template
from etude.tasks.unlabelled import PartlyLabelled
from etude.types import Message, Task

TRANSLATE = "Translate from {source_language} into {target_language}.\n\n{source}\n\nEnd with {field}"
THINK = (
    "Translate from {source_language} into {target_language}.\n\n{source}\n\n"
    "First think between <think> and </think> about what is hard to render. Then end with {field}"
)
PROMPTS = {"translate": TRANSLATE, "think": THINK}
"""Built-in ways to ask for a translation. `{field}` says where the translation has to stand."""

_QUOTES = {'"': '"', "'": "'", "“": "”", "”": "”", "„": "“”", "«": "»", "»": "«", "‹": "›", "‘": "’", "‚": "‘’", "「": "」", "『": "』", "`": "`"}


def source_of(task: Task) -> str:
    """The text to translate: the task's `source` where it has one, else its prompt."""
    return str(task.info.get("source", task.prompt))


def fields_of(task: Task, source_language: str = "", target_language: str = "") -> dict[str, str]:
    """What a prompt about a task can name: `source`, `source_language`, `target_language`. The languages are the task's own, or else those that are given."""
    languages = {"source_language": source_language or "the source language", "target_language": target_language or "the target language"}
    return {"source": source_of(task)} | {name: str(task.info.get(name) or default) for name, default in languages.items()}


def is_bare(task: Task) -> bool:
    """Whether a task says nothing but its source, so that a model has to be told what to do with it."""
    return "source" in task.info and "prompted" not in task.info and task.prompt == task.info["source"]


def translation_in(text: str, tag: str = "") -> str | None:
    """The translation that a whole response gives; None where the response does not have the asked form.

    With a tag: exactly one `<tag>...</tag>` with something in it, and nothing behind it. Without: exactly one line `answer: ...`, the last thing in the text.
    """
    if not tag:
        return final_answer(text) if follows_convention(text) else None
    opening, closing = f"<{tag}>", f"</{tag}>"
    if text.count(opening) != 1 or text.count(closing) != 1:
        return None
    inside, found, behind = text.partition(opening)[2].partition(closing)
    return (inside.strip() or None) if found and not behind.strip() else None


def without_wrapping(translation: str, source: str) -> str:
    """A translation as it is judged and measured: composed characters, single spaces, no quotation marks around the whole where the source has none.

    A judge that shares such a habit does not mind it and metrics do, so that without this they would part for nothing.
    """
    text = "\n".join(" ".join(line.split()) for line in unicodedata.normalize("NFC", translation).strip().splitlines())
    while is_quoted(text) and not is_quoted(source):
        text = text[1:-1].strip()
    return text


def is_quoted(text: str) -> bool:
    """Whether one pair of quotation marks stands around the whole text."""
    bare = text.strip()
    if len(bare) < 3 or bare[-1] not in _QUOTES.get(bare[0], ""):
        return False
    return bare[0] not in bare[1:-1] and bare[-1] not in bare[1:-1]


class Prompted(PartlyLabelled):
    """Translation tasks that are asked for in other words, and answered in a tag where one is named. What is right stays what it is."""

    def __init__(self, tasks: TaskSet, prompt: str, *, tag: str = "", languages: tuple[str, str] = ("", "")) -> None:
        """prompt: `task` for the tasks' own words, a name of PROMPTS, or a text file with {source}. languages: source's and target's, for tasks that do not say.

        Raises InputError for a file that is no template.
        """
        super().__init__(tasks)
        self.tag, self.languages = tag, languages
        self.template: str | None = None
        if prompt != "task":
            names = ("task", *PROMPTS)
            self.template = PROMPTS.get(prompt) or read_template(
                prompt, "--actor-prompt", names=names, needs=("source",), may=("source_language", "target_language", "field")
            )

    def prompted(self, task: Task) -> Task:
        """The task in these words; one that has them already as it is."""
        if "prompted" in task.info:
            return task
        fields = fields_of(task, *self.languages)
        info = {**task.info, **fields, "prompted": True}
        if self.template is None:
            return replace(task, info=info)
        place = f"the translation alone between <{self.tag}> and </{self.tag}>." if self.tag else "one line 'answer: ' and the translation."
        return replace(task, messages=(Message("user", filled(self.template, {**fields, "field": place})),), info=info)

    def train_task(self, seed: int, index: int) -> Task:
        return self.prompted(self.tasks.train_task(seed, index))

    def held_out(self) -> Sequence[Task]:
        return [self.prompted(task) for task in self.tasks.held_out()]

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        return self.tasks.verify(task, self._as_line(text))

    def answer_in(self, text: str) -> str | None:
        return super().answer_in(self._as_line(text))

    def demonstration(self, task: Task, seed: int) -> str | None:
        shown = self.tasks.demonstration(task, seed)
        if shown is None or not self.tag:
            return shown
        return f"<{self.tag}>{final_answer(shown) or shown}</{self.tag}>"

    def _as_line(self, text: str) -> str:
        """A response with a tag as one with an answer line, which is what task sets read; other responses as they are."""
        if not self.tag:
            return text
        translation = translation_in(text, self.tag)
        return "" if translation is None else f"answer: {' '.join(translation.split())}"

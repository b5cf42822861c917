"""`pictures`: write a picture of a caption, in visual tokens; a judge looks at what they show.

The text of an attempt is as many visual words as a picture has (`<v12> <v40> ...`). They are rendered, and the source's judge measures how well the picture fits its caption.
A model that writes nothing else can be practised on like any other: with `grpo`, `rloo` or any method that samples and is told how good it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from etude.errors import InputError
from etude.images.captions import Law
from etude.images.grid import pixels
from etude.images.sources import Digits, Source, World
from etude.models.picture_code import PictureCode
from etude.models.picture_language import code_beside, visual_tokens
from etude.models.sampling import stream_key
from etude.tasks.base import TaskSet
from etude.tasks.builtin.generated import is_held_out
from etude.types import Message, Task, Trajectory

CANDIDATES = 12
"""Captions that are drawn for each one that is wanted on the held-out side."""


def picture_of(text: str, model: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None:
    """The picture that a text shows in the visual tokens of a model [16, 16, 3], for rewards of one's own; None where the text is no picture."""
    code = _code_of(model)
    tokens = visual_tokens(text, code)
    if tokens is None:
        return None
    with torch.no_grad():
        return pixels(code.render(torch.tensor([tokens])))[0]


@cache
def _code_of(model: str) -> PictureCode:
    return code_beside(model)


class PictureTasks(TaskSet):
    """Captions to draw. `alignment`, the share of the judge's checks that the picture passes, is the reward; `correct` is that it passes all.

    tokenizer: whose visual tokens they are: a model that writes pictures, by name or folder. law: of training captions (`etude.images.captions`); held-out ones are uniform
    and are never trained on. of: `world`, or `digits`, whose ten captions are trained on and asked for alike. held_out_tasks: how many are held out.
    """

    name = "pictures"
    reward_weights: Mapping[str, float] = {"alignment": 1.0}

    def __init__(self, *, tokenizer: str = "tiny-selftok", law: Law = "uniform", of: str = "world", held_out_tasks: int = 256) -> None:
        if of not in ("world", "digits"):
            raise InputError(f"pictures of {of!r} can't be practised; expected of=world or of=digits")
        self._begin(World(law) if of == "world" else Digits(), code_beside(tokenizer), held_out_tasks)

    @classmethod
    def of(cls, source: Source, code: PictureCode, *, held_out_tasks: int = 256) -> PictureTasks:
        """Captions of a source that is open already, to be written in the tokens of a tokenizer that is loaded already."""
        tasks = cls.__new__(cls)
        tasks._begin(source, code, held_out_tasks)
        return tasks

    def _begin(self, source: Source, code: PictureCode, held_out_tasks: int) -> None:
        if held_out_tasks < 1:
            raise InputError(f"held_out_tasks is {held_out_tasks}; expected at least 1")
        self.source, self.code = source, code
        self.max_new_tokens = self.fixed_length = code.count
        self._held_out_count = held_out_tasks
        self._apart = isinstance(source, World)
        """Whether there are captions enough to keep some apart."""
        self._held_out: list[Task] | None = None
        self._seen: dict[tuple[str, str], Mapping[str, float]] = {}

    def train_task(self, seed: int, index: int) -> Task:
        random = np.random.default_rng(stream_key("pictures", seed, index))
        while True:
            caption = self.source.batch(1, random)[1][0].tolist()
            if not (self._apart and is_held_out(self.source.words(caption))):
                return self._task(caption, f"pictures/train-{seed}-{index}")

    def held_out(self) -> Sequence[Task]:
        if self._held_out is None:
            captions = self.source.held_out(self._held_out_count * (CANDIDATES if self._apart else 1))[1].tolist()
            distinct = {self.source.words(caption): caption for caption in captions}
            kept = [caption for words, caption in distinct.items() if not self._apart or is_held_out(words)]
            self._held_out = [self._task(caption, f"pictures/held-out-{i}") for i, caption in enumerate(kept[: self._held_out_count])]
        return self._held_out

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        """`alignment` and `correct` by the judge, `second_opinion` where there is one, and `format`: whether the text is a picture (all that is said where nobody judges)."""
        known = self._seen.get((task.id, text))
        return known if known is not None else self._judged([(task, text)])[0]

    def prepare(self, trajectories: Sequence[Trajectory]) -> None:
        """Render and judge all attempts at once."""
        pairs = [(t.task, t.last_text) for t in trajectories]
        self._seen = {(task.id, text): found for (task, text), found in zip(pairs, self._judged(pairs), strict=True)}

    def answer_in(self, text: str) -> None:
        """None: two pictures of a caption are hardly ever the same tokens, so that no vote can be taken."""
        return None

    def rendered(self, texts: Sequence[str]) -> Tensor:
        """Pictures [B, 3, 16, 16] of texts; of one that is no picture, an empty one."""
        read = [visual_tokens(text, self.code) for text in texts]
        with torch.no_grad():
            pictures = self.code.render(torch.tensor([tokens or [0] * self.code.count for tokens in read]))
        pictures[[tokens is None for tokens in read]] = -1.0
        return pictures

    def captions(self, tasks: Sequence[Task]) -> Tensor:
        """The captions [B, W] of tasks, as the source writes them."""
        return torch.tensor([task.info["caption"] for task in tasks])

    def _judged(self, pairs: Sequence[tuple[Task, str]]) -> list[Mapping[str, float]]:
        if not pairs:
            return []
        pictures, captions = self.rendered([text for _, text in pairs]), self.captions([task for task, _ in pairs])
        fit, opinion = self.source.alignment(pictures, captions), self.source.second_opinion(pictures, captions)
        found: list[Mapping[str, float]] = []
        for i, (_, text) in enumerate(pairs):
            whole = float(visual_tokens(text, self.code) is not None)
            components = {"format": whole}
            if fit is not None:
                components |= {"correct": whole * float(fit.strict[i]), "alignment": whole * float(fit.soft[i])}
            if opinion is not None:
                components["second_opinion"] = whole * float(opinion[i])
            found.append(components)
        return found

    def _task(self, caption: Sequence[int], id_: str) -> Task:
        return Task(id=id_, messages=(Message("user", self.source.words(caption)),), info={"caption": list(caption)})

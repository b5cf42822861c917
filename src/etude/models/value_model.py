"""A language model that says how good what it reads is: a backbone, and a linear layer that makes one number of the logits behind the last token (as in ReST-MCTS*).

It is trained by regression to values in [0, 1] behind the steps of solutions. A solution of many steps has many values and is read once. `Reading` is such a solution: its
trained tokens mark places, and a value belongs to what stands before the place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from etude.config import LearnerConfig
from etude.errors import InputError
from etude.ledger import FORWARD, FORWARD_BACKWARD, Ledger
from etude.models.language import LanguageModel
from etude.models.learner import Learner
from etude.models.sampling import stream_key
from etude.objectives import RegressionObjective
from etude.search.step_settings import ValueConfig
from etude.types import Metrics, Segment, Task, Trajectory

ROLE = "value"
"""The role that its calls are counted under."""
HEAD = "value_head.safetensors"
"""File with the linear layer, beside the backbone's."""
NORM = 16.0
"""Length of the vector that the linear layer reads."""
PLACE = 0
"""Any token: it stands behind what is valued, and is not read."""
NOBODY = Task("value", ())


class StepValues(Protocol):
    """Whoever values partial solutions, and counts in a ledger what that takes."""

    ledger: Ledger

    def values(self, contexts: Sequence[Sequence[int]], steps: Sequence[Sequence[int]]) -> list[float]:
        """The value in [0, 1] of each context (prompt and earlier steps) with a further step, all as tokens."""
        ...


class ChanceValues:
    """Values that say nothing: uniform in [0, 1], the same for the same tokens. What is left of a search whose values mean nothing."""

    def __init__(self, seed: int, ledger: Ledger) -> None:
        self.seed, self.ledger = seed, ledger

    def values(self, contexts: Sequence[Sequence[int]], steps: Sequence[Sequence[int]]) -> list[float]:
        self.ledger.task_evaluations += len(steps)
        return [stream_key(self.seed, *context, -1, *step) / 2**63 for context, step in zip(contexts, steps, strict=True)]


def reading(prompt: Sequence[int], steps: Sequence[Sequence[int]], values: Sequence[float | None]) -> Trajectory:
    """A solution with the values to learn: values[k] is that of the prompt and the first k steps, from k = 0; None is not learnt. Raises ValueError for other lengths."""
    if len(values) != len(steps) + 1:
        raise ValueError(f"{len(steps)} steps have {len(values)} values; expected one before the first step and one behind each")
    segments: list[Segment] = []
    for tokens, value in zip([*steps, [PLACE]], values, strict=True):
        first, rest = list(tokens[:1]), list(tokens[1:])
        segments.append(Segment(first, "injected", trained=value is not None, advantages=[value] if value is not None else []))
        segments.append(Segment(rest, "injected"))
    return Trajectory(NOBODY, list(prompt), segments, "environment")


class ValueModel:
    """The backbone's own weights and the linear layer train together. What it reads and learns is added to `ledger`: reading counts as judging.

    At first every value is 0.5, whatever it reads.
    """

    def __init__(self, backbone: LanguageModel, config: ValueConfig, ledger: Ledger, *, train: Sequence[str] | None = None) -> None:
        """backbone: a model of its own, whose weights are changed. train: names of the weights that train (default: all)."""
        self.backbone, self.config, self.ledger = backbone, config, ledger
        model: Any = backbone.model
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(train is None or name in train)
        head = nn.Linear(model.config.get_text_config().vocab_size, 1, device=backbone.device)
        nn.init.zeros_(head.weight)
        nn.init.constant_(head.bias, 0.5)
        # A part of the model, so that whatever saves, updates and counts weights finds it.
        model.value_head = head
        self.objective = RegressionObjective(self.read)
        self.learner = Learner(model, LearnerConfig(lr=config.value_lr), default_lr=backbone.recommended_lr)

    @classmethod
    def open(cls, config: ValueConfig, policy: LanguageModel, ledger: Ledger, *, trained: bool = False) -> ValueModel:
        """The value model that a configuration names, for a policy that is as it was at the start.

        Raises InputError for a model that cannot be used with it; with `trained`, also for one that was never trained to value.
        """
        head = Path(config.value_model).expanduser() / HEAD
        if trained and not head.is_file():
            raise InputError(f"--value-model {config.value_model} has no {HEAD}; expected a folder that `etude train rest-mcts` wrote: RUN/model/value")
        if config.value_model == "start":
            train = [name for name, p in policy.model.named_parameters() if p.requires_grad]
            return cls(policy.copy(f"the value model of {policy.name}"), config, ledger, train=train)
        backbone = LanguageModel.load(config.value_model, device=str(policy.device))
        if backbone.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
            raise InputError(f"--value-model {config.value_model} has other tokens than {policy.name}; expected a model with the same tokenizer, or start")
        model = cls(backbone, config, ledger)
        if head.is_file():
            model.head.load_state_dict(load_file(head))
        return model

    @property
    def head(self) -> nn.Linear:
        head = self.backbone.model.value_head
        assert isinstance(head, nn.Linear)
        return head

    def read(self, logits_NV: Tensor) -> Tensor:
        """The value of each row of logits, [N, V] to [N], not cut to [0, 1]."""
        # Logits of all sizes, of vocabularies of all sizes: their spread and number are taken out, so that a step of the optimiser moves a value by as much.
        size = logits_NV.shape[-1]
        return self.head(layer_norm(logits_NV.float(), (size,)) * (NORM / math.sqrt(size))).squeeze(-1)

    def values(self, contexts: Sequence[Sequence[int]], steps: Sequence[Sequence[int]]) -> list[float]:
        """The value in [0, 1] of each context with a further step. Equal contexts are read once."""
        behind = [
            Trajectory(NOBODY, list(context), [Segment(list(step), "injected"), Segment([PLACE], "injected", trained=True)], "environment")
            for context, step in zip(contexts, steps, strict=True)
        ]
        read = sum(map(len, {tuple(context) for context in contexts})) + sum(map(len, steps))
        self.ledger.judged_tokens += read
        self.ledger.forward_equivalents += FORWARD * read
        self.ledger.task_evaluations += len(behind)
        self.ledger.count_call(ROLE, len(behind))
        return [min(1.0, max(0.0, value)) for (value,) in self.learner.readings(behind, self.read)]

    def fit(self, readings: Sequence[Trajectory], random: Random) -> Metrics:
        """Learn the values of some readings, `value_epochs` times over in an order drawn from `random`, with a new optimiser.

        Returns `value/mse` and `value/accuracy` (within 0.1) as they were on the way through the last pass, and `value/samples`; of nothing only the last.
        """
        samples = sum(t.trained_length for t in readings)
        found: list[tuple[int, Metrics]] = []
        size = self.config.value_batch
        steps = self.config.value_epochs * -(-len(readings) // size)
        self.learner.restart(total_steps=steps)
        for epoch in range(self.config.value_epochs):
            order = random.sample(list(readings), len(readings))
            for at in range(0, len(order), size):
                batch = order[at : at + size]
                metrics = self.learner.update([[t] for t in batch], self.objective)
                if epoch == self.config.value_epochs - 1:
                    found.append((sum(t.trained_length for t in batch), metrics))
        self.ledger.trained_tokens += samples * self.config.value_epochs
        self.ledger.forward_equivalents += FORWARD_BACKWARD * self.config.value_epochs * sum(len(t.prompt) + len(t.tokens) for t in readings)
        means = {f"value/{name}": sum(count * m[f"loss/{name}"] for count, m in found) / samples for name in ("mse", "accuracy") if samples}
        return means | {"value/samples": float(samples)}

    # Saving

    def state(self) -> dict[str, Tensor]:
        """Weights, by name. Every `fit` begins with a new optimiser, so that there is nothing else."""
        return {name: p.detach() for name, p in self.backbone.model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go back to saved weights."""
        for name, parameter in self.backbone.model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(tensors[name])

    def save(self, folder: Path) -> None:
        """Write the backbone as a Hugging Face folder, and the linear layer beside it: what `--value-model` takes."""
        head, model = self.head, self.backbone.model
        del model.value_head
        try:
            self.backbone.save(folder)
        finally:
            model.value_head = head
        save_file({name: value.contiguous() for name, value in head.state_dict().items()}, folder / HEAD)

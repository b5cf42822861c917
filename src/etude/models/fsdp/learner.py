"""The learner that the loop sees when the work is done by ranks. It holds no weights but the model's own, which the sampler draws with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from etude.config import LearnerConfig
from etude.models.block_attention import takes_blocks
from etude.models.fsdp.ranks import Ranks
from etude.models.fsdp.shared import SharedTensors
from etude.models.learner import RANKS, SUMMAND, check_complete
from etude.models.schedule import check_schedule
from etude.models.skeletons import skeleton_of, tensors_of
from etude.models.trainable import check_trainable
from etude.objectives import Objective
from etude.types import Metrics, Segment, Task, Trajectory


class FsdpLearner:
    """Updates a causal LM (adapters included) in place, as `etude.models.learner.Learner` does, by ranks that each hold a shard of weights and optimiser state.

    Numbers are those of `Learner` but for rounding, whatever the number of ranks. They start when they are first needed.
    model, config, temperature, total_steps, default_lr: as of `Learner`. ranks: processes to use, which are then not closed with the learner; by default its own,
    `config.ranks` of them.
    Raises LearnerLost, from any call, when a rank is gone: the model is then as it was after the last update.
    """

    def __init__(
        self, model: Any, config: LearnerConfig, *, temperature: float = 1.0, total_steps: int = 0, default_lr: float = 2e-6, ranks: Ranks | None = None
    ) -> None:
        check_schedule(config.schedule, total_steps)
        self.model = model
        self.config = config
        self.temperature = temperature
        self.lr = config.lr if config.lr is not None else default_lr
        self.total_steps = total_steps
        self.steps = 0
        """The step of the loop that comes next, from 0: one more than the last update's."""
        # The ranks' models are made from this one; attention that takes blocks is switched on once, here.
        takes_blocks(model)
        self.device = next(model.parameters()).device
        self._given = ranks
        self._ranks: Ranks | None = None
        self._closed = False
        self._live = SharedTensors.like(self._training())
        self._seen: Tensor | None = None
        """What the weights were when the ranks had the same ones."""

    def _training(self) -> dict[str, Tensor]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    # Asking the ranks

    def _ask(self, command: str, *arguments: Any) -> Any:
        if self._ranks is None:
            if self._closed:
                raise RuntimeError("the learner was closed; make another one")
            self._start()
        assert self._ranks is not None
        if self._seen is None or not torch.equal(self._seen, self._digest()):
            self._live.fill(self._training())
            self._ranks.ask("put")
            self._seen = self._digest()
        if self.device.type == "cuda":
            # The first rank computes on the sampler's GPU.
            torch.cuda.empty_cache()
        return self._ranks.ask(command, *arguments)

    def _start(self) -> None:
        values = SharedTensors.of(tensors_of(self.model))
        self._ranks = self._given or Ranks(self.config.ranks, self.device.type)
        options = {"temperature": self.temperature, "total_steps": self.total_steps, "default_lr": self.lr}
        self._ranks.ask("build", skeleton_of(self.model), values, self._live, self.config, options)
        self._seen = self._digest()

    @torch.no_grad()
    def _digest(self) -> Tensor:
        """A number for each weight's bits: whoever changes weights between updates (a rollback, a return to earlier ones) does not have to say so."""
        kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
        sums = [p.detach().reshape(-1).view(kinds[p.element_size()]).sum(dtype=torch.int64) for p in self._training().values()]
        return torch.stack(sums)

    @torch.no_grad()
    def _take(self) -> None:
        """Make the ranks' new weights the model's."""
        for name, parameter in self._training().items():
            parameter.copy_(self._live[name])
        self._seen = self._digest()

    # What a learner does

    def update(self, units: Sequence[Sequence[Trajectory]], objective: Objective, *, step: int | None = None) -> Metrics:
        """As `Learner.update`. The objective is sent to the ranks as it is now."""
        check_trainable([t for unit in units for t in unit], whole=objective.whole_units)
        metrics, self.steps = self._ask("update", [[_bare(t) for t in unit] for unit in units], objective, step, self.lr, self.total_steps)
        self._take()
        return metrics

    def logprobs(self, trajectories: Sequence[Trajectory], *, reference: bool | Literal["start"] = False) -> list[list[float]]:
        """As `Learner.logprobs`."""
        check_trainable(trajectories)
        return self._ask("logprobs", [_bare(t) for t in trajectories], reference)

    def freeze_reference(self) -> None:
        """Keep the weights as they are now as the reference policy, sharded over the ranks. With an adapter nothing is kept: the reference is the model without it."""
        if not hasattr(self.model, "disable_adapter"):
            self._ask("reference", SharedTensors.of(tensors_of(self.model)))

    def reset_reference(self, *, keep: float = 0.0) -> None:
        """As `Learner.reset_reference`."""
        self._ask("reset_reference", keep)

    def restart(self, *, total_steps: int) -> None:
        """As `Learner.restart`."""
        check_schedule(self.config.schedule, total_steps)
        self._ask("restart", total_steps)
        self.total_steps, self.steps = total_steps, 0

    # Saving

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Plain values; no tensors, which `write_shards` writes."""
        plain = self._ask("state")
        assert self._ranks is not None
        return plain | {RANKS: self._ranks.count}, {}

    def write_shards(self, folder: Path) -> None:
        """Write optimiser state, float32 copies of weights and a reference that was reset, each rank its own part. Raises CheckpointError."""
        self._ask("write", folder)

    def load_state(self, plain: dict[str, Any], tensors: Mapping[str, Tensor], shards: Path | None = None) -> None:
        """Go back to a saved state: that of `Learner` (`tensors`), or what any number of ranks wrote (`shards`). The model's weights have to be those that it was
        saved with. A learner that was closed has nothing to go back with, and lets it be."""
        if self._closed:
            return
        check_complete(plain, shards)
        self._ask("load", plain, SharedTensors.of(tensors), shards)
        self.steps = int(plain["steps"])

    def close(self) -> None:
        """Let the ranks go. The model stays usable; what would need them raises RuntimeError."""
        self._closed = True
        if self._ranks is not None and self._ranks is not self._given:
            self._ranks.close()
        self._ranks = None


def _bare(trajectory: Trajectory) -> Trajectory:
    """What a learner reads of a trajectory: tasks and tags may hold anything, also what no other process can be sent."""
    segments = [Segment(s.tokens, s.author, trained=s.trained, logprobs=s.logprobs, advantages=s.advantages) for s in trajectory.segments]
    tags = {SUMMAND: trajectory.tags[SUMMAND]} if SUMMAND in trajectory.tags else {}
    return replace(trajectory, task=Task(trajectory.task.id, trajectory.task.messages), segments=segments, tags=tags, rewards={}, parent=None)

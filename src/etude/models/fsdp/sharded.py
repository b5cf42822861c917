"""What runs on each rank: the learner over a model of which every rank holds a shard.

All ranks get the same trajectories and do the same steps. Each computes its share of the micro-batches, with denominators of the whole batch, and gradients are summed
over ranks, so that loss and gradient are those of one process. A rank whose share has fewer micro-batches than another's joins in empty passes, because a forward and a
backward pass are joint work: layers are gathered for them from all ranks.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from etude.errors import NonFiniteError
from etude.models.fsdp.shards import kinds_in, read_shards
from etude.models.lean_forward import LeanForward
from etude.models.learner import Learner
from etude.models.packing import micro_batches, prompt_of
from etude.models.precision import ENOUGH, LossScale
from etude.models.skeletons import fill
from etude.types import Message, Segment, Task, Trajectory

NOTHING = Trajectory(Task("", (Message("user", ""),)), [0], [Segment([0, 0], "policy", trained=True)], "eos")
"""What an empty pass runs on."""


class ShardedLearner(Learner):
    """One rank's learner. `formats` are the number formats in which weights that train are computed with and handed out; they are stepped on in float32."""

    def __init__(self, model: Any, *arguments: Any, mesh: DeviceMesh, formats: Mapping[str, torch.dtype], **options: Any) -> None:
        super().__init__(model, *arguments, **options)
        self.mesh = mesh
        self.formats = dict(formats)
        self.loss_scale = LossScale.of(set(formats.values()))
        self._missing = 0
        """Passes of other ranks that this one has no micro-batch for."""
        self._problems: list[str] = []

    # One of several

    def _cut(self, trajectories: Sequence[Trajectory], bundles: list[list[int]]) -> list[list[int]]:
        bundles = sorted(bundles, key=lambda bundle: prompt_of(trajectories[bundle[0]]))
        costs = [sum(len(prompt_of(trajectories[i])) + len(trajectories[i].tokens) for i in bundle) for bundle in bundles]
        cuts = [
            micro_batches(trajectories, [bundles[i] for i in part], self.budget, flat=self.flat, share=self.config.share_prompts)
            for part in dealt(costs, self.mesh.size())
        ]
        own = cuts[self.mesh.get_local_rank()]
        self._missing = max(map(len, cuts)) - len(own)
        return own

    def _refuse(self, what: str) -> None:
        # Other ranks are in the same pass and must not be left alone in it.
        self._problems.append(what)

    def _whole_loss(self, loss: float, sums: dict[str, tuple[float, float]]) -> tuple[float, dict[str, tuple[float, float]]]:
        for _ in range(self._missing):
            logits = self._logits(self.model, self._pack([NOTHING], [0]))
            logits.backward(torch.zeros_like(logits))
            self.weights.gather()
        problems, self._problems = self._problems, []
        parts = gathered((loss, sums, problems))
        if found := [problem for _, _, problems in parts for problem in problems]:
            raise NonFiniteError(found[0])
        whole: dict[str, tuple[float, float]] = {}
        for _, part, _ in parts:
            for name, (total, count) in part.items():
                have = whole.get(name, (0.0, 0.0))
                whole[name] = (have[0] + total, have[1] + count)
        return sum(part for part, _, _ in parts), whole

    def _whole_logprobs(self, results: list[list[float]], model: Any) -> list[list[float]]:
        for _ in range(self._missing):
            self._logits(model, self._pack([NOTHING], [0]))
        parts = gathered({i: values for i, values in enumerate(results) if values})
        whole = {i: values for part in parts for i, values in part.items()}
        return [whole.get(i, []) for i in range(len(results))]

    def _clip(self) -> Tensor:
        norm = super()._clip()
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _shorter_forward(self, model: Any) -> LeanForward | None:
        """None: only the model's own modules know when their weights have to be gathered."""
        return None

    def freeze_reference(self) -> None:
        """The reference comes as a model of its own (`reference`), since a sharded one cannot be copied."""
        raise TypeError("a sharded model cannot be copied; give its reference with reference(model)")

    def reference(self, model: Any) -> None:
        """Use a sharded model as the policy that the run began with."""
        self._reference = model.eval()

    # Weights in and out

    @torch.no_grad()
    def put(self, values: Mapping[str, Tensor]) -> None:
        """Take over weights that somebody else has set. A float32 weight stays where it rounds to what came."""
        for name, parameter in self.weights.by_name.items():
            new, own = like(values[name], parameter).to_local(), local(parameter)
            rounded = own.to(self.formats[name])
            own.copy_(torch.where(rounded.to(new.dtype) == new, own, new))

    @torch.no_grad()
    def give(self, values: Mapping[str, Tensor]) -> None:
        """Gather the weights that train, whole, on the first rank, into `values`."""
        for name, parameter in self.weights.by_name.items():
            whole = parameter.detach().to(self.formats[name])
            whole = whole.full_tensor() if isinstance(whole, DTensor) else whole
            if self.mesh.get_local_rank() == 0:
                values[name].copy_(whole)

    # Saving

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        plain, tensors = super().state()
        low = [name for name, dtype in self.formats.items() if dtype not in ENOUGH]
        return plain, tensors | {f"master.{name}": self.weights.by_name[name].detach() for name in low}

    @torch.no_grad()
    def load(self, plain: dict[str, Any], values: Mapping[str, Tensor], shards: Path | None) -> None:
        """Go back to a saved state: whole tensors by name, or the files that ranks wrote, however many there were."""
        names = self.weights.by_name
        if shards is None:
            tensors = {full: like(value, names[full.partition(".")[2]]) if value.dim() else value for full, value in values.items()}
        else:
            tensors = {}
            for full, (shape, dtype) in kinds_in(shards).items():
                tensors[full] = torch.empty_like(names[full.partition(".")[2]].detach(), dtype=dtype) if len(shape) else torch.zeros((), dtype=dtype)
            read_shards(shards, tensors)
        for full, value in tensors.items():
            kind, _, name = full.partition(".")
            if kind == "master":
                local(names[name]).copy_(local(value))
        self._restore(plain, tensors)


def dealt(costs: Sequence[int], ranks: int) -> list[list[int]]:
    """Items by number, in their order, in as many consecutive parts as there are ranks, of costs as alike as can be: each goes where the middle of its cost falls."""
    parts: list[list[int]] = [[] for _ in range(ranks)]
    total, before = sum(costs), 0
    for number, cost in enumerate(costs):
        parts[min(ranks - 1, ranks * (2 * before + cost) // max(1, 2 * total))].append(number)
        before += cost
    return parts


def gathered(part: Any) -> list[Any]:
    """What every rank has, in the order of the ranks."""
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, part)
    return parts


def local(tensor: Tensor) -> Tensor:
    """The part of it that this rank holds, in the same memory."""
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach()


def like(value: Tensor, parameter: Tensor) -> DTensor:
    """A whole tensor that every rank has, sharded as a parameter is, in its number format. Nothing is sent."""
    assert isinstance(parameter, DTensor)
    value = value.to(parameter.device, parameter.dtype)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)


def sharded_model(skeleton: Any, values: Mapping[str, Tensor], mesh: DeviceMesh) -> Any:
    """The model that `skeleton` is without its weights, with these weights, sharded over the ranks layer by layer.

    Weights that train in less than float32 are held in float32, computed with in their own format and reduced in float32. Gradients are summed over ranks, not averaged.
    """
    model = copy.deepcopy(skeleton)
    low = {t.dtype for t in model.parameters() if t.requires_grad} - set(ENOUGH)
    fill(model, partial(_value, values))
    policy = MixedPrecisionPolicy(param_dtype=next(iter(low)), reduce_dtype=torch.float32) if low else MixedPrecisionPolicy()
    kinds = set(getattr(model, "_no_split_modules", None) or ())
    layers = [module for module in model.modules() if type(module).__name__ in kinds]
    for module in (*layers, model):
        fully_shard(module, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return model


def _value(values: Mapping[str, Tensor], name: str, empty: Tensor) -> Tensor:
    """What stands in the place of an empty tensor: trained weights in a format that small updates do not get lost in."""
    if not isinstance(empty, nn.Parameter):
        return values[name].clone()
    return values[name].to(torch.float32 if empty.requires_grad and empty.dtype not in ENOUGH else empty.dtype)

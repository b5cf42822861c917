"""Updates of a model that draws: AdamW under a schedule, clipping, a moving average of the weights, and all of it saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from etude.config import Count, NonNegative
from etude.errors import NonFiniteError
from etude.models.schedule import check_schedule, rate_factor
from etude.types import Metrics

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class PictureLearnerConfig:
    """How the weights of a model that draws are updated."""

    lr: Annotated[float, Gt(0)] = 1e-4
    """Learning rate after warm-up."""
    warmup_steps: Count = 2
    """Steps over which the learning rate rises to `lr`."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What the learning rate does after warm-up: it falls to 0 over the run's `steps`."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay (AdamW)."""
    betas: tuple[Annotated[float, Ge(0), Lt(1)], Annotated[float, Ge(0), Lt(1)]] = (0.9, 0.95)
    """Decay of AdamW's running means of the gradient and of its square."""
    grad_clip: NonNegative = 1.0
    """Largest gradient norm (0: no clipping)."""
    average: Annotated[float, Ge(0), Lt(1)] = 0.999
    """What the moving average of the weights keeps of itself at every update, once there were many; evaluations draw with it (0: with the weights themselves)."""


class PictureLearner:
    """The optimiser of one model, and the average of its weights.

    total_steps: steps of the loop that the schedule runs over. `model` learns; `shown` is what draws when it is measured: the average, or the model itself.
    """

    def __init__(self, model: nn.Module, config: PictureLearnerConfig, *, total_steps: int) -> None:
        check_schedule(config.schedule, total_steps)
        self.model, self.config, self.total_steps = model, config, total_steps
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(list(self.parameters.values()), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
        self.updates = 0
        self._average = {name: p.detach().clone() for name, p in self.parameters.items()} if config.average else {}

    def update(self, loss: Tensor, step: int) -> Metrics:
        """One optimiser step on one loss. See `backward` and `apply`."""
        self.backward(loss)
        return {"loss/total": float(loss.detach())} | self.apply(step)

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradient to what is there already. Raises NonFiniteError, after which nothing is there, for a loss that is not finite."""
        if not bool(torch.isfinite(loss)):
            self.optimizer.zero_grad(set_to_none=True)
            raise NonFiniteError(f"the loss is {loss.item()}")
        loss.backward()

    def apply(self, step: int) -> Metrics:
        """One optimiser step on the gradient that is there, in a step of the loop (from 0). Raises NonFiniteError before anything changes, where it is not finite."""
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.config.grad_clip or math.inf)
        if not bool(torch.isfinite(norm)):
            self.optimizer.zero_grad(set_to_none=True)
            raise NonFiniteError(f"the gradient norm is {norm.item()}")
        lr = self.config.lr * rate_factor(self.config.schedule, step, warmup=self.config.warmup_steps, total=self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        # Early on, an average of long memory would still be the beginning.
        kept = min(self.config.average, self.updates / (9 + self.updates))
        with torch.no_grad():
            for name, average in self._average.items():
                average.lerp_(self.parameters[name], 1 - kept)
        return {"loss/grad_norm": float(norm), "loss/lr": lr}

    def average_into(self, other: nn.Module) -> None:
        """Give another model of the same shape the average weights, or, without an average, the weights themselves."""
        with torch.no_grad():
            for name, parameter in other.named_parameters():
                if name in self.parameters:
                    parameter.copy_(self._average.get(name, self.parameters[name]))

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Plain values, and tensors by name: weights, their average, the optimiser's moments."""
        tensors = {f"weight.{name}": p.detach().clone() for name, p in self.parameters.items()}
        tensors |= {f"average.{name}": value.clone() for name, value in self._average.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{key}.{name}"] = torch.as_tensor(value).clone()
        return {"updates": self.updates}, tensors

    def load_state(self, plain: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Go back to a saved state, exactly."""
        self.updates = int(plain["updates"])
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"weight.{name}"])
            for name, average in self._average.items():
                average.copy_(tensors[f"average.{name}"])
        moments = [{key: tensors[f"{key}.{name}"].clone() for key in MOMENTS if f"{key}.{name}" in tensors} for name in self.parameters]
        state = {number: own for number, own in enumerate(moments) if own}
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})

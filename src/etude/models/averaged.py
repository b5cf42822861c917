"""A copy of the policy whose weights follow the policy's slowly: an exponential moving average, as a steadier opinion than the policy's of the moment."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from etude.models.language import LanguageModel


class AveragedModel:
    """The average of a policy's weights over its past, ready to sample from (`model`). It begins as the policy is when it is made.

    Only weights that train are averaged, in float32 whatever the model's own format: a step of a hundred-thousandth is lost in fewer digits.
    """

    def __init__(self, policy: LanguageModel) -> None:
        self._policy = policy
        self.model = policy.copy(f"the average of {policy.name}")
        trained = {name for name, p in policy.model.named_parameters() if p.requires_grad}
        self._own = {name: p for name, p in self.model.model.named_parameters() if name in trained}
        self._average = {name: p.data if p.dtype == torch.float32 else p.data.float() for name, p in self._own.items()}

    @torch.no_grad()
    def follow(self, rate: float) -> None:
        """average <- (1 - rate) average + rate policy."""
        now = dict(self._policy.model.named_parameters())
        for name, average in self._average.items():
            average.lerp_(now[name].detach().to(average.dtype), rate)
        self._show()

    def state(self) -> dict[str, Tensor]:
        """The average, by the weights' names."""
        return {name: average.clone() for name, average in self._average.items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a saved average."""
        for name, average in self._average.items():
            average.copy_(state[name])
        self._show()

    def _show(self) -> None:
        """Let the model that samples have the average, and its sampler know of it."""
        for name, parameter in self._own.items():
            if parameter.dtype != torch.float32:
                parameter.data.copy_(self._average[name])
        self.model.weights_changed()


def annealed(first: float, last: float, progress: float) -> float:
    """A rate that falls from `first` to `last` along half a cosine as `progress` goes from 0 to 1."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, progress))))

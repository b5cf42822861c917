"""Weights that the optimiser can move by little: in float32, whatever the model computes in.

bfloat16 keeps 8 bits of a number, so a weight of 0.02 has its neighbours 0.00006 to 0.00012 away and a step of 2e-6 rounds to nothing. The optimiser therefore steps
on float32 copies (mixed-precision training, arXiv:1710.03740, section 3.1), and the model gets their roundings. Gradients of several micro-batches add up in float32
too: sums of rounded sums would depend on the cut.

float16 has more digits but little range: a gradient below 6e-8 is 0 in it. The loss is therefore multiplied by a large number before the backward pass and gradients
divided by it afterwards, in float32 (section 3.2 there). The number falls when a gradient overflows and rises after many that did not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ENOUGH = (torch.float32, torch.float64)
"""Number formats that an optimiser can step on directly."""


@dataclass
class LossScale:
    """What the loss is multiplied by before the backward pass: 1, unless gradients are computed in float16. Stays a power of two, so that scaling rounds nothing.

    good_steps: optimiser steps since it last changed. highest: what it never exceeds.
    """

    value: float = 1.0
    good_steps: int = 0
    highest: float = 1.0

    START = 2.0**16
    RISES_AFTER = 2000

    @classmethod
    def of(cls, dtypes: set[torch.dtype]) -> LossScale:
        """The one to begin with, for weights in these number formats."""
        start = cls.START if torch.float16 in dtypes else 1.0
        return cls(start, highest=start)

    @property
    def active(self) -> bool:
        """Whether a gradient that is not finite may be the scale's fault."""
        return self.value > 1.0

    def overflowed(self) -> None:
        """A gradient was not finite: half as much from now on."""
        self.value, self.good_steps = self.value / 2, 0

    def stepped(self) -> None:
        """The optimiser took a step: after many of them twice as much, up to where it began."""
        self.good_steps += 1
        if self.good_steps >= self.RISES_AFTER:
            self.value, self.good_steps = min(2 * self.value, self.highest), 0


class OptimisedWeights:
    """What the optimiser steps on, by name: the model's own parameters, or float32 copies of those in a number format of less.

    Around an optimiser step: `take_over()`, then `gather()` after every backward pass, then the step, then `write_back()`.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._own = dict(parameters)
        self.copies = {name: nn.Parameter(p.detach().float()) for name, p in self._own.items() if p.dtype not in ENOUGH}
        self.by_name: dict[str, nn.Parameter] = {**self._own, **self.copies}
        """In the order of the model's parameters."""

    @torch.no_grad()
    def take_over(self) -> None:
        """Drop gradients, and let weights that somebody else has changed since the last `write_back` go before their copies."""
        for parameter in (*self._own.values(), *self.copies.values()):
            parameter.grad = None
        for name, copy in self.copies.items():
            own = self._own[name]
            copy.copy_(torch.where(copy.to(own.dtype) == own, copy, own.float()))

    @torch.no_grad()
    def gather(self) -> None:
        """Add the model's gradients to the copies' and drop them."""
        for name, copy in self.copies.items():
            own = self._own[name]
            if own.grad is not None:
                copy.grad = own.grad.float() if copy.grad is None else copy.grad.add_(own.grad)
                own.grad = None

    @torch.no_grad()
    def unscale(self, scale: float) -> None:
        """Divide the gradients that the optimiser will use by what the loss was multiplied by."""
        for parameter in self.by_name.values():
            if scale != 1.0 and parameter.grad is not None:
                parameter.grad.div_(scale)

    @torch.no_grad()
    def write_back(self) -> None:
        """Round the copies into the model."""
        for name, copy in self.copies.items():
            self._own[name].copy_(copy)

    def state(self) -> dict[str, Tensor]:
        """The copies, by name."""
        return {name: copy.detach().clone() for name, copy in self.copies.items()}

    @torch.no_grad()
    def load_state(self, saved: Mapping[str, Tensor]) -> None:
        """Go back to saved copies, exactly; one that was not saved is made from the model's weight. The model's weights are not touched."""
        for name, copy in self.copies.items():
            copy.copy_(saved.get(name, self._own[name]))

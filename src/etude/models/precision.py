"""Weights that the optimiser can move by little: in float32, whatever the model computes in.

bfloat16 keeps 8 bits of a number, so a weight of 0.02 has its neighbours 0.00006 to 0.00012 away and a step of 2e-6 rounds to nothing. The optimiser therefore steps
on float32 copies (mixed-precision training, arXiv:1710.03740, section 3.1), and the model gets their roundings. Gradients of several micro-batches add up in float32
too: sums of rounded sums would depend on the cut.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

ENOUGH = (torch.float32, torch.float64)
"""Number formats that an optimiser can step on directly."""


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

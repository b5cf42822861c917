"""Estimators of KL(pi || ref) from log-probabilities of sampled tokens (Schulman, joschu.net/blog/kl-approx). Elementwise; shapes carry through.

As values k1 and k3 are unbiased. As losses, differentiated through log pi on the policy's own samples, only k2 and k3_plus have the gradient of KL(pi || ref):
k1's is zero on average, and k3's is that of KL(ref || pi).
"""

from __future__ import annotations

from torch import Tensor

from etude.objectives.ratio import clamped


def k1(logprobs: Tensor, reference: Tensor) -> Tensor:
    """log pi - log ref."""
    return logprobs - reference


def k2(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Half the squared log-ratio."""
    return 0.5 * (logprobs - reference) ** 2


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """ref/pi - 1 - log(ref/pi), never negative."""
    difference = clamped(reference - logprobs)
    return difference.exp() - 1 - difference


def k3_plus(logprobs: Tensor, reference: Tensor) -> Tensor:
    """The value of k3 with the gradient of k2 (straight-through)."""
    gradient = k2(logprobs, reference)
    return gradient - gradient.detach() + k3(logprobs, reference).detach()

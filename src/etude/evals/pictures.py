"""How a set of pictures compares with real ones in a feature space: Fréchet distance, kernel distance, precision and recall; and how different pictures of a caption are."""

from __future__ import annotations

import torch
from torch import Tensor

from etude.errors import InputError


def frechet_distance(made: Tensor, real: Tensor) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2) of features [N, D] and [M, D] (Heusel et al., 2017), divided by D.

    Its size depends on N: compare sets of equal size only. Raises InputError for fewer than two pictures.
    """
    _enough(made, real, 2)
    difference = made.mean(0) - real.mean(0)
    first, second = (torch.atleast_2d(torch.cov(features.T)) for features in (made, real))
    root = _root(first)
    crossed = _root(root @ second @ root)
    return float((difference.square().sum() + first.trace() + second.trace() - 2 * crossed.trace()) / made.shape[1])


def kernel_distance(made: Tensor, real: Tensor) -> float:
    """The squared maximum mean discrepancy with the kernel (x.y / D + 1)^3, unbiased (KID, Bińkowski et al., 2018), of features [N, D] and [M, D].

    Raises InputError for fewer than two pictures.
    """
    _enough(made, real, 2)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def among(a: Tensor) -> Tensor:
        gram = kernel(a, a)
        return (gram.sum() - gram.trace()) / (len(a) * (len(a) - 1))

    return float(among(made) + among(real) - 2 * kernel(made, real).mean())


def precision_and_recall(made: Tensor, real: Tensor, *, neighbours: int = 3) -> tuple[float, float]:
    """Shares of made pictures that lie where real ones do, and of real ones that lie where made ones do (Kynkäänniemi et al., 2019), of features [N, D] and [M, D].

    A picture lies where others do when it is no further from one of them than that one's `neighbours`-th nearest neighbour among its own.
    Raises InputError for sets that have no such neighbour.
    """
    _enough(made, real, neighbours + 1)

    def covered(points: Tensor, others: Tensor) -> float:
        # The nearest of all is the point itself.
        reach = torch.cdist(others, others).kthvalue(neighbours + 1, dim=1).values
        return float((torch.cdist(points, others) <= reach).any(1).double().mean())

    return covered(made, real), covered(real, made)


def diversity(features: Tensor) -> float:
    """Mean distance between two pictures of the same caption; features [C, K, D] of K pictures each. Raises InputError for fewer than two of a caption."""
    pictures = features.shape[1]
    if pictures < 2:
        raise InputError(f"there is {pictures} picture of each caption; expected at least 2 to compare")
    return float(torch.cdist(features, features).sum() / (len(features) * pictures * (pictures - 1)))


def _root(matrix: Tensor) -> Tensor:
    """The square root of a symmetric positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def _enough(made: Tensor, real: Tensor, least: int) -> None:
    if min(len(made), len(real)) < least:
        raise InputError(f"there are {len(made)} made and {len(real)} real pictures; expected at least {least} of each")

"""Pictures drawn as a tree: walks from noise that share their beginning and part at some steps, so that what a step was worth shows in what came of it.

One batch a step holds all nodes of that depth. Every edge is an action: where its step was taken with noise it has a log-probability and can be trained; steps without
noise have none. A tree without splits is a bundle of independent walks, as in DanceGRPO.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from etude.errors import InputError
from etude.models.flow import gaussian_logprob, noisy_step

SplitNoise = Literal["correlated", "scaled"]
"""How siblings differ. `correlated`: xi = (xi_0 + s xi_b) / sqrt(1 + s^2) with xi_0 shared, each of the law of plain noise. `scaled`: s times noise of their own, which is
not the law that their density is taken under (as the paper's released code does)."""

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Velocities of pictures [B, 3, S, S] at times [B], for captions [B, W]."""


@dataclass(frozen=True)
class TreePlan:
    """How trees grow. splits: steps at which each node gets `children`. noisy: steps that are taken with noise (None: all); the others follow the flow."""

    grid: Sequence[float]
    splits: frozenset[int] = frozenset()
    children: int = 2
    noisy: frozenset[int] | None = None
    eta: float = 0.5
    spread: float = 4.0
    split_noise: SplitNoise = "correlated"

    def __post_init__(self) -> None:
        steps = len(self.grid) - 1
        if self.children < 2:
            raise InputError(f"a split has {self.children} children; expected at least 2")
        for step in sorted(self.splits | (self.noisy or frozenset())):
            if not 0 <= step < steps:
                raise InputError(f"step {step} is no step of a walk of {steps}; expected 0 to {steps - 1}")
        if steps - 1 in self.splits:
            raise InputError(
                f"the last step, {steps - 1}, is to split, but what is drawn there is its estimate before noise: all children would draw the same picture"
            )
        for step in sorted(self.splits):
            if not self.takes_noise(step):
                raise InputError(f"step {step} is to split without noise, so that its children would be the same; expected it among the noisy steps")

    @property
    def steps(self) -> int:
        return len(self.grid) - 1

    def takes_noise(self, step: int) -> bool:
        return self.noisy is None or step in self.noisy

    @property
    def leaves(self) -> int:
        """Leaves of each root."""
        return self.children ** len(self.splits)

    def widths(self) -> list[int]:
        """Nodes of a tree at each depth, the root's 1 first."""
        widths = [1]
        for step in range(self.steps):
            widths.append(widths[-1] * (self.children if step in self.splits else 1))
        return widths

    @property
    def calls(self) -> int:
        """Passes of the network that a tree takes: one for each node that is not a leaf."""
        return sum(self.widths()[:-1])


@dataclass
class Level:
    """All nodes of one depth, tree by tree and sibling beside sibling.

    pictures [N, 3, S, S]; parents [N]: their places in the level above (of roots: none, -1); logprobs [N]: of the edge that leads here, NaN where it was taken without
    noise, and in the roots.
    """

    pictures: Tensor
    parents: Tensor
    logprobs: Tensor


@dataclass
class Forest:
    """Trees of one plan, each with its caption [trees, W].

    levels[d]: nodes of depth d. seen[d]: the picture without noise that the model saw in each node of depth d, of all but the last [N, 3, S, S]. drawn: the pictures of the
    leaves [leaves, 3, S, S], which are those that were seen before the last step.
    """

    plan: TreePlan
    captions: Tensor
    levels: list[Level]
    seen: list[Tensor]

    @property
    def drawn(self) -> Tensor:
        return self.seen[-1]

    def of_nodes(self, per_tree: Tensor, depth: int) -> Tensor:
        """What belongs to trees [trees, ...], for each of their nodes of a depth [N, ...]."""
        return per_tree.repeat_interleave(self.plan.widths()[depth], 0)

    def leaves_of(self, depth: int) -> Tensor:
        """For each leaf the place of its ancestor at a depth [leaves]."""
        places = torch.arange(len(self.levels[-1].pictures))
        for level in reversed(self.levels[depth + 1 :]):
            places = level.parents[places]
        return places


@torch.no_grad()
def grow_forest(velocity: Velocity, captions: Tensor, roots: Tensor, plan: TreePlan, generator: torch.Generator) -> Forest:
    """Draw a tree for each caption [trees, W] from its noise [trees, 3, S, S]."""
    nowhere, unknown = torch.full((len(roots),), -1), torch.full((len(roots),), torch.nan)
    levels, seen = [Level(roots, nowhere, unknown)], []
    widths = plan.widths()
    for step in range(plan.steps):
        now, then = plan.grid[step], plan.grid[step + 1]
        above = levels[-1].pictures
        speed = velocity(above, torch.full((len(above),), now), captions.repeat_interleave(widths[step], 0))
        seen.append(above - now * speed)
        children = plan.children if step in plan.splits else 1
        parents = torch.arange(len(above)).repeat_interleave(children)
        if plan.takes_noise(step):
            mean, deviation = noisy_step(above, speed, torch.full((len(above),), now), torch.full((len(above),), then), eta=plan.eta)
            mean, deviation = mean[parents], deviation[parents]
            reached = mean + deviation.view(-1, 1, 1, 1) * _noise(above, children, plan, generator)
            logprobs = gaussian_logprob(reached, mean, deviation)
        else:
            reached, logprobs = above - (now - then) * speed, torch.full((len(above),), torch.nan)
        levels.append(Level(reached, parents, logprobs))
    return Forest(plan, captions, levels, seen)


def _noise(above: Tensor, children: int, plan: TreePlan, generator: torch.Generator) -> Tensor:
    shared = torch.randn(above.shape, generator=generator)
    if children == 1:
        return shared
    own = torch.randn((len(above) * children, *above.shape[1:]), generator=generator)
    if plan.split_noise == "scaled":
        return plan.spread * own
    return (shared.repeat_interleave(children, 0) + plan.spread * own) / (1 + plan.spread**2) ** 0.5


@dataclass
class Edges:
    """Steps that were taken with noise, from trees of any depth: from where [E, 3, S, S] to where, for which captions [E, W], between which times [E], how likely each was
    when it was taken [E], and its advantage [E]."""

    above: Tensor
    reached: Tensor
    captions: Tensor
    now: Tensor
    then: Tensor
    logprobs: Tensor
    advantages: Tensor

    def __len__(self) -> int:
        return len(self.now)

    def __getitem__(self, rows: Tensor) -> Edges:
        return Edges(*[getattr(self, each.name)[rows] for each in fields(self)])

    def logprobs_under(self, velocity: Velocity, eta: float) -> Tensor:
        """How likely the steps are [E] under a policy that may have changed since."""
        mean, deviation = noisy_step(self.above, velocity(self.above, self.now, self.captions), self.now, self.then, eta=eta)
        return gaussian_logprob(self.reached, mean, deviation)


def edges_of(forest: Forest, advantages: Sequence[Tensor], kept: Sequence[Tensor]) -> Edges:
    """The edges that lead to nodes, for each depth those whose node is kept [N]; edges of steps without noise are never among them."""
    plan, parts = forest.plan, []
    for depth in range(1, len(forest.levels)):
        if not plan.takes_noise(depth - 1):
            continue
        level, rows = forest.levels[depth], torch.nonzero(kept[depth])[:, 0]
        above = forest.levels[depth - 1].pictures[level.parents[rows]]
        captions = forest.of_nodes(forest.captions, depth)[rows]
        now, then = (torch.full((len(rows),), plan.grid[at]) for at in (depth - 1, depth))
        parts.append(Edges(above, level.pictures[rows], captions, now, then, level.logprobs[rows], advantages[depth][rows]))
    return Edges(*[torch.cat([getattr(part, each.name) for part in parts]) for each in fields(Edges)])


def late_steps(steps: int, size: int, moved: int, stop: int) -> range:
    """A window of `size` steps that begins at the last ones and has moved `moved` steps towards the noise, no further than to begin at `stop`."""
    first = max(stop, steps - size - moved)
    return range(first, min(steps, first + size))

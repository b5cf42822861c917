"""How noisy a policy gradient is when pictures are drawn as trees, and when they are drawn one by one.

BranchGRPO (arXiv:2509.06040) argues that siblings, which share their way up to where they part, are each other's control variate. Here the shipped flow model stands still
and the same captions are drawn again and again; each time gives one gradient. Their variance (the trace of the covariance) over the squared norm of their mean says how
much of an update is noise. A tree costs fewer passes of the network than as many pictures one by one, and averaging more gradients lowers the variance in proportion, so
that the ratio is also given at equal passes: times the passes that a gradient costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from etude.advantages.denoising import all_kept, depth_normalised, fused_values, leaf_normalised
from etude.config import AtLeastOne
from etude.experiments.study import Findings, Table, part
from etude.images.sources import Source, open_source
from etude.models.flow import FlowModel, time_grid
from etude.models.sampling import stream_key
from etude.picturing import ASSETS
from etude.rollouts.denoising import Forest, TreePlan, edges_of, grow_forest
from etude.types import mean

STEPS = 10
TREE = frozenset((0, 2, 4, 6))
LATE = frozenset((5, 6, 7, 8))
PICTURES = 16
"""Pictures of a caption under every way of drawing."""


@dataclass(frozen=True)
class WayOfDrawing:
    """Where trees part (nowhere: pictures one by one), and whether credit is given at every depth or by the leaves alone."""

    splits: frozenset[int]
    by_depth: bool


WAYS: Mapping[str, WayOfDrawing] = {
    "trees, credit by depth": WayOfDrawing(TREE, True),
    "trees, credit of the leaves": WayOfDrawing(TREE, False),
    "trees that part late": WayOfDrawing(LATE, True),
    "one by one": WayOfDrawing(frozenset(), False),
}


@dataclass(frozen=True)
class Noise:
    """variance: the trace of gradients' covariance. signal: the squared norm of their mean. passes: of the network, for one gradient."""

    variance: float
    signal: float
    passes: int


def variance_and_signal(gradients_RP: Tensor) -> tuple[float, float]:
    """Trace of the covariance of R >= 2 gradients, and the squared norm of their mean, both without bias: the second may be negative where nothing but noise is seen."""
    count = len(gradients_RP)
    center = gradients_RP.mean(0)
    variance = float((gradients_RP - center).square().sum()) / (count - 1)
    # The mean's own noise is part of its squared norm.
    return variance, float(center.square().sum()) - variance / count


def tree_gradient(model: FlowModel, forest: Forest, rewards: Tensor, by_depth: bool, eta: float) -> Tensor:
    """Mean over edges of advantage x gradient of the step's log-probability, as one flat vector [P]. rewards: [leaves]."""
    groups = len(forest.captions) * forest.plan.leaves // PICTURES
    advantages = depth_normalised(fused_values(forest, rewards), groups) if by_depth else leaf_normalised(forest, rewards, groups)
    edges = edges_of(forest, advantages, all_kept(forest))
    parameters = [p for p in model.parameters() if p.requires_grad]
    total: Tensor | None = None
    for rows in torch.arange(len(edges)).split(256):
        some = edges[rows]
        objective = (some.logprobs_under(model, eta) * some.advantages).sum() / len(edges)
        part = torch.cat([g.flatten() for g in torch.autograd.grad(objective, parameters)])
        total = part if total is None else total + part
    assert total is not None
    return total


def noise_of(way: WayOfDrawing, model: FlowModel, source: Source, captions: Tensor, *, repeats: int, seed: int, eta: float = 0.5) -> Noise:
    """The noise of a way of drawing 16 pictures of each of some captions [C, W]."""
    plan = TreePlan(time_grid(STEPS).tolist(), way.splits, eta=eta)
    asked = captions.repeat_interleave(PICTURES // plan.leaves, 0)
    gradients = []
    for repeat in range(repeats):
        generator = torch.Generator().manual_seed(stream_key("tree gradient noise", seed, repeat) % 2**63)
        roots = torch.randn(len(asked), 3, 16, 16, generator=generator)
        forest = grow_forest(model, asked, roots, plan, generator)
        fit = source.alignment(forest.drawn.clamp(-1, 1), asked.repeat_interleave(plan.leaves, 0))
        assert fit is not None, "the drawn world knows what a picture shows"
        gradients.append(tree_gradient(model, forest, fit.soft, way.by_depth, eta))
    return Noise(*variance_and_signal(torch.stack(gradients)), plan.calls * len(asked))


# As a study


@dataclass(frozen=True)
class StudySettings:
    """The same model and captions under every way of drawing."""

    captions: AtLeastOne = 8
    """Captions of a gradient, each of which is drawn 16 times."""
    repeats: Annotated[int, Ge(2)] = 32
    """Gradients of the same captions."""
    eta: float = 0.5
    """Noise of the steps."""
    seeds: AtLeastOne = 2
    """Seeds, counted from 0: other captions, other noise."""


def study(settings: StudySettings) -> Findings:
    """The noise of each way of drawing, mean over seeds."""
    torch.set_num_threads(1)
    model, source = FlowModel.load(ASSETS / "flow"), open_source("pictures")
    _, everything = source.held_out(settings.captions * settings.seeds)
    found: dict[str, list[Noise]] = {name: [] for name in WAYS}
    for seed, captions in enumerate(everything.split(settings.captions)):
        for name, way in WAYS.items():
            work = partial(noise_of, way, model, source, captions, repeats=settings.repeats, seed=seed, eta=settings.eta)
            found[name].append(Noise(**part(f"{name}, seed {seed}", lambda work=work: vars(work()))))
    return Findings(values={name: [vars(each) for each in each_seed] for name, each_seed in found.items()}, tables=(_table(found, settings),))


def _table(found: Mapping[str, Sequence[Noise]], settings: StudySettings) -> Table:
    relative = {name: _over_signal(seeds) for name, seeds in found.items()}
    base = relative["one by one"] * found["one by one"][0].passes
    return Table(
        f"{settings.captions} captions, 16 pictures each, {settings.repeats} gradients; mean of {settings.seeds} seeds",
        ("way of drawing", "variance over squared mean", "passes a gradient", "at equal passes, one by one = 1"),
        [[name, f"{relative[name]:.0f}", f"{seeds[0].passes}", f"{relative[name] * seeds[0].passes / base:.2f}"] for name, seeds in found.items()],
    )


def _over_signal(seeds: Sequence[Noise]) -> float:
    """Variance over the squared mean, both averaged over seeds; NaN where the mean cannot be told from noise."""
    signal = mean([each.signal for each in seeds])
    return mean([each.variance for each in seeds]) / signal if signal > 0 else float("nan")

"""How noisy a policy gradient is under different baselines, at one policy and on the same attempts.

The gradient of a task is the sum over its attempts of advantage times the gradient of the attempt's log-likelihood, over the group's size. Its variance between
tasks, summed over all parameters (the trace of the covariance), is what a baseline should lower: divided by the number of tasks it is the variance of the batch's
gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

from etude.advantages import leave_one_out
from etude.config import AtLeastOne
from etude.errors import InputError, nearest
from etude.experiments.study import Findings, Table, part
from etude.ledger import Budget, Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams, stream_key
from etude.rewards import judge
from etude.rollouts import group_rollouts
from etude.tasks.loading import load_tasks
from etude.types import Group, Trajectory, mean, trajectories_of


@dataclass(frozen=True)
class GradientNoiseSettings:
    """baseline: `none`, `batch-mean` or `leave-one-out`. offset: added to every reward, for rewards whose zero means nothing.

    The budget, in rollouts, says how many tasks are sampled `group_size` times each.
    """

    baseline: str = "leave-one-out"
    model: str = "tiny"
    tasks: str = "arithmetic"
    group_size: int = 8
    offset: float = 0.0


def gradient_noise(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """`log2_variance` of tasks' gradients, `log2_signal` (squared norm of their mean, which all baselines share in expectation), `groups_with_spread`, `pass_rate`.

    The same seed samples the same attempts whatever the baseline. Raises InputError for unknown settings and a budget of fewer than two tasks.
    """
    options = _settings(settings)
    torch.set_num_threads(1)
    limit = Budget.parse(budget)
    count = int(limit.amount) // options.group_size
    if limit.unit != "rollouts" or count < 2:
        raise InputError(f"the budget is {budget} with groups of {options.group_size}; expected rollouts, for two tasks at least")
    policy = LanguageModel.load(options.model, device="cpu", dtype="float32")
    groups = _sampled(policy, options, seed, count)
    baseline = BASELINES[options.baseline]
    pass_rate = mean([t.reward for t in trajectories_of(groups)])
    total: Tensor | None = None
    squares = 0.0
    for group in groups:
        advantages_G = baseline(torch.tensor(group.rewards) + options.offset, pass_rate + options.offset)
        gradient = task_gradient(policy.model, group.trajectories, advantages_G)
        squares += float(gradient.square().sum())
        total = gradient if total is None else total + gradient
    assert total is not None
    square_of_mean = float((total / count).square().sum())
    variance = (squares - count * square_of_mean) / (count - 1)
    # The mean's own noise is part of its squared norm.
    signal = max(square_of_mean - variance / count, 1e-12)
    return {
        "log2_variance": math.log2(max(variance, 1e-12)),
        "log2_signal": math.log2(signal),
        "groups_with_spread": mean([float(group.has_spread) for group in groups]),
        "pass_rate": pass_rate,
    }


def _no_baseline(rewards_G: Tensor, _batch_mean: float) -> Tensor:
    return rewards_G


def _batch_mean(rewards_G: Tensor, batch_mean: float) -> Tensor:
    return rewards_G - batch_mean


def _leave_one_out(rewards_G: Tensor, _batch_mean: float) -> Tensor:
    return leave_one_out(rewards_G)


BASELINES: dict[str, Callable[[Tensor, float], Tensor]] = {"none": _no_baseline, "batch-mean": _batch_mean, "leave-one-out": _leave_one_out}


def _settings(given: Mapping[str, Any]) -> GradientNoiseSettings:
    known = [f.name for f in fields(GradientNoiseSettings)]
    for name in given:
        if name not in known:
            raise InputError(f"gradient_noise has no setting {name!r}.{nearest(name, known)} Expected {', '.join(known)}")
    options = GradientNoiseSettings(**given)
    if options.baseline not in BASELINES:
        raise InputError(f"there is no baseline {options.baseline!r}.{nearest(options.baseline, BASELINES)} Expected one of {', '.join(BASELINES)}")
    if options.group_size < 2:
        raise InputError(f"group_size is {options.group_size}; expected at least 2, since an attempt's baseline is the others")
    return options


def _sampled(policy: LanguageModel, options: GradientNoiseSettings, seed: int, count: int) -> list[Group]:
    task_set = load_tasks(options.tasks, seed=seed)
    groups = group_rollouts(
        policy,
        [task_set.train_task(seed, i) for i in range(count)],
        task_set,
        SamplingParams(max_new_tokens=task_set.max_new_tokens, temperature=1.0, stop=tuple(task_set.stop)),
        group_size=options.group_size,
        stream=lambda task, place, sample: stream_key("gradient noise", seed, task.id, place, sample),
        max_turns=1,
        ledger=Ledger(),
    )
    judge(trajectories_of(groups), task_set)
    return groups


def task_gradient(model: torch.nn.Module, trajectories: Sequence[Trajectory], advantages_G: Tensor) -> Tensor:
    """Mean over a task's G attempts of advantage x gradient of the log-likelihood of what was sampled, as one flat vector over all parameters that train.

    All attempts have the same prompt. advantages_G: [G].
    """
    prompt = len(trajectories[0].prompt)
    rows = [[*t.prompt, *t.tokens] for t in trajectories]
    longest = max(map(len, rows))
    # Padding comes last and attention is causal, so that it changes no logit in front of it.
    tokens_GT = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    written_GT = torch.arange(longest - 1)[None] < torch.tensor([[len(row) - 1] for row in rows])
    written_GT &= torch.arange(longest - 1)[None] >= prompt - 1
    logits_GTV = model(input_ids=tokens_GT[:, :-1], use_cache=False).logits
    logprobs_GT = logits_GTV.log_softmax(-1).gather(-1, tokens_GT[:, 1:, None])[..., 0]
    objective = (advantages_G[:, None] * torch.where(written_GT, logprobs_GT, 0.0)).sum() / len(rows)
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(objective, parameters)])


# As a study


@dataclass(frozen=True)
class StudySettings:
    """The same attempts under every baseline."""

    model: str = "tiny"
    """Model at whose weights the gradients are taken."""
    tasks: str = "arithmetic"
    """Tasks: whatever `--tasks` of training takes, single-turn."""
    group_size: Annotated[int, Ge(2)] = 8
    """Attempts at a task."""
    tasks_per_seed: Annotated[int, Ge(2)] = 32
    """Tasks, each of which gives one gradient."""
    offset: float = 0.0
    """Added to every reward: what its zero means."""
    seeds: AtLeastOne = 3
    """Seeds, counted from 0."""


def study(settings: StudySettings) -> Findings:
    """The variance of tasks' gradients under each baseline, mean over seeds."""
    shared = {name: getattr(settings, name) for name in ("model", "tasks", "group_size", "offset")}
    budget = f"{settings.tasks_per_seed * settings.group_size}-rollouts"
    found = {
        name: [part(f"baseline {name}, seed {seed}", partial(gradient_noise, seed, {**shared, "baseline": name}, budget)) for seed in range(settings.seeds)]
        for name in BASELINES
    }
    averages = {name: {key: mean([run[key] for run in runs]) for key in runs[0]} for name, runs in found.items()}
    first = next(iter(averages.values()))
    table = Table(
        f"{settings.tasks}: {first['pass_rate']:.3f} of attempts right, {first['groups_with_spread']:.2f} of groups with right and wrong ones; mean of {settings.seeds} seeds",
        ("baseline", "variance, doublings", "over that without a baseline"),
        [[name, f"{v['log2_variance']:.2f}", f"{v['log2_variance'] - averages['none']['log2_variance']:+.2f}"] for name, v in averages.items()],
    )
    return Findings(values=found, tables=(table,))

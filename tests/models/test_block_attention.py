"""Attention over flat prompts and completions: masks by hand, and the logits and gradients of plain forwards."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from random_models import ARCHITECTURES, build
from torch import Tensor
from transformers import PreTrainedModel

from etude.models.block_attention import BlockPlan, no_mask, takes_blocks
from etude.models.packing import pack_flat
from etude.types import Message, Segment, Task, Trajectory

CPU = torch.device("cpu")
TAKING = ("llama", "gpt2", "mistral-sliding", "qwen3")
"""Architectures that hand arguments on to a scaled-dot-product attention. Gemma 2 caps its scores, for which that has no place."""


def test_who_sees_whom_by_hand() -> None:
    plan = BlockPlan.of([1, 3], [2, 0, 1], [1, 0, 0], CPU)
    # The completion of no tokens takes no part. The first sees three of its prompt, the other one.
    mask = plan.completion_mask(None)
    assert mask is not None
    assert mask[:, 0].int().tolist() == [[[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]], [[1, 0, 0, 1, 0], [1, 0, 0, 1, 1]]]
    assert plan.prompt_mask(None) is None


def test_sliding_windows_by_hand() -> None:
    plan = BlockPlan.of([3], [3], [0], CPU)
    prompts, completions = plan.prompt_mask(2), plan.completion_mask(2)
    assert prompts is not None
    assert completions is not None
    assert prompts[0, 0].int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    # Positions 3, 4 and 5 see themselves and the one before.
    assert completions[0, 0].int().tolist() == [[0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1]]
    assert plan.prompt_mask(3) is None


def test_who_sees_whom_behind_a_common_beginning_by_hand() -> None:
    # Prompts of 2 and 1. Three completions: tokens 0 1 2; 0 1 of the first and then 3; 4 behind the other prompt.
    paths = [np.array([0, 1, 2]), np.array([0, 1, 3]), np.array([4])]
    plan = BlockPlan.of([2, 1], [3, 1, 1], [0, 0, 1], CPU, paths)
    mask = plan.completion_mask(None)
    assert mask is not None
    assert mask[:, 0].int().tolist() == [
        [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]],
        # Its one token, at the third place after the prompt, sees all; what follows is padding.
        [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]],
        [[1, 0, 1, 0, 0], [1, 0, 1, 1, 0], [1, 0, 1, 1, 1]],
    ]
    sliding = plan.completion_mask(2)
    assert sliding is not None
    assert sliding[1, 0, 0].int().tolist() == [0, 0, 0, 1, 1]
    keys = plan.whole(torch.arange(5.0)[:, None, None])
    assert keys[..., 0, 0].tolist() == [[0, 1, 2], [0, 1, 3], [4, 4, 4]]


def sequences(seed: int) -> tuple[list[list[int]], list[tuple[int, list[int]]]]:
    """Prompts, and completions with the number of their prompt."""
    rng = random.Random(seed)
    prompts = [[rng.randrange(2, 60) for _ in range(rng.randint(1, 9))] for _ in range(3)]
    return prompts, [(rng.randrange(3), [rng.randrange(2, 60) for _ in range(rng.randint(0, 8))]) for _ in range(7)]


def flat_logits(model: PreTrainedModel, prompts: list[list[int]], completions: list[tuple[int, list[int]]]) -> list[Tensor]:
    """Logits of each completion's tokens."""
    tokens = [t for p in prompts for t in p] + [t for _, c in completions for t in c]
    positions = [i for p in prompts for i in range(len(p))] + [len(prompts[n]) + i for n, c in completions for i in range(len(c))]
    plan = BlockPlan.of([len(p) for p in prompts], [len(c) for _, c in completions], [n for n, _ in completions], CPU)
    logits = model(
        input_ids=torch.tensor([tokens]), position_ids=torch.tensor([positions]), attention_mask=no_mask(model, CPU), use_cache=False, blocks=plan
    ).logits[0]
    return list(logits[plan.split :].split([len(c) for _, c in completions]))


def plain_logits(model: PreTrainedModel, prompts: list[list[int]], completions: list[tuple[int, list[int]]]) -> list[Tensor]:
    return [model(input_ids=torch.tensor([[*prompts[n], *c]]), use_cache=False).logits[0, len(prompts[n]) :] for n, c in completions]


@pytest.mark.parametrize("architecture", TAKING)
@pytest.mark.parametrize("seed", range(4))
def test_logits_and_gradients_are_those_of_plain_forwards(architecture: str, seed: int) -> None:
    model, other = build(architecture), build(architecture)
    assert takes_blocks(model)
    prompts, completions = sequences(seed)
    ours, theirs = flat_logits(model, prompts, completions), plain_logits(other, prompts, completions)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=0)
    generator = torch.Generator().manual_seed(seed)
    weight = [torch.randn(t.shape, generator=generator) for t in ours]
    torch.stack([(a * w).sum() for a, w in zip(ours, weight, strict=True)]).sum().backward()
    torch.stack([(b * w).sum() for b, w in zip(theirs, weight, strict=True)]).sum().backward()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert a.grad is not None
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4 * max(1.0, float(b.grad.abs().max())), rtol=0)


@pytest.mark.parametrize("architecture", TAKING)
@pytest.mark.parametrize("seed", range(3))
def test_what_begins_alike_is_computed_once_with_the_same_logits_and_gradients(architecture: str, seed: int) -> None:
    model, other = build(architecture), build(architecture)
    assert takes_blocks(model)
    rng = random.Random(seed)
    prompts = [[rng.randrange(2, 60) for _ in range(rng.randint(1, 9))] for _ in range(2)]
    completions = [(rng.randrange(2), [rng.randrange(2, 4) for _ in range(rng.randint(1, 8))]) for _ in range(12)]
    task = Task("t", (Message("user", "?"),))
    packed = pack_flat([Trajectory(task, prompts[n], [Segment(c, "policy", trained=True)], "eos") for n, c in completions], range(12), CPU)
    assert packed.blocks is not None
    assert packed.predictor is not None
    assert packed.inputs.shape[1] < sum(map(len, prompts)) + sum(len(c) - 1 for _, c in completions)
    mask = no_mask(model, CPU)
    logits = model(input_ids=packed.inputs, position_ids=packed.positions, attention_mask=mask, use_cache=False, blocks=packed.blocks).logits[0]
    ours = logits[packed.columns][packed.predictor]
    theirs = torch.cat([other(input_ids=torch.tensor([prompts[n] + c]), use_cache=False).logits[0, len(prompts[n]) - 1 : -1] for n, c in completions])
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(seed))
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert a.grad is not None
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4 * max(1.0, float(b.grad.abs().max())), rtol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_that_cannot_take_blocks_stays_as_it_was(architecture: str) -> None:
    model = build(architecture)
    before = model.config._attn_implementation
    inputs = torch.tensor([[5, 9, 3, 7]])
    expected = model(inputs).logits
    taken = takes_blocks(model)
    assert taken == (architecture in TAKING)
    assert model.config._attn_implementation == ("etude" if taken else before)
    assert torch.equal(model(inputs).logits, expected)

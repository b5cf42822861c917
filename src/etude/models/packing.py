"""Trajectories as model inputs, cut into micro-batches.

Two layouts. *Flat*: one row with every prompt once and then all completions, end to end; `block_attention` says who sees whom. Nothing is padded, and neither a prompt nor a
beginning that completions of it have in common is computed twice. *Rows*: one trajectory a row, padded on the right; any model takes that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.models.block_attention import BlockPlan
from etude.types import Trajectory

ATTENDED = 8
"""Positions that completions may look back on in one flat micro-batch, in budgets of tokens. Attention pads completions to the longest and gives each its prompt's keys and
values, which the budget alone would not bound: hundreds of short answers share one long prompt, or one runaway answer. Such a position takes about a seventh of the memory of
a token of its own."""


@dataclass
class PackedBatch:
    """One micro-batch of B trajectories with N trained tokens, of T at most after the prompt.

    `inputs` and `positions` are [R, W]. Flat (R is 1), `blocks` says who sees whom; in rows it is None and `seen` [R, W] says which inputs are real. Logits are needed at
    the M places (rows[m], columns[m]). Trained token i is predicted at place predictor[i] of these (None: at place i) and belongs at (owner[i], place[i]) of the [B, T]
    arrays. `members` says which trajectory each of the B is.
    """

    inputs: Tensor
    positions: Tensor
    seen: Tensor | None
    blocks: BlockPlan | None
    rows: Tensor
    columns: Tensor
    targets: Tensor
    owner: Tensor
    place: Tensor
    members: list[int]
    length: int
    predictor: Tensor | None = None


def trained_mask(trajectory: Trajectory) -> list[bool]:
    """Which tokens after the prompt are trained on."""
    return [s.trained for s in trajectory.segments for _ in s.tokens]


def prompt_of(trajectory: Trajectory) -> list[int]:
    """The prompt that a trajectory is trained under."""
    return trajectory.prompt if trajectory.train_prompt is None else trajectory.train_prompt


def micro_batches(trajectories: Sequence[Trajectory], bundles: Sequence[Sequence[int]], budget: int, *, flat: bool, share: bool = True) -> list[list[int]]:
    """Cut trajectories (by number) into micro-batches of at most `budget` tokens; a bundle stays together, and in order, whatever it costs.

    Flat, a prompt counts once in a micro-batch (with `share`); in rows, padding counts. Similar lengths go together, and flat those with the same prompt, in the order of
    their tokens, so that what begins alike meets.
    """
    return _cut_flat(trajectories, bundles, budget, share) if flat else _cut_rows(trajectories, bundles, budget)


def _cut_flat(trajectories: Sequence[Trajectory], bundles: Sequence[Sequence[int]], budget: int, share: bool) -> list[list[int]]:
    prompts = {i: tuple(prompt_of(trajectories[i])) for bundle in bundles for i in bundle}
    longest: dict[tuple[int, ...], int] = {}
    for i, prompt in prompts.items():
        longest[prompt] = max(longest.get(prompt, 0), len(trajectories[i].tokens))
    batches: list[list[int]] = []
    held: set[tuple[int, ...]] = set()
    size = width = 0
    for bundle in sorted(bundles, key=lambda b: (longest[prompts[b[0]]], prompts[b[0]], trajectories[b[0]].tokens if share else [])):
        # A completion of L tokens is L - 1 inputs but L rows of logits: the larger counts.
        own = sum(len(trajectories[i].tokens) for i in bundle)
        reach = max(len(prompts[i]) + len(trajectories[i].tokens) for i in bundle)
        full = bool(batches) and (
            size + own + _prompt_tokens(prompts, bundle, held, share) > budget or (len(batches[-1]) + len(bundle)) * max(width, reach) > ATTENDED * budget
        )
        if full or not batches:
            batches.append([])
            held, size, width = set(), 0, 0
        size += own + _prompt_tokens(prompts, bundle, held, share)
        width = max(width, reach)
        held |= {prompts[i] for i in bundle}
        batches[-1] += bundle
    return batches


def _prompt_tokens(prompts: dict[int, tuple[int, ...]], bundle: Sequence[int], held: set[tuple[int, ...]], share: bool) -> int:
    if not share:
        return sum(len(prompts[i]) for i in bundle)
    return sum(len(prompt) for prompt in {prompts[i] for i in bundle} - held)


def _cut_rows(trajectories: Sequence[Trajectory], bundles: Sequence[Sequence[int]], budget: int) -> list[list[int]]:
    def width(bundle: Sequence[int]) -> int:
        return max(len(prompt_of(trajectories[i])) + len(trajectories[i].tokens) for i in bundle)

    batches: list[list[int]] = []
    widest = 0
    for bundle in sorted(bundles, key=width):
        widest = max(widest, width(bundle))
        if batches and (len(batches[-1]) + len(bundle)) * widest <= budget:
            batches[-1] += bundle
        else:
            batches.append(list(bundle))
            widest = width(bundle)
    return batches


def pack_flat(trajectories: Sequence[Trajectory], members: Sequence[int], device: torch.device, *, share: bool = True) -> PackedBatch:
    """One flat micro-batch. A completion's last token predicts nothing and is left out of the input.

    Completions of a prompt go in the order of their tokens: what one has in common with any earlier one it has with the one before. Without `share` each has a prompt of its
    own, and nothing in common with others.
    """
    number_of: dict[object, int] = {}
    prompts: list[list[int]] = []
    prompt_numbers: list[int] = []
    for index in members:
        prompt = prompt_of(trajectories[index])
        key: object = tuple(prompt) if share else len(prompts)
        if key not in number_of:
            number_of[key] = len(prompts)
            prompts.append(prompt)
        prompt_numbers.append(number_of[key])
    ends = np.cumsum([len(p) for p in prompts])
    inputs = [np.asarray(p, dtype=np.int64) for p in prompts]
    positions = [np.arange(len(p)) for p in prompts]
    tokens = [np.asarray(trajectories[i].tokens, dtype=np.int64) for i in members]
    order = sorted(range(len(members)), key=lambda b: (prompt_numbers[b], trajectories[members[b]].tokens))
    paths: dict[int, NDArray[np.int64]] = {}
    lengths: list[int] = []
    before, at = -1, 0
    for b in order:
        taken = tokens[b][:-1]
        same_prompt = before >= 0 and prompt_numbers[before] == prompt_numbers[b]
        common = _common(tokens[before][:-1], taken) if same_prompt else 0
        own = len(taken) - common
        paths[b] = np.concatenate([paths[before][:common], at + np.arange(own)]) if common else at + np.arange(own)
        inputs.append(taken[common:])
        positions.append(len(prompts[prompt_numbers[b]]) + common + np.arange(own))
        lengths.append(own)
        before, at = b, at + own
    split = int(ends[-1])
    places = [np.flatnonzero(np.asarray(trained_mask(trajectories[i]), dtype=bool)) for i in members]
    # A token is predicted at the one before it; a completion's first at its prompt's last.
    columns = [
        np.where(place == 0, ends[number] - 1, split + np.append(paths[b], 0)[place - 1])
        for b, (place, number) in enumerate(zip(places, prompt_numbers, strict=True))
    ]
    targets = [some[place] for some, place in zip(tokens, places, strict=True)]
    packed = _assembled(trajectories, members, places, columns, targets, device)
    distinct, predictor = np.unique(np.concatenate(columns), return_inverse=True)
    packed.columns, packed.predictor = torch.from_numpy(distinct).to(device), torch.from_numpy(predictor).to(device)
    packed.rows = torch.zeros_like(packed.columns)
    packed.inputs = torch.from_numpy(np.concatenate(inputs))[None].to(device)
    packed.positions = torch.from_numpy(np.concatenate(positions))[None].to(device)
    packed.blocks = BlockPlan.of([len(p) for p in prompts], lengths, [prompt_numbers[b] for b in order], device, [paths[b] for b in order])
    return packed


def _common(first: NDArray[np.int64], second: NDArray[np.int64]) -> int:
    """How many tokens two sequences have in common from the start."""
    length = min(len(first), len(second))
    differs = np.flatnonzero(first[:length] != second[:length])
    return int(differs[0]) if len(differs) else length


def pack_rows(trajectories: Sequence[Trajectory], members: Sequence[int], device: torch.device) -> PackedBatch:
    """One micro-batch of padded rows, one trajectory each."""
    sequences = [[*prompt_of(trajectories[i]), *trajectories[i].tokens] for i in members]
    width = max(map(len, sequences))
    inputs = np.zeros((len(members), width), dtype=np.int64)
    seen = np.zeros((len(members), width), dtype=np.int64)
    places: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    for r, (index, sequence) in enumerate(zip(members, sequences, strict=True)):
        inputs[r, : len(sequence)] = sequence
        seen[r, : len(sequence)] = 1
        start = len(prompt_of(trajectories[index]))
        place = np.flatnonzero(np.asarray(trained_mask(trajectories[index]), dtype=bool))
        columns.append(start + place - 1)
        targets.append(inputs[r, start + place])
        places.append(place)
    packed = _assembled(trajectories, members, places, columns, targets, device)
    packed.inputs = torch.from_numpy(inputs).to(device)
    packed.positions = torch.from_numpy(np.where(seen > 0, np.arange(width), 0)).to(device)
    packed.seen = torch.from_numpy(seen).to(device)
    packed.rows = packed.owner
    return packed


def _assembled(
    trajectories: Sequence[Trajectory],
    members: Sequence[int],
    places: list[np.ndarray],
    columns: list[np.ndarray],
    targets: list[np.ndarray],
    device: torch.device,
) -> PackedBatch:
    """What both layouts share; inputs are yet to be set."""

    def tensor(arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(arrays).astype(np.int64)).to(device)

    owner = tensor([np.full(len(place), b) for b, place in enumerate(places)])
    nothing = torch.empty(0, dtype=torch.long, device=device)
    return PackedBatch(
        inputs=nothing,
        positions=nothing,
        seen=None,
        blocks=None,
        rows=torch.zeros_like(owner),
        columns=tensor(columns),
        targets=tensor(targets),
        owner=owner,
        place=tensor(places),
        members=list(members),
        length=max(1, *(len(trajectories[i].tokens) for i in members)),
    )

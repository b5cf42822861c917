"""Trajectories as model inputs: rows of one prompt and one or several completions of it, cut into micro-batches.

Where the model's attention can be told who sees whom, several completions follow their common prompt in one row; each sees the prompt and itself, at the positions
it would have alone. The prompt is then computed once a row instead of once a completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from etude.types import Trajectory

ATTENTION_COST = 2.0
"""How much dearer a unit of masked attention is than one of matrix multiplication, as measured on CPU."""


@dataclass(frozen=True)
class Row:
    """One input row: a prompt and the trajectories (by number) whose tokens follow it."""

    prompt: list[int]
    members: list[int]
    width: int


@dataclass
class PackedBatch:
    """One micro-batch of R rows, W wide, holding B trajectories with N trained tokens of T at most after the prompt.

    `seen` is a boolean mask [R, 1, W, W] of who sees whom, or [R, W] of which inputs are real when every row is one trajectory. Trained token i is predicted at
    (rows[i], columns[i]) and belongs at (owner[i], place[i]) of the [B, T] arrays. `members` says which trajectory each of the B is.
    """

    inputs: Tensor
    positions: Tensor
    seen: Tensor
    rows: Tensor
    columns: Tensor
    targets: Tensor
    owner: Tensor
    place: Tensor
    members: list[int]
    length: int


def trained_mask(trajectory: Trajectory) -> list[bool]:
    """Which tokens after the prompt are trained on."""
    return [s.trained for s in trajectory.segments for _ in s.tokens]


def plan_rows(trajectories: Sequence[Trajectory], indices: Sequence[int], *, share: bool, hidden_size: int, widest: int = 2**31) -> list[Row]:
    """Rows for some trajectories, in order; with `share`, completions of equal prompts go into common rows of the cheapest width.

    No row of several completions is wider than `widest`.
    """
    rows: list[Row] = []
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for index in indices:
        trajectory = trajectories[index]
        prompt = trajectory.prompt if trajectory.train_prompt is None else trajectory.train_prompt
        if share:
            by_prompt.setdefault(tuple(prompt), []).append(index)
        else:
            rows.append(Row(prompt, [index], len(prompt) + len(trajectory.tokens)))
    for prompt, members in by_prompt.items():
        lengths = [len(trajectories[i].tokens) for i in members]
        per_row = cheapest_share(len(prompt), sum(lengths) / len(lengths), len(members), hidden_size)
        # As many rows as that takes, evenly filled: long ones first, each into the row that is shortest so far.
        bins: list[list[int]] = [[] for _ in range(-(-len(members) // per_row))]
        fill = [len(prompt)] * len(bins)
        for length, index in sorted(zip(lengths, members, strict=True), key=lambda pair: (-pair[0], pair[1])):
            shortest = min(range(len(bins)), key=fill.__getitem__)
            if bins[shortest] and fill[shortest] + length > widest:
                bins.append([])
                fill.append(len(prompt))
                shortest = len(bins) - 1
            bins[shortest].append(index)
            fill[shortest] += length
        rows += [Row(list(prompt), sorted(b), f) for b, f in zip(bins, fill, strict=True) if b]
    return rows


def cheapest_share(prompt: int, completion: float, count: int, hidden_size: int) -> int:
    """How many completions of a common prompt should share a row, so that prompt, completions and attention together cost least."""

    def cost(k: int) -> float:
        width = prompt + k * completion
        return width * (6 * hidden_size + ATTENTION_COST * width) / k

    return min(range(1, count + 1), key=cost)


def micro_batches(bundles: Sequence[Sequence[Row]], budget: int) -> list[list[Row]]:
    """Cut rows into micro-batches of at most `budget` tokens, padding counted; a bundle's rows stay together, whatever they cost.

    Similar widths go together.
    """
    batches: list[list[Row]] = []
    width = 0
    for bundle in sorted(bundles, key=lambda b: max(r.width for r in b)):
        widest = max(width, max(r.width for r in bundle))
        if batches and (len(batches[-1]) + len(bundle)) * widest <= budget:
            batches[-1] += bundle
        else:
            batches.append(list(bundle))
            widest = max(r.width for r in bundle)
        width = widest
    return batches


def pack(trajectories: Sequence[Trajectory], rows: Sequence[Row], device: torch.device) -> PackedBatch:
    """Build the tensors of one micro-batch."""
    width = max(r.width for r in rows)
    inputs = np.zeros((len(rows), width), dtype=np.int64)
    positions = np.zeros((len(rows), width), dtype=np.int64)
    # Who wrote each input: 0 the prompt, 1.. the row's completions, -1 padding.
    part = np.full((len(rows), width), -1, dtype=np.int64)
    shared = any(len(r.members) > 1 for r in rows)
    row_of: list[np.ndarray] = []
    column_of: list[np.ndarray] = []
    target_of: list[np.ndarray] = []
    owner_of: list[np.ndarray] = []
    place_of: list[np.ndarray] = []
    members: list[int] = []
    length = 1
    for r, row in enumerate(rows):
        start = len(row.prompt)
        inputs[r, :start] = row.prompt
        positions[r, :start] = np.arange(start)
        part[r, :start] = 0
        at = start
        for number, index in enumerate(row.members, 1):
            trajectory = trajectories[index]
            tokens = np.asarray(trajectory.tokens, dtype=np.int64)
            end = at + len(tokens)
            inputs[r, at:end] = tokens
            positions[r, at:end] = start + np.arange(len(tokens))
            part[r, at:end] = number
            place = np.flatnonzero(np.asarray(trained_mask(trajectory), dtype=bool))
            # A token is predicted at the one before it; a completion's first at the prompt's last.
            column_of.append(np.where(place == 0, start - 1, at + place - 1))
            row_of.append(np.full(len(place), r))
            target_of.append(tokens[place])
            owner_of.append(np.full(len(place), len(members)))
            place_of.append(place)
            length = max(length, len(tokens))
            members.append(index)
            at = end

    def tensor(arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(arrays).astype(np.int64)).to(device)

    parts = torch.from_numpy(part).to(device)
    if shared:
        order = torch.arange(width, device=device)
        related = (parts[:, None, :] == 0) | (parts[:, None, :] == parts[:, :, None])
        seen = (related & (order[None, None, :] <= order[None, :, None])).unsqueeze(1)
    else:
        seen = (parts >= 0).long()
    return PackedBatch(
        inputs=torch.from_numpy(inputs).to(device),
        positions=torch.from_numpy(positions).to(device),
        seen=seen,
        rows=tensor(row_of),
        columns=tensor(column_of),
        targets=tensor(target_of),
        owner=tensor(owner_of),
        place=tensor(place_of),
        members=members,
        length=length,
    )

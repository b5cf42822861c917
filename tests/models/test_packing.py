"""Rows, micro-batches and the tensors made of them."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from etude.models.packing import Row, cheapest_share, micro_batches, pack, plan_rows, trained_mask
from etude.types import Message, Segment, Task, Trajectory

CPU = torch.device("cpu")
TASK = Task("t", (Message("user", "?"),))


def trajectory(prompt: list[int], *spans: tuple[list[int], bool], train_prompt: list[int] | None = None) -> Trajectory:
    segments = [Segment(tokens, "policy" if trained else "tool", trained=trained) for tokens, trained in spans]
    return Trajectory(TASK, prompt, segments, "eos", train_prompt=train_prompt)


TWO_TURNS = trajectory([10, 11, 12], ([20, 21], True), ([22], False), ([23], True))
SIBLING = trajectory([10, 11, 12], ([30], True))
OTHER = trajectory([40], ([41, 42], True))

shapes = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 12)), min_size=1, max_size=20)
"""Which of four prompts, and how many tokens after it."""


def made(shape: list[tuple[int, int]]) -> list[Trajectory]:
    return [trajectory([50 + p] * (2 + 5 * p), (list(range(length)), True)) for p, length in shape]


def test_trained_mask_follows_segments() -> None:
    assert trained_mask(TWO_TURNS) == [True, True, False, True]


def test_one_trajectory_a_row() -> None:
    rows = plan_rows([TWO_TURNS, SIBLING, OTHER], [2, 0], share=False, hidden_size=32)
    assert rows == [Row([40], [2], 3), Row([10, 11, 12], [0], 7)]


def test_completions_of_one_prompt_share_a_row() -> None:
    long_prompt = [7] * 40
    siblings = [trajectory(long_prompt, ([i], True)) for i in range(4)]
    assert plan_rows([*siblings, OTHER], range(5), share=True, hidden_size=64) == [Row(long_prompt, [0, 1, 2, 3], 44), Row([40], [4], 3)]


def test_the_training_prompt_decides_the_row() -> None:
    hinted = trajectory([7] * 40, ([1], True), train_prompt=[8] * 40)
    plain = trajectory([8] * 40, ([2], True))
    assert plan_rows([hinted, plain], [0, 1], share=True, hidden_size=64) == [Row([8] * 40, [0, 1], 42)]
    assert plan_rows([hinted], [0], share=False, hidden_size=64) == [Row([8] * 40, [0], 41)]
    assert pack([hinted], [Row([8] * 40, [0], 41)], CPU).inputs.tolist() == [[8] * 40 + [1]]


@pytest.mark.parametrize(
    ("prompt", "completion", "hidden_size", "expected"),
    [
        # Cost of k in a row of width w = prompt + k completion is w (6 hidden + 2 w) / k.
        (100, 1, 1000, 8),  # the prompt is all of the cost: share it eight ways
        (1, 100, 1, 1),  # attention between strangers is all of the cost: share nothing
        (20, 20, 10, 2),  # k=1: 40 x 140 = 5600; k=2: 60 x 180 / 2 = 5400; k=3: 80 x 220 / 3 = 5867
    ],
)
def test_how_many_share_a_row_is_the_cheapest(prompt: int, completion: int, hidden_size: int, expected: int) -> None:
    assert cheapest_share(prompt, completion, 8, hidden_size) == expected


@given(shape=shapes, share=st.booleans(), hidden_size=st.sampled_from([1, 32, 1024]))
def test_every_wanted_trajectory_is_in_one_row_of_its_prompt(shape: list[tuple[int, int]], share: bool, hidden_size: int) -> None:
    trajectories = made(shape)
    wanted = range(0, len(trajectories), 2)
    rows = plan_rows(trajectories, wanted, share=share, hidden_size=hidden_size)
    assert Counter(i for r in rows for i in r.members) == Counter(wanted)
    for row in rows:
        assert all(trajectories[i].prompt == row.prompt for i in row.members)
        assert row.width == len(row.prompt) + sum(len(trajectories[i].tokens) for i in row.members)
        assert row.members == sorted(row.members)


@given(widths=st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=3), max_size=15), budget=st.integers(1, 120))
def test_micro_batches_keep_bundles_whole_and_within_the_budget(widths: list[list[int]], budget: int) -> None:
    numbers = iter(range(1000))
    bundles = [[Row([1], [next(numbers)], w) for w in bundle] for bundle in widths]
    batches = micro_batches(bundles, budget)
    assert sorted(r.members[0] for b in batches for r in b) == [r.members[0] for bundle in bundles for r in bundle]
    whole = {tuple(r.members[0] for r in bundle) for bundle in bundles}
    for batch in batches:
        order = [r.members[0] for r in batch]
        for bundle in whole:
            inside = [m for m in order if m in bundle]
            assert inside in ([], list(bundle))
        cost = len(batch) * max(r.width for r in batch)
        assert cost <= budget or tuple(order) in whole


def test_micro_batches_by_hand() -> None:
    rows = [Row([1], [i], w) for i, w in enumerate([6, 2, 3, 2])]
    cut = micro_batches([[r] for r in rows], 9)
    # Widths 2, 2, 3 cost 3 x 3; with the 6 it would be 4 x 6.
    assert [[r.width for r in b] for b in cut] == [[2, 2, 3], [6]]
    assert micro_batches([], 9) == []


def test_packed_rows_of_one_trajectory() -> None:
    packed = pack([TWO_TURNS, OTHER], [Row([10, 11, 12], [0], 7), Row([40], [1], 3)], CPU)
    assert packed.inputs.tolist() == [[10, 11, 12, 20, 21, 22, 23], [40, 41, 42, 0, 0, 0, 0]]
    assert packed.positions[0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert packed.positions[1, :3].tolist() == [0, 1, 2]
    assert packed.seen.tolist() == [[1] * 7, [1, 1, 1, 0, 0, 0, 0]]
    # 20 is predicted at the prompt's last token, 21 at 20, and 23 at the tool's 22.
    assert packed.targets.tolist() == [20, 21, 23, 41, 42]
    assert packed.rows.tolist() == [0, 0, 0, 1, 1]
    assert packed.columns.tolist() == [2, 3, 5, 0, 1]
    assert packed.owner.tolist() == [0, 0, 0, 1, 1]
    assert packed.place.tolist() == [0, 1, 3, 0, 1]
    assert (packed.members, packed.length) == ([0, 1], 4)


def test_packed_row_of_two_completions() -> None:
    packed = pack([TWO_TURNS, SIBLING], [Row([10, 11, 12], [0, 1], 8)], CPU)
    assert packed.inputs.tolist() == [[10, 11, 12, 20, 21, 22, 23, 30]]
    # The second completion begins where the first began.
    assert packed.positions.tolist() == [[0, 1, 2, 3, 4, 5, 6, 3]]
    assert packed.targets.tolist() == [20, 21, 23, 30]
    assert packed.columns.tolist() == [2, 3, 5, 2]
    assert packed.owner.tolist() == [0, 0, 0, 1]
    assert packed.place.tolist() == [0, 1, 3, 0]
    assert packed.seen.shape == (1, 1, 8, 8)
    assert packed.seen[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 1, 1, 0],
        [1, 1, 1, 0, 0, 0, 0, 1],
    ]


@given(shape=shapes, share=st.booleans(), seed=st.integers(0, 1000))
def test_every_target_is_predicted_from_its_own_past(shape: list[tuple[int, int]], share: bool, seed: int) -> None:
    rng = random.Random(seed)
    trajectories = [
        trajectory(t.prompt, ([rng.randrange(60) for _ in t.tokens], True), ([rng.randrange(60)], False), ([rng.randrange(60)], True)) for t in made(shape)
    ]
    rows = plan_rows(trajectories, range(len(trajectories)), share=share, hidden_size=256)
    packed = pack(trajectories, rows, CPU)
    assert sorted(packed.members) == list(range(len(trajectories)))
    assert len(packed.targets) == sum(t.trained_length for t in trajectories)
    for row, column, target, owner, place in zip(packed.rows, packed.columns, packed.targets, packed.owner, packed.place, strict=True):
        own = trajectories[packed.members[int(owner)]]
        assert int(target) == own.tokens[int(place)]
        past = torch.arange(packed.inputs.shape[1]) <= column
        visible = packed.seen[row, 0, column] if packed.seen.ndim == 4 else packed.seen[row].bool() & past
        # In the order of its places, what the prediction sees is the prompt and the trajectory's tokens so far, nothing else.
        assert packed.inputs[row][visible].tolist() == own.prompt + own.tokens[: int(place)]
        assert packed.positions[row][visible].tolist() == list(range(len(own.prompt) + int(place)))

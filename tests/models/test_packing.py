"""Rows, micro-batches and the tensors made of them."""

from __future__ import annotations

import itertools
import random

import torch
from hypothesis import given
from hypothesis import strategies as st

from etude.models.packing import micro_batches, pack_flat, pack_rows, trained_mask
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


def test_flat_micro_batches_count_a_prompt_once() -> None:
    siblings = [trajectory([7] * 10, ([i] * 4, True)) for i in range(4)]
    everything = [*siblings, OTHER]
    alone = [[i] for i in range(5)]
    # [40] with two tokens is the shortest and comes first: 3. A prompt of 10 and two completions of 4 are 18, with a third 22.
    assert micro_batches(everything, alone, 20, flat=True) == [[4, 0], [1, 2], [3]]
    assert micro_batches(everything, alone, 26, flat=True) == [[4, 0, 1, 2], [3]]
    assert micro_batches(everything, alone, 28, flat=True, share=False) == [[4, 0], [1, 2], [3]]


def test_flat_micro_batches_put_together_what_begins_alike() -> None:
    siblings = [trajectory([7] * 10, ([i % 2] * 4, True)) for i in range(4)]
    alone = [[i] for i in range(4)]
    assert micro_batches(siblings, alone, 18, flat=True) == [[0, 2], [1, 3]]
    assert micro_batches(siblings, alone, 28, flat=True, share=False) == [[0, 1], [2, 3]]


def test_row_micro_batches_count_padding() -> None:
    rows = [trajectory([1], ([2] * (width - 1), True)) for width in (6, 2, 3, 2)]
    # Widths 2, 2, 3 cost 3 x 3; with the 6 it would be 4 x 6.
    assert micro_batches(rows, [[0], [1], [2], [3]], 9, flat=False) == [[1, 3, 2], [0]]
    assert micro_batches(rows, [], 9, flat=False) == micro_batches(rows, [], 9, flat=True) == []


@given(shape=shapes, cuts=st.lists(st.integers(0, 20), max_size=4), budget=st.integers(1, 60), flat=st.booleans(), share=st.booleans())
def test_micro_batches_keep_bundles_whole_and_within_the_budget(shape: list[tuple[int, int]], cuts: list[int], budget: int, flat: bool, share: bool) -> None:
    trajectories = made(shape)
    edges = sorted({0, len(trajectories), *(c for c in cuts if c < len(trajectories))})
    bundles = [list(range(a, b)) for a, b in itertools.pairwise(edges)]
    batches = micro_batches(trajectories, bundles, budget, flat=flat, share=share)
    assert sorted(i for batch in batches for i in batch) == list(range(len(trajectories)))
    for bundle in bundles:
        [batch] = [b for b in batches if bundle[0] in b]
        at = batch.index(bundle[0])
        assert batch[at : at + len(bundle)] == bundle
    for batch in batches:
        widths = [len(trajectories[i].prompt) + len(trajectories[i].tokens) for i in batch]
        prompts = [tuple(trajectories[i].prompt) for i in batch]
        tokens = sum(len(trajectories[i].tokens) for i in batch) + sum(map(len, set(prompts) if share else prompts))
        cost = tokens if flat else len(batch) * max(widths)
        assert cost <= budget or batch in bundles


def test_packed_rows() -> None:
    packed = pack_rows([TWO_TURNS, OTHER], [0, 1], CPU)
    assert packed.inputs.tolist() == [[10, 11, 12, 20, 21, 22, 23], [40, 41, 42, 0, 0, 0, 0]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 0, 0, 0, 0]]
    assert packed.seen is not None
    assert packed.seen.tolist() == [[1] * 7, [1, 1, 1, 0, 0, 0, 0]]
    # 20 is predicted at the prompt's last token, 21 at 20, and 23 at the tool's 22.
    assert packed.targets.tolist() == [20, 21, 23, 41, 42]
    assert packed.rows.tolist() == [0, 0, 0, 1, 1]
    assert packed.columns.tolist() == [2, 3, 5, 0, 1]
    assert packed.owner.tolist() == [0, 0, 0, 1, 1]
    assert packed.place.tolist() == [0, 1, 3, 0, 1]
    assert (packed.members, packed.length) == ([0, 1], 4)


def test_packed_flat() -> None:
    packed = pack_flat([TWO_TURNS, SIBLING, OTHER], [0, 1, 2], CPU)
    # Prompts first, each once; then completions without their last tokens, which predict nothing. The sibling's only token is its last.
    assert packed.inputs.tolist() == [[10, 11, 12, 40, 20, 21, 22, 41]]
    assert packed.positions.tolist() == [[0, 1, 2, 0, 3, 4, 5, 1]]
    assert packed.targets.tolist() == [20, 21, 23, 30, 41, 42]
    # 20 and the sibling's 30 are predicted at the same place.
    assert packed.columns.tolist() == [2, 3, 4, 6, 7]
    assert packed.predictor is not None
    assert packed.predictor.tolist() == [0, 2, 3, 0, 1, 4]
    assert packed.rows.tolist() == [0] * 5
    assert packed.owner.tolist() == [0, 0, 0, 1, 2, 2]
    assert packed.place.tolist() == [0, 1, 3, 0, 0, 1]
    assert packed.seen is None
    unshared = pack_flat([TWO_TURNS, SIBLING], [0, 1], CPU, share=False)
    assert unshared.inputs.tolist() == [[10, 11, 12, 10, 11, 12, 20, 21, 22]]
    assert unshared.columns.tolist() == [2, 5, 6, 8]
    assert unshared.predictor is not None
    assert unshared.predictor.tolist() == [0, 2, 3, 1]


def test_beginnings_that_completions_have_in_common_are_packed_once() -> None:
    tokens = [[1, 2, 3, 4], [5, 6], [1, 2, 3, 7], [1, 9, 9], [1, 2, 3, 4]]
    packed = pack_flat([trajectory([8], (some, True)) for some in tokens], range(5), CPU)
    # In the order of their tokens: 1 2 3 (4), the same again, the same (7), 1 9 (9), 5 (6). Of last tokens nothing is predicted.
    assert packed.inputs.tolist() == [[8, 1, 2, 3, 9, 5]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 2, 1]]
    assert packed.columns.tolist() == [0, 1, 2, 3, 4, 5]
    assert packed.predictor is not None
    assert packed.targets.tolist() == [1, 2, 3, 4, 5, 6, 1, 2, 3, 7, 1, 9, 9, 1, 2, 3, 4]
    assert packed.predictor.tolist() == [0, 1, 2, 3, 0, 5, 0, 1, 2, 3, 0, 1, 4, 0, 1, 2, 3]
    assert packed.members == [0, 1, 2, 3, 4]
    assert packed.owner.tolist() == [0] * 4 + [1] * 2 + [2] * 4 + [3] * 3 + [4] * 4
    plan = packed.blocks
    assert plan is not None
    assert plan.paths is not None
    assert plan.begins is not None
    # Three have tokens of their own: 1 2 3, the 9 behind a 1 of others, and 5.
    assert plan.paths.tolist() == [[0, 1, 2], [0, 3, 3], [4, 4, 4]]
    assert plan.begins.tolist() == [0, 1, 0]
    other_prompt = pack_flat([trajectory([8], ([1, 2, 3], True)), trajectory([9], ([1, 2, 3], True))], range(2), CPU)
    assert other_prompt.inputs.tolist() == [[8, 9, 1, 2, 1, 2]]
    assert other_prompt.blocks is not None
    assert other_prompt.blocks.paths is None


def test_the_training_prompt_decides() -> None:
    hinted = trajectory([7] * 4, ([1, 2], True), train_prompt=[8] * 4)
    plain = trajectory([8] * 4, ([2, 3], True))
    assert pack_flat([hinted, plain], [0, 1], CPU).inputs.tolist() == [[8, 8, 8, 8, 1, 2]]
    assert pack_rows([hinted], [0], CPU).inputs.tolist() == [[8, 8, 8, 8, 1, 2]]


@given(shape=shapes, share=st.booleans(), seed=st.integers(0, 1000))
def test_every_target_is_predicted_from_its_own_past(shape: list[tuple[int, int]], share: bool, seed: int) -> None:
    rng = random.Random(seed)
    # Of three tokens, so that many begin alike.
    trajectories = [
        trajectory(t.prompt, ([rng.randrange(3) for _ in t.tokens], True), ([rng.randrange(3)], False), ([rng.randrange(3)], True)) for t in made(shape)
    ]
    members = list(range(len(trajectories)))
    rows, flat = pack_rows(trajectories, members, CPU), pack_flat(trajectories, members, CPU, share=share)
    for packed in (rows, flat):
        assert len(packed.targets) == sum(t.trained_length for t in trajectories)
        predictor = range(len(packed.targets)) if packed.predictor is None else packed.predictor.tolist()
        for at, target, owner, place in zip(predictor, packed.targets, packed.owner, packed.place, strict=True):
            row, column = packed.rows[at], packed.columns[at]
            own = trajectories[packed.members[int(owner)]]
            assert int(target) == own.tokens[int(place)]
            # The input there is the token before the target, at its position.
            assert int(packed.inputs[row, column]) == [*own.prompt, *own.tokens][len(own.prompt) + int(place) - 1]
            assert int(packed.positions[row, column]) == len(own.prompt) + int(place) - 1
    if share:
        # Every beginning of an input is there once.
        beginnings = {(tuple(t.prompt), tuple(t.tokens[:end])) for t in trajectories for end in range(1, len(t.tokens))}
        assert flat.inputs.shape[1] == len(beginnings) + sum(map(len, {tuple(t.prompt) for t in trajectories}))

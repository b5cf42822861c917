"""A group's tree as plain JSON values: what a report draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from etude.rollouts.tree import Branch, Tree
from etude.types import Group, Trajectory

MOST_TOKENS = 600
"""Tokens of one branch that are recorded."""


def record_of_tree(group: Group, decode: Callable[[Sequence[int]], str], answer_in: Callable[[str], str | None]) -> dict[str, Any]:
    """The tree in a group's tags, once its attempts are judged.

    `branches` are in the order of the group, dropped ones where they were opened. Each has its `number`, its `parent`'s (None at the prompt), where it left it
    (`fork`), its own tokens as `texts` with their `entropies` in nats, and why it was `opened` and `pruned`; if it was kept also its `sample`, `answer`, `correct`,
    `reward`, `rewards` and `stop_reason`. Of very long branches the first tokens are recorded; `tokens` counts all.
    """
    tree: Tree = group.tags["tree"]
    attempts = dict(zip(tree.kept, group.trajectories, strict=True))
    return {
        "task_id": tree.task.id,
        "prompt": tree.task.prompt,
        "answer": tree.task.answer,
        "suppressed": tree.suppressed,
        "label": group.tags.get("label"),
        "branches": [_branch(b, attempts.get(b), decode, answer_in) for b in tree.branches],
    }


def _branch(branch: Branch, attempt: Trajectory | None, decode: Callable[[Sequence[int]], str], answer_in: Callable[[str], str | None]) -> dict[str, Any]:
    own = branch.tokens[branch.fork :][:MOST_TOKENS]
    record: dict[str, Any] = {
        "number": branch.number,
        "parent": branch.parent.number if branch.parent is not None else None,
        "fork": branch.fork,
        "tokens": branch.age,
        "texts": [decode([token]) for token in own],
        "entropies": [round(e, 3) for e in branch.entropies[branch.fork :][:MOST_TOKENS]],
        "opened": branch.opened,
        "pruned": branch.pruned,
    }
    if attempt is None:
        return record
    correct = attempt.rewards.get("correct", math.nan)
    return record | {
        "sample": attempt.sample,
        "answer": answer_in(attempt.last_text),
        "correct": correct,
        "reward": attempt.reward,
        "rewards": dict(attempt.rewards),
        "stop_reason": attempt.stop_reason,
    }

"""Trees that fork where the policy was least certain (ETTRL, arXiv:2508.11356, tree majority rollouts).

A root is one whole sampled attempt. In each root the positions with the highest entropy are found, and from each of them the attempt is written to its end anew a
few times. Only roots are forked. What comes before a fork is not generated again: with N forks of B branches at even places, 1 + BN attempts cost the tokens of
1 + BN / 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from etude.errors import InputError
from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams
from etude.rollouts.tree import Branch, Growth, Tree
from etude.types import Task

Choose = Callable[[Task, int, Sequence[float], int], list[int]]
"""(task, root's number, entropies of the positions that may be forked, count) -> positions."""


@dataclass(frozen=True)
class ForkPlan:
    """How many: `roots` of each task (M), `forks` of each root (N), `branches` at each fork (B)."""

    roots: int
    forks: int
    branches: int

    @property
    def per_root(self) -> int:
        """Attempts that one root gives, itself included: 1 + BN."""
        return 1 + self.forks * self.branches

    @property
    def leaves(self) -> int:
        """Attempts at a task: M (1 + BN)."""
        return self.roots * self.per_root

    @property
    def share_of_tokens(self) -> float:
        """Tokens that the leaves cost, as a share of what as many separate attempts would, if forks lay evenly over attempts of equal length."""
        return (1 + self.forks * self.branches / 2) / self.per_root


def highest_entropy(entropies: Sequence[float], count: int) -> list[int]:
    """The `count` positions with the highest entropy, highest first, the earlier of equals; all of them where there are fewer."""
    return sorted(range(len(entropies)), key=lambda i: (-entropies[i], i))[:count]


def random_positions(entropies: Sequence[float], count: int, rng: Random) -> list[int]:
    """`count` different positions, any as likely as another; all of them where there are fewer."""
    return rng.sample(range(len(entropies)), min(count, len(entropies)))


def answer_start(tokens: Sequence[int], answer: str | None, decode: Callable[[Sequence[int]], str]) -> int:
    """The first token of the final answer in what was written: forks from there on would vote for something else than their reasons.

    The answer's last occurrence in the text counts. The number of tokens where there is no answer.
    """
    if not answer:
        return len(tokens)
    place = decode(tokens).rfind(answer)
    if place < 0:
        return len(tokens)
    # The first token after which the text reaches into the answer, by bisection: the text of a longer prefix is not shorter.
    low, high = 0, len(tokens)
    while low < high:
        middle = (low + high) // 2
        if len(decode(tokens[: middle + 1])) > place:
            high = middle
        else:
            low = middle + 1
    return low


def grow_entropy_forks(
    policy: LanguageModel,
    tasks: Sequence[Task],
    plan: ForkPlan,
    params: SamplingParams,
    *,
    choose: Choose,
    forkable: Callable[[Branch], int],
    stream: Callable[[Task, int, int], int],
    ledger: Ledger,
) -> list[Tree]:
    """One tree for each task, each root followed by its branches in the order of `choose`; always `plan.leaves` attempts.

    forkable: how many of an ended root's first positions may be forked. A root that has too few of them is made up for by attempts from the prompt.
    stream(task, place, sample) names the random numbers of attempt `sample` at `tasks[place]`.
    """
    if plan.roots < 1:
        raise InputError(f"a tree has {plan.roots} roots; expected at least 1")
    with Growth(policy, ledger) as growth:
        roots: dict[Branch, int] = {}
        sample_of: dict[Branch, int] = {}
        for place, task in enumerate(tasks):
            tree = growth.tree(task)
            for root in range(plan.roots):
                sample = root * plan.per_root
                branch = growth.plant(tree, params, stream=stream(task, place, sample), why="root", keep=True)
                roots[branch], sample_of[branch] = place, sample
        for branch in growth.finish():
            if branch not in roots:
                continue
            tree, first = branch.tree, sample_of[branch]
            entropies = branch.entropies[: forkable(branch)]
            positions = choose(tree.task, first // plan.per_root, entropies, plan.forks)
            for extra in range(plan.forks * plan.branches):
                key = stream(tree.task, roots[branch], first + 1 + extra)
                number = extra // plan.branches
                if number < len(positions):
                    at = positions[number]
                    grown = growth.fork(branch, at, stream=key, why=f"entropy {entropies[at]:.2f}")
                else:
                    grown = growth.plant(tree, params, stream=key, why="no place to fork")
                sample_of[grown] = first + 1 + extra
            growth.let_go(branch)
    for tree in growth.trees:
        # Not by when each root happened to end: what else is in the batch must not show.
        tree.branches.sort(key=sample_of.__getitem__)
        for number, branch in enumerate(tree.branches):
            branch.number = number
    return growth.trees


def balanced(tree: Tree, count: int, rng: Random) -> list[int]:
    """Indices into the tree's attempts: `count` of them, as evenly over the roots as possible and at random within one, in rising order. All where there are fewer."""
    by_root: dict[Branch, list[int]] = {}
    for index, branch in enumerate(tree.kept):
        root = branch
        while root.parent is not None:
            root = root.parent
        by_root.setdefault(root, []).append(index)
    for indices in by_root.values():
        rng.shuffle(indices)
    rounds = [indices[turn] for turn in range(max(map(len, by_root.values()), default=0)) for indices in by_root.values() if turn < len(indices)]
    return sorted(rounds[:count])

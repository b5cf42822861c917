"""Tree of thoughts, breadth first (arXiv:2305.10601): at every depth the best partial solutions by value are gone on with, and all others are given up.

It has no way back. Where tokens are left when a beam has ended, another one begins with other random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from etude.search.mcts import Place, Search
from etude.search.mcts_star import StepSearch


class BeamSearch(StepSearch):
    """`StepSearch` level by level. width: partial solutions that are gone on with. The limit of tokens holds; that of iterations counts nodes that were expanded."""

    width: int = 3

    def grow(self, searches: Sequence[Search]) -> None:
        limits = self.config.limits()
        levels = {search.place: [search.tree.root] for search in searches}
        while True:
            front: list[Place] = [(search, node) for search in searches if not limits.spent(search) for node in levels[search.place]]
            if not front:
                break
            fresh = {search.place: [] for search in searches}
            for (search, _), made in zip(front, self.children(front), strict=True):
                search.iterations += 1
                fresh[search.place] += [child for child in made if not child.terminal]
            for search in searches:
                ranked = sorted(fresh[search.place], key=lambda node: -node.own.value)
                levels[search.place] = [] if search.tree.root.closed or search.iterations >= limits.iterations else ranked[: self.width]
        self.forget(searches)

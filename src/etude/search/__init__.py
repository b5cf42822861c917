"""Search over what can be done next: trees of states with statistics, rules that say where to go on, the loop that grows many trees at once, and environments in it;
archives of agents that make each other (`archive.py`, `growth.py`, `worlds.py`), bandits over their trials (`bandits.py`), and jobs side by side (`side_by_side.py`).

A tree of *attempts*, which fork at tokens and are all trained on, is another thing: see `etude.rollouts.tree`. `EnvironmentSearch` is imported when it is first used:
it needs a model, and the rest loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etude.search.mcts import Child, Limits, Search, grow
from etude.search.selection import Rule, puct, select, uct
from etude.search.tree import Node, Statistics, Tree

if TYPE_CHECKING:
    from etude.search.environment import EnvironmentSearch

__all__ = ["Child", "EnvironmentSearch", "Limits", "Node", "Rule", "Search", "Statistics", "Tree", "grow", "puct", "select", "uct"]


def __getattr__(name: str) -> Any:
    if name != "EnvironmentSearch":
        raise AttributeError(f"module 'etude.search' has no attribute {name!r}")
    from etude.search.environment import EnvironmentSearch

    return EnvironmentSearch

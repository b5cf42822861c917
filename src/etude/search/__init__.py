"""Search over what can be done next: trees of states with statistics, rules that say where to go on, the loop that grows many trees at once, and environments in it.

A tree of *attempts*, which fork at tokens and are all trained on, is another thing: see `etude.rollouts.tree`.
"""

from etude.search.environment import EnvironmentSearch
from etude.search.mcts import Child, Limits, Search, grow
from etude.search.selection import Rule, puct, select, uct
from etude.search.tree import Node, Statistics, Tree

__all__ = ["Child", "EnvironmentSearch", "Limits", "Node", "Rule", "Search", "Statistics", "Tree", "grow", "puct", "select", "uct"]

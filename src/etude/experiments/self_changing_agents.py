"""Self-changing agents in a simulated world: which rule for choosing parents finds better ones, and what trials say of descendants.

One call is one search by the rules of `hgm`, at a budget of trials, in the world of `etude.search.worlds.Simulated`. What the agents really are is known there, so
that the agent that is taken in the end can be measured exactly.

Measures: `success`, the true success rate of the agent that is taken; `shortcut`, whether it came of one; `changes` and `trials`. Two correlations say what trials know
of descendants. `foresight`, as the paper has it, is over agents that were changed: what they were judged by as parents, at the end, with the true success of their best
descendant. It looks back, since the trials of a clade hold those of the descendants themselves. `ahead_clade` and `ahead_own` look ahead: the trials of a clade, or an
agent's own, after half the budget, with the best of the descendants that come later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from statistics import correlation
from typing import Any

from etude.errors import InputError
from etude.ledger import Budget
from etude.method import get_method
from etude.search.archive import Archive
from etude.search.bandits import clade_sums, most_trusted
from etude.search.growth import Guidance, Rule, Sampled, by_clade, by_own, work_on
from etude.search.tree import Node, Statistics, Tree
from etude.search.worlds import Simulated
from etude.settings import merged

SHUFFLED = "shuffled"


def self_changing_agents(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """One search. settings: options of `hgm`, `rule` being also `shuffled` (each agent's trials pooled under a parent drawn at random), and of the simulated world.

    Searches with the same seed draw the same random numbers, whatever their rule; where that is not wanted, `draws` is another number (default 0).
    budget: in evaluations. Raises InputError for anything else.
    """
    limit = Budget.parse(budget)
    if limit.unit != "evaluations":
        raise InputError(f"the budget is {budget}; a simulated search spends evaluations, as 600-evaluations")
    options = dict(settings)
    random = Random(f"self-changing agents {seed} {options.pop('draws', 0)}")
    world = Simulated(**{name: options.pop(name) for name in Simulated.OPTIONS if name in options})
    rule, guidance = _rule(seed, options)
    archive = Archive(world.root(), world.tasks)

    def spend(most: float) -> None:
        work_on(
            archive,
            world,
            rule,
            share=lambda: archive.evaluations / limit.amount,
            room=lambda: archive.evaluations < most,
            random=lambda purpose, number: random,
        )

    spend(limit.amount / 2)
    half_way = {"ahead_clade": by_clade(archive.tree), "ahead_own": by_own(archive.tree)}
    known = len(archive)
    spend(limit.amount)
    nodes = archive.tree.nodes
    success = [node.state["success"] for node in nodes]
    taken = most_trusted([node.own for node in nodes])
    return {
        "success": success[taken],
        "shortcut": float(nodes[taken].state["shortcut"]),
        "foresight": foresight(guidance(archive.tree), nodes, success),
        **{name: foresight(judged, nodes, success, later=known) for name, judged in half_way.items()},
        "changes": float(archive.expansions),
        "trials": float(archive.evaluations),
    }


def foresight(judged: Sequence[Statistics], nodes: Sequence[Node], success: Sequence[float], *, later: int = 0) -> float:
    """Correlation of the share of successes that nodes were judged by with the true success of their best descendant, over the judged nodes that have one.

    later: only descendants with this number or a higher one count. 0 where the correlation is not defined.
    """
    best = [-math.inf] * len(nodes)
    for node in reversed(nodes):
        if node.parent is not None:
            own = success[node.number] if node.number >= later else -math.inf
            best[node.parent] = max(best[node.parent], best[node.number], own)
    known = [n for n in range(len(judged)) if best[n] > -math.inf]
    x, y = [judged[n].value for n in known], [best[n] for n in known]
    return correlation(x, y) if len(set(x)) > 1 and len(set(y)) > 1 else 0.0


def by_strangers(seed: int) -> Guidance:
    """Clades that are no families: every agent is pooled under an earlier one drawn at random, the same one throughout."""

    def judged(tree: Tree) -> list[Statistics]:
        while len(parents) < len(tree):
            parents.append(random.randrange(len(parents)))
        return clade_sums([node.own for node in tree.nodes], parents)

    parents: list[int | None] = [None]
    random = Random(f"strangers {seed}")
    return judged


def _rule(seed: int, settings: Mapping[str, Any]) -> tuple[Rule, Guidance]:
    """The rule that settings ask for, and what it judges parents by."""
    strangers = settings.get("rule") == SHUFFLED
    config = merged(get_method("hgm").Config(), {name: value for name, value in settings.items() if not (strangers and name == "rule")})
    rule = config.growing()
    if strangers:
        rule = replace(rule, guidance=by_strangers(seed))
    return rule, rule.guidance if isinstance(rule, Sampled) else by_own

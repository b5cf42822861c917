"""What a pool of attempts does next: first attempts by different plans, mutations of their plans, and then attempts made out of others by each operator in turn."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Annotated, Literal

from annotated_types import Ge, Le

from etude.config import AtLeastOne, Count, Share
from etude.search.attempt_operators import MUTATE, PLAN, PLANS, Operator
from etude.search.attempt_pool import ROOT, AttemptPool, Birth
from etude.search.population import Pair, Parents, Single, open_sets, pairs, pick_one, pick_pair, with_guides

OVERHEAD = 2
"""Calls for guidance and a summary, besides the turns of an attempt."""


@dataclass
class PoolConfig:
    """How the pool of a task grows."""

    candidates: AtLeastOne = 10
    """Attempts at a task at most."""
    calls_per_task: Count = 0
    """Calls of models that a task may cost, for attempts and everything about them (0: no limit). No attempt is begun that would cost more than is left, if it is as long
    as the longest one so far."""
    plans: AtLeastOne = 5
    """First attempts at a task, which are made out of no others."""
    styles: Annotated[int, Ge(0), Le(len(PLANS))] = 5
    """Different plans that first attempts go round (0: they are told nothing)."""
    mutations: Count = 0
    """Attempts after these that follow the plan of one of them but for one step. Their guidance costs no call."""
    operators: tuple[Operator, ...] = ("revise", "crossover", "transfer", "restructure")
    """What makes the attempts after these, in turn: `revise`, `crossover`, `transfer`, `restructure`, `refine`. None: independent sampling."""
    generations: Count = 0
    """How often attempts that were made out of others may be made others out of (0: without limit)."""
    children: Count = 2
    """Attempts that may be made out of the same parents (0: no limit)."""
    pool: AtLeastOne = 10
    """Attempts that others are made out of at most."""
    elite: Count = 5
    """Places in the pool for the best. The others go to what is least like those."""
    most_alike: Share = 0.9
    """An attempt that is more like a better one in the pool than this leaves it (share of common words in order; 1: none leaves)."""
    revise_pick: Single = "low"
    """Which attempt is revised: that of the lowest score, of the highest, or any."""
    pair_pick: Pair = "apart"
    """Which two are crossed: good ones that are far `apart`, the `best`, the `newest`, or any."""
    guides: AtLeastOne = 2
    """Better attempts that a weak one is taught by."""
    patience: Count = 0
    """A task ends when so many attempts in a row did not raise its best score (0: it goes on)."""
    choose: Literal["score", "model"] = "score"
    """Which attempt is settled on, among those that keep all rules: that of the highest score, or what a model says in one more call."""


def ended(pool: AttemptPool, config: PoolConfig) -> str | None:
    """Why nothing more is tried; None while there is."""
    if len(pool) >= config.candidates:
        return f"{len(pool)} attempts"
    if affordable(pool, config) < 1:
        return f"{pool.calls} calls"
    if config.patience and len(pool) >= config.plans and pool.since_best() >= config.patience:
        return f"{config.patience} attempts without a better one"
    return None


def affordable(pool: AttemptPool, config: PoolConfig) -> int:
    """How many further attempts there are calls for, if each is as long as the longest so far. Before the first one nothing is known, and one is tried."""
    if not config.calls_per_task:
        return config.candidates
    if not len(pool):
        return 1
    turns = max(len(pool.attempt(number).written) for number in pool.numbers)
    overhead = OVERHEAD if config.operators and len(pool) >= config.plans + config.mutations else OVERHEAD - 1
    return (config.calls_per_task - (config.choose == "model") - pool.calls) // (turns + overhead)


def next_births(pool: AttemptPool, config: PoolConfig, random: Random) -> list[Birth]:
    """The attempts to be made next: all first ones at once, and then one at a time. Where an operator has nobody to work with, the next one does, and else another plan."""
    made, first = len(pool), len(pool) + 1
    if made < config.plans:
        count = min(config.plans - made, config.candidates - made, affordable(pool, config))
        return [Birth(first + i, PLAN) for i in range(count)]
    if made < config.plans + config.mutations:
        return [Birth(first, MUTATE, (random.choice(pool.members),))]
    evolved = pool.made_by(*config.operators)
    for turn in range(len(config.operators)):
        operator = config.operators[(evolved + turn) % len(config.operators)]
        parents = parents_for(operator, pool, config, random)
        if parents is not None:
            return [Birth(first, operator, parents)]
    return [Birth(first, PLAN)]


def parents_for(operator: Operator, pool: AttemptPool, config: PoolConfig, random: Random) -> Parents | None:
    """Who an operator works with, in the order in which it speaks of them; None where there is nobody, or where all have as many children as they may."""
    members = [number for number in pool.members if not config.generations or pool.generation(number) < config.generations]
    values, children = pool.values, pool.children
    if operator == "revise":
        return pick_one(open_sets([(number,) for number in members], children, config.children), values, config.revise_pick, random)
    if operator == "crossover":
        return pick_pair(open_sets(pairs(members), children, config.children), values, pool.alike(), config.pair_pick, random)
    if operator == "transfer":
        return pick_one(open_sets(with_guides(members, values, config.guides), children, config.children), values, "low", random)
    everybody = tuple(sorted(members, key=lambda number: (-values[number], number)))
    if operator == "refine":
        everybody = everybody[: 1 + config.guides]
    return next(iter(open_sets([everybody] if len(everybody) > 1 else [], children, config.children)), None)


def plan_of(pool: AttemptPool, birth: Birth, config: PoolConfig) -> str:
    """The plan that an attempt follows: a first one the next in turn, any other that of its first parent."""
    if birth.parents and birth.parents != ROOT:
        return pool.attempt(birth.parents[0]).plan
    earlier = pool.made_by(PLAN) + birth.number - len(pool) - 1
    return PLANS[earlier % config.styles] if config.styles else ""

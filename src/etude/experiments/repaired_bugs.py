"""Bugs that take three right decisions, with an agent and a judge of known skill: how many a search over the agent's actions repairs, and the same agent without a tree.

One call is the search of some bugs of `bug-hunt`, at a budget of environment steps for each, by the code that `etude search swe-search` runs. Measures: `success`, the share
of bugs whose patch that was taken is right; `any`, those with a right one among all finished attempts; `first`, what the search's own values would have taken, where further
opinions or a debate chose; `half`, what would have been taken at half of the steps; `steps`, `calls` (of all models), `attempts` and `duplicates`, for each bug.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from statistics import mean
from typing import Any

from etude.errors import InputError
from etude.ledger import Budget, Ledger
from etude.method import get_method
from etude.methods.search._action_options import make_search
from etude.models.sampling import SamplingParams
from etude.search.acting import ActionTree
from etude.search.discriminator import pick
from etude.search.scripts import BugHuntScript, scripted_model
from etude.settings import merged
from etude.tasks.builtin.bug_hunt import BugHunt

COMMON: Mapping[str, Any] = {"most_finished": 0, "most_children": 4, "most_depth": 8, "temperature": 1.0, "judge_temperature": 1.0, "tree_iterations": 1000}
"""Options of the method that are otherwise here when nothing is said: only the budget ends a search, and every judgement is a draw of its own."""


def repaired_bugs(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """One search. settings: options of `swe-search`, and `bugs` (100) and `times`, by which the budget is multiplied (1). Arms with the same seed have the same bugs.

    budget: environment steps for each bug. Raises InputError for anything else.
    """
    limit = Budget.parse(budget)
    if limit.unit != "env-steps":
        raise InputError(f"the budget is {budget}; these searches spend environment steps, as 40-env-steps")
    options = {**COMMON, **settings}
    bugs, steps = int(options.pop("bugs", 100)), round(limit.amount * options.pop("times", 1))
    config = merged(get_method("swe-search").Config(), {**options, "tree_steps": steps})
    task_set, script, ledger = BugHunt(), BugHuntScript(), Ledger()
    tasks = [task_set.train_task(seed, number) for number in range(bugs)]
    script.learn(tasks)
    model = scripted_model(script, noise=config.script.noise, obedience=config.script.obedience, seed=seed)
    search = make_search(config, model, model, SamplingParams(task_set.max_new_tokens, config.temperature), ledger, (seed,))
    trees = [ActionTree.plant(task_set, task, Random(f"repaired bugs {seed} {task.id}")) for task in tasks]
    half: dict[str, float] = {}
    while open_trees := [tree for tree in trees if not tree.ended]:
        search.round(open_trees)
        for tree in open_trees:
            if tree.steps >= steps / 2 and tree.task.id not in half:
                half[tree.task.id] = taken(tree, pick(tree)[0])
    ends = [list(tree.outcomes.values()) for tree in trees]
    return {
        "success": mean(taken(tree, tree.picked) for tree in trees),
        "any": mean(max(outcomes, default=0.0) for outcomes in ends),
        "first": mean(taken(tree, pick(tree)[0]) for tree in trees),
        "half": mean(half.get(tree.task.id, taken(tree, tree.picked)) for tree in trees),
        "steps": ledger.environment_steps / bugs,
        "calls": ledger.calls / bugs,
        "attempts": mean(len(outcomes) for outcomes in ends),
        "duplicates": mean(sum(node.state.get("duplicate", False) for node in tree.tree.nodes) for tree in trees),
    }


def taken(tree: ActionTree, number: int | None) -> float:
    """The verdict on an attempt that has ended; 0 for anything else."""
    return tree.outcomes.get(number, 0.0) if number is not None else 0.0

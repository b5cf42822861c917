"""The built-in task families: generated text tasks that a model of one million parameters can practise on. No torch here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from etude.tasks.base import TaskSet

_FAMILIES = {
    "arithmetic": "arithmetic:Arithmetic",
    "countdown": "countdown:Countdown",
    "lists": "lists:Lists",
    "strings": "strings:Strings",
    "compare": "compare:Compare",
    "word-problems": "word_problems:WordProblems",
    "modular": "modular:Modular",
    "check-and-fix": "check_and_fix:CheckAndFix",
    "calculator": "calculator:Calculator",
    "translation": "translation:Translation",
    "translation-judging": "translation_judging:TranslationJudging",
    "commands": "commands:Commands",
    "rating": "rating:Rating",
    "two-views": "two_views:TwoViews",
    "max5": "max5:Max5",
    "max5-flaws": "max5_flaws:Max5Flaws",
    "can-and-cannot": "can_and_cannot:CanAndCannot",
    "keyed-shift": "keyed_shift:KeyedShift",
    "small-programs": "small_programs:SmallProgramTasks",
    "subset-target": "subset_target:SubsetTarget",
    "strategies": "strategies:StrategyWorld",
    "column-sums": "column_sums:ColumnSums",
    "crafting": "crafting:Crafting",
    "repair": "repair:Repair",
    "register-chain": "register_chain:RegisterChain",
    "bug-hunt": "bug_hunt:BugHunt",
}


def builtin_task_sets() -> dict[str, Callable[..., TaskSet]]:
    """Name -> factory of each built-in family. A factory takes the family's keyword arguments (its difficulty); its module is imported when it is called."""
    return {name: _factory(place) for name, place in _FAMILIES.items()}


def _factory(place: str) -> Callable[..., TaskSet]:
    module, class_name = place.split(":")

    def make(**options: Any) -> TaskSet:
        return getattr(importlib.import_module(f"{__name__}.{module}"), class_name)(**options)

    make.__name__ = class_name
    return make


__all__ = ["builtin_task_sets"]

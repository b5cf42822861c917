"""What an agent at a state is told of what was tried there before: hindsight, as words in the prompt of another attempt (SWE-Search, arXiv:2410.20285)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from etude.search.best_first import value_of
from etude.search.tree import Node
from etude.search.value_agent import shortened

Say = Literal["off", "explanation", "feedback"]
"""What is told of another branch besides its action and value: nothing at all is told (`off`), why it was valued so, or what the judge would do instead."""
From = Literal["worst", "latest", "all"]
"""Which of the children are told of."""
HEAD = "[From a separate branch, which started here and changed nothing here]"


def hindsight(children: Sequence[Node], *, say: Say = "feedback", which: From = "all", below: float = 100.0, longest: int = 600) -> str:
    """Words about the children of a node for who is asked for another one; empty where there is nothing to tell.

    which: the child of the lowest value, the latest one, or all of them. below: only children of at most this value are told of. longest: characters of an action or a text.
    Duplicates, and children that no judge could value, are left out.
    """
    tried = [(value, child) for child in children if not child.state.get("duplicate") and (value := value_of(child)) is not None and value <= below]
    if say == "off" or not tried:
        return ""
    if which != "all":
        tried = [min(tried, key=lambda pair: pair[0]) if which == "worst" else tried[-1]]
    told = []
    for value, child in tried:
        lines = [HEAD, f"tried: {shortened(child.state['action'], longest)}", f"value from -100 to 100: {value:.0f}"]
        words = child.state.get("feedback" if say == "feedback" else "explanation") or child.state.get("explanation") or ""
        told.append("\n".join([*lines, *([f"{'advice' if say == 'feedback' else 'why'}: {shortened(words, longest)}"] if words else [])]))
    return "\n\n".join([*told, "Take a different action: the same one would lead to where that branch is."])

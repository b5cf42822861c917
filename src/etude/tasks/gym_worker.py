"""The process that reasoning-gym runs in. It reads one JSON request a line and writes one JSON answer a line.

A process of its own, for three reasons: some data sets draw from Python sets, so that their questions depend on the process's hash seed, which is fixed here;
some scorers can be kept busy for ever by what a model writes, and a process can be ended; some print. Nothing of Étude is imported.

Some scorers hand the answer to `eval` or to SymPy's `parse_expr`, which run code. To those goes only an answer that is a plain literal, or bounded arithmetic;
any other scores 0.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any

BLOCK = 1024
"""Items per data set object; item i of an object with seed s is drawn with seed s + i."""
LONGEST_ANSWER = 20_000
MOST_MEMORY = 8 * 2**30
"""Bytes of address space, so that an answer that makes a scorer build something huge fails instead of filling the machine."""

# What may be called in an answer that SymPy evaluates: its elementary functions.
_FUNCTIONS = {"sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "log", "ln", "sqrt", "Abs", "abs", "erf", "Ei"}
_NODES = (ast.Expression, ast.Load, ast.UnaryOp, ast.UAdd, ast.USub, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)
_MOST_NODES = 400
_LARGEST_EXPONENT = 4096
_LARGEST_NUMBER = 10**12


def harmless_literal(answer: str) -> bool:
    """True when `eval` of the answer can do nothing: it is a literal (numbers, strings, lists of them), or no Python expression at all."""
    try:
        ast.parse(answer.strip(), mode="eval")
    except (SyntaxError, ValueError):
        return True
    except (RecursionError, MemoryError):
        return False
    try:
        ast.literal_eval(answer.strip())
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return False
    return True


def harmless_expression(answer: str) -> bool:
    """True when SymPy's `parse_expr` of the answer can neither run code nor build enormous numbers.

    Allowed are numbers, names without underscores, + - * /, powers that are not nested and whose exponent is small, and calls of elementary functions. Strings
    are not: SymPy would evaluate what is in them.
    """
    try:
        tree = ast.parse(answer.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    nodes = list(ast.walk(tree))
    return len(nodes) <= _MOST_NODES and all(_allowed(node) for node in nodes)


def _allowed(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=bool()):
            return False
        case ast.Constant(value=int() | float() as number):
            return abs(number) <= _LARGEST_NUMBER
        case ast.Name(id=name):
            return "_" not in name
        case ast.Call(func=ast.Name(id=name), args=[_], keywords=[]):
            return name in _FUNCTIONS
        case ast.BinOp(op=ast.Pow(), left=base, right=exponent):
            return _is_small(exponent) and not any(isinstance(n, ast.Pow) for n in ast.walk(base))
    return isinstance(node, _NODES)


def _is_small(exponent: ast.AST) -> bool:
    """An exponent without powers and calls, whose numbers multiply to no more than the limit."""
    size = 1.0
    for node in ast.walk(exponent):
        if isinstance(node, (ast.Pow, ast.Call)):
            return False
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            size *= max(1.0, min(abs(node.value), 1e9))
    return size <= _LARGEST_EXPONENT


def evaluator(scorer: Any) -> Callable[[str], bool] | None:
    """The test that an answer must pass before a scoring method may see it, or None for scorers that do not evaluate text."""
    names = set(scorer.__code__.co_names)
    own_parser = getattr(scorer.__globals__.get("parse_expr"), "__module__", "sympy").startswith("reasoning_gym")
    if "sympify" in names or ("parse_expr" in names and not own_parser):
        return harmless_expression
    return harmless_literal if names & {"eval", "exec"} else None


class Worker:
    """Answers requests about one or several data sets."""

    def __init__(self) -> None:
        self._configs: dict[str, dict[str, Any]] = {}

    def names(self) -> list[str]:
        """Data sets that stand alone; `composite` only mixes others."""
        from reasoning_gym.factory import DATASETS

        return sorted(set(DATASETS) - {"composite"})

    def options(self, name: str) -> list[str]:
        """Settings of a data set."""
        from reasoning_gym.factory import DATASETS

        return sorted(f.name for f in dataclasses.fields(DATASETS[name][1]) if f.name not in ("seed", "size"))

    def open(self, name: str, config: dict[str, Any]) -> bool:
        """Set a data set up; wrong settings raise here."""
        self._configs[name] = config
        self._dataset.cache_clear()
        self._dataset(name, 0)
        return True

    def item(self, name: str, seed: int, index: int) -> dict[str, str | None]:
        """Question and reference answer (None where only the scorer knows)."""
        entry = self._entry(name, seed, index)
        return {"question": entry["question"], "answer": entry["answer"] if isinstance(entry["answer"], str) else None}

    def score(self, name: str, seed: int, index: int, answer: str) -> float:
        """The data set's own score of an answer, in [0, 1]. An answer that its scorer cannot read scores 0."""
        entry = self._entry(name, seed, index)
        dataset = self._dataset(name, seed)
        harmless = evaluator(type(dataset).score_answer)
        if len(answer) > LONGEST_ANSWER or (harmless is not None and answer != entry["answer"] and not harmless(answer)):
            return 0.0
        try:
            return min(1.0, max(0.0, float(dataset.score_answer(answer, entry))))
        except Exception:
            return 0.0

    @functools.lru_cache(maxsize=16)  # noqa: B019  (one worker a process)
    def _dataset(self, name: str, seed: int) -> Any:
        import reasoning_gym

        return reasoning_gym.create_dataset(name, **{**self._configs[name], "seed": seed, "size": BLOCK})

    @functools.lru_cache(maxsize=4096)  # noqa: B019  (one worker a process)
    def _entry(self, name: str, seed: int, index: int) -> dict[str, Any]:
        dataset = self._dataset(name, seed)
        dataset.size = BLOCK  # some data sets shrink themselves when an item cannot be drawn
        return dataset[index]


def serve() -> None:
    """Answer requests until standard input ends."""
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what data sets print must not mix with the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which closes standard input when it is done
    _limit_memory()
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        if hasattr(signal, "setitimer"):
            # The default action of the alarm ends the process even inside a long arithmetic operation; the other side starts a new one.
            signal.setitimer(signal.ITIMER_REAL, request["seconds"])
        try:
            answer = {"value": getattr(worker, request["do"])(**request["with"])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or hard > MOST_MEMORY:
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, hard))


if __name__ == "__main__":
    serve()

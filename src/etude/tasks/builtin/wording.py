"""Another way to put the same sum: operands re-ordered, and operators as symbols or in words. The value stays what it was."""

from __future__ import annotations

import ast

from etude.tasks.builtin.expressions import parse

_WORDS = {"+": " plus ", "-": " minus ", "*": " times "}
_SYMBOLS = {"+": "+", "-": "-", "*": "*"}


def reordered(expression: str, *, words: bool = False) -> str:
    """An expression of whole numbers, + - * and brackets with its operands in another order: '7-2+5*3' -> '3*5+7-2', or in words '3 times 5 plus 7 minus 2'.

    Terms that are added come first and then those taken off, each kind in the reverse of their order, and so do the factors of a product. No partial sum falls below
    zero unless the whole does. In words, a bracket around two numbers at the very end is 'the sum of 2 and 7' or 'the difference of 9 and 4'; others stay brackets.
    Raises ValueError for what is no such expression.
    """
    return _sum(parse(expression), _WORDS if words else _SYMBOLS)


def _sum(node: ast.expr, signs: dict[str, str]) -> str:
    added, taken = _terms(node, positive=True)
    # A bracket that is spelled out does not say where it closes: only the very end of an expression will do.
    spell = signs is _WORDS and len(added) + len(taken) == 1
    text = signs["+"].join(_product(term, signs, spell=spell) for term in reversed(added))
    return text + "".join(signs["-"] + _product(term, signs, spell=spell) for term in reversed(taken))


def _terms(node: ast.expr, *, positive: bool) -> tuple[list[ast.expr], list[ast.expr]]:
    """The terms of a sum that are added, and those that are taken off, from left to right."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        left = _terms(node.left, positive=positive)
        right = _terms(node.right, positive=positive == isinstance(node.op, ast.Add))
        return left[0] + right[0], left[1] + right[1]
    return ([node], []) if positive else ([], [node])


def _product(node: ast.expr, signs: dict[str, str], *, spell: bool) -> str:
    factors = list(reversed(_factors(node)))
    return signs["*"].join(_factor(f, signs, spell=spell and f is factors[-1]) for f in factors)


def _factors(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return _factors(node.left) + _factors(node.right)
    return [node]


def _factor(node: ast.expr, signs: dict[str, str], *, spell: bool) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return str(node.value)
    if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub)):
        raise ValueError(f"only whole numbers, + - * and brackets are re-ordered: {ast.unparse(node)!r}")
    added, taken = _terms(node, positive=True)
    if spell and len(added) + len(taken) == 2 and all(isinstance(term, ast.Constant) for term in (*added, *taken)):
        first, second = (added[1], added[0]) if not taken else (added[0], taken[0])
        return f"the {'difference' if taken else 'sum'} of {ast.unparse(first)} and {ast.unparse(second)}"
    return f"({_sum(node, signs)})"

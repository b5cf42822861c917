"""Arithmetic expressions as text: safe evaluation, written work, random problems. Nothing is ever passed to `eval`."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from random import Random

LONGEST_EXPRESSION = 200
"""Characters of an expression that are looked at: a bound on what model output can cost."""

_CHARACTERS = re.compile(r"[0-9.+\-*/() ]+")
_SYMBOLS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


def apply(left: Fraction, symbol: str, right: Fraction) -> Fraction:
    """One operation, exactly. Raises ValueError for a division by zero or an unknown symbol."""
    match symbol:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            if right == 0:
                raise ValueError("division by zero")
            return left / right
    raise ValueError(f"unknown operation {symbol!r}")


@lru_cache(maxsize=256)
def parse(expression: str) -> ast.expr:
    """The syntax tree of an expression of numbers, + - * / and brackets; not to be changed, it is cached.

    Raises ValueError for anything else, and for more than `LONGEST_EXPRESSION` characters.
    """
    if len(expression) > LONGEST_EXPRESSION:
        raise ValueError(f"longer than {LONGEST_EXPRESSION} characters")
    # Nothing else reaches Python's parser: names, calls, strings, exponents and the like are refused here.
    if not _CHARACTERS.fullmatch(expression):
        raise ValueError(f"not an expression: {expression!r}")
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"not an expression: {expression!r}") from error
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant | ast.BinOp | ast.UnaryOp) and type(node) not in (*_SYMBOLS, ast.USub, ast.UAdd):
            raise ValueError(f"not allowed in an expression: {type(node).__name__}")
    return tree


def evaluate(expression: str) -> Fraction:
    """The exact value. Raises ValueError where `parse` does, and for a division by zero."""
    return _value(parse(expression))


def numbers_in(expression: str) -> list[Fraction]:
    """The numbers that an expression combines, in no particular order. Raises ValueError where `parse` does, and for signs: they are no way to combine numbers."""
    nodes = list(ast.walk(parse(expression)))
    if any(isinstance(n, ast.UnaryOp) for n in nodes):
        raise ValueError(f"a sign stands before a number or bracket: {expression!r}")
    return [_value(n) for n in nodes if isinstance(n, ast.Constant)]


def work_through(expression: str, compute: Callable[[int, str, int], int]) -> tuple[list[str], int]:
    """Reduce an expression of whole numbers, operation by operation, innermost first, one to a line: '9*8+19' -> ['9*8=72', '72+19=91'], 91.

    `compute(left, symbol, right)` gives each result, right or wrong; later lines go on from it.
    """
    lines: list[str] = []

    def reduce(node: ast.expr) -> int:
        if isinstance(node, ast.BinOp):
            left, right, symbol = reduce(node.left), reduce(node.right), _SYMBOLS[type(node.op)]
            result = compute(left, symbol, right)
            lines.append(f"{left}{symbol}{right}={result}")
            return result
        if not isinstance(node, ast.Constant) or not isinstance(node.value, int):
            raise ValueError(f"written work is on whole numbers: {expression!r}")
        return node.value

    value = reduce(parse(expression))
    return lines, value


def exact(left: int, symbol: str, right: int) -> int:
    """The correct result of + - or * on whole numbers. The `compute` of a faultless worker."""
    match symbol:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
    raise ValueError(f"written work has no operation {symbol!r}")


def intermediate_values(expression: str) -> list[int]:
    """The result of every operation, innermost first."""
    values: list[int] = []

    def compute(left: int, symbol: str, right: int) -> int:
        values.append(exact(left, symbol, right))
        return values[-1]

    work_through(expression, compute)
    return values


def random_expression(random: Random, *, terms: int, high: int, factor_high: int, limit: int, operations: Sequence[str] = ("+", "-", "*")) -> str:
    """A random expression of `terms` numbers without brackets, all of whose intermediate values lie in [0, limit].

    Numbers lie in [1, high]; those beside a '*' in [2, factor_high]. No two products touch, so that work stays short.
    """
    for candidate in _candidates(random, terms, high, factor_high, operations):
        if all(0 <= v <= limit for v in intermediate_values(candidate)):
            return candidate
    raise ValueError(f"no expression of {terms} terms up to {high} stays within {limit}")


def _candidates(random: Random, terms: int, high: int, factor_high: int, operations: Sequence[str]) -> Iterator[str]:
    for _ in range(10_000):
        symbols: list[str] = []
        while len(symbols) < terms - 1:
            symbol = random.choice(operations)
            if not (symbol == "*" and symbols and symbols[-1] == "*"):
                symbols.append(symbol)
        text = ""
        for i in range(terms):
            is_factor = "*" in (symbols[i - 1] if i else "", symbols[i] if i < len(symbols) else "")
            number = random.randint(2, factor_high) if is_factor else random.randint(1, high)
            text += f"{symbols[i - 1] if i else ''}{number}"
        yield text


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.BinOp):
        return apply(_value(node.left), _SYMBOLS[type(node.op)], _value(node.right))
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    assert isinstance(node, ast.Constant)
    try:
        # Through the shortest text of a float, so that 0.1 is one tenth.
        return Fraction(str(node.value))
    except ValueError as error:
        raise ValueError(f"not a number: {node.value!r}") from error

"""Single faults in Python source, as a person might make them: found in the syntax tree, written as one small replacement in the text.

Everything besides the fault stays as it was, comments and layout included, so that the patch that mends it is as small as the fault.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

COMPARISONS = {"<": ("<=", ">"), "<=": ("<", ">="), ">": (">=", "<"), ">=": (">", "<="), "==": ("!=",), "!=": ("==",)}
WORDS = {"is": "is not", "is not": "is", "in": "not in", "not in": "in"}
ARITHMETIC = {"+": "-", "-": "+", "*": "+", "/": "*", "//": "/", "%": "//", "**": "*", "&": "|", "|": "&", "<<": ">>", ">>": "<<"}
_OPERATOR = re.compile(r"\*\*|//|<<|>>|[-+*/%&|]")
_COMPARISON = re.compile(r"<=|>=|==|!=|<|>|\bis\s+not\b|\bnot\s+in\b|\bis\b|\bin\b")
KINDS = ("comparison", "arithmetic", "boolean", "off-by-one", "constant", "dropped-not", "swapped-arguments", "default", "early-return", "variable")


@dataclass(frozen=True, slots=True)
class Fault:
    """Bytes from `start` to `end` of a source are replaced. function: the innermost function that it is in, with its class; line: from 1."""

    kind: str
    start: int
    end: int
    replacement: str
    function: str
    line: int

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.replacement.encode() + source[self.end :]


def faults(source: bytes) -> list[Fault]:
    """All single faults that can be made in the functions of a module, in the order of the text; none for text that is no Python. Each gives a text that parses."""
    try:
        source.decode()
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    found = [fault for function, name in _functions(tree) for fault in _Finder(source, function, name).all()]
    return [fault for fault in dict.fromkeys(sorted(found, key=lambda f: (f.start, f.end, f.replacement))) if _parses(fault.applied(source))]


def _parses(source: bytes) -> bool:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError):
        return False
    return True


Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(tree: ast.AST, outer: str = "") -> Iterator[tuple[Function, str]]:
    """All functions with their qualified names."""
    for child in ast.iter_child_nodes(tree):
        name = outer
        if isinstance(child, Function | ast.ClassDef):
            name = f"{outer}.{child.name}" if outer else child.name
        if isinstance(child, Function):
            yield child, name
        yield from _functions(child, name)


class _Finder:
    """Faults of one function, those of functions inside it left out."""

    def __init__(self, source: bytes, function: Function, name: str) -> None:
        self.source, self.function, self.name = source, function, name
        self.lines = [0]
        for line in source.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))

    def all(self) -> Iterator[Fault]:
        for default in [*self.function.args.defaults, *self.function.args.kw_defaults]:
            if isinstance(default, ast.Constant):
                yield from self.constants(default, "default")
        local = self.local_names()
        for node in self.inside(self.function.body):
            if isinstance(node, ast.Compare):
                yield from self.comparisons(node)
            elif isinstance(node, ast.BinOp):
                yield from self.between(node.left, node.right, _OPERATOR, {sign: (other,) for sign, other in ARITHMETIC.items()}, "arithmetic")
            elif isinstance(node, ast.BoolOp):
                other = {"and": ("or",), "or": ("and",)}
                yield from self.between(node.values[0], node.values[1], re.compile(r"\band\b|\bor\b"), other, "boolean")
            elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
                bare = isinstance(node.operand, ast.Name | ast.Call | ast.Attribute | ast.Subscript)
                yield self.fault("dropped-not", *self.span(node), self.text(node.operand) if bare else f"({self.text(node.operand)})")
            elif isinstance(node, ast.Constant):
                yield from self.constants(node, "off-by-one" if type(node.value) is int else "constant")
            elif isinstance(node, ast.Call) and len(node.args) >= 2 and not any(isinstance(a, ast.Starred) for a in node.args[:2]):
                first, second = node.args[:2]
                if self.text(first) != self.text(second):
                    gap = self.source[self.span(first)[1] : self.span(second)[0]].decode()
                    yield self.fault("swapped-arguments", self.span(first)[0], self.span(second)[1], f"{self.text(second)}{gap}{self.text(first)}")
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in local:
                # One fault for each place: the next name in the alphabet, going round, of those that have a value by then.
                others = sorted(name for name, since in local.items() if since < node.lineno and name != node.id)
                if others:
                    later = next((name for name in others if name > node.id), others[0])
                    yield self.fault("variable", *self.span(node), later)
        yield from self.early_returns(self.function.body)

    def comparisons(self, node: ast.Compare) -> Iterator[Fault]:
        changes = {**COMPARISONS, **{word: (other,) for word, other in WORDS.items()}}
        operands = [node.left, *node.comparators]
        for left, right in pairwise(operands):
            yield from self.between(left, right, _COMPARISON, changes, "comparison")

    def between(self, left: ast.expr, right: ast.expr, pattern: re.Pattern[str], changes: dict[str, tuple[str, ...]], kind: str) -> Iterator[Fault]:
        """Other operators in place of the one that stands between two operands; none where a comment stands there too."""
        start = self.span(left)[1]
        gap = self.source[start : self.span(right)[0]].decode()
        operators = list(pattern.finditer(gap))
        if len(operators) == 1 and "#" not in gap:
            for other in changes.get(" ".join(operators[0][0].split()), ()):
                yield self.fault(kind, start + operators[0].start(), start + operators[0].end(), other)

    def constants(self, node: ast.Constant, kind: str) -> Iterator[Fault]:
        value = node.value
        others: list[object] = []
        if isinstance(value, bool):
            others = [not value]
        elif isinstance(value, int):
            others = [value + 1, *([value - 1] if value > 0 else [])]
        elif isinstance(value, float):
            others = [value * 2 + 1]
        elif isinstance(value, str) and len(value) == 1 and value.isprintable():
            others = [""]
        start, end = self.span(node)
        # Parts of joined or formatted strings have no text of their own.
        if others and self.source[start:end] and self.literal(start, end) == value:
            for other in others:
                yield self.fault(kind, start, end, repr(other))

    def literal(self, start: int, end: int) -> object:
        try:
            return ast.literal_eval(self.source[start:end].decode())
        except (SyntaxError, ValueError):
            return None

    def early_returns(self, body: list[ast.stmt]) -> Iterator[Fault]:
        """Branches that do nothing but return, taken out, where other statements stand after them."""
        for statement, following in pairwise(body):
            if isinstance(statement, ast.If) and not statement.orelse and len(statement.body) == 1 and isinstance(statement.body[0], ast.Return):
                start, end = self.lines[statement.lineno - 1], self.lines[following.lineno - 1]
                # Decorators and comments before the next statement stay.
                end = min(end, self.lines[statement.end_lineno or statement.lineno])
                yield self.fault("early-return", start, end, "")
        for statement in body:
            for name in ("body", "orelse", "finalbody"):
                inner = getattr(statement, name, None)
                if isinstance(inner, list) and not isinstance(statement, Function | ast.ClassDef):
                    yield from self.early_returns(inner)

    def inside(self, statements: list[ast.stmt]) -> Iterator[ast.AST]:
        """The nodes of some statements, without documentation, annotations and inner functions."""
        waiting: list[ast.AST] = [s for s in statements if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
        while waiting:
            node = waiting.pop(0)
            if isinstance(node, Function | ast.ClassDef | ast.JoinedStr):
                continue
            yield node
            skipped = {id(node.annotation)} if isinstance(node, ast.AnnAssign) else set()
            waiting += [child for child in ast.iter_child_nodes(node) if id(child) not in skipped]

    def local_names(self) -> dict[str, int]:
        """The function's parameters, and names that it assigns, with the line on which they first are; without self, cls and what only lives inside an expression."""
        arguments = self.function.args
        names = dict.fromkeys((a.arg for a in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]), 0)
        passing = {id(inner) for node in self.inside(self.function.body) if isinstance(node, ast.comprehension) for inner in ast.walk(node.target)}
        for node in self.inside(self.function.body):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and id(node) not in passing:
                names[node.id] = min(node.lineno, names.get(node.id, node.lineno))
        return {name: since for name, since in names.items() if name not in ("self", "cls")}

    def fault(self, kind: str, start: int, end: int, replacement: str) -> Fault:
        return Fault(kind, start, end, replacement, self.name, self.source.count(b"\n", 0, start) + 1)

    def span(self, node: ast.AST) -> tuple[int, int]:
        """The bytes that a node takes; columns of the syntax tree count bytes."""
        assert isinstance(node, ast.expr | ast.stmt), "only these have a place"
        return self.lines[node.lineno - 1] + node.col_offset, self.lines[(node.end_lineno or 1) - 1] + (node.end_col_offset or 0)

    def text(self, node: ast.AST) -> str:
        start, end = self.span(node)
        return self.source[start:end].decode()

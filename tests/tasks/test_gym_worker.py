from __future__ import annotations

import pytest

pytest.importorskip("reasoning_gym")

import ast

import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from reasoning_gym.factory import DATASETS

from etude.tasks.gym_worker import Worker, evaluator, harmless_expression, harmless_literal

HOSTILE = [
    "__import__('os').system('true')",
    "print('x')",
    "open('/tmp/x', 'w')",
    "exit()",
    "().__class__.__bases__[0].__subclasses__()",
    "[c for c in ().__class__.__base__.__subclasses__()]",
    "(lambda: 1)()",
    "f'{open}'",
    "sin('__import__(\"os\")')",
    "getattr(1, 'real')",
    "9**9**9**9",
    "(9**64)**(64**9)",
    "9**(64*64*64*64)",
    "factorial(10**8)",
    "99999999!",
    "sin.__class__",
    "x[0]",
    "1 if x else 2",
    "(x := 3)",
]


@pytest.mark.parametrize("answer", HOSTILE)
def test_hostile_answers_reach_no_evaluating_scorer(answer):
    assert not harmless_expression(answer)


@pytest.mark.parametrize("answer", ["'abc'", "['a']", "(1, 2)", "{1: 2}", "b'x'", "True", "..."])
def test_sympy_gets_no_strings_and_no_containers(answer):
    assert not harmless_expression(answer)


@pytest.mark.parametrize("answer", ["88*46/23 + 23", "-3*x**2/2 + C", "(x+1)**3", "sqrt(2)*exp(-x)*sin(3*x)", "2*x**(1/2) - log(x)", " 24 ", "x**(-2)"])
def test_ordinary_expressions_pass(answer):
    assert harmless_expression(answer)


@pytest.mark.parametrize("answer", [a for a in HOSTILE if "!" not in a and a not in ("9**9**9**9",)])
def test_python_gets_only_literals(answer):
    assert not harmless_literal(answer)
    assert not harmless_literal("9**9**9**9")


@pytest.mark.parametrize("answer", ["[[0, 1], [2, 0]]", "['a', 'b']", "3", "_ Q _ _\nQ _ _ _", "3 1 2 4", "so it goes (", "\x00"])
def test_literals_and_what_is_no_expression_pass(answer):
    assert harmless_literal(answer)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_what_passes_as_a_literal_is_one_or_no_expression(text):
    if harmless_literal(text):
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError):
            return
        assert not any(isinstance(node, (ast.Call, ast.Attribute, ast.Name, ast.Pow)) for node in ast.walk(tree))


numbers = st.integers(0, 99).map(str) | st.just("x")
expressions = st.recursive(numbers, lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda p: f"({''.join(p)})"), max_leaves=12)


@settings(deadline=None)
@given(expressions)
def test_what_passes_as_an_expression_sympy_reads(text):
    assert harmless_expression(text)
    assert isinstance(sympy.parse_expr(text), sympy.Basic)


def test_every_scorer_that_evaluates_is_known_by_its_code():
    found = {name: evaluator(cls.score_answer) for name, (cls, _) in DATASETS.items()}
    assert {name for name, test in found.items() if test is harmless_expression} == {
        "countdown",
        "intermediate_integration",
        "polynomial_multiplication",
        "puzzle24",
        "simple_integration",
    }
    assert {name for name, test in found.items() if test is harmless_literal} == {
        "binary_matrix",
        "n_queens",
        "number_sorting",
        "spiral_matrix",
        "string_insertion",
    }


@pytest.mark.parametrize("name", [n for n, (cls, _) in sorted(DATASETS.items()) if evaluator(cls.score_answer) is not None])
def test_evaluating_data_sets_still_score_their_own_answers_and_run_nothing(name, tmp_path):
    worker = Worker()
    worker.open(name, {})
    mark = tmp_path / "mark"
    for index in range(3):
        answer = worker.item(name, 0, index)["answer"]
        assert answer is not None
        assert worker.score(name, 0, index, answer) == 1.0
        assert worker.score(name, 0, index, f" {answer} ") >= 0.0
        assert worker.score(name, 0, index, f"__import__('pathlib').Path({str(mark)!r}).touch()") == 0.0
    assert not mark.exists()


def test_another_right_expression_scores_too():
    worker = Worker()
    worker.open("simple_integration", {})
    answer = worker.item("simple_integration", 0, 0)["answer"]
    assert worker.score("simple_integration", 0, 0, f"({answer})*2/2 + 7") == 1.0


def test_an_answer_that_the_scorer_cannot_read_scores_0():
    worker = Worker()
    worker.open("prime_factorization", {})
    assert worker.score("prime_factorization", 0, 0, "no\n<idea>") == 0.0

"""Arithmetic on text: exact, and deaf to anything but arithmetic."""

from __future__ import annotations

from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.tasks.builtin.expressions import evaluate, exact, intermediate_values, numbers_in, random_expression, work_through


@pytest.mark.parametrize(
    ("text", "value"), [("9*8+19", 91), ("2-3-4", -5), ("(3+4)*2", 14), ("7/2", Fraction(7, 2)), ("-3+5", 2), ("0.1+0.2", Fraction(3, 10)), (" 1 + 1 ", 2)]
)
def test_evaluate(text: str, value: Fraction) -> None:
    assert evaluate(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1+",
        "2**9**9",
        "7//2",
        "1/0",
        "__import__('os')",
        "True",
        "'a'*9",
        "1e999",
        "1if 1else 2",
        "(1,2)",
        "1,2",
        "3(4)",
        "07",
        "1.2.3",
        "[1]",
        "1" + "+1" * 200,
        "\x00",
    ],
)
def test_whatever_is_no_arithmetic_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a|longer than|division by zero|unknown"):
        evaluate(text)


@given(st.text(alphabet="0123456789.+-*/() ", max_size=30))
def test_any_text_of_its_characters_gives_a_value_or_a_value_error(text: str) -> None:
    try:
        value = evaluate(text)
    except ValueError:
        return
    assert isinstance(value, Fraction)


def test_numbers_in_an_expression() -> None:
    assert sorted(numbers_in("(3+4)*2-3")) == [2, 3, 3, 4]
    with pytest.raises(ValueError, match="sign"):
        numbers_in("2--3")


def test_work_goes_innermost_first_and_on_from_what_was_computed() -> None:
    assert work_through("19+9*8", exact) == (["9*8=72", "19+72=91"], 91)
    assert work_through("9*8+19", lambda left, symbol, right: exact(left, symbol, right) + 1) == (["9*8=73", "73+19=93"], 93)


@given(st.integers(0, 10**6), st.integers(2, 5))
def test_random_expressions_keep_their_bounds(seed: int, terms: int) -> None:
    expression = random_expression(Random(seed), terms=terms, high=30, factor_high=9, limit=99)
    numbers = numbers_in(expression)
    assert len(numbers) == terms
    assert max(numbers) <= 30
    values = intermediate_values(expression)
    assert all(0 <= v <= 99 for v in values)
    assert values[-1] == evaluate(expression)

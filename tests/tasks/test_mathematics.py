from __future__ import annotations

import threading

import pytest

from etude.tasks.mathematics import LONGEST, is_mathematical, same_mathematics


@pytest.mark.parametrize("answer", ["\\frac{1}{2}", "$5$", "x^2", "3/4", "(1, 2)", "[0, 1)", "{1,2}", "sqrt(2)", "2*pi"])
def test_written_as_mathematics(answer):
    assert is_mathematical(answer)


@pytest.mark.parametrize("answer", ["5", "-1,250.5", "Paris", "yes", "12:30", "a_b", "3 apples", ""])
def test_plain_numbers_and_words(answer):
    assert not is_mathematical(answer)


@pytest.mark.parametrize(
    ("reference", "given", "same"),
    [
        ("\\frac{1}{2}", "0.5", True),
        ("\\frac{1}{2}", "\\frac{2}{4}", True),
        ("\\frac{1}{3}", "0.33", False),
        ("\\sqrt{8}", "2\\sqrt{2}", True),
        ("x^2+2x+1", "(x+1)^2", True),
        ("x^2+2x+1", "(x-1)^2", False),
        ("\\{1,2\\}", "\\{2,1\\}", True),
        ("[0,1)", "[0,1]", False),
        ("10^{3}", "1000", True),
        ("50\\%", "0.5", True),
        ("1/2", "no idea", False),
        ("1/2", "", False),
    ],
)
def test_equal_as_mathematics(reference, given, same):
    assert same_mathematics(reference, given) is same


def test_hostile_answers_are_different_and_end(recwarn):
    assert not same_mathematics("\\frac{1}{2}", "9^{9^{9^{9}}}")
    assert not same_mathematics("\\frac{1}{2}", "(" * LONGEST + "1")
    assert not same_mathematics("\\frac{1}{2}", "\\frac" * 100)


def test_it_works_outside_the_main_thread():
    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(same_mathematics("\\frac{3}{8}", "0.375")))
    thread.start()
    thread.join()
    assert seen == [True]

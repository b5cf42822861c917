"""Metrics of a translation from outside the policy: chrF and BLEU against a reference (sacrebleu), or a function of the user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from etude.errors import InputError, MissingExtra
from etude.tasks.user_code import describe, describe_value, finite_number, load_object, source_file, where

REFERENCE_METRICS = ("chrf", "bleu")

TextMetric = Callable[[str, str, "str | None"], float]
"""(source, candidate, reference or None) -> a number, 0 to 1 by convention."""


def text_metric(spec: str, option: str) -> TextMetric:
    """The metric that an option names: `chrf`, `bleu`, or `file.py:function`, called as function(source, candidate, reference).

    Raises InputError for anything else, MissingExtra where sacrebleu is not installed.
    """
    if spec in REFERENCE_METRICS:
        return _sacrebleu(spec)
    if ".py:" not in spec:
        raise InputError(
            f"{option} is {spec!r}; expected none, {', '.join(REFERENCE_METRICS)}, or file.py:function, called as function(source, candidate, reference)"
        )
    function = load_object(spec, option)
    expected = "function(source, candidate, reference) -> a finite number, with None for a reference that is not there"
    try:
        inspect.signature(function).bind("", "", None)
    except (TypeError, ValueError) as error:
        raise InputError(f"{option} {spec} cannot be called with (source, candidate, reference): {error}; expected {expected}") from error

    def measure(source: str, candidate: str, reference: str | None) -> float:
        try:
            value: Any = function(source, candidate, reference)
        except Exception as error:
            raise InputError(
                f"{option} {spec} failed on {candidate!r}: {describe(error)} ({where(error, source_file(function))}); expected {expected}"
            ) from error
        number = finite_number(value)
        if number is None:
            raise InputError(f"{option} {spec} returned {describe_value(value)} for {candidate!r}; expected {expected}")
        return number

    return measure


def _sacrebleu(name: str) -> TextMetric:
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise MissingExtra("sacrebleu", "translation", f"the metric {name}") from error
    # Smoothing and effective order as sacrebleu recommends for single sentences.
    scorer = CHRF() if name == "chrf" else BLEU(effective_order=True)

    def measure(_source: str, candidate: str, reference: str | None) -> float:
        assert reference is not None, "tasks without a reference are left out by the caller"
        return scorer.sentence_score(candidate, [reference]).score / 100

    return measure

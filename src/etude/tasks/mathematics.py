r"""When two answers are the same mathematics: `\frac{1}{2}` and `0.5`, `x^2+1` and `1+x^2` (package math-verify, extra `math`)."""

from __future__ import annotations

import functools
import importlib.util
import logging
import re
import threading
from typing import Any

# Written as mathematics rather than as a plain number or word: LaTeX, powers, fractions, roots, tuples, intervals and sets.
_MATHEMATICAL = re.compile(r"[\\^$]|\d\s*/\s*\d|\bsqrt\b|\bpi\b|[(\[{].*,.*[)\]}]")
# An answer is an expression, not an essay; a longer one only costs time.
LONGEST = 1000
SECONDS = 3
"""Time that reading or comparing one answer may take; past it the answers count as different."""


def is_mathematical(answer: str) -> bool:
    """True for answers in LaTeX, and for powers, fractions, roots, tuples, intervals and sets; False for plain numbers and words."""
    return _MATHEMATICAL.search(answer) is not None


def available() -> bool:
    """Whether math-verify is installed."""
    return importlib.util.find_spec("math_verify") is not None


@functools.lru_cache(maxsize=16384)
def same_mathematics(reference: str, given: str) -> bool:
    """True when `given` can be read as mathematics and equals `reference` symbolically or, to six decimals, numerically. Needs math-verify."""
    if len(given) > LONGEST or len(reference) > LONGEST:
        return False
    import math_verify

    # It reports every expression that it gives up on; here that only means "different".
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    gold, answer = _parsed(reference), _parsed(given)
    # Time limits are alarms, which exist in the main thread only.
    seconds = SECONDS if threading.current_thread() is threading.main_thread() else None
    return bool(gold and answer and math_verify.verify(gold, answer, timeout_seconds=seconds))


@functools.lru_cache(maxsize=4096)
def _parsed(answer: str) -> list[Any]:
    """What the answer can be read as; empty when it is no mathematics."""
    import math_verify

    bare = answer.strip().strip("$").strip()
    seconds: Any = SECONDS if threading.current_thread() is threading.main_thread() else None
    # Without delimiters LaTeX is not recognised.
    return math_verify.parse(f"${bare}$", parsing_timeout=seconds, fallback_mode="no_fallback")

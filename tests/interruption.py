"""Runs that are killed in the middle of a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from etude.method import get_method


@contextmanager
def killed_in_step(slug: str, step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs of the method inside are interrupted as this step begins."""
    method: Any = get_method(slug)
    own = method.step

    def interrupted(self: Any) -> dict[str, float]:
        if self.run.step == step:
            raise KeyboardInterrupt
        return own(self)

    with monkeypatch.context() as patch:
        patch.setattr(method, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            yield

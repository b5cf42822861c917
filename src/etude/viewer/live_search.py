"""What a terminal shows while a search works: the live table, and below it the tree as it grows."""

from __future__ import annotations

import time

from rich.console import Console, RenderableType
from rich.text import Text

from etude.method import Method
from etude.run import Run
from etude.searching import SearchMethod
from etude.summary import Summary
from etude.viewer.live import REFRESHES_PER_SECOND, LiveTable
from etude.viewer.numbers import count, duration, percent
from etude.viewer.search_trees import tree_lines

COLUMNS = (
    ("time", "time/step", duration),
    ("agents", "search/agents", count),
    ("trials", "search/trials", count),
    ("nodes", "search/nodes", count),
    ("ended", "search/finished", count),
    ("best", "search/best_rate", percent),
    ("surely above", "search/best_at_least", percent),
    ("failed", "search/failed_changes", count),
)
MOST_LINES = 30


class LiveSearch(LiveTable):
    """The live table of a search. The tree is read in the searching thread, as often as it is drawn; the drawing thread sees whole lines only."""

    rows = 3

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        super().__init__(quiet=quiet, console=console)
        self.columns = COLUMNS
        self._lines: tuple[Text, ...] = ()
        self._read_at = 0.0
        self._search: SearchMethod | None = None

    def started(self, run: Run, method: Method) -> None:
        super().started(run, method)
        if self.drawn and isinstance(method, SearchMethod):
            self._search = method
            method.on_change = self._changed
            self._read()

    def finished(self, summary: Summary) -> None:
        if self._search is not None:
            self._read()
        super().finished(summary)

    def pictures(self) -> list[RenderableType]:
        return list(self._lines)

    def _changed(self) -> None:
        if time.monotonic() - self._read_at >= 1 / REFRESHES_PER_SECOND:
            self._read()

    def _read(self) -> None:
        """Take the tree as it is now."""
        assert self._search is not None
        records = self._search.records()
        room = max(4, min(MOST_LINES, self.console.height - 14) // max(1, len(records)))
        self._lines = tuple(line for record in records for line in tree_lines(record, room))
        self._read_at = time.monotonic()

"""What a terminal shows while a comparison runs: one row an arm and seed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from etude.evals.arms import ArmProgress
from etude.viewer.live import REFRESHES_PER_SECOND, open_console
from etude.viewer.numbers import duration, percent, title_of, value_text

STYLES = {"waiting": "dim", "running": "", "stopping": "yellow", "finished": "green", "reused": "green", "crashed": "bold red", "interrupted": "yellow"}
ENDED = ("finished", "reused", "crashed", "interrupted")


class LiveArms:
    """Shows how far every run is: its share of the budget, its step, the newest held-out score, its state.

    On a terminal, a table that is redrawn in place; elsewhere, or with `quiet`, one plain line for every run that ends.
    """

    def __init__(self, *, metric: str, title: str, quiet: bool = False, console: Console | None = None) -> None:
        self.console = console if console is not None else open_console()
        self.quiet = quiet
        self.drawn = self.console.is_terminal and not self.console.is_dumb_terminal and not quiet
        self.metric = metric
        self.title = title
        self._runs: Sequence[ArmProgress] = ()
        self._told: set[tuple[str, int, str]] = set()
        self._live: Live | None = None
        self._began = 0.0
        self._stopping = False

    def began(self, runs: Sequence[ArmProgress]) -> None:
        """The runs of one stage: of the tuning of a sweep, or of the comparison itself."""
        self._runs, self._began, self._stopping = runs, time.monotonic(), False
        if self.drawn:
            self._live = Live(console=self.console, get_renderable=self.render, refresh_per_second=REFRESHES_PER_SECOND)
            self._live.start(refresh=True)
            return
        reused = sum(run.state == "reused" for run in runs)
        self._line(f"{self.title}: {len(runs)} runs" + (f", {reused} of them there already" if reused else ""))

    def moved(self, run: ArmProgress) -> None:
        """A line for a run that ended, where no table is drawn."""
        key = (run.arm, run.seed, run.state)
        if not self.drawn and run.state in ENDED and key not in self._told:
            self._told.add(key)
            step = f" at step {run.step}" if run.step is not None else ""
            score = f"  held-out {title_of(self.metric)} {value_text(self.metric, run.value)}" if run.value == run.value else ""
            self._line(f"{run.arm}  seed {run.seed}  {run.state}{step}{score}" + (f"  {run.error}" if run.error else ""))

    def stopping(self) -> None:
        """Say what happens now."""
        self._stopping = True
        if not self.drawn:
            self._line("stopping: every run finishes its step and writes a checkpoint; once more stops at once")

    def ended(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def render(self) -> RenderableType:
        """The table as it stands now."""
        counts = Counter(run.state for run in self._runs)
        done = sum(1.0 if run.state in ENDED else min(1.0, run.share) for run in self._runs) / max(1, len(self._runs))
        facts = [f"{counts[state]} {state}" for state in STYLES if counts[state]] + [percent(done), duration(time.monotonic() - self._began)]
        parts: list[RenderableType] = [Text(self.title, style="bold"), Text(" · ".join(facts), style="dim"), self._table()]
        if self._stopping:
            parts.append(Text("stopping: every run finishes its step and writes a checkpoint; once more stops at once", style="yellow"))
        return Padding(Group(*parts), (1, 1, 0, 1))

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("arm", no_wrap=True, overflow="ellipsis", ratio=2)
        table.add_column("seed", justify="right")
        table.add_column("budget", min_width=12, ratio=2)
        table.add_column("")
        table.add_column("step", justify="right")
        table.add_column(title_of(self.metric), justify="right")
        table.add_column("state", no_wrap=True)
        for run in self._shown():
            share = min(1.0, run.share)
            row = [run.arm, str(run.seed), ProgressBar(total=1.0, completed=share), percent(share)]
            step = str(run.step) if run.step is not None else ""
            table.add_row(*row, step, value_text(self.metric, run.value), Text(run.state, style=STYLES[run.state]))
        return table

    def _shown(self) -> list[ArmProgress]:
        """As many runs as the window has room for: those that move first, then failures, then the rest; in their own order."""
        room = max(4, self.console.height - 7)
        urgency = {"running": 0, "stopping": 0, "crashed": 1, "interrupted": 1, "waiting": 2}
        chosen = sorted(range(len(self._runs)), key=lambda i: (urgency.get(self._runs[i].state, 3), i))[:room]
        return [self._runs[i] for i in sorted(chosen)]

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

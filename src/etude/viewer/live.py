"""The table that a terminal shows while a run works."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from etude.config import NO_STEP_LIMIT
from etude.ledger import Ledger
from etude.method import Method
from etude.run import Run
from etude.summary import Summary
from etude.tracking import Observer
from etude.types import Metrics
from etude.viewer.numbers import count, duration, interval_text, number, percent, title_of, value_text

ROWS = 10
REFRESHES_PER_SECOND = 2

COLUMNS = (
    ("time", "time/step", duration),
    ("reward", "reward/mean", number),
    ("correct", "reward/correct", percent),
    ("signal", "signal/groups_with_spread", percent),
    ("length", "rollout/length", number),
    ("entropy", "rollout/entropy", number),
    ("KL", "loss/kl_old", number),
    ("grad norm", "loss/grad_norm", number),
)
"""Column title, metric, how to write it. A column whose metric a method does not measure is not shown; in a narrow window the last ones make room."""

MEASURING = "measuring the held-out split before the first step"

_BARS = "▁▂▃▄▅▆▇█"


def open_console() -> Console:
    """A console on standard output that never fails over a character which the terminal's encoding lacks."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    return Console()


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """The last `width` finite values as bars, lowest to highest; a flat series is drawn low."""
    shown = [v for v in values if math.isfinite(v)][-width:]
    if not shown:
        return ""
    low, span = min(shown), max(shown) - min(shown)
    return "".join(_BARS[int((len(_BARS) - 1) * (v - low) / span + 0.5) if span > 0 else 0] for v in shown)


@dataclass(frozen=True)
class _Speed:
    """Where the ledger stood after a step."""

    tokens: int
    seconds: float


class LiveTable(Observer):
    """Shows a run while it works: progress, the last steps, the held-out score so far.

    On a terminal, a table that is redrawn in place twice a second, by a thread of its own, so that the run waits for nothing. Elsewhere, or with `quiet`,
    one plain line for every evaluation.
    """

    rows = ROWS
    """Steps that are shown at most."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self.console = console if console is not None else open_console()
        self.quiet = quiet
        self.drawn = self.console.is_terminal and not self.console.is_dumb_terminal and not quiet
        """True when the table is drawn; False when plain lines are printed."""
        self.columns = COLUMNS
        self._live: Live | None = None
        self._run: Run | None = None
        self._title = ""
        # Replaced as a whole, never changed in place: the drawing thread reads them at any moment.
        self._steps: tuple[tuple[int, Metrics], ...] = ()
        self._speeds: tuple[_Speed, ...] = ()
        self._evaluations: tuple[tuple[int, Metrics], ...] = ()
        self._readings: tuple[tuple[int, Metrics], ...] = ()
        self._score_key = "eval/pass@1"
        self._note = ""
        self._began = 0.0
        self._progress_before = 0.0

    def started(self, run: Run, method: Method) -> None:
        self._run = run
        self._score_key = getattr(method, "score_key", self._score_key)
        self._title = method.card.name
        self._note = "" if run.step else MEASURING
        self._began, self._progress_before = time.monotonic(), run.progress
        self._speeds = (_Speed(run.ledger.generated_tokens, run.ledger.seconds),)
        if self.drawn:
            self._live = Live(console=self.console, get_renderable=self.render, refresh_per_second=REFRESHES_PER_SECOND)
            self._live.start(refresh=True)
        elif not self.quiet:
            goes_on = f", from step {run.step}" if run.step else ""
            self._line(f"{self._title} in {run.folder}: {self._goal(run)}{goes_on}")

    def stepped(self, step: int, metrics: Metrics, ledger: Ledger) -> None:
        self._steps = (*self._steps[1 - ROWS :], (step, dict(metrics)))
        self._speeds = (*self._speeds[-ROWS:], _Speed(ledger.generated_tokens, ledger.seconds))

    def evaluated(self, step: int, metrics: Metrics) -> None:
        self._evaluations = (*self._evaluations, (step, dict(metrics)))
        if self._note == MEASURING:
            self._note = ""
        if not self.drawn:
            self._line(self._plain(step, metrics))

    def probed(self, step: int, metrics: Metrics, message: str) -> None:
        self._readings = (*self._readings, (step, dict(metrics)))
        if message:
            # Above the table, where it stays.
            self.console.print(Text(f"! {message}", style="yellow"), soft_wrap=True)

    def checkpointed(self, path: Path) -> None:
        self._note = f"checkpoint {path.name} is saved"

    def stopping(self, signal: str) -> None:
        self._note = f"{signal}: stopping after this step, with a checkpoint; once more stops at once"
        if not self.drawn:
            self._line(self._note)

    def finished(self, summary: Summary) -> None:
        if summary.status != "finished":
            self._note = f"{summary.status} at step {summary.step}"
        if self._live is not None:
            self._live.stop()
            self._live = None

    def render(self) -> RenderableType:
        """The table as it stands now."""
        if self._run is None:
            return Text("")
        parts = [self._header(self._run), self._progress(self._run)]
        if self._steps:
            parts.append(Padding(self._table(), (1, 0)))
        parts += self.pictures()
        if self._evaluations:
            parts.append(self._held_out())
        if self._readings:
            parts.append(self._probe())
        if self._note:
            parts.append(Text(self._note, style="dim", no_wrap=True, overflow="ellipsis"))
        return Padding(Group(*parts), (1, 1, 0, 1))

    @property
    def began(self) -> bool:
        """Whether the method was set up: one of a run that had ended already is not."""
        return self._run is not None

    def pictures(self) -> list[RenderableType]:
        """What else there is to see, below the table of steps."""
        return []

    def _header(self, run: Run) -> Text:
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(self._title, style="bold")
        line.append(f"   {run.folder}", style="dim")
        return line

    def _progress(self, run: Run) -> Table:
        done = run.progress
        limited = run.config.steps < NO_STEP_LIMIT
        bounded = limited or run.budget is not None
        facts = [f"step {run.step}" + (f"/{run.config.steps}" if limited and run.budget is None else "")]
        if bounded:
            facts.append(f"{100 * done:.0f} %")
        if run.budget is not None:
            facts.insert(1, f"of {run.budget}")
        passed = time.monotonic() - self._began
        facts.append(duration(passed))
        if done - self._progress_before > 0 and done < 1 and bounded:
            facts.append(f"about {duration(passed * (1 - done) / (done - self._progress_before))} left")
        if (speed := self._tokens_per_second()) is not None:
            facts.append(f"{count(speed)} tokens/s")
        lines = Table.grid(expand=True)
        lines.add_row(ProgressBar(total=1.0, completed=done))
        lines.add_row(Text(" · ".join(facts), no_wrap=True, overflow="ellipsis"))
        return lines

    def _tokens_per_second(self) -> float | None:
        """Tokens generated per second of stepping, over the last steps."""
        first, last = self._speeds[0], self._speeds[-1]
        return (last.tokens - first.tokens) / (last.seconds - first.seconds) if last.seconds > first.seconds and last.tokens > first.tokens else None

    def _table(self) -> Table:
        # A table taller than the window would be cut at its end, which is the part that matters.
        rows = self._steps[-max(1, min(self.rows, self.console.height - 12)) :]
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("step", justify="right", no_wrap=True)
        columns = [c for c in self.columns if any(math.isfinite(m.get(c[1], math.nan)) for _, m in rows)]
        while len(columns) > 1 and sum(max(7, len(title)) + 2 for title, _, _ in columns) > self.console.width - 8:
            columns.pop()
        for title, _, _ in columns:
            table.add_column(title, justify="right", no_wrap=True)
        for i, (step, metrics) in enumerate(rows):
            table.add_row(str(step), *(write(metrics.get(name, math.nan)) for _, name, write in columns), style="" if i == len(rows) - 1 else "dim")
        return table

    def _held_out(self) -> Text:
        line = Text(no_wrap=True, overflow="ellipsis")
        step, last = self._evaluations[-1]
        scores = [m.get(self._score_key, math.nan) for _, m in self._evaluations]
        line.append(f"held-out {title_of(self._score_key)} ")
        if len(scores) > 1:
            line.append(f"{value_text(self._score_key, scores[0])} → ")
        line.append(value_text(self._score_key, scores[-1]), style="bold")
        interval = interval_text(self._score_key, last.get(f"{self._score_key}_low", math.nan), last.get(f"{self._score_key}_high", math.nan))
        line.append(f" {interval} " if interval else " ", style="dim")
        if len(scores) > 1:
            line.append(sparkline(scores), style="green")
        others = [f"{title_of(name)} {value_text(name, last[name])}" for name in self._wider(last)]
        line.append("  ".join(["", *others, f"at step {step}"]), style="dim")
        return line

    def _probe(self) -> Text:
        """Accuracy beside the reward that is trained on, first reading and last."""
        line = Text(no_wrap=True, overflow="ellipsis")
        (_, first), (step, last) = self._readings[0], self._readings[-1]
        for title, name in (("probe accuracy ", "probe/accuracy"), ("  its reward ", "probe/proxy")):
            line.append(title)
            if len(self._readings) > 1:
                line.append(f"{value_text(name, first.get(name, math.nan))} → ")
            line.append(value_text(name, last.get(name, math.nan)), style="bold")
        line.append(f"  at step {step}", style="dim")
        return line

    def _wider(self, metrics: Metrics) -> list[str]:
        """pass@k and maj@k at the largest k > 1 that was measured."""
        found = []
        for kind in ("eval/pass@", "eval/maj@"):
            ks = [int(k) for name in metrics if name.startswith(kind) and (k := name.removeprefix(kind)).isdecimal()]
            if ks and max(ks) > 1:
                found.append(f"{kind}{max(ks)}")
        return found

    def _plain(self, step: int, metrics: Metrics) -> str:
        """One evaluation in one line."""
        limited = self._run is not None and self._run.config.steps < NO_STEP_LIMIT
        parts = [f"step {step}" + (f"/{self._run.config.steps}" if self._run is not None and limited else "")]
        if math.isfinite(metrics.get(self._score_key, math.nan)):
            interval = interval_text(self._score_key, metrics.get(f"{self._score_key}_low", math.nan), metrics.get(f"{self._score_key}_high", math.nan))
            parts.append(f"held-out {title_of(self._score_key)} {value_text(self._score_key, metrics[self._score_key])} {interval}".rstrip())
        parts += [f"{title_of(name)} {value_text(name, metrics[name])}" for name in self._wider(metrics)]
        if self._steps:
            latest = self._steps[-1][1]
            parts += [f"{title} {write(latest[name])}" for title, name, write in self.columns[1:5] if math.isfinite(latest.get(name, math.nan))]
        parts.append(duration(time.monotonic() - self._began))
        return "  ".join(parts)

    @staticmethod
    def _goal(run: Run) -> str:
        if run.config.steps >= NO_STEP_LIMIT:
            return str(run.budget) if run.budget is not None else "until nothing is left to do"
        return f"{run.config.steps} steps" + (f", or {run.budget}" if run.budget is not None else "")

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

"""The live table, on consoles that record what they are told."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from etude.config import RunConfig
from etude.ledger import Ledger
from etude.method import Method, MethodCard
from etude.run import Run
from etude.summary import Summary
from etude.viewer import live
from etude.viewer.live import LiveTable, sparkline


class Stub:
    card = MethodCard("grpo", "GRPO", "baselines", "2402.03300", "title", "summary")
    score_key = "eval/pass@1"


METHOD = cast(Method, Stub())
STEP = {
    "reward/mean": 0.5,
    "reward/correct": 0.25,
    "signal/groups_with_spread": 0.75,
    "rollout/length": 19.5,
    "rollout/entropy": 0.4,
    "loss/kl_old": 0.0005,
    "loss/grad_norm": 0.625,
    "time/step": 0.7,
}


def evaluation(share: float) -> dict[str, float]:
    return {
        "eval/pass@1": share,
        "eval/pass@1_low": share - 0.05,
        "eval/pass@1_high": share + 0.05,
        "eval/pass@2": share,
        "eval/pass@8": 0.9,
        "eval/maj@8": 0.6,
    }


def console(terminal: bool, **options: Any) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, **{"width": 110, "height": 30, "color_system": None, "legacy_windows": False, **options})


def text_of(table: LiveTable, **options: Any) -> str:
    """The table as it would be drawn now, without colours."""
    recorder = console(False, **options)
    recorder.print(table.render())
    return cast(io.StringIO, recorder.file).getvalue()


def printed(table: LiveTable) -> str:
    return cast(io.StringIO, table.console.file).getvalue()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(RunConfig(out=tmp_path / "run", steps=40), folder_name="run")


def advance(table: LiveTable, run: Run, steps: int, **changed: float) -> None:
    for _ in range(steps):
        run.step += 1
        run.ledger.steps += 1
        run.ledger.generated_tokens += 2000
        run.ledger.seconds += 0.5
        table.stepped(run.step, {**STEP, **changed}, run.ledger)


def ended(run: Run, status: Any = "finished") -> Summary:
    return Summary(status, "", run.step, run.folder, Ledger())


def test_shows_progress_the_last_steps_and_the_held_out_score(run: Run) -> None:
    table = LiveTable(console=console(True))
    table.started(run, METHOD)
    table.evaluated(0, evaluation(0.34))
    advance(table, run, 12)
    table.evaluated(12, evaluation(0.56))
    table.checkpointed(Path("checkpoints/step-12"))
    shown = text_of(table)
    table.finished(ended(run))
    assert "GRPO" in shown
    assert str(run.folder)[:40] in shown
    assert any(line.startswith(" step 12/40 · 30 %") for line in shown.splitlines())
    assert "4,000 tokens/s" in shown
    assert " left" in shown
    assert "34.0 % → 56.0 % [51.0, 61.0] ▁█" in shown
    assert "pass@8 90.0 %  maj@8 60.0 %  at step 12" in shown
    assert "checkpoint step-12 is saved" in shown
    rows = [line.split() for line in shown.splitlines() if line.strip()[:1].isdigit()]
    assert [int(row[0]) for row in rows] == list(range(3, 13))
    assert rows[-1] == ["12", "0.7s", "0.500", "25", "%", "75", "%", "19.5", "0.400", "5.0e-4", "0.625"]


def test_before_the_first_step(run: Run) -> None:
    table = LiveTable(console=console(True))
    assert text_of(table).strip() == ""
    table.started(run, METHOD)
    assert "measuring the held-out split before the first step" in text_of(table)
    table.evaluated(0, {"eval/pass@1": 0.34})
    shown = text_of(table)
    table.finished(ended(run))
    assert "measuring" not in shown
    assert "held-out pass@1 34.0 %" in shown
    assert "left" not in shown


def test_columns_that_are_not_measured_are_left_out(run: Run) -> None:
    table = LiveTable(console=console(True))
    table.started(run, METHOD)
    advance(table, run, 3, **{"rollout/entropy": float("nan"), "loss/kl_old": float("nan")})
    shown = text_of(table)
    table.finished(ended(run))
    assert "entropy" not in shown
    assert "KL" not in shown
    assert "grad norm" in shown


@pytest.mark.parametrize(("width", "height"), [(40, 24), (80, 12), (20, 5), (200, 60)])
def test_fits_any_window(run: Run, width: int, height: int) -> None:
    table = LiveTable(console=console(True, width=width, height=height))
    table.started(run, METHOD)
    advance(table, run, 20)
    table.evaluated(20, evaluation(0.5))
    shown = text_of(table, width=width)
    table.finished(ended(run))
    assert all(len(line) <= width for line in shown.splitlines())
    assert len(shown.splitlines()) <= max(height, 13)
    header = next(line for line in shown.splitlines() if line.split()[:2] == ["step", "time"])
    assert "…" not in header


def test_progress_is_by_budget_where_there_is_one(tmp_path: Path) -> None:
    run = Run.create(RunConfig(out=tmp_path / "run", steps=1000, budget="40k-tokens"), folder_name="run")
    table = LiveTable(console=console(True))
    table.started(run, METHOD)
    advance(table, run, 5)
    shown = text_of(table)
    table.finished(ended(run))
    assert "step 5 · of 40k-tokens · 25 %" in shown


def test_a_terminal_is_redrawn_seldom_and_left_tidy(run: Run) -> None:
    table = LiveTable(console=console(True))
    table.started(run, METHOD)
    advance(table, run, 500)
    table.stopping("SIGINT")
    table.finished(ended(run, "interrupted"))
    output = printed(table)
    assert live.REFRESHES_PER_SECOND <= 4
    # Steps do not draw: only the first frame, the last one and what the clock asked for in between.
    assert 2 <= output.count("GRPO") < 20
    assert "interrupted at step 500" in output
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h") == 1


def test_plain_lines_where_there_is_no_terminal(run: Run) -> None:
    table = LiveTable(console=console(False, width=40))
    table.started(run, METHOD)
    table.evaluated(0, evaluation(0.34))
    advance(table, run, 10)
    table.evaluated(10, evaluation(0.5))
    table.checkpointed(Path("step-10"))
    table.stopping("SIGTERM")
    table.finished(ended(run, "interrupted"))
    lines = printed(table).splitlines()
    assert lines[0] == f"GRPO in {run.folder}: 40 steps"
    assert lines[1].startswith("step 0/40  held-out pass@1 34.0 % [29.0, 39.0]  pass@8 90.0 %  maj@8 60.0 %  ")
    assert lines[2].startswith(
        "step 10/40  held-out pass@1 50.0 % [45.0, 55.0]  pass@8 90.0 %  maj@8 60.0 %  reward 0.500  correct 25 %  signal 75 %  length 19.5  "
    )
    assert lines[3].startswith("SIGTERM: stopping after this step")
    assert len(lines) == 4
    assert "\x1b" not in printed(table)


def test_quiet_prints_one_line_for_every_evaluation_also_on_a_terminal(run: Run) -> None:
    table = LiveTable(quiet=True, console=console(True))
    table.started(run, METHOD)
    table.evaluated(0, evaluation(0.34))
    advance(table, run, 3)
    table.evaluated(3, evaluation(0.4))
    table.finished(ended(run))
    assert [line.split("  ")[0] for line in printed(table).splitlines()] == ["step 0/40", "step 3/40"]


def test_evaluation_without_a_score(run: Run) -> None:
    table = LiveTable(console=console(False))
    table.started(run, METHOD)
    table.evaluated(0, {"eval/pass@1": float("nan"), "eval/length": 3.0})
    assert printed(table).splitlines()[1].startswith("step 0/40  ")
    assert "pass@1" not in printed(table)


def test_a_terminal_that_lacks_characters_does_not_end_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    table = LiveTable()
    table.started(run, METHOD)
    table._line("34 % → 56 % ▁█ \ud800")
    sys.stdout.flush()
    assert b"34 % ? 56 % ?? ?" in raw.getvalue()


def test_sparkline() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([]) == sparkline([float("nan")]) == ""
    assert sparkline(list(range(100)), width=3) == "▁▅█"

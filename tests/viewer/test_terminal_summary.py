"""What the terminal says when a run has ended."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from etude.ledger import Ledger
from etude.summary import Summary
from etude.viewer.summary import print_summary

MakeRun = Callable[..., Path]


def said(summary: Summary, width: int = 100, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_summary(summary, console=console, **options)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def summary_of(folder: Path, **changed: Any) -> Summary:
    values: dict[str, Any] = {
        "status": "finished",
        "reason": "all 20 steps are done",
        "step": 20,
        "folder": folder,
        "ledger": Ledger(steps=20, seconds=112.0, generated_tokens=486_400, model_calls={"judge": 3}),
        "best": {"step": 15.0, "score": 0.79},
        "method": "made-up",
    }
    return Summary(**{**values, **changed})


def test_before_after_and_what_comes_next(make_run: MakeRun) -> None:
    folder = make_run()
    lines = said(summary_of(folder), report=folder / "report.html", model=folder / "my model").splitlines()
    assert "made-up raised held-out pass@1 of tiny on arithmetic from 34 % to 78 % in 20 steps, 1m 52s" in lines
    table = {line.split()[0]: line.split() for line in lines if line.startswith(("held-out", "pass@", "length"))}
    assert table["held-out"] == ["held-out", "step", "0", "step", "20", "difference"]
    assert " ".join(table["pass@1"]) == "pass@1 34.0 % [30.0, 38.0] 78.0 % [74.0, 82.0] +44.0 ± 5.7 points"
    assert set(table) == {"held-out", "pass@1", "pass@2", "pass@4", "pass@8", "length,"}
    assert "spent    steps 20 · time 1m 52s · generated tokens 486k · calls: judge 3" in [line.rstrip() for line in lines]
    assert f"report   {folder}/report.html" in lines
    assert f"measure  etude eval '{folder}/my model'" in lines
    assert "best     step 15, pass@1 79.0 %" in lines
    assert f"go on    etude train --resume {folder} --steps 40" in lines


def test_paths_are_never_wrapped(make_run: MakeRun) -> None:
    folder = make_run()
    assert str(folder / "report.html") in said(summary_of(folder), width=30, report=folder / "report.html")


def test_fall_and_interruption_are_said(make_run: MakeRun) -> None:
    folder = make_run(start=0.6, end=0.3)
    text = said(summary_of(folder, status="interrupted", reason="stopped by SIGINT after step 20"), width=200)
    assert "Held-out pass@1 of tiny on arithmetic fell from 60 % to 30 %" in text
    assert "before it was interrupted" in text
    assert "! The run was interrupted at step 20: stopped by SIGINT after step 20" in text
    assert f"etude train --resume {folder}\n" in text
    assert "report" not in text


def test_a_run_that_recorded_nothing(tmp_path: Path) -> None:
    text = said(summary_of(tmp_path, status="failed", reason="out of memory", step=0, ledger=Ledger(), best=None))
    assert "nothing is recorded yet" in text
    assert "out of memory" in text.replace("\n", " ")


def test_square_brackets_in_paths_are_not_markup(make_run: MakeRun) -> None:
    folder = make_run()
    assert "[bold]x[/bold]" in said(summary_of(folder), model=folder / "[bold]x[/bold]")


def test_viewer_does_not_import_torch() -> None:
    code = "import etude.viewer, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

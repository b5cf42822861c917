"""A run that the driver itself drives, from the live table to the report."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from etude.config import RunConfig
from etude.driver import drive
from etude.method import Method, MethodCard, State
from etude.run import Run
from etude.types import Metrics
from etude.viewer import LiveTable, print_summary, write_report


class Climber(Method):
    """Gets better by a tenth a step, and says so."""

    card = MethodCard("climber", "Climber", "made-up", "", "", "")
    Config = dict

    def setup(self) -> None:
        self.skill = 0.2

    def step(self) -> Metrics:
        self.skill += 0.1
        self.run.ledger.generated_tokens += 100
        self.run.save_trajectories(self.run.step, [{"task_id": "t", "prompt": "p", "text": "climbing", "correct": self.skill}])
        return {"reward/mean": self.skill, "time/rollout": 0.0}

    def evaluate(self) -> Metrics:
        return {"eval/pass@1": self.skill, "eval/pass@1_low": self.skill - 0.05, "eval/pass@1_high": self.skill + 0.05}

    def state(self) -> State:
        return State({"skill": self.skill})

    def load_state(self, state: State) -> None:
        self.skill = state.plain["skill"]


def test_from_the_live_table_to_the_report(tmp_path: Path) -> None:
    run = Run.create(RunConfig(out=tmp_path / "run", steps=4, evaluate_every=2), folder_name="run")
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=40, color_system=None)
    summary = drive(Climber({}, run), run, display=LiveTable(console=console))
    report = write_report(run.folder)
    print_summary(summary, report=report, console=console)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "held-out pass@1 20.0 % → 60.0 % [55.0, 65.0] ▁▅█" in shown
    assert "+40.0 ± 7.1 points" in shown
    assert str(report) in shown
    page = report.read_text()
    assert "raised held-out pass@1 of the model on its tasks from 20\u00a0% to 60\u00a0% in 4 steps" in page
    assert "climbing" in page

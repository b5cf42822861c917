"""What a run does about a collapse, with a method whose readings are made up: it warns, stops, or goes back; and is killed in between."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toy_method import Toy, ToyConfig, Watched, make_run

from etude.checkpoints import Checkpoints
from etude.driver import drive
from etude.errors import InputError
from etude.evals.collapse import Reading
from etude.run import Run, without_time
from etude.summary import Summary
from etude.types import Metrics
from etude.watch import History, Watch, collapse_text


def watched(folder: Path, *, steps: int = 12, on_collapse: str = "warn", most: int = 2, **options: Any) -> tuple[Summary, Watched]:
    run = make_run(folder, steps=steps, on_collapse=on_collapse, most_rollbacks=most, **options)
    method = Watched(run)
    return drive(method, run), method


def resumed(folder: Path, **options: Any) -> tuple[Summary, Watched]:
    run = Run.open(folder)
    for name, value in options.items():
        setattr(run.config, name, value)
    method = Watched(run)
    return drive(method, run, resume=True), method


def recorded(folder: Path) -> tuple[list[Any], ...]:
    run = Run.open(folder)
    return [without_time(line) for line in run.metrics()], list(run.trajectories_log), list(run.probe_log)


def readings(folder: Path) -> list[tuple[int, str, int | None]]:
    return [(line["step"], line["action"], line["to"]) for line in Run.open(folder).probe_log]


def states(folder: Path) -> dict[str, Any]:
    return {p.name: json.loads((p / "state.json").read_text())["method"] for p in (folder / "checkpoints").iterdir() if p.is_dir()}


def test_a_warning_changes_nothing_and_is_given_once(tmp_path: Path) -> None:
    heard: list[str] = []

    class Listener:
        def probed(self, step: int, metrics: Metrics, message: str) -> None:
            heard.extend([message] if message else [])

        def ignore(self, *_: object) -> None: ...

        started = stepped = evaluated = checkpointed = finished = ignore

    run = make_run(tmp_path / "run", steps=12)
    summary = drive(Watched(run), run, display=Listener())
    plain = make_run(tmp_path / "plain", steps=12)
    drive(Toy(ToyConfig(), plain), plain)
    assert summary.status == "finished"
    assert readings(run.folder) == [(s, "warn" if s > 4 else "none", None) for s in range(0, 13, 2)]
    assert [c["step"] for c in summary.collapses] == [6]
    assert set(summary.collapses[0]["signs"]) == {"exploited", "lost"}
    assert len(heard) == 1
    assert heard[0].startswith("collapse at step 6 (exploited: accuracy on the probe fell from 54 % at step 4 to 0 %")
    # Without their costs, which are evaluation's, the other lines are those of a run without a probe.
    mine = [line for line in recorded(run.folder)[0] if "probe/accuracy" not in line]
    theirs = recorded(plain.folder)[0]
    assert [{k: v for k, v in line.items() if k != "ledger"} for line in mine] == [{k: v for k, v in line.items() if k != "ledger"} for line in theirs]
    assert states(run.folder) == states(plain.folder)
    spent = run.ledger - plain.ledger
    assert (spent.generated_tokens, spent.rollouts, spent.evaluation_tokens, spent.evaluation_rollouts) == (0, 0, 70, 7)


def test_a_collapse_stops_the_run_and_names_the_best_state(tmp_path: Path) -> None:
    summary, method = watched(tmp_path / "run", on_collapse="stop", keep_last=1)
    assert (summary.status, summary.step) == ("collapsed", 6)
    assert summary.reason.startswith("collapse at step 6 (exploited: ")
    assert readings(tmp_path / "run") == [(0, "none", None), (2, "none", None), (4, "none", None), (6, "stop", None)]
    # The state is left as it is; the best one is kept beside the newest.
    assert len(method.history) == 6
    assert {"step-4", "step-6"} <= set(states(tmp_path / "run"))
    assert summary.after["eval/pass@1"] == pytest.approx(round(abs(math.sin(7 * method.weight)), 1))
    again, _ = resumed(tmp_path / "run")
    assert again.reason.startswith("nothing to do: collapse at step 6")
    assert again.reason.endswith("--on-collapse warn goes on regardless")
    onward, _ = resumed(tmp_path / "run", on_collapse="warn")
    assert (onward.status, onward.step) == ("finished", 12)


def test_a_rollback_restores_the_best_state_under_a_rising_count_of_steps(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    summary, method = watched(folder, on_collapse="rollback", most=9, steps=9)
    # Collapsed at 6, back to the state of step 4; two steps later, at 8, it collapses again; and at the last step.
    assert readings(folder) == [(0, "none", None), (2, "none", None), (4, "none", None), (6, "rollback", 4), (8, "rollback", 4), (9, "rollback", 4)]
    assert (summary.status, summary.step) == ("finished", 9)
    assert len(method.history) == 4
    lines = [line for line in Run.open(folder).metrics() if "collapse/back_to" in line]
    assert [(line["step"], line["collapse/back_to"], line["collapse/exploited"]) for line in lines] == [(6, 4.0, 1.0), (8, 4.0, 1.0), (9, 4.0, 1.0)]
    # Steps, and what they cost, are not taken back.
    assert summary.ledger.generated_tokens == 9 * 100
    # New steps draw new random numbers: the state after step 7 is not that after step 5.
    walked = {line["step"]: line["reward/mean"] for line in Run.open(folder).metrics() if "reward/mean" in line}
    assert walked[7] != walked[5]


def test_too_many_rollbacks_end_the_run_in_the_best_state(tmp_path: Path) -> None:
    summary, method = watched(tmp_path / "run", on_collapse="rollback", most=1)
    assert readings(tmp_path / "run")[-2:] == [(6, "rollback", 4), (8, "stop", 4)]
    assert (summary.status, summary.step, len(method.history)) == ("collapsed", 8, 4)
    assert summary.reason.endswith("; the run went back to the state of step 4 and ended")
    assert states(tmp_path / "run")["step-8"]["weight"] == states(tmp_path / "run")["step-4"]["weight"]
    again, _ = resumed(tmp_path / "run")
    assert again.reason.startswith("nothing to do: collapse at step 8")
    further, _ = resumed(tmp_path / "run", most_rollbacks=9)
    assert (further.status, further.step) == ("finished", 12)


def test_a_run_that_was_never_sound_ends() -> None:
    history = History([])
    bad = Reading(0, {}, (math.nan,) * 8, (math.nan,) * 8)
    history.add(history.judge(bad, Watch(1, lambda: bad).limits, "rollback", 2))
    assert history.best() is None
    long = Reading(1, {"probe/length": 100.0}, (math.nan,) * 8, (math.nan,) * 8)
    first = Reading(0, {"probe/length": 10.0}, (math.nan,) * 8, (math.nan,) * 8)
    history = History([])
    history.add(history.judge(first, Watch(1, lambda: bad).limits, "rollback", 2))
    finding = history.judge(long, Watch(1, lambda: bad).limits, "rollback", 2)
    assert (list(finding.signs), finding.action, finding.to) == (["long"], "stop", None)


def test_the_readings_of_a_branch_that_was_left_do_not_count(tmp_path: Path) -> None:
    watched(tmp_path / "run", on_collapse="rollback", steps=8)
    history = History(Run.open(tmp_path / "run").probe_log)
    assert [r.step for r in history.readings()] == [0, 2, 4]
    assert history.rollbacks == 2
    best = history.best()
    assert best is not None
    assert best.step == 4


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that goes back four times, which nothing disturbed."""
    folder = tmp_path_factory.mktemp("watched") / "whole"
    watched(folder, on_collapse="rollback", most=9)
    return folder


@pytest.mark.parametrize("at", [1, 5, 6, 7, 9, 12])
def test_a_run_that_is_cut_around_a_rollback_goes_on_to_the_same_numbers(tmp_path: Path, at: int, whole: Path) -> None:
    """Cut in the middle of a step: what was written since the last checkpoint is there, and must not count twice."""
    folder = tmp_path / "cut"
    run = make_run(folder, steps=12, on_collapse="rollback", most_rollbacks=9)
    method = Watched(run)

    def fall() -> None:
        raise Stop

    method.at_step[at] = fall
    with pytest.raises(Stop):
        drive(method, run)
    summary, _ = resumed(folder)
    assert recorded(folder) == recorded(whole)
    assert states(folder)["step-12"] == states(whole)["step-12"]
    unharmed = Summary.read(whole)
    assert unharmed is not None
    assert summary.collapses == unharmed.collapses
    assert [c["action"] for c in summary.collapses] == ["rollback"] * 4


def test_kill_9_at_any_file_operation_around_rollbacks_then_resume_equals_the_uninterrupted_run(tmp_path: Path) -> None:
    script = Path(__file__).with_name("toy_method.py")
    done = subprocess.run([sys.executable, str(script), str(tmp_path), "29", "4", "watched"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["kills"] >= 1
    first, *others = map(Path, said["folders"])
    assert [action for _, action, _ in readings(first)].count("rollback") == 4
    assert len(others) > 5
    for folder in others:
        assert recorded(folder) == recorded(first), folder.name
        assert states(folder) == states(first), folder.name
        assert not list(folder.glob(".*.tmp-*"))


def test_a_request_to_stop_right_before_a_rollback_leaves_no_collapsed_state_behind(tmp_path: Path, whole: Path) -> None:
    folder = tmp_path / "asked"
    run = make_run(folder, steps=12, on_collapse="rollback", most_rollbacks=9)
    method = Watched(run)
    method.at_step[6] = lambda: os.kill(os.getpid(), signal.SIGTERM)
    assert drive(method, run).status == "interrupted"
    assert len(states(folder)["step-6"]["history"]) == 6
    resumed(folder, steps=6)
    # The checkpoint of step 6 holds the state that the run went back to, which is also what its evaluation measured.
    assert len(states(folder)["step-6"]["history"]) == 4
    resumed(folder, steps=12)
    probes = [(line["step"], line["action"], line["to"]) for line in Run.open(folder).probe_log]
    assert probes == readings(whole)


def test_a_lost_checkpoint_ends_the_run_instead_of_going_nowhere(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", on_collapse="rollback")
    method = Watched(run)

    def damage() -> None:
        state = Checkpoints(run.folder / "checkpoints").path(4) / "state.json"
        state.write_bytes(state.read_bytes()[:-5])

    method.at_step[6] = damage
    with pytest.warns(UserWarning, match="the run cannot go back to step 4, and ends"):
        summary = drive(method, run)
    assert (summary.status, summary.step) == ("collapsed", 6)


def test_acting_on_a_collapse_needs_a_probe(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", on_collapse="stop")
    with pytest.raises(InputError, match="--on-collapse stop acts on what a probe shows, and Toy has none"):
        drive(Toy(ToyConfig(), run), run)
    assert not run.folder.exists()


def test_a_summary_with_collapses_comes_back_from_its_file(tmp_path: Path) -> None:
    summary, _ = watched(tmp_path / "run", on_collapse="stop")
    assert Summary.read(tmp_path / "run") == summary
    assert collapse_text(summary.collapses[0]) == summary.reason

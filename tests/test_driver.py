import errno
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_method import Toy, ToyConfig, make_run

from etude import checkpoints
from etude.config import RunConfig
from etude.driver import drive
from etude.errors import CheckpointError, EtudeError, InputError, LearnerLost, NonFiniteError
from etude.ledger import Ledger
from etude.method import Method
from etude.run import Run, without_time
from etude.summary import Summary
from etude.types import Metrics


class Listener:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def started(self, run: Run, method: Method) -> None:
        self.heard.append(("started", run.step))

    def stepped(self, step: int, metrics: Metrics, ledger: Ledger) -> None:
        self.heard.append(("stepped", step, ledger.steps))

    def evaluated(self, step: int, metrics: Metrics) -> None:
        self.heard.append(("evaluated", step))

    def checkpointed(self, path: Path) -> None:
        self.heard.append(("checkpointed", path.name))

    def stopping(self, signal: str) -> None:
        self.heard.append(("stopping", signal))

    def finished(self, summary: Summary) -> None:
        self.heard.append(("finished", summary.status))


def lines(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Metrics without wall time, and trajectories."""
    run = Run.open(folder)
    return [without_time(line) for line in run.metrics()], list(run.trajectories_log)


def kept(folder: Path) -> dict[str, Any]:
    """Everything in the checkpoint folder that is not time: names, the methods' states and the pointer to the best."""
    found: dict[str, Any] = {}
    for entry in (folder / "checkpoints").iterdir():
        found[entry.name] = json.loads((entry / "state.json").read_text())["method"] if entry.is_dir() else entry.read_text()
    return found


def whole(folder: Path, config: ToyConfig | None = None, **options: Any) -> Run:
    """A run that nothing disturbed."""
    run = make_run(folder, **options)
    drive(Toy(config or ToyConfig(), run), run)
    return run


def resumed(folder: Path, config: ToyConfig | None = None, **options: Any) -> tuple[Summary, Toy]:
    run = Run.open(folder)
    for name, value in options.items():
        setattr(run.config, name, value)
    run = Run.open(folder, config=run.config)
    toy = Toy(config or ToyConfig(), run)
    return drive(toy, run, resume=True), toy


def test_a_run_goes_in_order_and_says_how_it_ended(tmp_path: Path) -> None:
    run, listener = make_run(tmp_path / "run", steps=5, evaluate_every=2, checkpoint_every=3), Listener()
    summary = drive(Toy(ToyConfig(), run), run, display=listener)
    # Best scores bring checkpoints of their own; which they are is read from what was measured.
    scores = {line["step"]: line["eval/pass@1"] for line in run.metrics() if "eval/pass@1" in line}
    assert list(scores) == [0, 2, 4, 5]
    expected: list[tuple[Any, ...]] = [("started", 0)]
    best = -math.inf
    for step in range(6):
        expected += [("stepped", step, step)] if step else []
        expected += [("evaluated", step)] if step in scores else []
        better = scores.get(step, -math.inf) > best
        best = max(best, scores.get(step, -math.inf))
        expected += [("checkpointed", f"step-{step}")] if better or step in (0, 3, 5) else []
    assert listener.heard == [*expected, ("finished", "finished")]
    assert (summary.status, summary.reason, summary.step, summary.method) == ("finished", "all 5 steps are done", 5, "toy")
    assert summary.before["eval/pass@1"] == scores[0]
    assert summary.after["eval/pass@1"] == scores[5] == summary.metrics["eval/pass@1"]
    assert summary.best == {"step": min(s for s in scores if scores[s] == best), "score": best}
    assert summary.metrics["reward/mean"] == next(line["reward/mean"] for line in reversed(run.metrics()) if "reward/mean" in line)
    stored = run.result()
    assert stored == summary
    assert stored.ledger == run.ledger


def test_evaluation_spends_from_no_budget(tmp_path: Path) -> None:
    ledger = whole(tmp_path / "run", steps=6, evaluate_every=2).ledger
    assert (ledger.generated_tokens, ledger.rollouts, ledger.steps, ledger.model_calls) == (600, 24, 6, {"policy": 24})
    assert (ledger.evaluation_tokens, ledger.evaluation_rollouts) == (4 * 50, 4 * 2)
    assert ledger.seconds > 0
    assert ledger.evaluation_seconds > 0


@pytest.mark.parametrize(("every", "expected"), [(0, [0, 7]), (3, [0, 3, 6, 7]), (7, [0, 7])])
def test_evaluations_come_before_the_first_and_after_the_last_step(tmp_path: Path, every: int, expected: list[int]) -> None:
    run = make_run(tmp_path / "run", steps=7, evaluate_every=every)
    toy = Toy(ToyConfig(), run)
    drive(toy, run)
    assert toy.evaluated == expected


def test_no_steps_is_an_evaluation(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=0)
    toy = Toy(ToyConfig(), run)
    assert drive(toy, run).step == 0
    assert toy.evaluated == [0]
    assert run.checkpoints.steps() == [0]


def test_a_budget_ends_the_run_at_the_step_that_spends_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", budget="450-tokens")
    summary = drive(Toy(ToyConfig(), run), run)
    assert (summary.step, summary.reason) == (5, "the budget of 450-tokens is spent")
    assert summary.ledger.generated_tokens == 500


def test_repeating_a_run_repeats_every_number_but_time(tmp_path: Path) -> None:
    first, again, other = whole(tmp_path / "a"), whole(tmp_path / "b"), whole(tmp_path / "c", seed=1)
    assert lines(first.folder) == lines(again.folder)
    assert kept(first.folder) == kept(again.folder)
    assert lines(first.folder) != lines(other.folder)


def test_kill_9_anywhere_then_resume_equals_the_uninterrupted_run(tmp_path: Path) -> None:
    """Kills before file operations spread over the whole run, and one run killed again and again: logs, checkpoints and summary end up the same."""
    script = Path(__file__).with_name("toy_method.py")
    done = subprocess.run([sys.executable, str(script), str(tmp_path), "13", "3"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["operations"] > 100
    assert said["kills"] >= 2
    first, *others = map(Path, said["folders"])
    assert len(lines(first)[0]) == 12 + 5
    assert len(others) > 8
    for folder in others:
        assert lines(folder) == lines(first), folder.name
        assert kept(folder) == kept(first), folder.name
        results = [Run.open(f).result() for f in (folder, first)]
        assert all(r is not None and r.status == "finished" and r.step == 12 for r in results)
        assert not list(folder.glob(".*.tmp-*"))


@pytest.mark.parametrize("moment", [1, 4, 5, 9, 12])
@pytest.mark.parametrize("tensors", [False, True])
def test_ctrl_c_finishes_the_step_and_a_resume_equals_the_uninterrupted_run(tmp_path: Path, moment: int, tensors: bool) -> None:
    config = ToyConfig(tensors=tensors)
    expected = whole(tmp_path / "whole", config)
    run, listener = make_run(tmp_path / "run"), Listener()
    toy, handler = Toy(config, run), signal.getsignal(signal.SIGINT)
    toy.at_step[moment] = lambda: os.kill(os.getpid(), signal.SIGINT)
    summary = drive(toy, run, display=listener)
    assert (summary.status, summary.step) == ("interrupted", moment)
    assert "stopped by SIGINT" in summary.reason
    assert run.result() == summary
    assert ("stopping", "SIGINT") in listener.heard
    assert run.checkpoints.newest().step == moment
    assert signal.getsignal(signal.SIGINT) is handler
    ended, _ = resumed(run.folder, config)
    assert (ended.status, ended.step) == ("finished", 12)
    assert lines(run.folder) == lines(expected.folder)
    assert ended.ledger.to_plain().keys() == expected.ledger.to_plain().keys()
    assert ended.ledger.seconds > summary.ledger.seconds or moment == 12


def test_a_terminated_run_stops_as_with_ctrl_c(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    toy = Toy(ToyConfig(), run)
    toy.at_step[3] = lambda: os.kill(os.getpid(), signal.SIGTERM)
    assert "stopped by SIGTERM after step 3" in drive(toy, run).reason


def test_a_signal_during_an_evaluation_stops_after_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")

    class Impatient(Toy):
        def evaluate(self) -> Metrics:
            if self.run.step == 6:
                os.kill(os.getpid(), signal.SIGINT)
            return super().evaluate()

    summary = drive(Impatient(ToyConfig(), run), run)
    assert (summary.status, summary.step) == ("interrupted", 6)
    _, toy = resumed(run.folder)
    assert toy.evaluated == [9, 12]
    assert lines(run.folder) == lines(whole(tmp_path / "whole").folder)


def test_a_second_signal_ends_at_once_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    run, listener = make_run(tmp_path / "run"), Listener()
    toy, handler = Toy(ToyConfig(), run), signal.getsignal(signal.SIGINT)

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second signal did not end the step")

    toy.at_step[6] = twice
    with pytest.raises(KeyboardInterrupt):
        drive(toy, run, display=listener)
    summary = run.result()
    assert summary is not None
    assert (summary.status, summary.step) == ("interrupted", 5)
    assert "the checkpoint of step 4 is kept" in summary.reason
    assert listener.heard[-1] == ("finished", "interrupted")
    assert signal.getsignal(signal.SIGINT) is handler
    resumed(run.folder)
    assert lines(run.folder) == lines(whole(tmp_path / "whole").folder)


def test_ctrl_c_while_setting_up_ends_at_once(tmp_path: Path) -> None:
    run, listener = make_run(tmp_path / "run"), Listener()

    class Slow(Toy):
        def setup(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("the signal did not end the set-up")

    with pytest.raises(KeyboardInterrupt):
        drive(Slow(ToyConfig(), run), run, display=listener)
    assert listener.heard == []
    assert resumed(run.folder)[0].status == "finished"


def test_a_run_can_be_driven_outside_the_main_thread(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    ended: list[Summary] = []
    thread = threading.Thread(target=lambda: ended.append(drive(Toy(ToyConfig(), run), run)))
    thread.start()
    thread.join()
    assert [s.status for s in ended] == ["finished"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (NonFiniteError("the gradient norm is nan"), r"step 7: the gradient norm is nan\. Nothing was overwritten; the checkpoint of step 4 is kept"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee"),
            r"step 7: GPU memory ran out \(CUDA .* 2 GiB\.\); lower .*; the checkpoint of step 4",
        ),
        (LearnerLost("rank 1 is gone"), r"step 7: rank 1 is gone; the checkpoint of step 4 is kept; go on from it with --resume"),
    ],
)
def test_a_step_that_cannot_be_done_stops_the_run_and_overwrites_nothing(tmp_path: Path, error: Exception, message: str) -> None:
    run, listener = make_run(tmp_path / "run"), Listener()
    toy = Toy(ToyConfig(), run)

    def diverge() -> None:
        toy.weight = math.nan
        raise error

    toy.at_step[7] = diverge
    with pytest.raises(EtudeError, match=message) as caught:
        drive(toy, run, display=listener)
    assert caught.value.exit_code == 1
    summary = run.result()
    assert summary is not None
    assert (summary.status, summary.step, summary.reason) == ("failed", 6, str(caught.value))
    assert [line["step"] for line in run.metrics()][-1] == 6
    assert listener.heard[-1] == ("finished", "failed")
    newest = run.checkpoints.newest()
    assert newest is not None
    assert newest.step == 4
    assert math.isfinite(newest.state().plain["weight"])
    resumed(run.folder)
    assert lines(run.folder) == lines(whole(tmp_path / "whole").folder)


def test_a_failure_says_its_step_and_kind(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    toy = Toy(ToyConfig(), run)
    toy.at_step[2] = lambda: {}["missing"]
    with pytest.raises(KeyError):
        drive(toy, run)
    summary = run.result()
    assert summary is not None
    assert (summary.status, summary.reason) == ("failed", "step 2: KeyError: 'missing'")


def refuse(message: str) -> Callable[[Toy], None]:
    def setup(self: Toy) -> None:
        raise InputError(message)

    return setup


def test_input_that_is_refused_in_setup_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Toy, "setup", refuse("there is no model folder './modle'"))
        with pytest.raises(InputError, match="modle"):
            drive(Toy(ToyConfig(), run), run)
    assert not run.folder.exists()
    whole(tmp_path / "run")


def test_input_that_is_refused_on_resume_keeps_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = whole(tmp_path / "run")
    before = kept(run.folder)
    monkeypatch.setattr(Toy, "setup", refuse("the tasks are gone"))
    with pytest.raises(InputError, match="gone"):
        resumed(run.folder, steps=20)
    assert kept(run.folder) == before
    assert len(lines(run.folder)[0]) == 17
    assert run.result().status == "failed"


def test_a_finished_run_resumes_to_nothing(tmp_path: Path) -> None:
    run = whole(tmp_path / "run")
    before = {p: p.read_bytes() for p in run.folder.rglob("*") if p.is_file() and p.name != ".lock"}
    summary, toy = resumed(run.folder)
    assert toy.set_up == 0
    assert (summary.status, summary.step) == ("finished", 12)
    assert summary.reason == "nothing to do: all 12 steps are done; raise --steps or --budget to go on"
    assert {p: p.read_bytes() for p in run.folder.rglob("*") if p.is_file() and p.name != ".lock"} == before


def test_more_steps_go_on_as_if_they_had_been_asked_for_at_first(tmp_path: Path) -> None:
    run = whole(tmp_path / "run", steps=6)
    summary, toy = resumed(run.folder, steps=12)
    assert (summary.status, summary.step, toy.evaluated) == ("finished", 12, [9, 12])
    assert lines(run.folder) == lines(whole(tmp_path / "whole").folder)


def test_a_raised_budget_goes_on(tmp_path: Path) -> None:
    run = whole(tmp_path / "run", budget="300-tokens")
    assert run.step == 3
    assert resumed(run.folder, budget="600-tokens")[0].step == 6


def test_seconds_add_up_over_resumes(tmp_path: Path) -> None:
    run = whole(tmp_path / "run", steps=6)
    earlier = run.ledger.seconds
    later, _ = resumed(run.folder, steps=8)
    steps = [line["time/step"] for line in Run.open(run.folder).metrics() if "time/step" in line]
    assert later.ledger.seconds == pytest.approx(sum(steps))
    assert later.ledger.seconds == pytest.approx(earlier + sum(steps[6:]))


def test_a_damaged_newest_checkpoint_costs_steps_but_changes_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    toy = Toy(ToyConfig(), run)
    toy.at_step[10] = lambda: os.kill(os.getpid(), signal.SIGINT)
    drive(toy, run)
    state = run.folder / "checkpoints" / "step-10" / "state.json"
    state.write_bytes(state.read_bytes()[:-5])
    with pytest.warns(UserWarning, match=r"step-10.*cut off or changed.*passed over"):
        summary, _ = resumed(run.folder)
    assert summary.status == "finished"
    expected = whole(tmp_path / "whole")
    assert lines(run.folder) == lines(expected.folder)
    (run.folder / "checkpoints" / "damaged-step-10" / "state.json").unlink()
    (run.folder / "checkpoints" / "damaged-step-10" / "manifest.json").unlink()
    (run.folder / "checkpoints" / "damaged-step-10").rmdir()
    assert kept(run.folder) == kept(expected.folder)


def test_a_full_disk_at_a_checkpoint_fails_the_run_and_can_be_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run")
    toy = Toy(ToyConfig(), run)
    written = checkpoints.write_synced

    def full(path: Path, data: bytes) -> None:
        if run.step >= 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        written(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_synced", full)
        with pytest.raises(CheckpointError, match=r"step 8 .*No space left on device\. The checkpoint of step 4 is intact"):
            drive(toy, run)
    assert run.result().status == "failed"
    resumed(run.folder)
    assert lines(run.folder) == lines(whole(tmp_path / "whole").folder)


def test_a_full_disk_elsewhere_is_said_without_a_traceback(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    toy = Toy(ToyConfig(), run)

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(run.folder / "samples.jsonl"))

    toy.at_step[5] = full
    with pytest.raises(CheckpointError, match=r"disk is full at step 5: .*samples\.jsonl'; the checkpoint of step 4 is kept"):
        drive(toy, run)
    assert run.result().status == "failed"


def test_two_drivers_of_one_folder(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    toy, refused = Toy(ToyConfig(), run), []

    def meddle() -> None:
        second = Run.open(run.folder)
        with pytest.raises(InputError, match="is in use by process"):
            drive(Toy(ToyConfig(), second), second, resume=True)
        refused.append(True)

    toy.at_step[5] = meddle
    drive(toy, run)
    assert refused == [True]
    assert lines(run.folder) == lines(whole(tmp_path / "whole").folder)


def test_a_run_that_has_begun_is_not_begun_again(tmp_path: Path) -> None:
    run = whole(tmp_path / "run")
    again = Run.open(run.folder)
    with pytest.raises(InputError, match="has begun already; go on with --resume"):
        drive(Toy(ToyConfig(), again), again)


def test_another_seed_does_not_resume(tmp_path: Path) -> None:
    run = whole(tmp_path / "run")
    other = Run.open(run.folder, config=RunConfig(out=run.folder, seed=5, steps=20))
    with pytest.raises(InputError, match="begun with seed 0, not 5"):
        drive(Toy(ToyConfig(), other), other, resume=True)


def test_a_method_may_name_its_own_score(tmp_path: Path) -> None:
    class Short(Toy):
        score_key = "eval/length"

    run = make_run(tmp_path / "run")
    summary = drive(Short(ToyConfig(), run), run)
    lengths = {line["step"]: line["eval/length"] for line in run.metrics() if "eval/length" in line}
    step = max(lengths, key=lambda s: lengths[s])
    assert summary.best == {"step": step, "score": lengths[step]}
    assert step in run.checkpoints.steps()


def test_scores_that_are_no_numbers_are_never_best(tmp_path: Path) -> None:
    class Unmeasured(Toy):
        def evaluate(self) -> Metrics:
            return {"eval/pass@1": math.nan}

    run = make_run(tmp_path / "run")
    summary = drive(Unmeasured(ToyConfig(), run), run)
    assert (summary.status, summary.best) == ("finished", None)
    assert run.checkpoints.steps() == [8, 12]

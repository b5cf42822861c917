import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_method import Toy, ToyConfig, make_run

from etude.driver import drive
from etude.errors import InputError, MissingExtra
from etude.ledger import Ledger
from etude.run import Run
from etude.summary import Summary
from etude.tracking import Observer, Tracker, make_trackers, require_trackers


def test_an_unknown_tracker_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no tracker 'wandbb'\. Did you mean wandb\?"):
        make_trackers(["wandbb"])


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for name in ("tensorboard", "wandb", "trackio", "mlflow"):
        with pytest.raises(MissingExtra, match=rf"pip install 'etude\[{name}\]'"):
            require_trackers([name])


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_has_every_number_once_also_after_a_resume(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = make_run(tmp_path / "run", track=("tensorboard",))
    toy = Toy(ToyConfig(), run)

    def fail() -> None:
        raise RuntimeError("a bug")

    toy.at_step[6] = fail
    with pytest.raises(RuntimeError, match="a bug"):
        drive(toy, run)
    # The checkpoint is of step 4: step 5 was sent, and is sent again.
    run = Run.open(run.folder)
    drive(Toy(ToyConfig(), run), run, resume=True)
    read = scalars(run.folder / "tensorboard")
    logged = run.metrics()
    for tag in ("reward/mean", "eval/pass@1", "reward/spread"):
        expected = [(line["step"], line[tag]) for line in logged if line.get(tag) is not None]
        assert len(expected) > 3
        assert [s for s, _ in read[tag]] == [s for s, _ in expected]
        assert [v for _, v in read[tag]] == pytest.approx([v for _, v in expected], rel=1e-6)
    assert read["ledger/generated_tokens"][-1] == (12, 1200.0)
    assert read["ledger/model_calls/policy"][-1] == (12, 48.0)


WANDB = """
calls = []
class Run:
    def define_metric(self, *a, **k): calls.append(("define_metric", a, k))
    def log(self, *a, **k): calls.append(("log", a, k))
    def finish(self, *a, **k): calls.append(("finish", a, k))
def init(**k):
    calls.append(("init", (), k))
    return Run()
"""
MLFLOW = """
from types import SimpleNamespace
calls = []
def set_experiment(name): return SimpleNamespace(experiment_id="e1")
def set_tracking_uri(uri): calls.append(("uri", (uri,), {}))
class MlflowClient:
    def create_run(self, experiment, run_name):
        calls.append(("create", (experiment, run_name), {}))
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))
    def __getattr__(self, name): return lambda *a, **k: calls.append((name, a, k))
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path for packages that stand in for trackers, whose services no test can reach."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    for variable in ("WANDB_PROJECT", "TRACKIO_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(variable, raising=False)
    yield folder
    for name in ("wandb", "trackio", "mlflow"):
        sys.modules.pop(name, None)


def track(run: Run, name: str) -> list[tuple]:
    """Two logged lines through a fresh tracker of a run, which is then said to have failed."""
    (tracker,) = make_trackers([name, name])
    toy = Toy(ToyConfig(), run)
    tracker.started(run, toy)
    tracker.stepped(1, {"reward/mean": 0.5, "loss": math.nan}, Ledger(rollouts=3, model_calls={"judge": 2}))
    tracker.evaluated(2, {"eval/pass@1": 0.25})
    tracker.finished(Summary("failed", "", 1, run.folder, Ledger()))
    return sys.modules[name].calls


def test_wandb_goes_on_in_the_same_place_with_its_own_step_axis(tmp_path: Path, stand_in: Path) -> None:
    (stand_in / "wandb.py").write_text(WANDB)
    run = make_run(tmp_path / "run")
    began, axis, step, evaluation, ended = track(run, "wandb")
    assert began[2]["id"] == run.id
    assert (began[2]["project"], began[2]["resume"], began[2]["config"]["run"]["steps"]) == ("etude", "allow", 12)
    assert axis == ("define_metric", ("*",), {"step_metric": "step"})
    (sent,) = step[1]
    assert (sent["step"], sent["reward/mean"], sent["ledger/rollouts"], sent["ledger/model_calls/judge"]) == (1, 0.5, 3, 2)
    assert "loss" not in sent
    assert evaluation[1] == ({"eval/pass@1": 0.25, "step": 2},)
    assert ended[2] == {"exit_code": 1}


def test_trackio_is_told_the_step(tmp_path: Path, stand_in: Path) -> None:
    (stand_in / "trackio.py").write_text(WANDB)
    run = make_run(tmp_path / "run")
    began, _, evaluation, ended = track(run, "trackio")
    assert began[2]["name"] == f"run-{run.id[:6]}"
    assert evaluation[1:] == (({"eval/pass@1": 0.25},), {"step": 2})
    assert ended[0] == "finish"


def test_mlflow_keeps_its_run_and_takes_no_at_sign(tmp_path: Path, stand_in: Path) -> None:
    (stand_in / "mlflow.py").write_text(MLFLOW)
    run = make_run(tmp_path / "run")
    calls = track(run, "mlflow")
    assert ("log_metric", ("r1", "eval/pass_at_1", 0.25), {"step": 2}) in calls
    assert ("log_param", ("r1", "run.steps", "12"), {}) in calls
    assert calls[-1] == ("set_terminated", ("r1",), {"status": "FAILED"})
    assert json.loads((run.folder / "mlflow.json").read_text()) == {"run_id": "r1"}
    calls.clear()
    track(run, "mlflow")
    assert "create" not in [name for name, _, _ in calls]


class Broken(Tracker):
    name = "broken"

    def __init__(self, where: str) -> None:
        self.where = where
        self.sent: list[int] = []

    def begin(self, run: Run) -> None:
        if self.where == "begin":
            raise ConnectionError("not logged in")

    def send(self, step: int, numbers: dict[str, float]) -> None:
        if self.where == "send":
            raise ConnectionError("server gone")
        self.sent.append(step)

    def end(self, summary: Summary) -> None:
        if self.where == "end":
            raise ConnectionError("server gone")


def test_a_tracker_that_cannot_start_stops_the_run_before_compute(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(InputError, match="tracker 'broken' could not start: not logged in"):
        drive(Toy(ToyConfig(), run), run, display=Broken("begin"))
    assert not run.folder.exists()


@pytest.mark.parametrize("where", ["send", "end"])
def test_a_tracker_that_breaks_later_does_not_stop_the_run(tmp_path: Path, where: str) -> None:
    run = make_run(tmp_path / "run")
    with pytest.warns(UserWarning, match="tracker 'broken' failed: server gone; the run goes on"):
        summary = drive(Toy(ToyConfig(), run), run, display=Broken(where))
    assert (summary.status, summary.step) == ("finished", 12)


def test_an_observer_may_listen_to_nothing(tmp_path: Path) -> None:
    class Deaf(Observer):
        pass

    run = make_run(tmp_path / "run", steps=1)
    assert drive(Toy(ToyConfig(), run), run, display=Deaf()).status == "finished"

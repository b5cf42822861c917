"""Who watches a run: the observer that displays and trackers are, and the trackers of other projects. Nothing is imported before it is asked for."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from etude.errors import InputError, MissingExtra, nearest
from etude.ledger import Ledger
from etude.types import Metrics

if TYPE_CHECKING:
    from etude.method import Method
    from etude.run import Run
    from etude.summary import Summary


class Observer(Protocol):
    """What the driver tells of a run, in this order. A subclass overrides what it wants to hear; an object with the same methods will do as well."""

    def started(self, run: Run, method: Method) -> None:
        """The method is set up; `run.step` is 0, or where a resumed run goes on."""

    def stepped(self, step: int, metrics: Metrics, ledger: Ledger) -> None:
        """A step is done and logged."""

    def evaluated(self, step: int, metrics: Metrics) -> None:
        """An evaluation is done and logged."""

    def probed(self, step: int, metrics: Metrics, message: str) -> None:
        """The probe was read; `message` says what is new of a collapse, if anything. Need not be there."""

    def checkpointed(self, path: Path) -> None:
        """A checkpoint is safe on disk."""

    def stopping(self, signal: str) -> None:
        """The user asked to stop by the named signal; the step in progress is finished first. Need not be there."""

    def finished(self, summary: Summary) -> None:
        """The run ended, however it did. Called once, last, and only when `started` was."""


def _numbers(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested mappings as flat `group/name` keys, without what is no finite number: trackers draw gaps themselves."""
    flat: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            flat.update(_numbers(value, f"{prefix}{name}/"))
        elif math.isfinite(number := float(value)):
            flat[prefix + name] = number
    return flat


class Tracker(Observer):
    """Sends every logged number somewhere; a back end says how to begin, send and end."""

    name: str

    def started(self, run: Run, method: Method) -> None:
        try:
            self.begin(run)
        except Exception as error:
            raise InputError(f"the tracker {self.name!r} could not start: {error}; fix its settings, or leave it out of --track") from error

    def stepped(self, step: int, metrics: Metrics, ledger: Ledger) -> None:
        self._send(step, {**metrics, "ledger": ledger.to_plain()})

    def evaluated(self, step: int, metrics: Metrics) -> None:
        self._send(step, metrics)

    def probed(self, step: int, metrics: Metrics, message: str) -> None:
        self._send(step, metrics)

    def finished(self, summary: Summary) -> None:
        with self._tolerated():
            self.end(summary)

    def _send(self, step: int, metrics: Mapping[str, Any]) -> None:
        with self._tolerated():
            self.send(step, _numbers(metrics))

    @contextmanager
    def _tolerated(self) -> Iterator[None]:
        """A tracker that fails half-way (its server is gone) must not end hours of training; metrics.jsonl has the numbers all the same."""
        try:
            yield
        except Exception as error:
            warnings.warn(f"the tracker {self.name!r} failed: {error}; the run goes on, and metrics.jsonl has every number", stacklevel=4)

    def begin(self, run: Run) -> None:
        raise NotImplementedError

    def send(self, step: int, numbers: dict[str, float]) -> None:
        raise NotImplementedError

    def end(self, summary: Summary) -> None:
        raise NotImplementedError


def _settings(run: Run) -> dict[str, Any]:
    from etude.run import load_config

    return load_config(run.folder / "config.yaml")


class TensorBoard(Tracker):
    """Event files in the run's `tensorboard/` folder. On resume, what was sent after the checkpoint is hidden."""

    name = "tensorboard"

    def begin(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.step + 1 if run.step else None)

    def send(self, step: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def end(self, summary: Summary) -> None:
        self.writer.close()


class WandB(Tracker):
    """Weights & Biases, project `etude` unless WANDB_PROJECT says otherwise. The run's own id makes a resumed run go on in the same place."""

    name = "wandb"

    def begin(self, run: Run) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        project = os.environ.get("WANDB_PROJECT", "etude")
        self.run = wandb.init(project=project, id=run.id, name=run.folder.name, dir=str(run.folder), config=_settings(run), resume="allow")
        # Its own step may never go back, as it does after a resume; a metric of our own as the axis may.
        self.run.define_metric("*", step_metric="step")

    def send(self, step: int, numbers: dict[str, float]) -> None:
        self.run.log({**numbers, "step": step})

    def end(self, summary: Summary) -> None:
        self.run.finish(exit_code=1 if summary.status in ("failed", "collapsed") else 0)


class TrackIO(Tracker):
    """Trackio's local store, project `etude` unless TRACKIO_PROJECT says otherwise."""

    name = "trackio"

    def begin(self, run: Run) -> None:
        import trackio  # pyright: ignore[reportMissingImports]

        self.run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "etude"),
            name=f"{run.folder.name}-{run.id[:6]}",
            config=_settings(run),
            resume="allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    def send(self, step: int, numbers: dict[str, float]) -> None:
        self.run.log(numbers, step=step)

    def end(self, summary: Summary) -> None:
        self.run.finish()


class MLflow(Tracker):
    """MLflow, experiment `etude` unless MLFLOW_EXPERIMENT_NAME says otherwise. Its run id is kept in `mlflow.json`, for resuming.

    Without MLFLOW_TRACKING_URI it writes where MLflow does by itself; the slim package, which has no database, to the folder `mlruns` beside the run's.
    """

    name = "mlflow"

    def begin(self, run: Run) -> None:
        import mlflow  # pyright: ignore[reportMissingImports]

        if "MLFLOW_TRACKING_URI" not in os.environ and importlib.util.find_spec("sqlalchemy") is None:
            # Newer versions want to be told that files are meant.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            mlflow.set_tracking_uri((run.folder.resolve().parent / "mlruns").as_uri())
        self.client = mlflow.MlflowClient()
        note = run.folder / "mlflow.json"
        if note.exists():
            self.run_id = json.loads(note.read_text())["run_id"]
            self.client.update_run(self.run_id, status="RUNNING")
            return
        experiment = mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "etude"))
        self.run_id = self.client.create_run(experiment.experiment_id, run_name=run.folder.name).info.run_id
        note.write_text(json.dumps({"run_id": self.run_id}))
        for group, options in _settings(run).items():
            for name, value in options.items() if isinstance(options, Mapping) else [(group, options)]:
                self.client.log_param(self.run_id, f"{group}.{name}" if isinstance(options, Mapping) else name, str(value)[:500])

    def send(self, step: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            # MLflow takes no @ in names, which pass@k has.
            self.client.log_metric(self.run_id, name.replace("@", "_at_"), value, step=step)

    def end(self, summary: Summary) -> None:
        states = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED", "collapsed": "FAILED"}
        self.client.set_terminated(self.run_id, status=states[summary.status])


TRACKERS: dict[str, type[Tracker]] = {tracker.name: tracker for tracker in (TensorBoard, WandB, TrackIO, MLflow)}


def require_trackers(names: Iterable[str]) -> None:
    """Refuse trackers that cannot be used, before anything is spent.

    Raises InputError for an unknown name, MissingExtra for one whose package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"there is no tracker {name!r}.{nearest(name, TRACKERS)} Expected some of {', '.join(TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            raise MissingExtra(name, name, f"--track {name}")


def make_trackers(names: Iterable[str]) -> list[Tracker]:
    """The named trackers, each once. Raises as `require_trackers` does."""
    wanted = list(dict.fromkeys(names))
    require_trackers(wanted)
    return [TRACKERS[name]() for name in wanted]

"""The outer loop: drives a method through its run, and sees to it that whatever happens, what was paid for is kept.

    set up -> evaluate -> (step -> log -> evaluate every N -> checkpoint every N) until the steps or the budget are used up -> evaluate -> checkpoint

Where a method has a probe (`etude.watch`), it is read before an evaluation, so that a state that shows a collapse can be left before it is measured and kept.
The first SIGINT or SIGTERM ends the run after the step in progress, with a checkpoint; the second ends it at once. A checkpoint records how far the logs had
got, so that a resumed run takes them back to that point and writes what the uninterrupted run would have written.
"""

from __future__ import annotations

import errno
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, TypeVar

from etude.checkpoints import Checkpoint
from etude.durable import clear_drafts
from etude.errors import CheckpointError, EtudeError, InputError, LearnerLost, MissingExtra, NonFiniteError, OutOfMemory, first_line, ran_out_of_memory
from etude.ledger import Ledger, spent_units
from etude.method import Method
from etude.run import Run
from etude.summary import Status, Summary
from etude.tracking import Observer, make_trackers
from etude.types import Metrics
from etude.watch import Guard

__all__ = ["Observer", "Summary", "drive"]

Measured = TypeVar("Measured")

SCORE_KEY = "eval/pass@1"
"""The evaluation metric that says which checkpoint is best, for a method that has no `score_key` of its own."""
PATIENCE = 5
"""Steps after which something of the budget has to be spent."""


def drive(method: Method, run: Run, *, display: Observer | None = None, resume: bool = False) -> Summary:
    """Run a method to its end and say how that went.

    resume: go on from the newest whole checkpoint, or from the start when there is none yet. A run that has ended already is left as it is, and its summary
    returned, unless its steps or budget were raised.
    Raises what the method raised (NonFiniteError naming the step, OutOfMemory for a GPU that was too small), after `result.json` is written; KeyboardInterrupt after a
    second signal; InputError when another process drives this run, or when it has begun and `resume` is not set.
    """
    with run.lock():
        checkpoint = _restore_run(run, resume)
        ended = run.result()
        if ended is not None and ended.status in ("finished", "collapsed") and checkpoint is not None and checkpoint.step == ended.step:
            if reason := run.stop_reason():
                ended.reason = f"nothing to do: {reason}; raise --steps or --budget to go on"
                return ended
            if reason := Guard(run).ended():
                ended.reason = f"nothing to do: {reason}; --on-collapse warn goes on regardless"
                return ended
        _prepare_folder(run, checkpoint, resume)
        observers: list[Observer] = [*make_trackers(run.config.track), *([display] if display is not None else [])]
        try:
            return _Drive(method, run, observers).go(checkpoint)
        finally:
            method.close()


def _restore_run(run: Run, resume: bool) -> Checkpoint | None:
    """Find where the run stands and set its counters to that. Changes nothing in the folder."""
    if not resume:
        if run.checkpoints.steps() or run.metrics_log.path.exists():
            raise InputError(f"the run in {run.folder} has begun already; go on with --resume {run.folder}, or train into another folder with --out")
        return None
    checkpoint = run.checkpoints.newest()
    if checkpoint is not None:
        run.step = checkpoint.step
        run.ledger.restore(Ledger.from_plain(checkpoint.progress["ledger"]))
        if checkpoint.progress["seed"] != run.seed:
            raise InputError(f"the run in {run.folder} was begun with seed {checkpoint.progress['seed']}, not {run.seed}; resume it with the seed it has")
    return checkpoint


def _prepare_folder(run: Run, checkpoint: Checkpoint | None, resume: bool) -> None:
    """Take the folder back to what the checkpoint saw; nothing for a run that begins."""
    clear_drafts(run.folder)
    (run.folder / "result.json").unlink(missing_ok=True)
    progress: Mapping[str, Any] = checkpoint.progress if checkpoint is not None else {}
    run.metrics_log.rewind(progress.get("metrics_bytes", 0), run.step)
    run.trajectories_log.rewind(progress.get("trajectories_bytes", 0), run.step)
    run.trees_log.rewind(progress.get("trees_bytes", 0), run.step)
    run.judgements_log.rewind(progress.get("judgements_bytes", 0), run.step)
    run.probe_log.rewind(progress.get("probe_bytes", 0), run.step)
    Guard(run).hold()
    if checkpoint is not None:
        run.checkpoints.recover(checkpoint.step)
    if resume:
        run.record_resume()


class _StopSignals:
    """Turns the first SIGINT or SIGTERM into a request, and any later one into KeyboardInterrupt. Outside the main thread signals stay as they are."""

    def __init__(self, on_request: Callable[[str], None]) -> None:
        self.requested: str | None = None
        self.patient = False
        """While False (nothing is there yet to be saved), the first signal ends the run at once."""
        self._on_request = on_request
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> _StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.requested is not None or not self.patient:
            self.requested = name
            raise KeyboardInterrupt(name)
        self.requested = name
        self._on_request(name)


class _Drive:
    """One process's part in a run."""

    def __init__(self, method: Method, run: Run, observers: list[Observer]) -> None:
        self.method = method
        self.run = run
        self.observers = observers
        self.score_key: str = getattr(method, "score_key", SCORE_KEY)
        self.evaluated_at = -1
        self.saved_at = -1
        self.score: float | None = None
        """Score of the evaluation at `evaluated_at`."""
        self.guard = Guard(run)
        self.listening: list[Observer] = []
        """Observers that were told of the start, and are owed the end."""

    def go(self, checkpoint: Checkpoint | None) -> Summary:
        run = self.run
        with _StopSignals(self._announce_stop) as signals:
            try:
                self._begin(checkpoint)
                signals.patient = True
                interrupted = self._loop(signals)
            except KeyboardInterrupt:
                self._end("interrupted", f"stopped at once by {signals.requested or 'KeyboardInterrupt'}; {self._kept()}")
                raise
            except (InputError, MissingExtra) as error:
                if run.step == 0 and not run.metrics_log.path.exists() and self._last_saved() is None:
                    # Refused before anything was spent: the same command, put right, must find its folder free.
                    self._tell_finished(self._summary("failed", str(error)))
                    run.discard()
                else:
                    self._end("failed", str(error))
                raise
            except OSError as error:
                message = f"step {run.step}: {error}; {self._kept()}"
                self._end("failed", message)
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise CheckpointError(f"the disk is full at {message}") from error
                raise
            except Exception as error:
                if (located := self._located(error)) is not None:
                    self._end("failed", str(located))
                    raise located from error
                message = str(error) if isinstance(error, EtudeError) else f"{type(error).__name__}: {error}"
                self._end("failed", f"step {run.step}: {message}")
                raise
            if interrupted:
                return self._end("interrupted", f"stopped by {signals.requested} after step {run.step}; go on with --resume {run.folder}")
            if (collapse := self.guard.ended()) is not None:
                return self._end("collapsed", collapse)
            return self._end("finished", self._stop_reason() or "")

    def _begin(self, checkpoint: Checkpoint | None) -> None:
        self._set_threads()
        self.run.seed_libraries("setup")
        self.method.setup()
        if self.method.watch is None and (wanted := self.run.config.on_collapse) != "warn":
            raise InputError(f"--on-collapse {wanted} acts on what a probe shows, and {self.method.card.name} has none; leave it out")
        self._set_threads()
        if checkpoint is not None:
            self.method.load_state(checkpoint.state())
            self.evaluated_at = checkpoint.progress["evaluated_at"]
            self.saved_at = checkpoint.step
        for observer in self.observers:
            observer.started(self.run, self.method)
            self.listening.append(observer)

    def _set_threads(self) -> None:
        # A method without torch is spared the seconds that importing it takes; one that imports it only in its setup is told afterwards.
        if self.run.config.threads and (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(self.run.config.threads)

    def _loop(self, signals: _StopSignals) -> bool:
        """Step until there is nothing left to do, or until a signal asks to stop; says whether the latter."""
        self._settle()
        while self._stop_reason() is None:
            if signals.requested is None:
                self._step()
            if signals.requested is not None:
                if self.saved_at != self.run.step:
                    self._checkpoint()
                return True
            self._settle()
        return False

    def _stop_reason(self) -> str | None:
        return self.guard.ended() or self.run.stop_reason() or self.method.done()

    def _step(self) -> None:
        run = self.run
        run.step += 1
        run.seed_libraries("step", run.step)
        began = time.perf_counter()
        metrics = dict(self.method.step())
        metrics["time/step"] = time.perf_counter() - began
        run.ledger.steps += 1
        run.ledger.seconds += metrics["time/step"]
        run.log(run.step, metrics)
        for observer in self.listening:
            observer.stepped(run.step, metrics, run.ledger)
        if run.budget is not None and run.ledger.steps == PATIENCE and run.budget.used(run.ledger) == 0:
            raise InputError(
                f"nothing of the budget of {run.budget} is spent after {PATIENCE} steps: {self.method.card.name} on these tasks spends no {run.budget.unit}; "
                f"expected a budget in one of {', '.join(spent_units(run.ledger))}"
            )

    def _settle(self) -> None:
        """Probe, evaluate and checkpoint where that is due after the step that was just done. Checkpoints are also written at the start and for a new best."""
        step, config = self.run.step, self.run.config
        best = self._probe()
        last = self._stop_reason() is not None
        if self.evaluated_at != step and (last or step == 0 or _due(step, config.evaluate_every)):
            best = self._evaluate() or best
        if best or (self.saved_at != step and (last or step == 0 or _due(step, config.checkpoint_every))):
            self._checkpoint()

    def _probe(self) -> bool:
        """Read the probe where that is due, and do what follows from it; says whether the state has to be kept, to be gone back to."""
        run, watch = self.run, self.method.watch
        if watch is None or self.guard.read_at == run.step or not (run.step == 0 or _due(run.step, watch.every) or run.stop_reason() is not None):
            return False
        reading, seconds = self._apart("probe", watch.read)
        finding = self.guard.take(reading, self.method, watch.limits)
        if finding.to is not None:
            self.saved_at = -1
        run.log(run.step, {**finding.metrics, "time/probe": seconds})
        for observer in self.listening:
            if (hear := getattr(observer, "probed", None)) is not None:
                hear(run.step, finding.metrics, finding.message)
        return self.guard.holds(finding)

    def _apart(self, purpose: str, measure: Callable[[], Measured]) -> tuple[Measured, float]:
        """What a measurement gives, and its seconds. Whatever the method counted meanwhile is evaluation, which spends from no budget."""
        run = self.run
        run.seed_libraries(purpose, run.step)
        before = run.ledger.copy()
        began = time.perf_counter()
        measured = measure()
        seconds = time.perf_counter() - began
        run.ledger.set_apart_evaluation(before)
        run.ledger.evaluation_seconds = before.evaluation_seconds + seconds
        return measured, seconds

    def _evaluate(self) -> bool:
        """Measure and log; says whether this is the best score so far."""
        run = self.run
        measured, seconds = self._apart("evaluation", self.method.evaluate)
        metrics = {**measured, "time/evaluation": seconds}
        run.log(run.step, metrics)
        self.evaluated_at = run.step
        score = metrics.get(self.score_key, math.nan)
        self.score = float(score) if math.isfinite(score) else None
        for observer in self.listening:
            observer.evaluated(run.step, metrics)
        best = run.checkpoints.best()
        return self.score is not None and (best is None or self.score > best[1])

    def _checkpoint(self) -> None:
        run = self.run
        # First: a method may have to count what it drops.
        state = self.method.state()
        progress = {
            "ledger": run.ledger.to_plain(),
            "seed": run.seed,
            "evaluated_at": self.evaluated_at,
            "metrics_bytes": run.metrics_log.sync(),
            "trajectories_bytes": run.trajectories_log.sync(),
            "trees_bytes": run.trees_log.sync(),
            "judgements_bytes": run.judgements_log.sync(),
            "probe_bytes": run.probe_log.sync(),
        }
        score = self.score if self.evaluated_at == run.step else None
        path = run.checkpoints.save(run.step, state, progress=progress, score=score)
        self.saved_at = run.step
        for observer in self.listening:
            observer.checkpointed(path)

    def _last_saved(self) -> int | None:
        return max(self.run.checkpoints.steps(), default=None)

    def _located(self, error: Exception) -> EtudeError | None:
        """What stopped a step, with the step and the checkpoint to go on from; None for an error that says nothing of that kind."""
        if isinstance(error, NonFiniteError):
            return NonFiniteError(f"step {self.run.step}: {error}. Nothing was overwritten; {self._kept()}")
        if isinstance(error, LearnerLost):
            return LearnerLost(f"step {self.run.step}: {error}; {self._kept()}")
        if ran_out_of_memory(error):
            return OutOfMemory(f"step {self.run.step}: GPU memory ran out ({first_line(error)}); {self.method.memory_relief}; {self._kept()}")
        return None

    def _kept(self) -> str:
        step = self._last_saved()
        return "there is no checkpoint yet" if step is None else f"the checkpoint of step {step} is kept; go on from it with --resume {self.run.folder}"

    def _announce_stop(self, name: str) -> None:
        for observer in self.listening:
            if (hear := getattr(observer, "stopping", None)) is not None:
                hear(name)

    def _summary(self, status: Status, reason: str) -> Summary:
        metrics: Metrics = {}
        evaluations: list[Metrics] = []
        for line in self.run.metrics_log:
            numbers = {k: v for k, v in line.items() if k not in ("step", "ledger") and v is not None}
            metrics.update(numbers)
            if any(k.startswith("eval/") or k == self.score_key for k in numbers):
                evaluations.append(numbers)
        best = self.run.checkpoints.best()
        return Summary(
            status=status,
            reason=reason,
            step=self.run.ledger.steps,
            folder=self.run.folder,
            ledger=self.run.ledger.copy(),
            metrics=metrics,
            before=evaluations[0] if evaluations else {},
            after=evaluations[-1] if evaluations else {},
            best={"step": best[0], "score": best[1]} if best else None,
            score_key=self.score_key,
            method=self.method.card.slug,
            collapses=self.guard.history.collapses(),
        )

    def _end(self, status: Status, reason: str) -> Summary:
        summary = self._summary(status, reason)
        try:
            summary.write()
        except OSError:
            # On a full disk the result has no room either; the error that ended the run is the one to show.
            if status == "finished":
                raise
        self._tell_finished(summary)
        return summary

    def _tell_finished(self, summary: Summary) -> None:
        while self.listening:
            self.listening.pop(0).finished(summary)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0

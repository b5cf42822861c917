"""Batches that are generated while earlier ones are trained on: the asynchronous mode of a run.

A batch is written by the weights of at most `lag` updates before those that it is trained on, all of it by the same ones: samplers take new weights between batches,
and which ones a batch gets is decided when it is begun, by the step in progress and not by the clock. So a run repeats itself. Nothing is in flight where the run
evaluates, reads a probe or writes a checkpoint by its schedule; the batch after such a step is begun after it. So a run that is resumed from there goes on as if it
had not been stopped.
"""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etude.distributed.sampler import RaySampler, Weights
from etude.errors import InputError
from etude.ledger import Ledger
from etude.memory import Curriculum
from etude.objectives import PolicyObjective
from etude.types import Group

if TYPE_CHECKING:
    from etude.loop import PolicyOptimization


@dataclass
class _Batch:
    """One step's rollouts. method: as it was when they were begun, with a run of its own that counts what they cost. earlier: batches before it that were under way then."""

    step: int
    method: PolicyOptimization
    weights: Weights
    earlier: Sequence[_Batch]
    changed: dict[str, Any] = field(default_factory=dict)
    """What `collect` left on the method for the lines of the step that follow it."""
    seconds: float = 0.0
    future: Future[list[Group]] | None = None


class Ahead:
    """Begins the batches of the next `lag` steps before the one in progress is trained on, and hands them out in order.

    `collect` runs in a thread of its own, one batch after the other, on a copy of the method: what it leaves there for later lines is the method's when the batch is
    handed out, and so is what it spent.
    """

    def __init__(self, method: PolicyOptimization, sampler: RaySampler, lag: int) -> None:
        self._method, self._sampler, self._lag = method, sampler, lag
        self._batches: deque[_Batch] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="etude-rollouts")
        self.seconds = 0.0
        """How long the rollouts of the batch took that was handed out last."""
        sampler.held_back = True

    def next(self) -> list[Group]:
        """The groups of the step in progress, once they are there. Raises what `collect` raised."""
        run = self._method.run
        begun = self._batches[-1].step + 1 if self._batches else run.step
        for step in range(begun, self._furthest() + 1):
            self._begin(step)
        batch = self._batches.popleft()
        groups = _result(batch)
        vars(self._method).update(batch.changed)
        run.ledger.restore(run.ledger + batch.method.run.ledger)
        self.seconds = batch.seconds
        return groups

    def _furthest(self) -> int:
        """The last step whose batch may be begun in the step in progress."""
        run, watch = self._method.run, self._method.watch
        every = [n for n in (run.config.evaluate_every, run.config.checkpoint_every, watch.every if watch is not None else 0) if n]
        last = min(run.step + self._lag, max(run.step, run.config.steps))
        return min([last, *(-(-run.step // n) * n for n in every)])

    def _begin(self, step: int) -> None:
        method = copy.copy(self._method)
        method.run = copy.copy(method.run)
        method.run.step, method.run.ledger = step, Ledger()
        batch = _Batch(step, method, self._sampler.given, tuple(self._batches))
        batch.future = self._thread.submit(self._collect, batch)
        self._batches.append(batch)

    def _collect(self, batch: _Batch) -> list[Group]:
        began = time.perf_counter()
        self._sampler.renew(batch.weights)
        method = batch.method
        for earlier in batch.earlier:
            vars(method).update(earlier.changed)
        before = dict(vars(method))
        groups = method.collect(method.curriculum.next(method.config.tasks_per_step))
        batch.changed = {name: value for name, value in vars(method).items() if name not in before or before[name] is not value}
        batch.seconds = time.perf_counter() - began
        return groups

    def still(self) -> None:
        """Wait until nothing is generated, and have samplers take the newest weights: before anything else is asked of them."""
        wait([batch.future for batch in self._batches if batch.future is not None])
        self._sampler.renew(self._sampler.given)

    def abandon(self) -> int:
        """Drop what was begun for later steps, and count what it cost; returns how many batches that were."""
        dropped = len(self._batches)
        while self._batches:
            batch = self._batches.popleft()
            _result(batch)
            vars(self._method).update(batch.changed)
            run = self._method.run
            run.ledger.restore(run.ledger + batch.method.run.ledger)
        return dropped

    def close(self) -> None:
        """Begin nothing more. What is under way ends with the samplers."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _result(batch: _Batch) -> list[Group]:
    assert batch.future is not None
    return batch.future.result()


def open_ahead(method: PolicyOptimization, lag: int) -> Ahead:
    """Raises InputError for a method whose rollouts and updates cannot go on side by side, and for one that would take tokens of older weights for its own."""
    name, sampler = method.card.name, method.policy.sampler
    assert isinstance(sampler, RaySampler)
    if not vars(type(method)).get("overlaps", False):
        raise InputError(
            f"--max-staleness is {lag}, and {name} does not say that its rollouts can go on beside an update; expected --max-staleness 0 with it, a method whose rollouts can "
            "(grpo, dapo, april, xrpo, …), or `overlaps = True` in a class of your own"
        )
    if type(method.curriculum).observe is not Curriculum.observe:
        raise InputError(f"--max-staleness is {lag}, and the curriculum of {name} chooses tasks by how the last ones went; expected --max-staleness 0 with it")
    if not isinstance(method.criterion, PolicyObjective) or method.criterion.correction is None:
        raise InputError(
            f"--max-staleness is {lag}, and nothing in the objective of {name} weighs tokens of older weights; expected --correction truncate (or auto), or --max-staleness 0"
        )
    return Ahead(method, sampler, lag)

"""A training run as a discrete-event simulation on the decode-step clock: samplers, a learner, and a schedule that says who waits for whom.

A decode step advances every running sequence of a sampler by one token, as in the embedded engine, so that what a schedule costs follows from lengths and slots and not
from an average. Nothing is simulated token by token: a sampler jumps to the step in which its next sequence ends, unless something joins or a pause is asked for, which
takes effect at the end of the step in progress. Seconds come in only as the price of a step, of a read token, of an update.

    sampler: take what waits -> decode until the next one ends -> hand it on       learner: wait for a batch -> update -> give the samplers new weights
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

import simpy

from etude.planning.parts import Attempt, Batch, Costs, Counts, Group, Schedule

Process = Generator[simpy.Event, Any, None]


class Sampler:
    """One replica: some slots, a clock that counts decode steps, and an inbox of attempts that were sent to it."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.inbox: deque[Attempt] = deque()
        self.running: list[tuple[int, int, Attempt]] = []
        """A heap of (clock at which the turn ends, order, attempt)."""
        self.prompts: set[int] = set()
        self.clock = 0
        self.order = 0
        self.wake = plant.env.event()
        self.halted = plant.env.event()

    @property
    def load(self) -> int:
        return len(self.running) + len(self.inbox)

    def poke(self) -> None:
        """Have it look again, at the end of the step that it is in."""
        if not self.wake.triggered:
            self.wake.succeed()

    def run(self) -> Process:
        plant, env = self.plant, self.plant.env
        while True:
            if self.wake.triggered:
                self.wake = env.event()
            if plant.pausing:
                self.halted.succeed()
                yield plant.resumed
                continue
            if not self.load:
                yield self.wake
                continue
            entering = [self.inbox.popleft() for _ in range(min(len(self.inbox), plant.schedule.slots - len(self.running)))]
            if self.running:
                # Whoever joins does so at the end of a step.
                yield from self._decode(1 if entering else self.running[0][0] - self.clock)
            if entering:
                yield from self._enter(entering)
            ended = []
            while self.running and self.running[0][0] <= self.clock:
                ended.append(heapq.heappop(self.running)[2])
            for attempt in ended:
                self.note(attempt)
                attempt.left.pop(0)
                if plant.schedule.environment_inside and plant.costs.environment:
                    plant.counts.environment += plant.costs.environment
                    yield env.timeout(plant.costs.environment)
                plant.turn_ended(attempt)

    def _decode(self, steps: int) -> Process:
        env, counts, running = self.plant.env, self.plant.counts, len(self.running)
        cost, began = self.plant.costs.step(running), env.now
        whole = env.timeout(steps * cost)
        yield whole | self.wake
        if not whole.processed:
            steps = min(steps, math.ceil((env.now - began) / cost - 1e-9)) if cost else steps
            yield env.timeout(max(0.0, began + steps * cost - env.now))
        self.clock += steps
        counts.steps += steps
        counts.slot_steps += steps * self.plant.schedule.slots
        counts.busy_slot_steps += steps * running
        counts.decoding += steps * cost
        counts.busy_slot_seconds += steps * cost * running

    def _enter(self, entering: Sequence[Attempt]) -> Process:
        """Read what is new to the cache, a group's prompt once, and draw each one's first token."""
        read = 0
        for attempt in entering:
            if attempt.fresh and attempt.written:
                read += self.plant.schedule.prompt + attempt.written
            elif attempt.fresh and attempt.group.number not in self.prompts:
                self.prompts.add(attempt.group.number)
                read += self.plant.schedule.prompt
            attempt.fresh = False
        costs = self.plant.costs
        seconds = costs.reading + read * costs.prefill_token + len(entering) * costs.decode_token
        self.plant.counts.prefilled += read
        self.plant.counts.prefilling += seconds
        if seconds:
            yield self.plant.env.timeout(seconds)
        for attempt in entering:
            attempt.entered = self.clock - 1
            self.order += 1
            heapq.heappush(self.running, (self.clock + attempt.left[0] - 1, self.order, attempt))

    def note(self, attempt: Attempt) -> None:
        """Count the tokens that an attempt has drawn under the weights of now."""
        tokens, attempt.entered = self.clock - attempt.entered, self.clock
        if tokens:
            attempt.drawn.append((self.plant.version, tokens))
            attempt.left[0] -= tokens
            self.plant.counts.generated += tokens

    def stop(self) -> None:
        """Take everything out. It waits with its group, and its context has to be read again."""
        for _, _, attempt in self.running:
            self.note(attempt)
            attempt.fresh = True
        self.running.clear()
        self.inbox.clear()
        self.prompts.clear()

    def reread(self) -> Process:
        """Read everything that runs again, under new weights."""
        read = sum(self.plant.schedule.prompt + attempt.written for _, _, attempt in self.running)
        self.prompts.clear()
        self.plant.counts.prefilled += read
        self.plant.counts.prefilling += read * self.plant.costs.prefill_token
        yield self.plant.env.timeout(read * self.plant.costs.prefill_token)


class Plant:
    """Samplers, a learner and the groups between them. `draw` gives the lengths of the next group's attempts, in tokens, 1 or more each."""

    def __init__(self, schedule: Schedule, costs: Costs, draw: Callable[[], Sequence[int]]) -> None:
        if min(schedule.samplers, schedule.slots, schedule.batch, schedule.over_provision) < 1:
            raise ValueError(f"{schedule} cannot run; expected a sampler, a slot and a group a batch at least, and over_provision of 1 or more")
        if costs.decode_step + costs.decode_token <= 0:
            raise ValueError("a decode step takes no time; expected decode_step or decode_token above 0")
        self.env = simpy.Environment()
        self.schedule, self.costs, self.draw = schedule, costs, draw
        self.counts = Counts()
        self.version = 0
        self.pausing = False
        self.resumed = self.env.event()
        self.changed = self.env.event()
        self.asked = self.complete = 0
        self.waiting: deque[Attempt] = deque()
        self.groups: list[Group] = []
        """Groups that are not trained on yet, the oldest first."""
        self.wanted: Callable[[], bool] = lambda: False
        """Whether a batch is ready, asked whenever a group completes; samplers pause at once where it is and `halting` is set."""
        self.halting = False
        self.stopped = False
        """Nothing may wait for a sampler: what an environment answers to comes back when its group is sent again."""
        self.batches: list[Batch] = []
        self.marks: list[Counts] = []
        self.samplers = [Sampler(self) for _ in range(schedule.samplers)]

    def simulate(self, updates: int) -> None:
        """Run until so many updates are done; `batches` and `marks` then have one entry for each."""
        for sampler in self.samplers:
            self.env.process(sampler.run())
        mode = {"synchronous": self._synchronous, "partial": self._partial, "asynchronous": self._asynchronous}[self.schedule.mode]
        self.env.run(until=self.env.process(mode(updates)))

    # Schedules

    def _synchronous(self, updates: int) -> Process:
        batch = self.schedule.batch
        for _ in range(updates):
            self.ask(batch)
            self.send(self.groups)
            yield from self.until(lambda: self.complete >= batch, halting=True)
            yield from self.update(self.groups[:])

    def _partial(self, updates: int) -> Process:
        batch, limit = self.schedule.batch, self.schedule.max_staleness
        requested = round(self.schedule.over_provision * batch)
        for _ in range(updates):
            self.ask(requested - len(self.groups))
            overdue = [g for g in self.groups[:requested] if limit and g.oldest is not None and self.version - g.oldest >= limit]
            self.send(self.groups[:requested])
            yield from self.until(lambda old=overdue: self.complete >= batch and all(g.complete for g in old), halting=True)
            self.stop()
            yield from self.update([g for g in self.groups if g.complete][:batch])

    def _asynchronous(self, updates: int) -> Process:
        batch, limit = self.schedule.batch, self.schedule.max_staleness
        for _ in range(updates):
            begun = (self.version + limit + 1) * batch
            self.send(self.ask(begun - self.asked))
            yield from self.until(lambda: self.complete >= batch and all(g.complete for g in self.groups if self._overdue(g)))
            chosen = sorted((g for g in self.groups if g.complete), key=lambda g: (not self._overdue(g), g.number))
            yield from self.update(chosen[:batch])

    def _overdue(self, group: Group) -> bool:
        oldest = group.oldest
        # What runs has tokens that are not noted yet: those since the last change of weights, which are newer than any that are.
        return oldest is not None and self.version - oldest >= self.schedule.max_staleness

    # Their parts

    def ask(self, count: int) -> list[Group]:
        """Begin so many groups."""
        asked = []
        for _ in range(count):
            group = Group(self.asked)
            group.attempts = [Attempt(group, self._turns(length)) for length in self.draw()]
            self.asked += 1
            asked.append(group)
        self.groups += asked
        return asked

    def _turns(self, length: int) -> list[int]:
        """A length in as many equal turns as there are, of one token at least."""
        turns = min(self.schedule.turns, length)
        return [length // turns + (i < length % turns) for i in range(turns)]

    def send(self, groups: Sequence[Group]) -> None:
        """Have samplers begin or go on with what has not ended of some groups."""
        self.stopped = False
        self.waiting += [attempt for group in groups for attempt in group.attempts if attempt.left and not attempt.away]
        self.dispatch()

    def stop(self) -> None:
        """Take everything out of the samplers, which stand still. What is unfinished waits with its group."""
        self.stopped = True
        self.waiting.clear()
        for sampler in self.samplers:
            sampler.stop()

    def dispatch(self) -> None:
        """Give waiting attempts to the samplers with the most free slots."""
        while self.waiting:
            sampler = min(self.samplers, key=lambda s: s.load)
            if sampler.load >= self.schedule.slots:
                return
            sampler.inbox.append(self.waiting.popleft())
            sampler.poke()

    def turn_ended(self, attempt: Attempt) -> None:
        """What follows a turn: the environment's answer, then another turn or the end."""
        if self.costs.environment and not self.schedule.environment_inside:
            self.env.process(self._answer(attempt))
        else:
            self._go_on(attempt)
        self.dispatch()

    def _answer(self, attempt: Attempt) -> Process:
        self.counts.environment += self.costs.environment
        attempt.away = True
        yield self.env.timeout(self.costs.environment)
        attempt.away = False
        self._go_on(attempt)
        self.dispatch()

    def _go_on(self, attempt: Attempt) -> None:
        if attempt.left:
            if not self.stopped:
                self.waiting.append(attempt)
            return
        attempt.group.ended += 1
        if not attempt.group.complete:
            return
        self.complete += 1
        if self.wanted():
            self.pausing = self.halting
            if not self.changed.triggered:
                self.changed.succeed()

    def until(self, ready: Callable[[], bool], *, halting: bool = False) -> Process:
        """Wait until a batch is ready; with `halting`, samplers then stand still."""
        self.wanted, self.halting, self.changed = ready, halting, self.env.event()
        if not ready():
            yield self.changed
        self.wanted = lambda: False
        if halting:
            yield from self.pause()

    def pause(self) -> Process:
        """Stand all samplers still, each at the end of its step."""
        self.pausing = True
        for sampler in self.samplers:
            sampler.poke()
        yield self.env.all_of([sampler.halted for sampler in self.samplers])

    def resume(self) -> None:
        self.pausing = False
        for sampler in self.samplers:
            sampler.halted = self.env.event()
        resumed, self.resumed = self.resumed, self.env.event()
        resumed.succeed()

    def update(self, groups: Sequence[Group]) -> Process:
        """Train on some groups and give the samplers the new weights."""
        taken = set(groups)
        self.groups = [group for group in self.groups if group not in taken]
        self.complete -= len(taken)
        attempts = [attempt for group in groups for attempt in group.attempts]
        tokens = sum(attempt.written for attempt in attempts)
        lags: dict[int, int] = {}
        for version, count in (part for attempt in attempts for part in attempt.drawn):
            lags[self.version - version] = lags.get(self.version - version, 0) + count
        seconds = self.costs.update + self.costs.train_token * (tokens + self.schedule.prompt * len(groups))
        yield self.env.timeout(seconds)
        self.counts.learning += seconds
        if not self.pausing:
            yield from self.pause()
        yield self.env.timeout(self.costs.sync)
        self.counts.syncing += self.costs.sync
        for sampler in self.samplers:
            for _, _, attempt in sampler.running:
                sampler.note(attempt)
        self.version += 1
        if any(sampler.running for sampler in self.samplers):
            yield self.env.all_of([self.env.process(sampler.reread()) for sampler in self.samplers])
        self.batches.append(Batch(self.env.now, tokens, lags))
        self.counts.seconds = self.env.now
        self.marks.append(Counts(**vars(self.counts)))
        self.resume()

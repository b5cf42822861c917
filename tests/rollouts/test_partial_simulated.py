"""The planner's simulation of partial rollouts against partial rollouts themselves."""

from __future__ import annotations

from itertools import pairwise

from test_episodes import Talks
from test_partial import GROUP, Line

from etude.planning import Costs, Plant, Schedule
from etude.rollouts.staleness import lags
from etude.types import trajectories_of


def test_the_simulation_takes_the_steps_and_has_the_lags_of_partial_rollouts() -> None:
    line = Line(Talks(0), target=2, requested=5, slots=6)
    steps, found = [], []
    for _ in range(6):
        before, version = line.ledger.decode_steps, line.policy.sampler.version
        trained = trajectories_of(line.phase().accepted)
        steps.append(line.ledger.decode_steps - before)
        drawn = lags(trained, version)
        found.append({lag: drawn.count(lag) for lag in sorted(set(drawn))})
    lengths = [t.generated_length for t in line.synchronous(line.cursor)]
    groups = iter([lengths[i : i + GROUP] for i in range(0, len(lengths), GROUP)])
    plant = Plant(Schedule(mode="partial", batch=2, over_provision=2.5, slots=6), Costs(decode_step=1.0), lambda: next(groups))
    plant.simulate(6)
    marks = [0, *(mark.steps for mark in plant.marks)]
    assert [b - a for a, b in pairwise(marks)] == steps
    assert [dict(sorted(batch.lags.items())) for batch in plant.batches] == found
    assert max(map(max, found)) > 1, "nothing was resumed twice, so that this shows little"

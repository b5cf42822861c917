"""What partial rollouts save in wall time, against waiting for every attempt: `python benchmarks/partial_rollouts.py`.

The weights stay as they are, so that both sides sample the same distribution and only the schedule differs. They take turns, a phase each.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

sys.path.insert(0, str(Path(__file__).parent))

from machine import describe, headline, median_and_range

from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams, stream_key
from etude.rollouts import EpisodeRequest, Episodes, PartialRollouts
from etude.tasks.base import TaskSet
from etude.tasks.loading import load_tasks
from etude.types import trajectories_of


@dataclass
class Options:
    """What is measured."""

    model: str = "tiny"
    tasks: str = "lists"
    groups: int = 16
    group_size: int = 16
    over_provision: float = 2.0
    slots: int = 256
    phases: int = 12
    warm_up: int = 4
    """Phases of both before any is counted: until the buffer holds what it holds on a long run."""
    threads: int = 1


class Side:
    """One way of gathering, on its own stream of tasks."""

    def __init__(self, policy: LanguageModel, task_set: TaskSet, options: Options, requested: int) -> None:
        self.policy, self.task_set, self.options = policy, task_set, options
        self.partial = PartialRollouts(options.groups, requested)
        self.params = SamplingParams(max_new_tokens=task_set.max_new_tokens, stop=tuple(task_set.stop))
        self.ledger = Ledger()
        self.trained = 0

    def ask(self, count: int) -> None:
        for number in range(self.partial.asked, self.partial.asked + count):
            task = self.task_set.train_task(0, number)
            self.partial.ask([(task, [EpisodeRequest(task, s, stream_key(number, s)) for s in range(self.options.group_size)])])

    def phase(self) -> float:
        """Seconds for each token that would be trained on."""
        began = time.perf_counter()
        with Episodes(self.policy, self.task_set, self.params, max_turns=self.task_set.max_turns, ledger=self.ledger) as episodes:
            gathered = self.partial.collect(episodes, self.ask)
        seconds = time.perf_counter() - began
        tokens = sum(t.generated_length for t in trajectories_of(gathered.accepted))
        self.trained += tokens
        return seconds / tokens


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    task_set = load_tasks(options.tasks)
    policy = LanguageModel.load(options.model, slots=options.slots)
    waits = Side(policy, task_set, options, options.groups)
    resumes = Side(policy, task_set, options, round(options.over_provision * options.groups))
    print(headline(describe(options.threads), "both sides", "Étude"))
    times: dict[Side, list[float]] = {waits: [], resumes: []}
    for phase in range(options.warm_up + options.phases):
        if phase == options.warm_up:
            for side in times:
                side.ledger, side.trained = Ledger(), 0
        for side in times:
            seconds = side.phase()
            if phase >= options.warm_up:
                times[side].append(seconds)
    for name, side in (("waits for all", waits), ("resumes", resumes)):
        spent = side.ledger
        print(
            f"{name}: {median_and_range([1e6 * s for s in times[side]])} µs a trained token; "
            f"{side.trained / spent.decode_steps:.1f} trained tokens a decode step, {spent.prompt_tokens / side.trained:.2f} prefilled tokens a trained one"
        )
    ratios = [a / b for a, b in zip(times[waits], times[resumes], strict=True)]
    print(f"waiting over resuming, of each pair: {median_and_range(ratios)}; by the decode clock {_per_step(resumes) / _per_step(waits):.2f}")
    print(f"median ratio {statistics.median(ratios):.2f}")


def _per_step(side: Side) -> float:
    return side.trained / side.ledger.decode_steps


if __name__ == "__main__":
    main(tyro.cli(Options))

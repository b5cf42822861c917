"""Iterated imitation: the loop of methods that collect examples for a while, and then train on them for a while.

    tasks -> attempts -> rewards -> examples -> corpus ┐
      ▲                                                │  steps_per_round optimiser steps
      └──────────── the policy of the next round ◄─────┘

A round begins by making examples with the policy of now (`examples`). Then come its optimiser steps, one to a step of the run, so that a long round can be watched,
stopped and resumed like any other run. What the next round's training starts from is the choice that such methods differ in most: the weights that the run began with
(every round is a fine-tuning of its own), the newest weights with a new optimiser, or the newest ones with the optimiser going on.
"""

from __future__ import annotations

import time
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch

from etude.config import AtLeastOne, Count, PolicyOptimizationConfig
from etude.curation import Corpus
from etude.evals.monitors import monitors
from etude.loop import PolicyOptimization, rollout_metrics
from etude.method import State
from etude.objectives import Aggregation, Objective, SupervisedObjective
from etude.types import Group, Metrics, Task, Trajectory


@dataclass
class RoundConfig:
    """Rounds of collecting and training."""

    rounds: Count = 0
    """Rounds at most (0: as many as steps and budget allow). After the last one the run ends."""
    tasks_per_round: AtLeastOne = 256
    """Tasks that a round's examples are made from."""
    steps_per_round: AtLeastOne = 20
    """Optimiser steps of a round, `tasks_per_step` examples each: the corpus is gone through as often as that takes."""
    start_from: Literal["base", "newest", "going-on"] = "base"
    """What a round's training starts from: the weights that the run began with; the newest ones, with a new optimiser; or the newest ones, with the optimiser going on."""
    train_on: Literal["newest", "all"] = "newest"
    """The examples that a round trains on: its own, or those of all rounds so far."""


@dataclass
class IteratedConfig(PolicyOptimizationConfig):
    """Options of methods that imitate in rounds."""

    tasks_per_step: AtLeastOne = 64
    """Examples of an optimiser step."""
    round: RoundConfig = field(default_factory=RoundConfig)
    aggregation: Aggregation = "token_mean"
    """How per-token losses become one number."""


class IteratedImitation(PolicyOptimization):
    """Examples in rounds, each followed by its optimiser steps. A method says how a round's examples are made, in `examples`."""

    Config: ClassVar[type] = IteratedConfig
    config: IteratedConfig

    def setup(self) -> None:
        super().setup()
        self.corpus = Corpus(self.run)
        self.round = 0
        """The round that is under way, from 1; 0 before the first."""
        self.step_in_round = 0
        self.base = {name: p.detach().clone() for name, p in self.policy.model.named_parameters() if p.requires_grad}

    @abstractmethod
    def examples(self, tasks: Sequence[Task]) -> tuple[list[Trajectory], Metrics]:
        """What a round has to learn from, made with the policy of now; and what is to be reported of how it was made."""

    # One step

    def step(self) -> Metrics:
        started = time.perf_counter()
        metrics: Metrics = {}
        if self.step_in_round == 0:
            metrics |= self.begin_round()
        collected = time.perf_counter()
        batch = self.corpus.batch(self.config.tasks_per_step)
        metrics |= self.update([Group(str(i), [example]) for i, example in enumerate(batch)])
        self.step_in_round = (self.step_in_round + 1) % self.config.round.steps_per_round if batch else 0
        return metrics | {"round/number": float(self.round), "time/rollout": collected - started, "time/update": time.perf_counter() - collected}

    def begin_round(self) -> Metrics:
        """Make the round's examples with the newest policy, choose what to train on, and go back to where training starts."""
        self.round += 1
        tasks = self.round_tasks()
        made, metrics = self.examples(tasks)
        self.corpus.add(made, self.round)
        self.corpus.choose(self.chosen())
        if not self.corpus.chosen:
            warnings.warn(
                f"round {self.round} found no example to learn from in attempts at {len(tasks)} tasks; expected some that the policy can solve "
                "(easier tasks, more attempts, or a lower threshold)",
                stacklevel=2,
            )
        elif self.config.round.start_from == "base" and self.round > 1:
            self.return_to(self.base)
        if self.config.round.start_from != "going-on":
            self.learner.restart(total_steps=self.config.round.steps_per_round)
        chosen = len(self.corpus.chosen)
        passes = self.config.round.steps_per_round * min(self.config.tasks_per_step, chosen) / chosen if chosen else 0.0
        return metrics | {"round/examples": float(len(made)), "round/corpus": float(chosen), "round/passes": passes}

    def round_tasks(self) -> list[Task]:
        """The tasks of a round."""
        return self.curriculum.next(self.config.round.tasks_per_round)

    def chosen(self) -> list[int]:
        """The numbers of the examples that the round trains on. Examples that no later round will want are forgotten."""
        if self.config.round.train_on == "newest":
            self.corpus.forget(self.corpus.of_round(self.round))
        return list(range(len(self.corpus)))

    def attempted(self, tasks: Sequence[Task]) -> tuple[list[Group], Metrics]:
        """Judged attempts at tasks, with what a step of rollouts reports; the curriculum hears of them."""
        groups = self.collect(tasks)
        weights = self.weigh(groups)
        self.run.save_trajectories(self.run.step, self._sampled_records(groups))
        self.remember(groups)
        return groups, rollout_metrics(groups) | monitors(groups) | weights

    @torch.no_grad()
    def return_to(self, weights: dict[str, torch.Tensor]) -> None:
        """Make these the policy's weights, for the sampler too."""
        for name, parameter in self.policy.model.named_parameters():
            if name in weights:
                parameter.data.copy_(weights[name])
        self.policy.weights_changed()

    def credit(self, groups: Sequence[Group]) -> Metrics:
        """Nothing: an example carries its weight."""
        return {}

    def objective(self) -> Objective:
        return SupervisedObjective(aggregation=self.config.aggregation, weighted=True)

    @property
    def schedule_step(self) -> int:
        return self.step_in_round if self.config.round.start_from != "going-on" else super().schedule_step

    def done(self) -> str | None:
        rounds = self.config.round.rounds
        return f"all {rounds} rounds are done" if rounds and self.round >= rounds and self.step_in_round == 0 else None

    # Saving

    def state(self) -> State:
        state = super().state()
        plain: dict[str, Any] = {"corpus": self.corpus.state(), "number": self.round, "step": self.step_in_round, "total_steps": self.learner.total_steps}
        return replace(state, plain=state.plain | {"round": plain})

    def load_state(self, state: State) -> None:
        super().load_state(state)
        plain = state.plain["round"]
        self.corpus.load_state(plain["corpus"])
        self.round, self.step_in_round = int(plain["number"]), int(plain["step"])
        self.learner.total_steps = int(plain["total_steps"])

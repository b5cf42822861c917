"""APRIL: do not wait for the longest answers; go on with them in the next step (arXiv:2509.18521).

A step that waits until every attempt has ended lets most slots of the sampler stand empty while the longest few are written. APRIL asks for more groups than it trains
on, stops as soon as enough of them are complete, and keeps the rest. The next step resumes them first, from the token they had reached, under the weights of then. No
token is thrown away, so that long answers are trained on as often as they are sampled: dropping what is unfinished would favour short ones.

Differs from GRPO in how rollouts are gathered. The price is that a part of the tokens was drawn by older weights. As in the paper they are trained on as if the
current policy had drawn them; `correction` weighs them by what the sampler noted, `stale_tokens` leaves them out of the loss. What an update minimises plays no part
in the gathering: `PartialGathering` goes in front of any method on the common loop, and GRPO's options make of it the paper's other two objectives.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from etude.claim import ON_TINY, Arm, Claim, Comparison, Precondition, room_to_learn
from etude.config import AtLeastOne, Count, PolicyOptimizationConfig
from etude.errors import InputError
from etude.evals.measures import Average, Reached, Spent
from etude.loop import PolicyOptimization
from etude.method import State, register
from etude.methods.baselines.grpo import GRPO, GRPOConfig
from etude.models.sampling import DecodeClock
from etude.objectives import Objective, PolicyObjective, sequence_ratio
from etude.rollouts import EpisodeRequest, Episodes, Gathered, PartialRollouts, staleness, without_stale_tokens
from etude.types import Group, Metrics, Task, trajectories_of


@dataclass
class PartialGatheringConfig(PolicyOptimizationConfig):
    """Options of gathering by partial rollouts."""

    over_provision: Annotated[float, Ge(1)] = 2.0
    """Groups that are asked for, as a multiple of `tasks_per_step` (1: wait for all of them, as other methods do)."""
    discard_unfinished: bool = False
    """Throw unfinished groups away instead of going on with them: an ablation, which makes what is trained on shorter."""
    stale_tokens: Literal["train", "mask"] = "train"
    """Tokens that older weights drew: train on them, or leave them out of the loss."""
    max_lag: Count = 0
    """Wait for groups whose oldest token is this many updates old, so that none gets older (0: no limit)."""
    dynamic_filter: bool = False
    """Count only groups with different rewards, and ask for more in the place of others, as in dynamic sampling."""
    most_rejected: AtLeastOne = 10
    """Groups that this filter may reject in a step, as a multiple of `tasks_per_step`; the batch is smaller after that."""


class PartialGathering(PolicyOptimization):
    """Gathers by partial rollouts. In front of a method, as in `class APRIL(PartialGathering, GRPO)`, it takes the place of that method's `collect` and `select`.

    The curriculum is asked for tasks when their groups begin and hears of them when they are trained on, which may be steps later. What waits is saved with it.
    """

    config: PartialGatheringConfig

    def setup(self) -> None:
        config = self.config
        target = config.tasks_per_step
        requested = round(config.over_provision * target)
        if config.discard_unfinished and requested == target:
            raise InputError(
                f"--discard-unfinished has nothing to discard: with --over-provision {config.over_provision:g} a step waits for all of its {target} groups; "
                "expected more than 1, for example 2"
            )
        if config.discard_unfinished and config.max_lag:
            raise InputError(f"--max-lag {config.max_lag} limits how old resumed groups get, and --discard-unfinished resumes none; drop one of them")
        if config.ray.max_staleness and config.max_lag:
            raise InputError(
                f"--max-lag {config.max_lag} waits for groups by the updates that there have been, and --max-staleness {config.ray.max_staleness} begins batches before "
                "their updates; drop one of them"
            )
        super().setup()
        self.partial = PartialRollouts(
            target, requested, most_rejected=config.most_rejected * target, max_lag=config.max_lag, keep=not config.discard_unfinished
        )
        self.gathered = Gathered()
        self.spent = DecodeClock()
        self.waiting = (0, 0)
        """Groups that were left for later, and the tokens that they had."""

    def collect(self, tasks: Sequence[Task]) -> list[Group]:
        clock = self.policy.sampler.clock
        before = clock.copy()
        places = itertools.count()

        def ask(tasks: Iterable[Task]) -> None:
            self.partial.ask((task, self.requests(task, next(places))) for task in tasks)

        ask(tasks)
        with Episodes(self.policy, self.task_set, self.params, max_turns=self.max_turns, ledger=self.run.ledger) as episodes:
            self.gathered = self.partial.collect(
                episodes, lambda count: ask(self.curriculum.next(count)), self.judged_with_spread if self.config.dynamic_filter else None
            )
        self.spent = clock.since(before)
        buffer = self.partial.buffer
        self.waiting = len(buffer), sum(len(group.written) for group in buffer)
        if not self.config.dynamic_filter:
            self.judge(self.gathered.accepted)
        return [*self.gathered.accepted, *self.gathered.rejected]

    def requests(self, task: Task, place: int) -> list[EpisodeRequest]:
        """The attempts at a task whose group begins in this step. Their random numbers stay theirs, in whatever step they end."""
        return [EpisodeRequest(task, sample, self.stream(task, place, sample)) for sample in range(self.config.group_size)]

    def judged_with_spread(self, group: Group) -> bool:
        """Judge a complete group, and say whether it teaches anything."""
        self.judge([group])
        return group.has_spread

    def select(self, groups: list[Group]) -> list[Group]:
        return self.gathered.accepted

    def credit(self, groups: Sequence[Group]) -> Metrics:
        return super().credit(groups) | staleness(groups, self.policy.sampler.newest) | self.schedule_metrics(groups)

    def schedule_metrics(self, groups: Sequence[Group]) -> Metrics:
        """What the step's decoding was worth, by the sampler's own clock, and what is left for later.

        `rollout/length_tail` is the 99th percentile of the lengths over their mean: how long the tail is that a batch would have to wait for.
        """
        groups_waiting, tokens_waiting = self.waiting
        trained = sum(t.trained_length for t in trajectories_of(groups))
        metrics: Metrics = {
            "rollout/decode_steps": float(self.spent.steps),
            "rollout/waiting_groups": float(groups_waiting),
            "rollout/waiting_tokens": float(tokens_waiting),
        }
        if self.spent.steps:
            metrics["rollout/utilisation"] = self.spent.utilisation
            metrics["rollout/trained_per_decode_step"] = trained / self.spent.steps
        if trained:
            lengths = sorted(t.generated_length for t in trajectories_of(groups))
            metrics["rollout/length_tail"] = lengths[round(0.99 * (len(lengths) - 1))] * len(lengths) / sum(lengths)
        if self.config.max_lag:
            metrics["rollout/overdue_groups"] = float(self.gathered.overdue)
        if self.config.dynamic_filter:
            metrics["rollout/rejected_groups"] = float(len(self.gathered.rejected))
        if self.config.discard_unfinished:
            metrics["rollout/discarded_tokens"] = float(self.gathered.dropped_tokens)
        return metrics

    def update(self, groups: Sequence[Group]) -> Metrics:
        if self.config.stale_tokens == "mask":
            groups = without_stale_tokens(groups, self.policy.sampler.newest)
        return super().update(groups)

    def state(self) -> State:
        state = super().state()
        state.plain["partial"] = self.partial.state()
        return state

    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.partial.load_state(state.plain["partial"])

    def close(self) -> None:
        # A run that was refused in its setup has nothing that waits.
        if hasattr(self, "partial"):
            self.partial.close()
        super().close()


@dataclass
class APRILConfig(PartialGatheringConfig, GRPOConfig):
    """Options of APRIL."""

    importance_ratio: Literal["token", "sequence"] = "token"
    """Importance ratio of each token (GRPO, DAPO) or of the whole answer (GSPO). Plays a part with several optimiser steps a batch."""


TRAINED_PER_DECODE_STEP = Spent("trained_tokens") / Spent("decode_steps")


@register(
    slug="april",
    name="APRIL",
    family="exploration",
    paper="2509.18521",
    title="APRIL: Active Partial Rollouts in Reinforcement Learning to Tame Long-tail Generation",
    summary="ask for more groups than needed, stop when enough are complete, resume the rest in the next step",
    config=APRILConfig,
    rollouts="partial",
    claim=Claim(
        statement="Asking for more groups than needed and going on with the unfinished ones in the next step raises the throughput of rollouts by 20 to 40 %, discards "
        "nothing, converges faster and ends at least as accurate.",
        expectation="With a slot for each attempt of a batch and answers whose 99th percentile is twice their mean, 30 updates train on 50 more tokens for each decode "
        "step than waiting for all attempts (which trains on about 110), reach 40 % held-out pass@1 after fewer decode steps, are at most 3 points below it in the second "
        "half, and train on answers at most 3 % shorter (0.3 tokens); throwing away what is unfinished makes them shorter by more than a tenth (1 token).",
        arms=(
            Arm("april"),
            Arm("synchronous", "april", {"over_provision": 1.0}),
            Arm("discard", "april", {"discard_unfinished": True}),
        ),
        common={**ON_TINY, "tasks": "lists", "slots": 256, "evaluate_every": 5},
        budget="30-steps",
        tests=(
            Comparison("trained tokens for each decode step", "april", "synchronous", TRAINED_PER_DECODE_STEP, margin=50),
            Comparison("accuracy is kept", "april", "synchronous", Average("eval/pass@1", last=0.5), margin=-0.03),
            Comparison("decode steps until 40 %", "april", "synchronous", Reached("eval/pass@1", 0.4, over="decode-steps"), better="lower"),
            Comparison("length is kept", "april", "synchronous", Average("rollout/length"), margin=-0.3),
            Comparison("going on instead of discarding", "april", "discard", Average("rollout/length"), margin=1, role="ablation"),
            Comparison("throughput against discarding", "april", "discard", TRAINED_PER_DECODE_STEP, role="ablation"),
        ),
        preconditions=(
            room_to_learn("synchronous"),
            Precondition(
                "lengths have a tail", "synchronous", Average("rollout/length_tail"), at_least=2, otherwise="no attempt takes much longer than the others"
            ),
            Precondition("waiting leaves slots empty", "synchronous", Average("rollout/utilisation"), at_most=0.6, otherwise="there is little to fill"),
        ),
        tried="The task set, for its tail: of the built-in families `lists` has the longest (99th percentile over mean about 2.2); longer arithmetic does not make the model "
        "write more, and it solves none of the lists of 16 items or more. `over_provision`, on seed 0 over 10 steps: 1, 1.5, 2 and 3 train on 112, 203, 259 and 263 "
        "tokens a decode step, so that 2 fills the slots; the share of stale tokens is then 61 %. The learning rate is the default.",
    ),
)
class APRIL(PartialGathering, GRPO):
    """Differs from GRPO in when attempts are made: a step's groups may have begun in earlier ones."""

    config: APRILConfig
    overlaps: ClassVar[bool] = True

    def objective(self) -> Objective:
        objective = super().objective()
        assert isinstance(objective, PolicyObjective)
        return replace(objective, ratio=sequence_ratio) if self.config.importance_ratio == "sequence" else objective

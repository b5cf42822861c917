"""SMART: learn from late successes which strategy to try first (arXiv:2410.16128).

A model that fails with one way of solving a task often succeeds with another: step by step, by smaller questions, by a program. Trying them one after the other at test
time costs tokens and needs somebody who says when to stop. SMART does the trying while it learns. An answer opens with the tag of its strategy, so the choice is the
model's own, made by its first tokens. It tries a task in turn, each time among the strategies that it has not tried, until the verifier is content; whatever succeeded,
however late, is then learnt as the answer to the bare task. Probability moves to the strategy that works, and no second attempt is needed any more.

The first round tries every strategy on every task (bootstrap); later rounds follow the model's own choice. Differs from ReST-EM, which imitates right attempts too, in
the turns: a strategy that the model seldom chooses is tried wherever its favourite fails. `--tries 1` leaves them out, which is rejection-sampling fine-tuning (RFT).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from etude.claim import Arm, Claim, Comparison, Precondition, reported_seeds
from etude.config import AtLeastOne, Count
from etude.curation import one_per_task, relabelled, rewarded
from etude.errors import InputError
from etude.evals.evaluate import Evaluation
from etude.evals.measures import Final
from etude.evals.strategies import greedy_first, preferred, retry_metrics, strategy_metrics, tried_in_all
from etude.iterated import IteratedConfig, IteratedImitation, RoundConfig
from etude.loop import rollout_metrics
from etude.method import State, register
from etude.models.sampling import SamplingParams, stream_key
from etude.rewards import judge
from etude.rollouts import EpisodeRequest
from etude.rollouts.openings import OPENING, TRY, Openings, tries_in_turn
from etude.tasks.feasibility import READS_LITTLE
from etude.tasks.loading import kind_of
from etude.tasks.strategies import Strategic, load_strategies, strategies_in
from etude.tasks.templates import read_template
from etude.types import Group, Metrics, Task, Trajectory, mean, trajectories_of

REQUESTS = {"standard": "That answer is wrong. Solve the question once more, in another way.", "short": "again"}
"""What follows a wrong try, by name."""


@dataclass
class SMARTConfig(IteratedConfig):
    """Options of SMART."""

    group_size: AtLeastOne = 1
    """Sequences of tries at each task of a round."""
    round: RoundConfig = field(default_factory=lambda: RoundConfig(start_from="newest"))
    strategies: str = "auto"
    """Strategies: `standard`, `short` (with a calculator for programs), or a YAML file of your own. `auto`: the tasks' own, else by the length that the model reads."""
    use: tuple[str, ...] = ()
    """Names of those that may be chosen (none named: all)."""
    tries: Count = 0
    """Attempts of a sequence at most (0: one in each strategy); 1 is RFT, which learns from first attempts alone."""
    repeat: bool = False
    """Let a later try be in a strategy that has failed already."""
    learn_under: Literal["root", "history", "both"] = "root"
    """Where a late success is learnt: as the answer to the bare task; after the failures that came before it; or both, which keeps retries in practice."""
    bootstrap: Count = 2
    """Samples of every strategy for each task of the first round (0: the first round is like the others)."""
    one_target: bool = True
    """Learn one answer of a task and round, in the strategy that fewest other tasks gave; otherwise all right ones."""
    keep_above: float = 0.5
    """A reward above this is a success."""
    round_tokens: Count = 0
    """Go on with as many tasks again until a round has generated so many tokens (0: no), so that arms of different cost per task can be compared."""
    request: str = "auto"
    """What follows a wrong try: `standard`, `short`, or a text file, in which {question} stands for the task."""
    shuffle_tags: bool = False
    """As a control, exchange the tags between a round's examples: the same solutions, and nothing learnt of which strategy suits which task."""
    eval_strategies: Annotated[int, Ge(0)] = 1
    """Samples of every strategy for each held-out task at an evaluation (0: do not measure the choice)."""


@register(
    slug="smart",
    name="SMART",
    family="self_correction",
    paper="2410.16128",
    title="SMART: Self-learning Meta-strategy Agent for Reasoning Tasks",
    summary="try strategies in turn, and learn the one that worked as the first choice",
    config=SMARTConfig,
    rollouts="adaptive",
    claim=Claim(
        statement="Learning the strategy of a late success as the first choice raises first-attempt accuracy beyond what imitating right first attempts gives, and beyond "
        "any single strategy.",
        expectation="From a model that can use four strategies, of which it has a habit of one, on the same generated and trained tokens, greedy first attempts end more than "
        "4 points more accurate than with RFT without retries, and more than 10 points above RFT in the habitual strategy alone. Without relabelling, on late successes "
        "learnt under the failures before them, they end lower.",
        arms=(
            Arm("smart", settings={"method": "smart"}),
            Arm("RFT without retry", "smart", {"method": "smart", "tries": 1}),
            Arm("one strategy", "smart", {"method": "smart", "tries": 1, "use": ["cot"]}),
            Arm("no relabelling", "smart", {"method": "smart", "learn_under": "history"}),
        ),
        common={
            "tasks": "strategies",
            "warm_tasks": "strategies:lessons=true,again=0.25,habit=0.65",
            "warm_steps": 180,
            "warm_tasks_per_step": 48,
            "warm_lr": 2e-3,
            "warm_schedule": "linear",
            "bootstrap": 0,
            "lr": 7e-4,
            "schedule": "linear",
            "rounds": 2,
            "tasks_per_round": 64,
            "round_tokens": 32000,
            "steps_per_round": 20,
            "tasks_per_step": 64,
            "steps": 40,
            "eval_tasks": 192,
            "eval_samples": 1,
            "eval_strategies": 1,
            "evaluate_every": 20,
        },
        experiment="etude.experiments.chosen_strategies:chosen_strategies",
        budget="40-steps",
        tests=(
            Comparison("trying in turn", "smart", "RFT without retry", Final("first_greedy"), margin=0.04),
            Comparison("choosing", "smart", "one strategy", Final("first_greedy"), margin=0.1),
            Comparison("near the best choice", "smart", None, Final("first") - Final("best_by_kind") * 0.85, role="ablation"),
            Comparison("the relabelling", "smart", "no relabelling", Final("first_greedy"), role="ablation"),
            Comparison("the choice alone", "smart", "RFT without retry", Final("choice_at_start"), role="ablation"),
            Comparison("sampled first attempts", "smart", "RFT without retry", Final("first"), role="ablation"),
            Comparison("sampled first attempts, over one strategy", "smart", "one strategy", Final("first"), role="ablation"),
            Comparison(
                "retries add less than at the start",
                "smart",
                None,
                (Final("retry_oracle_stop_first") - Final("first_first")) - (Final("retry_oracle_stop") - Final("first")),
                role="ablation",
            ),
            Comparison("over a vote, which takes four attempts", "smart", None, Final("first") - Final("vote"), role="ablation"),
        ),
        preconditions=(
            Precondition(
                "all strategies are in reach", "smart", Final("tag_entropy_first"), at_least=0.75, otherwise="the model hardly uses but one of the strategies"
            ),
            Precondition(
                "something to choose",
                "smart",
                Final("best_by_kind_first") - Final("first_first"),
                at_least=0.2,
                otherwise="the best strategy of each kind is hardly better than what the model does already",
            ),
        ),
        tried="Of a strategy that is right with chance r and chosen with p, RFT learns p r; retries add what fails otherwise. So they pay for a model with a poor habit that "
        "is still often right, soon. A world whose lessons were wrong in fixed shares (seed 0) was no use: imitating right answers mends the strategies themselves, and RFT "
        "without retry was as good (greedy 66.7 against 61.5 %). Hence a world in which strategies differ by their form. What each is right in after 180 steps of lessons, "
        "seed 0: with two-digit numbers, two operations at once in 3 % (RFT leaves such a habit by itself, the best tag in 86 % of tasks, SMART in 70 %), from small ones in "
        "41 to 51 %; smaller questions in 80 to 88 and 66 to 74 %, programs in 97 to 100 % of chains. Lists with sorting were right in 23 to 64 % and often by a lucky "
        "direct answer in a late try: no sorting any more. The rate: 1e-3 and 5e-4, constant, spoil what the strategies can do (best by kind from 0.87 to 0.71, seed 1); "
        "falling from 5e-4 to 0, with 64 examples a step, SMART ends at 0.82 and chooses little (greedy 76 %, RFT 70), from 1e-3 at 0.80 (78 %). With a habit of 0.55 at "
        "5e-4, constant: greedy 86.7 against 81.2 % (seed 0), after one round more apart than after two. As it stands, seed 0: greedy first attempts from 66.7 to 78.1 %, "
        "RFT 58.3, one strategy 59.4, no relabelling 64.1; sampled from 50.7 to 67.4, 56.0, 51.0 and 62.7 %; the best strategy of each kind from 85.4 to 76.6, 81.2, -, "
        "84.4. The entropy of tags at the start is 0.9 nats, below the 1.0 that was asked for at first: a habit of 0.65 in the lessons makes 0.74 of the first tags.",
        seeds=reported_seeds(6),
        quick={
            "warm_steps": 2,
            "warm_tasks_per_step": 8,
            "tasks_per_round": 4,
            "round_tokens": 200,
            "steps_per_round": 1,
            "eval_tasks": 8,
            "evaluate_every": 1,
        },
    ),
)
class SMART(IteratedImitation):
    """Differs from ReST-EM in how a round's attempts are made, and under what a success is learnt."""

    config: SMARTConfig
    at_start: list[list[float]] | None = None
    """[Q][K] how good each strategy was at each held-out task before the first step."""

    def setup(self) -> None:
        config = self.config
        # How much the model reads decides which forms are the default.
        self._policy = self.load_policy()
        size = "short" if self._policy.context_length < READS_LITTLE else "standard"
        self.request = REQUESTS.get(size if config.request == "auto" else config.request) or read_template(
            config.request, "--request", names=("auto", *REQUESTS), needs=(), may=("question",)
        )
        self._take_strategies(size)
        super().setup()
        self.require_single_turns("tries a task once more in another strategy; expected tasks of single turns")
        known = strategies_in(self.task_set)
        assert known is not None, "the task set was given its strategies above"
        self.strategies = tuple(s for s in known if not config.use or s.name in config.use)
        missing = sorted(set(config.use) - {s.name for s in known})
        if missing:
            raise InputError(f"--use names {missing[0]!r}; expected some of {', '.join(s.name for s in known)}")
        self.openings = Openings.of(self.policy, [s.tag for s in self.strategies])
        if self.openings.longest >= self.params.max_new_tokens:
            raise InputError(
                f"--max-new-tokens is {self.params.max_new_tokens}, and a tag alone has {self.openings.longest} tokens; expected room for an answer"
            )
        self.most = min(config.tries or len(self.strategies), len(self.strategies)) if not config.repeat else config.tries or len(self.strategies)

    def _take_strategies(self, size: str) -> None:
        """See to it that the task set judges answers in the strategies that were asked for."""
        spec = self.config.strategies
        if self._task_set is not None:
            own = strategies_in(self._task_set)
            if spec != "auto" or own is None:
                self._task_set = Strategic.around(self._task_set, load_strategies(size if spec == "auto" else spec))
        elif kind_of(self.inputs.env) == "strategies":
            if spec != "auto":
                raise InputError(f"--env {self.inputs.env} and --strategies {spec} both name strategies; drop one of them")
        elif self.inputs.env is not None:
            raise InputError(f"SMART tries tasks of single turns in several strategies, and --env {self.inputs.env} plays them in turns; drop it")
        else:
            self.inputs = replace(self.inputs, env=f"strategies:{size if spec == 'auto' else spec}")

    # A round

    def examples(self, tasks: Sequence[Task]) -> tuple[list[Trajectory], Metrics]:
        begun, groups = self.run.ledger.generated_tokens, list[Group]()
        first = self.config.bootstrap > 0 and self.round == 1
        while True:
            groups += self.bootstrapped(tasks, len(groups)) if first else self.tried_in_turn(tasks, len(groups))
            if self.run.ledger.generated_tokens - begun >= self.config.round_tokens:
                break
            tasks = self.round_tasks()
        self.run.save_trajectories(self.run.step, self._sampled_records(groups))
        self.remember(groups)
        kept = self.kept(trajectories_of(groups))
        return kept, rollout_metrics(groups) | self.round_metrics(groups, kept)

    def bootstrapped(self, tasks: Sequence[Task], place: int) -> list[Group]:
        """Every strategy for every task, asked for by its instruction where it has one."""
        requests = [
            EpisodeRequest(task, sample, self.run.stream(self.run.step, "bootstrap", place + q, k, sample), strategy.asked(task), self.openings.tokens[k])
            for q, task in enumerate(tasks)
            for k, strategy in enumerate(self.strategies)
            for sample in range(self.config.bootstrap)
        ]
        attempts = self.attempt(requests)
        for request, attempt in zip(requests, attempts, strict=True):
            attempt.tags |= {OPENING: self.openings.tokens.index(request.opening), TRY: 0}
        judge(attempts, self.task_set)
        size = len(self.strategies) * self.config.bootstrap
        return [Group(task.id, attempts[q * size : (q + 1) * size]) for q, task in enumerate(tasks)]

    def tried_in_turn(self, tasks: Sequence[Task], place: int) -> list[Group]:
        """`group_size` sequences of tries at each task, in the strategies of the policy's choice."""
        size = self.config.group_size
        sequences = self.sequences(
            [task for task in tasks for _ in range(size)], self.params, lambda _, q, turn: self.run.stream(self.run.step, "turn", place * size + q, turn)
        )
        return [Group(task.id, [t for row in sequences[q * size : (q + 1) * size] for t in row]) for q, task in enumerate(tasks)]

    def sequences(self, tasks: Sequence[Task], params: SamplingParams, stream: Callable[[Task, int, int], int]) -> list[list[Trajectory]]:
        """Tries in turn at each task."""
        return tries_in_turn(
            self.openings,
            tasks,
            self.task_set,
            params,
            request=self.request,
            most=self.most,
            repeat=self.config.repeat,
            judge=lambda tried: judge(tried, self.task_set),
            failed=lambda t: t.reward <= self.config.keep_above,
            stream=stream,
            ledger=self.run.ledger,
        )

    def kept(self, attempts: Sequence[Trajectory]) -> list[Trajectory]:
        """The successes as examples: one of each task, under the bare task or under what came before."""
        config = self.config
        good, rng = rewarded(attempts, config.keep_above), self.run.rng("targets", self.round)
        if config.one_target:
            good = one_per_task(good, lambda t: t.tags[OPENING], rng)
        tags = [t.tags[OPENING] for t in good]
        if config.shuffle_tags:
            rng.shuffle(tags)
        made: list[Trajectory] = []
        for attempt, tag in zip(good, tags, strict=True):
            origin = {"strategy": self.strategies[tag].name, "try": attempt.tags[TRY], "reward": attempt.reward}
            retagged = self.with_tag(attempt, tag)
            if config.learn_under != "history" or not attempt.tags[TRY]:
                made.append(relabelled(retagged, self.policy.render(attempt.task.opening), **origin))
            if config.learn_under != "root" and attempt.tags[TRY]:
                made.append(relabelled(retagged, attempt.prompt, **origin))
        return made

    def with_tag(self, attempt: Trajectory, tag: int) -> Trajectory:
        """The attempt under the tag of another strategy."""
        own = attempt.tags[OPENING]
        if tag == own:
            return attempt
        [turn] = attempt.segments
        tokens = [*self.openings.tokens[tag], *turn.tokens[len(self.openings.tokens[own]) :]]
        return replace(attempt, segments=[replace(turn, tokens=tokens, text=self.policy.decode(tokens))])

    def round_metrics(self, groups: Sequence[Group], kept: Sequence[Trajectory]) -> Metrics:
        """How a round's tries went, and which strategies its examples are in."""
        attempts = trajectories_of(groups)
        found: Metrics = {"round/attempts_per_task": len(attempts) / max(1, len(groups)), "round/tasks_tried": float(len(groups))}
        found["round/late"] = mean([float(t.tags["origin"]["try"] > 0) for t in kept], 0.0)
        for strategy in self.strategies:
            found[f"round/share_{strategy.name}"] = mean([float(t.tags["origin"]["strategy"] == strategy.name) for t in kept], 0.0)
        return found

    # Measuring

    def measured(self) -> Evaluation:
        evaluation = super().measured()
        if self.config.eval_strategies:
            evaluation.metrics |= {f"eval/{name}": value for name, value in self.choice().items()}
        return evaluation

    def choice(self) -> Metrics:
        """What the policy's choice of strategy on the held-out tasks is worth, and what trying in turn until one is right would reach."""
        samples, seed = self.config.eval_strategies, self.evaluation_seed
        params = replace(self.params, temperature=self.config.evaluation.eval_temperature, top_p=1.0, top_k=0)
        preferences = preferred(self.openings, self.held_out, self.run.ledger)
        tried = tried_in_all(
            self.openings, [s.name for s in self.strategies], self.held_out, self.task_set, params, samples=samples, seed=seed, ledger=self.run.ledger
        )
        if self.run.step == 0:
            self.at_start = tried.chance.tolist()
        start = None if self.at_start is None else np.array(self.at_start)
        greedy = greedy_first(self.openings, preferences, self.held_out, self.task_set, params, ledger=self.run.ledger)
        turns = self.sequences(self.held_out, params, lambda task, _, turn: stream_key("turns", seed, task.id, turn))
        return strategy_metrics(tried, preferences, start) | {"first_greedy": greedy} | retry_metrics(turns, self.task_set.answer_in)

    # Saving

    def state(self) -> State:
        state = super().state()
        return replace(state, plain=state.plain | {"at_start": self.at_start})

    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.at_start = state.plain["at_start"]

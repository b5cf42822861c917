"""The one loop that weight-updating language methods share. Read `step`: everything a method can change is one of its lines.

    tasks -> rollouts -> rewards -> select -> credit -> update -> remember

A method overrides the one or two hooks that its paper changes and composes plain functions from the rooms (rollouts, rewards, advantages, objectives).
"""

from __future__ import annotations

import time
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from etude.config import InputConfig, PolicyOptimizationConfig, TrainConfig
from etude.distributed.cluster import check_options
from etude.errors import InputError
from etude.evals.collapse import Reading
from etude.evals.evaluate import Evaluation, evaluate, keep_samples, record_of
from etude.evals.monitors import monitors
from etude.evals.probe import LOOKED_THROUGH, Probe, open_probe, unwatched
from etude.evals.retention import open_retention, retention
from etude.evals.tools import tool_use
from etude.ledger import FORWARD, FORWARD_BACKWARD
from etude.memory import Curriculum, UniformCurriculum
from etude.method import Method, State
from etude.models.fsdp.checks import check_fsdp, check_sendable, default_ranks, learner_config
from etude.models.language import LanguageModel, resolve_device
from etude.models.learner import Learner
from etude.models.sampling import SamplingParams
from etude.objectives import Objective
from etude.rewards import check_reward, check_weights, compose, judge, read_weights
from etude.rollouts import EpisodeRequest, group_rollouts, run_episodes, staleness
from etude.tasks.base import TaskSet
from etude.tasks.loading import load_tasks
from etude.types import Group, Metrics, Task, Trajectory, mean, trajectories_of
from etude.watch import Watch

if TYPE_CHECKING:
    from etude.distributed.ahead import Ahead
    from etude.distributed.fleet import Fleet
    from etude.models.fsdp.learner import FsdpLearner
    from etude.run import Run

KL_TRAJECTORIES = 128
"""Evaluation samples on which the divergence from the starting weights is measured."""


class PolicyOptimization(Method):
    """Sample groups, judge them, turn the judgement into per-token credit, and update the weights.

    Subclasses say what the optimiser minimises (`objective`) and how rewards become advantages (`credit`). A policy and a task set that are loaded already can be
    handed in; otherwise `inputs` says what to load.
    """

    Config: ClassVar[type] = PolicyOptimizationConfig
    config: PolicyOptimizationConfig
    spends: ClassVar[frozenset[str] | None] = frozenset({"tokens", "rollouts", "calls", "env-steps", "decode-steps"})
    memory_relief: ClassVar[str] = (
        "lower --slots where it samples and --micro-batch-tokens where it learns, or add --gradient-checkpointing; a model that does not fit at all may with "
        "--dtype bfloat16, --lora-rank or --learner fsdp"
    )
    minimum_group: ClassVar[int] = 1
    """Smallest group that the method's baseline is defined for."""
    overlaps: ClassVar[bool] = False
    """Whether `collect` needs no more than the sampler, the tasks and what it has itself left on the method, so that updates may go on beside it. Each class says so for
    itself: a subclass may collect otherwise."""
    evaluation_seed: int = 0
    """Seed of the random numbers that evaluations draw with."""

    def __init__(self, config: TrainConfig[Any], run: Run, *, policy: LanguageModel | None = None, task_set: TaskSet | None = None) -> None:
        super().__init__(config.method, run)
        self.inputs: InputConfig = config.inputs
        self._policy = policy
        self._task_set = task_set
        self.fleet: Fleet | None = None
        """The run's processes on a Ray cluster, where it has some."""
        self.ahead: Ahead | None = None
        """What generates later batches meanwhile, where something does."""

    # Before the first step

    def setup(self) -> None:
        config = self.config
        if config.group_size < self.minimum_group:
            raise InputError(
                f"--group-size is {config.group_size}; {self.card.name} compares attempts at the same task and expects at least {self.minimum_group}"
                + ("; reinforce-pp works with single attempts" if self.minimum_group > 1 else "")
            )
        check_options(config.ray)
        learner_config(config.learner, config.ray.learners)
        inputs = self.inputs
        self.task_set = self._task_set or load_tasks(inputs.tasks, reward=inputs.reward, env=inputs.env, seed=self.run.seed, labelled=not self.card.label_free)
        self.held_out = list(self.task_set.held_out())[: config.evaluation.eval_tasks]
        if not self.held_out:
            raise InputError(f"the task set {self.task_set.name} has no held-out tasks; expected at least one to measure progress on")
        self.fleet = self.open_fleet()
        if self.fleet is not None:
            self.task_set = self.fleet.judges_for(
                self.task_set, inputs, seed=self.run.seed, labelled=not self.card.label_free, given=self._task_set is not None
            )
        components = check_reward(self.task_set)
        self.reward_weights = read_weights(config.reward_weights)
        if type(self).judge is PolicyOptimization.judge and "environment" not in components:
            check_weights(self.reward_weights, components)
        self.retained = open_retention(config.evaluation.retention_tasks, most=config.evaluation.eval_tasks, seed=self.run.seed)
        self.probe = self.make_probe()
        self.watch = Watch(config.watch.probe_every, self.read_probe, config.watch.limits) if self.probe is not None else None
        self.policy = self.load_policy()
        if self.fleet is not None:
            self.fleet.samples_for(self.policy, config.sampler)
        self.params = self.sampling_params()
        self._check_prompts()
        self.criterion = self.objective()
        self.learner = self.open_learner()
        if config.evaluation.eval_kl or self.criterion.needs_reference:
            self.learner.freeze_reference()
        self.curriculum = self.make_curriculum()
        if config.ray.max_staleness:
            from etude.distributed.ahead import open_ahead

            self.ahead = open_ahead(self, config.ray.max_staleness)

    def open_fleet(self) -> Fleet | None:
        """The run's processes on a Ray cluster, where it is to have some. Raises InputError for a cluster that cannot be reached or has too little."""
        if self.config.ray.engine == "local":
            return None
        if self.config.sampler.sampler == "vllm":
            from etude.models.vllm_engine import check_vllm

            check_vllm()
        from etude.distributed.fleet import Fleet

        device = self._policy.device if self._policy is not None else resolve_device(self.inputs.device)
        return Fleet(self.config.ray, on_gpu=device.type == "cuda")

    def load_policy(self) -> LanguageModel:
        """The model that practises: the one that was handed in, or the one that the options name."""
        inputs = self.inputs
        drawn = self.config.sampler
        return self._policy or LanguageModel.load(
            inputs.model,
            device=inputs.device,
            dtype=inputs.dtype,
            slots=drawn.slots,
            learner=self.config.learner,
            # One in other processes takes its place.
            sampler="engine" if self.fleet is not None else drawn.sampler,
            vllm=drawn.vllm,
        )

    def open_learner(self) -> Learner | FsdpLearner:
        """What updates the policy's weights: in this process, or by ranks. Raises InputError where ranks are asked for that cannot be."""
        config = learner_config(self.config.learner, self.config.ray.learners)
        options: dict[str, Any] = {
            "temperature": self.params.temperature,
            # A run of no steps updates nothing, whatever its schedule.
            "total_steps": max(1, self.run.config.steps),
            "default_lr": self.policy.recommended_lr,
        }
        if config.learner == "single":
            return Learner(self.policy.model, config, **options)

        config = replace(config, ranks=config.ranks or default_ranks(self.policy.device))
        units = self.config.tasks_per_step * (1 if self.criterion.whole_units else self.attempts_per_task)
        check_fsdp(config, self.policy.device, max(1, units // config.mini_batches))
        check_sendable(self.criterion, self.card.name)
        from etude.models.fsdp.learner import FsdpLearner

        return FsdpLearner(self.policy.model, config, **options)

    def sampling_params(self) -> SamplingParams:
        """How rollouts are drawn."""
        sampler = self.config.sampler
        if sampler.temperature <= 0:
            raise InputError(f"--temperature is {sampler.temperature}; rollouts to learn from have to differ, so expected more than 0")
        return SamplingParams(
            max_new_tokens=sampler.max_new_tokens or self.task_set.max_new_tokens,
            temperature=sampler.temperature,
            top_p=sampler.top_p,
            top_k=sampler.top_k,
            stop=tuple(self.task_set.stop),
        )

    @property
    def max_turns(self) -> int:
        """Turns of an episode at most: the task set's own limit where it has one."""
        own = self.task_set.max_turns
        return min(own, self.config.sampler.max_turns) if own > 1 else self.config.sampler.max_turns

    def make_curriculum(self) -> Curriculum:
        """Which tasks come next."""
        return UniformCurriculum(self.task_set, self.run.seed)

    def make_probe(self) -> Probe | None:
        """Labelled tasks to watch the run with, where it is to be watched."""
        config, acts = self.config.watch, self.run.config.on_collapse != "warn"
        if config.probe == "never":
            if acts:
                raise InputError(f"--on-collapse {self.run.config.on_collapse} acts on what a probe shows, and --probe never leaves it out; drop one of them")
            return None
        wanted = config.probe == "always" or config.probe_tasks is not None or acts
        if not (wanted or self.card.label_free):
            return None
        try:
            probe = open_probe(config, self.inputs, task_set=self.task_set, evaluated=self.held_out, seed=self.run.seed, handed_in=self._task_set is not None)
        except InputError as error:
            if wanted:
                raise
            unwatched(self.card.slug, error)
            return None
        if config.probe_tasks is not None:
            check_reward(probe.judged, probe.tasks[0])
            known = min(self.run.config.steps * self.config.tasks_per_step, LOOKED_THROUGH)
            probe.check_disjoint(self.task_set.train_task(self.run.seed, i) for i in range(known))
        return probe

    @abstractmethod
    def objective(self) -> Objective:
        """What the optimiser minimises."""

    # One step

    def step(self) -> Metrics:
        started = time.perf_counter()
        groups = self.collect(self.curriculum.next(self.config.tasks_per_step)) if self.ahead is None else self.ahead.next()
        weights = self.weigh(groups)
        collected = time.perf_counter()
        metrics = rollout_metrics(groups) | monitors(groups) | weights
        self.run.save_trajectories(self.run.step, self._sampled_records(groups))
        chosen = self.select(groups)
        metrics |= self.credit(chosen)
        if self.ahead is not None:
            metrics |= staleness(chosen, self.policy.sampler.newest) | {"time/generation": self.ahead.seconds}
        metrics |= self.update(chosen)
        self.remember(groups)
        metrics["time/rollout"] = collected - started
        metrics["time/update"] = time.perf_counter() - collected
        return metrics

    def collect(self, tasks: Sequence[Task]) -> list[Group]:
        """Roll out and judge."""
        return self.tried(tasks)

    def tried(self, tasks: Sequence[Task], round_: int = 0) -> list[Group]:
        """Judged attempts at each task."""
        groups = self.rollout(tasks, round_)
        self.judge(groups)
        return groups

    @property
    def attempts_per_task(self) -> int:
        """Rollouts of each task: `group_size`, unless a method makes more than it trains on."""
        return self.config.group_size

    def rollout(self, tasks: Sequence[Task], round_: int = 0) -> list[Group]:
        """`attempts_per_task` attempts at each task. `round_` tells further calls within one step apart."""
        return group_rollouts(
            self.policy,
            tasks,
            self.task_set,
            self.params,
            group_size=self.attempts_per_task,
            stream=lambda task, place, sample: self.stream(task, place, sample, round_),
            max_turns=self.max_turns,
            ledger=self.run.ledger,
            ended=self.ended,
        )

    def ended(self, trajectory: Trajectory) -> None:
        """Hear of an attempt as soon as it has ended, while others still run: where a judge can begin that works beside the sampler."""

    def stream(self, task: Task, place: int, sample: int, round_: int = 0) -> int:
        """The key of the random numbers of attempt `sample` at the step's task number `place`."""
        return self.run.stream(self.run.step, round_, place, task.id, sample)

    def attempt(self, requests: Sequence[EpisodeRequest]) -> list[Trajectory]:
        """One trajectory for each request, in their order, not judged: for methods that say themselves how often and under which prompt a task is tried."""
        return run_episodes(self.policy, requests, self.task_set, self.params, max_turns=self.max_turns, ledger=self.run.ledger, ended=self.ended)

    def judge(self, groups: Sequence[Group]) -> None:
        """Fill in every trajectory's rewards."""
        judge(trajectories_of(groups), self.task_set)

    def weigh(self, groups: Sequence[Group]) -> Metrics:
        """Add the components that the user gave weights to the rewards, and report the weights of this step."""
        return compose(trajectories_of(groups), self.reward_weights, self.run.step)

    def select(self, groups: list[Group]) -> list[Group]:
        """Which groups to learn from: all of them, unless a method filters."""
        return groups

    @abstractmethod
    def credit(self, groups: Sequence[Group]) -> Metrics:
        """Write per-token advantages onto the trajectories."""

    def units(self, groups: Sequence[Group]) -> list[list[Trajectory]]:
        """Trajectories that belong together in the learner: a group shares its prompt."""
        return [group.trajectories for group in groups]

    def update(self, groups: Sequence[Group]) -> Metrics:
        """Optimise the objective over what was chosen."""
        units = [unit for unit in self.units(groups) if unit]
        everything = len(units)
        if self.probe is not None:
            units = [unit for unit in units if not self.probe.holds_back(unit)]
        withheld = {"probe/withheld": float(everything - len(units))} if len(units) < everything else {}
        if not units:
            return {"signal/updates": 0.0} | withheld
        metrics = self.learner.update(units, self.criterion, step=self.schedule_step) | withheld
        self.policy.weights_changed()
        trained = sum(t.trained_length for unit in units for t in unit) * self.config.learner.epochs
        self.run.ledger.trained_tokens += trained
        self.run.ledger.forward_equivalents += FORWARD_BACKWARD * trained
        if self.criterion.needs_reference:
            self.run.ledger.forward_equivalents += FORWARD * trained
        return metrics | {"signal/updates": 1.0}

    @property
    def schedule_step(self) -> int:
        """Where in the learning rate's schedule the update is, from 0."""
        return max(0, self.run.step - 1)

    def remember(self, groups: Sequence[Group]) -> None:
        """Let the curriculum (and whatever else a method keeps) see how it went."""
        self.curriculum.observe(groups)

    # Measuring

    def evaluate(self) -> Metrics:
        self.be_still()
        evaluation = self.measured()
        keep_samples(self.run.folder, self.run.step, evaluation)
        return evaluation.metrics

    def measured(self) -> Evaluation:
        """The held-out attempts with everything that is measured of the policy besides: what it forgot, and how far it has moved."""
        evaluation = self.evaluation()
        evaluation.metrics |= retention(self.retained, self.attempts_at)
        if self.config.evaluation.eval_kl:
            evaluation.metrics["eval/kl_to_start"] = self.kl_to_start([t for row in evaluation.trajectories for t in row[:1]][:KL_TRAJECTORIES])
        return evaluation

    def evaluation(self) -> Evaluation:
        """Attempts at the held-out split. Every evaluation of every run draws with the same random numbers, so that differences are the policy's."""
        return self.attempts_at(self.task_set, self.held_out)

    def attempts_at(self, task_set: TaskSet, tasks: Sequence[Task]) -> Evaluation:
        """Attempts at tasks of any set, measured as the held-out split is."""
        config = self.config
        return evaluate(
            self.policy,
            task_set,
            tasks=tasks,
            samples=config.evaluation.eval_samples,
            temperature=config.evaluation.eval_temperature,
            max_new_tokens=config.sampler.max_new_tokens,
            max_turns=config.sampler.max_turns,
            seed=self.evaluation_seed,
            ledger=self.run.ledger,
        )

    def read_probe(self) -> Reading:
        """Attempts at the probe tasks as training would make them, judged by the labels and as training judges."""
        assert self.probe is not None, "only a method with a probe is asked to read it"
        self.be_still()
        own, self.task_set = self.task_set, self.probe.judged
        try:
            return self.probe.read(self.run.step, self.policy, self.sampling_params(), max_turns=self.max_turns, judge=self.judge_probe, ledger=self.run.ledger)
        finally:
            self.task_set = own

    def judge_probe(self, groups: Sequence[Group]) -> None:
        """Fill in the rewards that training would give these attempts, and change nothing else. For a method that judges elsewhere than in `judge` to override."""
        self.judge(groups)

    def kl_to_start(self, trajectories: Sequence[Trajectory]) -> float:
        """KL(policy || starting weights) per token in nats, by the k3 estimator on the policy's own samples (Schulman, joschu.net/blog/kl-approx)."""
        now = self.learner.logprobs(trajectories)
        start = self.learner.logprobs(trajectories, reference="start")
        difference = torch.tensor([b - a for x, y in zip(now, start, strict=True) for a, b in zip(x, y, strict=True)])
        return float((difference.clamp(-20, 20).exp() - 1 - difference).mean()) if len(difference) else 0.0

    # Saving

    def be_still(self) -> None:
        """Have nothing else ask the sampler for anything, before it is used outside of a step."""
        if self.ahead is not None:
            self.ahead.still()

    def state(self) -> State:
        abandoned = self.ahead.abandon() if self.ahead is not None else 0
        plain, tensors = self.learner.state()
        weights = {f"weights.{name}": p.detach() for name, p in self.policy.model.named_parameters() if p.requires_grad}
        return State(
            plain={"learner": plain, "curriculum": self.curriculum.state(), "version": self.policy.sampler.newest, "abandoned": abandoned},
            tensors=weights | {f"learner.{name}": t for name, t in tensors.items()},
            write_shards=self.learner.write_shards,
        )

    def load_state(self, state: State) -> None:
        if self.ahead is not None:
            self.ahead.abandon()
        if abandoned := state.plain.get("abandoned", 0):
            warnings.warn(
                f"{abandoned} batches were being generated when the run was stopped between two checkpoints of its schedule. Their tokens are counted and not trained on, "
                "so that numbers from here on are not those of a run that was not stopped",
                stacklevel=2,
            )
        with torch.no_grad():
            for name, parameter in self.policy.model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(state.tensors[f"weights.{name}"])
        self.learner.load_state(state.plain["learner"], state.part_of("learner"), state.shards)
        self.curriculum.load_state(state.plain["curriculum"])
        self.policy.weights_changed(int(state.plain["version"]))

    def export(self, folder: Any) -> None:
        self.policy.save(folder)

    def close(self) -> None:
        super().close()
        # A run that was refused in its setup has no learner yet.
        if (learner := getattr(self, "learner", None)) is not None:
            learner.close()
        if self.ahead is not None:
            self.ahead.close()
        if self.fleet is not None:
            self.fleet.close()

    # Details

    def require_single_turns(self, why: str) -> None:
        """Refuse tasks that are played in turns with an environment. Raises InputError: `why` says what about the method asks for it, and what to do."""
        environment = self.task_set.environment()
        if environment is not None:
            environment.close()
            raise InputError(f"{self.task_set.name} is played in turns with an environment, and {self.card.name} {why}")

    def _check_prompts(self) -> None:
        """Look at prompts before anything is computed: one that leaves no room for an answer would fail in the middle of the run."""
        room = self.policy.context_length - 1
        for task in [
            *self.held_out,
            *(t for k in self.retained for t in k.tasks),
            *(self.probe.tasks if self.probe is not None else ()),
            *(self.task_set.train_task(self.run.seed, i) for i in range(64)),
        ]:
            length = len(self.policy.render(task.opening))
            if length > room:
                raise InputError(
                    f"the prompt of task {task.id!r} has {length} tokens, but {self.policy.name} reads {self.policy.context_length} in all; "
                    "shorten the prompt or use a model with a longer context"
                )

    def _sampled_records(self, groups: Sequence[Group]) -> list[dict[str, Any]]:
        """Records of a few trajectories, spread over the groups."""
        wanted = self.run.config.save_trajectories
        everything = trajectories_of(groups)
        if not wanted or not everything:
            return []
        stride = max(1, len(everything) // wanted)
        return [record_of(t) for t in everything[::stride][:wanted]]


def rollout_metrics(groups: Sequence[Group]) -> Metrics:
    """What a step's rollouts looked like, before anything is filtered."""
    trajectories = trajectories_of(groups)
    scored = [t.reward for t in trajectories if t.reward == t.reward]
    average = mean(scored)
    metrics: Metrics = {
        "reward/mean": average,
        "reward/std": mean([(r - average) ** 2 for r in scored]) ** 0.5 if scored else float("nan"),
        "signal/groups_with_spread": mean([float(g.has_spread) for g in groups]),
        "rollout/length": mean([float(t.generated_length) for t in trajectories]),
        "rollout/entropy": mean([e for t in trajectories for s in t.segments if s.trained for e in s.entropies]),
        "rollout/truncated": mean([float(t.stop_reason == "length") for t in trajectories]),
    }
    for name in sorted({name for t in trajectories for name in t.rewards}):
        metrics[f"reward/{name}"] = mean([t.rewards[name] for t in trajectories if name in t.rewards and t.rewards[name] == t.rewards[name]])
    if any(s.author in ("tool", "environment") for t in trajectories for s in t.segments):
        metrics["rollout/turns"] = mean([float(sum(s.author == "policy" for s in t.segments)) for t in trajectories])
    return metrics | tool_use(trajectories)

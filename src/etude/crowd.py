"""Several policies that practise the same tasks and learn from what all of them did: what such methods share.

A crowd's member is a whole method of the loop in everything that concerns one policy: its model, tokenizer, chat template and context limit, its optimiser and
reference, its rollouts, credit, update and measurements. The crowd holds what they share (tasks, probe, accounts) and says what an attempt is worth. What passes
between members are texts and answers, never tokens, so that members may be models of any kind.

A method of this kind names the class of its members and fills in rewards in `judge`:

    class Learner(Member, GRPO): ...

    class Mine(Crowd):
        member_class = Learner
        def judge(self, sampled, answer_in): ...
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from etude.config import PolicyOptimizationConfig, TrainConfig
from etude.errors import InputError
from etude.evals.collapse import Reading
from etude.evals.evaluate import Evaluation, keep_samples, record_of
from etude.evals.monitors import monitors
from etude.evals.passk import task_interval
from etude.evals.probe import Probe
from etude.loop import PolicyOptimization, rollout_metrics
from etude.memory import Curriculum
from etude.method import Method, State
from etude.models.language import LanguageModel
from etude.rewards import compose
from etude.rewards.votes import answers_of, consistency_weights, crowd_vote
from etude.tasks.base import TaskSet
from etude.types import Group, Metrics, Task, mean, trajectories_of
from etude.watch import Watch

if TYPE_CHECKING:
    from etude.run import Run

AnswerIn = Callable[[str], str | None]
"""The final answer in a text (`TaskSet.answer_in`)."""
Sampled = Sequence[Sequence[Group]]
"""One row a member, one column a task: each member's attempts at each task."""


@dataclass
class CrowdConfig(PolicyOptimizationConfig):
    """Options of methods that train several models together."""

    crowd: tuple[str, ...] = ()
    """The other models, which learn beside `model`: any number of embedded models, Hugging Face folders and hub ids, joined by commas or spaces. Each makes
    `group_size` attempts at every task."""


class Member(PolicyOptimization):
    """One policy of a crowd, and everything that is its own. What is shared it has from the first member, which it is handed as `leader`."""

    def __init__(
        self,
        config: TrainConfig[Any],
        run: Run,
        *,
        name: str,
        place: int = 0,
        leader: Member | None = None,
        policy: LanguageModel | None = None,
        task_set: TaskSet | None = None,
    ) -> None:
        super().__init__(config, run, policy=policy, task_set=leader.task_set if leader is not None else task_set)
        self.name, self.place, self.leader = name, place, leader
        # Two members with the same random numbers would vote more alike than they are.
        self.evaluation_seed = place

    def stream(self, task: Task, place: int, sample: int, round_: int = 0) -> int:
        return self.run.stream(self.run.step, round_, place, task.id, sample, "member", self.place)

    def make_curriculum(self) -> Curriculum:
        return super().make_curriculum() if self.leader is None else self.leader.curriculum

    def make_probe(self) -> Probe | None:
        return super().make_probe() if self.leader is None else self.leader.probe


class Crowd(Method):
    """Everybody tries the same tasks, the crowd says what each attempt is worth, and everybody learns from their own attempts."""

    config: CrowdConfig
    member_class: ClassVar[type[Member]]
    spends: ClassVar[frozenset[str] | None] = PolicyOptimization.spends

    def __init__(self, config: TrainConfig[Any], run: Run, *, policies: Sequence[LanguageModel] = (), task_set: TaskSet | None = None) -> None:
        super().__init__(config.method, run)
        self._whole = config
        self._policies = policies
        self._task_set = task_set

    def setup(self) -> None:
        inputs = self._whole.inputs
        others = [name for entry in self.config.crowd for name in entry.split(",") if name]
        models = [policy.name for policy in self._policies] or [inputs.model, *others]
        if len(models) < 2:
            raise InputError(
                f"{self.card.name} trains several models together, and only {models[0]} is named; expected others with --crowd, for example --crowd smollm2,tiny"
            )
        if self.config.learner.learner != "single":
            raise InputError(f"{self.card.name} trains several models, each with a learner of its own, which are not sharded; leave --learner out")
        if self.config.ray.engine != "local":
            raise InputError(f"{self.card.name} trains several models, which --engine ray has no processes for; leave --engine out")
        self.members: list[Member] = []
        for place, (name, model) in enumerate(zip(member_names(models), models, strict=True)):
            member = self.member_class(
                replace(self._whole, inputs=replace(inputs, model=model)),
                self.run,
                name=name,
                place=place,
                leader=self.members[0] if self.members else None,
                policy=self._policies[place] if self._policies else None,
                task_set=self._task_set,
            )
            member.setup()
            self.members.append(member)
        first, watch = self.members[0], self.config.watch
        self.task_set, self.curriculum, self.probe = first.task_set, first.curriculum, first.probe
        self.watch = Watch(watch.probe_every, self.read_probe, watch.limits) if self.probe is not None else None

    @property
    def policy(self) -> LanguageModel:
        """The first member's, for what asks for one model."""
        return self.members[0].policy

    # One step

    def step(self) -> Metrics:
        started = time.perf_counter()
        tasks = self.curriculum.next(self.config.tasks_per_step)
        sampled = [member.tried(tasks) for member in self.members]
        judged = self.judge(sampled, self.task_set.answer_in)
        judged |= compose([t for groups in sampled for t in trajectories_of(groups)], self.members[0].reward_weights, self.run.step)
        collected = time.perf_counter()
        everything = [group for groups in sampled for group in groups]
        metrics = rollout_metrics(everything) | monitors(everything) | judged
        self.run.save_trajectories(self.run.step, self._records(sampled))
        metrics |= averaged([self.learn(member, groups) for member, groups in zip(self.members, sampled, strict=True)])
        for member, groups in zip(self.members, sampled, strict=True):
            metrics[f"crowd/{member.name}/no_signal"] = mean([float(not group.has_spread) for group in groups])
        self.curriculum.observe(pooled(sampled))
        metrics["time/rollout"] = collected - started
        metrics["time/update"] = time.perf_counter() - collected
        return metrics

    @abstractmethod
    def judge(self, sampled: Sampled, answer_in: AnswerIn) -> Metrics:
        """Fill in the reward of every attempt from what all members did, and change nothing else. Verdicts, where tasks have labels, are there already."""

    def learn(self, member: Member, groups: Sequence[Group]) -> Metrics:
        """Credit and update of one member from its own attempts."""
        chosen = member.select(list(groups))
        return member.credit(chosen) | member.update(chosen)

    def _records(self, sampled: Sampled) -> list[dict[str, Any]]:
        """Records of a few attempts, spread over members and tasks."""
        everything = [(member.name, t) for member, groups in zip(self.members, sampled, strict=True) for t in trajectories_of(groups)]
        wanted = self.run.config.save_trajectories
        stride = max(1, len(everything) // max(1, wanted))
        return [{**record_of(t), "member": name} for name, t in everything[::stride][:wanted]]

    # Measuring

    def evaluate(self) -> Metrics:
        evaluations = [member.measured() for member in self.members]
        tasks, count = evaluations[0].tasks, len(self.members)
        # Of the tasks that a report shows, each member answers its part.
        shown = [evaluations[i * count // len(tasks)].trajectories[i] for i in range(len(tasks))]
        keep_samples(self.run.folder, self.run.step, Evaluation({}, tasks, shown))
        return crowd_metrics([member.name for member in self.members], evaluations, self.task_set.answer_in)

    def read_probe(self) -> Reading:
        """Every member's attempts at the probe tasks as training would make them, judged by the labels and as the crowd judges."""
        probe = self.probe
        assert probe is not None, "only a method with a probe is asked to read it"
        sampled = [probe.attempts(m.policy, m.params, max_turns=m.max_turns, ledger=self.run.ledger, first=m.place * probe.samples) for m in self.members]
        return probe.reading(self.run.step, pooled(sampled), lambda _: self.judge(sampled, probe.judged.answer_in))

    # Saving

    def state(self) -> State:
        states = [member.state() for member in self.members]
        return State(
            plain={"members": [state.plain for state in states]},
            tensors={f"member{i}.{name}": tensor for i, state in enumerate(states) for name, tensor in state.tensors.items()},
        )

    def load_state(self, state: State) -> None:
        for i, (member, plain) in enumerate(zip(self.members, state.plain["members"], strict=True)):
            member.load_state(State(plain, state.part_of(f"member{i}")))

    def export(self, folder: Any) -> None:
        """The first member's model in the folder itself, where whatever takes a run looks for one; each further member's in a folder of its name inside."""
        for member in self.members:
            member.export(Path(folder) if member.leader is None else Path(folder) / member.name)


def member_names(models: Sequence[str]) -> list[str]:
    """A short name for each model, all different: the folder's, a run's for its exported model, the last part of a hub id; repeated ones are numbered."""
    names: list[str] = []
    for model in models:
        parts = [part for part in Path(model).expanduser().parts if part not in ("/", "model")]
        name = base = parts[-1] if parts else "model"
        number = 2
        while name in names:
            name, number = f"{base}-{number}", number + 1
        names.append(name)
    return names


def pooled(sampled: Sampled) -> list[Group]:
    """One group a task with all members' attempts at it, in the members' order."""
    return [Group(row[0].key, [t for group in row for t in group.trajectories], row[0].tags) for row in zip(*sampled, strict=True)]


def averaged(rows: Sequence[Metrics]) -> Metrics:
    """The mean of each metric over the members that have a value of it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: mean([row[name] for row in rows if math.isfinite(row.get(name, math.nan))]) for name in names}


def crowd_metrics(names: Sequence[str], evaluations: Sequence[Evaluation], answer_in: AnswerIn) -> Metrics:
    """What held-out attempts of all members show.

    - `eval/...`: the mean over members of what is measured for a single policy. The interval of `eval/pass@1` is that of the mean, by task; other `_low` and
      `_high` are means as well, so that they are wider than they need be.
    - `eval/NAME/pass@1` (and `kl_to_start`, where it is measured): each member's own.
    - `eval/vote`, `eval/plain_vote`: share of tasks that the crowd's vote over all attempts solves, weighted by self-consistency and not. `eval/vote_lead`: by how
      much the weighted vote is ahead of the best member.
    """
    metrics = averaged([evaluation.metrics for evaluation in evaluations])
    for name, evaluation in zip(names, evaluations, strict=True):
        metrics |= {f"eval/{name}/{key}": evaluation.metrics[f"eval/{key}"] for key in ("pass@1", "kl_to_start") if f"eval/{key}" in evaluation.metrics}
    weighted, plain, accuracy = [], [], []
    for rows in zip(*(evaluation.trajectories for evaluation in evaluations), strict=True):
        verdicts = [t.correct for row in rows for t in row]
        if any(map(math.isnan, verdicts)):
            continue
        answers = [answers_of(row, answer_in) for row in rows]
        flat = [a for row in answers for a in row]
        for solved, power in ((weighted, 1.0), (plain, 0.0)):
            label = crowd_vote(answers, consistency_weights(answers, power=power)).answer
            solved.append(mean([v for v, a in zip(verdicts, flat, strict=True) if a == label], 0.0) if label is not None else 0.0)
        accuracy.append(mean(verdicts))
    if accuracy:
        samples = sum(len(evaluation.trajectories[0]) for evaluation in evaluations)
        metrics["eval/pass@1_low"], metrics["eval/pass@1_high"] = task_interval([min(1.0, max(0.0, a)) for a in accuracy], samples)
        metrics |= {"eval/vote": mean(weighted), "eval/plain_vote": mean(plain)}
        metrics["eval/vote_lead"] = mean(weighted) - max(metrics[f"eval/{name}/pass@1"] for name in names)
    return metrics

"""The probe: a few labelled tasks that are never trained on, tried again and again while a run goes on.

Each reading puts what training maximises (the proxy: the reward as the method gives it) beside what is meant (accuracy by the labels), on the same attempts. What
else gives a collapse away is read with them: how answers and verdicts are spread, how long and how certain the responses are. `etude.evals.collapse` says what
follows from it. Every reading of every run draws with the same random numbers, so that two readings differ by what the policy became.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev

from etude.config import InputConfig, ProbeConfig
from etude.errors import InputError
from etude.evals.collapse import Reading
from etude.evals.monitors import monitors
from etude.evals.passk import Z95, task_interval
from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams, stream_key
from etude.rewards import judge as judge_by_labels
from etude.rollouts import group_rollouts
from etude.tasks.answers import final_answer, normalise
from etude.tasks.base import TaskSet, prompt_key
from etude.tasks.jsonl import JsonlTaskSet
from etude.tasks.loading import load_tasks, names_tool
from etude.tasks.revisions import answer_of
from etude.tasks.unlabelled import PartlyLabelled
from etude.types import Group, Metrics, Task, Trajectory, mean, trajectories_of

KEPT_ANSWERS = 12
"""Most common answers that a reading keeps."""
LOOKED_THROUGH = 2048
"""Training tasks that are compared with the probe's before a run, at most. Later ones are held back from the learner when they come up."""


@dataclass
class Probe:
    """Labelled tasks, and the two ways in which attempts at them are judged.

    judged: the task set as training sees it, with the user's own reward where there is one. truth: the same tasks with their labels.
    positive: rewards above it count as positive verdicts.
    """

    tasks: Sequence[Task]
    judged: TaskSet
    truth: TaskSet
    samples: int
    positive: float = 0.5

    @cached_property
    def keys(self) -> frozenset[str]:
        """What the tasks ask, as hashes."""
        return frozenset(map(prompt_key, self.tasks))

    def read(
        self, step: int, policy: LanguageModel, params: SamplingParams, *, max_turns: int, judge: Callable[[list[Group]], None], ledger: Ledger
    ) -> Reading:
        """Try every task, and judge the attempts by the labels and by `judge`, which fills in rewards as it would in training. Costs go to `ledger`."""
        return self.reading(step, self.attempts(policy, params, max_turns=max_turns, ledger=ledger), judge)

    def attempts(self, policy: LanguageModel, params: SamplingParams, *, max_turns: int, ledger: Ledger, first: int = 0) -> list[Group]:
        """Attempts at every task, judged by the labels. first: the number of the first attempt, so that several policies draw with random numbers of their own."""
        groups = group_rollouts(
            policy,
            self.tasks,
            self.judged,
            params,
            group_size=self.samples,
            stream=lambda task, _place, sample: stream_key("probe", task.id, first + sample),
            max_turns=max_turns,
            ledger=ledger,
        )
        judge_by_labels(trajectories_of(groups), self.truth)
        return groups

    def reading(self, step: int, groups: list[Group], judge: Callable[[list[Group]], object]) -> Reading:
        """What attempts that are judged by the labels show, once `judge` has filled in their rewards."""
        attempts = trajectories_of(groups)
        verdicts = [t.rewards.get("correct", math.nan) for t in attempts]
        judge(groups)
        for attempt, verdict in zip(attempts, verdicts, strict=True):
            attempt.rewards["correct"] = verdict
        return reading_of(step, groups, self.truth.answer_in, positive=self.positive)

    def holds_back(self, trajectories: Iterable[Trajectory]) -> bool:
        """Whether one of the trajectories is an attempt at a probe task, which nothing may learn from."""
        return any(prompt_key(task) in self.keys for task in {id(t.task): t.task for t in trajectories}.values())

    def check_disjoint(self, training: Iterable[Task]) -> None:
        """Raises InputError when training tasks are among the probe's."""
        asked = {prompt_key(task): task for task in training}
        both = [task for task in self.tasks if prompt_key(task) in asked]
        if both:
            raise InputError(
                f"{len(both)} of the {len(self.tasks)} probe tasks are trained on as well, {both[0].id!r} among them ({both[0].prompt[:60]!r}): "
                "what is learnt by heart shows no collapse; give other tasks with --probe-tasks"
            )


def open_probe(config: ProbeConfig, inputs: InputConfig, *, task_set: TaskSet, evaluated: Sequence[Task], seed: int, handed_in: bool = False) -> Probe:
    """The probe that a configuration describes.

    task_set: what is trained on. evaluated: held-out tasks that evaluation measures; others are taken while there are any. handed_in: `task_set` was not loaded
    from `inputs`, and has its own labels.
    Raises InputError when the tasks have no labels or cannot be read.
    """
    if config.probe_tasks is not None:
        judged = load_tasks(_named(config.probe_tasks, inputs), inputs.reward, inputs.env, seed)
        truth = load_tasks(_named(config.probe_tasks, inputs), None, inputs.env, seed) if inputs.reward is not None else judged
    else:
        judged = task_set
        # A reward of the user's own may hide the labels: without it the tasks are judged by them.
        truth = load_tasks(inputs.tasks, None, inputs.env, seed) if inputs.reward is not None and not handed_in else task_set
    known = truth.labelled() if isinstance(truth, PartlyLabelled) else truth.held_out()
    tasks = _chosen(known, evaluated if config.probe_tasks is None else (), config.probe_size)
    if not tasks:
        raise InputError(f"the task set {truth.name} has no held-out tasks with labels to probe with; name others with --probe-tasks")
    return Probe(tasks, judged, truth, config.probe_samples, config.probe_positive)


def unwatched(slug: str, error: InputError) -> None:
    """Say that a run which ought to be watched is not, because its tasks have no labels."""
    warnings.warn(f"{slug} learns without labels, and nothing watches it for a collapse: {error}. Give labelled tasks with --probe-tasks", stacklevel=3)


def _named(spec: str, inputs: InputConfig) -> TaskSet | str:
    """What `--probe-tasks` names: of a JSONL file all lines, of anything else its held-out split."""
    path = Path(spec).expanduser()
    if path.is_file() and path.suffix.lower() == ".jsonl":
        return JsonlTaskSet(path, needs_answers=inputs.env is None or names_tool(inputs.env), hold_all_out=True)
    return spec


def _chosen(candidates: Sequence[Task], evaluated: Iterable[Task], size: int) -> list[Task]:
    """`size` tasks in an order that depends on nothing but what they ask; those that evaluation measures come last."""
    measured = set(map(prompt_key, evaluated))
    keyed = {prompt_key(task): task for task in candidates}
    return [keyed[key] for key in sorted(keyed, key=lambda key: (key in measured, key))][:size]


def reading_of(step: int, groups: Sequence[Group], answer_in: Callable[[str], str | None], *, positive: float = 0.5) -> Reading:
    """What judged attempts at the probe tasks show: one group a task; each trajectory's reward is the proxy, its component `correct` the label's verdict.

    Returns the metrics, all over attempts unless said otherwise:

    - `probe/accuracy`, `probe/proxy`: means, with `_low` and `_high` (95 %, by task).
    - `probe/answers`: number of different final answers; `probe/top_answer`: share of attempts, over all tasks, that give the most common one;
      `probe/top_reference`: share of tasks whose reference answer is the most common one; `probe/unanswered`: share without a final answer.
    - `probe/positive`: share of judged attempts whose reward is above `positive`.
    - `probe/length`, `probe/truncated`, `probe/entropy` (nats per token).
    - `probe/solved`, `probe/auc`, `probe/best_by_reward`: see `etude.evals.monitors`.
    """
    attempts = trajectories_of(groups)
    accuracy = tuple(_known_mean([t.rewards["correct"] for t in g.trajectories]) for g in groups)
    proxy = tuple(_known_mean([t.reward for t in g.trajectories]) for g in groups)
    given = Counter(normalise(answer) for t in attempts if (answer := answer_of(t, answer_in)) is not None)
    answers = tuple((answer, count / len(attempts)) for answer, count in given.most_common(KEPT_ANSWERS))
    rewards = [t.reward for t in attempts if math.isfinite(t.reward)]
    samples = max((len(g) for g in groups), default=0)
    metrics: Metrics = {
        **_with_ends("probe/accuracy", accuracy, samples),
        **_with_ends("probe/proxy", proxy, samples),
        "probe/answers": float(len(given)),
        "probe/top_answer": answers[0][1] if answers else 0.0,
        "probe/top_reference": _top_reference([g.trajectories[0].task for g in groups if g.trajectories]),
        "probe/unanswered": 1 - sum(given.values()) / len(attempts) if attempts else math.nan,
        "probe/positive": mean([float(r > positive) for r in rewards]),
        "probe/length": mean([float(t.generated_length) for t in attempts]),
        "probe/truncated": mean([float(t.stop_reason == "length") for t in attempts]),
        "probe/entropy": mean([e for t in attempts for s in t.segments if s.trained for e in s.entropies]),
        "probe/tasks": float(len(groups)),
    }
    watched = monitors(groups)
    metrics |= {f"probe/{name.split('/')[1]}": watched[name] for name in ("explore/solved", "exploit/auc", "exploit/best_by_reward") if name in watched}
    return Reading(step, metrics, accuracy, proxy, answers)


def _top_reference(tasks: Sequence[Task]) -> float:
    """Share of the tasks that have the most common reference answer; 0 where there are no references."""
    references = Counter(normalise(final_answer(t.answer) or t.answer) for t in tasks if t.answer is not None)
    return max(references.values()) / len(tasks) if references else 0.0


def _with_ends(name: str, values: Sequence[float], samples: int) -> Metrics:
    """Mean over tasks with its 95 % interval: as for shares where all values are in [0, 1], else by the normal distribution."""
    known = [v for v in values if math.isfinite(v)]
    middle = fmean(known) if known else math.nan
    if not known or (min(known) >= 0 and max(known) <= 1):
        low, high = task_interval(known, samples) if known else (math.nan, math.nan)
    else:
        half = Z95 * stdev(known) / math.sqrt(len(known)) if len(known) > 1 else math.inf
        low, high = middle - half, middle + half
    return {name: middle, f"{name}_low": low, f"{name}_high": high}


def _known_mean(values: Sequence[float]) -> float:
    return mean([v for v in values if math.isfinite(v)])

"""Measure a policy on held-out tasks: sample, judge, summarise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.durable import replace_file
from etude.evals.passk import summarise
from etude.evals.program_rounds import round_metrics
from etude.evals.revision import corrected_votes, revised
from etude.evals.soundness import soundness
from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams, stream_key
from etude.rewards import judge
from etude.rollouts import EpisodeRequest, run_episodes
from etude.tasks.base import TaskSet
from etude.tasks.revisions import answer_of
from etude.types import Metrics, Task, Trajectory, mean


@dataclass
class Evaluation:
    """Held-out measurements. `metrics` are keyed `eval/...`; `trajectories` are one row a task, one column a sample."""

    metrics: Metrics
    tasks: list[Task]
    trajectories: list[list[Trajectory]] = field(repr=False)

    def records(self, count: int, samples: int = 1) -> list[dict[str, Any]]:
        """Plain records of the first `samples` attempts at `count` tasks spread over the split, for a report."""
        step = max(1, len(self.tasks) // max(1, count))
        return [record_of(t) for row in self.trajectories[::step][:count] for t in row[:samples]]


def record_of(trajectory: Trajectory) -> dict[str, Any]:
    """A trajectory as plain JSON values, for a report."""
    turns = [{"author": s.author, "text": s.text} for s in trajectory.segments]
    return {
        "task_id": trajectory.task.id,
        "prompt": trajectory.task.prompt,
        "answer": trajectory.task.answer,
        "text": turns[0]["text"] if len(turns) == 1 else "\n".join(f"[{t['author']}] {t['text']}" for t in turns),
        "reward": trajectory.reward,
        "rewards": dict(trajectory.rewards),
        "correct": trajectory.correct,
        "length": trajectory.generated_length,
        "stop_reason": trajectory.stop_reason,
        "sample": trajectory.sample,
    }


def keep_samples(folder: Path, step: int, evaluation: Evaluation, count: int = 24) -> None:
    """Write `samples.jsonl`: what the model answered to the same held-out tasks before the first step and at the newest evaluation."""
    path = folder / "samples.jsonl"
    earlier = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() and step > 0 else []
    records = [r for r in earlier if r["step"] == 0] + [{"step": step, **r} for r in evaluation.records(count)]
    replace_file(path, "".join(json.dumps(r) + "\n" for r in records))


def evaluate(
    policy: LanguageModel,
    task_set: TaskSet,
    *,
    tasks: Sequence[Task],
    samples: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_new_tokens: int = 0,
    max_turns: int = 8,
    seed: int = 0,
    ledger: Ledger | None = None,
) -> Evaluation:
    """pass@k, maj@k, length, format and entropy over `samples` attempts at each task, with 95 % intervals that take tasks as the unit.

    The same seed uses the same random numbers for every model, so that two models' measurements differ by less chance.
    """
    params = SamplingParams(
        max_new_tokens=max_new_tokens or task_set.max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        stop=tuple(task_set.stop),
    )
    requests = [EpisodeRequest(task, sample, stream_key("evaluation", seed, task.id, sample)) for task in tasks for sample in range(samples)]
    turns = min(max_turns, task_set.max_turns) if task_set.max_turns > 1 else max_turns
    flat = run_episodes(policy, requests, task_set, params, max_turns=turns, ledger=ledger or Ledger())
    judge(flat, task_set)
    rows = [flat[i * samples : (i + 1) * samples] for i in range(len(tasks))]
    metrics = measured(task_set, tasks, rows, [[t.generated_length for t in row] for row in rows])
    entropies = [e for t in flat for s in t.segments if s.trained for e in s.entropies]
    metrics["eval/entropy"] = mean(entropies)
    return Evaluation(metrics, list(tasks), rows)


def measured(task_set: TaskSet, tasks: Sequence[Task], rows: Sequence[Sequence[Trajectory]], lengths: Sequence[Sequence[float]]) -> Metrics:
    """The metrics of judged attempts, wherever they were sampled: pass@k, maj@k, length, format, reward and how many were cut off.

    rows, lengths: one row a task, one column a sample; lengths in tokens.
    """
    flat = [t for row in rows for t in row]
    metrics = summarise(
        task_ids=[t.id for t in tasks],
        correct=[[t.correct for t in row] for row in rows],
        answers=[[answer_of(t, task_set.answer_in) for t in row] for row in rows],
        lengths=lengths,
        formats=[[t.rewards["format"] for t in row] for row in rows] if all("format" in t.rewards for t in flat) else None,
    )
    metrics["eval/reward"] = mean([t.reward for t in flat])
    of_kinds = soundness(task_set, flat) | revised(flat, task_set.answer_in) | corrected_votes(rows, task_set.answer_in) | round_metrics(flat)
    metrics |= {f"eval/{name}": value for name, value in of_kinds.items()}
    metrics["eval/truncated"] = mean([float(t.stop_reason == "length") for t in flat])
    return metrics

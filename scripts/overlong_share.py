"""Which right answers of the embedded model DAPO's length penalty hits, family by family.

    python scripts/overlong_share.py

Expected: none of those that fit into what the task set asks for.
"""

from __future__ import annotations

import argparse

from etude.ledger import Ledger
from etude.methods.baselines.dapo import DAPOConfig
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams, stream_key
from etude.rewards import judge, overlong
from etude.rollouts import group_rollouts
from etude.tasks.builtin import builtin_task_sets
from etude.types import trajectories_of


def main() -> None:
    parser = argparse.ArgumentParser(description="Which right answers the length penalty hits, family by family.")
    parser.add_argument("--tasks", type=int, default=64, help="training tasks of each family")
    parser.add_argument("--attempts", type=int, default=8, help="attempts at each")
    parser.add_argument("--share", type=float, default=DAPOConfig().overlong_share, help="overlong_share")
    given = parser.parse_args()
    policy = LanguageModel.load("tiny", device="cpu")
    print(f"{'family':16} {'limit':>5} {'turns':>5} {'right':>5} {'longest':>7} {'penalised':>9}")
    for name, family in builtin_task_sets().items():
        tasks = family()
        cache = max(1, round(given.share * tasks.max_new_tokens))
        groups = group_rollouts(
            policy,
            [tasks.train_task(0, i) for i in range(given.tasks)],
            tasks,
            SamplingParams(tasks.max_new_tokens + cache, stop=tuple(tasks.stop)),
            group_size=given.attempts,
            stream=lambda task, _place, sample: stream_key(1, task.id, sample),
            max_turns=tasks.max_turns,
            ledger=Ledger(),
        )
        trajectories = trajectories_of(groups)
        judge(trajectories, tasks)
        right = [t.generated_length for t in trajectories if t.correct == 1]
        limit = (tasks.max_new_tokens + cache) * tasks.max_turns
        hit = sum(overlong(length, max_length=limit, cache=cache * tasks.max_turns) < 0 for length in right)
        print(f"{name:16} {tasks.max_new_tokens:5} {tasks.max_turns:5} {len(right):5} {max(right, default=0):7} {hit / max(1, len(right)):9.3f}", flush=True)


if __name__ == "__main__":
    main()

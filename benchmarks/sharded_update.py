"""What an update costs in one process and in ranks that each hold a shard: seconds, and on Linux seconds of the processor of each process.

    python benchmarks/sharded_update.py --model tiny --ranks 2

Both update the same model on the same attempts at random tokens, with GRPO's objective.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from pathlib import Path

import torch
from machine import describe

from etude.config import LearnerConfig
from etude.models.fsdp.learner import FsdpLearner
from etude.models.fsdp.ranks import Ranks
from etude.models.language import LanguageModel
from etude.models.learner import Learner
from etude.objectives import PolicyObjective, ppo_surrogate
from etude.types import Message, Segment, Task, Trajectory


def attempts(groups: int, size: int, length: int) -> list[list[Trajectory]]:
    """Groups of attempts, half of whose tokens are the prompt."""
    rng = random.Random(0)
    task = Task("random", (Message("user", "?"),))

    def attempt(prompt: list[int], sample: int) -> Trajectory:
        tokens = [rng.randrange(3, 60) for _ in range(length // 2)]
        credit = [rng.random() - 0.5] * len(tokens)
        return Trajectory(task, prompt, [Segment(tokens, "policy", trained=True, logprobs=[-1.0] * len(tokens), advantages=credit)], "eos", sample=sample)

    prompts = [[rng.randrange(3, 60) for _ in range(length - length // 2)] for _ in range(groups)]
    return [[attempt(prompt, sample) for sample in range(size)] for prompt in prompts]


def processor_seconds(pid: int) -> float:
    """What a process has spent so far; 0 where the system does not say."""
    path = Path(f"/proc/{pid}/stat")
    if not path.exists():
        return 0.0
    fields = path.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(learner: Learner | FsdpLearner, pids: list[int], units: list[list[Trajectory]], updates: int) -> str:
    objective = PolicyObjective(ppo_surrogate(0.2, 0.2))
    learner.update(units, objective)
    before, began = [processor_seconds(pid) for pid in pids], time.perf_counter()
    for _ in range(updates):
        learner.update(units, objective)
    seconds = (time.perf_counter() - began) / updates
    spent = [(processor_seconds(pid) - b) / updates for pid, b in zip(pids, before, strict=True)]
    return f"{seconds:.2f} s an update, of the processor {' + '.join(f'{s:.2f}' for s in spent)} s"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--groups", type=int, default=16)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--length", type=int, default=40)
    parser.add_argument("--updates", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="of one process; ranks have so many together, and one each at least")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(describe(options.threads))
    units = attempts(options.groups, options.size, options.length)
    alone = LanguageModel.load(options.model)
    print("one process", measure(Learner(alone.model, LearnerConfig()), [os.getpid()], units, options.updates))
    together = LanguageModel.load(options.model)
    ranks = Ranks(options.ranks, together.device.type)
    learner = FsdpLearner(together.model, LearnerConfig(), ranks=ranks)
    print(f"{options.ranks} ranks", measure(learner, [*ranks.pids, os.getpid()], units, options.updates))
    ranks.close()


if __name__ == "__main__":
    main()

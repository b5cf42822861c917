"""How often a model solves tasks as they are, and with solved examples in front of them: whether XRPO's seeding has anything to work with.

    python scripts/seeded_success.py --model tiny --tasks arithmetic lists:steps=3

The examples are demonstrations of other training tasks, the most similar ones, so that they are right whatever the model can do. One line a task set, on standard output.
"""

from __future__ import annotations

import argparse

import torch

from etude.ledger import Ledger
from etude.memory import ExemplarStore
from etude.memory.exemplars import fitting_examples
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams, stream_key
from etude.rewards import judge
from etude.rollouts import EpisodeRequest, run_episodes
from etude.tasks.base import TaskSet
from etude.tasks.loading import load_tasks
from etude.types import Message, mean

POOL = 200
"""Demonstrations to choose examples from."""


def pass_rate(policy: LanguageModel, tasks: TaskSet, *, count: int, samples: int, examples: int) -> float:
    """Share of right attempts, `samples` at each of `count` training tasks, with up to `examples` solved ones before the question."""
    store = ExemplarStore()
    for index in range(POOL):
        shown = tasks.train_task(1, index)
        text = tasks.demonstration(shown, 0)
        if text is not None:
            store.add(shown, text, len(policy.tokenizer(text)["input_ids"]))  # type: ignore[arg-type]
    room = policy.context_length - tasks.max_new_tokens
    requests: list[EpisodeRequest] = []
    for index in range(count):
        task = tasks.train_task(0, index)
        messages: tuple[Message, ...] | None = fitting_examples(
            task, store.similar(task, examples), room=room, length=lambda messages: len(policy.render(messages))
        )
        requests += [EpisodeRequest(task, sample, stream_key("seeded success", index, sample), messages) for sample in range(samples)]
    params = SamplingParams(max_new_tokens=tasks.max_new_tokens, stop=tuple(tasks.stop))
    attempts = run_episodes(policy, requests, tasks, params, max_turns=1, ledger=Ledger())
    judge(attempts, tasks)
    return mean([t.correct for t in attempts])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--tasks", nargs="+", default=["arithmetic", "lists:steps=3"])
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--examples", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    loaded = LanguageModel.load(options.model)
    for spec in options.tasks:
        task_set = load_tasks(spec)
        rates = [pass_rate(loaded, task_set, count=options.count, samples=options.samples, examples=k) for k in (0, options.examples)]
        print(f"{spec}: pass@1 {rates[0]:.1%} as it is, {rates[1]:.1%} behind {options.examples} solved examples", flush=True)

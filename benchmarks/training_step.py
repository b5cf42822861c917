"""Seconds of one optimiser step on fresh rollouts: Étude's loop against TRL's GRPOTrainer.

    python benchmarks/training_step.py --model tiny --trl-python /path/to/venv/bin/python

Both sides stay warm and take turns, step by step, in one run: the same prompts, numbers of rollouts and lengths (no sequence may end early), the same stand-in reward,
the same loss (clipped surrogate, group-normalised advantages, mean over all tokens), AdamW, float32, the same number of threads. A step is everything from prompts to
updated weights: sampling, judging, advantages, forward, backward, clipping, optimiser.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from machine import describe, headline, median_and_range, peak_memory
from peer import Peer
from trl_worker import reward

from etude.config import EvaluationConfig, InputConfig, LearnerConfig, RunConfig, SamplerConfig, TrainConfig
from etude.methods.baselines.grpo import GRPO, GRPOConfig
from etude.models.language import LanguageModel, model_folder
from etude.models.packing import pack_flat
from etude.models.sampling import SamplingParams
from etude.run import Run
from etude.tasks.base import TaskSet
from etude.tasks.loading import load_tasks
from etude.types import Group, Metrics, Task, Trajectory


@dataclass(frozen=True)
class Size:
    """How much one step holds, and what is asked of its ratio to TRL's."""

    tasks: int
    group: int
    new_tokens: int
    wanted: float


SIZES = {"tiny": Size(16, 16, 24, 0.5), "smollm2": Size(4, 8, 32, 0.6)}
LEARNING_RATE = 1e-6


class FixedPrompts(TaskSet):
    """The same tasks in the same order for both sides, judged by the stand-in reward."""

    name = "fixed-prompts"

    def __init__(self, tasks: Sequence[Task], new_tokens: int) -> None:
        self.tasks = tasks
        self.max_new_tokens = new_tokens

    def train_task(self, seed: int, index: int) -> Task:
        return self.tasks[index % len(self.tasks)]

    def held_out(self) -> Sequence[Task]:
        return self.tasks[:1]

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        return {"correct": reward(text)}


class EqualLengths(GRPO):
    """GRPO whose sequences go on past the end token, so that both sides train on as many tokens, and which keeps its newest groups."""

    newest: Sequence[Group] = ()

    def sampling_params(self) -> SamplingParams:
        return replace(super().sampling_params(), ignore_eos=True)

    def update(self, groups: Sequence[Group]) -> Metrics:
        self.newest = groups
        return super().update(groups)


class EtudeSide:
    """Étude's loop, one step at a time, with everything that a run writes."""

    def __init__(self, policy: LanguageModel, tasks: Sequence[Task], size: Size, scratch: Path, micro_batch_tokens: int, share: bool) -> None:
        config = TrainConfig(
            method=GRPOConfig(
                aggregation="token_mean",
                tasks_per_step=size.tasks,
                group_size=size.group,
                sampler=SamplerConfig(max_new_tokens=size.new_tokens),
                learner=LearnerConfig(lr=LEARNING_RATE, warmup_steps=0, betas=(0.9, 0.999), micro_batch_tokens=micro_batch_tokens, share_prompts=share),
                evaluation=EvaluationConfig(eval_kl=False),
            ),
            inputs=InputConfig(),
            run=RunConfig(out=scratch / "etude", steps=1_000_000),
        )
        self.run = Run.create(config.run, folder_name="benchmark")
        self.method = EqualLengths(config, self.run, policy=policy, task_set=FixedPrompts(tasks, size.new_tokens))
        self.method.setup()

    def step(self) -> dict[str, Any]:
        """One step; seconds, rollouts, new tokens, mean reward, and the parts of the time."""
        before = self.run.ledger.copy()
        started = time.perf_counter()
        self.run.step += 1
        metrics = self.method.step()
        self.run.log(self.run.step, metrics)
        seconds = time.perf_counter() - started
        spent = self.run.ledger - before
        return {
            "seconds": seconds,
            "rollouts": spent.rollouts,
            "new_tokens": spent.trained_tokens,
            "reward": metrics["reward/mean"],
            "rollout_seconds": metrics["time/rollout"],
            "update_seconds": metrics["time/update"],
            "distinct": distinct_share([group.trajectories for group in self.method.newest]),
        }


def distinct_share(units: Sequence[Sequence[Trajectory]]) -> float:
    """Share of the generated tokens that are computed: of those with the same past one is. Last tokens are not read, and not counted."""
    packed = [pack_flat(unit, range(len(unit)), torch.device("cpu")) for unit in units]
    prompts = sum(len(unit[0].prompt) for unit in units)
    return (sum(p.inputs.numel() for p in packed) - prompts) / sum(len(t.tokens) - 1 for unit in units for t in unit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="tiny, smollm2, a folder or a hub id")
    parser.add_argument("--tasks", default="arithmetic", help="where the prompts come from")
    parser.add_argument("--tasks-per-step", type=int, help="prompts a step")
    parser.add_argument("--group-size", type=int, help="rollouts a prompt")
    parser.add_argument("--new-tokens", type=int, help="tokens a rollout")
    parser.add_argument("--micro-batch-tokens", type=int, default=0, help="Étude's bound on memory (0: its own choice)")
    parser.add_argument("--share-prompts", action=argparse.BooleanOptionalAction, default=True, help="compute once in the update what attempts have in common")
    parser.add_argument("--steps", type=int, default=10, help="measured steps a side, after two to warm up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--trl-python", help="Python of an environment with trl; without it only Étude is measured")
    parser.add_argument("--out", type=Path, help="also write the numbers to this JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    usual = SIZES.get(arguments.model, SIZES["smollm2"])
    size = replace(
        usual,
        tasks=arguments.tasks_per_step or usual.tasks,
        group=arguments.group_size or usual.group,
        new_tokens=arguments.new_tokens or usual.new_tokens,
    )
    policy = LanguageModel.load(arguments.model, device=arguments.device, dtype="float32")
    source = load_tasks(arguments.tasks)
    tasks = [replace(source.train_task(0, i), id=str(i)) for i in range(size.tasks * 4)]
    prompts = [prompt_text(policy, task) for task in tasks]
    with tempfile.TemporaryDirectory() as scratch:
        ours = EtudeSide(policy, tasks, size, Path(scratch), arguments.micro_batch_tokens, arguments.share_prompts)
        if arguments.trl_python:
            config = {
                "model": model_folder(arguments.model),
                "prompts": prompts,
                "tasks_per_step": size.tasks,
                "group_size": size.group,
                "new_tokens": size.new_tokens,
                "lr": LEARNING_RATE,
                "threads": arguments.threads,
                "gpu": policy.device.type == "cuda",
                "scratch": f"{scratch}/trl",
            }
            with Peer(arguments.trl_python, "trl_worker.py", config, threads=arguments.threads) as trl:
                record = measure(ours, trl, size, arguments.steps)
        else:
            record = measure(ours, None, size, arguments.steps)
    record |= {
        "machine": describe(arguments.threads),
        "model": arguments.model,
        "size": vars(size) | {"prompt_tokens": [len(policy.render(t.messages)) for t in tasks]},
    }
    show(record, size)
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


def prompt_text(policy: LanguageModel, task: Task) -> str:
    """A task's prompt as one string that the tokenizer turns into just the tokens that Étude uses."""
    tokens = policy.render(task.messages)
    text = str(policy.tokenizer.decode(tokens, skip_special_tokens=False))
    if list(policy.tokenizer(text)["input_ids"]) != tokens:
        raise RuntimeError(f"the prompt {text!r} can't be given to TRL as text: its tokens would differ")
    return text


def measure(ours: EtudeSide, trl: Peer | None, size: Size, steps: int) -> dict[str, Any]:
    """Two steps of each side to warm up, then both in turn."""
    done: dict[str, list[dict[str, Any]]] = {"etude": []} | ({"trl": []} if trl else {})
    for number in range(steps + 2):
        for side, kept in done.items():
            result = ours.step() if side == "etude" else trl.ask({})  # type: ignore[union-attr]
            if (result["rollouts"], result["new_tokens"]) != (size.tasks * size.group, size.tasks * size.group * size.new_tokens):
                raise RuntimeError(f"{side} did other work than it was asked for: {result['rollouts']} rollouts, {result['new_tokens']} tokens")
            if number >= 2:
                kept.append(result)
            print(f"{side} {result['seconds']:.3f} s, reward {result['reward']:.3f}", file=sys.stderr)
    record: dict[str, Any] = {"sides": done, "peak_memory_mib": {"etude": round(peak_memory())}}
    if trl:
        record["trl"] = trl.description["versions"]
        record["peak_memory_mib"]["trl"] = round(done["trl"][-1]["peak_memory_mib"])
        record["ratio"] = statistics.median(a["seconds"] / b["seconds"] for a, b in zip(done["etude"], done["trl"], strict=True))
    return record


def show(record: dict[str, Any], size: Size) -> None:
    print(headline(record["machine"], "TRL", record.get("trl")))
    lengths = record["size"]["prompt_tokens"]
    print(f"{record['model']}: {size.tasks} prompts ({min(lengths)} to {max(lengths)} tokens) x {size.group} rollouts x {size.new_tokens} new tokens")
    for side, results in record["sides"].items():
        parts = ""
        if side == "etude":
            rollout, update = (statistics.median(r[f"{part}_seconds"] for r in results) for part in ("rollout", "update"))
            parts = (
                f"; rollouts {rollout:.3f}, update {update:.3f}; {statistics.median(r['distinct'] for r in results):.0%} of the tokens have a past of their own"
            )
        print(f"{side:6} {median_and_range([r['seconds'] for r in results])} s a step{parts}; peak memory {record['peak_memory_mib'][side]} MiB")
    if "ratio" in record:
        print(f"Étude / TRL: {record['ratio']:.2f} (median over pairs of steps; wanted: at most {size.wanted})")


if __name__ == "__main__":
    main()

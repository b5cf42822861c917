"""Memory by hand, rates from what is known, and `etude plan` from flags to numbers and messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from transformers import LlamaConfig, LlamaForCausalLM

from etude.cli import main
from etude.ledger import Ledger
from etude.planning import Footprint, Lengths, Observation, Shape, fitted, learner_memory, sampler_memory, shape_of
from etude.planning.lengths import share_with_spread
from etude.planning.shapes import TINY, from_config

SMALL = Shape("small", layers=2, hidden=8, heads=2, kv_heads=1, head_dim=4, intermediate=16, vocabulary=100)
"""A layer: queries and output 8 x 8 each, keys and values 8 x 4 each, the gated unit 3 x 8 x 16, norms 16: 592. With embedding, head and the last norm 2792."""
STATED = ["--model", "7B", "--decode-rate", "9000", "--train-rate", "6000", "--length", "100", "--tasks-per-step", "4", "--group-size", "2", "--updates", "2"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "220")


# Memory


def test_parameters_are_those_of_the_models() -> None:
    assert (SMALL.layer_parameters, SMALL.parameters) == (592, 2 * 592 + 2 * 800 + 8)
    assert shape_of("7b").parameters == 7_615_616_512
    assert shape_of("8B").parameters == 8_030_261_248
    with safe_open(TINY / "model.safetensors", "pt") as weights:
        assert shape_of("tiny").parameters == sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118


def test_a_learner_rank_holds_its_share() -> None:
    alone = learner_memory(SMALL, Footprint("bfloat16", micro_batch_tokens=10, reference=True), 1)
    layer = 2 * (4 * 8 + 2 * 8 + 2 * 4 + 4 * 16) + 4 * (2 * 8 + 2 + 2)
    assert [part.bytes for part in alone.resident] == [2792 * 2, 2792 * 2, 2792 * 12]
    assert [part.bytes for part in alone.working] == [2792 * 4, 10 * 2 * layer, 10 * 100 * 8]
    shared = learner_memory(SMALL, Footprint("float32", micro_batch_tokens=10, gradient_checkpointing=True), 4)
    layer = 4 * (4 * 8 + 2 * 8 + 2 * 4 + 4 * 16) + 4 * (2 * 8 + 2 + 2)
    assert [part.bytes for part in shared.resident] == [2792, 2792 * 2]
    assert [part.bytes for part in shared.working] == [2792, 2 * 800 * 4, 10 * (2 * 8 * 4 + layer), 10 * 100 * 8]
    adapter = learner_memory(SMALL, Footprint("bfloat16", lora_rank=2), 1)
    trained = 2 * 2 * ((8 + 8) * 2 + (8 + 4) * 2 + (8 + 16) * 3)
    assert [part.bytes for part in adapter.resident] == [(2792 + trained) * 2, trained * 12]


def test_a_sampler_holds_weights_and_the_keys_and_values_of_so_many_sequences() -> None:
    alone = sampler_memory(SMALL, "bfloat16", 1, room=2792 * 2 + 1000, context=10)
    assert (alone.token.bytes, alone.sequence, alone.fits) == (2 * 2 * 4 * 2, 320, 3)
    # One head of keys and values cannot be shared out: each of two ranks keeps it.
    assert sampler_memory(SMALL, "bfloat16", 2, room=2792 + 1000, context=10).fits == 3
    assert sampler_memory(SMALL, "bfloat16", 1, room=1000, context=10, shared_weights=True).fits == 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activations_are_what_a_forward_pass_keeps(dtype: str) -> None:
    def kept(layers: int) -> int:
        model = LlamaForCausalLM(LlamaConfig(**shape, num_hidden_layers=layers)).to(getattr(torch, dtype))
        own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        found: dict[int, torch.Tensor] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            found[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            _ = model.model(input_ids=torch.arange(16)[None]).last_hidden_state
        return sum(tensor.untyped_storage().nbytes() for place, tensor in found.items() if place not in own)

    shape: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "attn_implementation": "sdpa",
    }
    size = {"float32": 4, "bfloat16": 2}[dtype]
    own, wide = from_config({**shape, "num_hidden_layers": 1, "model_type": "llama"}, "x").layer_activations(size)
    assert kept(3) - kept(2) == 16 * (own * size + wide * 4)


# Rates and lengths


def test_rates_are_read_out_of_what_phases_of_different_sizes_took() -> None:
    names = ("decode_step", "decode_token", "prefill_token")
    phases = [(10, 200, 50), (300, 500, 50), (20, 9000, 800), (15, 400, 4000)]
    fit = fitted([Observation(dict(zip(names, phase, strict=True)), 2.0 * phase[0] + 0.5 * phase[1] + 0.1 * phase[2]) for phase in phases], names)
    assert fit.seconds == pytest.approx({"decode_step": 2.0, "decode_token": 0.5, "prefill_token": 0.1}, rel=0.05)
    assert not fit.alike


def test_where_phases_are_alike_half_of_the_time_goes_by_steps_and_half_by_tokens() -> None:
    """8 s, 10 steps, 300 generated and 100 read tokens: 4 s / 10, and 4 s / 400 a token."""
    fit = fitted([Observation({"decode_step": 10, "decode_token": 300, "prefill_token": 100}, 8.0)] * 3, ["decode_step", "decode_token", "prefill_token"])
    assert fit.seconds == pytest.approx({"decode_step": 0.4, "decode_token": 0.01, "prefill_token": 0.01})
    assert fit.alike
    assert fitted([Observation({"update": 1, "train_token": 100}, 5.0)], ["update", "train_token"]).seconds == pytest.approx(
        {"update": 0.0, "train_token": 0.05}
    )


def test_lengths_of_attempts_at_one_task_are_drawn_together() -> None:
    import random

    apart = Lengths(50, measured=((3, 4), (90, 40)))
    for _ in range(20):
        assert set(apart.draw(random.Random(0), 8)) <= {3, 4} or set(apart.draw(random.Random(0), 8)) <= {50, 40}
    assert apart.mean() == (3.5 + 45) / 2
    assert Lengths(50, measured=((3,), (40,))).by_task is False
    common = Lengths(10_000, 100, spread=1.0, between_tasks=1.0).draw(random.Random(1), 4)
    assert len(set(common)) == 1
    assert common[0] != 100


# The command


def plan(*flags: str) -> dict[str, Any]:
    assert main(["plan", *flags, "--out", "plan.json"]) == 0
    return json.loads(Path("plan.json").read_text())


def test_stated_rates_give_a_plan_with_its_arithmetic(capsys: pytest.CaptureFixture[str]) -> None:
    """Eight attempts of 100 tokens over two samplers: 99 steps of 1 + 4 x 0.25 = 2 ms, and 1 ms of first tokens, in 256 slots that take 65 ms when full; then 800 + 4 x 256
    tokens on 6 GPUs."""
    flags = ["--decode-rate", str(256 / 0.065), "--decode-fixed", str(1 / 65), "--gpus", "8", "--pools", "split", "--sampler-gpus", "2", "--slots", "256"]
    found = plan(*STATED, *flags, "--tokens", "8k", "--mode", "synchronous", "partial", "asynchronous")
    mode = found["modes"]["synchronous"]
    update = 99 * 0.002 + 0.001 + (800 + 4 * 256) / 6000 / 6
    assert mode["seconds"] == pytest.approx(update)
    assert mode["tokens_per_second"] == pytest.approx(800 / update)
    assert mode["run_seconds"] == pytest.approx(10 * update)
    assert mode["slots_empty"] == pytest.approx(1 - 4 / 256)
    assert (mode["lag"], found["modes"]["asynchronous"]["most_lag"]) == (0, 1)
    shown = capsys.readouterr().out
    for text in (
        "7,615,616,512 parameters x 2 bytes (bfloat16) / 6 ranks",
        "800 trained tokens / 250 ms",
        "8,000 tokens /",
        "99.0",
        "--sync-seconds",
        "learner idle",
    ):
        assert text in shown


def test_a_run_says_what_it_cost_and_how_long_its_attempts_got(tmp_path: Path) -> None:
    """Six steps of a run whose phases took 10 ms a pass and 1 ms a token, updates 2 ms a token of the half of the groups whose rewards differ."""
    folder = tmp_path / "run"
    folder.mkdir()
    options = {"method": {"slug": "grpo", "tasks_per_step": 2, "group_size": 2, "slots": 4, "kl_coefficient": 0.0}, "inputs": {"model": "tiny"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(options))
    ledger, lines, records = Ledger(), [], []
    for step, longest in enumerate((9, 5, 7, 11, 6, 8), 1):
        lengths = [longest, 3, 4, 2 + step % 3]
        ledger += Ledger(generated_tokens=sum(lengths), trained_tokens=sum(lengths), prompt_tokens=20, rollouts=4, decode_steps=longest - 1)
        times = {"time/rollout": 0.01 * longest + 0.001 * (sum(lengths) + 20), "time/update": 0.002 * (sum(lengths) + 20) / 2}
        lines.append({"step": step, **times, "time/step": sum(times.values()), "signal/groups_with_spread": 0.5, "ledger": ledger.to_plain()})
        records += [{"step": step, "task_id": f"t{i // 2}", "length": length, "reward": float(i == 0)} for i, length in enumerate(lengths)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "trajectories.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    found = plan("--from", str(folder), "--updates", "40")
    rates, mode = found["rates"], found["modes"]["synchronous"]
    counted = [(line["time/rollout"], longest) for line, longest in zip(lines, (9, 5, 7, 11, 6, 8), strict=True)][2:]
    passes, tokens = sum(longest for _, longest in counted) / 4, sum(record["length"] for record in records[8:]) / 4 + 20
    assert rates["decode_step"] * passes + rates["decode_token"] * tokens == pytest.approx(sum(seconds for seconds, _ in counted) / 4, rel=0.02)
    update = 0.002 * (mode["tokens_per_update"] + 20) / 2
    sampling = rates["decode_step"] * (mode["decode_steps"] + 1) + rates["decode_token"] * (mode["tokens_per_update"] + 20)
    assert mode["seconds"] == pytest.approx(update + sampling)
    assert (found["rates"]["train_token"], found["rates"]["active"], found["rates"]["prefill_token"]) == (
        pytest.approx(0.002),
        0.5,
        found["rates"]["decode_token"],
    )
    assert "too much alike" in found["notes"][0]


def test_larger_groups_differ_more_often() -> None:
    """Of four attempts one right: two of them differ in 3 of 6 pairs, all four always. Of another task all were wrong."""
    rewards = [(1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)]
    assert [share_with_spread(rewards, size) for size in (1, 2, 4, 9)] == [0.0, 0.25, 0.5, 0.5]


def test_a_benchmark_says_what_it_cost() -> None:
    """Two prompts of 4 tokens a step, two attempts at each of 5 tokens: 1 s of rollouts and 2 s of update, which a plan of the same step takes again."""
    result = {"rollouts": 4, "new_tokens": 20, "rollout_seconds": 1.0, "update_seconds": 2.0}
    size = {"tasks": 2, "group": 2, "new_tokens": 5, "prompt_tokens": [3, 5, 4, 4]}
    Path("step.json").write_text(json.dumps({"model": "tiny", "size": size, "sides": {"etude": [result] * 2}}))
    assert plan("--from", "step.json")["modes"]["synchronous"]["seconds"] == pytest.approx(3.0)
    Path("step.json").write_text("{}")
    assert main(["plan", "--from", "step.json"]) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "7B", "--gpus", "64"], "--length, --decode-rate, --train-rate are missing"),
        ([*STATED, "--model", "9B"], "--model is '9B', which is no known size"),
        ([*STATED, "--gpus", "2"], "it fits on 4 or more"),
        ([*STATED, "--gpus", "8", "--slots", "100000", "--micro-batch-tokens", "512"], "--slots is 100000"),
        ([*STATED, "--gpus", "64", "--mode", "asynchronous"], "expected --pools split"),
        ([*STATED, "--gpus", "64", "--max-staleness", "2"], "plays no part in --mode synchronous"),
        ([*STATED, "--gpus", "64", "--length-spread", "1"], "expected --max-length besides"),
        ([*STATED, "--gpus", "64", "--tokens", "many"], "--tokens is 'many'"),
        ([*STATED, "--from", "nowhere"], "--from nowhere is no folder and no JSON file"),
    ],
)
def test_what_cannot_be_planned_is_refused(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *flags]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_run_without_the_needed_metrics_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run").mkdir()
    Path("run/config.yaml").write_text("method: {slug: hgm}\n")
    assert main(["plan", "--from", "run"]) == 2
    assert "run has 0 steps with time/rollout and time/update in metrics.jsonl" in " ".join(capsys.readouterr().err.split())

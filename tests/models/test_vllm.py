"""What is vLLM's own behind the sampler's interface: weights of its own, its prefix cache, runs with it. The rest is in `test_engine.py --sampler vllm`."""

from __future__ import annotations

import copy
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_models import EOS, POOL, CharacterTokenizer, with_vllm
from transformers import PreTrainedModel

from etude import doctor
from etude.api import evaluate, resume_run, start_run
from etude.config import LearnerConfig, VLLMConfig
from etude.driver import drive
from etude.errors import InputError
from etude.method import get_method
from etude.models.engine import Engine
from etude.models.language import LanguageModel
from etude.models.sampling import FinishedEvent, Request, SamplingParams, resumed, stream_key
from etude.run import Run, without_time
from etude.settings import build_config
from etude.settings_file import saved_config, saved_form
from etude.types import Message

pytestmark = pytest.mark.vllm


@pytest.fixture(autouse=True)
def asked_for(request: pytest.FixtureRequest) -> None:
    if not with_vllm(request.config):
        pytest.skip("vLLM is asked for with --sampler vllm")


def sampled(count: int, length: int = 70, tokens: int = 12) -> list[Request]:
    """Prompts that share their first tokens, two blocks of them."""
    shared = tuple(2 + i % 50 for i in range(length))
    return [Request((*shared, 2 + i), SamplingParams(tokens, ignore_eos=True), stream=stream_key("v", i)) for i in range(count)]


def changed(model: PreTrainedModel, by: float = 0.02) -> PreTrainedModel:
    other = copy.deepcopy(model)
    noise = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=noise))
    return other


def embedded(model: PreTrainedModel) -> Engine:
    return Engine(model, CharacterTokenizer(), eos_ids=[EOS], context_length=96, slots=16)  # type: ignore[arg-type]


def test_new_weights_are_used_at_once_and_old_prompts_forgotten(any_model: PreTrainedModel) -> None:
    sampler, other = POOL.take(any_model, 16), changed(any_model)
    here = embedded(other)
    # Unlikely tokens show a change where the likely ones are certain.
    asked = [r.prompt for r in sampled(6)], [[5 + i] for i in range(6)]
    before, old = sampler.generate(sampled(6)), np.array(sampler.score(*asked))
    sampler.update(1, other.named_parameters())
    after, new = sampler.generate(sampled(6)), np.array(sampler.score(*asked))
    sampler.update(2, any_model.named_parameters())
    assert [c.tokens for c in sampler.generate(sampled(6))] == [c.tokens for c in before]
    for one, two in zip(after, here.generate(sampled(6)), strict=True):
        assert one.tokens == two.tokens
        assert one.logprobs == pytest.approx(two.logprobs, abs=1e-4)
        assert one.versions == [1] * 12
    # vLLM's Gemma 2 is a little different from transformers', whatever the weights; new ones are told from old ones all the same.
    assert np.allclose(new, here.score(*asked), atol=0.05 if any_model.config.model_type == "gemma2" else 1e-3)
    assert np.abs(new - old).max() > 0.1


def test_what_runs_goes_on_under_new_weights_and_what_waits_reads_nothing_old(llama: PreTrainedModel) -> None:
    sampler, other = POOL.take(llama, 2), changed(llama)
    first, *rest = [sampler.add(request) for request in sampled(4)]
    for _ in range(3):
        sampler.step()
    sampler.update(7, other.named_parameters())
    done = {c.request: c for c in sampler.stream([])}
    sampler.update(8, llama.named_parameters())
    assert done[first].versions == [0] * 3 + [7] * 9
    # The last two entered after the change, with the first prompt's blocks still in the cache.
    expected = embedded(other).generate(sampled(4)[2:])
    assert [done[i].tokens for i in rest[1:]] == [c.tokens for c in expected]


def test_an_aborted_sequence_goes_on_under_new_weights(llama: PreTrainedModel) -> None:
    sampler, other, request = POOL.take(llama, 4), changed(llama), sampled(1)[0]
    ident = sampler.add(request)
    for _ in range(5):
        sampler.step()
    partial = sampler.abort(ident)
    sampler.update(1, other.named_parameters())
    (whole,) = sampler.generate([resumed(request, partial)])
    sampler.update(2, llama.named_parameters())
    here = embedded(other)
    here.version = 1
    assert whole.tokens == here.generate([resumed(request, partial)])[0].tokens
    assert whole.versions == [0] * 5 + [1] * 7


def test_forks_and_scores_read_the_prefix_cache_and_disturb_nothing(llama: PreTrainedModel) -> None:
    sampler, (request, *_) = POOL.take(llama, 8), sampled(1)
    undisturbed = embedded(llama).generate([request])[0]
    source = sampler.add(request)
    for _ in range(4):
        sampler.step()
    before = sampler.clock.prefill_tokens
    forks = [sampler.fork(source, 2, stream=i) for i in range(3)]
    scores = sampler.score([request.prompt] * 2, [[5], [6, 7]])
    done: dict[int, Any] = {}
    while sampler.pending:
        done |= {e.request: e.completion for e in sampler.step() if isinstance(e, FinishedEvent)}
    assert done[source].tokens == undisturbed.tokens
    assert all(done[fork].tokens[:2] == undisturbed.tokens[:2] for fork in forks)
    # Each of four prompts, the source's own among them, has two blocks of 32 in the cache and at most 12 tokens more.
    assert sampler.clock.prefill_tokens - before <= 4 * 12
    for one, two in zip(scores, embedded(llama).score([request.prompt] * 2, [[5], [6, 7]]), strict=True):
        assert one == pytest.approx(two, abs=1e-4)


def test_an_adapter_reaches_vllm_merged() -> None:
    policy = LanguageModel.load("tiny", device="cpu", sampler="vllm", slots=8, learner=LearnerConfig(lora_rank=2))
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=noise))
    request = Request(tuple(policy.render([Message("user", "3+4=")])), SamplingParams(12, ignore_eos=True), stream=1)
    old = policy.sampler.generate([request])[0]
    policy.weights_changed()
    new, here = policy.sampler.generate([request])[0], policy.copy("here").sampler.generate([request])[0]
    assert new.tokens == here.tokens != old.tokens
    assert new.logprobs == pytest.approx(here.logprobs, abs=1e-4)


def lines(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time/") and "seconds" not in k and k != "ledger"} for row in rows]


def test_a_run_learns_what_it_learns_with_the_embedded_engine_and_resumes(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "model": "tiny",
        "device": "cpu",
        "tasks_per_step": 4,
        "group_size": 4,
        "eval_tasks": 8,
        "eval_samples": 2,
        "slots": 16,
        "quiet": True,
    }
    runs = {}
    for sampler in ("engine", "vllm"):
        folder = tmp_path / sampler
        start_run("grpo", build_config("grpo", out=folder, steps=4, sampler=sampler, evaluate_every=2, **options))
        runs[sampler] = lines(folder)
    for here, there in zip(runs["engine"], runs["vllm"], strict=True):
        for name in ("reward/mean", "rollout/length", "eval/pass@1"):
            assert there.get(name) == pytest.approx(here.get(name), abs=1e-6)
        assert there.get("loss/sampler_gap", 0.0) < 1e-4
        assert there.get("loss/total", 0.0) == pytest.approx(here.get("loss/total", 0.0), abs=1e-3)
    halved = tmp_path / "halved"
    start_run("grpo", build_config("grpo", out=halved, steps=2, sampler="vllm", evaluate_every=2, **options))
    _, config = saved_config(halved)
    config.run.steps = 4
    resume_run(halved, config)
    for whole, both in zip(runs["vllm"], lines(halved), strict=True):
        assert both.get("reward/mean") == pytest.approx(whole.get("reward/mean"))
        assert both.get("loss/total", 0.0) == pytest.approx(whole.get("loss/total", 0.0), abs=1e-5)
    measured = [
        evaluate(halved / "checkpoints" / "step-4", samples=2, tasks_limit=8, device="cpu", sampler=s).metrics["eval/pass@1"] for s in ("engine", "vllm")
    ]
    assert measured[0] == measured[1]


def test_what_vllm_cannot_do_is_refused() -> None:
    policy = LanguageModel.load("tiny", device="cpu")
    policy.model.__class__ = type("StrangeForCausalLM", (type(policy.model),), {})
    with pytest.raises(InputError, match="vLLM does not know the architecture StrangeForCausalLM; use --sampler engine"):
        LanguageModel.wrap(policy.model, policy.tokenizer, sampler="vllm")
    policy = LanguageModel.load("tiny", device="cpu")
    policy.model.generation_config.suppress_tokens = [5]
    with pytest.raises(InputError, match="suppress tokens"):
        LanguageModel.wrap(policy.model, policy.tokenizer, sampler="vllm")
    policy.model.generation_config.suppress_tokens = None
    with pytest.raises(InputError, match="vLLM refuses this model or its settings"):
        LanguageModel.wrap(policy.model, policy.tokenizer, sampler="vllm", slots=4, vllm=VLLMConfig(vllm_memory=1e-6))


def test_the_doctor_tries_it() -> None:
    finding = doctor._vllm()
    assert finding.state == "ok", finding.detail
    assert "as the embedded engine" in finding.detail


def test_it_works_in_each_sampler_of_a_ray_cluster_also_in_one_that_takes_a_lost_ones_place(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    options: dict[str, Any] = {
        "model": "tiny",
        "device": "cpu",
        "threads": 1,
        "steps": 2,
        "tasks_per_step": 4,
        "group_size": 4,
        "eval_tasks": 4,
        "eval_samples": 2,
    }
    options |= {"evaluate_every": 2, "quiet": True, "sampler": "vllm"}
    start_run("grpo", build_config("grpo", out=tmp_path / "one", **options))
    config = build_config("grpo", out=tmp_path / "two", engine="ray", samplers=2, **options)
    run = Run.create(config.run, folder_name="", full_config=saved_form("grpo", config))
    method: Any = get_method("grpo")(config, run)
    kills: list[int] = []

    def kill(_: object) -> None:
        if run.step == 2 and not kills:
            kills.append(method.policy.sampler.pids[1])
            assert "vllm" in Path(f"/proc/{kills[0]}/maps").read_text()
            os.kill(kills[0], signal.SIGKILL)

    method.ended = kill
    with pytest.warns(UserWarning, match="sampler 1 is lost"):
        drive(method, run)
    assert kills
    for one, two in zip(measured(tmp_path / "one"), measured(tmp_path / "two"), strict=True):
        for name in ("generated_tokens", "trained_tokens", "rollouts"):
            assert one["ledger"][name] == two["ledger"][name]
        assert two | {"ledger": 0} == pytest.approx(one | {"ledger": 0}, rel=1e-3, abs=1e-4)


def measured(folder: Path) -> list[dict[str, Any]]:
    return [without_time(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]

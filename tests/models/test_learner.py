"""The learner against plain forwards of the same model, numbers worked out by hand, and itself cut differently."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from random_models import ARCHITECTURES, EOS, CharacterTokenizer, build
from torch import Tensor, nn
from transformers import LlamaConfig

from etude.config import LearnerConfig
from etude.errors import InputError, NonFiniteError
from etude.models.block_attention import BlockPlan
from etude.models.engine import Engine
from etude.models.learner import Learner
from etude.models.output_head import logits_at, token_logprobs
from etude.models.sampling import Request, SamplingParams, stream_key
from etude.objectives import (
    Objective,
    OneTokenObjective,
    PolicyObjective,
    PreferenceObjective,
    Statistics,
    SupervisedObjective,
    TokenBatch,
    ppo_surrogate,
    sequence_ratio,
    token_ratio,
    truncated_weight,
)
from etude.types import Message, Segment, Task, Trajectory

SURROGATE = ppo_surrogate(0.2, 0.2)
TASK = Task("t", (Message("user", "?"),))
Units = list[list[Trajectory]]

by_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def span(rng: random.Random, length: int) -> Segment:
    """Tokens of the policy's own, with noisy credit and behaviour log-probs."""
    tokens = [rng.randrange(2, 60) for _ in range(length)]
    return Segment(tokens, "policy", trained=True, logprobs=[-4 + rng.random() for _ in tokens], advantages=[rng.random() - 0.5 for _ in tokens])


def answer(prompt: Sequence[int], tokens: Sequence[int], advantage: float = 1.0) -> Trajectory:
    segment = Segment(list(tokens), "policy", trained=True, logprobs=[-4.0] * len(tokens), advantages=[advantage] * len(tokens))
    return Trajectory(TASK, list(prompt), [segment], "eos")


def units_of(seed: int = 0, tasks: int = 3, attempts: int = 4, longest: int = 9) -> Units:
    """Groups of attempts at random prompts; every third attempt has a tool's words in the middle, and every other one begins like the one before."""
    rng = random.Random(seed)
    units: Units = []
    for _ in range(tasks):
        prompt = [rng.randrange(2, 60) for _ in range(rng.randrange(3, 12))]
        unit: list[Trajectory] = []
        for sample in range(attempts):
            segments = [span(rng, rng.randrange(1, longest))]
            if sample % 3 == 1:
                segments += [Segment([rng.randrange(2, 60) for _ in range(3)], "tool"), span(rng, rng.randrange(1, 5))]
            if sample % 2:
                begins = unit[-1].segments[0].tokens[: rng.randrange(1, longest)]
                own = segments[0].tokens
                own[: len(begins)] = begins[: len(own)]
            unit.append(Trajectory(TASK, prompt, segments, "eos", sample=sample))
        units.append(unit)
    return units


def flat(units: Units) -> list[Trajectory]:
    return [t for unit in units for t in unit]


def still(**options: Any) -> LearnerConfig:
    """A learner that computes gradients and moves nothing."""
    return LearnerConfig(**{"lr": 0.0, "warmup_steps": 0, "grad_clip": 0.0, **options})


def moving(**options: Any) -> LearnerConfig:
    return LearnerConfig(**{"lr": 1e-2, "warmup_steps": 0, **options})


def gradient(model: Any, units: Units, objective: Objective, config: LearnerConfig | None = None, **options: Any) -> Tensor:
    """The gradient that the optimiser's last step sees, as one vector."""
    learner = Learner(model, config or still(), **options)
    if objective.needs_reference:
        learner.freeze_reference()
    seen: list[Tensor] = []
    learner.optimizer.register_step_pre_hook(lambda *_: seen.append(gradient_vector(model)))
    learner.update(units, objective)
    return seen[-1]


def gradient_vector(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).clone()


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def identical(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Bit for bit, NaN included."""
    return all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in zip(first, second, strict=True))


def same(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Within tolerance of the expected vector's largest entry."""
    assert float(expected.abs().max()) > 1e-4
    torch.testing.assert_close(actual, expected, atol=tolerance * max(1.0, float(expected.abs().max())), rtol=0, equal_nan=False)


def plain_logprobs(model: Any, prompt: list[int], trajectory: Trajectory, temperature: float = 1.0) -> Tensor:
    """Log-probabilities of all tokens after the prompt, by an ordinary forward over one sequence."""
    tokens = trajectory.tokens
    logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1].float() / temperature
    return logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).squeeze(1)


class TestGradient:
    @by_architecture
    def test_equals_that_of_plain_forwards(self, architecture: str) -> None:
        model = build(architecture)
        units = units_of()
        trajectories = flat(units)
        lengths = [t.trained_length for t in trajectories]
        model.zero_grad()
        loss = torch.zeros(())
        for trajectory, length in zip(trajectories, lengths, strict=True):
            logprobs = plain_logprobs(model, trajectory.prompt, trajectory)
            mask = torch.tensor([float(s.trained) for s in trajectory.segments for _ in s.tokens])
            credit = torch.tensor([a for s in trajectory.segments for a in (s.advantages or [0.0] * len(s.tokens))])
            loss = loss - ((logprobs - logprobs.detach()).exp() * credit * mask).sum() / (length * len(trajectories))
        loss.backward()
        expected = gradient_vector(model)
        same(gradient(model, units, PolicyObjective(SURROGATE, aggregation="seq_mean_token_mean")), expected)

    @by_architecture
    def test_does_not_depend_on_how_the_batch_is_cut(self, architecture: str) -> None:
        model = build(architecture)
        units = units_of()
        objective = PolicyObjective(SURROGATE)
        whole = gradient(model, units, objective, still(share_prompts=False, micro_batch_tokens=100_000))
        for share in (True, False):
            for budget in (1, 40, 100, 100_000):
                same(gradient(model, units, objective, still(share_prompts=share, micro_batch_tokens=budget)), whole)

    @by_architecture
    def test_does_not_depend_on_order(self, architecture: str) -> None:
        model = build(architecture)
        units = units_of()
        objective = PolicyObjective(SURROGATE, aggregation="seq_mean_token_mean")
        expected = gradient(model, units, objective)
        rng = random.Random(1)
        shuffled = [rng.sample(unit, len(unit)) for unit in rng.sample(units, len(units))]
        same(gradient(model, shuffled, objective), expected)
        same(gradient(model, [[t] for t in flat(shuffled)], objective), expected)

    @pytest.mark.parametrize(
        "objective",
        [
            PolicyObjective(SURROGATE, kl_coefficient=0.1, entropy_coefficient=0.1, aggregation="dr_grpo", normal_length=10),
            PolicyObjective(SURROGATE, ratio=sequence_ratio, aggregation="seq_mean_token_mean"),
            PolicyObjective(SURROGATE, correction=lambda rho, _mask: truncated_weight(rho, cap=1.0)),
            SupervisedObjective(aggregation="seq_mean_token_sum"),
            OneTokenObjective(draws=3, temperature=1.3, miss_reward=-0.5, least_pull=0.05),
            OneTokenObjective(temperature=1.3, miss_reward=-0.5),
        ],
        ids=["all-terms", "sequence-ratio", "correction", "supervised", "drawn", "over-all-draws"],
    )
    def test_of_any_objective_does_not_depend_on_the_cut(self, objective: Objective) -> None:
        model = build("llama")
        whole = gradient(model, units_of(), objective, still(share_prompts=False, micro_batch_tokens=100_000))
        for options in ({"micro_batch_tokens": 30}, {"micro_batch_tokens": 60, "share_prompts": False}, {"gradient_checkpointing": True}):
            same(gradient(model, units_of(), objective, still(**options)), whole)

    def test_of_a_correction_does_not_depend_on_the_cut_where_some_spans_have_no_behaviour_logprobs(self) -> None:
        model = build("llama")
        units = units_of()
        units[0][0].segments[0].logprobs = []
        objective = PolicyObjective(SURROGATE, correction=lambda rho, _mask: truncated_weight(rho, cap=5.0))
        whole = gradient(model, units, objective, still(share_prompts=False, micro_batch_tokens=100_000))
        same(gradient(model, units, objective, still(share_prompts=False, micro_batch_tokens=1)), whole)

    def test_reaches_no_tool_token_but_their_context_counts(self) -> None:
        model = build("llama")
        rng = random.Random(3)
        first, last = span(rng, 3), span(rng, 3)
        episodes = [Trajectory(TASK, [5, 6, 7], [first, Segment(tool, "tool"), last], "eos") for tool in ([10, 11], [12, 13])]
        before, after = Learner(model, still()).logprobs(episodes)
        assert len(before) == 6
        assert before[:3] == pytest.approx(after[:3], abs=1e-5)
        assert max(abs(a - b) for a, b in zip(before[3:], after[3:], strict=True)) > 1e-2
        # With the tool's words as targets the gradient is another one: they were no targets before.
        trained = copy.deepcopy(episodes[0])
        trained.segments[1].trained = True
        masked_out, as_target = (gradient(model, [[t]], SupervisedObjective(aggregation="seq_mean_token_sum")) for t in (episodes[0], trained))
        assert float((masked_out - as_target).abs().max()) > 1e-2
        model.zero_grad()
        own = plain_logprobs(model, [5, 6, 7], episodes[0])
        (-own[[0, 1, 2, 5, 6, 7]].sum()).backward()
        same(masked_out, gradient_vector(model))

    def test_of_a_whole_loss_reaches_the_logits_as_worked_out_by_hand(self) -> None:
        # Advantages +-.7071068 on lengths 2 and 4: each token's gradient on log pi is -.1767767 or +.0883883.
        table = TableModel([0.5, 0.25, 0.25])
        units = [[answer([0], [0, 0], 0.7071068), answer([0], [0] * 4, -0.7071068)]]
        objective = PolicyObjective(SURROGATE, aggregation="token_mean")
        learner_gradient = gradient(table, units, objective).reshape(3, 3)
        # All six predictions follow token 0, so d log pi / d logits = one-hot - p, times -.1178511 x 2 + .1178511 x 4.
        expected = 0.2357023 * torch.tensor([0.5, -0.25, -0.25])
        torch.testing.assert_close(learner_gradient[:, 0], expected, atol=1e-6, rtol=0)
        assert not bool(learner_gradient[:, 1:].any())

    def test_of_the_entropy_bonus_as_worked_out_by_hand(self) -> None:
        table = TableModel([0.5, 0.25, 0.25])
        learner = Learner(table, still())
        seen: list[Tensor] = []
        learner.optimizer.register_step_pre_hook(lambda *_: seen.append(gradient_vector(table)))
        metrics = learner.update([[answer([0], [1], 0.0)]], PolicyObjective(SURROGATE, entropy_coefficient=1.0))
        assert metrics["loss/entropy"] == pytest.approx(1.0397208, abs=1e-6)
        assert metrics["loss/total"] == pytest.approx(-1.0397208, abs=1e-6)
        torch.testing.assert_close(seen[0].reshape(3, 3)[:, 0], torch.tensor([0.1732868, -0.0866434, -0.0866434]), atol=1e-6, rtol=0)


class TableModel(nn.Module):
    """A causal LM whose logits after a token are a column of a table: gradients on logits can be read off its weights."""

    def __init__(self, probabilities: list[float]) -> None:
        super().__init__()
        size = len(probabilities)
        self.config = LlamaConfig(vocab_size=size, hidden_size=size, num_hidden_layers=1, num_attention_heads=1)
        self.lm_head = nn.Linear(size, size, bias=False)
        self.lm_head.weight.data = torch.tensor(probabilities).log()[:, None].repeat(1, size)

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def forward(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.lm_head(nn.functional.one_hot(input_ids, self.lm_head.in_features).float()))


@by_architecture
def test_the_training_prompt_is_what_a_trajectory_is_conditioned_on(architecture: str) -> None:
    model = build(architecture)
    hinted = answer([5, 9, 9, 9], [11, 12, 13])
    hinted.train_prompt = [5, 7]
    bare = answer([5, 7], [11, 12, 13])
    learner = Learner(model, still())
    [trained], [plain] = learner.logprobs([hinted]), learner.logprobs([bare])
    assert trained == pytest.approx(plain, abs=1e-5)
    objective = PolicyObjective(SURROGATE, correction=lambda ratio, _mask: truncated_weight(ratio, cap=2.0))
    same(gradient(model, [[hinted]], objective), gradient(model, [[bare]], objective))
    hinted.train_prompt = None
    assert learner.logprobs([hinted])[0] != pytest.approx(plain, abs=1e-3)


class TestSilentTrajectories:
    @staticmethod
    def units() -> Units:
        units = units_of(4, tasks=4)
        for trajectory in (*units[1], units[2][0]):
            trajectory.set_advantage(0.0)
        return units

    @pytest.mark.parametrize("aggregation", ["token_mean", "seq_mean_token_mean", "seq_mean_token_sum", "dr_grpo"])
    def test_are_left_out_of_the_forward_but_not_of_the_denominators(self, aggregation: Any) -> None:
        class Attentive(PolicyObjective):
            silent_without_advantage = False  # type: ignore[assignment]

        model = build("llama")
        config = still(share_prompts=False)
        with counted_logits(model) as skipping:
            left_out = gradient(model, self.units(), PolicyObjective(SURROGATE, aggregation=aggregation, normal_length=9), config)
        with counted_logits(model) as computing:
            computed = gradient(model, self.units(), Attentive(SURROGATE, aggregation=aggregation, normal_length=9), config)
        same(left_out, computed)
        silent = sum(t.trained_length for t in (*self.units()[1], self.units()[2][0]))
        assert sum(computing) - sum(skipping) == silent > 0

    def test_all_silent_means_no_step(self) -> None:
        model = build("llama")
        before = weights(model)
        units = units_of(tasks=1)
        for trajectory in units[0]:
            trajectory.set_advantage(0.0)
        learner = Learner(model, moving(weight_decay=0.1))
        assert learner.update(units, PolicyObjective(SURROGATE))["loss/total"] == 0.0
        assert identical(before, weights(model))
        assert not learner.optimizer.state


class counted_logits:
    """Logits rows of each forward inside the block."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __enter__(self) -> list[int]:
        rows: list[int] = []
        self.handle = self.model.get_output_embeddings().register_forward_hook(lambda _m, _i, out: rows.append(out.numel() // out.shape[-1]))
        return rows

    def __exit__(self, *_: object) -> None:
        self.handle.remove()


class TestMemory:
    @staticmethod
    def forwards(units: list[list[Trajectory]], **options: Any) -> tuple[list[int], list[int]]:
        """Inputs and logits of each forward of an update."""
        model = build("llama")
        learner = Learner(model, still(**options))
        inputs: list[int] = []
        model.get_input_embeddings().register_forward_pre_hook(lambda _m, given: inputs.append(given[0].numel()))
        with counted_logits(model) as logits:
            learner.update(units, PolicyObjective(SURROGATE))
        return inputs, logits

    @pytest.mark.parametrize("share", [True, False])
    @pytest.mark.parametrize("budget", [48, 100, 300])
    def test_logits_and_inputs_per_forward_are_bounded_by_the_token_budget(self, share: bool, budget: int) -> None:
        units = units_of(tasks=6, attempts=8)
        inputs, logits = self.forwards(units, share_prompts=share, micro_batch_tokens=budget)
        trained = sum(t.trained_length for t in flat(units))
        assert sum(logits) < trained if share else sum(logits) == trained
        assert max(logits) <= budget
        assert max(inputs) <= budget

    def test_sharing_a_long_prompt_does_not_break_the_token_budget(self) -> None:
        units = [[answer([7] * 50, [10 + i] * 10) for i in range(8)]]
        inputs, _ = self.forwards(units, micro_batch_tokens=64)
        # Every trajectory alone fits: 60 tokens, the last of which predicts nothing.
        assert inputs == [59] * 8

    def test_sharing_computes_a_long_prompt_once(self) -> None:
        units = [[answer([7] * 50, [10 + i, 11]) for i in range(8)]]
        assert self.forwards(units, share_prompts=True)[0] == [50 + 8]
        assert self.forwards(units, share_prompts=False)[0] == [8 * 51]

    def test_sharing_computes_once_what_completions_begin_with(self) -> None:
        units = [[answer([7] * 5, [10] * 20 + [i, 11]) for i in range(8)]]
        # 20 tokens in common, one that differs; the last predicts nothing. Logits: after the prompt, after each of the 20, and after each one's own.
        assert self.forwards(units, share_prompts=True) == ([5 + 20 + 8], [1 + 20 + 8])
        assert self.forwards(units, share_prompts=False) == ([8 * 26], [8 * 22])

    @pytest.mark.parametrize(("prompt", "longest"), [(100, 2), (4, 100)], ids=["a long prompt", "a runaway answer"])
    def test_what_a_wide_group_looks_back_on_is_bounded_too(self, prompt: int, longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
        unit = [answer([7] * prompt, [13 + i % 40, 11]) for i in range(64)]
        unit[20] = answer([7] * prompt, [12] * longest)
        cells: list[int] = []
        plan_of = BlockPlan.of

        def watched(prompts: Sequence[int], completions: Sequence[int], *rest: Any) -> BlockPlan:
            cells.append(len(completions) * (max(prompts) + max(completions)))
            return plan_of(prompts, completions, *rest)

        learner = Learner(build("llama"), still(micro_batch_tokens=256))
        monkeypatch.setattr(BlockPlan, "of", watched)
        whole = learner.update([unit], PolicyObjective(SURROGATE))
        # All 64 at once would be 256 tokens or a few more, and 6,500 positions.
        assert max(cells) <= 8 * 256
        assert len(cells) >= 2
        wide = Learner(build("llama"), still(micro_batch_tokens=4096)).update([unit], PolicyObjective(SURROGATE))
        assert whole["loss/grad_norm"] == pytest.approx(wide["loss/grad_norm"], rel=1e-4)

    def test_logits_are_computed_at_chosen_positions_only(self) -> None:
        model = build("gemma2")
        inputs = torch.randint(2, 60, (3, 7), generator=torch.Generator().manual_seed(0))
        rows, columns = torch.tensor([0, 2, 2]), torch.tensor([6, 0, 3])
        with torch.no_grad():
            whole = model(inputs).logits
            with logits_at(model, rows, columns):
                chosen = model(inputs).logits
            assert torch.equal(model(inputs).logits, whole)
        assert chosen.shape == (1, 3, 60)
        torch.testing.assert_close(chosen[0], whole[rows, columns], atol=1e-5, rtol=0)


class TestTokenLogprobs:
    def test_passes_gradcheck(self) -> None:
        generator = torch.Generator().manual_seed(0)
        logits = (4 * torch.randn(5, 7, generator=generator, dtype=torch.float64)).requires_grad_()
        tokens = torch.randint(0, 7, (5,), generator=generator)
        assert torch.autograd.gradcheck(lambda x: token_logprobs(x, tokens), (logits,))
        rows = torch.tensor([0, 3, 3, 1, 3])
        assert torch.autograd.gradcheck(lambda x: token_logprobs(x, tokens, rows), (logits,))
        torch.testing.assert_close(token_logprobs(logits, tokens, rows), token_logprobs(logits[rows], tokens))
        several = torch.stack([tokens, tokens, (tokens + 1) % 7], dim=1)
        assert torch.autograd.gradcheck(lambda x: token_logprobs(x, several, rows), (logits,))

    def test_equals_log_softmax_and_gather(self) -> None:
        generator = torch.Generator().manual_seed(1)
        own = (4 * torch.randn(5, 7, generator=generator, dtype=torch.float64)).requires_grad_()
        other = own.detach().clone().requires_grad_()
        tokens = torch.randint(0, 7, (5,), generator=generator)
        upstream = torch.randn(5, generator=generator, dtype=torch.float64)
        value = token_logprobs(own, tokens)
        expected = other.log_softmax(-1).gather(1, tokens[:, None]).squeeze(1)
        torch.testing.assert_close(value, expected, atol=1e-12, rtol=0)
        value.backward(upstream)
        expected.backward(upstream)
        torch.testing.assert_close(own.grad, other.grad, atol=1e-12, rtol=0)


class TestLogprobs:
    @by_architecture
    @pytest.mark.parametrize("temperature", [1.0, 0.7])
    def test_are_those_that_the_sampler_drew_with(self, architecture: str, temperature: float) -> None:
        model = build(architecture)
        engine = Engine(model, CharacterTokenizer(), eos_ids=[EOS], context_length=96, slots=5)  # type: ignore[arg-type]
        prompts = [t.prompt for t in flat(units_of(9, tasks=4, attempts=1))]
        requests = [Request(tuple(p), SamplingParams(12, temperature=temperature), stream=stream_key(i, j)) for i, p in enumerate(prompts) for j in range(3)]
        trajectories = [Trajectory(TASK, c.prompt, [Segment.from_completion(c)], c.stop_reason) for c in engine.generate(requests)]
        for share in (True, False):
            own = Learner(model, still(share_prompts=share), temperature=temperature).logprobs(trajectories)
            gaps = [abs(a - b) for t, values in zip(trajectories, own, strict=True) for a, b in zip(t.segments[0].logprobs, values, strict=True)]
            assert len(gaps) == sum(t.trained_length for t in trajectories)
            assert max(gaps) < 1e-4
        units = [[t] for t in trajectories]
        for trajectory in trajectories:
            trajectory.set_advantage(1.0)
        metrics = Learner(model, still(), temperature=temperature).update(units, PolicyObjective(SURROGATE))
        assert metrics["loss/sampler_gap"] < 1e-4

    def test_come_under_the_training_prompt_where_there_is_one(self) -> None:
        learner = Learner(build("llama"), still())
        hinted, plain = answer([5, 6, 7, 8], [20, 21, 22]), answer([5, 6], [20, 21, 22])
        retrained = copy.deepcopy(hinted)
        retrained.train_prompt = [5, 6]
        under_hint, without, replaced = learner.logprobs([hinted, plain, retrained])
        assert replaced == pytest.approx(without, abs=1e-5)
        assert max(abs(a - b) for a, b in zip(under_hint, without, strict=True)) > 1e-2
        objective = SupervisedObjective()
        same(gradient(learner.model, [[retrained]], objective), gradient(learner.model, [[plain]], objective))

    def test_of_a_trajectory_without_trained_tokens_are_none(self) -> None:
        untrained = Trajectory(TASK, [5, 6], [Segment([7], "tool")], "environment")
        learner = Learner(build("llama"), still())
        assert [len(v) for v in learner.logprobs([answer([5], [8, 9]), untrained])] == [2, 0]
        assert learner.logprobs([]) == []


class TestNonFinite:
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_advantages_leave_the_weights_as_they_were(self, value: float) -> None:
        model = build("llama")
        learner = Learner(model, moving())
        learner.update(units_of(), PolicyObjective(SURROGATE))
        before, (plain, tensors) = weights(model), copy.deepcopy(learner.state())
        units = units_of(1)
        units[-1][-1].segments[-1].advantages[-1] = value
        with pytest.raises(NonFiniteError, match="loss"):
            learner.update(units, PolicyObjective(SURROGATE))
        assert identical(before, weights(model))
        after_plain, after = learner.state()
        assert after_plain == plain
        assert identical(list(tensors.values()), list(after.values()))
        # What was gathered before the error doesn't reach the next step.
        fresh = Learner(copy.deepcopy(model), moving())
        fresh.load_state(plain, tensors)
        for each in (learner, fresh):
            each.update(units_of(2), PolicyObjective(SURROGATE))
        assert identical(weights(model), weights(fresh.model))

    def test_weights_are_refused_and_left_as_they_were(self) -> None:
        model = build("llama")
        model.get_output_embeddings().weight.data[3, 0] = math.nan  # type: ignore[union-attr, operator]
        before = weights(model)
        with pytest.raises(NonFiniteError):
            Learner(model, moving()).update(units_of(), PolicyObjective(SURROGATE))
        assert identical(before, weights(model))

    def test_gradients_of_a_finite_loss_are_refused(self) -> None:
        class Steep(SupervisedObjective):
            def __call__(self, batch: TokenBatch) -> tuple[Tensor, Statistics]:
                return ((batch.logprobs - batch.logprobs.detach()) * batch.mask).clamp_min(0).sqrt().sum(), {}

        model = build("llama")
        before = weights(model)
        with pytest.raises(NonFiniteError, match="gradient norm"):
            Learner(model, moving()).update(units_of(), Steep())
        assert identical(before, weights(model))


class TestRefusedTrajectories:
    @pytest.mark.parametrize("sharing", [True, False])
    @pytest.mark.parametrize("by", ["prompt", "train_prompt"])
    def test_an_empty_prompt(self, by: str, sharing: bool) -> None:
        learner = Learner(build("llama"), moving(share_prompts=sharing))
        bad = answer([5], [20, 21])
        setattr(bad, by, [])
        before = weights(learner.model)
        for compute in (lambda: learner.update([[answer([5, 6], [7])], [bad]], SupervisedObjective()), lambda: learner.logprobs([bad])):
            with pytest.raises(InputError, match="sample 0 at task 't' has an empty prompt, so nothing predicts its first token"):
                compute()
        assert identical(before, weights(learner.model))

    @pytest.mark.parametrize(
        ("name", "kind", "count"), [("advantages", "advantages", 1), ("advantages", "advantages", 4), ("logprobs", "behaviour log-probabilities", 2)]
    )
    def test_credit_that_is_not_one_a_token(self, name: str, kind: str, count: int) -> None:
        learner = Learner(build("llama"), moving())
        # Two segments whose lengths add up, so that nothing but the alignment is wrong.
        parts = [Segment([20, 21, 22], "policy", trained=True), Segment([23, 24], "policy", trained=True)]
        for segment, number in zip(parts, (count, 5 - count), strict=True):
            setattr(segment, name, [1.0] * number)
        bad = Trajectory(TASK, [5], parts, "eos", sample=7)
        with pytest.raises(InputError, match=f"sample 7 at task 't' has {count} {kind} on a segment of 3 tokens; expected one a token"):
            learner.update([[bad]], PolicyObjective(SURROGATE))

    def test_a_member_without_trained_tokens_where_whole_units_are_compared(self) -> None:
        learner = Learner(build("llama"), moving())
        learner.freeze_reference()
        untrained = Trajectory(Task("pair-3", TASK.messages), [5, 6], [Segment([7], "injected")], "eos", sample=1)
        with pytest.raises(InputError, match=r"sample 1 at task 'pair-3' has no trained tokens.*expected at least one, so leave its unit out"):
            learner.update([[answer([5, 6], [20]), untrained]], PreferenceObjective())
        # Elsewhere it counts nowhere and harms nothing.
        assert learner.update([[answer([5, 6], [20]), untrained]], SupervisedObjective())["loss/grad_norm"] > 0

    def test_whole_units_keep_their_silent_members(self) -> None:
        calls: list[list[int]] = []

        class Watched(PolicyObjective):
            def __call__(self, batch: TokenBatch) -> tuple[Tensor, Statistics]:
                calls.append(batch.unit.tolist())
                return super().__call__(batch)

        pair = [answer([5, 6], [20, 21], 0.0), answer([5, 6], [30], 1.0)]
        Learner(build("llama"), moving()).update([pair], Watched(SURROGATE, whole_units=True))
        assert calls == [[0, 0]]


class TestReference:
    def test_copy_is_frozen(self) -> None:
        model = build("llama")
        trajectories = flat(units_of())
        learner = Learner(model, moving())
        with pytest.raises(RuntimeError, match="freeze_reference"):
            learner.logprobs(trajectories, reference=True)
        start = learner.logprobs(trajectories)
        learner.freeze_reference()
        objective = PolicyObjective(SURROGATE, kl_coefficient=0.1)
        metrics = [learner.update(units_of(), objective) for _ in range(3)]
        learner.freeze_reference()
        assert learner.logprobs(trajectories, reference=True) == start
        assert metrics[0]["loss/kl_reference"] == pytest.approx(0.0, abs=1e-6)
        assert abs(metrics[2]["loss/kl_reference"]) > 1e-3
        moved = learner.logprobs(trajectories)
        assert max(abs(a - b) for x, y in zip(moved, start, strict=True) for a, b in zip(x, y, strict=True)) > 1e-2

    def test_of_an_adapter_is_the_model_without_it(self) -> None:
        peft = pytest.importorskip("peft")
        base = build("llama")
        trajectories = flat(units_of())
        start = Learner(base, still()).logprobs(trajectories)
        frozen = {name: p.detach().clone() for name, p in base.named_parameters()}
        model = peft.get_peft_model(base, peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"))
        learner = Learner(model, moving())
        learner.freeze_reference()
        objective = PolicyObjective(SURROGATE, kl_coefficient=0.1)
        metrics = [learner.update(units_of(), objective) for _ in range(3)]
        assert metrics[0]["loss/kl_reference"] == pytest.approx(0.0, abs=1e-7)
        assert abs(metrics[2]["loss/kl_reference"]) > 1e-4
        reference, moved = learner.logprobs(trajectories, reference=True), learner.logprobs(trajectories)
        for values, expected, now in zip(reference, start, moved, strict=True):
            assert values == pytest.approx(expected, rel=1e-6, abs=1e-6)
            assert now != expected
        # Only the adapter moved, and no second copy of the weights was made.
        kept = {n.replace("base_model.model.", "").replace(".base_layer", ""): p for n, p in model.named_parameters() if "lora_" not in n}
        assert kept.keys() == frozen.keys()
        assert all(torch.equal(kept[n], p) for n, p in frozen.items())
        assert learner._reference is None

    @pytest.mark.parametrize("adapter", [False, True])
    def test_that_is_reset_is_the_policy_of_that_moment_and_comes_back_from_a_checkpoint(self, adapter: bool) -> None:
        def policy() -> Any:
            if not adapter:
                return build("llama")
            peft = pytest.importorskip("peft")
            torch.manual_seed(0)
            return peft.get_peft_model(build("llama"), peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"))

        objective, trajectories = PolicyObjective(SURROGATE, kl_coefficient=0.1), flat(units_of())
        learner = Learner(policy(), moving())
        learner.freeze_reference()
        start = learner.logprobs(trajectories)
        learner.update(units_of(0), objective)
        before_the_reset = learner.state()
        assert not any(name.startswith("reference.") for name in before_the_reset[1])
        learner.reset_reference()
        middle = learner.logprobs(trajectories)
        learner.update(units_of(1), objective)
        moved, kept = learner.logprobs(trajectories), weights(learner.model)
        assert start != middle != moved != start
        assert learner.logprobs(trajectories, reference=True) == middle
        assert learner.logprobs(trajectories, reference="start") == start
        # Looking through the reference's eyes leaves the policy as it is, to the bit.
        assert identical(kept, weights(learner.model))

        plain, tensors = learner.state()
        resumed = Learner(policy(), moving())
        resumed.freeze_reference()
        resumed.model.load_state_dict(learner.model.state_dict())
        resumed.load_state(json.loads(json.dumps(plain)), tensors)
        assert resumed.logprobs(trajectories, reference=True) == middle
        assert resumed.logprobs(trajectories, reference="start") == start
        losses = [each.update(units_of(2), objective)["loss/total"] for each in (learner, resumed)]
        assert losses[0] == losses[1]
        assert identical(weights(learner.model), weights(resumed.model))

        # A reference that moves slowly: a share of the earlier one stays.
        earlier, now = learner.state()[1], dict(learner.model.named_parameters())
        learner.reset_reference(keep=0.75)
        later = {name.removeprefix("reference."): value for name, value in learner.state()[1].items() if name.startswith("reference.")}
        assert later
        for name, value in later.items():
            torch.testing.assert_close(value, 0.75 * earlier[f"reference.{name}"] + 0.25 * now[name])

        # Going back to before the reset, the run's first policy is the reference again.
        learner.load_state(*before_the_reset)
        assert learner.logprobs(trajectories, reference=True) == start


class TestState:
    @pytest.mark.parametrize("schedule", ["constant", "cosine"])
    def test_continues_bit_for_bit(self, schedule: Any) -> None:
        config = moving(schedule=schedule, warmup_steps=2, weight_decay=0.01)
        objective = PolicyObjective(SURROGATE)
        learner = Learner(build("llama"), config, total_steps=8)
        for seed in range(3):
            learner.update(units_of(seed), objective)
        plain, tensors = learner.state()
        copied = copy.deepcopy(learner.model)
        resumed = Learner(copied, config, total_steps=8)
        resumed.load_state(json.loads(json.dumps(plain)), tensors)
        rates = [[each.update(units_of(seed), objective)["loss/lr"] for seed in range(3, 7)] for each in (learner, resumed)]
        assert rates[0] == rates[1]
        assert identical(weights(learner.model), weights(resumed.model))
        assert learner.state()[0] == resumed.state()[0]

    def test_going_back_undoes_later_updates(self) -> None:
        config = moving(schedule="linear", warmup_steps=1)
        objective = PolicyObjective(SURROGATE)
        learner = Learner(build("llama"), config, total_steps=9)
        learner.update(units_of(0), objective)
        learner.update(units_of(1), objective)
        plain, tensors = learner.state()
        saved = {name: value.clone() for name, value in tensors.items()}
        kept = copy.deepcopy(learner.model.state_dict())
        learner.update(units_of(2), objective)
        once = weights(learner.model)
        learner.model.load_state_dict(kept)
        learner.load_state(plain, saved)
        learner.update(units_of(2), objective)
        assert identical(once, weights(learner.model))

    def test_is_a_snapshot(self) -> None:
        learner = Learner(build("llama"), moving())
        learner.update(units_of(0), PolicyObjective(SURROGATE))
        _, tensors = learner.state()
        before = [v.clone() for v in tensors.values()]
        learner.update(units_of(1), PolicyObjective(SURROGATE))
        assert identical(before, list(tensors.values()))

    def test_before_any_update_is_empty_and_loads(self) -> None:
        config = moving(warmup_steps=2)
        plain, tensors = Learner(build("llama"), config).state()
        assert tensors == {}
        learner, fresh = Learner(build("llama"), config), Learner(build("llama"), config)
        learner.load_state(plain, tensors)
        for each in (learner, fresh):
            each.update(units_of(), PolicyObjective(SURROGATE))
            each.update(units_of(), PolicyObjective(SURROGATE))
        assert identical(weights(learner.model), weights(fresh.model))

    @pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))])
    def test_goes_where_the_optimiser_wants_it(self, device: str) -> None:
        learner = Learner(build("llama").to(device), moving())  # type: ignore[arg-type]
        learner.update(units_of(0), PolicyObjective(SURROGATE))
        plain, tensors = learner.state()
        # A fused optimiser counts its steps in float32 on the parameter's device, wherever and however they were saved.
        learner.load_state(plain, {name: v.cpu().double() if name.startswith("step.") else v.cpu() for name, v in tensors.items()})
        for parameter, state in learner.optimizer.state.items():
            assert state["step"].dtype == torch.float32
            assert {v.device for v in state.values()} == {parameter.device}
        learner.update(units_of(1), PolicyObjective(SURROGATE))


def linear(step: int) -> float:
    return max(0.0, (10 - step) / 8)


def cosine(step: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * (step - 2) / 8))


class TestSchedule:
    @pytest.mark.parametrize(("schedule", "after"), [("constant", lambda _step: 1.0), ("linear", linear), ("cosine", cosine)])
    def test_learning_rates(self, schedule: Any, after: Callable[[int], float]) -> None:
        learner = Learner(build("llama"), LearnerConfig(lr=0.01, warmup_steps=2, schedule=schedule), total_steps=10)
        unit = [answer([5], [6])]
        rates = [learner.update([unit], PolicyObjective(SURROGATE))["loss/lr"] for _ in range(10)]
        assert rates == pytest.approx([0.005, 0.01] + [0.01 * after(step) for step in range(2, 10)])

    def test_spans_all_optimiser_steps_of_the_updates(self) -> None:
        learner = Learner(build("llama"), LearnerConfig(lr=0.01, warmup_steps=0, schedule="linear", epochs=2, mini_batches=2), total_steps=2)
        units = [[answer([5], [6])], [answer([5], [7])]]
        rates = [learner.update(units, PolicyObjective(SURROGATE))["loss/lr"] for _ in range(2)]
        # Eight optimiser steps from 1 down by eighths; an update reports the mean over its four.
        assert rates == pytest.approx([0.01 * (8 + 7 + 6 + 5) / 32, 0.01 * (4 + 3 + 2 + 1) / 32])

    def test_a_batch_of_few_units_does_not_hold_the_schedule_back(self) -> None:
        learner = Learner(build("llama"), LearnerConfig(lr=0.01, warmup_steps=0, schedule="linear", mini_batches=4), total_steps=4)
        units = [[answer([5], [6 + i])] for i in range(4)]
        rates = [learner.update(some, PolicyObjective(SURROGATE))["loss/lr"] for some in (units, units[:1], units[:2], units)]
        # A step of the loop is a quarter, in as many parts as it has optimiser steps; each update reports their mean.
        falls = [(0 + 1 + 2 + 3) / 64, 1 / 4, 1 / 2 + (0 + 1) / 16, 3 / 4 + (0 + 1 + 2 + 3) / 64]
        assert rates == pytest.approx([0.01 * (1 - fall) for fall in falls])

    def test_the_step_of_the_loop_sets_the_rate(self) -> None:
        learner = Learner(build("llama"), LearnerConfig(lr=0.01, warmup_steps=0, schedule="linear"), total_steps=10)
        steps: list[int | None] = [0, 4, None, 4]
        rates = [learner.update([[answer([5], [6])]], PolicyObjective(SURROGATE), step=step)["loss/lr"] for step in steps]
        assert rates == pytest.approx([0.01, 0.006, 0.005, 0.006])

    def test_a_fall_without_an_end_is_refused(self) -> None:
        with pytest.raises(InputError, match="the schedule 'cosine' falls to 0 over 0 steps"):
            Learner(build("llama"), LearnerConfig(schedule="cosine"))

    def test_default_rate_is_the_model_s(self) -> None:
        assert Learner(build("llama"), LearnerConfig(), default_lr=3e-4).lr == 3e-4
        assert Learner(build("llama"), LearnerConfig(lr=1e-5), default_lr=3e-4).lr == 1e-5


@dataclass
class Recorder:
    """Importance ratios on trained tokens, call by call."""

    ratios: list[Tensor]

    def __call__(self, logprobs: Tensor, old: Tensor, mask: Tensor) -> Tensor:
        ratio = token_ratio(logprobs, old, mask)
        self.ratios.append(ratio.detach()[mask > 0])
        return ratio


class TestPasses:
    @pytest.mark.parametrize("options", [{"epochs": 2}, {"mini_batches": 2}])
    def test_later_steps_are_measured_against_the_start_of_the_update(self, options: dict[str, int]) -> None:
        recorder = Recorder([])
        learner = Learner(build("llama"), moving(**options))
        for _ in range(2):
            learner.update(units_of(), PolicyObjective(SURROGATE, ratio=recorder))
        assert len(recorder.ratios) == 4
        for first, second in (recorder.ratios[:2], recorder.ratios[2:]):
            # The old log-probabilities are recomputed at each update: its first step has ratio 1.
            assert float((first - 1).abs().max()) < 1e-4
            assert float((second - 1).abs().max()) > 1e-2

    def test_mini_batches_part_the_units(self) -> None:
        recorder = Recorder([])
        units = units_of(tasks=5)
        Learner(build("llama"), moving(mini_batches=2)).update(units, PolicyObjective(SURROGATE, ratio=recorder))
        sizes = [sum(t.trained_length for t in flat(units[i::2])) for i in range(2)]
        assert [len(r) for r in recorder.ratios] == sizes

    def test_gradient_norm_is_clipped_and_reported_unclipped(self) -> None:
        model = build("llama")
        norm = float(gradient(model, units_of(), SupervisedObjective()).norm())
        clipped = gradient(model, units_of(), SupervisedObjective(), still(grad_clip=norm / 4))
        assert float(clipped.norm()) == pytest.approx(norm / 4, rel=1e-3)
        metrics = Learner(model, still(grad_clip=norm / 4)).update(units_of(), SupervisedObjective())
        assert metrics["loss/grad_norm"] == pytest.approx(norm, rel=1e-4)


class TestLearning:
    def test_sft_memorises_a_sequence(self) -> None:
        model = build("llama")
        learner = Learner(model, moving())
        sequence = [20, 31, 42, 13, 20, 55, EOS]
        losses = [learner.update([[answer([5, 6], sequence)]], SupervisedObjective())["loss/nll"] for _ in range(40)]
        assert losses[0] > 2
        assert losses[-1] < 0.05
        engine = Engine(model, CharacterTokenizer(), eos_ids=[EOS], context_length=96, slots=1)  # type: ignore[arg-type]
        assert engine.generate([Request((5, 6), SamplingParams(20, temperature=0))])[0].tokens == sequence

    def test_a_policy_gradient_raises_good_tokens_and_lowers_bad_ones(self) -> None:
        learner = Learner(build("llama"), moving(lr=1e-3))
        good, bad = answer([5, 6], [20, 21], 1.0), answer([5, 6], [30, 31], -1.0)
        before = [sum(v) for v in learner.logprobs([good, bad])]
        for _ in range(3):
            learner.update([[good, bad]], PolicyObjective(SURROGATE))
        after = [sum(v) for v in learner.logprobs([good, bad])]
        assert after[0] > before[0] + 0.01
        assert after[1] < before[1] - 0.01

    def test_dpo_loss_falls_and_the_margin_rises(self) -> None:
        learner = Learner(build("llama"), moving(lr=1e-3))
        learner.freeze_reference()
        pair = [answer([5, 6], [20, 21, 22]), answer([5, 6], [30, 31])]
        start = [sum(v) for v in learner.logprobs(pair)]
        metrics = [learner.update([pair], PreferenceObjective(beta=0.1)) for _ in range(6)]
        losses = [m["loss/total"] for m in metrics]
        margins = [m["loss/margin"] for m in metrics]
        assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
        assert margins[0] == pytest.approx(0.0, abs=1e-5)
        assert losses == sorted(losses, reverse=True)
        assert margins == sorted(margins)
        assert margins[-1] > 0.1
        assert metrics[-1]["loss/preference_accuracy"] == 1.0
        # The first of the pair is the chosen one.
        chosen, rejected = (sum(v) - before for v, before in zip(learner.logprobs(pair), start, strict=True))
        assert 0.1 * (chosen - rejected) > margins[-1]

    @pytest.mark.parametrize("budget", [1, 30, 100_000])
    def test_dpo_pairs_are_not_cut_and_the_gradient_does_not_depend_on_micro_batches(self, budget: int) -> None:
        model = build("llama")
        pairs = [unit[:2] for unit in units_of(tasks=5)]
        calls: list[list[int]] = []

        class Watched(PreferenceObjective):
            def __call__(self, batch: TokenBatch) -> tuple[Tensor, Statistics]:
                calls.append(batch.unit.tolist())
                return super().__call__(batch)

        expected = gradient(model, pairs, PreferenceObjective(beta=0.5), still(micro_batch_tokens=100_000))
        same(gradient(model, pairs, Watched(beta=0.5), still(micro_batch_tokens=budget)), expected)
        assert sorted(u for call in calls for u in call) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
        assert all(call[0::2] == call[1::2] for call in calls)
        assert len(calls) == {1: 5, 100_000: 1}.get(budget, len(calls))


def test_dropout_is_off() -> None:
    model = build("gpt2")
    dropouts = [m for m in model.modules() if isinstance(m, nn.Dropout)]
    assert any(m.p > 0 for m in dropouts)
    Learner(model, still(gradient_checkpointing=True)).update(units_of(), SupervisedObjective())
    assert all(m.p == 0 for m in dropouts)
    assert not model.training

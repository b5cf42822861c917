"""Decode steps of fixed shapes. Where there is no GPU, what plays a recording is a function that does the work again on the same tensors."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from random_models import EOS, VOCABULARY, CharacterTokenizer, build
from torch import Tensor

from etude.models.engine import Engine
from etude.models.kv_cache import SlotCache
from etude.models.recorded_steps import RecordedSteps, Recorder
from etude.models.sampling import Request, SamplingParams, stream_key

GPU = torch.cuda.is_available()


class Replaying:
    """Stands for CUDA graphs: the work again, into the tensor of the first time."""

    def __init__(self) -> None:
        self.plays = 0

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        result = work()

        def play() -> None:
            self.plays += 1
            result.copy_(work())

        return play, result


def engine(model: object, record: Recorder | None, slots: int = 12, context: int = 96) -> Engine:
    made = Engine(model, CharacterTokenizer(), eos_ids=[EOS], context_length=context, slots=slots)  # type: ignore[arg-type]
    assert made._lean is not None
    made._recorded = None if record is None else RecordedSteps(made._lean, made._cache, slots, record)
    return made


def requests(count: int, tokens: int = 30) -> list[Request]:
    rng = random.Random(count)
    return [
        Request(
            tuple(rng.randrange(2, VOCABULARY) for _ in range(rng.randrange(1, 14))), SamplingParams(rng.randrange(1, tokens)), stream=stream_key("recorded", i)
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_what_is_played_draws_what_steps_draw(architecture: str) -> None:
    model = build(architecture)
    record = Replaying()
    recording = engine(model, record)
    asked = requests(60)
    expected = engine(model, None).generate(asked)
    completions = recording.generate(asked)
    assert [c.tokens for c in completions] == [c.tokens for c in expected]
    for one, other in zip(completions, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    # Rows of 1, 2, 4, 8 and all 12: most steps were played.
    assert recording._recorded is not None
    assert 3 <= recording._recorded.recorded <= 5
    assert record.plays > 0.7 * recording.clock.steps


def test_spans_are_rounded_up_to_powers_of_two_and_rows_to_a_few_sizes() -> None:
    steps = engine(build("llama"), Replaying())._recorded
    assert steps is not None
    assert [steps._shape(count, 5) for count in (1, 3, 7, 9, 12)] == [(1, 64), (4, 64), (8, 64), (12, 64), (12, 64)]
    # The context of 96 is the longest span.
    assert [steps._shape(1, span) for span in (64, 65, 96)] == [(1, 64), (1, 96), (1, 96)]
    assert engine(build("llama"), Replaying(), slots=600)._recorded._shape(513, 5) is None  # type: ignore[union-attr]


def test_updated_weights_are_played_and_moved_ones_recorded_again() -> None:
    model = build("llama")
    record = Replaying()
    sampler = engine(model, record)
    asked = requests(30)
    sampler.generate(asked)
    assert sampler._recorded is not None
    before = dict(sampler._recorded._recordings)
    assert before
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    assert [c.tokens for c in sampler.generate(asked)] == [c.tokens for c in engine(model, None).generate(asked)]
    assert all(sampler._recorded._recordings[shape] is recording for shape, recording in before.items())
    projection = model.model.layers[0].mlp.down_proj  # type: ignore[union-attr]
    projection.weight.data = projection.weight.data.clone() * 0.5  # type: ignore[union-attr, operator]
    assert [c.tokens for c in sampler.generate(asked)] == [c.tokens for c in engine(model, None).generate(asked)]
    assert not any(sampler._recorded._recordings.get(shape) is recording for shape, recording in before.items())


def test_a_longer_cache_is_recorded_again() -> None:
    model = build("llama")
    sampler = engine(model, Replaying(), slots=4, context=400)
    short, long = ([Request((5, 6, 7), SamplingParams(n, ignore_eos=True), stream=stream_key(n, i)) for i in range(4)] for n in (20, 200))
    for asked in (short, long, short):
        assert [c.tokens for c in sampler.generate(asked)] == [c.tokens for c in engine(model, None, context=400).generate(asked)]


@pytest.mark.parametrize("fails", ["raises", "computes something else"])
def test_a_recording_that_comes_to_nothing_leaves_steps_as_they_are(fails: str) -> None:
    def record(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        if fails == "raises":
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        return (lambda: None), work() + 1

    model = build("llama")
    asked = requests(30)
    sampler = engine(model, record)
    with pytest.warns(UserWarning, match="not permitted when stream is capturing$" if fails == "raises" else "other logits"):
        completions = sampler.generate(asked)
    assert [c.tokens for c in completions] == [c.tokens for c in engine(model, None).generate(asked)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler.generate(asked)


def test_nothing_is_recorded_on_a_processor_or_with_an_adapter() -> None:
    plain = Engine(build("llama"), CharacterTokenizer(), eos_ids=[EOS], context_length=96)  # type: ignore[arg-type]
    assert plain._recorded is None
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(build("llama"), peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")).eval()
    adapted = Engine(model, CharacterTokenizer(), eos_ids=[EOS], context_length=96)  # type: ignore[arg-type]
    assert adapted._lean is not None
    assert RecordedSteps.of(adapted._lean, adapted._cache, 4, torch.device("cuda")) is None


@pytest.mark.skipif(not GPU, reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_graphs_draw_what_steps_draw(dtype: torch.dtype) -> None:
    model = build("llama").to("cuda", dtype)
    recording, plain = (Engine(model, CharacterTokenizer(), eos_ids=[EOS], context_length=96, slots=12) for _ in range(2))  # type: ignore[arg-type]
    plain._recorded = None
    asked = [Request(r.prompt, SamplingParams(20, temperature=0, ignore_eos=True)) for r in requests(40)]
    completions, expected = recording.generate(asked), plain.generate(asked)
    assert recording._recorded is not None
    assert recording._recorded.recorded
    if dtype == torch.float32:
        assert [c.tokens for c in completions] == [c.tokens for c in expected]
    else:
        assert sum(a.tokens == b.tokens for a, b in zip(completions, expected, strict=True)) > 30


def test_where_memory_ends_while_the_cache_grows_it_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = SlotCache(2, 512)
    keys = torch.arange(2 * 3 * 4.0).view(2, 1, 3, 4)
    cache.aim(slice(0, 2), torch.zeros(2, dtype=torch.long), 3, 3, 2)
    cache.update(keys, keys + 100, 0)
    original, left = torch.Tensor.new_zeros, [1]

    def new_zeros(self: Tensor, *size: Any, **options: Any) -> Tensor:
        if not left:
            raise torch.OutOfMemoryError("no memory for the values")
        left.pop()
        return original(self, *size, **options)

    monkeypatch.setattr(torch.Tensor, "new_zeros", new_zeros)
    before = cache.bytes
    with pytest.raises(torch.OutOfMemoryError):
        cache.reserve(5, 200)
    assert cache.bytes == before
    monkeypatch.undo()
    cache.reserve(5, 200)
    assert cache.bytes == 2 * 2 * 5 * 256 * 4 * 4
    held = cache.park(1, 3)
    assert torch.equal(held.keys[0], keys[1])
    assert torch.equal(held.values[0], keys[1] + 100)


def test_where_a_gpu_has_no_room_for_all_slots_steps_go_on_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = engine(build("llama"), Replaying())

    def reserve(rows: int, length: int) -> None:
        raise torch.OutOfMemoryError(f"no memory for {rows} rows of {length}")

    monkeypatch.setattr(sampler._cache, "reserve", reserve)
    asked = requests(30)
    with pytest.warns(UserWarning, match="no memory for 12 rows of 64"):
        completions = sampler.generate(asked)
    assert [c.tokens for c in completions] == [c.tokens for c in engine(build("llama"), None).generate(asked)]

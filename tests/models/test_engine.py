"""Samplers against Hugging Face generation, exact probabilities and themselves: the embedded engine, and with `--sampler vllm` vLLM."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import EOS, POOL, VOCABULARY, CharacterTokenizer, with_vllm
from scipy.stats import chisquare
from transformers import PreTrainedModel

from etude.errors import InputError
from etude.models.drawing import draw_several, truncate, uniforms
from etude.models.engine import Engine
from etude.models.sampling import FinishedEvent, Request, Sampler, SamplingParams, TokenEvent, resumed, stream_key

embedded = True
"""Whether the tests run against the embedded engine. It alone reuses what it holds to the token: vLLM shares whole blocks."""


@pytest.fixture(autouse=True, scope="module")
def back_end(request: pytest.FixtureRequest) -> None:
    global embedded
    embedded = not with_vllm(request.config)


def engine(model: PreTrainedModel, slots: int = 64, prefill_tokens: int = 4096) -> Sampler:
    if not embedded:
        return POOL.take(model, slots)
    return Engine(model, CharacterTokenizer(), eos_ids=[EOS], context_length=96, slots=slots, prefill_tokens=prefill_tokens)  # type: ignore[arg-type]


def prompts(count: int, seed: int = 0, low: int = 1, high: int = 14) -> list[tuple[int, ...]]:
    rng = random.Random(seed)
    return [tuple(rng.randrange(2, VOCABULARY) for _ in range(rng.randrange(low, high))) for _ in range(count)]


def sampled(count: int, *, seed: int = 0, tokens: int = 20, **options: object) -> list[Request]:
    return [Request(p, SamplingParams(tokens, **options), stream=stream_key(seed, i)) for i, p in enumerate(prompts(count, seed))]  # type: ignore[arg-type]


def test_greedy_output_equals_hugging_face_generate(any_model: PreTrainedModel) -> None:
    asked = prompts(9)
    completions = engine(any_model, slots=4).generate([Request(p, SamplingParams(20, temperature=0)) for p in asked])
    for prompt, completion in zip(asked, completions, strict=True):
        reference = any_model.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False, pad_token_id=0)[0, len(prompt) :].tolist()  # type: ignore[operator]
        assert completion.tokens == reference


def test_logprobs_and_entropies_equal_a_full_forward(any_model: PreTrainedModel) -> None:
    for completion in engine(any_model, slots=5).generate(sampled(12)):
        with torch.no_grad():
            logits = any_model(torch.tensor([completion.prompt + completion.tokens])).logits[0]
        logprobs = logits[len(completion.prompt) - 1 : -1].log_softmax(-1)
        own = logprobs.gather(1, torch.tensor(completion.tokens)[:, None]).squeeze(1)
        assert torch.allclose(torch.tensor(completion.logprobs), own, atol=1e-4)
        assert torch.allclose(torch.tensor(completion.entropies), -(logprobs.exp() * logprobs).sum(-1), atol=1e-4)


def test_tokens_do_not_depend_on_what_else_is_in_the_batch(llama: PreTrainedModel) -> None:
    requests = sampled(40)
    together = [c.tokens for c in engine(llama).generate(requests)]
    assert together == [c.tokens for c in engine(llama, slots=3, prefill_tokens=8).generate(requests)]
    assert together[::-1] == [c.tokens for c in engine(llama, slots=7).generate(requests[::-1])]
    alone = engine(llama)
    assert together[:6] == [alone.generate([r])[0].tokens for r in requests[:6]]


@pytest.mark.parametrize("point", [0, 1, 5, 13])
def test_an_aborted_sequence_resumes_to_the_same_tokens(llama: PreTrainedModel, point: int) -> None:
    requests = sampled(8, tokens=16)
    whole = engine(llama).generate(requests)
    other = engine(llama, slots=6)
    ids = [other.add(r) for r in requests]
    finished = {}
    for _ in range(point):
        finished |= {e.request: e.completion for e in other.step() if isinstance(e, FinishedEvent)}
    partial = [finished.get(i) or other.abort(i) for i in ids]
    assert other.pending == 0
    again = other.generate([resumed(r, p) for r, p in zip(requests, partial, strict=True)])
    cut_short = [p.stop_reason == "aborted" for p in partial]
    assert any(cut_short)
    for one, two, cut in zip(whole, again, cut_short, strict=True):
        assert not cut or one.tokens == two.tokens


def test_several_are_aborted_at_once_and_the_others_go_on(llama: PreTrainedModel) -> None:
    requests = sampled(10, tokens=16, ignore_eos=True)
    whole = engine(llama).generate(requests)
    sampler = engine(llama, slots=7)
    ids = [sampler.add(r) for r in requests]
    for _ in range(4):
        sampler.step()
    # Some from the middle of the rows, and one that waits.
    stopped = [1, 2, 5, 8]
    partial = sampler.abort_all([ids[i] for i in stopped])
    assert [p.tokens for p in partial] == [whole[i].tokens[: len(p.tokens)] for i, p in zip(stopped, partial, strict=True)]
    assert [len(p.tokens) for p in partial] == [4, 4, 4, 0]
    rest = {c.request: c.tokens for c in sampler.stream([])}
    assert rest == {ident: whole[i].tokens for i, ident in enumerate(ids) if i not in stopped}
    with pytest.raises(InputError, match="can't be aborted"):
        sampler.abort_all([ids[0]])


def test_a_resumed_sequence_keeps_the_versions_that_wrote_it(llama: PreTrainedModel) -> None:
    sampler = engine(llama)
    request = Request((5, 6, 7), SamplingParams(8, ignore_eos=True), stream=3)
    ident = sampler.add(request)
    for _ in range(3):
        sampler.step()
    partial = sampler.abort(ident)
    sampler.version = 4
    completion = sampler.generate([resumed(request, partial)])[0]
    assert completion.versions == [0, 0, 0, 4, 4, 4, 4, 4]
    assert completion.logprobs[:3] == partial.logprobs


@pytest.mark.parametrize("at", [0, 1, 4, 9])
def test_a_fork_equals_prefilling_the_same_tokens(any_model: PreTrainedModel, at: int) -> None:
    sampler = engine(any_model)
    source = sampler.add(Request((9, 8, 7, 6), SamplingParams(10, ignore_eos=True), stream=1, keep=True))
    completion = sampler.generate([])
    while sampler.pending:
        completion += [e.completion for e in sampler.step() if isinstance(e, FinishedEvent)]
    prefix = completion[0].tokens[:at]
    before = sampler.clock.prefill_tokens
    fork = sampler.fork(source, at, stream=stream_key("branch"), params=SamplingParams(20, temperature=0))
    branch = next(iter(sampler.stream([])))
    assert branch.request == fork
    assert sampler.clock.prefill_tokens - before == 1 or not embedded
    assert branch.tokens[:at] == prefix
    afresh = engine(any_model).generate([Request((9, 8, 7, 6, *prefix), SamplingParams(20 - at, temperature=0))])[0]
    assert branch.tokens[at:] == afresh.tokens
    assert np.allclose(branch.logprobs[at:], afresh.logprobs, atol=1e-4)


def test_a_fork_of_a_running_sequence_leaves_it_alone(llama: PreTrainedModel) -> None:
    request = Request((9, 8, 7, 6), SamplingParams(12, ignore_eos=True), stream=1)
    undisturbed = engine(llama).generate([request])[0]
    sampler = engine(llama)
    source = sampler.add(request)
    for _ in range(5):
        sampler.step()
    fork = sampler.fork(source, 3, stream=99)
    done = {c.request: c for c in sampler.stream([])}
    assert done[source].tokens == undisturbed.tokens
    assert done[fork].tokens[:3] == undisturbed.tokens[:3]
    assert len(done[fork].tokens) == 12


def run_until(sampler: Sampler, ident: int, tokens: int) -> list[TokenEvent]:
    """Steps until a request has so many tokens; its events."""
    events: list[TokenEvent] = []
    while len(events) < tokens:
        events += [e for e in sampler.step(token_events=True) if isinstance(e, TokenEvent) and e.request == ident]
    return events


@pytest.mark.parametrize("at", [0, 4])
def test_a_fork_can_take_the_other_way(any_model: PreTrainedModel, at: int) -> None:
    sampler = engine(any_model)
    source = sampler.add(Request((9, 8, 7, 6), SamplingParams(12, temperature=0, alternatives=3, ignore_eos=True), stream=1))
    events = run_until(sampler, source, at + 1)
    options = events[at].alternatives
    assert options is not None
    assert options.tokens[0] == events[at].token
    assert options.logprobs[0] == pytest.approx(events[at].logprob)
    before = sampler.clock.copy()
    fork = sampler.fork(source, at, take=options.tokens[1], stream=5)
    # Its log-probability and the position's entropy are known already, so that it costs no forward of its own.
    assert sampler.clock.since(before).generated_tokens == 1
    sampler.step()
    assert sampler.clock.since(before).prefill_tokens == 1 or not embedded
    done = {c.request: c for c in sampler.stream([])}
    trunk, branch = done[source], done[fork]
    assert branch.tokens[:at] == trunk.tokens[:at]
    assert branch.tokens[at] == options.tokens[1]
    assert branch.logprobs[at] == options.logprobs[1]
    assert branch.entropies[at] == trunk.entropies[at]
    assert branch.alternatives[at] == trunk.alternatives[at]
    afresh = engine(any_model).generate([Request((9, 8, 7, 6, *branch.tokens[: at + 1]), SamplingParams(11 - at, temperature=0, ignore_eos=True))])[0]
    assert branch.tokens[at + 1 :] == afresh.tokens
    scored = engine(any_model).score([(9, 8, 7, 6)], [branch.tokens])[0]
    assert np.allclose(branch.logprobs, scored, atol=1e-4)
    assert sum(map(len, (branch.tokens, trunk.tokens))) - at == sampler.clock.generated_tokens


def test_a_fork_that_takes_the_end_is_complete(llama: PreTrainedModel) -> None:
    sampler = engine(llama)
    source = sampler.add(Request((9, 8, 7), SamplingParams(6, alternatives=VOCABULARY, ignore_eos=True), stream=1))
    run_until(sampler, source, 3)
    fork = sampler.fork(source, 2, take=EOS, stream=2, params=SamplingParams(6), keep=True)
    branch = next(c for c in sampler.stream([]) if c.request == fork)
    assert (branch.tokens[2:], branch.stop_reason, len(branch.logprobs)) == ([EOS], "eos", 3)
    # What it kept can be forked like any other.
    again = sampler.fork(fork, 1, stream=3, params=SamplingParams(4, temperature=0))
    grown = next(c for c in sampler.stream([]) if c.request == again)
    afresh = engine(llama).generate([Request((9, 8, 7, branch.tokens[0]), SamplingParams(3, temperature=0))])[0]
    assert grown.tokens[1:] == afresh.tokens


def test_only_what_was_seen_as_an_alternative_can_be_taken(llama: PreTrainedModel) -> None:
    sampler = engine(llama)
    source = sampler.add(Request((9, 8, 7), SamplingParams(6, alternatives=1, ignore_eos=True), stream=1))
    (event,) = run_until(sampler, source, 1)
    assert event.alternatives is not None
    other = 2 if event.alternatives.tokens != [2] else 3
    with pytest.raises(InputError, match=f"can't be forked into token {other} at position 0: its alternatives there are"):
        sampler.fork(source, 0, take=other, stream=2)
    with pytest.raises(InputError, match="its alternatives there are none"):
        sampler.fork(source, 1, take=other, stream=2)
    with pytest.raises(InputError, match="expected `take` or `append`"):
        sampler.fork(source, 0, take=event.alternatives.tokens[0], append=[4], stream=2)


def test_each_request_gets_the_alternatives_it_asked_for(llama: PreTrainedModel) -> None:
    requests = [Request((5 + i,), SamplingParams(4, alternatives=n, ignore_eos=True), stream=i) for i, n in enumerate((0, 1, 3))]
    for completion, wanted in zip(engine(llama).generate(requests), (0, 1, 3), strict=True):
        assert [len(a.tokens) for a in completion.alternatives] == ([wanted] * 4 if wanted else [])
        assert all(a.logprobs == sorted(a.logprobs, reverse=True) for a in completion.alternatives)


def test_appended_tokens_become_the_next_prompt(any_model: PreTrainedModel) -> None:
    sampler = engine(any_model)
    first = sampler.add(Request((3, 4, 5), SamplingParams(6, ignore_eos=True), stream=2, keep=True))
    written = next(iter(sampler.stream([])))
    second = sampler.fork(first, append=(11, 12, 13), stream=5, params=SamplingParams(8, temperature=0))
    sampler.release(first)
    answer = next(iter(sampler.stream([])))
    assert answer.request == second
    assert answer.prompt == [3, 4, 5, *written.tokens, 11, 12, 13]
    afresh = engine(any_model).generate([Request(tuple(answer.prompt), SamplingParams(8, temperature=0))])[0]
    assert answer.tokens == afresh.tokens
    with pytest.raises(InputError, match="neither in flight nor kept"):
        sampler.fork(first, stream=1)


def test_a_shared_prompt_is_prefilled_once(llama: PreTrainedModel) -> None:
    sampler = engine(llama)
    prompt = tuple(2 + i % 50 for i in range(70))
    completions = sampler.generate([Request(prompt, SamplingParams(5, ignore_eos=True), stream=stream_key(i)) for i in range(16)])
    # Of two whole blocks of 32 tokens and 6 more, vLLM computes the 6 for each.
    assert sampler.clock.prefill_tokens == (len(prompt) if embedded else len(prompt) + 15 * 6)
    assert len({tuple(c.tokens) for c in completions}) > 1


def test_a_prompt_that_is_running_is_not_prefilled_again(any_model: PreTrainedModel) -> None:
    if any_model.config.vocab_size > 1000:
        pytest.skip("among so many tokens, a draw falls between the roundings of two batches now and then")
    prompt, other = tuple(range(2, 22)), (9, 8, 7)
    # Lengths of 1 to 6 tokens, so that attempts enter one by one while others of both prompts run.
    requests = [Request(other if i % 5 == 4 else prompt, SamplingParams(1 + i % 6, ignore_eos=True), stream=stream_key(i)) for i in range(60)]
    few = engine(any_model, slots=7)
    completions = few.generate(requests)
    assert few.clock.prefill_tokens < 3 * (len(prompt) + len(other)) + len(requests) or not embedded
    alone = engine(any_model)
    for request, completion in zip(requests, completions, strict=True):
        expected = alone.generate([request])[0]
        assert completion.tokens == expected.tokens
        assert completion.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


def test_a_prompt_is_prefilled_again_under_new_weights(llama: PreTrainedModel) -> None:
    prompt = tuple(range(2, 22))
    sampler = engine(llama, slots=2)
    for i in range(3):
        sampler.add(Request(prompt, SamplingParams(4 + 4 * (i == 0), ignore_eos=True), stream=stream_key(i)))
    sampler.step()
    sampler.update(1)
    before = sampler.clock.prefill_tokens
    while sampler.pending:
        sampler.step()
    # The third enters after the change, beside the first, whose prompt was computed before it.
    assert sampler.clock.prefill_tokens - before == len(prompt)


def count_rows(model: PreTrainedModel) -> list[int]:
    """The sizes of what the model embeds, from now on: tokens of each forward."""
    sizes: list[int] = []
    model.get_input_embeddings().register_forward_pre_hook(lambda _module, given: sizes.append(given[0].numel()))
    return sizes


def test_what_has_the_same_tokens_behind_it_is_computed_once(any_model: PreTrainedModel) -> None:
    if not embedded:
        pytest.skip("vLLM computes a row for each sequence")
    prompts_ = [(4, 9, 2), (5, 6)]
    requests = [Request(prompts_[i % 2], SamplingParams(12, temperature=0.5, ignore_eos=True), stream=stream_key("twin", i)) for i in range(24)]
    sampler = engine(any_model)
    sizes = count_rows(any_model)
    completions = sampler.generate(requests)
    # The prompts, padded to one length, and then every beginning that someone has, but for those of all tokens, after which nobody draws.
    distinct = [len({(tuple(c.prompt), tuple(c.tokens[:end])) for c in completions}) for end in range(1, 12)]
    assert sizes == [6, *distinct]
    assert distinct[0] < 24
    # The clock counts sequences, whatever is computed for them.
    assert (sampler.clock.steps, sampler.clock.busy_slot_steps, sampler.clock.generated_tokens) == (11, 11 * 24, 12 * 24)


def test_twins_draw_as_if_they_were_alone(any_model: PreTrainedModel) -> None:
    if any_model.config.vocab_size > 1000:
        pytest.skip("among so many tokens, a draw falls between the roundings of two batches now and then")
    ways = [
        SamplingParams(9),
        SamplingParams(12, temperature=0.4),
        SamplingParams(12, temperature=0, alternatives=2),
        SamplingParams(7, top_k=3, alternatives=4),
        SamplingParams(12, top_p=0.8, stop=("b",)),
    ]
    requests = [Request((4, 9, 2), ways[i % 5 if i < 20 else 1], stream=stream_key("apart", i)) for i in range(40)]
    for slots in (40, 11):
        completions = engine(any_model, slots=slots).generate(requests)
        alone = engine(any_model)
        for request, completion in zip(requests, completions, strict=True):
            expected = alone.generate([request])[0]
            assert (completion.tokens, completion.stop_reason, completion.text) == (expected.tokens, expected.stop_reason, expected.text)
            for name in ("logprobs", "entropies"):
                assert getattr(completion, name) == pytest.approx(getattr(expected, name), abs=1e-4)
            assert [a.tokens for a in completion.alternatives] == [a.tokens for a in expected.alternatives]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_to_twins_each_has_the_tokens_of_its_own_stream(llama: PreTrainedModel, seed: int) -> None:
    """Requests for three prompts come, are forked, aborted, resumed and extended at random; each completion is what a fresh engine makes of the same request alone."""
    rng = random.Random(seed)
    prompts_ = prompts(3, seed)
    sampler = engine(llama, slots=9)
    asked: dict[int, Request] = {}
    ended: dict[int, tuple[Request, list[int]]] = {}
    kept: list[int] = []

    def take(events: list[object]) -> None:
        for event in events:
            if isinstance(event, FinishedEvent):
                request = asked.pop(event.request)
                ended[event.request] = (request, event.completion.tokens)
                if request.keep:
                    kept.append(event.request)

    for number in range(60):
        stream = stream_key("stress", seed, number)
        params = SamplingParams(rng.randrange(1, 14), temperature=rng.choice([0.3, 0.3, 1.0]), ignore_eos=True)
        what = rng.random()
        if what < 0.5:
            for twin in range(rng.randrange(1, 6)):
                request = Request(rng.choice(prompts_), params, stream=stream + twin, keep=rng.random() < 0.3)
                asked[sampler.add(request)] = request
        elif what < 0.65 and kept:
            source, tokens = ended[kept[-1]]
            append = tuple(rng.randrange(2, VOCABULARY) for _ in range(2))
            for twin in range(3):
                request = Request((*source.prompt, *tokens, *append), params, stream=stream + twin)
                if len(request.prompt) < 70:
                    asked[sampler.fork(kept[-1], append=append, stream=request.stream, params=params)] = request
        elif what < 0.8 and asked:
            chosen = rng.sample(sorted(asked), min(2, len(asked)))
            for ident, partial in zip(chosen, sampler.abort_all(chosen), strict=True):
                request = asked.pop(ident)
                asked[sampler.add(resumed(request, partial))] = request
        for _ in range(rng.randrange(4)):
            take(list(sampler.step()))
    while sampler.pending:
        take(list(sampler.step()))
    assert len(ended) > 40
    alone = engine(llama)
    for request, tokens in ended.values():
        assert alone.generate([Request(request.prompt, request.params, stream=request.stream)])[0].tokens == tokens


def test_first_tokens_follow_the_softmax(llama: PreTrainedModel) -> None:
    prompt, draws = (4, 9, 2), 20_000
    sampler = engine(llama, slots=512)
    with torch.no_grad():
        expected = llama(torch.tensor([prompt])).logits[0, -1].softmax(-1).numpy().astype(np.float64)
    completions = sampler.generate([Request(prompt, SamplingParams(1), stream=stream_key("draw", i)) for i in range(draws)])
    counts = np.bincount([c.tokens[0] for c in completions], minlength=VOCABULARY)
    common = expected * draws >= 5
    assert common.sum() > 20
    wanted = expected[common] / expected[common].sum() * counts[common].sum()
    assert chisquare(counts[common], wanted).pvalue > 1e-3


def test_temperature_and_truncation_are_in_the_recorded_logprobs(llama: PreTrainedModel) -> None:
    prompt = (4, 9, 2)
    with torch.no_grad():
        logits = llama(torch.tensor([prompt])).logits[0, -1] / 0.7
    kept = logits.topk(5)
    expected = dict(zip(kept.indices.tolist(), kept.values.log_softmax(-1).tolist(), strict=True))
    for completion in engine(llama).generate([Request(prompt, SamplingParams(1, temperature=0.7, top_k=5, alternatives=3), stream=i) for i in range(50)]):
        assert completion.logprobs[0] == pytest.approx(expected[completion.tokens[0]], abs=1e-4)
        assert completion.alternatives[0].tokens == kept.indices[:3].tolist()
        assert completion.entropies[0] == pytest.approx(-sum(np.exp(v) * v for v in expected.values()), abs=1e-4)


def test_stop_strings_end_the_text_but_stay_in_the_tokens(llama: PreTrainedModel) -> None:
    request = Request((5, 6, 7), SamplingParams(30, ignore_eos=True), stream=8)
    free = engine(llama).generate([request])[0]
    stop = free.text[4:6]
    stopped = engine(llama).generate([Request((5, 6, 7), SamplingParams(30, ignore_eos=True, stop=(stop,)), stream=8)])[0]
    end = free.text.index(stop)
    assert stopped.stop_reason == "stop"
    assert stopped.text == free.text[:end]
    assert stopped.tokens == free.tokens[: end + 2]


def test_end_tokens_and_limits_are_told_apart(llama: PreTrainedModel) -> None:
    completions = engine(llama).generate(sampled(60, tokens=25))
    reasons = {c.stop_reason for c in completions}
    assert reasons == {"eos", "length"}
    for completion in completions:
        assert (completion.tokens[-1] == EOS) == (completion.stop_reason == "eos")
        assert EOS not in completion.tokens[:-1]


def test_generation_stops_at_the_end_of_the_context(llama: PreTrainedModel) -> None:
    completion = engine(llama).generate([Request(tuple(range(2, 50)), SamplingParams(500, ignore_eos=True), stream=1)])[0]
    assert len(completion.prompt) + len(completion.tokens) == 96
    assert completion.stop_reason == "length"
    with pytest.raises(InputError, match="no room"):
        engine(llama).add(Request((5,) * 96))


def test_the_clock_counts_steps_and_occupied_slots(llama: PreTrainedModel) -> None:
    sampler = engine(llama, slots=4)
    lengths = [3, 5, 7]
    sampler.generate([Request((5 + i,), SamplingParams(n, ignore_eos=True), stream=i) for i, n in enumerate(lengths)])
    # The first token of each comes with its prefill; the others take one decode step each, all sequences side by side.
    assert sampler.clock.steps == 6
    assert sampler.clock.busy_slot_steps == sum(lengths) - len(lengths)
    assert sampler.clock.slot_steps == 6 * 4
    assert sampler.clock.generated_tokens == sum(lengths)


def test_token_events_tell_every_token_as_it_is_drawn(llama: PreTrainedModel) -> None:
    sampler = engine(llama, slots=2)
    for request in sampled(3, tokens=6):
        sampler.add(request)
    seen: dict[int, list[int]] = {}
    while sampler.pending:
        for event in sampler.step(token_events=True):
            if isinstance(event, TokenEvent):
                seen.setdefault(event.request, []).append(event.token)
            else:
                assert event.completion.tokens == seen[event.request]


def test_score_equals_the_logprobs_of_sampling(any_model: PreTrainedModel) -> None:
    completions = engine(any_model).generate(sampled(10))
    scores = engine(any_model, prefill_tokens=30).score([c.prompt for c in completions], [c.tokens for c in completions])
    for completion, score in zip(completions, scores, strict=True):
        assert np.allclose(completion.logprobs, score, atol=1e-4)


@pytest.mark.parametrize(("contexts", "options", "message"), [([[1]], [], "as many"), ([[]], [[1]], "empty"), ([[1]], [[]], "empty")])
def test_score_refuses_what_cannot_be_scored(llama: PreTrainedModel, contexts: list[list[int]], options: list[list[int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        engine(llama).score(contexts, options)


@pytest.mark.parametrize("bad", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"stop": ("",)}])
def test_sampling_params_are_checked(bad: dict[str, object]) -> None:
    with pytest.raises(InputError, match="expected"):
        SamplingParams(**bad)  # type: ignore[arg-type]


def test_uniforms_are_uniform_and_streams_unrelated() -> None:
    counters = np.arange(50_000, dtype=np.uint64)
    one, two = (uniforms(np.full(50_000, stream_key("s", i), dtype=np.uint64), counters) for i in range(2))
    for numbers in (one, two):
        assert chisquare(np.histogram(numbers, bins=50, range=(0, 1))[0]).pvalue > 1e-3
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.02
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.02


@given(st.lists(st.floats(-8, 8), min_size=2, max_size=12), st.integers(0, 6), st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_truncation_keeps_the_smallest_set_that_has_the_mass(logits: list[float], top_k: int, top_p: float) -> None:
    row = torch.tensor([logits])
    kept = truncate(row, torch.tensor([top_k]), torch.tensor([top_p]))[0] > -torch.inf
    order = row[0].sort(descending=True, stable=True).indices.tolist()
    limit = len(logits) if top_k == 0 else min(top_k, len(logits))
    mass = row[0][order[:limit]].softmax(-1)
    count = int(kept.sum())
    assert 1 <= count <= limit
    if top_p < 1:
        assert float(mass[:count].sum()) >= min(top_p, float(mass.sum())) - 1e-5
        assert count == 1 or float(mass[: count - 1].sum()) < top_p + 1e-5
    else:
        assert count == limit


def test_draw_never_returns_an_impossible_token() -> None:
    probabilities = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]]).expand(5, 5)
    numbers = torch.tensor([0.0, 0.4999, 0.5, 0.9999, 1.0 - 2**-53], dtype=torch.float64)
    assert draw_several(probabilities, numbers[:, None]).squeeze(1).tolist() == [1, 1, 3, 3, 3]
    assert draw_several(probabilities[:1], numbers[None]).tolist() == [[1, 1, 3, 3, 3]]

"""What is kept of attempts, and examples made out of them."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random

import pytest

from etude.config import RunConfig
from etude.curation import Corpus, capped, conversation_example, distinct, one_per_task, relabelled, rewarded, spliced, with_origin
from etude.errors import InputError
from etude.models.language import LanguageModel
from etude.run import Run
from etude.types import Message, Segment, Task, Trajectory

POLICY = LanguageModel.load("tiny", device="cpu")
ASK = Message("user", "2+3")


def task(name: str) -> Task:
    return Task(name, (ASK,), answer="5")


def attempt(name: str, token: int, reward: float) -> Trajectory:
    return Trajectory(task(name), [0], [Segment([token, 1], "policy", str(token), trained=True, logprobs=[-0.1, -0.2])], "eos", reward=reward)


def test_what_is_right_distinct_and_not_too_much_of_one_task() -> None:
    everything = [attempt("a", 5, 1), attempt("a", 5, 1), attempt("a", 6, 0.5), attempt("a", 7, 0.2), attempt("b", 5, math.nan), attempt("b", 5, 1)]
    good = rewarded(everything, 0.3)
    assert good == [everything[0], everything[1], everything[2], everything[5]]
    assert distinct(good) == [everything[0], everything[2], everything[5]]
    assert distinct(good, key=lambda t: t.task.id) == [everything[0], everything[5]]
    for seed in range(6):
        few = capped(good, 2, Random(seed))
        assert [t.task.id for t in few] == ["a", "a", "b"]
        assert [id(t) for t in few] == [id(t) for t in good if any(t is f for f in few)]
    assert capped(good, 0, Random(0)) == good


def test_one_of_each_task_in_the_way_that_was_taken_least() -> None:
    everything = [attempt("a", 5, 1), attempt("b", 5, 1), attempt("b", 5, 1), attempt("b", 6, 1), attempt("c", 6, 1), attempt("c", 7, 1)]
    for seed in range(6):
        kept = one_per_task(everything, lambda t: t.segments[0].tokens[0], Random(seed))
        assert [(t.task.id, t.segments[0].text) for t in kept] == [("a", "5"), ("b", "6"), ("c", "7")]


def test_turns_that_are_not_learnt_are_read() -> None:
    messages = [ASK, Message("assistant", "answer: 4"), Message("user", "check and fix"), Message("assistant", "answer: 5")]
    example = conversation_example(POLICY, task("a"), messages, learn=[False, True], weight=0.5, kind="pair")
    assert [(s.author, s.trained) for s in example.segments] == [("injected", False), ("environment", False), ("injected", True)]
    assert example.segments[2].advantages == [0.5] * len(example.segments[2].tokens)
    assert example.segments[0].advantages == []
    assert example.prompt == POLICY.render([ASK])
    assert example.tags["origin"] == {"kind": "pair"}
    # Read as one sequence it is what a whole conversation renders to.
    assert POLICY.decode([*example.prompt, *example.tokens]).count("answer: ") == 2
    assert [s.trained for s in conversation_example(POLICY, task("a"), messages).segments] == [True, False, True]
    with pytest.raises(InputError, match="has 2 turns of the assistant, and 1 are said"):
        conversation_example(POLICY, task("a"), messages, learn=[True])
    with pytest.raises(InputError, match="no turn of the assistant"):
        conversation_example(POLICY, task("a"), [ASK])


def test_what_does_not_fit_is_left_out_turn_by_turn() -> None:
    long = Message("assistant", "1 + " * 200)
    example = conversation_example(POLICY, task("a"), [ASK, Message("assistant", "answer: 4"), ASK, long])
    assert [s.text for s in example.segments] == ["answer: 4", "2+3"]
    with pytest.raises(InputError, match="does not fit into the 256 tokens"):
        conversation_example(POLICY, task("a"), [ASK, long])


def test_a_late_success_becomes_the_first_answer_and_a_history_is_spliced() -> None:
    late = attempt("a", 5, 1)
    late.segments = [Segment([8], "policy", "wrong", trained=True, logprobs=[-1.0]), Segment([9], "environment"), *late.segments]
    example = relabelled(late, [3, 4], strategy="program")
    assert (example.prompt, example.tokens) == ([3, 4], [5, 1])
    assert (example.segments[0].logprobs, example.segments[0].advantages) == ([], [1.0, 1.0])
    assert late.segments[-1].logprobs == [-0.1, -0.2]
    assert relabelled(late, [3], turn=0).tokens == [8]
    joined = spliced(task("a"), [3], late.segments[:1], late.segments[1:], kind="revision")
    assert [(s.tokens, s.trained) for s in joined.segments] == [([8], False), ([9], False), ([5, 1], True)]
    assert joined.trained_length == 2


def test_a_corpus_goes_through_everything_before_it_begins_again(tmp_path: Path) -> None:
    run = Run(tmp_path, RunConfig(seed=3))
    corpus = Corpus(run)
    corpus.add([with_origin(attempt("a", i, 1)) for i in range(5)], 1)
    corpus.add([with_origin(attempt("b", 9, 1))], 2)
    assert corpus.of_round(2) == [5]
    corpus.choose(range(6))
    first = [e.tokens[0] for _ in range(3) for e in corpus.batch(4)]
    assert sorted(first[:6]) == sorted(first[6:]) == [0, 1, 2, 3, 4, 9]
    again = Corpus(run)
    again.load_state(corpus.state())
    assert [e.tokens for e in again.batch(4)] == [e.tokens for e in corpus.batch(4)]
    corpus.choose([0])
    assert [e.tokens[0] for e in corpus.batch(4)] == [0]
    corpus.forget([5])
    assert ([e.task.id for e in corpus.examples], corpus.batch(4)) == (["b"], [])

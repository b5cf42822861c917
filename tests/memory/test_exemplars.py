"""Solved examples: what is kept, what is found, and what they look like in a prompt."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import pytest

from etude.memory.exemplars import Exemplar, ExemplarStore, cosine, family_of, fitting_examples, trigrams, with_examples
from etude.tasks.base import prompt_key
from etude.types import Message, Task


def task(question: str, id_: str = "sums/train-0-1", **info: str) -> Task:
    return Task(id_, (Message("user", question),), info=info)


def questions(found: Sequence[Exemplar]) -> list[str]:
    return [e.question for e in found]


def test_similarity_is_the_cosine_of_pieces_of_three() -> None:
    assert trigrams("abcabc") == {"abc": 2, "bca": 1, "cab": 1}
    assert trigrams("  A \n B") == {"a b": 1}
    assert trigrams("ab") == {"ab": 1}
    # abc, bcd against bcd, cde: one of two shared.
    assert cosine(trigrams("abcd"), trigrams("bcde"), math.sqrt(2) * math.sqrt(2)) == pytest.approx(0.5)
    assert cosine({}, {"a": 1.0}, 0.0) == 0.0


def test_the_most_similar_question_comes_first_and_never_the_tasks_own() -> None:
    store = ExemplarStore()
    for question in ("compute 1+2+3", "sort 5 4 3", "compute 9*9", "compute 1+2+4"):
        store.add(task(question), "answer: 0", 3)
    assert questions(store.similar(task("compute 1+2+3", "sums/another-id"), 2)) == ["compute 1+2+4", "compute 9*9"]
    assert len(store.similar(task("compute 1+2+3"), 99)) == 3
    # Of equally similar ones the newest.
    store.add(task("sort 5 4 3"), "answer: 3 4 5", 3)
    assert questions(store.similar(task("zzz"), 1)) == ["sort 5 4 3"]


def test_families_can_be_chosen_or_avoided() -> None:
    store = ExemplarStore()
    store.add(task("compute 1+2"), "answer: 3", 3)
    store.add(task("sort 1 2", "lists/train-0-1"), "answer: 1 2", 3)
    asked = task("compute 1+3", "sums/train-0-9")
    assert questions(store.similar(asked, 2)) == ["compute 1+2", "sort 1 2"]
    assert questions(store.similar(asked, 2, whose="same")) == ["compute 1+2"]
    assert questions(store.similar(asked, 2, whose="other")) == ["sort 1 2"]
    assert (family_of(asked), family_of(task("x", "17", family="own")), family_of(task("x", "17"))) == ("sums", "own", "")


def test_one_answer_a_question_the_shortest_or_the_newest() -> None:
    shortest, newest = ExemplarStore(), ExemplarStore(prefer="newest")
    for store in (shortest, newest):
        assert store.add(task("q"), "five", 5)
        assert store.add(task("q", "other/id"), "long", 9) is (store is newest)
        store.add(task("q"), "same", 5)
    assert [e.answer for e in (*shortest, *newest)] == ["same", "same"]
    shortest.add(task("q"), "longer", 7)
    assert [e.answer for e in shortest] == ["same"]


def test_what_is_not_kept() -> None:
    held_out = task("secret")
    store = ExemplarStore(token_limit=4, forbidden={prompt_key(held_out)})
    assert not store.add(held_out, "answer: 1", 2)
    assert not store.add(Task("under another name", (Message("user", " secret "),)), "answer: 1", 2)
    assert not store.add(task("q"), "too long", 5)
    assert not store.add(task("q"), " \n", 1)
    assert len(store) == 0


def test_the_question_solved_least_recently_makes_room() -> None:
    store = ExemplarStore(capacity=2)
    store.add(task("first"), "1", 1)
    store.add(task("second"), "2", 1)
    store.add(task("first"), "1", 1)
    store.add(task("third"), "3", 1)
    assert questions(list(store)) == ["first", "third"]


def test_a_saved_store_finds_what_it_found() -> None:
    store = ExemplarStore(capacity=3)
    for number in range(5):
        store.add(task(f"compute {number}+{number}"), f"answer: {2 * number}", 3)
    other = ExemplarStore(capacity=3)
    other.add(task("gone"), "1", 1)
    other.load_state(json.loads(json.dumps(store.state())))
    assert list(other) == list(store)
    asked = task("compute 3+4")
    assert other.similar(asked, 2) == store.similar(asked, 2)
    for each in (store, other):
        each.add(task("new"), "1", 1)
    assert other.state() == store.state()


def test_examples_are_earlier_turns_with_the_best_one_last() -> None:
    best, second = Exemplar("1", "near", "N", "", 1), Exemplar("2", "far", "F", "", 1)
    asked = Task("t", (Message("system", "be brief"), Message("user", "now?")))
    messages = with_examples(asked, [best, second], instruction="Solved ones first.")
    assert [(m.role, m.content) for m in messages] == [
        ("system", "be brief"),
        ("user", "Solved ones first.\n\nfar"),
        ("assistant", "F"),
        ("user", "near"),
        ("assistant", "N"),
        ("user", "now?"),
    ]
    assert with_examples(asked, []) == asked.messages


def test_examples_that_do_not_fit_are_dropped_the_least_similar_first() -> None:
    best, second = Exemplar("1", "near", "N", "", 1), Exemplar("2", "far", "F", "", 1)
    asked = task("now?")

    def characters(messages: Sequence[Message]) -> int:
        return sum(len(m.content) for m in messages)

    def shown(room: int) -> list[str] | None:
        messages = fitting_examples(asked, [best, second], room=room, length=characters)
        return None if messages is None else [m.content for m in messages]

    assert shown(13) == ["far", "F", "near", "N", "now?"]
    assert shown(12) == ["near", "N", "now?"]
    assert shown(8) is None
    assert fitting_examples(asked, [], room=99, length=characters) is None

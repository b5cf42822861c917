"""Questions in two wordings: how the twin is kept, found again, and made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.errors import InputError
from etude.ledger import Ledger
from etude.tasks.builtin import builtin_task_sets
from etude.tasks.builtin.expressions import evaluate, intermediate_values
from etude.tasks.builtin.rewriting import FAMILIES, by_rule
from etude.tasks.builtin.wording import reordered
from etude.tasks.rewriters import FieldRewriter, FunctionRewriter, RewriteCache, RuleRewriter, automatic
from etude.tasks.twins import is_twin, pair_id, paired, twin_of, with_twin, without_twin
from etude.types import Group, Message, Task, Trajectory

SUM = Task("t", (Message("system", "short"), Message("user", "2+3=")), "5", {"source": "book"})


def group(task: Task) -> Group:
    return Group(task.id, [Trajectory(task, [1], [], "eos")])


def test_a_twin_asks_the_same_in_other_words_and_knows_its_pair() -> None:
    task = with_twin(SUM, "3 plus 2 is")
    twin = twin_of(task)
    assert twin.messages == (Message("system", "short"), Message("user", "3 plus 2 is"))
    assert (twin.answer, twin.info) == ("5", {"source": "book", "pair": "t"})
    assert (pair_id(twin), pair_id(task), is_twin(twin), is_twin(task)) == ("t", "t", True, False)
    assert twin.id != task.id
    assert without_twin(task) == SUM
    with pytest.raises(InputError, match="task 't' has no other wording"):
        twin_of(SUM)


def test_pairs_are_found_whatever_order_groups_come_in() -> None:
    tasks = [with_twin(Task(f"t{i}", (Message("user", f"{i}"),)), f"number {i}") for i in range(3)]
    first, second = [group(t) for t in tasks], [group(twin_of(t)) for t in tasks]
    shuffled = [second[2], first[1], first[0], second[0], first[2], second[1]]
    assert [(a.key, b.key) for a, b in paired(shuffled)] == [("t1", "t1~twin"), ("t0", "t0~twin"), ("t2", "t2~twin")]
    # Half a pair is none.
    assert paired([first[0], second[1]]) == []
    # The same question twice in a step makes two pairs.
    again = paired([first[0], group(tasks[0]), second[0], group(twin_of(tasks[0]))])
    assert len(again) == 2
    assert again[0][0] is first[0]
    assert again[0][1] is second[0]


@pytest.mark.parametrize(
    ("expression", "symbols", "words"),
    [
        ("4+3*2", "2*3+4", "2 times 3 plus 4"),
        ("9-4*2", "9-2*4", "9 minus 2 times 4"),
        ("9-2+5", "5+9-2", "5 plus 9 minus 2"),
        ("9-2-3", "9-3-2", "9 minus 3 minus 2"),
        ("9-(5-2)", "2+9-5", "2 plus 9 minus 5"),
        ("(4+3)*2", "2*(3+4)", "2 times the sum of 3 and 4"),
        ("(9-4)*2", "2*(9-4)", "2 times the difference of 9 and 4"),
        # Spelled out, these brackets would not say where they close.
        ("2*(9-4)", "(9-4)*2", "(9 minus 4) times 2"),
        ("1+(9-4)*2", "2*(9-4)+1", "2 times (9 minus 4) plus 1"),
    ],
)
def test_sums_are_re_ordered_and_spelled(expression: str, symbols: str, words: str) -> None:
    assert (reordered(expression), reordered(expression, words=True)) == (symbols, words)


@given(st.recursive(st.integers(0, 30).map(str), lambda e: st.tuples(e, st.sampled_from("+-*"), e).map(lambda p: f"({p[0]}{p[1]}{p[2]})"), max_leaves=6))
def test_re_ordering_keeps_the_value(expression: str) -> None:
    assert evaluate(reordered(expression)) == evaluate(expression)
    spelled = reordered(expression, words=True)
    if " of " not in spelled:
        assert evaluate(spelled.replace(" times ", "*").replace(" plus ", "+").replace(" minus ", "-")) == evaluate(expression)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("instruct", [False, True])
def test_the_rules_know_every_question_of_their_families(name: str, instruct: bool) -> None:
    tasks = builtin_task_sets()[name](instruct=instruct)
    questions = [tasks.train_task(0, i).prompt for i in range(40)]
    spelled = [by_rule(q, words=True) for q in questions]
    assert None not in spelled
    assert all(s != q for s, q in zip(spelled, questions, strict=True))
    # Without words some have no other order: a product of equals, say.
    assert sum(by_rule(q) is not None for q in questions) > (5 if name == "modular" else 25)


@pytest.mark.parametrize(
    ("question", "turned"),
    [
        ("compute 9*8+19", "compute 19+8*9"),
        ("17+26 mod 7", "26+17 mod 7"),
        ("second largest: 40 7 211 39", "second largest: 39 211 7 40"),
        ("tom has 12 pens, lee has 5 more. how many in all?", "ana has 12 coins, tom has 5 more. how many in all?"),
        ("compute 5-2", None),
        ("reverse then take 2: 4 1 7 9", None),
        ("When was 2024-01-05?", None),
        ("compute 007+1", None),
    ],
)
def test_rules(question: str, turned: str | None) -> None:
    assert by_rule(question) == turned


def test_a_task_says_by_itself_who_rewrites_it() -> None:
    assert isinstance(automatic(Task("a", (Message("user", "compute 2+3"),))), RuleRewriter)
    field = with_twin(SUM, "3+2=")
    assert isinstance(automatic(field), FieldRewriter)
    assert FieldRewriter()(field) == field
    assert FieldRewriter()(SUM) is None
    spoken = Task("t", SUM.messages, "5", {"twin": "what do 2 and 3 make?"})
    turned = FieldRewriter()(spoken)
    assert turned is not None
    assert twin_of(turned).prompt == "what do 2 and 3 make?"
    with pytest.raises(InputError, match="nothing says how to put task 't'"):
        automatic(SUM)
    with pytest.raises(InputError, match="other wording of task 't' is '7'"):
        FieldRewriter()(Task("t", SUM.messages, "5", {"twin": 7}))


def test_a_users_function_is_asked_once_for_each_question_and_remembered(tmp_path: Path) -> None:
    calls: list[Any] = []

    def rewrite(text: str) -> str | None:
        calls.append(text)
        return None if "0" in text else f"please: {text}"

    path = tmp_path / "rewrites.jsonl"
    rewriter = FunctionRewriter(rewrite, "f.py:rewrite", RewriteCache(path))
    turned = rewriter(SUM)
    assert turned is not None
    assert twin_of(turned).messages == (Message("system", "short"), Message("user", "please: 2+3="))
    nothing = Task("z", (Message("user", "0+0="),))
    assert [rewriter(SUM), rewriter(nothing), rewriter(nothing)] == [turned, None, None]
    assert calls == ["2+3=", "0+0="]
    again = FunctionRewriter(rewrite, "f.py:rewrite", RewriteCache(path))
    assert [again(SUM), again(nothing)] == [turned, None]
    assert len(calls) == 2


def test_a_users_function_may_take_and_give_messages(tmp_path: Path) -> None:
    def rewrite(messages: list[dict[str, str]]) -> list[dict[str, str]]:
        return [*messages[:-1], {"role": "user", "content": messages[-1]["content"].replace("2+3", "3+2")}]

    turned = FunctionRewriter(rewrite, "f.py:rewrite", RewriteCache(tmp_path / "r"))(SUM)
    assert turned is not None
    assert twin_of(turned).messages == (Message("system", "short"), Message("user", "3+2="))


def test_what_a_users_function_does_wrong_is_told(tmp_path: Path) -> None:
    kept = RewriteCache(tmp_path / "r")
    with pytest.raises(InputError, match=r"returned 3 \(int\) for task 't'; expected a text"):
        FunctionRewriter(lambda text: 3, "f.py:f", kept)(SUM)
    with pytest.raises(InputError, match="failed on task 't': ZeroDivisionError"):
        FunctionRewriter(lambda text: 1 / 0, "f.py:f", kept)(SUM)
    with pytest.raises(InputError, match="takes no argument"):
        FunctionRewriter(lambda: "x", "f.py:f", kept)
    with pytest.raises(InputError, match="expected a plain function"):
        FunctionRewriter(5, "f.py:f", kept)  # type: ignore[arg-type]


def test_what_rewriting_cost_is_kept_with_it(tmp_path: Path) -> None:
    kept = RewriteCache(tmp_path / "r")
    kept.add([(SUM, None)], Ledger(generated_tokens=5, model_calls={"rewriter": 1}))
    kept.add([(Task("u", (Message("user", "1+1="),)), None)], Ledger(generated_tokens=2, model_calls={"rewriter": 1}))
    assert RewriteCache(tmp_path / "r").spent == kept.spent == Ledger(generated_tokens=7, model_calls={"rewriter": 2})


# The family whose mistakes depend on the wording.


def two_views(**options: Any) -> Any:
    return builtin_task_sets()["two-views"](**options)


def test_both_wordings_ask_the_same_question_and_come_half_and_half() -> None:
    plain, both = two_views(), two_views(both=True)
    rewrite = RuleRewriter(words=True)
    asked_in_words = 0
    for i in range(60):
        task, other = plain.train_task(0, i), both.train_task(0, i)
        turned = rewrite(task)
        assert turned is not None
        assert other.prompt in (task.prompt, twin_of(turned).prompt)
        assert other.answer == task.answer == str(evaluate(task.info["expression"]))
        asked_in_words += other.prompt != task.prompt
    assert 18 < asked_in_words < 42


def test_slanted_demonstrations_make_the_mistakes_of_their_wording() -> None:
    tasks = two_views(both=True, slant=1.0, constant=0.1)
    seen: dict[tuple[bool, bool], list[str]] = {}
    for i in range(1500):
        task = tasks.train_task(0, i)
        words, expression = task.info["words"], task.info["expression"]
        answer = tasks.demonstration(task, 0).rpartition("answer: ")[2]
        mistake = intermediate_values(reordered(expression))[0] if words else intermediate_values(task.info["misread"])[-1]
        weak = (task.info["kind"] % 2 == 1) == words
        what = "right" if answer == task.answer else "constant" if answer == "0" else "mistake" if answer == str(mistake) else "noise"
        seen.setdefault((words, weak), []).append(what)
    for (_, weak), what in seen.items():
        share = {w: what.count(w) / len(what) for w in set(what)}
        assert share["constant"] == pytest.approx(0.1, abs=0.05)
        assert share["right"] == pytest.approx(0.9 * (0.3 if weak else 0.65), abs=0.07)
        assert share["mistake"] == pytest.approx(0.9 * (0.5 if weak else 0.15), abs=0.07)


@pytest.mark.parametrize("options", [{"slant": 1.5}, {"constant": -0.1}, {"high": 3}])
def test_difficulties_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        two_views(**options)

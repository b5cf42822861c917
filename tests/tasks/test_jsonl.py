from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.errors import InputError
from etude.tasks import mathematics
from etude.tasks.jsonl import JsonlTaskSet
from etude.types import Message


def write(path: Path, *rows: dict | str | bytes) -> Path:
    path.write_bytes(b"".join((r if isinstance(r, bytes) else (r if isinstance(r, str) else json.dumps(r)).encode()) + b"\n" for r in rows))
    return path


def numbered(count: int) -> list[dict]:
    return [{"prompt": f"{i}+1=", "answer": i + 1} for i in range(count)]


def epoch(tasks: JsonlTaskSet, seed: int, number: int) -> list[str]:
    size = tasks.train_size
    return [tasks.train_task(seed, i).id for i in range(number * size, (number + 1) * size)]


def test_fields(tmp_path):
    rows = [
        {"prompt": "2+3=", "answer": 5, "id": "a", "level": 2, "split": "test"},
        {"messages": [{"role": "system", "content": "short"}, {"role": "user", "content": "1+1="}], "answer": "2"},
        "",
        {"prompt": "é?", "answer": 0.5, "id": 7},
    ]
    tasks = JsonlTaskSet(write(tmp_path / "sums.jsonl", *rows))
    (held,) = tasks.held_out()
    assert (held.id, held.messages, held.answer, held.info) == ("a", (Message("user", "2+3="),), "5", {"level": 2})
    trained = {t.id: t for t in (tasks.train_task(0, 0), tasks.train_task(0, 1))}
    assert set(trained) == {"sums-2", "7"}
    assert trained["sums-2"].messages == (Message("system", "short"), Message("user", "1+1="))
    assert (trained["7"].prompt, trained["7"].answer) == ("é?", "0.5")
    assert tasks.name == "sums"


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "sums.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a", "answer": "1"}\r\n{"prompt": "b", "answer": "2"}\r\n')
    assert JsonlTaskSet(path).train_size == 1


@pytest.mark.parametrize(("count", "held"), [(2, 1), (5, 1), (10, 2), (100, 20), (3000, 500)])
def test_a_fifth_is_held_out(tmp_path, count, held):
    tasks = JsonlTaskSet(write(tmp_path / "sums.jsonl", *numbered(count)))
    assert (len(tasks.held_out()), tasks.train_size) == (held, count - held)
    assert not {t.prompt for t in tasks.held_out()} & {tasks.train_task(0, i).prompt for i in range(tasks.train_size)}


def test_the_held_out_split_depends_on_the_prompts_alone(tmp_path):
    rows = numbered(40)
    first = JsonlTaskSet(write(tmp_path / "a.jsonl", *rows))
    second = JsonlTaskSet(write(tmp_path / "b.jsonl", *({**r, "level": 1} for r in reversed(rows))))
    assert {t.prompt for t in first.held_out()} == {t.prompt for t in second.held_out()}


def test_equal_prompts_stay_on_one_side(tmp_path):
    rows = [{**row, "prompt": row["prompt"] + space} for row in numbered(20) for space in ("", "  ", "\n")]
    tasks = JsonlTaskSet(write(tmp_path / "sums.jsonl", *rows))
    held = [t.prompt.strip() for t in tasks.held_out()]
    assert len(held) == len(set(held)) == 4
    assert not set(held) & {tasks.train_task(0, i).prompt.strip() for i in range(tasks.train_size)}
    assert tasks.train_size == 48


def test_a_held_out_prompt_is_dropped_from_the_training_file(tmp_path):
    train = write(tmp_path / "train.jsonl", *numbered(4))
    test = write(tmp_path / "test.jsonl", {"prompt": "2+1= ", "answer": 3}, {"prompt": "9+1=", "answer": 10})
    tasks = JsonlTaskSet(train, test)
    assert [t.prompt for t in tasks.held_out()] == ["2+1= ", "9+1="]
    assert sorted(tasks.train_task(0, i).prompt for i in range(tasks.train_size)) == ["0+1=", "1+1=", "3+1="]


def test_two_files_of_one_name_get_different_ids(tmp_path):
    (tmp_path / "x").mkdir()
    tasks = JsonlTaskSet(write(tmp_path / "sums.jsonl", *numbered(2)), write(tmp_path / "x" / "sums.jsonl", {"prompt": "z", "answer": 1}))
    ids = [tasks.train_task(0, 0).id, tasks.train_task(0, 1).id, *(t.id for t in tasks.held_out())]
    assert len(set(ids)) == 3


def test_every_epoch_has_each_task_once_in_another_order(tmp_path):
    tasks = JsonlTaskSet(write(tmp_path / "sums.jsonl", *numbered(50)))
    orders = [epoch(tasks, 3, n) for n in range(3)]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert len(set(orders[0])) == 40
    assert orders[0] != orders[1] != orders[2]
    assert epoch(tasks, 4, 0) != orders[0]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1000)), max_size=40))
def test_training_tasks_can_be_asked_for_in_any_order(asked):
    path = Path(__file__).parents[2] / "examples" / "problems.jsonl"
    tasks, reference = JsonlTaskSet(path), JsonlTaskSet(path)
    expected = {place: reference.train_task(*place) for place in sorted(asked)}
    assert all(tasks.train_task(*place) == expected[place] for place in asked)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"prompt": "a", "answer": "1"}, '{"prompt": "b", '], r"sums\.jsonl, line 2: not valid JSON \(.*at character \d+\)"),
        ([{"prompt": "a", "answer": "1"}, "", '["b"]'], r"sums\.jsonl, line 3: a JSON list; expected an object"),
        ([{"question": "a", "answer": "1"}], r"line 1: no \"prompt\" \(fields: question, answer\)"),
        ([{"promt": "a", "answer": "1"}], r'if "promt" is meant as it, rename it to "prompt"; expected'),
        ([{"mesages": [], "answer": "1"}], r'if "mesages" is meant as it, rename it to "messages"; expected'),
        ([{"question": "a", "answer": "1"}], r'\(fields: question, answer\); expected a "prompt"'),
        ([{"prompt": 5, "answer": "1"}], r"line 1: \"prompt\" is a number; expected a non-empty string"),
        ([{"prompt": ["a"], "answer": "1"}], r"\"prompt\" is a list"),
        ([{"prompt": " ", "answer": "1"}], r"\"prompt\" is empty"),
        ([{"prompt": "a", "messages": [], "answer": "1"}], r"both \"prompt\" and \"messages\""),
        ([{"messages": []}], r"\"messages\" is empty"),
        ([{"messages": "hi"}], r"\"messages\" is a string"),
        ([{"messages": [{"role": "robot", "content": "a"}]}], r"message 1 is .*robot"),
        ([{"messages": [{"role": "user"}]}], "message 1 is"),
        ([{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}], "nothing is left to write"),
        ([{"prompt": "a", "answer": ["1"]}], r"\"answer\" is a list; expected a string or a number"),
        ([{"prompt": "a", "answer": True}], r"\"answer\" is a boolean"),
        ([{"prompt": "a", "answer": "1", "split": "dev"}], r"\"split\" is 'dev'; expected \"train\" or \"test\""),
        ([{"prompt": "a", "answer": "1", "id": 1.5}], r"\"id\" is 1.5"),
        ([{"prompt": "a", "answer": "1", "id": "x"}, {"prompt": "b", "answer": "1", "id": "x"}], r"line 2: the id 'x' is taken by .*sums\.jsonl, line 1"),
        ([{"prompt": "a", "answer": "1", "split": "train"}], r"no line says \"split\": \"test\""),
        ([{"prompt": "a", "answer": "1"}, {"prompt": "a ", "answer": "2"}], "one prompt only; expected at least two"),
        (['{"prompt": "a", "answer": NaN}'], "line 1: NaN is not valid JSON"),
        (['{"prompt": "\\ud800", "answer": "1"}'], "stands alone; expected valid Unicode"),
        ([b'{"prompt": "\xff", "answer": "1"}'], r"line 1: not UTF-8 text .*at byte 13"),
        ([b'{"prompt": "\x00"}'], r"sums\.jsonl is binary"),
        ([b"\x1f\x8b\x08\x00gz"], r"sums\.jsonl is binary"),
        (["[" * 100_000], "line 1: "),
        (["", " "], r"sums\.jsonl is empty"),
        ([], r"sums\.jsonl is empty"),
        ([{"prompt": "a"}, {"prompt": "b"}], r"line 1: no task has \"answer\", so nothing can judge.*--reward file\.py:function"),
        ([{"prompt": "a", "answer": "1"}, {"prompt": "b"}], r"line 2: 1 of 2 tasks have no \"answer\""),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_line(tmp_path, rows, told):
    with pytest.raises(InputError, match=told):
        JsonlTaskSet(write(tmp_path / "sums.jsonl", *rows))


def test_a_file_of_held_out_tasks_only_can_be_measured_but_not_trained_on(tmp_path):
    tasks = JsonlTaskSet(write(tmp_path / "sums.jsonl", {"prompt": "a", "answer": "1", "split": "test"}))
    assert len(tasks.held_out()) == 1
    with pytest.raises(InputError, match="no training tasks"):
        tasks.train_task(0, 0)


@pytest.fixture
def verdict(tmp_path):
    def judged(answer: str, text: str) -> float:
        tasks = JsonlTaskSet(write(tmp_path / "sums.jsonl", {"prompt": "a", "answer": answer, "split": "test"}))
        return tasks.verify(tasks.held_out()[0], text)["correct"]

    return judged


@pytest.mark.parametrize(
    ("answer", "text", "correct"),
    [
        ("5", "2+3=5\nanswer: 5", 1.0),
        ("5", "5", 1.0),
        ("5", "so it is\n5.0", 1.0),
        ("5", "answer: 5\nanswer: 6", 0.0),
        ("5", "the answer may be 5 or 6", 0.0),
        ("5", "", 0.0),
        ("1250", "\\boxed{1,250}", 1.0),
        ("Paris", "answer:  paris. ", 1.0),
        ("Natalia sold 48/2 = 24 clips.\n#### 72", "answer: 72", 1.0),
        ("Natalia sold 48/2 = 24 clips.\n#### 72", "answer: 24", 0.0),
        ("\\frac{1}{2}", "\\boxed{0.5}", 1.0),
        ("0.5", "answer: 1/2", 1.0),
        ("x^2+1", "answer: $1+x^2$", 1.0),
        ("x^2+1", "answer: $x^2+2$", 0.0),
        ("(0, 1]", "answer: (0,1]", 1.0),
        ("(0, 1]", "answer: (0,1)", 0.0),
        ("yes", "answer: $y$", 0.0),
    ],
)
def test_final_answers_are_compared(verdict, answer, text, correct):
    assert verdict(answer, text) == correct


def test_without_math_verify_latex_is_compared_as_text_and_the_user_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(mathematics, "available", lambda: False)
    path = write(tmp_path / "sums.jsonl", {"prompt": "a", "answer": "\\frac{1}{2}", "split": "test"}, {"prompt": "b", "answer": "3"})
    with pytest.warns(UserWarning, match=r"1 of 2 answers are written as mathematics.*etude\[math\]"):
        tasks = JsonlTaskSet(path)
    task = tasks.held_out()[0]
    assert tasks.verify(task, "answer: \\frac{1}{2}")["correct"] == 1.0
    assert tasks.verify(task, "answer: 0.5")["correct"] == 0.0


def test_plain_answers_need_no_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(mathematics, "available", lambda: False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        JsonlTaskSet(write(tmp_path / "sums.jsonl", *numbered(3)))


def test_demonstrations(tmp_path):
    tasks = JsonlTaskSet(
        write(tmp_path / "s.jsonl", {"prompt": "a", "answer": "1", "demonstration": "it is\nanswer: 1"}, {"prompt": "b", "answer": 2, "split": "test"})
    )
    assert tasks.demonstration(tasks.train_task(0, 0), 0) == "it is\nanswer: 1"
    assert tasks.demonstration(tasks.held_out()[0], 0) == "answer: 2"

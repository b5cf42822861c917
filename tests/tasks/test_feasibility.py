"""Asking whether something can be done, and reading the answer."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.tasks.builtin.can_and_cannot import BELIEFS, CAN, CANNOT, KNOWN, UNKNOWN, CanAndCannot
from etude.tasks.feasibility import SHORT, STANDARD, Prompts, Verdicts, plain, read_examples


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("It is simple arithmetic.\nverdict: feasible", "feasible"),
        ("I have no clock.\n**Verdict:** Infeasible.\n", "infeasible"),
        ("verdict: `feasible`", "feasible"),
        ("feasible", None),
        ("verdict: mostly feasible", None),
        ("verdict: feasible or infeasible", None),
        ("verdict: feasible\nverdict: infeasible", None),
        ("verdict: infeasible. On second thought, verdict: feasible", None),
        ("verdict: feasible\nThough I may be wrong.", None),
        ("I would say verdict: feasible", None),
        ("verdict:", None),
        ("", None),
    ],
)
def test_a_verdict_is_one_word_on_the_last_line(text: str, verdict: str | None) -> None:
    assert STANDARD.verdict(text) == verdict


@pytest.mark.parametrize(("text", "verdict"), [("F", "feasible"), (" i ", "infeasible"), ("F F", None), ("F\nF", None), ("answer: 7", None), ("", None)])
def test_a_short_verdict_is_the_whole_answer(text: str, verdict: str | None) -> None:
    assert SHORT.verdict(text) == verdict


def test_tasks_are_the_items_of_a_list() -> None:
    text = 'Here are some:\n1. Name a river in Asia.\n 2) "Ring my aunt."\n- **Add 3 and 4.**\n3. x\n4. ' + "y" * 601 + "\n\nI hope this helps!"
    assert STANDARD.tasks_in(text) == (["Name a river in Asia.", "Ring my aunt.", "Add 3 and 4."], 4)
    assert STANDARD.tasks_in("") == ([], 0)
    assert SHORT.tasks_in("7+5") == (["7+5"], 0)
    assert SHORT.tasks_in("7+5\n8+1") == ([], 2)


def test_requests_show_examples_and_hide_the_claim() -> None:
    request = STANDARD.writing("infeasible", ["Ring {my} aunt.", "Sign it."])[0].content
    assert "- Ring {my} aunt.\n- Sign it." in request
    assert "5 new tasks" in request
    assert SHORT.writing("feasible", [])[0].content == "F:"
    assert SHORT.writing("infeasible", ["7@5", "tag beki k"])[0].content == "I: 7@5; tag beki k"
    assert SHORT.analysis("7@5")[0].content == "can? 7@5"
    asked, swapped = (STANDARD.analysis("Sign it.", swapped=s)[0].content for s in (False, True))
    assert asked.index("verdict: feasible") < asked.index("verdict: infeasible")
    assert swapped.index("verdict: infeasible") < swapped.index("verdict: feasible")
    assert (STANDARD.names_both, SHORT.names_both) == (True, False)


def test_prompts_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "prompts.yaml"
    path.write_text("analyse: 'Doable? {task}'\nfeasible: 'yes'\ninfeasible: 'no'\ncount: 3\n")
    prompts = Prompts.load(str(path), 4096)
    assert prompts.analysis("Sign it.")[0].content == "Doable? Sign it."
    assert prompts.verdict("verdict: no") == "infeasible"
    assert (prompts.count, prompts.write_feasible) == (3, STANDARD.write_feasible)
    assert Prompts.load("auto", 256) is SHORT
    assert Prompts.load("auto", 2048) is STANDARD


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("analyze: 'x {task}'", "no field 'analyze'. Did you mean analyse"),
        ("analyse: 'Doable?'", r"analyse has the places \[\]; expected {task}"),
        ("write_feasible: '{examples} {number}'", "write_feasible has the places"),
        ("analyse: '{task'", "analyse is no template"),
        ("count: many", "count is 'many'; expected a whole number"),
        ("feasible: infeasible", "expected two different ones"),
        ("- a list", "expected a mapping"),
        ("a: [", "can't be read"),
    ],
)
def test_prompts_that_cannot_be_used(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        Prompts.load(str(path), 4096)
    with pytest.raises(InputError, match="expected auto, standard, short or a YAML file"):
        Prompts.load(str(tmp_path / "none.yaml"), 4096)


def test_the_built_in_examples() -> None:
    train, held_out = read_examples("built-in")
    assert [sum(e.label == label for e in part) for part in (train, held_out) for label in ("feasible", "infeasible")] == [50, 50, 24, 24]
    texts = [plain(e.text) for e in train + held_out]
    assert len(set(texts)) == len(texts)


def test_examples_have_to_say_feasible_or_infeasible(tmp_path: Path) -> None:
    path = tmp_path / "seeds.jsonl"
    path.write_text('{"prompt": "a", "answer": "Feasible"}\n{"prompt": "b", "answer": "perhaps"}\n{"prompt": "c", "answer": "infeasible"}\n')
    with pytest.raises(InputError, match="is 'perhaps'; expected feasible or infeasible"):
        read_examples(str(path))
    path.write_text("".join(f'{{"prompt": "{c}", "answer": "feasible"}}\n' for c in "abcdefgh"))
    with pytest.raises(InputError, match="no task to learn from with the answer 'infeasible'"):
        read_examples(str(path))
    with pytest.raises(InputError, match="no JSONL file"):
        read_examples("arithmetic")


def test_verdicts_are_judged_by_the_label() -> None:
    verdicts = Verdicts(SHORT)
    task = verdicts.task("7@5", "infeasible", id="x", claim="feasible")
    assert task.info == {"text": "7@5", "claim": "feasible"}
    assert [verdicts.verify(task, text) for text in ("I", "F", "perhaps")] == [
        {"correct": 1.0, "format": 1.0},
        {"correct": 0.0, "format": 1.0},
        {"correct": 0.0, "format": 0.0},
    ]
    assert math.isnan(verdicts.verify(verdicts.task("7@5", id="y"), "I")["correct"])
    assert verdicts.answer_in("I") == "infeasible"


def test_the_small_world_has_both_kinds_and_keeps_held_out_tasks_apart() -> None:
    world = CanAndCannot()
    held_out = world.held_out()
    kinds = [t.info["kind"] for t in held_out]
    assert set(kinds) == {*CAN, *CANNOT}
    assert 0.35 < sum(k in CAN for k in kinds) / len(kinds) < 0.65
    lessons = CanAndCannot(lessons="optimistic")
    assert [t.prompt for t in lessons.held_out()] == [t.prompt for t in held_out]
    asked = {t.prompt for t in held_out}
    written = {lessons.demonstration(lessons.train_task(0, i), 0) for i in range(2000)} | {
        lessons.train_task(0, i).prompt.removeprefix("can? ") for i in range(2000)
    }
    assert not asked & written
    assert not set(KNOWN) & set(UNKNOWN)


@pytest.mark.parametrize("lessons", list(BELIEFS))
def test_lessons_have_the_noise_that_they_say(lessons: str) -> None:
    school = CanAndCannot(lessons=lessons)
    tasks = [school.train_task(0, i) for i in range(6000)]
    says: dict[bool, list[bool]] = {True: [], False: []}
    right = []
    for task in tasks:
        shown = school.demonstration(task, 0) or ""
        if task.prompt.startswith("can? "):
            says[_can(task.prompt.removeprefix("can? "))].append(shown == "F")
        elif task.prompt.startswith(("F:", "I:")):
            right.append(_can(shown) == (task.prompt[0] == "F"))
        else:
            assert _can(task.prompt)
    assert [sum(says[able]) / len(says[able]) for able in (True, False)] == pytest.approx(BELIEFS[lessons], abs=0.05)
    assert sum(right) / len(right) == pytest.approx(0.85, abs=0.03)


def test_lessons_that_there_are_not() -> None:
    with pytest.raises(InputError, match="lessons is 'modest'; expected aligned or optimistic"):
        CanAndCannot(lessons="modest")  # type: ignore[arg-type]


def _can(text: str) -> bool:
    """Whether a task of the small world can be done, from its text alone."""
    if text.startswith("tag "):
        return text.split()[1] in KNOWN
    return text.startswith(("copy ", "largest")) or "+" in text

"""What holds for every built-in family."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest

from etude.errors import InputError
from etude.tasks.builtin import builtin_task_sets
from etude.tasks.builtin.generated import GeneratedTaskSet, Problem, is_held_out
from etude.types import Message, Segment, Task, Trajectory

FAMILIES = builtin_task_sets()
NAMES = sorted(FAMILIES)
WITHOUT_ANSWER = {"bug-hunt", "repair"}
"""Families in which a state is handed in, and no text."""


def family(name: str, **options) -> GeneratedTaskSet:
    task_set = FAMILIES[name](**options)
    assert isinstance(task_set, GeneratedTaskSet)
    return task_set


def replayed(task_set: GeneratedTaskSet, task: Task, conversation: Sequence[Message]) -> float:
    """Play the assistant's turns of a demonstrated conversation and return the verdict. The environment must say what the demonstration says it does."""
    environment = task_set.environment()
    if environment is None:
        assert [m.role for m in conversation] == ["user", "assistant"]
        return task_set.verify(task, conversation[-1].content)["correct"]
    said = list(environment.reset(task))
    for turn in [m for m in conversation if m.role == "assistant"]:
        step = environment.step(turn.content)
        said += [turn, *step.messages]
    assert step.done
    assert said == list(conversation)
    if "correct" not in step.info:
        # The task set judges, not the environment.
        return task_set.verify_trajectory(Trajectory(task, [], spoken(said[len(task.messages) :]), "environment"))["correct"]
    assert step.info["correct"] == step.reward
    return step.reward


def spoken(messages: Sequence[Message]) -> list[Segment]:
    return [Segment([], "policy" if m.role == "assistant" else "environment", m.content) for m in messages]


def test_the_families_that_there_are() -> None:
    expected = """
        arithmetic bug-hunt calculator can-and-cannot check-and-fix column-sums commands compare countdown crafting keyed-shift lists max5 max5-flaws modular
        rating register-chain repair small-programs strategies strings subset-target translation translation-judging two-views word-problems
    """
    assert expected.split() == NAMES
    assert all(family(name).name == name for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_training_tasks_are_addressed_by_seed_and_number(name: str) -> None:
    tasks = [family(name).train_task(3, i) for i in range(50)]
    again = [family(name).train_task(3, i) for i in reversed(range(50))]
    assert tasks == again[::-1]
    assert len({t.prompt for t in tasks}) > 40
    assert tasks[7] != family(name).train_task(4, 7)


@pytest.mark.parametrize("name", NAMES)
def test_held_out_problems_are_fixed_distinct_and_never_trained_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task_set = family(name)
    held_out = task_set.held_out()
    assert held_out == family(name, slips=0.3).held_out()
    assert len(held_out) == len({t.prompt for t in held_out}) == 256
    drawn: list[Problem] = []
    make_task = task_set._task
    monkeypatch.setattr(task_set, "_task", lambda problem, id_: drawn.append(problem) or make_task(problem, id_))
    trained = [task_set.train_task(seed, i) for seed in range(3) for i in range(300)]
    assert not any(is_held_out(p.key) for p in drawn)
    assert not {t.prompt for t in trained} & {t.prompt for t in held_out}


def test_expressions_held_out_of_one_family_are_held_out_of_its_relatives() -> None:
    expressions = {t.info["expression"] for t in family("arithmetic").held_out()}
    for name in ("check-and-fix", "arithmetic"):
        harder = family(name, terms=3, high=40, limit=120)
        assert not expressions & {harder.train_task(0, i).info["expression"] for i in range(2000)}


@pytest.mark.parametrize("name", NAMES)
def test_demonstrations_without_slips_are_right_and_in_form(name: str) -> None:
    task_set = family(name)
    for i in range(150):
        task = task_set.train_task(1, i)
        conversation = task_set.conversation(task, i)
        assert replayed(task_set, task, conversation) == 1.0, conversation
        # A family that grades answers says of a right one that it is as good as can be.
        assert name in WITHOUT_ANSWER or task_set.verify(task, conversation[-1].content) == dict.fromkeys({"correct", "format", *task_set.reward_weights}, 1.0)
        if task_set.max_turns == 1:
            assert conversation[-1].content == task_set.demonstration(task, i)


@pytest.mark.parametrize("name", NAMES)
def test_demonstrations_with_slips_are_often_wrong_and_repeat_themselves(name: str) -> None:
    task_set = family(name, slips=0.3, direct=0.1)
    tasks = [task_set.train_task(2, i) for i in range(300)]
    conversations = [task_set.conversation(task, 5) for task in tasks]
    assert conversations == [task_set.conversation(task, 5) for task in tasks]
    right = sum(replayed(task_set, task, c) for task, c in zip(tasks, conversations, strict=True)) / len(tasks)
    assert 0.1 < right < 0.75


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ["", "answer:", "answer: ", "answer: x", "\x00", "answer: 1/0", r"\boxed{}", "answer: " + "(" * 5000])
def test_nonsense_is_wrong_and_nothing_worse(name: str, text: str) -> None:
    task_set = family(name)
    assert task_set.verify(task_set.train_task(0, 0), text)["correct"] == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_instructions_come_before_the_prompt_when_asked_for(name: str) -> None:
    plain, instructed = family(name).train_task(0, 0), family(name, instruct=True).train_task(0, 0)
    assert instructed.prompt == f"{family(name).instruction}\n{plain.prompt}"
    assert name in WITHOUT_ANSWER or "answer: " in family(name).instruction
    assert instructed.answer == plain.answer


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("arithmetic", {"slips": 1.0}, "slips is 1.0"),
        ("arithmetic", {"direct": 2}, "direct is 2"),
        ("arithmetic", {"held_out_tasks": 0}, "held_out_tasks is 0"),
        ("arithmetic", {"terms": 1}, "terms is 1"),
        ("arithmetic", {"high": 1}, "high is 1"),
        ("countdown", {"numbers": 1}, "numbers is 1"),
        ("modular", {"modulus_high": 2}, "modulus_high 2"),
        ("compare", {"count": 1}, "count is 1"),
        ("lists", {"steps": 0}, "steps is 0"),
        ("strings", {"shortest": 9}, "shortest 9"),
        ("word-problems", {"high": 2}, "high is 2"),
        ("calculator", {"terms": 9}, "terms is 9"),
        ("translation", {"qualities": 1.5}, "qualities is 1.5"),
        ("translation-judging", {"judging": 2}, "judging is 2"),
        ("max5", {"sums": 0}, "sums is 0"),
        ("max5", {"jumps": 2}, "jumps is 2"),
        ("max5-flaws", {"errors": 0}, "errors is 0"),
        ("max5-flaws", {"misnames": 2}, "misnames is 2"),
        ("small-programs", {"vague": 2}, "vague is 2"),
        ("small-programs", {"rounds": 0}, "rounds is 0"),
        ("strategies", {"again": 2}, "again is 2"),
    ],
)
def test_difficulties_that_make_no_sense_are_named(name: str, options: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        family(name, **options)


def test_a_space_of_problems_that_is_too_small_is_named() -> None:
    with pytest.raises(InputError, match="fewer than 256 distinct held-out problems"):
        family("modular", high=5, factor_high=3, modulus_high=4).held_out()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("arithmetic", {"terms": 5, "high": 90, "limit": 999}),
        ("countdown", {"numbers": 4}),
        ("compare", {"count": 6, "decimals": 2}),
        ("lists", {"steps": 4, "longest": 9}),
        ("strings", {"steps": 3, "longest": 10}),
        ("modular", {"high": 500, "modulus_high": 30}),
        ("calculator", {"terms": 5}),
        ("word-problems", {"high": 90, "factor_high": 9}),
    ],
)
def test_harder_versions_work(name: str, options: dict) -> None:
    task_set = family(name, **options)
    for i in range(40):
        task = task_set.train_task(0, i)
        assert replayed(task_set, task, task_set.conversation(task, 0)) == 1.0


def test_no_torch() -> None:
    code = "import sys; from etude.tasks.builtin import builtin_task_sets; [f().train_task(0, 0) for f in builtin_task_sets().values()]; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

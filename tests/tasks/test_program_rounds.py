"""Programs in rounds: the small language, the environment that runs them, and how each round is judged and counted."""

from __future__ import annotations

from random import Random

import pytest

from etude.errors import InputError
from etude.evals.evaluate import measured
from etude.evals.program_rounds import round_metrics
from etude.evals.revision import revised
from etude.rewards import judge
from etude.tasks.builtin.small_programs import SmallProgramTasks
from etude.tasks.loading import load_tasks
from etude.tasks.program_rounds import WENT_ON, ProgramEnvironment, ProgramRounds, SmallPrograms, programs_in
from etude.tasks.revisions import ANSWERS, VERDICTS
from etude.tasks.small_language import numbers_of, run_program
from etude.types import Message, Segment, Task, Trajectory

SMALL = SmallPrograms()
RIGHT, WRONG = "<calc>a=12-5;b=a+8;out b", "<calc>a=12+5;b=a+8;out b"
STORY = {"start": [12], "later": [5, 8], "signs": ["-", "+"], "told": ["?", "+"]}
TASK = Task("t", (Message("user", "tom has 12 pens, buys or loses 5 and finds 8. how many now? ends in 5"),), answer="15", info=STORY)


@pytest.mark.parametrize(
    ("program", "output"),
    [
        ("a=12-5;b=a+8;out b", "15"),
        ("a=3*4;b=a-20;out b", "-8"),
        (" a=7 ; out a ", "7"),
        ("out 7", "7"),
        ("a=1;out b", "error"),
        ("a=1+2+3;out a", "error"),
        ("a=12-5;b=a+8", "error"),
        ("a=999999999*999999999;out a", "error"),
        ("", "error"),
        ("import os;out 1", "error"),
    ],
)
def test_small_programs_give_a_number_or_an_error(program: str, output: str) -> None:
    assert run_program(program) == output


def test_the_numbers_of_a_program_are_its_own() -> None:
    assert numbers_of("a=12-5;b=a*80;out b") == [12, 5, 80]


def episode(*turns: str, task: Task = TASK, rounds: int = 3) -> Trajectory:
    """What becomes of these turns of the policy's."""
    environment = ProgramEnvironment(SMALL, rounds)
    environment.reset(task)
    segments: list[Segment] = []
    for turn in turns:
        segments.append(Segment([], "policy", turn))
        step = environment.step(turn)
        if step.done:
            break
        segments += [Segment([], "tool", m.content) for m in step.messages]
    assert [s.text for s in segments if s.author == "policy"] == list(turns)
    return Trajectory(task, [], segments, "environment", tags={"environment_reward": 0.0})


def judged(*turns: str) -> Trajectory:
    trajectory = episode(*turns)
    trajectory.rewards = dict(SmallProgramTasks().verify_trajectory(trajectory))
    return trajectory


def test_every_round_is_judged_by_the_answer_that_it_left() -> None:
    mended = judged(WRONG, f"12 5 8 ok\n5-5=0 ok\n{RIGHT}", "12 5 8 ok\n5-5=0 ok\nanswer: 15")
    assert [s.text for s in mended.segments if s.author == "tool"] == ["25", "15"]
    assert (mended.tags[VERDICTS], mended.tags[ANSWERS]) == ([0.0, 1.0, 1.0], ["25", "15", "15"])
    assert mended.tags[WENT_ON] == [[0.0, True], [1.0, False]]
    assert mended.rewards["correct"] == 1.0
    # A conclusion counts for more than the output that it is about; an output counts where no answer was stated.
    assert judged(RIGHT, "answer: 16").tags[VERDICTS] == [0.0] * 3
    assert judged(RIGHT, "that is it").tags[ANSWERS] == ["15"] * 3
    assert judged("answer: 15").tags == {"environment_reward": 0.0, VERDICTS: [1.0] * 3, ANSWERS: ["15"] * 3, WENT_ON: []}


def test_an_episode_ends_with_the_same_program_twice_and_after_the_last_round() -> None:
    twice = judged(WRONG, WRONG)
    assert (twice.tags[VERDICTS], twice.tags[WENT_ON], len(programs_in(twice, SMALL))) == ([0.0] * 3, [[0.0, True]], 1)
    beyond = judged(WRONG, "<calc>out 1", RIGHT, "<calc>out 2")
    assert beyond.tags[VERDICTS] == [0.0, 0.0, 1.0]
    assert beyond.tags[WENT_ON] == [[0.0, True], [0.0, True], [1.0, True]]


def test_rounds_and_verifier_are_counted() -> None:
    played = [
        judged(WRONG, RIGHT, "answer: 15"),  # wrong, on; right, not on
        judged(RIGHT, WRONG, "answer: 25"),  # right, on; wrong, not on
        judged(WRONG, "answer: 25"),  # wrong, not on
        judged("answer: 3"),
    ]
    found = round_metrics(played)
    assert found == {
        "rounds": 5 / 4,
        "rounds@0": 0.25,
        "rounds@1": 0.25,
        "rounds@2": 0.5,
        "rounds@3": 0.0,
        "go_on_precision": 1 / 2,
        "go_on_recall": 1 / 3,
        "false_alarms": 1 / 2,
    }
    revision = revised(played, SmallProgramTasks().answer_in)
    assert (revision["correct@1"], revision["correct@3"], revision["fixed"], revision["broken"], revision["changed"]) == (0.25, 0.25, 0.25, 0.25, 0.5)
    assert round_metrics([Trajectory(TASK, [], [], "eos")]) == {}


def test_without_checks_an_episode_is_one_program() -> None:
    tasks = SmallProgramTasks(verify=False)
    step = tasks.environment().step(RIGHT)
    assert (step.done, step.messages) == (True, ())
    trajectory = Trajectory(TASK, [], [Segment([], "policy", RIGHT)], "environment", tags={"environment_reward": 0.0})
    assert tasks.verify_trajectory(trajectory)["correct"] == 1.0
    assert (tasks.max_turns, trajectory.tags[VERDICTS], trajectory.tags[WENT_ON]) == (1, [1.0], [[1.0, None]])


def test_lessons_go_wrong_as_often_as_said_and_see_it() -> None:
    tasks = SmallProgramTasks()
    rounds = {1: 0, 2: 0, 3: 0}
    for i in range(400):
        task = tasks.train_task(0, i)
        programs = [SMALL.program_in(m.content) for m in tasks.conversation(task, 0) if m.role == "assistant"]
        tried = [p for p in programs if p is not None]
        rounds[len(tried)] += 1
        assert [tasks.check(task, p)[1] for p in tried] == [*[False] * (len(tried) - 1), True]
    assert rounds[1] / 400 == pytest.approx(0.7, abs=0.07)
    assert rounds[3] / 400 == pytest.approx(0.1, abs=0.05)
    assert tasks.check(TASK, "a=12+5;b=a+8;out b") == ("12 5 8 ok\n5-5=0 ok", True)
    assert tasks.check(TASK, "a=12-5;b=a-8;out b") == ("12 5 8 ok\n- 5 no", False)
    assert tasks.check(TASK, "a=12-5;b=a+9;out b") == ("12 5 9 no\n6-5=1 no", False)
    seldom = SmallProgramTasks(wrong_first=1.0, wrong_again=0.1)
    given = [seldom.conversation(seldom.train_task(0, i), 0) for i in range(300)]
    assert sum(len([m for m in c if m.role == "tool"]) == 3 for c in given) / 300 == pytest.approx(0.1, abs=0.05)
    told = [tasks._wrong_program(TASK, Random(i)) for i in range(50)]
    assert tasks.program(TASK) not in told


def test_tasks_of_ones_own_are_solved_in_python() -> None:
    rows = [
        {"prompt": f"{a} times {a}?", "answer": a * a, "conversation": [{"role": "assistant", "content": f"<python>print({a * a})</python>"}]}
        for a in (3, 4, 5)
    ]
    tasks = load_tasks(rows, env="cosc:rounds=2,prompt=none")
    assert isinstance(tasks, ProgramRounds)
    assert (tasks.max_turns, tasks.stop) == (3, ("</python>",))
    task = tasks.train_task(0, 0)
    conversation = tasks.conversation(task, 0)
    assert conversation is not None
    environment = tasks.environment()
    assert environment.reset(task) == task.messages
    failed = environment.step("<python>print(1/0)")
    assert (failed.info, failed.messages[0].content.splitlines()[-1]) == ({"tool_calls": 1, "tool_errors": 1}, "ZeroDivisionError: division by zero")
    right = environment.step(f"wrong.\n{conversation[-1].content}")
    assert (right.messages, right.done) == ((Message("tool", task.answer or ""),), False)
    segments = [
        Segment([], "policy", "<python>print(1/0)"),
        Segment([], "tool", failed.messages[0].content),
        Segment([], "policy", conversation[-1].content),
    ]
    trajectory = Trajectory(task, [], segments, "environment", tags={"environment_reward": 0.0})
    assert tasks.verify_trajectory(trajectory) == {"correct": 1.0}
    assert trajectory.tags[ANSWERS] == [None, task.answer]
    assert "Python code that prints the answer" in load_tasks(rows, env="cosc").train_task(0, 0).prompt


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ("cosc:rounds=0", "rounds is 0"),
        ("cosc:language=basic", "language is 'basic'"),
        ("cosc:language=small,seconds=2", "seconds is a limit of the sandbox"),
        ("cosc:turns=2", "'turns=2' is no setting"),
        ("cosc:prompt=/nowhere", "prompt is '/nowhere'"),
    ],
)
def test_options_that_make_no_sense_are_named(env: str, named: str) -> None:
    with pytest.raises(InputError, match=named):
        load_tasks("arithmetic", env=env)


def test_only_single_turns_can_be_solved_in_rounds() -> None:
    with pytest.raises(InputError, match="environment of its own"):
        load_tasks("calculator", env="cosc")


@pytest.mark.parametrize("verify", [True, False])
def test_programs_vote_with_what_they_put_out(verify: bool) -> None:
    tasks = SmallProgramTasks(verify=verify)
    said = [[RIGHT, "answer: 15"], [WRONG], ["<calc>a=7;b=a+8;out b", "answer: 15"]] if verify else [[RIGHT], [WRONG], ["<calc>a=7;b=a+8;out b"]]
    row = [episode(*turns, rounds=tasks.rounds) for turns in said]
    judge(row, tasks)
    assert [t.correct for t in row] == [1.0, 0.0, 1.0]
    assert measured(tasks, [TASK], [row], [[1.0] * 3])["eval/maj@3"] == 1

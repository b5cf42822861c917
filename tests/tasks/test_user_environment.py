from __future__ import annotations

import pytest

from etude.errors import InputError
from etude.rewards import judge
from etude.tasks.base import EnvironmentStep
from etude.tasks.jsonl import JsonlTaskSet
from etude.tasks.user_environment import EnvironmentClass, EnvironmentTaskSet
from etude.tasks.user_reward import RewardedTaskSet, RewardFunction
from etude.types import Message, Segment, Task, Trajectory

TASK = Task("guess-1", (Message("user", "guess"),), answer="5")
HEAD = "class Env:\n"
RESET = "    def reset(self, task):\n        return task.messages\n"
STEP = "    def step(self, text):\n        return 'again', 0.5, False\n"


def load(tmp_path, code: str, seed: int = 0) -> EnvironmentClass:
    (tmp_path / "mine.py").write_text(code)
    return EnvironmentClass.load(f"{tmp_path}/mine.py:Env", seed)


@pytest.mark.parametrize("opening", ["'guess'", "task.messages", "list(task.messages)", "[{'role': 'user', 'content': 'guess'}]"])
def test_opening_messages_come_in_several_forms(tmp_path, opening):
    environment = load(tmp_path, HEAD + f"    def reset(self, task):\n        return {opening}\n" + STEP).make()
    assert list(environment.reset(TASK)) == [Message("user", "guess")]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("'again', 0.5, False", EnvironmentStep((Message("user", "again"),), 0.5, False)),
        ("None, 1, True", EnvironmentStep((), 1.0, True)),
        ("[], True, True, {'correct': 1}", EnvironmentStep((), 1.0, True, {"correct": 1.0})),
        ("[{'role': 'tool', 'content': '42'}], 0.0, False, None", EnvironmentStep((Message("tool", "42"),), 0.0, False)),
        ("__import__('etude.tasks.base').tasks.base.EnvironmentStep(reward=2.0, done=True)", EnvironmentStep((), 2.0, True)),
        ("'x', __import__('numpy').float32(0.5), __import__('numpy').bool_(True)", EnvironmentStep((Message("user", "x"),), 0.5, True)),
    ],
)
def test_steps_come_in_several_forms(tmp_path, answer, expected):
    environment = load(tmp_path, HEAD + RESET + f"    def step(self, text):\n        return {answer}\n").make()
    environment.reset(TASK)
    assert environment.step("3") == expected
    environment.close()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("None", r"step\(text\) is None on task 'guess-1'; expected an EnvironmentStep or a tuple"),
        ("0.5, False", r"step\(text\) is \(0.5, False\) \(tuple\)"),
        ("'x', None, False", r"reward of step\(text\) is None on task 'guess-1'; expected a finite number"),
        ("'x', float('nan'), False", r"reward of step\(text\) is nan"),
        ("'x', 0.0, 'no'", r"done of step\(text\) is 'no' \(str\).*expected True or False"),
        ("3, 0.0, False", r"messages of step\(text\) is 3 \(int\)"),
        ("[3], 0.0, False", r"a list with 3 \(int\) in it"),
        ("[{'role': 'robot', 'content': 'x'}], 0.0, False", "roles being system, user, assistant, tool"),
        ("'x', 0.0, True, {'correct': 2}", r"info\['correct'\] of step\(text\) is 2.0.*expected a number from 0 to 1"),
        ("'x', 0.0, True, 'info'", r"info of step\(text\) is 'info' \(str\)"),
        ("[][0]", r"step failed on task 'guess-1': IndexError.*\(mine\.py, line 5, in step\)"),
    ],
)
def test_a_wrong_step_names_the_task(tmp_path, answer, told):
    environment = load(tmp_path, HEAD + RESET + f"    def step(self, text):\n        return {answer}\n").make()
    environment.reset(TASK)
    with pytest.raises(InputError, match=told):
        environment.step("3")


@pytest.mark.parametrize(("opening", "told"), [("None", "is None"), ("[]", "is no messages"), ("[1]", "a list with 1"), ("1 / 0", "ZeroDivisionError")])
def test_a_wrong_opening_names_the_task(tmp_path, opening, told):
    environment = load(tmp_path, HEAD + f"    def reset(self, task):\n        return {opening}\n" + STEP).make()
    with pytest.raises(InputError, match=rf"reset.*{told}.*'guess-1'|reset failed on task 'guess-1': {told}"):
        environment.reset(TASK)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("Env = 3\n", r"is 3 \(int\); expected a class"),
        (HEAD + RESET, "has no method step"),
        (HEAD + STEP, "has no method reset"),
        ("from etude.tasks.base import Environment\n\nclass Env(Environment):\n" + RESET, "has no method step"),
        (HEAD + "    def reset(self):\n        return 'x'\n" + STEP, r"cannot be called as reset\(task\)"),
        (HEAD + RESET + "    def step(self, text, extra):\n        return 'x', 0, True\n", r"cannot be called as step\(text\)"),
        (HEAD + "    def __init__(self, size):\n        pass\n" + RESET + STEP, "needs constructor arguments.*'size'"),
        (HEAD + "    max_turns = 'many'\n" + RESET + STEP, "max_turns = 'many'"),
    ],
)
def test_what_is_no_environment_is_refused_when_loaded(tmp_path, code, told):
    with pytest.raises(InputError, match=told):
        load(tmp_path, code)


def test_a_failing_constructor_is_told_with_its_line(tmp_path):
    kind = load(tmp_path, HEAD + "    def __init__(self):\n        raise OSError('no game server')\n" + RESET + STEP)
    with pytest.raises(InputError, match=r"could not be constructed: OSError: no game server \(mine\.py, line 3, in __init__\)"):
        kind.make()


def test_a_constructor_that_takes_a_seed_gets_the_runs(tmp_path):
    code = HEAD + "    def __init__(self, seed):\n        self.seed = seed\n" + "    def reset(self, task):\n        return str(self.seed)\n" + STEP
    assert load(tmp_path, code, seed=11).make().reset(TASK)[0].content == "11"


def test_each_episode_has_its_own_instance_and_snapshots_pass_through(tmp_path):
    code = (
        HEAD
        + "    def reset(self, task):\n        self.turns = 0\n        return 'go'\n"
        + "    def step(self, text):\n        self.turns += 1\n        return 'on', self.turns, False\n"
        + "    def snapshot(self):\n        return self.turns\n    def restore(self, state):\n        self.turns = state\n"
    )
    kind = load(tmp_path, code)
    one, two = kind.make(), kind.make()
    one.reset(TASK)
    two.reset(TASK)
    one.step("a")
    saved = one.snapshot()
    assert (one.step("b").reward, two.step("a").reward) == (2.0, 1.0)
    one.restore(saved)
    assert one.step("b").reward == 2.0
    with pytest.raises(TypeError, match="cannot be used for search"):
        load(tmp_path, HEAD + RESET + STEP).make().snapshot()


def episode(reward: float, correct: float | None = None) -> Trajectory:
    tags = {"environment_reward": reward} | ({} if correct is None else {"environment_correct": correct})
    return Trajectory(TASK, [], [Segment([], "policy", "answer: 5")], "environment", tags=tags)


@pytest.fixture
def wrapped(tmp_path) -> EnvironmentTaskSet:
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    return EnvironmentTaskSet(JsonlTaskSet(path, needs_answers=False), load(tmp_path, HEAD + "    max_turns = 3\n" + RESET + STEP))


def test_the_environment_judges_the_episode(wrapped):
    assert wrapped.max_turns == 3
    said, silent, beyond = episode(0.5, correct=1.0), episode(0.25), episode(-2.0)
    judge([said, silent, beyond], wrapped)
    assert [(t.reward, t.correct) for t in (said, silent, beyond)] == [(0.5, 1.0), (0.25, 0.25), (-2.0, 0.0)]
    assert said.rewards == {"environment": 0.5, "correct": 1.0}


def test_a_reward_function_is_added_to_the_environments(tmp_path, wrapped):
    (tmp_path / "reward.py").write_text("def score(task, text, trajectory):\n    return {'brief': 0.25 + trajectory.tags['environment_reward']}\n")
    both = RewardedTaskSet(wrapped, RewardFunction.load(f"{tmp_path}/reward.py:score"))
    assert both.environment() is not None
    trajectory = episode(0.5)
    judge([trajectory], both)
    assert trajectory.rewards == {"brief": 0.75, "reward": 0.75, "environment": 0.5, "correct": 1.0}
    assert trajectory.reward == 1.25

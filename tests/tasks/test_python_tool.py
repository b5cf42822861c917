"""Python as a tool around tasks of any kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import etude
from etude.errors import InputError
from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams
from etude.rewards import judge
from etude.rollouts import EpisodeRequest, run_episodes
from etude.run import Run
from etude.sandbox import open_sandbox
from etude.tasks.base import EnvironmentStep
from etude.tasks.loading import load_tasks
from etude.tasks.python_tool import INSTRUCTION, PythonEnvironment, PythonTool, called_code
from etude.types import Message, Segment, Trajectory

ROWS = [{"prompt": f"compute {a}*{b}", "answer": str(a * b)} for a in range(2, 9) for b in range(2, 9)]


def tool(env: str = "python") -> PythonTool:
    made = load_tasks(ROWS, env=env)
    assert isinstance(made, PythonTool)
    return made


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("answer: 3", None),
        ("x <python>print(1)", "print(1)"),
        ("x <python>print(1)</python> <python>print(2)</python>", "print(1)"),
        ("<python>\nx = 1\nif x:\n    print(x)\n</python>", "x = 1\nif x:\n    print(x)"),
        ("<python>```python\nprint(1)\n```</python>", "print(1)"),
        ("<python>\n```\nprint(1)\n```\n", "print(1)"),
        ("<python></python>", ""),
    ],
)
def test_a_call_is_what_stands_between_the_marks(text: str, code: str | None) -> None:
    assert called_code(text) == code


def test_calls_are_answered_until_a_turn_makes_none() -> None:
    tasks = tool()
    environment = tasks.environment()
    task = tasks.train_task(0, 0)
    assert [m.content for m in environment.reset(task)] == [task.prompt]
    assert task.prompt.startswith(f"{INSTRUCTION}\n\ncompute ")

    def ask(text: str) -> tuple[str, bool, dict[str, object]]:
        step: EnvironmentStep = environment.step(text)
        assert all(m.role == "tool" for m in step.messages)
        return "".join(m.content for m in step.messages), step.done, dict(step.info)

    assert ask("<python>x = 6\nprint('a')\nx * 7") == ("a\n42", False, {"tool_calls": 1, "tool_errors": 0, "tool_status": "ok"})
    answer, _, info = ask("<python>x</python>")
    assert "NameError" in answer
    assert info == {"tool_calls": 1, "tool_errors": 1, "tool_status": "error"}
    assert "SyntaxError" in ask("<python>print(")[0]
    assert ask("<python>  </python>") == (
        "SyntaxError: the call holds no code; expected <python>code</python>",
        False,
        {"tool_calls": 1, "tool_errors": 1, "tool_status": "error"},
    )
    # The word is no error, and a hidden error is none that the sandbox could see.
    assert ask("<python>print('Error: 1')") == ("Error: 1", False, {"tool_calls": 1, "tool_errors": 0, "tool_status": "ok"})
    assert ask("answer: 42") == ("", True, {})


def test_limits_can_be_given_and_are_told_to_the_model() -> None:
    environment = tool("python:seconds=0.3,output=50,turns=3").environment()
    step = environment.step("<python>while True: pass")
    assert (step.messages, step.info["tool_status"]) == ((Message("tool", "TimeoutError: the code ran for more than 0.3 seconds"),), "timeout")
    assert environment.step("<python>print('x' * 100)").info["tool_status"] == "output-limit"


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap (apt-get install bubblewrap)")
def test_the_jail_runs_all_of_python() -> None:
    try:
        open_sandbox("jail", workers=1).close()
    except InputError as error:
        pytest.skip(str(error))
    environment = tool("python:backend=jail,preload=fractions+decimal,workers=1").environment()
    step = environment.step("<python>from fractions import Fraction\nsum(Fraction(1, k) for k in range(1, 5))")
    assert (step.messages, step.info["tool_errors"]) == ((Message("tool", "Fraction(25, 12)"),), 0)


class TwoCalls(PythonEnvironment):
    """Hears two calls before whatever the policy says."""

    def reset(self, task):  # type: ignore[no-untyped-def]
        self.calls = ["<python>1 / 0", "<python>6 * 7"]
        return super().reset(task)

    def step(self, text: str) -> EnvironmentStep:
        return super().step(self.calls.pop(0) if self.calls else text)


def test_an_episode_carries_what_its_calls_did_and_trains_on_no_word_of_the_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = tool("python:instruct=false")
    monkeypatch.setattr(PythonTool, "environment", lambda self: TwoCalls(self._sandbox))
    policy = LanguageModel.load("tiny")
    request = EpisodeRequest(tasks.train_task(0, 0), 0, 1)
    [trajectory] = run_episodes(policy, [request], tasks, SamplingParams(max_new_tokens=6), max_turns=4, ledger=Ledger())
    assert [(s.author, s.trained) for s in trajectory.segments] == [("policy", True), ("tool", False)] * 2 + [("policy", True)]
    assert "ZeroDivisionError" in trajectory.segments[1].text
    assert trajectory.segments[3].text == "42"
    assert (trajectory.tags["tool_calls"], trajectory.tags["tool_errors"]) == (2, 1)
    judge([trajectory], tasks)
    assert (trajectory.rewards["tool_calls"], trajectory.rewards["tool_errors"]) == (2.0, 1.0)
    assert trajectory.reward == trajectory.rewards["correct"]


def test_the_last_turn_is_judged_by_the_tasks_own_verifier_or_reward() -> None:
    def episode(tasks: PythonTool, last: str) -> Trajectory:
        task = tasks.train_task(0, 0)
        segments = [Segment([], "policy", "<python>answer: 1"), Segment([], "tool", "no"), Segment([], "policy", last.format(task.answer))]
        trajectory = Trajectory(task, [], segments, "environment", tags={"environment_reward": 0.0, "tool_calls": 1, "tool_errors": 1})
        judge([trajectory], tasks)
        return trajectory

    own = tool()
    assert [episode(own, last).reward for last in ("answer: {}", "answer: 1{}")] == [1.0, 0.0]
    assert episode(own, "answer: {}").correct == 1.0

    rewarded = load_tasks(ROWS, reward=lambda task, text, trajectory: 10.0 - trajectory.tags["tool_errors"], env="python")
    assert isinstance(rewarded, PythonTool)
    judged = episode(rewarded, "answer: {}")
    assert (judged.reward, judged.correct) == (9.0, 1.0)


def test_a_model_can_be_trained_and_measured_with_the_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    small = {"tasks": "problems.jsonl", "env": "python:instruct=false,turns=3"}
    etude.train("grpo", **small, out="run", steps=1, tasks_per_step=2, group_size=2, eval_tasks=2, eval_samples=2, max_new_tokens=8, quiet=True, threads=1)
    assert Run.open("run").metrics()[-1]["ledger"]["environment_steps"] >= 4
    again = etude.evaluate("run", samples=2, tasks_limit=2, max_new_tokens=8, **small, threads=1)
    assert again.metrics["eval/pass@1"] >= 0


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("python:quickly", r"'quickly' is no setting; expected option=value, options being backend \(safe or jail\)"),
        ("python:colour=3", "'colour=3' is no setting"),
        ("python:seconds=soon", "can't be made"),
        ("python:seconds=0", "limit seconds is 0"),
        ("python:turns=1", "turns is 1; expected at least 2"),
        ("python:backend=docker", "no sandbox 'docker'"),
    ],
)
def test_bad_options_are_refused(env: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_tasks(ROWS, env=env)


def test_tasks_with_an_environment_or_without_answers_are_refused() -> None:
    with pytest.raises(InputError, match="calculator is played in an environment of its own"):
        load_tasks("calculator", env="python")
    with pytest.raises(InputError, match="answer"):
        load_tasks([{"prompt": "a"}, {"prompt": "b"}], env="python")

"""Ways to spend the same tokens: how an answer is picked, and the command that compares them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from etude.cli import main
from etude.evals.step_search import Valued, highest, voted
from etude.tasks.answers import final_answer
from etude.types import Message, Segment, Task, Trajectory

TASK = Task("t", (Message("user", "?"),), "3")


def valued(text: str, value: float, whole: bool = True) -> Valued:
    return Valued(Trajectory(TASK, [1], [Segment([2], "policy", text)], "eos"), value, whole)


def test_answers_are_picked_by_value_by_votes_or_by_both() -> None:
    solutions = [valued("answer: 1", 0.4), valued("answer: 3", 0.9), valued("answer: 1.0", 0.4), valued("2 is", 0.95), valued("answer: 1", 0.05)]
    assert highest(solutions).text == "2 is"
    assert highest([*solutions[:2], valued("2 is", 0.95, whole=False)]).text == "answer: 3"
    assert highest([valued("2 is", 0.1, whole=False)]).text == "2 is"
    assert voted(solutions, final_answer, weighted=False).text == "answer: 1"
    # 0.4 + 0.4 + 0.05 against 0.9.
    assert voted(solutions, final_answer, weighted=True).text == "answer: 3"
    assert voted([valued("hm", 0.3)], final_answer, weighted=True).text == "hm"


def test_the_command_spends_the_same_on_every_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ways.json"
    asked = ["eval", "tiny", "--protocol", "search", "--tasks", "register-chain", "--tasks-limit", "3", "--search-tokens", "120", "--threads", "1"]
    assert main([*asked, "--value-model", "chance", "--out", str(out)]) == 0
    ways = json.loads(out.read_text())["ways"]
    assert set(ways) == {"mcts", "beam", "best-of-n", "votes", "weighted-votes"}
    for way, found in ways.items():
        spent = [answer["tokens"] for answer in found["answers"]]
        assert found["spent"]["generated_tokens"] == sum(spent)
        # The expansion, or the attempt, that reaches the limit is the last one; a search may end sooner, with its answer or where nothing is open.
        assert all(n < 120 + 3 * 68 for n in spent)
        assert way in ("mcts", "beam") or all(n >= 120 for n in spent)
    assert "weighted-votes" in capsys.readouterr().out
    assert main(asked) == 2
    assert "--value-model is not given" in capsys.readouterr().err
    assert main(["eval", "http://127.0.0.1:9/v1#m", "--protocol", "search"]) == 2

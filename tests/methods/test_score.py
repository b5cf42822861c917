"""SCoRe and the imitation of corrections: what each attempt is paid, what its tokens are credited with, and what becomes an example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import etude
from etude.advantages.turns import trained_turns
from etude.curation import corrections, paired_corrections
from etude.curation.examples import ORIGIN
from etude.errors import InputError
from etude.evals.revision import corrected_votes
from etude.method import get_method
from etude.methods.self_correction.score import balanced
from etude.rewards.progress import with_progress
from etude.run import Run
from etude.settings import build_config
from etude.tasks.base import TaskSet
from etude.tasks.builtin import builtin_task_sets
from etude.tasks.loading import load_tasks
from etude.tasks.revisions import ATTEMPT_REWARDS, VERDICTS, given_attempts
from etude.types import Group, Message, Segment, Task, Trajectory, trajectories_of

FEW: dict[str, Any] = {"tasks_per_step": 2, "group_size": 4, "eval_tasks": 2, "eval_samples": 1, "eval_kl": False, "threads": 1}
TASK = Task("t", (Message("user", "?"),), "5")


def ready(folder: Path, tasks: str = "check-and-fix", **settings: Any) -> Any:
    """A SCoRe run before its first step."""
    config: Any = build_config("score", out=folder, tasks=tasks, **{**FEW, **settings})
    method: Any = get_method("score")(config, Run(folder, config.run))
    method.setup()
    method.run.step = 1
    return method


def episode(first: float, second: float, *, tokens: tuple[int, int] = (1, 2)) -> Trajectory:
    turns = [Segment([tokens[0]], "policy", "answer: 5", True), Segment([9], "environment", "again"), Segment([tokens[1]], "policy", "answer: 6", True)]
    return Trajectory(TASK, [0], turns, "environment", tags={VERDICTS: [first, second], ATTEMPT_REWARDS: [first, second]})


def test_progress_is_paid_beside_the_reward() -> None:
    worth = {pair: with_progress(pair, alpha=10)[1] for pair in [(1, 1), (0, 1), (0, 0), (1, 0)]}
    assert worth == {(1, 1): 1, (0, 1): 11, (0, 0): 0, (1, 0): -10}
    assert with_progress([0, 1, 1, 0], alpha=2) == [0, 3, 1, -2]
    assert with_progress([], alpha=2) == []


def test_beta_goes_towards_balance_in_bounded_steps() -> None:
    assert balanced(0.2, pull=2.0, push=0.5) == 0.25
    assert balanced(0.2, pull=0.1, push=0.5) == pytest.approx(0.3)
    assert balanced(0.3, pull=9.0, push=0.5) == pytest.approx(0.2)
    assert balanced(0.3, pull=0.0, push=0.5) == 0.3


@pytest.fixture(scope="module")
def method(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return ready(tmp_path_factory.mktemp("score") / "run", stage_steps=1, given_attempts=0.5, beta1=0.1, beta2=2.0)


def credited(method: Any, stage: int, pairs: list[tuple[float, float]], divergences: list[list[float]]) -> list[list[float]]:
    """The advantage of each turn of a group, by hand-made rewards and divergences."""
    group = Group("t", [episode(*pair) for pair in pairs])
    method.run.step = stage
    method.divergences = lambda episodes: divergences
    try:
        method.credit([group])
    finally:
        del method.divergences
        method.run.step = 1
    return [[round(s.advantages[0], 9) for s in trained_turns(t)] for t in group.trajectories]


def test_the_first_stage_pays_later_attempts_and_holds_the_first(method: Any) -> None:
    # First turns: -2 * (0.5, 0.1). Second turns: 0 - 0.1 * 1 and 1 - 0.1 * 0. What the first attempt was worth does not enter.
    expected = [[-0.8, -1.1], [0.8, 1.1]]
    assert credited(method, 1, [(1, 0), (0, 1)], [[0.5, 1.0], [0.1, 0.0]]) == expected
    assert credited(method, 1, [(0, 0), (1, 1)], [[0.5, 1.0], [0.1, 0.0]]) == expected


def test_the_second_stage_pays_both_and_the_bonus_to_the_second_alone(method: Any) -> None:
    # First turns: 1 - 0.1 * 1 and 0. Second turns: -10 and 11. All over 11.
    found = credited(method, 2, [(1, 0), (0, 1)], [[1.0, 0.0], [0.0, 0.0]])
    assert found == [[round(0.9 / 11, 9), round(-21 / 11, 9)], [round(-0.9 / 11, 9), round(21 / 11, 9)]]
    # What the second attempt is worth says nothing about the first.
    other = credited(method, 2, [(1, 1), (0, 0)], [[1.0, 0.0], [0.0, 0.0]])
    assert [row[0] for row in other] == [row[0] for row in found]


def test_a_share_of_episodes_begins_after_attempts_of_the_start(method: Any) -> None:
    method.run.step = 2
    groups = method.collect(method.curriculum.next(8))
    method.run.step = 1
    begun = [t for t in trajectories_of(groups) if given_attempts(t.task)]
    assert 8 <= len(begun) <= 24
    for t in begun:
        assert [s.author for s in t.segments] == ["policy"]
        assert len(t.tags[ATTEMPT_REWARDS]) == 2
    method.credit(groups)
    assert any(a for t in begun for a in t.segments[0].advantages)


def test_tasks_of_a_single_answer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="add --env revise, or take --tasks check-and-fix"):
        ready(tmp_path / "a", "arithmetic")
    (tmp_path / "reward.py").write_text("def score(task, text):\n    return 1.0\n")
    with pytest.raises(InputError, match="judges the last answer of check-and-fix alone"):
        ready(tmp_path / "b", reward=f"{tmp_path / 'reward.py'}:score")


def test_three_attempts_and_an_adapted_beta(tmp_path: Path) -> None:
    etude.train(
        "score", out=tmp_path / "run", tasks="arithmetic", env="revise:request=short,turns=3", stage_steps=1, steps=2, adapt_beta2=True, quiet=True, **FEW
    )
    first, second = [line for line in Run.open(tmp_path / "run").metrics() if "time/step" in line]
    assert (first["score/stage"], second["score/stage"]) == (1, 2)
    assert {"revision/correct@3", "score/kl@3"} <= first.keys()
    assert second["score/beta2"] != first["score/beta2"] == 0.25


def test_what_becomes_an_example() -> None:
    pairs = [(0, 1, 3), (0, 0, 4), (1, 1, 5), (1, 0, 6), (float("nan"), 1, 7)]
    episodes = [episode(a, b, tokens=(10 + n, n)) for a, b, n in pairs]

    def shown(examples: list[Trajectory]) -> list[tuple[int, int]]:
        assert all([s.trained for s in e.segments] == [False, False, True] and e.segments[2].advantages == [1.0] for e in examples)
        return [(e.segments[0].tokens[0], e.segments[2].tokens[0]) for e in examples]

    assert shown(corrections(episodes)) == [(13, 3)]
    assert shown(corrections(episodes, keep_right=True)) == [(13, 3), (15, 5)]
    assert shown(paired_corrections(episodes)) == [(13, 3), (13, 5), (14, 3), (14, 5)]
    everything = paired_corrections(episodes, keep_right=True)
    assert len(everything) == 8
    assert {e.tags[ORIGIN]["kind"] for e in everything} == {"correction", "right to right"}


def test_two_ways_to_spend_attempts_before_a_vote() -> None:
    def row(*pairs: tuple[str, str]) -> list[Trajectory]:
        made = []
        for first, second in pairs:
            t = episode(float(first == "5"), float(second == "5"))
            t.segments[0].text, t.segments[2].text = f"answer: {first}", f"answer: {second}"
            made.append(t)
        return made

    answer_in = builtin_task_sets()["arithmetic"]().answer_in
    found = corrected_votes([row(("4", "5"), ("4", "5"), ("5", "5"), ("6", "5")), row(("5", "1"), ("5", "1"), ("5", "1"), ("2", "1"))], answer_in)
    assert found == {"maj@2_corrected": 0.5, "maj@4_first": 0.5}
    assert corrected_votes([row(("4", "5"))], answer_in) == {}


def test_lessons_in_not_looking_again() -> None:
    def kinds(tasks: TaskSet) -> list[float]:
        shown = [[m.content for m in tasks.conversation(tasks.train_task(0, i), i) or () if m.role == "assistant"] for i in range(400)]
        return [sum(a == b for a, b in shown) / 400, sum("=" in b for _, b in shown) / 400]

    copied, worked = kinds(load_tasks("check-and-fix:copies=0.8,edits=0.1,misses=0.5"))
    assert (copied, worked) == (pytest.approx(0.8, abs=0.06), pytest.approx(0.1, abs=0.05))
    pool = load_tasks("check-and-fix:pool=16")
    rounds = [[pool.train_task(0, i).id for i in range(start, start + 16)] for start in (0, 16)]
    assert rounds[0] != rounds[1]
    assert sorted(rounds[0]) == sorted(rounds[1]) == sorted(set(rounds[0]))
    with pytest.raises(InputError, match=r"copies \+ edits is 1.2"):
        load_tasks("check-and-fix:copies=0.7,edits=0.5")

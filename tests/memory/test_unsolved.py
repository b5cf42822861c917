"""The curriculum that leaves out what is solved every time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from etude.memory import UniformCurriculum
from etude.memory.unsolved import UnsolvedCurriculum
from etude.tasks.base import TaskSet
from etude.types import Group, Message, Task, Trajectory


class Six(TaskSet):
    """Six tasks that go round in order."""

    name = "six"

    def train_task(self, seed: int, index: int) -> Task:
        return Task(f"t{index % 6}", (Message("user", "?"),), answer="1")

    def held_out(self) -> Sequence[Task]:
        return []

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        return {"correct": 0.0}


def group(name: str, *verdicts: float) -> Group:
    task = Task(name, (Message("user", "?"),))
    return Group(name, [Trajectory(task, [], [], "eos", reward=v, rewards={"correct": v}) for v in verdicts])


def ids(tasks: Sequence[Task]) -> list[str]:
    return [task.id for task in tasks]


def test_tasks_that_the_newest_attempts_all_solved_are_passed_over() -> None:
    curriculum = UnsolvedCurriculum(UniformCurriculum(Six(), 0))
    assert ids(curriculum.next(6)) == ["t0", "t1", "t2", "t3", "t4", "t5"]
    curriculum.observe([group("t0", 1, 1), group("t1", 1, 0), group("t2", 0, 0), group("t3", 1, float("nan")), group("t4", float("nan"))])
    assert ids(curriculum.next(6)) == ["t1", "t2", "t4", "t5", "t1", "t2"]
    # What fails again comes back; halves of one task in two groups count together.
    curriculum.observe([group("t3", 1, 0), group("t2", 1), group("t2", 0)])
    assert curriculum.solved == {"t0"}


def test_it_only_watches_until_it_is_active() -> None:
    curriculum = UnsolvedCurriculum(UniformCurriculum(Six(), 0), active=False)
    curriculum.observe([group("t0", 1, 1)])
    assert ids(curriculum.next(6))[0] == "t0"
    curriculum.active = True
    assert ids(curriculum.next(6))[0] == "t1"


def test_where_everything_is_solved_tasks_are_handed_out_all_the_same() -> None:
    curriculum = UnsolvedCurriculum(UniformCurriculum(Six(), 0))
    curriculum.observe([group(f"t{i}", 1) for i in range(6)])
    assert ids(curriculum.next(3)) == ["t0", "t1", "t2"]
    curriculum.observe([group("t4", 0)])
    assert ids(curriculum.next(2)) == ["t4", "t4"]


def test_its_state_brings_it_back() -> None:
    first, second = (UnsolvedCurriculum(UniformCurriculum(Six(), 0)) for _ in range(2))
    first.observe([group("t1", 1)])
    first.next(2)
    second.load_state(first.state())
    assert ids(second.next(5)) == ids(first.next(5))
    assert second.state() == first.state()

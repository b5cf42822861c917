"""Micro-repositories: every task can be solved, starts unsolved, and shows one failing call of what decides none."""

from __future__ import annotations

from sandbox.test_jail import needs_bwrap

from etude.tasks.loading import load_tasks
from etude.tasks.repos import micro_functions
from etude.tasks.repos.micro import HIDDEN_TESTS, micro_tasks


@needs_bwrap
def test_micro_repositories() -> None:
    tasks = micro_tasks(workers=1)
    train, held_out = [tasks.train_task(0, i) for i in range(tasks.train_size)], list(tasks.held_out())
    assert len(train) >= 40
    assert len(held_out) >= 20
    # A function is on one side only.
    functions = [{task.id.rpartition("-")[0] for task in side} for side in (train, held_out)]
    assert functions[0].isdisjoint(functions[1])
    assert functions[0] | functions[1] == micro_functions.CALLS.keys()
    assert len({task.opening[0].content for task in (*train, *held_out)}) == len(train) + len(held_out)
    task = held_out[-1]
    store, start = tasks.start_of(task)
    instance = tasks.instance(task)
    solved = store.apply(start, instance.patch)
    assert tasks.judge(task, solved).resolved
    assert not tasks.judge(task, store.with_files(start, {"notes.txt": b"seen"})).resolved
    assert HIDDEN_TESTS not in store.paths(solved)
    assert instance.visible
    assert instance.visible != instance.fail_to_pass
    tasks.close()


@needs_bwrap
def test_they_are_tasks_like_a_bank_s() -> None:
    tasks = load_tasks("repos:micro:turns=6,output=900")
    assert (tasks.name, tasks.max_turns, len(tasks.held_out())) == ("micro", 6, 23)
    tasks.close()

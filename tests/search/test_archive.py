"""Archives of agents: what is in flight is not done twice, what comes next by each rule, and searches that repeat themselves whatever the number of threads does."""

from __future__ import annotations

import json
from random import Random
from threading import Event

import pytest

from etude.errors import InputError
from etude.search.archive import Archive, Failure, Trial
from etude.search.growth import MOST_FAILED, Rule, Sampled, Staged, always_root, best_so_far, work_on
from etude.search.side_by_side import side_by_side
from etude.search.worlds import Simulated, open_world

TASKS = [f"t{i}" for i in range(20)]


def tried(archive: Archive, number: int, *, right: int, wrong: int) -> None:
    for i in range(right + wrong):
        archive.settle_evaluation(archive.evaluate(number, Random(i)), Trial(i < right))


def grown(archive: Archive, parent: int) -> int:
    made = archive.settle_expansion(archive.expand(parent), {})
    assert made is not None
    return made.number


def test_what_is_in_flight_is_not_begun_again() -> None:
    archive = Archive({}, ["a", "b"])
    first, second = archive.evaluate(0, Random(0)), archive.evaluate(0, Random(0))
    assert {first.task, second.task} == {"a", "b"}
    assert (archive.has_untried(0), archive.tree.root.reserved, archive.evaluations) == (False, 2, 0)
    with pytest.raises(InputError, match="tried on all 2 tasks"):
        archive.evaluate(0, Random(0))
    with pytest.raises(InputError, match="in flight"):
        archive.to_plain()
    # A child is added while trials of its parent are under way.
    child = grown(archive, 0)
    archive.settle_evaluation(second, Trial(True, "well done"))
    with pytest.raises(InputError, match="is not in flight"):
        archive.settle_evaluation(second, Trial(True))
    archive.settle_evaluation(first, Trial(False))
    assert archive.settle_expansion(archive.expand(child), None) is None
    assert (len(archive), archive.failures, archive.expansions, archive.tree.root.reserved) == (2, 1, 2, 0)
    again = Archive.from_plain(json.loads(json.dumps(archive.to_plain())))
    assert again.to_plain() == archive.to_plain()
    assert again.trials[0][str(second.task)] == Trial(True, "well done")


def test_a_parent_is_judged_by_its_clade_and_a_trial_by_own_counts() -> None:
    archive = Archive({}, TASKS)
    tried(archive, 0, right=4, wrong=6)
    one, other = grown(archive, 0), grown(archive, 0)
    tried(archive, one, right=6, wrong=4)
    tried(archive, other, right=3, wrong=5)
    for right in (0, 0):
        tried(archive, grown(archive, one), right=right, wrong=10)
    tried(archive, grown(archive, other), right=10, wrong=0)
    # At the end draws are as good as means. Clades: 24 of 58, 6 of 30 and 13 of 18; own: 4/10, 6/10, 3/8, 0, 0 and 10/10.
    assert archive.tree.nodes[other].statistics.total == 13
    job = Sampled(exponent=0.99).next(archive, 1.0, Random(1))
    # The grandchild with 10 of 10 is its own clade, and the best of all.
    assert job is not None
    assert (job.node, job.task) == (5, None)
    archive.settle_expansion(job, None)
    after = Sampled(exponent=0.99).next(archive, 1.0, Random(1))
    # After a change that failed something is tried.
    assert after is not None
    assert (after.node, after.task is None) == (5, False)


def test_the_root_is_tried_until_something_works_and_changes_have_a_limit() -> None:
    archive, rule = Archive({}, TASKS), Sampled(warm_up=3, most=1)
    tried(archive, 0, right=0, wrong=5)
    job = rule.next(archive, 0.0, Random(0))
    assert job is not None
    assert (job.node, job.task is None) == (0, False)
    archive.settle_evaluation(job, Trial(True))
    job = rule.next(archive, 0.0, Random(0))
    assert job is not None
    assert job.task is None
    archive.settle_expansion(job, None)
    left = [rule.next(archive, 0.0, Random(0)) for _ in range(len(TASKS) - 6)]
    assert all(job is not None and job.task is not None for job in left)
    assert rule.next(archive, 0.0, Random(0)) is None


def test_staged_rules_try_more_of_what_does_well() -> None:
    archive, rule = Archive({}, TASKS), Staged(best_so_far, 5, 10, 0.4)

    def until_expansion(right: int) -> int:
        done = 0
        while (job := rule.next(archive, 0.0, Random(0))) is not None and job.task is not None:
            archive.settle_evaluation(job, Trial(done < right))
            done += 1
        assert job is not None
        archive.settle_expansion(job, {})
        return done

    assert [until_expansion(right) for right in (2, 1, 5)] == [15, 5, 15]
    # 2 of 15, 1 of 5 and 5 of 15: the third did best.
    assert [node.parent for node in archive.tree.nodes] == [None, 0, 1, 2]
    assert Staged(always_root, 1).next(archive, 0.0, Random(0)) is not None


@pytest.mark.parametrize("rule", [Sampled(warm_up=1), Staged(best_so_far, 2)])
def test_a_search_whose_changes_all_fail_spends_its_trials_and_ends(rule: Rule) -> None:
    archive, random = Archive({}, ["a", "b", "c", "d"]), Random(0)
    while (job := rule.next(archive, 0.5, random)) is not None:
        if job.task is None:
            archive.settle_expansion(job, Failure("broken"))
        else:
            archive.settle_evaluation(job, Trial(True))
    assert archive.evaluations == 4
    assert archive.failed_in_a_row == MOST_FAILED
    assert archive.history(0).failures == ("broken",) * archive.failures
    again = Archive.from_plain(json.loads(json.dumps(archive.to_plain())))
    assert again.to_plain() == archive.to_plain()


def test_results_come_in_the_order_of_jobs_however_long_each_takes() -> None:
    overtaken, settled, known = [Event() for _ in range(6)], list[int](), list[int]()

    def next_job() -> int | None:
        known.append(len(settled))
        return len(known) - 1 if len(known) <= 6 else None

    def work(job: int) -> int:
        if job % 2:
            overtaken[job - 1].set()
        else:
            assert overtaken[job].wait(60)
        return job

    side_by_side(next_job, work, lambda job, result: settled.append(result), workers=2)
    assert settled == [0, 1, 2, 3, 4, 5]
    # Each was chosen knowing all results but the last one before it.
    assert known[:6] == [0, 0, 1, 2, 3, 4]


def search(world: Simulated, workers: int, rule: Rule) -> Archive:
    archive = Archive(world.root(), world.tasks)
    work_on(
        archive,
        world,
        rule,
        share=lambda: archive.evaluations / 100,
        room=lambda: archive.evaluations + len(archive.trying) < 100,
        random=lambda purpose, number: Random(f"{purpose} {number}"),
        workers=workers,
    )
    return archive


@pytest.mark.parametrize("rule", [Sampled(), Staged(best_so_far, 10)])
def test_a_search_in_threads_repeats_itself(rule: Rule) -> None:
    first, again = (search(Simulated(), 4, rule) for _ in range(2))
    assert first.evaluations == 100
    assert len(first) > 5
    assert first.to_plain() == again.to_plain()


def test_worlds_by_name() -> None:
    assert open_world("simulated:brittle=0.5,heredity=false") == Simulated(brittle=0.5, heredity=False)
    for spec, said in (
        ("simulation", "Did you mean simulated"),
        ("simulated:speed=1", "is no setting"),
        ("simulated:brittle=2", "brittle=2"),
        ("a.py:W", "no file"),
    ):
        with pytest.raises(InputError, match=said):
            open_world(spec)

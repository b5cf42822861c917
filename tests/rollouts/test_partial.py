"""Partial rollouts: nothing is lost, doubled or cut short, and what is resumed is what would have been written."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest
from test_episodes import Talk, Talks, make_policy

from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams
from etude.rollouts import Episode, EpisodeRequest, Episodes, Gathered, PartialRollouts, run_episodes
from etude.rollouts.partial import PendingGroup
from etude.rollouts.plain import episode_from_plain, episode_to_plain, task_from_plain, task_to_plain, trajectory_from_plain, trajectory_to_plain
from etude.tasks.base import EnvironmentStep
from etude.types import Alternatives, Group, Message, Segment, StartingPoint, Task, Trajectory, trajectories_of

GROUP = 2
# Any of these ends a turn, so that the random model writes turns of many lengths.
PARAMS = SamplingParams(max_new_tokens=24, stop=tuple("aeiou 123"))


class Line:
    """Phases over one stream of tasks, with weights that stay as they are unless a test says that they were updated."""

    def __init__(self, tasks: Talks, target: int = 2, requested: int = 4, *, params: SamplingParams = PARAMS, slots: int = 8, **options: Any) -> None:
        self.tasks, self.params = tasks, params
        self.policy: LanguageModel = make_policy(context=96)
        self.policy.sampler.slots = slots
        self.partial = PartialRollouts(target, requested, **options)
        self.ledger = Ledger()
        self.cursor = 0

    def ask(self, count: int) -> None:
        for _ in range(count):
            task, index = self.tasks.train_task(0, self.cursor), self.cursor
            self.partial.ask([(task, [EpisodeRequest(task, sample, 100 * index + sample) for sample in range(GROUP)])])
            self.cursor += 1

    def phase(self, accept: Callable[[Group], bool] | None = None, *, update: bool = True) -> Gathered:
        with Episodes(self.policy, self.tasks, self.params, max_turns=4, ledger=self.ledger) as episodes:
            gathered = self.partial.collect(episodes, self.ask, accept)
        assert self.policy.sampler.pending == 0
        if update:
            self.policy.sampler.version += 1
        return gathered

    def synchronous(self, count: int) -> list[Trajectory]:
        """The same attempts, each run to its end at once."""
        wanted = [EpisodeRequest(t, s, 100 * i + s) for i in range(count) for t in [self.tasks.train_task(0, i)] for s in range(GROUP)]
        return run_episodes(make_policy(context=96), wanted, self.tasks, self.params, max_turns=4, ledger=Ledger())


def texts(trajectories: Sequence[Trajectory]) -> dict[tuple[str, int], list[int]]:
    found = {(t.task.id, t.sample): t.tokens for t in trajectories}
    assert len(found) == len(trajectories)
    return found


def lengths_of(gathered: Sequence[Gathered]) -> list[int]:
    return sorted(t.generated_length for g in gathered for t in trajectories_of(g.accepted))


@pytest.mark.parametrize("turns", [0, 3])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_is_resumed_is_what_would_have_been_written_and_nothing_is_lost_or_doubled(turns: int, temperature: float) -> None:
    line = Line(Talks(turns), params=replace(PARAMS, temperature=temperature))
    phases = [line.phase() for _ in range(6)]
    assert all(len(g.accepted) == 2 for g in phases)
    trained = [t for g in phases for t in trajectories_of(g.accepted)]
    waiting = line.partial.buffer
    # Every task that was asked for is either trained on, once, or waits.
    assert sorted([g.key for p in phases for g in p.accepted] + [g.task.id for g in waiting]) == sorted(f"t{i}" for i in range(line.cursor))
    # Every token that was drawn is either trained on or waits.
    assert line.ledger.generated_tokens == sum(t.trained_length for t in trained) + sum(len(g.written) for g in waiting)
    assert any(len(set(s.versions)) > 1 for t in trained for s in t.segments), "no turn was resumed in its middle, so that this shows nothing"
    # Once the buffer is empty, the whole is what an undisturbed sampler writes: the same texts, and so the same lengths.
    while line.partial.buffer:
        line.partial.requested = line.partial.target = min(2, len(line.partial.buffer))
        phases.append(line.phase())
    everything = [t for g in phases for t in trajectories_of(g.accepted)]
    expected = line.synchronous(line.cursor)
    assert texts(everything) == texts(expected)
    assert lengths_of(phases) == sorted(t.generated_length for t in expected)
    by_name = {(t.task.id, t.sample): t for t in expected}
    for t in everything:
        for mine, theirs in zip(t.segments, by_name[t.task.id, t.sample].segments, strict=True):
            assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
            assert len(mine.versions) == len(mine.logprobs)
            assert mine.versions == sorted(mine.versions)
        assert (t.text, t.stop_reason, t.tags) == (
            by_name[t.task.id, t.sample].text,
            by_name[t.task.id, t.sample].stop_reason,
            by_name[t.task.id, t.sample].tags,
        )
    assert line.ledger.rollouts == len(everything)
    assert line.ledger.model_calls == {"policy": sum(s.author == "policy" for t in everything for s in t.segments)}


def test_when_no_more_is_asked_for_than_wanted_nothing_waits() -> None:
    line = Line(Talks(0), target=3, requested=3)
    phases = [line.phase() for _ in range(3)]
    assert [[g.key for g in p.accepted] for p in phases] == [["t0", "t1", "t2"], ["t3", "t4", "t5"], ["t6", "t7", "t8"]]
    assert line.partial.buffer == []
    assert texts([t for p in phases for t in trajectories_of(p.accepted)]) == texts(line.synchronous(9))


def test_asking_for_more_fills_the_slots() -> None:
    """The mechanism: on the same tasks and slots, fewer decode steps for each trained token."""

    def per_step(requested: int) -> float:
        line = Line(Talks(0), target=2, requested=requested, slots=4)
        trained = sum(t.trained_length for _ in range(8) for t in trajectories_of(line.phase().accepted))
        return trained / line.ledger.decode_steps

    assert per_step(6) > 1.15 * per_step(2)


def test_throwing_away_what_is_unfinished_shortens_what_is_trained_on() -> None:
    def run(keep: bool) -> tuple[float, Line, int]:
        line = Line(Talks(0), target=2, requested=6, slots=12, keep=keep)
        phases = [line.phase() for _ in range(10)]
        lengths = lengths_of(phases)
        return sum(lengths) / len(lengths), line, sum(p.dropped_tokens for p in phases)

    kept, _, none = run(True)
    dropped, line, tokens = run(False)
    assert none == 0
    assert dropped < 0.8 * kept
    assert all(group.complete for group in line.partial.buffer)
    assert tokens > 0


def test_the_oldest_go_first_and_batches_are_in_the_order_of_asking() -> None:
    line = Line(Talks(0), target=2, requested=5, slots=2)
    for _ in range(5):
        numbers = [int(g.key[1:]) for g in line.phase().accepted]
        waiting = [g.number for g in line.partial.buffer]
        assert numbers == sorted(numbers)
        assert waiting == sorted(waiting)
        assert len(waiting) == 3
        assert line.partial.asked == line.cursor


def test_what_is_complete_beyond_the_target_is_kept_and_not_made_again() -> None:
    line = Line(Talks(0), target=1, requested=3, slots=6, params=SamplingParams(max_new_tokens=4, ignore_eos=True))
    first = line.phase()
    assert [g.key for g in first.accepted] == ["t0"]
    assert [g.complete for g in line.partial.buffer] == [True, True]
    spent = line.ledger.generated_tokens
    assert spent == 3 * GROUP * 4
    assert [g.key for g in line.phase().accepted] == ["t1"]
    # The fresh group waits: the target was met before anything had to be drawn.
    assert line.ledger.generated_tokens == spent
    assert [g.key for g in line.phase().accepted] == ["t2"]


def test_a_finished_member_of_an_unfinished_group_keeps_its_tokens() -> None:
    line = Line(Talks(0), target=1, requested=4, slots=8)
    seen: dict[tuple[str, int], Trajectory] = {}
    for _ in range(12):
        for trajectory in trajectories_of(line.phase().accepted):
            if kept := seen.pop((trajectory.task.id, trajectory.sample), None):
                assert trajectory is kept
                seen["kept", len(seen)] = trajectory
        ended = [m for g in line.partial.buffer if not g.complete for m in g.members if isinstance(m, Trajectory)]
        seen |= {(t.task.id, t.sample): t for t in ended}
    assert any(key[0] == "kept" for key in seen)


def test_groups_that_the_filter_rejects_are_replaced_and_asked_about_once() -> None:
    asked: list[str] = []

    def accept(group: Group) -> bool:
        asked.append(group.key)
        assert len(group) == GROUP
        return int(group.key[1:]) % 3 != 0

    line = Line(Talks(0), most_rejected=10)
    phases = [line.phase(accept) for _ in range(5)]
    assert all(len(p.accepted) == 2 for p in phases)
    assert sorted(asked) == sorted(set(asked))
    assert all(int(g.key[1:]) % 3 for p in phases for g in p.accepted)
    assert {g.key for p in phases for g in p.rejected} == {key for key in asked if int(key[1:]) % 3 == 0}


def test_a_filter_that_wants_nothing_ends_the_phase_and_loses_nothing() -> None:
    line = Line(Talks(0), most_rejected=3)
    gathered = line.phase(lambda group: False)
    assert gathered.accepted == []
    assert len(gathered.rejected) >= 3
    assert len(gathered.rejected) + len(line.partial.buffer) == line.cursor


def oldest(gathered: Gathered, version: int) -> int:
    return max(version - v for t in trajectories_of(gathered.accepted) for s in t.segments for v in s.versions)


def test_a_limit_on_the_lag_is_kept_by_waiting() -> None:
    def lags(max_lag: int) -> tuple[list[int], list[int]]:
        line = Line(Talks(0), target=2, requested=4, slots=4, max_lag=max_lag, params=replace(PARAMS, stop=("e",)))
        found, overdue = [], []
        for _ in range(10):
            version = line.policy.sampler.version
            gathered = line.phase()
            found.append(oldest(gathered, version))
            overdue.append(gathered.overdue)
        return found, overdue

    free, none = lags(0)
    assert max(free) > 1
    assert not any(none)
    bound, overdue = lags(1)
    assert max(bound) == 1
    assert any(overdue)


def test_a_lag_counts_updates_and_not_phases() -> None:
    line = Line(Talks(0), max_lag=1)
    for _ in range(4):
        gathered = line.phase(update=False)
        assert (oldest(gathered, line.policy.sampler.version), gathered.overdue) == (0, 0)


@pytest.mark.parametrize("turns", [0, 3])
def test_what_waits_is_saved_as_plain_values_and_goes_on_the_same(turns: int) -> None:
    undisturbed, parted = Line(Talks(turns)), Line(Talks(turns))
    for line in (undisturbed, parted):
        for _ in range(3):
            line.phase()
    state = json.dumps(parted.partial.state())
    again = Line(Talks(turns))
    again.partial.load_state(json.loads(state))
    again.cursor, again.policy.sampler.version = parted.cursor, parted.policy.sampler.version
    assert json.dumps(again.partial.state()) == state
    for _ in range(4):
        expected, found = undisturbed.phase(), again.phase()
        assert json.dumps([asdict(g) for g in found.accepted]) == json.dumps([asdict(g) for g in expected.accepted])
    assert json.dumps(again.partial.state()) == json.dumps(undisturbed.partial.state())


def test_an_environment_is_kept_in_the_middle_of_its_episode_and_closed_once() -> None:
    tasks = Talks(3)
    line = Line(tasks)
    while not any(m.segments for g in line.partial.buffer for m in unended(g)):
        line.phase()
    waiting = [m for g in line.partial.buffer for m in unended(g)]
    assert sorted(e.closed for e in tasks.made) == [0] * len(waiting) + [1] * (len(tasks.made) - len(waiting))
    line.partial.close()
    assert {e.closed for e in tasks.made} == {1}
    # The turns of a closed one are played to a fresh environment, so that what waited can still go on; only what is new is paid for.
    made, paid, replayed = len(tasks.made), line.ledger.environment_steps, sum(m.turns for m in waiting)
    assert len(line.phase().accepted) == 2
    assert sum(e.taken for e in tasks.made[made:]) == replayed + line.ledger.environment_steps - paid


def test_an_environment_that_answers_otherwise_when_replayed_begins_anew() -> None:
    class Moody(Talk):
        def step(self, text: str) -> EnvironmentStep:
            answer = super().step(text)
            return replace(answer, messages=(Message("tool", f"no {len(self.owner.made)}"),))

    class Moods(Talks):
        def environment(self) -> Talk:
            return Moody(self)

    tasks = Moods(3)
    line = Line(tasks)
    while not any(m.segments for g in line.partial.buffer for m in unended(g)):
        line.phase()
    line.partial.load_state(json.loads(json.dumps(line.partial.state())))
    with pytest.warns(UserWarning, match="the episode begins anew"):
        gathered = [line.phase() for _ in range(3)]
    assert all(t.tags["environment_reward"] == 0.75 for g in gathered for t in trajectories_of(g.accepted))
    line.partial.close()
    assert {e.closed for e in tasks.made} == {1}


def unended(group: PendingGroup) -> list[Episode]:
    return [m for m in group.members if isinstance(m, Episode)]


@pytest.mark.parametrize("fail", ["step", "reset"])
def test_after_an_error_the_sampler_is_empty_and_environments_are_closed(fail: str) -> None:
    tasks = Talks(3)
    line = Line(tasks)
    if fail == "step":
        line.phase()
    tasks.fail = fail
    # Every phase of these ends an episode or begins one.
    with pytest.raises(ValueError, match=f"{fail} failed"):
        line.phase()
    assert line.policy.sampler.pending == 0
    line.partial.close()
    assert {e.closed for e in tasks.made} == {1}


def test_an_episode_that_is_left_running_is_taken_out_of_the_sampler_and_paid_for() -> None:
    policy, ledger, tasks = make_policy(), Ledger(), Talks(2)
    task = tasks.train_task(0, 0)
    with Episodes(policy, tasks, PARAMS, max_turns=4, ledger=ledger) as episodes:
        episodes.add(EpisodeRequest(task, 0, 0))
        episodes.step()
        assert episodes.running == 1
    assert (policy.sampler.pending, ledger.rollouts, ledger.generated_tokens, ledger.model_calls) == (0, 1, 1, {"policy": 1})
    assert [e.closed for e in tasks.made] == [1]


def test_tasks_and_attempts_come_back_from_plain_values() -> None:
    start = StartingPoint((Message("user", "a"), Message("assistant", "b")), "somebody")
    task = Task("t", (Message("user", "1+1"),), answer="2", info={"numbers": [1, 1]}, start=start)
    assert task_from_plain(json.loads(json.dumps(task_to_plain(task)))) == task
    segment = Segment([5, 6], "policy", "x", True, [-0.1, -1 / 3], [0.5, 0.25], [3, 4], 0.5, [1.0, 1.0], [Alternatives([5, 7], [-0.1, -2.0])] * 2)
    trajectory = Trajectory(task, [1, 2], [segment, Segment([9], "tool", "y")], "eos", sample=3, rewards={"correct": 1.0}, reward=1.0, tags={"kind": "a"})
    assert trajectory_from_plain(json.loads(json.dumps(trajectory_to_plain(trajectory)))) == trajectory
    with pytest.raises(ValueError, match="sample 3 at task 't' has a parent"):
        trajectory_to_plain(replace(trajectory, parent=trajectory))


def test_a_stopped_episode_comes_back_from_plain_values() -> None:
    policy, tasks = make_policy(), Talks(0)
    params = replace(PARAMS, stop=(), alternatives=2)
    hint = (Message("user", "compute 1 + 1 as in 2 + 2"),)
    with Episodes(policy, tasks, params, max_turns=4, ledger=Ledger()) as episodes:
        episode = episodes.add(EpisodeRequest(tasks.train_task(0, 1), 0, 7, hint))
        for _ in range(3):
            episodes.step()
        assert episodes.stop() == [episode]
    again = episode_from_plain(json.loads(json.dumps(episode_to_plain(episode))))
    assert episode.writing is not None
    assert (again.request, again.prompt, again.writing) == (episode.request, policy.render(hint), replace(episode.writing, request=0))
    with Episodes(policy, tasks, params, max_turns=4, ledger=Ledger()) as episodes:
        episodes.resume(again)
        while episodes.running:
            episodes.step()
    (whole,) = run_episodes(policy, [EpisodeRequest(tasks.train_task(0, 1), 0, 7, hint)], tasks, params, max_turns=4, ledger=Ledger())
    assert again.trajectory().tokens == whole.tokens
    assert len(again.segments[0].alternatives) == len(whole.tokens)


@pytest.mark.parametrize(("target", "requested"), [(0, 2), (3, 2)])
def test_a_target_that_cannot_be_met_is_refused(target: int, requested: int) -> None:
    with pytest.raises(ValueError, match=f"target is {target} and requested {requested}"):
        PartialRollouts(target, requested)
